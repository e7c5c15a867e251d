"""Element types of ONNX tensors: name, width, and the field that holds them where there are no raw bytes.

Source: `TensorProto` in onnx.proto of onnx 1.23.
"""

from __future__ import annotations

from typing import NamedTuple


class DType(NamedTuple):
    """An element type.

    Attributes:
        name: As everywhere in graphkit: `float32`, `bfloat16`, `float8e4m3fn`.
        bits: Of one element, 0 for strings; types below 8 bits are packed, the first element in the low bits.
        field: The typed field of TensorProto: `float_data`, `int32_data`, ...
        numpy: Name of the dtype in numpy, or in ml_dtypes where numpy has none.
    """

    name: str
    bits: int
    field: str
    numpy: str


_ROWS = (
    (1, "float32", 32, "float_data", "float32"),
    (2, "uint8", 8, "int32_data", "uint8"),
    (3, "int8", 8, "int32_data", "int8"),
    (4, "uint16", 16, "int32_data", "uint16"),
    (5, "int16", 16, "int32_data", "int16"),
    (6, "int32", 32, "int32_data", "int32"),
    (7, "int64", 64, "int64_data", "int64"),
    (8, "string", 0, "string_data", "object"),
    (9, "bool", 8, "int32_data", "bool"),
    (10, "float16", 16, "int32_data", "float16"),
    (11, "float64", 64, "double_data", "float64"),
    (12, "uint32", 32, "uint64_data", "uint32"),
    (13, "uint64", 64, "uint64_data", "uint64"),
    (14, "complex64", 64, "float_data", "complex64"),
    (15, "complex128", 128, "double_data", "complex128"),
    (16, "bfloat16", 16, "int32_data", "bfloat16"),
    (17, "float8e4m3fn", 8, "int32_data", "float8_e4m3fn"),
    (18, "float8e4m3fnuz", 8, "int32_data", "float8_e4m3fnuz"),
    (19, "float8e5m2", 8, "int32_data", "float8_e5m2"),
    (20, "float8e5m2fnuz", 8, "int32_data", "float8_e5m2fnuz"),
    (21, "uint4", 4, "int32_data", "uint4"),
    (22, "int4", 4, "int32_data", "int4"),
    (23, "float4e2m1", 4, "int32_data", "float4_e2m1fn"),
    (24, "float8e8m0", 8, "int32_data", "float8_e8m0fnu"),
    (25, "uint2", 2, "int32_data", "uint2"),
    (26, "int2", 2, "int32_data", "int2"),
    (27, "float6e2m3", 6, "int32_data", "float6_e2m3fn"),
    (28, "float6e3m2", 6, "int32_data", "float6_e3m2fn"),
)

BY_CODE = {code: DType(name, bits, field, numpy) for code, name, bits, field, numpy in _ROWS}
BY_NAME = {dtype.name: dtype for dtype in BY_CODE.values()}


def name_of(code: int) -> str:
    """The name of a dtype's number in the file; `dtype 99` for one that ONNX does not have."""
    known = BY_CODE.get(code)
    return known.name if known else "undefined" if code == 0 else f"dtype {code}"
