"""Resizing by bicubic, area, Lanczos and antialiased kernels.

ONNX's Resize has other coefficients than TensorFlow's (which reads bicubic weights from a table of 1024), and ONNX
Runtime has no antialiased or area form for NHWC. All of these are linear and separable, so that between known sizes
each axis is one product with a matrix, which TensorFlow itself is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphkit.capture.tf_handlers.emitter import Emit, Emitter, Refusal


def handlers() -> Mapping[str, Emit]:
    return {"ResizeBicubic": _resize, "ResizeArea": _resize, "ScaleAndTranslate": _resize}


def fold_known_sizes(graph_def: Any) -> None:
    """Make a constant of every part of a shape that is known although the batch is not; in place.

    `tf.image.resize` divides the sizes to get the scale, and neither Grappler nor tf2onnx folds `shape[1:3]`.
    """
    import tensorflow as tf
    from tensorflow.python.framework import tensor_util

    if not any(node.op == "ScaleAndTranslate" for node in graph_def.node):
        return
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    for node in [n for n in graph_def.node if n.op == "StridedSlice"]:
        tensor = graph.get_tensor_by_name(f"{node.name}:0")
        if tensor.op.inputs[0].op.type != "Shape" or tensor.shape.rank != 1:
            continue
        sizes = tensor_util.constant_value_as_shape(tensor)
        if sizes.is_fully_defined():
            node.Clear()
            node.name, node.op = tensor.op.name, "Const"
            node.attr["dtype"].type = tensor.dtype.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(sizes.as_list(), tensor.dtype))


def _resize(e: Emitter) -> list[str]:
    import numpy as np
    import onnx

    images, *numbers = e.node.input
    shape = e.shape(images) or [-1] * 4
    known = [e.value(n) for n in numbers]
    if any(v is None for v in known) or shape[1] < 0 or shape[2] < 0:
        raise Refusal("the sizes before and after are not known, and ONNX's Resize computes something else")
    height, width = (_matrix(e, shape[1:3], known, axis) for axis in (0, 1))
    images = e.op("Cast", images, to=onnx.TensorProto.FLOAT)
    first = e.op("Transpose", images, perm=[0, 3, 1, 2])
    rows = e.op("MatMul", e.const(height), first)
    made = e.op("MatMul", rows, e.const(np.ascontiguousarray(width.T)))
    return [e.op("Transpose", made, perm=[0, 2, 3, 1])]


def _matrix(e: Emitter, size: list[int], numbers: list[Any], axis: int) -> Any:
    """(after, before) along an axis: what TensorFlow makes of unit vectors, which lie in the channels."""
    import numpy as np
    import tensorflow as tf

    other = 1 - axis
    numbers = [np.array(v) for v in numbers]
    numbers[0][other] = 1  # the target size
    if e.node.type == "ScaleAndTranslate":
        numbers[1][other], numbers[2][other] = 1.0, 0.0
    extent = [1, 1]
    extent[axis] = size[axis]
    basis = np.eye(size[axis], dtype=np.float32).reshape(1, *extent, size[axis])
    with tf.Graph().as_default(), tf.device("/cpu:0"), tf.compat.v1.Session() as session:
        made = session.run(_operation(e)(basis, *numbers))
    return made.reshape(-1, size[axis])


def _operation(e: Emitter) -> Any:
    import tensorflow as tf

    get = e.node.get_attr_value
    if e.node.type == "ScaleAndTranslate":
        kernel = e.node.get_attr_str("kernel_type")
        return lambda x, size, scale, shift: tf.raw_ops.ScaleAndTranslate(
            images=x, size=size, scale=scale, translation=shift, kernel_type=kernel, antialias=bool(get("antialias", 1))
        )
    if e.node.type == "ResizeArea":
        return lambda x, size: tf.raw_ops.ResizeArea(images=x, size=size, align_corners=bool(get("align_corners", 0)))
    return lambda x, size: tf.raw_ops.ResizeBicubic(
        images=x, size=size, align_corners=bool(get("align_corners", 0)),
        half_pixel_centers=bool(get("half_pixel_centers", 0)),
    )  # fmt: skip
