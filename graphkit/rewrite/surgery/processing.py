"""What stands before and after a network in use, as standard nodes of the model itself: normalisation and resizing of
images, softmax, the best classes, non-maximum suppression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphkit.errors import BadOption
from graphkit.model import Model
from graphkit.rewrite.onnx_forms import dtype_of
from graphkit.rewrite.surgery.tensors import Table

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

_NUMBERS = ("uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64", "bfloat16")


def normalise(
    model: Model,
    name: str,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    scale: float = 1.0,
    axis: int = 1,
    dtype: str | None = None,
) -> Model:
    """A model that takes raw values: the network gets (x * scale - mean) / std, by channel.

    Args:
        model: The model.
        name: The input, of float16 or float32.
        mean, std: One number for each channel, or one for all; in units of `x * scale`.
        scale: 1/255 for bytes.
        axis: The channels' axis.
        dtype: What the model takes then; `uint8` for bytes. As before where None.

    Raises:
        UnknownName: there is no such input. BadOption: the numbers do not fit its channels, or a std is 0.
    """
    import numpy as np

    table = Table(model)
    value = table.input(name)
    inner = _float_name(table, value)
    _check_opset(model, 7, "arithmetic that broadcasts")
    _check_channels(value, mean, std, axis)
    if not math.isfinite(scale) or not scale:
        raise BadOption(f"--scale {scale}: a factor is a number other than 0", remedy="--scale 0.00392156862745098")
    if dtype is not None and dtype not in _NUMBERS:
        raise BadOption(f"--dtype {dtype}: unknown", remedy=f"one of {', '.join(_NUMBERS)}")
    rank = 1 if value.shape is None else len(value.shape)
    shape = [1] * rank
    if len(mean) > 1 or len(std) > 1:
        shape[axis] = -1
    factor = scale / np.asarray(std, np.float64)
    offset = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
    kind = np.float16 if inner == "float16" else np.float32
    steps: list[tuple[str, list[Any], dict[str, Any]]] = []
    if dtype is not None and dtype != inner:
        steps.append(("Cast", [], {"to": int(dtype_of(inner))}))
    steps.append(("Mul", [factor.astype(kind).reshape(shape if factor.size > 1 else ())], {}))
    steps.append(("Add", [offset.astype(kind).reshape(shape if offset.size > 1 else ())], {}))
    _prepend(table, value, steps, dtype or inner, None)
    return table.done(f"normalise {name}")


def resize(model: Model, name: str, mode: str = "linear") -> Model:
    """A model that takes images of any size: they are resized to the size that the network takes.

    Args:
        model: The model.
        name: An input of shape [N, C, H, W] with fixed H and W.
        mode: `linear` or `nearest`, with half-pixel centres and without antialiasing (ONNX operator Resize).

    The sizes of all axes are stated, from the shape of the images where they vary: TensorRT-RTX 1.7.1 refuses a Resize
    of chosen axes whose other axes are dynamic.

    Raises:
        UnknownName: there is no such input. BadOption: it is no image of fixed size.
    """
    import onnx_ir as ir

    if mode not in ("linear", "nearest"):
        raise BadOption(f"--mode {mode}: unknown", remedy="linear or nearest")
    table = Table(model)
    value = table.input(name)
    dims = list(value.shape) if value.shape is not None else []
    if len(dims) != 4 or not all(isinstance(d, int) for d in dims[2:]):
        raise BadOption(f"`{name}` is no image of fixed size: {value.shape}", remedy="set its height and width first")
    if table.facts.tensor(value).dtype not in ("float16", "float32"):
        raise BadOption(f"`{name}` is not float16 or float32", remedy="resize first, then normalise --dtype uint8")
    _check_opset(model, 15, "Shape of chosen axes")
    attributes = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    outer = ir.Shape([dims[0], dims[1], f"{name}_height", f"{name}_width"])
    nodes, sizes = _sizes(table, value, dims)
    _prepend(table, value, [("Resize", [None, None, sizes], attributes)], None, outer, nodes)
    return table.done(f"resize {name}")


def _sizes(table: Table, value: ir.Value, dims: Sequence[Any]) -> tuple[list[ir.Node], Any]:
    """The sizes of an image's axes as a constant; where the first ones vary, as what the nodes before it compute."""
    import numpy as np
    import onnx_ir as ir

    if all(isinstance(d, int) for d in dims):
        return [], np.asarray(dims, np.int64)
    taken = ir.node("Shape", [value], {"start": 0, "end": 2}, name=table.free_name(f"{value.name}_shape"))
    inner = _weight(table, f"{value.name}_size", np.asarray(dims[2:], np.int64))
    joined = ir.node("Concat", [*taken.outputs, inner], {"axis": 0}, name=table.free_name(f"{value.name}_sizes"))
    for node, length in ((taken, 2), (joined, 4)):
        node.outputs[0].name = table.free_name(f"{node.name}_output")
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.INT64), ir.Shape([length])
    return [taken, joined], joined.outputs[0]


