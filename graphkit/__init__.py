"""graphkit: convert trained models to ONNX and TensorRT, with proof that they still compute the same thing.

    import graphkit as gk

    result = gk.convert(module, to="trt", shapes={"x": ("batch", 3, 224, 224)}, dims={"batch": (1, 4, 8)},
                        output="model.engine")
    result.parity.status        # "pass"

Everything below is loaded on first use; importing graphkit loads no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphkit.comparison import ValidateRequest as ValidateRequest
    from graphkit.comparison import validate as validate
    from graphkit.errors import GraphkitError as GraphkitError
    from graphkit.model import Model as Model
    from graphkit.model import Origin as Origin
    from graphkit.model import load as load
    from graphkit.pipeline import ConvertResult as ConvertResult
    from graphkit.pipeline import capture_model as capture_model
    from graphkit.pipeline import convert as convert
    from graphkit.pytest_plugin import assert_parity as assert_parity
    from graphkit.shapes import DimRange as DimRange
    from graphkit.shapes import Signature as Signature
    from graphkit.shapes import TensorSpec as TensorSpec

__version__ = "0.1.0"

_HOME = {
    "ConvertResult": "graphkit.pipeline",
    "DimRange": "graphkit.shapes",
    "GraphkitError": "graphkit.errors",
    "Model": "graphkit.model",
    "Origin": "graphkit.model",
    "Signature": "graphkit.shapes",
    "TensorSpec": "graphkit.shapes",
    "ValidateRequest": "graphkit.comparison",
    "assert_parity": "graphkit.pytest_plugin",
    "capture_model": "graphkit.pipeline",
    "convert": "graphkit.pipeline",
    "load": "graphkit.model",
    "validate": "graphkit.comparison",
}

__all__ = [
    "ConvertResult",
    "DimRange",
    "GraphkitError",
    "Model",
    "Origin",
    "Signature",
    "TensorSpec",
    "ValidateRequest",
    "__version__",
    "assert_parity",
    "capture_model",
    "convert",
    "load",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graphkit' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
