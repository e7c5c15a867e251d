"""A model at a newer operator set, where Q/DQ needs one: by onnx's own converter, in a child process."""

from __future__ import annotations

import tempfile
from pathlib import Path

from graphkit.errors import PrecisionRefused
from graphkit.model import INLINE_LIMIT, Model, load
from graphkit.parity.runners import ort_worker
from graphkit.rewrite.provenance import carry_over

_CHILD = "graphkit.precision.quant_opset_child"


def lifted(model: Model, least: int, why: str) -> Model:
    """The model at operator set `least`, or as it is where its own is as new.

    Args:
        why: What needs it: `one scale per channel`.

    Raises:
        PrecisionRefused: onnx cannot convert it, or its weights are too large for its converter.
    """
    if model.opset >= least:
        return model
    remedy = f"export it with --opset {least} or newer"
    told = f"{why} needs operator set {least}, the model has {model.opset}"
    if model.weight_bytes >= INLINE_LIMIT:
        size = f"{model.weight_bytes / 1e9:.1f} GB"
        raise PrecisionRefused(f"{told}, and onnx converts no model of {size}", remedy=remedy)
    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        given, made = Path(folder, "given.onnx"), Path(folder, "made.onnx")
        model.save(given, durable=False)
        failure = ort_worker().call(f"{_CHILD}:convert", given=str(given), made=str(made), opset=least)
        if failure is not None:
            raise PrecisionRefused(f"{told}, and onnx cannot convert it: {failure}", remedy=remedy)
        result = load(made)
    carry_over(model.ir, result.ir)
    _restore_shapes(model, result)
    return model.with_step(f"operator set {model.opset} to {least}", result.ir)


def _restore_shapes(before: Model, after: Model) -> None:
    """onnx's converter infers shapes anew, and renames symbolic dimensions."""
    import onnx_ir as ir

    made = {v.name: v for v in (*after.ir.graph.inputs, *after.ir.graph.outputs)}
    for old in (*before.ir.graph.inputs, *before.ir.graph.outputs):
        if old.shape is not None and old.name in made:
            made[old.name].shape = ir.Shape([d if isinstance(d, int) else d.value for d in old.shape])
