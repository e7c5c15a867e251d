"""What has to be done to a node where a version of its operator is not simply more than the one before.

Each entry names an operator and the opset in which it changed. `prevents` says, before anything is changed, why a node
cannot be adapted; `change` adapts it. They follow the changelog of ONNX (docs/Changelog.md).

One value differs: until opset 11 a Clip without a bound cut infinity off at the largest number of its dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _never(editor: Editor, node: ir.Node, version: int) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Adapter:
    """Attributes:
    change: Adapts a node in place, or replaces it.
    prevents: Why a node, as it is written in an opset, cannot be adapted; None if it can.
    """

    change: Callable[[Editor, ir.Node], None]
    prevents: Callable[[Editor, ir.Node, int], str | None] = _never


def _give(node: ir.Node, index: int, value: ir.Value | None) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _to_inputs(editor: Editor, node: ir.Node, *, names: Sequence[tuple[str, int]]) -> None:
    """Lists of integers that were attributes are inputs."""
    for name, index in names:
        attribute = node.attributes.pop(name, None)
        if attribute is not None and attribute.value not in ((), []):
            _give(node, index, editor.ints_value([int(x) for x in attribute.as_ints()]))


def _clip(editor: Editor, node: ir.Node) -> None:
    _scalars(editor, node, (("min", 1), ("max", 2)))


def _pad(editor: Editor, node: ir.Node) -> None:
    _to_inputs(editor, node, names=(("pads", 1),))
    _scalars(editor, node, (("value", 2),))


def _scalars(editor: Editor, node: ir.Node, names: Sequence[tuple[str, int]]) -> None:
    import numpy as np

    for name, index in names:
        attribute = node.attributes.pop(name, None)
        if attribute is not None:
            number = np.asarray(attribute.as_float(), dtype=editor.dtype(node.inputs[0]))
            _give(node, index, editor.initializer(number, name))


def _known_float(editor: Editor, node: ir.Node, version: int) -> str | None:
    known = editor.dtype(node.inputs[0]) in ("float16", "float32", "float64")
    return None if known else "the dtype of its input is not known"


def _top_k(editor: Editor, node: ir.Node) -> None:
    _give(node, 1, editor.ints_value([node.attributes.pop("k").as_int()]))


def _split_parts(editor: Editor, node: ir.Node) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        editor.set_attribute(node, "num_outputs", len(node.outputs))


def _flattened(editor: Editor, node: ir.Node) -> None:
    """Softmax of old flattened everything from its axis on; the new one has one axis."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = editor.shape(source)
    if shape is not None and all(size == 1 for size in shape[axis % max(1, len(shape)) + 1 :]):
        editor.set_attribute(node, "axis", axis)
        return
    from graphkit.rewrite.rule import Rule

    def change(hand: Editor, at: ir.Node) -> bool:
        flat = hand.op("Flatten", [source], {"axis": axis})
        soft = hand.op(at.op_type, [flat], {"axis": -1})
        hand.replace(result, hand.op("Reshape", [soft, hand.op("Shape", [source])], like=result))
        return True

    editor.apply(Rule("opset", "structure", (), change, ""), node)


def _dropout(editor: Editor, node: ir.Node) -> None:
    node.attributes.pop("ratio", None)


def _dropout_mask(editor: Editor, node: ir.Node, version: int) -> str | None:
    read = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
    if read and version < 12:
        return "its mask had another dtype" if version < 10 else "what its mask holds outside of training was left open"
    return None


def _no_spatial(editor: Editor, node: ir.Node) -> None:
    node.attributes.pop("spatial", None)


def _spatial(editor: Editor, node: ir.Node, version: int) -> str | None:
    found = node.attributes.get("spatial")
    return "it is not spatial" if found is not None and not found.as_int() else None


def _one_output(editor: Editor, node: ir.Node) -> None:
    node.resize_outputs(1)


def _trains(editor: Editor, node: ir.Node, version: int) -> str | None:
    read = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    return "it trains" if read else None


def _scatter(editor: Editor, node: ir.Node) -> None:
    node.op_type = "ScatterElements"


# --- resizing ---------------------------------------------------------------------------------------------------------


def _upsample_scales(editor: Editor, node: ir.Node) -> None:
    import numpy as np

    scales = np.asarray(node.attributes.pop("scales").as_floats(), dtype=np.float32)
    _give(node, 1, editor.initializer(scales, "scales"))


def _upsample(editor: Editor, node: ir.Node) -> None:
    node.op_type = "Resize"


