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
    from graphkit.analyze.inspection import Inspection as Inspection
    from graphkit.analyze.inspection import inspect as inspect
    from graphkit.comparison import ValidateRequest as ValidateRequest
    from graphkit.comparison import validate as validate
    from graphkit.delta import Delta as Delta
    from graphkit.delta import diff as diff
    from graphkit.digests import Digest as Digest
    from graphkit.digests import assert_equivalent as assert_equivalent
    from graphkit.digests import digest as digest
    from graphkit.errors import GraphkitError as GraphkitError
    from graphkit.location import locate as locate
    from graphkit.model import Model as Model
    from graphkit.model import Origin as Origin
    from graphkit.model import load as load
    from graphkit.optimization import Optimization as Optimization
    from graphkit.optimization import optimize as optimize
    from graphkit.pipeline import ConvertResult as ConvertResult
    from graphkit.pipeline import capture_model as capture_model
    from graphkit.pipeline import convert as convert
    from graphkit.pytest_plugin import assert_parity as assert_parity
    from graphkit.reduction import ReduceRequest as ReduceRequest
    from graphkit.reduction import Reduction as Reduction
    from graphkit.reduction import reduce as reduce
    from graphkit.shapes import DimRange as DimRange
    from graphkit.shapes import Signature as Signature
    from graphkit.shapes import TensorSpec as TensorSpec
    from graphkit.support.check import CheckRequest as CheckRequest
    from graphkit.support.check import check as check
    from graphkit.support.result import CheckResult as CheckResult

__version__ = "0.1.0"

_HOME = {
    "CheckRequest": "graphkit.support.check",
    "CheckResult": "graphkit.support.result",
    "ConvertResult": "graphkit.pipeline",
    "Delta": "graphkit.delta",
    "Digest": "graphkit.digests",
    "DimRange": "graphkit.shapes",
    "GraphkitError": "graphkit.errors",
    "Inspection": "graphkit.analyze.inspection",
    "Model": "graphkit.model",
    "Optimization": "graphkit.optimization",
    "Origin": "graphkit.model",
    "ReduceRequest": "graphkit.reduction",
    "Reduction": "graphkit.reduction",
    "Signature": "graphkit.shapes",
    "TensorSpec": "graphkit.shapes",
    "ValidateRequest": "graphkit.comparison",
    "assert_equivalent": "graphkit.digests",
    "assert_parity": "graphkit.pytest_plugin",
    "capture_model": "graphkit.pipeline",
    "check": "graphkit.support.check",
    "convert": "graphkit.pipeline",
    "diff": "graphkit.delta",
    "digest": "graphkit.digests",
    "inspect": "graphkit.analyze.inspection",
    "load": "graphkit.model",
    "locate": "graphkit.location",
    "optimize": "graphkit.optimization",
    "reduce": "graphkit.reduction",
    "validate": "graphkit.comparison",
}

__all__ = [
    "CheckRequest",
    "CheckResult",
    "ConvertResult",
    "Delta",
    "Digest",
    "DimRange",
    "GraphkitError",
    "Inspection",
    "Model",
    "Optimization",
    "Origin",
    "ReduceRequest",
    "Reduction",
    "Signature",
    "TensorSpec",
    "ValidateRequest",
    "__version__",
    "assert_equivalent",
    "assert_parity",
    "capture_model",
    "check",
    "convert",
    "diff",
    "digest",
    "inspect",
    "load",
    "locate",
    "optimize",
    "reduce",
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
