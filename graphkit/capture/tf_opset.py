"""Opsets: what tf2onnx writes itself, and what ONNX's version converter makes of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphkit.errors import OpsetNotHonoured

if TYPE_CHECKING:
    import onnx

DEFAULT_OPSET = 18
LOWEST, HIGHEST = 13, 18
"""The opsets that graphkit asks of tf2onnx 1.17; from 19 on it ends with "Opset 19 is not supported yet"."""

_SMALL = 128
"""Elements of an initialiser that a version adapter or shape inference may look into (axes, shapes, scales)."""


def translated_at(opset: int | None) -> int:
    """The opset at which tf2onnx translates, for a model at `opset` (None: the default).

    Raises:
        OpsetNotHonoured: neither tf2onnx nor ONNX's version converter reaches it.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    wanted = DEFAULT_OPSET if opset is None else opset
    if not LOWEST <= wanted <= newest:
        raise OpsetNotHonoured(
            f"opset {wanted} was asked for; TensorFlow models can be had at {LOWEST} to {newest}",
            remedy=f"--opset {min(max(wanted, LOWEST), newest)}, or leave the choice to graphkit",
            data={"asked": wanted, "lowest": LOWEST, "highest": newest},
        )
    return min(wanted, HIGHEST)


def at_opset(proto: onnx.ModelProto, opset: int | None) -> onnx.ModelProto:
    """The model at exactly this opset (None: as it is).

    Raises:
        OpsetNotHonoured: the version converter refuses it, or leaves it at another opset.
    """
    made = _version(proto)
    if opset is None or opset == made:
        return proto
    if opset > made:
        proto = _converted(proto, opset)
        made = _version(proto)
    if made != opset:
        raise OpsetNotHonoured(
            f"opset {opset} was asked for, but the model came out at opset {made}",
            remedy=f"--opset {made}, or leave the choice to graphkit",
            data={"asked": opset, "made": made},
        )
    return proto


def without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large initialisers as inputs: the same graph, to be read by native code without a copy of
    the weights, which may be beyond protobuf's 2 GiB."""
    import onnx

    bare = onnx.ModelProto()
    bare.ir_version = proto.ir_version
    bare.opset_import.extend(proto.opset_import)
    bare.functions.extend(proto.functions)
    graph = bare.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    graph.value_info.extend(proto.graph.value_info)
    for tensor in proto.graph.initializer:
        if _is_small(tensor):
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return bare


def _converted(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model at a later opset, by ONNX's version converter; weights do not pass through it."""
    import onnx
    from onnx import version_converter

    try:
        bare = version_converter.convert_version(without_weights(proto), opset)
    except Exception as error:  # the adapters raise RuntimeError, ConvertError and more
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OpsetNotHonoured(
            f"the model cannot be brought to opset {opset}: {first[:300]}",
            remedy=f"--opset {_version(proto)}, or leave the choice to graphkit",
            data={"asked": opset, "made": _version(proto)},
        ) from error
    large = [tensor for tensor in proto.graph.initializer if not _is_small(tensor)]
    names = {tensor.name for tensor in large}
    inputs = [value for value in bare.graph.input if value.name not in names]
    del bare.graph.input[:]
    bare.graph.input.extend(inputs)
    bare.graph.initializer.extend(large)
    bare.ir_version = max(bare.ir_version, onnx.helper.find_min_ir_version_for(bare.opset_import, True))
    return bare


def _is_small(tensor: onnx.TensorProto) -> bool:
    return math.prod(int(size) for size in tensor.dims) <= _SMALL


def _version(proto: onnx.ModelProto) -> int:
    return next((int(each.version) for each in proto.opset_import if each.domain in ("", "ai.onnx")), 0)