def softmax(model: Model, name: str, axis: int = -1) -> Model:
    """A model whose output is turned into probabilities along an axis, under the same name.

    Raises:
        UnknownName: there is no such output. BadOption: it is not floating-point.
    """
    table = Table(model)
    value = table.output(name)
    _float_name(table, value)
    _check_axis(value, axis)
    if model.opset < 13 and (value.shape is None or axis % len(value.shape) != len(value.shape) - 1):
        raise BadOption(
            f"the Softmax of opset {model.opset} takes all axes behind `{axis}` too",
            remedy="graphkit optimize --opset 13 --level 1 first, or the last axis",
        )
    _append(table, value, "Softmax", [], {"axis": axis}, [(name, value.type, value.shape)])
    return table.done(f"softmax of {name}")


def best(model: Model, name: str, count: int, axis: int = -1) -> Model:
    """A model that gives the `count` largest values along an axis, under the output's name, and `NAME_indices`
    (int64) beside them.

    Raises:
        UnknownName: there is no such output. BadOption: it has fewer elements along the axis.
    """
    import numpy as np
    import onnx_ir as ir

    table = Table(model)
    value = table.output(name)
    _check_opset(model, 11, "TopK with a count and any axis")
    _check_axis(value, axis)
    if count < 1:
        raise BadOption(f"{count} cannot be taken", remedy="1 or more")
    shape = None if value.shape is None else list(value.shape)
    if shape is not None:
        size = shape[axis]
        if isinstance(size, int) and not 1 <= count <= size:
            raise BadOption(f"`{name}` has {size} elements along axis {axis}: {count} cannot be taken")
        shape[axis] = count
    new = None if shape is None else ir.Shape(shape)
    indices = table.free_name(f"{name}_indices")
    outputs = [(name, value.type, new), (indices, ir.TensorType(ir.DataType.INT64), new)]
    _append(table, value, "TopK", [np.asarray([count], np.int64)], {"axis": axis}, outputs)
    return table.done(f"best {count} of {name}")


def suppress(
    model: Model,
    boxes: str,
    scores: str,
    *,
    iou: float = 0.5,
    score: float = 0.25,
    most: int = 100,
    centre: bool = False,
) -> Model:
    """A model that also gives `selected`: rows of (batch, class, box) that non-maximum suppression keeps, int64.

    Args:
        model: The model.
        boxes: Output of shape [batch, boxes, 4]: (y1, x1, y2, x2), or (x, y, width, height) of the centre.
        scores: Output of shape [batch, classes, boxes].
        iou: Overlap above which the lesser box goes.
        score: Least score.
        most: Boxes kept for each class and image.
        centre: Whether boxes are given by their centres.

    Raises:
        UnknownName: there is no such output. BadOption: the shapes do not fit, or they are not float32.
    """
    import numpy as np
    import onnx_ir as ir

    if not (0 <= iou <= 1 and math.isfinite(score)):
        raise BadOption(f"--iou {iou}, --score {score}: an overlap is between 0 and 1, a score is a number")
    table = Table(model)
    _check_opset(model, 10, "NonMaxSuppression")
    box, sure = table.output(boxes), table.output(scores)
    for value in (box, sure):
        if value.dtype != ir.DataType.FLOAT or (value.shape is not None and len(value.shape) != 3):
            known = table.facts.tensor(value).dtype
            raise BadOption(f"`{value.name}` is {known} {value.shape}; float32 of 3 axes is what it takes")
    if box.shape is not None and isinstance(box.shape[2], int) and box.shape[2] != 4:
        raise BadOption(f"`{boxes}` has {box.shape[2]} numbers for each box, not 4")
    if box.shape is not None and sure.shape is not None:
        for what, ours, theirs in (("images", box.shape[0], sure.shape[0]), ("boxes", box.shape[1], sure.shape[2])):
            if isinstance(ours, int) and isinstance(theirs, int) and ours != theirs:
                raise BadOption(f"`{boxes}` has {ours} {what}, but `{scores}` has {theirs}")
    limits: list[np.ndarray[Any, Any]] = [
        np.asarray([most], np.int64),
        np.asarray([iou], np.float32),
        np.asarray([score], np.float32),
    ]
    inputs = [box, sure, *(_weight(table, "limit", array) for array in limits)]
    node = ir.node("NonMaxSuppression", inputs, {"center_point_box": int(centre)}, name=table.free_name("suppress"))
    made = node.outputs[0]
    made.name, made.type = table.free_name("selected"), ir.TensorType(ir.DataType.INT64)
    made.shape = ir.Shape(["selected", 3])
    table.graph.append(node)
    table.graph.outputs.append(made)
    return table.done("non-maximum suppression")


