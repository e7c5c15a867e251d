"""onnxsim: constant folding, shape inference and Conv+BatchNormalization fusion, in a child process.

onnxsim reads external data without checking where it lies, and crashes on some inputs; so it is given a
self-contained proto, in a child, and its result is compared by us: its own `check` flag says nothing when no check
was asked for.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from graphkit import isolate
from graphkit.errors import OptimizationFailed
from graphkit.model import INLINE_LIMIT, Model, load
from graphkit.rewrite.provenance import carry_over

_CHILD = "graphkit.rewrite.simplify_child"


def warm_up() -> None:
    """Start the child and its imports now, while something else is done."""
    _worker().start()


def why_not(model: Model) -> str | None:
    """Why onnxsim cannot take this model; None where it can."""
    if model.weight_bytes >= INLINE_LIMIT:
        return f"onnxsim needs a single proto below 2 GB; the weights are {model.weight_bytes / 1e9:.1f} GB"
    return None


def simplify(model: Model, file: Path | None = None) -> Model:
    """The model after onnxsim, inputs, outputs, dimension names and source lines kept.

    Args:
        model: The model.
        file: The same model as a file that is ours, if it is saved already.

    Raises:
        OptimizationFailed: onnxsim refused it, or changed its signature. `NativeCrash`: it crashed.
    """
    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        given, made = file or Path(folder, "given.onnx"), Path(folder, "made.onnx")
        if file is None:
            model.save(given, durable=False)
        version = _worker().call(f"{_CHILD}:run", given=str(given), made=str(made))
        result = load(made)
    _check_signature(model, result)
    _restore_shapes(model, result)
    carry_over(model.ir, result.ir)
    return model.with_step(f"onnxsim {version}", result.ir)


def _worker() -> isolate.Worker:
    # onnxsim 0.8 imports torch when it finds it (2 s and 200 MB), for functions that are not used here.
    return isolate.worker("onnxsim", preload=("onnx", "onnxsim", _CHILD), without=isolate.FRAMEWORKS)


def _check_signature(before: Model, after: Model) -> None:
    old, new = before.signature, after.signature
    for what, a, b in (("inputs", old.inputs, new.inputs), ("outputs", old.outputs, new.outputs)):
        if [(t.name, t.dtype) for t in a] != [(t.name, t.dtype) for t in b]:
            raise OptimizationFailed(
                f"onnxsim changed the model's {what}: {', '.join(map(str, a))} became {', '.join(map(str, b))}",
                remedy="--no-optimize",
            )


def _restore_shapes(before: Model, after: Model) -> None:
    """onnxsim may rename or drop symbolic dimensions of the signature."""
    import onnx_ir as ir

    for old, new in (
        *zip(before.ir.graph.inputs, after.ir.graph.inputs, strict=False),
        *zip(before.ir.graph.outputs, after.ir.graph.outputs, strict=False),
    ):
        if old.shape is not None and old.name == new.name:
            new.shape = ir.Shape([d if isinstance(d, int) else d.value for d in old.shape])
