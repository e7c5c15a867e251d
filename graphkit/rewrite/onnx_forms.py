"""What onnx_ir wants where graphkit has names and numbers: attributes, dimensions, dtypes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphkit.analyze.polynomial import Size

if TYPE_CHECKING:
    import onnx_ir as ir


def made_attribute(name: str, value: Any) -> ir.Attr:
    """An attribute of a Python value, or of another attribute's."""
    import onnx_ir as ir

    if isinstance(value, ir.Attr):
        return ir.Attr(name, value.type, value.value)
    if isinstance(value, int):
        return ir.Attr(name, ir.AttributeType.INT, value)
    if isinstance(value, list | tuple) and value and all(isinstance(item, int) for item in value):
        return ir.Attr(name, ir.AttributeType.INTS, value)  # what ir.convenience does too, behind six protocols
    return ir.convenience.convert_attribute(name, value)


def dimension(size: Size | None) -> int | str | None:
    """A size as a dimension of a shape."""
    return size if size is None or isinstance(size, int) else str(size)


_ONNX_NAMES = {"float32": "FLOAT", "float64": "DOUBLE"}


@lru_cache(maxsize=64)
def dtype_of(name: str) -> ir.DataType:
    """onnx_ir's dtype of a name such as `float32`."""
    import onnx_ir as ir

    return ir.DataType[_ONNX_NAMES.get(name, name.upper())]
