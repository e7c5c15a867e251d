"""What runs in the onnxsim child."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

from graphkit.errors import OptimizationFailed


class _NotHere:
    """onnxsim 0.8 imports torch when it finds it (2 s and 200 MB), only for functions that are not used here."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in ("torch", "transformers", "tensorflow"):
            raise ModuleNotFoundError(f"{name} is kept out of the onnxsim child", name=name)


sys.meta_path.insert(0, _NotHere())

import onnx  # noqa: E402, TID253
import onnxsim  # noqa: E402, TID253


def run(given: str, made: str) -> str:
    """Simplify the model at `given` into `made`; returns onnxsim's version."""
    model = onnx.load(given)
    kept = [(p.key, p.value) for p in model.metadata_props]
    try:
        simplified, _ = onnxsim.simplify(model, check_n=0)
    except Exception as error:  # onnxsim raises RuntimeError, ValueError and what onnx raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise OptimizationFailed(
            f"onnxsim could not process the model: {lines[0][:300]}", remedy="--no-optimize"
        ) from error
    del simplified.metadata_props[:]
    for key, value in kept:
        simplified.metadata_props.add(key=key, value=value)
    onnx.save(simplified, made)
    return version("onnxsim")
