"""onnx's version converter is native code, and is kept out of our own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def convert(given: str, made: str, opset: int) -> str | None:
    """Write the model at `given`, at another operator set, to `made`; returns why not, or None."""
    import onnx
    from onnx import version_converter

    model = onnx.load(given)
    _without_old_inputs(model)
    kept = [(p.key, p.value) for p in model.metadata_props]
    try:
        converted = version_converter.convert_version(model, opset)
        onnx.checker.check_model(converted)
    except Exception as error:  # it raises RuntimeError, ConvertError, ValidationError and others
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    converted.ir_version = max(converted.ir_version, 8)
    del converted.metadata_props[:]
    for key, value in kept:
        converted.metadata_props.add(key=key, value=value)
    onnx.save(converted, made)
    return None


def _without_old_inputs(model: onnx.ModelProto) -> None:
    """Up to version 3 of the format every initializer was an input, too; the converter refuses version 2 and keeps
    the inputs of 3, which newer versions read as values that may be replaced."""
    if model.ir_version >= 4:
        return
    weights = {t.name for t in model.graph.initializer}
    for value in [v for v in model.graph.input if v.name in weights]:
        model.graph.input.remove(value)
    model.ir_version = 4
