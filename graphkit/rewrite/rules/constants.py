"""What is the same in every run is computed now: nodes with constant inputs, and shape arithmetic with a known result.

Never computed: what draws random numbers, Q/DQ, bodies, strings; nor what would make the file grow by more than was
allowed (`Editor.growth`). Large weights that are only moved about (a Transpose of a matrix) are not read before the
model is written.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from graphkit.rewrite import fold_evaluate as known
from graphkit.rewrite.rule import Rule
from graphkit.traversal import read_count

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_READ_AT_ONCE = 4_000_000
"""Bytes of inputs up to which a result is computed at once, and above which only when somebody asks for it."""

_MOST_PIECES = 16

_WEIGHT = 4096
"""Bytes above which a weight of one number in a shape stays a node, until the scales behind its layer are folded."""

_WEIGHTED = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])

_LATER = frozenset(["Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"])
_NO_ARITHMETIC = frozenset(("bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"))

_SIZES = [
    "Shape",
    "Size",
    "Gather",
    "Concat",
    "Slice",
    "Unsqueeze",
    "Squeeze",
    "Cast",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "ReduceProd",
    "Where",
    "ConstantOfShape",
    "Reshape",
    "Flatten",
    "Identity",
]


def _fold(editor: Editor, node: ir.Node, *, exact: bool) -> bool:
    tensors = []
    for value in node.inputs:
        tensor = editor.tensor(value) if value is not None else None
        if value is not None and tensor is None:
            return False
        tensors.append(tensor)
    given = [tensor for tensor in tensors if tensor is not None]
    if not given or not _may(editor, node, given, exact):
        return False
    added = _added(editor, node)
    if added is None:
        if node.op_type in known.GROWING and not _tiny(editor, node):
            return editor.miss(node, "how large the result would be is not known")
    elif added > _WEIGHT and editor.compact and _is_compact_weight(node):
        editor.left_compact = True
        return False
    elif not editor.affords(added):
        return editor.miss(node, f"the result would add {added:,} bytes to the model")
    if sum(tensor.nbytes for tensor in given) > _READ_AT_ONCE:
        return _fold_later(editor, node, tensors)
    arrays = [None if tensor is None else editor.array(tensor) for tensor in tensors]
    results = known.remembered(editor.computed, node, editor.version(node), arrays)
    if results is None or any(_contradicts(editor, o, r) for o, r in zip(node.outputs, results, strict=False)):
        return False
    added = sum(result.nbytes for result in results) - _freed(editor, node)
    if not editor.affords(added):
        return editor.miss(node, f"the result would add {added:,} bytes to the model")
    editor.growth -= max(0, added)
    editor.replace_all(
        {
            output: editor.initializer(result, output.name or "constant")
            for output, result in zip(node.outputs, results, strict=False)
            if read_count(output) or output.is_graph_output()
        }
    )
    return True


def _is_compact_weight(node: ir.Node) -> bool:
    """Whether it is one number in a shape, which layers alone read, as their weights."""
    uses = node.outputs[0].uses()
    layers = all(user.op_type in _WEIGHTED and not user.domain and index == 1 for user, index in uses)
    return node.op_type == "ConstantOfShape" and layers and not node.outputs[0].is_graph_output()


def _may(editor: Editor, node: ir.Node, given: list[ir.TensorProtocol], exact: bool) -> bool:
    op = node.op_type
    if op == "Identity" and node.outputs[0].is_graph_output():
        return False  # an output needs a node that makes it
    if not any(read_count(output) or output.is_graph_output() for output in node.outputs):
        return False
    dtypes = {tensor.dtype.name.lower() for tensor in given}
    if "string" in dtypes or any(tensor.dtype.bitwidth < 8 for tensor in given):
        return False
    if dtypes & _NO_ARITHMETIC and (op not in known.MOVING or op in ("Cast", "CastLike")):
        return False
    if op in known.OF_INTEGERS and exact != all(t.dtype.is_integer() for t in given):
        return False
    return not (op == "Cast" and editor.dtype(node.outputs[0]) in (None, "string", *_NO_ARITHMETIC))


def _added(editor: Editor, node: ir.Node) -> int | None:
    """Bytes by which the model would grow; None where sizes are not known."""
    total = 0
    for output in node.outputs:
        if read_count(output) or output.is_graph_output():
            nbytes = editor.facts.tensor(output).nbytes
            if not isinstance(nbytes, int):
                return None
            total += nbytes
    return total - _freed(editor, node)


def _freed(editor: Editor, node: ir.Node) -> int:
    """Bytes of constants that nobody reads any more; of one that is cut into pieces, those of this piece."""
    freed = 0
    for value in dict.fromkeys(v for v in node.inputs if v is not None):
        tensor = editor.tensor(value)
        if tensor is None or value.is_graph_output():
            continue
        count = read_count(value)
        if count == 1:
            freed += tensor.nbytes
        elif node.op_type == "Slice" and value is node.inputs[0] and count <= _MOST_PIECES:
            freed += _piece(editor, node, [user for user, _ in value.uses()], tensor.nbytes)
    return freed


def _piece(editor: Editor, node: ir.Node, users: list[ir.Node], nbytes: int) -> int:
    """Bytes of a Slice, where the constant is read by Slices alone that are no more than it together."""
    if any(user.op_type != "Slice" or user.domain for user in users):
        return 0
    if not all(editor.is_constant(value) for user in users for value in user.inputs if value is not None):
        return 0
    pieces = [editor.facts.tensor(user.outputs[0]).nbytes for user in users]
    own = editor.facts.tensor(node.outputs[0]).nbytes
    known = [size for size in pieces if isinstance(size, int)]
    return own if isinstance(own, int) and len(known) == len(pieces) and sum(known) <= nbytes else 0


def _tiny(editor: Editor, node: ir.Node) -> bool:
    """Whether a few numbers say that the result is small, where its type is not known."""
    numbers = [abs(n) for value in node.inputs for n in editor.integers(value) or [] if abs(n) < 1 << 40]
    limit = 1
    for number in numbers:
        limit *= max(1, number)
    return bool(numbers) and limit <= 1024


def _contradicts(editor: Editor, output: ir.Value, result: np.ndarray[Any, Any]) -> bool:
    """Whether what was computed is not of the type that is known."""
    shape, dtype = editor.facts.tensor(output)
    if dtype is not None and dtype != result.dtype.name:
        return True
    return shape is not None and (
        len(shape) != result.ndim
        or any(isinstance(a, int) and a != b for a, b in zip(shape, result.shape, strict=True))
    )


def _fold_later(editor: Editor, node: ir.Node, tensors: list[ir.TensorProtocol | None]) -> bool:
    import onnx_ir as ir

    output = node.outputs[0]
    shape, dtype = editor.facts.tensor(output)
    added = _added(editor, node)
    sizes = [size for size in shape or () if isinstance(size, int)]
    if node.op_type not in _LATER or shape is None or len(sizes) != len(shape) or dtype is None or added is None:
        return editor.miss(node, "its inputs are large")
    editor.growth -= max(0, added)
    opset = editor.version(node)
    operator = ir.Node("", node.op_type, [None] * len(tensors), list(node.attributes.values()), num_outputs=1)

    def compute() -> ir.TensorProtocol:
        found = known.evaluate(operator, opset, [None if t is None else t.numpy() for t in tensors])
        assert found is not None
        return ir.tensor(found[0])

    from graphkit.rewrite.onnx_forms import dtype_of

    held = ir.LazyTensor(compute, dtype=dtype_of(dtype), shape=ir.Shape(sizes), name=output.name)
    editor.replace(output, editor.hold(held, output.name or "constant"))
    return True


def _arithmetic(editor: Editor, node: ir.Node) -> bool:
    import numpy as np

    output = node.outputs[0]
    ints = editor.facts.ints(output)
    if ints is None or (node.op_type == "Identity" and output.is_graph_output()):
        return False
    numbers = [size for size in ints if isinstance(size, int)]
    shape, dtype = editor.facts.tensor(output)
    if len(numbers) != len(ints) or dtype not in ("int64", "int32") or shape is None:
        return False
    if len(shape) > 1 or (shape and shape[0] != len(ints)) or (not shape and len(ints) != 1):
        return False
    array = np.asarray(numbers, dtype=dtype).reshape(tuple(len(ints) for _ in shape))
    editor.replace(output, editor.initializer(array, output.name or "sizes"))
    return True


def _filled(editor: Editor, node: ir.Node) -> bool:
    """One number in a shape stays that, however its elements are moved."""
    made = editor.producer(node.inputs[0], "ConstantOfShape")
    shape = editor.shape(node.outputs[0])
    sizes = [size for size in shape or () if isinstance(size, int)]
    if made is None or shape is None or len(sizes) != len(shape) or not editor.is_constant(made.inputs[0]):
        return False
    import numpy as np

    given = editor.initializer(np.asarray(sizes, np.int64), "sizes")
    filled = editor.op("ConstantOfShape", [given], made.attributes, like=node.outputs[0])
    editor.replace(node.outputs[0], filled)
    return True


def _cast_like(editor: Editor, node: ir.Node) -> bool:
    to = editor.dtype(node.inputs[1])
    if to is None:
        return False
    from graphkit.rewrite.onnx_forms import dtype_of

    attributes = {name: node.attributes[name] for name in ("saturate", "round_mode") if name in node.attributes}
    made = editor.op("Cast", node.inputs[:1], {"to": int(dtype_of(to)), **attributes}, like=node.outputs[0], dtype=to)
    editor.replace(node.outputs[0], made)
    return True


RULES = (
    Rule("shape-arithmetic", "folding", tuple(_SIZES), _arithmetic, "sizes that are known become constants"),
    Rule(
        "filled-shape",
        "folding",
        ("Expand", "Flatten", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
        _filled,
        "a ConstantOfShape whose result is only moved or repeated is made in the shape that comes out",
    ),
    Rule("cast-like", "folding", ("CastLike",), _cast_like, "CastLike becomes a Cast"),
    Rule(
        "constant-folding",
        "folding",
        tuple(sorted(known.MOVING | known.ROUNDED_ONCE | known.OF_INTEGERS)),
        partial(_fold, exact=True),
        "nodes with constant inputs are computed",
    ),
    Rule(
        "constant-folding-rounded",
        "folding",
        tuple(sorted(known.APPROXIMATE | known.OF_INTEGERS)),
        partial(_fold, exact=False),
        "nodes with constant inputs are computed, where a runtime may round differently",
        exact=False,
    ),
)
