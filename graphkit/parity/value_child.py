"""The child's side of `by_value`: what a tensor's values are like, and how far two tensors of other names are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphkit.parity.compare import is_float, magnitude
from graphkit.parity.locate_child import apart, run_to

_CHUNK = 1 << 20
_SAMPLE = 4096
_FEWEST = 3


def fingerprints(graph: str, names: Sequence[str], inputs: list[dict[str, str]]) -> list[dict[str, Any] | None]:
    """The fingerprint of each named tensor of an `.onnx` file; None for what is no tensor of floats.

    Raises: as `locate_child.measure`.
    """
    from graphkit.tensor_files import read_tensors

    values = run_to(graph, names, read_tensors(inputs), "graph")
    return [_fingerprint(values.pop(name, None)) for name in names]


def fingerprints_of_files(entries: list[dict[str, str]]) -> list[dict[str, Any] | None]:
    """The same of tensors in files, one at a time."""
    from graphkit.tensor_files import read_tensors

    return [_fingerprint(read_tensors([entry])[entry["name"]]) for entry in entries]


def measure_pairs(
    reference: str | list[dict[str, str]],
    candidate: str,
    pairs: Sequence[tuple[str, str, list[int] | None]],
    inputs: list[dict[str, str]],
) -> list[dict[str, Any] | None]:
    """The errors of pairs of tensors, as `locate_child.measure`.

    Args:
        reference: An `.onnx` file, or tensors in files.
        pairs: Name in the reference and in the candidate, and how the reference's axes have to be permuted. Without
            a permutation the elements stand in the same order, whatever the shapes.
    """
    from graphkit.tensor_files import read_tensors

    feeds = read_tensors(inputs)
    found = run_to(candidate, list(dict.fromkeys(c for _, c, _ in pairs)), feeds, "candidate")
    wanted = list(dict.fromkeys(r for r, _, _ in pairs))
    if isinstance(reference, str):
        expected: Mapping[str, Any] = run_to(reference, wanted, feeds, "reference")
    else:
        expected = read_tensors([e for e in reference if e["name"] in wanted])
    return [_pair(expected[r], found[c], order) if r in expected and c in found else None for r, c, order in pairs]


def _pair(reference: Any, candidate: Any, order: list[int] | None) -> dict[str, Any]:
    if order is not None:
        reference = reference.transpose(order)
    elif reference.size == candidate.size:
        reference = reference.reshape(candidate.shape)
    return apart(reference, candidate)


def _fingerprint(values: Any) -> dict[str, Any] | None:
    """Shape, dtype, bytes, and statistics that the order of the elements does not change: least, largest, mean,
    mean of absolutes and root mean square; `plain` where the values tell nothing: constant, or of two kinds only."""
    import numpy as np

    if values is None or values.dtype.kind == "c" or not is_float(values.dtype):
        return None
    flat = values.reshape(-1)
    low, high, total, absolute, squares, count = np.inf, -np.inf, 0.0, 0.0, 0.0, 0
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK].astype(np.float64)
        chunk = chunk[np.isfinite(chunk)]
        if chunk.size:
            low, high, count = min(low, float(chunk.min())), max(high, float(chunk.max())), count + chunk.size
            total, absolute = total + float(chunk.sum()), absolute + float(np.abs(chunk).sum())
            squares += float(np.square(chunk).sum())
    found = {"shape": list(values.shape), "dtype": str(values.dtype.name), "nbytes": int(values.nbytes)}
    if not count:
        return {**found, "plain": True, "statistics": [0.0] * 5, "scale": 1.0}
    few = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float32)
    plain = np.unique(few[np.isfinite(few)]).size < _FEWEST
    statistics = [low, high, total / count, absolute / count, (squares / count) ** 0.5]
    return {**found, "plain": bool(plain), "statistics": statistics, "scale": magnitude(values)}
