"""What exporters make of `mask[batch, key]` and of positions: a gather at every index in turn, which is what was
gathered from, and tables of which every row or one row is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.attention_parts import iota

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.analyze.tensors import Shape
    from graphkit.rewrite.editor import Editor


def _grid(editor: Editor, node: ir.Node) -> bool:
    """GatherND of [..., batch, key] with all indices in order."""
    data, where = node.inputs[0], editor.producer(node.inputs[1], "Concat")
    known, shape = editor.shape(data), editor.shape(node.outputs[0])
    if data is None or where is None or known is None or shape is None or len(known) != 2:
        return False
    if editor.attribute(node, "batch_dims") or len(where.inputs) != 2:
        return False
    rank = editor.rank(where.outputs[0])
    if rank is None or editor.attribute(where, "axis") not in (-1, rank - 1):
        return False
    return _spread(editor, node, data, [_index(editor, value) for value in where.inputs], shape)


def _index(editor: Editor, value: ir.Value | None) -> ir.Value | None:
    """One of the indices, behind which stands their axis."""
    node = editor.producer(value, "Unsqueeze")
    inner = node.inputs[0] if node is not None else None
    rank = editor.rank(inner)
    if node is None or rank is None or editor.axes(node) != (rank,):
        return None
    wide = editor.producer(inner, "Expand")
    return wide.inputs[0] if wide is not None else inner


def _flat_grid(editor: Editor, node: ir.Node) -> bool:
    """Gather from [batch * key] at key + batch * n, as TorchScript writes it."""
    flat, sum_ = editor.producer(node.inputs[0], "Flatten", "Reshape"), editor.producer(node.inputs[1], "Add")
    data, shape = flat.inputs[0] if flat is not None else None, editor.shape(node.outputs[0])
    known = editor.shape(data)
    if flat is None or data is None or sum_ is None or known is None or shape is None or len(known) != 2:
        return False
    from_ = editor.shape(flat.outputs[0])
    if from_ is None or editor.attribute(node, "axis") != 0 or None in known or from_[1:] not in ((1,), ()):
        return False
    assert known[0] is not None
    assert known[1] is not None
    if from_[0] != known[0] * known[1]:
        return False
    for key, row in editor.operands(sum_):
        product = editor.producer(row, "Mul")
        for batch, width in editor.operands(product) if product is not None else ():
            if editor.sizes(width) == (known[1],):
                spread = shape if from_[1:] == () else shape[:-1]
                return _spread(editor, node, data, [batch, key], spread, shape)
    return False


def _spread(
    editor: Editor,
    node: ir.Node,
    data: ir.Value,
    indices: list[ir.Value | None],
    grid: Shape,
    shape: Shape | None = None,
) -> bool:
    """The gathered value is the data itself, or its first keys, with sizes of 1 between."""
    known = editor.shape(data)
    batch, key = (iota(editor, index) for index in indices)
    if known is None or batch is None or key is None or batch[1] != known[0] or None in known:
        return editor.miss(node, "its indices are not known to be all of them in order")
    rank = len(grid)
    first, second = batch[0] + rank, key[0] + rank
    wanted = tuple(batch[1] if i == first else key[1] if i == second else 1 for i in range(rank))
    if not first < second or grid != wanted:
        return editor.miss(node, "its indices are not known to be all of them in order")
    if key[1] != known[1]:
        numbers = _numbers(editor, indices[1])
        if numbers is None or shape is not None:  # flattened, what is behind the last key is the next row
            return editor.miss(node, "its indices are not known to be all of them in order")
        some = (known[0], key[1])
        data = editor.op("Gather", [data, numbers], {"axis": 1}, like=data, shape=some)
    whole = shape or grid
    missing = [i for i in range(len(whole)) if i not in (first, second)]
    made = editor.op("Unsqueeze", [data, editor.ints_value(missing)], like=node.outputs[0], shape=whole)
    editor.replace(node.outputs[0], made)
    return True


def _numbers(editor: Editor, value: ir.Value | None) -> ir.Value | None:
    """The vector 0, 1, 2 ... of which an index is made."""
    for _ in range(8):
        if editor.rank(value) == 1 and editor.dtype(value) in ("int64", "int32"):
            return value
        node = editor.producer(value, "Unsqueeze", "Squeeze", "Reshape", "Cast", "Identity")
        value = node.inputs[0] if node is not None else None
    return None


def _rows(editor: Editor, node: ir.Node) -> bool:
    """Gather of the rows 0 to n of a table: a Slice of it."""
    table, index = node.inputs[0], editor.producer(node.inputs[1], "Slice")
    shape = editor.shape(table)
    if table is None or index is None or shape is None or not isinstance(shape[0], int):
        return False
    if editor.attribute(node, "axis") != 0 or not table.is_initializer() or table.const_value is None:
        return False
    source = index.inputs[0]
    numbers, sizes = editor.constant(source, shape[0]), editor.shape(source)
    if numbers is None or sizes is None or numbers.reshape(-1).tolist() != list(range(shape[0])):
        return False
    if any(size != 1 for size in sizes[:-1]) or len(table.uses()) != 1 or table.is_graph_input():
        return False
    axes = editor.integers(editor.input(index, 3))
    if axes is None or len(axes) != 1 or axes[0] % len(sizes) != len(sizes) - 1:
        return False
    ranked = _reshaped(editor, table, (*(1,) * (len(sizes) - 1), *shape))
    inputs = [ranked, index.inputs[1], index.inputs[2], editor.ints_value([len(sizes) - 1]), editor.input(index, 4)]
    editor.replace(node.outputs[0], editor.op("Slice", inputs, like=node.outputs[0]))
    return True


def _reshaped(editor: Editor, value: ir.Value, shape: Shape) -> ir.Value:
    import onnx_ir as ir

    tensor = value.const_value
    assert tensor is not None
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) == len(tensor.shape.numpy()):
        return value
    lazy = ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy().reshape(sizes)), dtype=tensor.dtype, shape=ir.Shape(sizes), name=tensor.name
    )
    return editor.hold(lazy, value.name or "table")


def _one_row(editor: Editor, node: ir.Node) -> bool:
    """Add of a row of a table that is always the same: token types that are all 0."""
    result = node.outputs[0]
    for value, row in editor.operands(node):
        gather = editor.producer(row, "Gather")
        table = gather.inputs[0] if gather is not None else None
        if gather is None or table is None or not editor.same_shape(value, result):
            continue
        index = _always(editor, gather.inputs[1])
        array = editor.weight(table) if index is not None else None
        if index is None or array is None or array.ndim != 2 or editor.attribute(gather, "axis") != 0:
            continue
        if not -len(array) <= index < len(array):
            continue
        constant = editor.initializer(array[index], "row")
        editor.replace(result, editor.op("Add", [value, constant], like=result))
        return True
    return False


def _always(editor: Editor, value: ir.Value | None, depth: int = 6) -> int | None:
    """The integer that every element is, whatever the shape."""
    found = editor.uniform(value) if value is not None else None
    if found is not None:
        return int(found)
    node = editor.producer(value, "Expand", "GatherElements", "Slice", "Unsqueeze", "Reshape", "Cast", "Gather")
    return None if node is None or depth == 0 else _always(editor, node.inputs[0], depth - 1)


RULES = (
    Rule(
        "gather-grid",
        "transformer",
        ("GatherND",),
        _grid,
        "GatherND at every index in order is what it gathers from, or a Gather of its first keys",
        since=13,
    ),
    Rule(
        "gather-flat-grid",
        "transformer",
        ("Gather",),
        _flat_grid,
        "Gather at every index of a flattened matrix, in order, is the matrix",
        since=13,
    ),
    Rule("gather-rows", "transformer", ("Gather",), _rows, "Gather of rows 0 to n becomes a Slice", since=13),
    Rule(
        "gather-row", "transformer", ("Add",), _one_row, "a row of a table that is always the same becomes a constant"
    ),
)
