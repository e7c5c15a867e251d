"""Fourier transforms. A complex tensor is a real one with a last axis of (real, imaginary), as for ONNX's DFT.

DFT exists from opset 17 on; below, a transform of known length is a product with its matrix. An op that would read a
complex tensor and is not listed here is refused, because it would take the last axis for one of the signal's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphkit.capture.tf_handlers.emitter import Emit, Emitter, Refusal, run_builtin


def handlers() -> Mapping[str, Emit]:
    return {
        "RFFT": _rfft,
        "IRFFT": _irfft,
        "FFT": _fft,
        "IFFT": _ifft,
        "RFFT2D": _rfft2d,
        "IRFFT2D": _irfft2d,
        "FFT2D": _fft2d,
        "IFFT2D": _ifft2d,
        "Complex": _complex,
        "Real": lambda e: [_part(e, _pair(e, e.node.input[0]), 0)],
        "Imag": lambda e: [_part(e, _pair(e, e.node.input[0]), 1)],
        "ComplexAbs": _absolute,
        "Conj": _conjugate,
        "Mul": _multiply,
        "Cast": _cast,
        "Pad": _pad,
        "Shape": _shape,
    }


_READERS = {
    "IRFFT", "FFT", "IFFT", "IRFFT2D", "FFT2D", "IFFT2D", "Real", "Imag", "ComplexAbs", "Conj", "Mul", "Pad", "Shape",
}  # fmt: skip


def _check_readers(e: Emitter) -> None:
    """Raises: Refusal where something reads the complex output that knows nothing of the last axis."""
    readers = {c.type for c in e.graph.find_output_consumers(e.node.output[0])} - _READERS
    if e.node.output[0] in e.graph.outputs or readers:
        raise Refusal(f"a complex tensor goes to {', '.join(sorted(readers)) or 'an output'}")


def _is_complex(e: Emitter, tensor: str) -> bool:
    import onnx

    return e.graph.get_dtype(tensor) in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)


def _rfft(e: Emitter) -> list[str | None]:
    _check_readers(e)
    x, length = e.node.input
    axis = e.rank(x) - 1
    signal, known = _resized(e, x, axis, axis + 1, e.int64(length), e.value(length), (e.shape(x) or [-1])[-1])
    return _typed(e, _transform(e, e.op("Unsqueeze", signal, e.ints(-1)), axis, known, onesided=True))


def _fft(e: Emitter) -> list[str | None]:
    _check_readers(e)
    x = _pair(e, e.node.input[0])
    return _typed(e, _transform(e, x, e.rank(x) - 2, _last(e, x)))


def _ifft(e: Emitter) -> list[str | None]:
    _check_readers(e)
    x = _pair(e, e.node.input[0])
    return _typed(e, _transform(e, x, e.rank(x) - 2, _last(e, x), inverse=True))


def _irfft(e: Emitter) -> list[str | None]:
    x, length = _pair(e, e.node.input[0]), e.node.input[1]
    return [_real_inverse(e, x, e.rank(x), e.int64(length), e.value(length), _last(e, x))]


def _real_inverse(e: Emitter, x: str, rank: int, n: str, value: Any | None, size: int) -> str:
    """The spectrum with its mirror image, transformed back; the result is real."""
    axis = rank - 2
    half = e.op("Add", e.op("Div", n, e.ints(2)), e.ints(1))
    known_half = None if value is None else [int(value[0]) // 2 + 1]
    kept, _ = _resized(e, x, axis, rank, half, known_half, size)
    stop = e.op("Add", e.op("Div", e.op("Sub", n, e.ints(1)), e.ints(2)), e.ints(1))
    inner = e.op("Slice", kept, e.ints(1), stop, e.ints(axis))
    turned = e.op("Slice", inner, e.ints(-1), e.ints(-(2**31)), e.ints(axis), e.ints(-1))
    sign = e.const([1.0, -1.0], like=turned)
    whole = e.op("Concat", kept, e.op("Mul", turned, sign), axis=axis)
    back = _transform(e, whole, axis, None if value is None else int(value[0]), inverse=True)
    return _part(e, back, 0)


def _rfft2d(e: Emitter) -> list[str | None]:
    """Rows, then columns."""
    _check_readers(e)
    x, lengths = e.node.input
    rank, sizes = e.rank(x), e.shape(x) or []
    (rows, rows_known), (columns, columns_known) = _two_lengths(e, lengths)
    x, width = _resized(e, x, rank - 1, rank, columns, columns_known, sizes[-1])
    x, height = _resized(e, x, rank - 2, rank, rows, rows_known, sizes[-2])
    half = _transform(e, e.op("Unsqueeze", x, e.ints(-1)), rank - 1, width, onesided=True)
    return _typed(e, _down_columns(e, half, rank + 1, height))


def _irfft2d(e: Emitter) -> list[str | None]:
    x, lengths = _pair(e, e.node.input[0]), e.node.input[1]
    rank, sizes = e.rank(x), e.shape(x) or []
    (rows, rows_known), (columns, columns_known) = _two_lengths(e, lengths)
    x, height = _resized(e, x, rank - 3, rank, rows, rows_known, sizes[-3])
    x = _down_columns(e, x, rank, height, inverse=True)
    return [_real_inverse(e, x, rank, columns, columns_known, sizes[-2])]


def _fft2d(e: Emitter) -> list[str | None]:
    return _both_axes(e, inverse=False)


def _ifft2d(e: Emitter) -> list[str | None]:
    return _both_axes(e, inverse=True)


def _both_axes(e: Emitter, *, inverse: bool) -> list[str | None]:
    _check_readers(e)
    x = _pair(e, e.node.input[0])
    rank, sizes = e.rank(x), e.shape(x) or []
    rows = _transform(e, x, rank - 2, sizes[-2], inverse=inverse)
    return _typed(e, _down_columns(e, rows, rank, sizes[-3], inverse=inverse))


def _two_lengths(e: Emitter, lengths: str) -> list[tuple[str, Any | None]]:
    """Each as a vector of one, with its value where that is known."""
    value = e.value(lengths)
    whole = e.int64(lengths)
    parts = (e.op("Slice", whole, e.ints(i), e.ints(i + 1)) for i in (0, 1))
    return [(part, None if value is None else value[i : i + 1]) for i, part in enumerate(parts)]


def _down_columns(e: Emitter, pair: str, rank: int, length: int | None, inverse: bool = False) -> str:
    """Along the last axis but one of the signal."""
    if _by_product(e, length):
        return _by_matrix(e, pair, length or 0, inverse, onesided=False, columns=True)
    return _transform(e, pair, rank - 3, length, inverse)


def _last(e: Emitter, pair: str) -> int:
    """The length of a complex signal, -1 where it is not known."""
    return (e.shape(pair) or [-1, 2])[-2]


def _pair(e: Emitter, tensor: str) -> str:
    """The pair that stands for a complex tensor.

    Raises:
        Refusal: it is complex still, as an input of the graph is.
    """
    import numpy as np

    if not _is_complex(e, tensor):
        return tensor
    value = e.value(tensor)
    if value is None:
        raise Refusal("a complex tensor comes from an input, or from an op that has no complex form here")
    return e.const(np.stack([value.real, value.imag], -1))


def _resized(
    e: Emitter, x: str, axis: int, rank: int, wanted: str, value: Any | None, size: int
) -> tuple[str, int | None]:
    """Cut or padded with zeros at the end of an axis; the new length where it is known."""
    known = None if value is None else int(value[0])
    if known is not None and known == size:
        return x, known
    if known is None or size < 0 or known > size:
        have = e.op("Gather", e.op("Shape", x), e.ints(axis), axis=0)
        missing = e.op("Max", e.op("Sub", wanted, have), e.ints(0))
        after = [missing if a == axis else e.ints(0) for a in range(rank)]
        x = e.op("Pad", x, e.op("Concat", e.ints(*[0] * rank), *after, axis=0), e.const(0.0, like=x))
    return e.op("Slice", x, e.ints(0), wanted, e.ints(axis)), known


def _transform(e: Emitter, x: str, axis: int, length: int | None, inverse: bool = False, onesided: bool = False) -> str:
    if not _by_product(e, length):
        return e.op("DFT", x, axis=axis, inverse=int(inverse), onesided=int(onesided))
    return _by_matrix(e, x, length or 0, inverse, onesided)


_SHORT = 128


def _by_product(e: Emitter, length: int | None) -> bool:
    """Whether to multiply by the transform's matrix: below opset 17, and for short signals, where ONNX Runtime's DFT
    (1.32) is off by 2e-7 of the largest value and engines have none.

    Raises:
        Refusal: there is no DFT, and no known length.
    """
    if length is not None and 0 < length <= _SHORT:
        return True
    if e.opset < 17 and (length is None or length < 0):
        raise Refusal("the length of the transform is not known, and ONNX has DFT from opset 17 on only")
    return e.opset < 17


def _by_matrix(e: Emitter, x: str, length: int, inverse: bool, onesided: bool, columns: bool = False) -> str:
    """The matrix times the last axis, or with `columns` the one before it."""
    import numpy as np

    bins = length // 2 + 1 if onesided else length
    turns = np.outer(np.arange(bins), np.arange(length)) % length / length
    matrix = np.exp((2j if inverse else -2j) * np.pi * turns) / (length if inverse else 1)
    parts = [_part(e, x, i) for i in range(1 if onesided else 2)]
    factors = parts if columns else [e.op("Unsqueeze", part, e.ints(-1)) for part in parts]
    real, imaginary = e.const(matrix.real, like=x), e.const(matrix.imag, like=x)
    products = [[e.op("MatMul", m, c) for m in (real, imaginary)] for c in factors]
    made = products[0]
    if not onesided:
        made = [e.op("Sub", products[0][0], products[1][1]), e.op("Add", products[0][1], products[1][0])]
    return e.op("Concat", *([e.op("Unsqueeze", m, e.ints(-1)) for m in made] if columns else made), axis=-1)


def _typed(e: Emitter, value: str) -> list[str | None]:
    """The pair takes the place of the complex tensor, real dtype and all."""
    _pairs(e).add(e.graph.get_node_by_output(value).name)
    e.graph.replace_all_inputs(e.node.output[0], value)
    return [None]


def _part(e: Emitter, pair: str, which: int) -> str:
    return e.op("Gather", pair, e.const(_int64(which)), axis=-1)


def _int64(value: int) -> Any:
    import numpy as np

    return np.asarray(value, np.int64)


def _complex(e: Emitter) -> list[str | None]:
    _check_readers(e)
    parts = [e.op("Unsqueeze", t, e.ints(-1)) for t in e.node.input]
    return _typed(e, e.op("Concat", *parts, axis=-1))


def _absolute(e: Emitter) -> list[str]:
    x = _pair(e, e.node.input[0])
    return [e.op("Sqrt", e.reduce("ReduceSum", e.op("Mul", x, x), [-1]))]


def _conjugate(e: Emitter) -> list[str | None]:
    _check_readers(e)
    x = _pair(e, e.node.input[0])
    return _typed(e, e.op("Mul", x, e.const([1.0, -1.0], like=x)))


def _multiply(e: Emitter) -> list[str | None] | None:
    if not _is_complex(e, e.node.output[0]):
        run_builtin(e)
        return None
    _check_readers(e)
    (a, b), (c, d) = ([_part(e, _pair(e, t), i) for i in (0, 1)] for t in e.node.input)
    real = e.op("Sub", e.op("Mul", a, c), e.op("Mul", b, d))
    imaginary = e.op("Add", e.op("Mul", a, d), e.op("Mul", b, c))
    return _typed(e, e.op("Concat", *(e.op("Unsqueeze", t, e.ints(-1)) for t in (real, imaginary)), axis=-1))


def _cast(e: Emitter) -> list[str | None] | None:
    if not _is_complex(e, e.node.output[0]):
        run_builtin(e)
        return None
    _check_readers(e)
    import numpy as np
    import onnx

    single = e.graph.get_dtype(e.node.output[0]) == onnx.TensorProto.COMPLEX64
    real = e.op("Cast", e.node.input[0], to=onnx.TensorProto.FLOAT if single else onnx.TensorProto.DOUBLE)
    pair = e.op("Unsqueeze", real, e.ints(-1))
    rank = e.rank(e.node.input[0])
    around = e.ints(*[0] * (2 * rank + 1), 1)
    return _typed(e, e.op("Pad", pair, around, e.const(np.zeros((), e.numpy_dtype(real)))))


def _pad(e: Emitter) -> list[str | None] | None:
    if not _is_complex(e, e.node.output[0]):
        run_builtin(e)
        return None
    _check_readers(e)
    x = _pair(e, e.node.input[0])
    sides = e.op("Transpose", e.int64(e.node.input[1]), perm=[1, 0])
    around = e.op("Reshape", e.op("Pad", sides, e.ints(0, 0, 0, 1)), e.ints(-1))
    return _typed(e, e.op("Pad", x, around))


def _shape(e: Emitter) -> list[str] | None:
    """That of the complex tensor: without the last axis. The pair already has a real dtype here."""
    made = e.graph.get_node_by_output(e.node.input[0])
    if made is None or made.name not in _pairs(e):
        run_builtin(e)
        return None
    whole = e.op("Shape", e.node.input[0])
    return [e.cast(e.op("Slice", whole, e.ints(0), e.ints(-1)), e.node.output[0])]


def _pairs(e: Emitter) -> set[str]:
    """Names of the nodes of this graph that make pairs."""
    known: set[str] = e.graph.__dict__.setdefault("graphkit_pairs", set())
    return known
