"""Computing a node whose inputs are constants, with the reference operators of the `onnx` package.

Those are numpy: they say what an operator means, in the version of it that the model asks for. Only operators that
give the same in every run are here; what quantises or draws random numbers is never computed beforehand.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

MOVING = frozenset(
    [
        "Cast",
        "CastLike",
        "Compress",
        "Concat",
        "ConstantOfShape",
        "DepthToSpace",
        "Expand",
        "EyeLike",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "NonZero",
        "OneHot",
        "Pad",
        "Range",
        "Reshape",
        "ReverseSequence",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Size",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
    ]
)
"""Operators whose results are elements of their inputs."""

ROUNDED_ONCE = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "ArgMax",
        "ArgMin",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Ceil",
        "Clip",
        "Div",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Reciprocal",
        "ReduceMax",
        "ReduceMin",
        "Relu",
        "Round",
        "Sign",
        "Sqrt",
        "Sub",
        "Xor",
    ]
)
"""Operators of which IEEE 754 says every bit."""

OF_INTEGERS = frozenset(["CumSum", "Mod", "Pow", "ReduceL1", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Sum"])
"""Operators that are exact for integers, and depend on the order of additions for floats."""

APPROXIMATE = frozenset(
    [
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Cos",
        "Cosh",
        "Einsum",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "Gemm",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "MatMul",
        "Mean",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "Sigmoid",
        "Sin",
        "Sinh",
        "Softmax",
        "Softplus",
        "Softsign",
        "Tan",
        "Tanh",
    ]
)

GROWING = frozenset(["ConstantOfShape", "Expand", "EyeLike", "OneHot", "Pad", "Range", "Tile", "Resize"])
"""Operators whose result may be far larger than their inputs."""


def evaluate(node: ir.Node, opset: int, inputs: Sequence[Any]) -> list[np.ndarray[Any, Any]] | None:
    """Results of a node; None where the reference refuses, or a result is not what ONNX leaves defined.

    Args:
        inputs: Arrays, None for an input that is absent.
    """
    import numpy as np
    import onnx_ir as ir

    operator = _operator(node.op_type, opset)
    if operator is None or any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    proto = ir.serde.serialize_node(node)
    try:
        with np.errstate(all="ignore"):
            found = operator(proto, _PARAMETERS | {"opsets": {"": opset}}).run(*inputs)
    except Exception:  # what the reference cannot do is left to the runtime, whose error names the node
        return None
    if not all(isinstance(result, np.ndarray | np.generic) for result in found):
        return None
    results = [np.asarray(result) for result in found]
    return results if _defined(node, inputs, results) else None


def remembered(
    before: dict[Hashable, list[np.ndarray[Any, Any]] | None], node: ir.Node, opset: int, inputs: Sequence[Any]
) -> list[np.ndarray[Any, Any]] | None:
    """As `evaluate`; what it gave for a few bytes is kept in `before`: blocks that repeat compute the same numbers."""
    key = _key(node, opset, inputs)
    if key is None:
        return evaluate(node, opset, inputs)
    if key in before:
        return before[key]
    results = evaluate(node, opset, inputs)
    if results is None or sum(result.nbytes for result in results) <= _FEW_BYTES:
        before[key] = results
    return results


_FEW_BYTES = 256


def _key(node: ir.Node, opset: int, inputs: Sequence[Any]) -> Hashable | None:
    if sum(0 if array is None else array.nbytes for array in inputs) > _FEW_BYTES:
        return None
    attributes = []
    for name, attribute in node.attributes.items():
        value = attribute.value
        value = tuple(value) if isinstance(value, list) else value
        if not isinstance(value, int | float | str | tuple):
            return None
        attributes.append((name, attribute.type, str(value)))
    given = [None if a is None else (a.dtype.str, a.dtype.name, a.shape, a.tobytes()) for a in inputs]
    return node.op_type, opset, tuple(attributes), tuple(given), len(node.outputs)


_PARAMETERS: dict[str, Any] = {
    "log": lambda *_: None,
    "verbose": 0,
    "new_ops": None,
    "evaluator_cls": None,
    "existing_functions": {},
}


@lru_cache(maxsize=512)
def _operator(op_type: str, opset: int) -> Any:
    from onnx.reference.ops import load_op

    try:
        return load_op("", op_type, version=opset)
    except Exception:  # the reference has no such operator
        return None


def _defined(node: ir.Node, inputs: Sequence[Any], results: Sequence[np.ndarray[Any, Any]]) -> bool:
    """Whether ONNX says what comes out, and runtimes agree: not for integers made of numbers too large, quotients by
    zero, infinities that a Clip has no bound for, and the NonZero of a scalar."""
    import numpy as np

    if node.op_type == "NonZero":
        return bool(inputs[0].ndim)
    if node.op_type == "Clip" and inputs[0].dtype.kind == "f":
        bounded = len(inputs) > 2 and all(bound is not None for bound in inputs[1:])
        return bounded or not np.isinf(inputs[0]).any()
    if node.op_type in ("Cast", "CastLike") and inputs[0].dtype.kind == "f" and results[0].dtype.kind in "iu":
        limits = np.iinfo(results[0].dtype)
        whole = np.trunc(inputs[0].astype(np.float64))
        return bool((np.isfinite(whole) & (whole >= limits.min) & (whole <= limits.max)).all())
    if node.op_type in ("Div", "Mod") and inputs[1].dtype.kind in "iu":
        return bool((inputs[1] != 0).all())
    return True
