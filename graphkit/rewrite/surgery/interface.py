"""What a model takes and gives: inputs that become constants, sizes, names, dtypes and layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphkit.analyze.polynomial import parse, substitute, symbol
from graphkit.errors import BadOption, GraphkitError, ShapeMismatch, UnknownName
from graphkit.model import Model
from graphkit.parity.inputs import plan_inputs, read_given
from graphkit.rewrite.surgery.tensors import Table, names

if TYPE_CHECKING:
    import onnx_ir as ir

_DIMENSION = re.compile(r"[^\W\d]\w*")


def freeze(model: Model, values: Mapping[str, Any]) -> Model:
    """A model in which inputs have become constants, so that what depends on them alone can be folded.

    Args:
        model: The model.
        values: By name of the input: an array, the path of a `.npy` file, or a number.

    Raises:
        UnknownName: there is no such input. BadSample, ShapeMismatch: the value does not fit.
    """
    import onnx_ir as ir

    try:
        arrays = read_given(plan_inputs(model), values)
    except GraphkitError as error:  # here a value is no option
        error.remedy = (error.remedy or "").replace("--input ", "") or None
        raise
    table = Table(model)
    for name, array in arrays.items():
        value = table.input(name)
        _check_shape(value, array.shape)
        table.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        value.shape = ir.Shape(array.shape)
        table.graph.register_initializer(value)
    return table.done(f"freeze {', '.join(arrays)}")


def set_dims(model: Model, sizes: Mapping[str, int | str]) -> Model:
    """A model with symbolic dimensions at fixed sizes, or under other names, everywhere.

    Args:
        model: The model.
        sizes: By symbol: a size of at least 1, or another symbol.

    Raises:
        UnknownName: no input has such a dimension. BadOption: a size is not positive.
    """
    import onnx_ir as ir

    known = model.signature.symbols
    for name, size in sizes.items():
        if name not in known:
            raise UnknownName(
                f"no input has a dimension `{name}`", remedy=f"the dimensions are: {', '.join(known) or 'none'}"
            )
        if isinstance(size, int) and not 1 <= size < 1 << 63:
            raise BadOption(f"`{name}` cannot be {size}", remedy="a size is at least 1, and fits in an int64")
        if isinstance(size, str) and not _DIMENSION.fullmatch(size):
            raise BadOption(f"`{name}` cannot be called `{size}`", remedy="letters, digits and _: batch, s77")
    table = Table(model)
    given = {name: size if isinstance(size, int) else symbol(size) for name, size in sizes.items()}
    for graph in (table.graph, *table.graph.subgraphs()):
        values = [*graph.inputs, *graph.outputs, *(o for node in graph for o in node.outputs)]
        for value in values:
            if value.shape is not None and value.shape.is_dynamic():
                dims = [d if isinstance(d, int) or d.value is None else _set(d.value, given) for d in value.shape]
                value.shape = ir.Shape(dims)
    return table.done(f"set {', '.join(f'{n}={s}' for n, s in sizes.items())}")


def rename(model: Model, new_names: Mapping[str, str]) -> Model:
    """A model with other names for inputs, outputs or inner tensors.

    Raises:
        UnknownName: there is no such tensor. BadOption: a new name is taken, or empty.
    """
    table = Table(model)
    values = [(table.find(old), new) for old, new in new_names.items()]
    taken = table.known() - set(new_names)
    for value, new in values:
        if not new or new in taken:
            raise BadOption(f"`{value.name}` cannot be called `{new}`: {'that name is taken' if new else 'no name'}")
        taken |= {new}
    for value, new in values:
        if value.is_initializer():
            del table.graph.initializers[str(value.name)]
            value.name = new
            table.graph.register_initializer(value)
        else:
            value.name = new
    return table.done(f"rename {', '.join(new_names)}")


def half_io(model: Model, only: tuple[str, ...] = ()) -> Model:
    """A model that takes and gives float16 where it took and gave float32; inside it stays as it is.

    Args:
        model: The model.
        only: Inputs and outputs to change; all of float32 where ().

    Raises:
        UnknownName: `only` names no input or output. BadOption: what it names, or all of them, is not float32.
    """
    import onnx_ir as ir

    table = Table(model)
    fed = [v for v in table.graph.inputs if v.name not in table.graph.initializers]
    ends = {v.name: v for v in (*fed, *table.graph.outputs)}
    for name in only:
        if name not in ends:
            raise UnknownName(f"there is no input or output `{name}`", remedy=f"there are: {', '.join(map(str, ends))}")
        if ends[name].dtype != ir.DataType.FLOAT:
            known = table.facts.tensor(ends[name]).dtype or "of unknown dtype"
            raise BadOption(f"`{name}` is {known}, not float32", remedy="leave it out of --only")
    chosen = [v for v in (*fed, *table.graph.outputs) if v.dtype == ir.DataType.FLOAT and (not only or v.name in only)]
    if not chosen:
        raise BadOption("no input or output is float32", remedy="graphkit inspect shows the dtypes")
    for value in dict.fromkeys(chosen):  # an input that is an output too is one value
        if value.is_graph_input():
            cast_to = {"to": int(ir.DataType.FLOAT)}
            _after_input(table, value, "Cast", cast_to, ir.TensorType(ir.DataType.FLOAT16), value.shape)
        else:
            half = ir.DataType.FLOAT16
            _before_output(table, value, "Cast", {"to": int(half)}, ir.TensorType(half), value.shape)
    return table.done(f"float16 at {names(chosen)}")


def layout(model: Model, name: str, perm: tuple[int, ...]) -> Model:
    """A model that takes an input, or gives an output, with its axes in another order: (0, 2, 3, 1) makes NCHW NHWC.

    Args:
        model: The model.
        name: An input or output of known rank.
        perm: For each axis of the new order, which one it is in the old.

    Raises:
        UnknownName: there is no such input or output. BadOption: `perm` does not fit its rank.
    """
    import onnx_ir as ir

    table = Table(model)
    is_input = any(v.name == name for v in table.graph.inputs)
    value = table.input(name) if is_input else table.output(name)
    if value.shape is None or sorted(perm) != list(range(len(value.shape))):
        rank = "unknown rank" if value.shape is None else f"{len(value.shape)} axes"
        raise BadOption(f"{list(perm)} is no order of the axes of `{name}`, which has {rank}")
    new_shape = ir.Shape([value.shape[axis] for axis in perm])
    if is_input:
        back = [perm.index(axis) for axis in range(len(perm))]
        cast = _cast_of_bytes(value)
        if cast is not None:  # TensorRT has no Transpose of uint8
            _after_input(table, cast, "Transpose", {"perm": back}, cast.type, new_shape)
            value.shape = new_shape
        else:
            _after_input(table, value, "Transpose", {"perm": back}, value.type, new_shape)
    else:
        _before_output(table, value, "Transpose", {"perm": list(perm)}, value.type, new_shape)
    return table.done(f"axes {list(perm)} of {name}")


def _cast_of_bytes(value: ir.Value) -> ir.Value | None:
    """What a Cast makes of an input of uint8 that nothing else reads, and that is no output."""
    import onnx_ir as ir

    readers = [user for user, _ in value.uses()]
    if value.dtype != ir.DataType.UINT8 or [r.op_type for r in readers] != ["Cast"] or value.is_graph_output():
        return None
    made = readers[0].outputs[0]
    return None if made.is_graph_output() or readers[0].graph is not value.graph else made


def _check_shape(value: ir.Value, shape: tuple[int, ...]) -> None:
    """Whether an array is one that an input takes: known sizes agree."""
    wanted = value.shape
    if wanted is None:
        return
    sizes = [d for d in wanted if isinstance(d, int)]
    if len(wanted) != len(shape) or any(isinstance(d, int) and d != n for d, n in zip(wanted, shape, strict=True)):
        raise ShapeMismatch(
            f"`{value.name}` takes {wanted}, not an array of shape {list(shape)}",
            remedy="an array of that shape" if sizes else "an array of that rank",
        )


def _set(dim: str, given: Mapping[str, Any]) -> int | str:
    size = substitute(parse(dim), given)
    return size if isinstance(size, int) else str(size)


def _after_input(
    table: Table, value: ir.Value, op: str, attributes: dict[str, Any], type_: Any, shape: ir.Shape | None
) -> None:
    """Let the model take an input of another type, and turn it into what it took; or what a node makes of an input."""
    import onnx_ir as ir

    name = value.name
    uses = value.uses()
    node = ir.node(op, [value], attributes, name=table.free_name(f"{name}_{op.lower()}"))
    made = node.outputs[0]
    made.name, made.type, made.shape = table.free_name(f"{name}_inside"), value.type, value.shape
    for user, index in uses:
        user.replace_input_with(index, made)
    value.type, value.shape = type_, shape
    producer, first = value.producer(), next(iter(table.graph), None)
    if producer is not None:
        table.graph.insert_after(producer, node)
    elif first is None:
        table.graph.append(node)
    else:
        table.graph.insert_before(first, node)


def _before_output(
    table: Table, value: ir.Value, op: str, attributes: dict[str, Any], type_: Any, shape: ir.Shape | None
) -> None:
    """Turn an output into one of another type, under its name."""
    import onnx_ir as ir

    name = value.name
    node = ir.node(op, [value], attributes, name=table.free_name(f"{name}_{op.lower()}"))
    made = node.outputs[0]
    if not value.is_graph_input():
        value.name = table.free_name(f"{name}_inside")
    made.name, made.type, made.shape = name, type_, shape
    table.graph.append(node)
    for index, output in enumerate(table.graph.outputs):
        if output is value:
            table.graph.outputs[index] = made