def _shrinks(editor: Editor, node: ir.Node, version: int) -> str | None:
    """Which neighbour is the nearest was not said before opset 11; where pictures grow, all agree."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "nearest":
        return None
    if "scales" in node.attributes:
        scales: Any = node.attributes["scales"].as_floats()
    else:
        found = editor.constant(editor.input(node, 1))
        scales = None if found is None else found.reshape(-1)
    if scales is None or any(scale < 1 for scale in scales):
        return "it may shrink to the nearest, which was not defined"
    return None


def _resize_modes(editor: Editor, node: ir.Node) -> None:
    import numpy as np

    scales = node.inputs[1]
    _give(node, 1, editor.initializer(np.zeros(0, np.float32), "roi"))
    _give(node, 2, scales)
    editor.set_attribute(node, "coordinate_transformation_mode", "asymmetric")
    editor.set_attribute(node, "nearest_mode", "floor")


def _resize_optional(editor: Editor, node: ir.Node) -> None:
    """Inputs that had to be there, empty, may be left out."""
    for index in (1, 2):
        value = editor.input(node, index)
        tensor = editor.tensor(value) if value is not None else None
        if tensor is not None and tensor.size == 0:
            _give(node, index, None)


def _resize_nearest(editor: Editor, node: ir.Node, version: int) -> str | None:
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is not None and mode.as_string() == "tf_half_pixel_for_nn":
        return "tf_half_pixel_for_nn no longer exists"
    return None


def _grid_sample(editor: Editor, node: ir.Node) -> None:
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "bilinear"
    editor.set_attribute(node, "mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def _roi_align(editor: Editor, node: ir.Node) -> None:
    if "coordinate_transformation_mode" not in node.attributes:
        editor.set_attribute(node, "coordinate_transformation_mode", "output_half_pixel")


def _pool_ceil(editor: Editor, node: ir.Node, version: int) -> str | None:
    def flag(name: str) -> bool:
        return name in node.attributes and bool(node.attributes[name].as_int())

    return "how it counts the padding at the end changed" if flag("ceil_mode") and flag("count_include_pad") else None


def _nothing(editor: Editor, node: ir.Node) -> None:
    return None


# --- the rest ---------------------------------------------------------------------------------------------------------


def _dft(editor: Editor, node: ir.Node) -> None:
    import numpy as np

    axis = node.attributes.pop("axis").as_int() if "axis" in node.attributes else 1
    _give(node, 2, editor.initializer(np.asarray(axis, dtype=np.int64), "axis"))


def _groups_to_channels(editor: Editor, node: ir.Node) -> None:
    """Scale and bias are given per channel instead of per group."""
    import numpy as np

    shape = editor.shape(node.inputs[0])
    channels = shape[1] if shape is not None else None
    assert isinstance(channels, int)
    groups = node.attributes["num_groups"].as_int()
    for index in (1, 2):
        array = editor.weight(node.inputs[index])
        assert array is not None
        _give(node, index, editor.initializer(np.repeat(array, channels // groups), "per_channel"))


def _unknown_groups(editor: Editor, node: ir.Node, version: int) -> str | None:
    shape = editor.shape(node.inputs[0])
    if shape is None or len(shape) < 2 or not isinstance(shape[1], int):
        return "how many channels there are is not known"
    constant = all(editor.is_constant(value) for value in node.inputs[1:3])
    return None if constant else "scale or bias depends on what is fed"


_AXES = Adapter(partial(_to_inputs, names=(("axes", 1),)))
_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod SumSquare"

ADAPTERS: dict[tuple[str, int], Adapter] = {
    ("BatchNormalization", 9): Adapter(_no_spatial, _spatial),
    ("BatchNormalization", 14): Adapter(_one_output, _trains),
    ("Clip", 11): Adapter(_clip, _known_float),
    ("Pad", 11): Adapter(_pad, _known_float),
    ("Slice", 10): Adapter(partial(_to_inputs, names=(("starts", 1), ("ends", 2), ("axes", 3)))),
    ("TopK", 10): Adapter(_top_k),
    ("Dropout", 10): Adapter(_nothing, _dropout_mask),
    ("Dropout", 12): Adapter(_dropout, _dropout_mask),
    ("Scatter", 11): Adapter(_scatter),
    ("Squeeze", 13): _AXES,
    ("Unsqueeze", 13): _AXES,
    ("ReduceSum", 13): _AXES,
    **{(f"Reduce{name}", 18): _AXES for name in _REDUCTIONS.split()},
    ("Split", 13): Adapter(partial(_to_inputs, names=(("split", 1),))),
    ("Split", 18): Adapter(_split_parts),
    ("Softmax", 13): Adapter(_flattened),
    ("LogSoftmax", 13): Adapter(_flattened),
    ("Hardmax", 13): Adapter(_flattened),
    ("Upsample", 9): Adapter(_upsample_scales, _shrinks),
    ("Upsample", 10): Adapter(_upsample, _shrinks),
    ("Resize", 11): Adapter(_resize_modes, _shrinks),
    ("Resize", 13): Adapter(_resize_optional, _resize_nearest),
    ("RoiAlign", 16): Adapter(_roi_align),
    ("AveragePool", 19): Adapter(_nothing, _pool_ceil),
    ("GridSample", 20): Adapter(_grid_sample),
    ("DFT", 20): Adapter(_dft),
    ("GroupNormalization", 21): Adapter(_groups_to_channels, _unknown_groups),
}

LOOSER = frozenset((("Gemm", 11), ("MaxPool", 8), ("OptionalHasElement", 18)))
"""Versions in which something became optional that was not."""

WITHOUT_KERNEL = frozenset(
    (op, 22)
    for op in [
        "Bernoulli",
        "GlobalLpPool",
        "MaxRoiPool",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "RoiAlign",
    ]
)
"""Versions that ONNX Runtime 1.32 has no CPU kernel for, though it has one for the version before: by its own list
(`get_all_opkernel_def`) and its rule that a kernel without a last version is for the version that it starts with.
Bernoulli is a function of RandomUniformLike."""