def _float_name(table: Table, value: ir.Value) -> str:
    known = table.facts.tensor(value).dtype
    if known not in ("float16", "float32"):
        raise BadOption(f"`{value.name}` is {known}, not float16 or float32")
    return known


def _check_opset(model: Model, least: int, what: str) -> None:
    if model.opset < least:
        raise BadOption(
            f"{what} came with opset {least}; this model has {model.opset}",
            remedy=f"graphkit optimize --opset {least} --level 1 first",
        )


def _check_axis(value: ir.Value, axis: int) -> None:
    if value.shape is not None and not -len(value.shape) <= axis < len(value.shape):
        raise BadOption(
            f"`{value.name}` has no axis {axis}: its shape is {value.shape}", remedy="--axis -1 is the last"
        )


def _check_channels(value: ir.Value, mean: Sequence[float], std: Sequence[float], axis: int) -> None:
    if not all(s > 0 and math.isfinite(s) for s in std):
        raise BadOption(f"standard deviations {list(std)}: each is a number above 0")
    if not all(map(math.isfinite, mean)):
        raise BadOption(f"means {list(mean)}: each is a finite number")
    many = {n for n in (len(mean), len(std)) if n != 1}
    rank = None if value.shape is None else len(value.shape)
    if len(many) > 1 or (many and (rank is None or not -rank <= axis < rank)):
        raise BadOption(
            f"{len(mean)} means and {len(std)} standard deviations do not fit `{value.name}`: {value.shape}"
        )
    size = value.shape[axis] if many and value.shape is not None else None
    if isinstance(size, int) and many and size not in many:
        raise BadOption(f"`{value.name}` has {size} channels along axis {axis}, not {many.pop()}")


def _weight(table: Table, hint: str, array: np.ndarray[Any, Any]) -> ir.Value:
    import onnx_ir as ir

    name, number = table.free_name(hint), 1
    while name in table.graph.initializers:
        name, number = table.free_name(f"{hint}_{number}"), number + 1
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    table.graph.register_initializer(value)
    return value


def _prepend(
    table: Table,
    value: ir.Value,
    steps: Sequence[tuple[str, list[Any], dict[str, Any]]],
    dtype: str | None,
    shape: ir.Shape | None,
    before: Sequence[ir.Node] = (),
) -> None:
    """Put nodes between an input, which keeps its name, and what read it; `before` go first and read the input itself.

    What a step reads beside is an array, a value of `before`, or left out (None).
    """
    import onnx_ir as ir

    name, old_type, old_shape = str(value.name), value.type, value.shape
    uses = [(user, index) for user, index in value.uses() if user not in before]
    current, made = value, list(before)
    for op, more, attributes in steps:
        hint = f"{name}_{op.lower()}"
        extra = [a if a is None or isinstance(a, ir.Value) else _weight(table, hint, a) for a in more]
        node = ir.node(op, [current, *extra], attributes, name=table.free_name(f"{name}_{op.lower()}"))
        current = node.outputs[0]
        current.name = table.free_name(f"{name}_after_{op.lower()}")
        current.type = old_type
        made.append(node)
    current.shape = old_shape
    for user, index in uses:
        user.replace_input_with(index, current)
    if dtype is not None:
        value.type = ir.TensorType(dtype_of(dtype))
    if shape is not None:
        value.shape = shape
    first = next(iter(table.graph), None)
    if first is None:
        table.graph.extend(made)
    else:
        table.graph.insert_before(first, made)


def _append(
    table: Table,
    value: ir.Value,
    op: str,
    more: Sequence[np.ndarray[Any, Any]],
    attributes: dict[str, Any],
    outputs: Sequence[tuple[str, Any, ir.Shape | None]],
) -> None:
    """Let a node take an output, and give its own in that place under the old name."""
    import onnx_ir as ir

    at = next(i for i, v in enumerate(table.graph.outputs) if v is value)
    if value.is_graph_input():
        raise BadOption(f"`{value.name}` is an input that is passed through")
    inputs = [value, *(_weight(table, f"{value.name}_{op.lower()}", array) for array in more)]
    node = ir.node(op, inputs, attributes, num_outputs=len(outputs), name=table.free_name(f"{value.name}_{op.lower()}"))
    value.name = table.free_name(f"{value.name}_raw")
    for made, (name, type_, shape) in zip(node.outputs, outputs, strict=True):
        made.name, made.type, made.shape = name, type_, shape
    table.graph.append(node)
    table.graph.outputs[at] = node.outputs[0]
    for index, extra in enumerate(node.outputs[1:], 1):
        table.graph.outputs.insert(at + index, extra)
