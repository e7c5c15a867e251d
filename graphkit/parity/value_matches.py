"""Which tensors of two runs hold the same values, whatever they are called.

Statistics that no order of the elements changes pick the few that may be equal; these are then compared element by
element, straight or transposed between channels first and channels last. One tensor has at most one partner: equal
ones in both runs are paired in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphkit.parity.chunks import in_chunks
from graphkit.parity.runners import ort_worker

EQUAL = 0.2
"""Share of the tolerance up to which two tensors are the same one: rounding over a deep network stays below, and an
error of one tolerance has room to be seen to grow."""

_CHILD = "graphkit.parity.value_child"
_UNKNOWN = 4_000_000  # bytes a tensor is taken for before it was seen
_ROUNDS = 4
_CLOSEST = 6
_LAYOUTS = {3: ((0, 2, 1),), 4: ((0, 2, 3, 1), (0, 3, 1, 2)), 5: ((0, 2, 3, 4, 1), (0, 4, 1, 2, 3))}
_STEP = 2e-3  # how far statistics of equal tensors may be apart, over their scale
_HALF_STEP = 2e-2
_HALVES = ("float16", "bfloat16")

Entries = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Print:
    """What a tensor of floats is like.

    Attributes:
        plain: Its values tell nothing: it is constant, or of two kinds of values only.
        statistics: Least, largest, mean, mean of absolutes, root mean square.
        scale: Size of its values.
    """

    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    plain: bool
    statistics: tuple[float, ...]
    scale: float

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for dim in self.shape:
            size *= dim
        return size


@dataclass(slots=True)
class Matches:
    """What was found.

    Attributes:
        partners: Candidate's tensor -> the reference's.
        errors: Candidate's tensor -> what was measured against its partner (see `locate_child.apart`).
        transposed: Candidate's tensors whose partner has another order of axes.
        reference, candidate: Fingerprints by name, of tensors of floats.
    """

    reference: Mapping[str, Print]
    candidate: Mapping[str, Print]
    partners: dict[str, str] = field(default_factory=dict)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    transposed: list[str] = field(default_factory=list)


class Probes:
    """Looks into two runs on the same inputs, some tensors at a time.

    Args:
        reference: An `.onnx` file that is ours (see `taps.split`), or tensors in files.
        candidate: Such an `.onnx` file.
        inputs: Tensors in files.
    """

    def __init__(self, reference: str | Entries, candidate: str, inputs: Entries) -> None:
        self._reference, self._candidate, self._inputs = reference, candidate, inputs

    def prints_of_reference(self, names: Sequence[str]) -> dict[str, Print]:
        """Fingerprints of the tensors of floats among these. Raises: as `Taps.measure`."""
        if isinstance(self._reference, str):
            return self._prints_of(self._reference, names)
        wanted = set(names)
        entries = [e for e in self._reference if e["name"] in wanted]
        found = ort_worker().call(f"{_CHILD}:fingerprints_of_files", entries=entries)
        return _prints([e["name"] for e in entries], found)

    def prints_of_candidate(self, names: Sequence[str]) -> dict[str, Print]:
        """The same of the candidate."""
        return self._prints_of(self._candidate, names)

    def apart(
        self, pairs: Sequence[tuple[str, str, tuple[int, ...] | None]], bytes_of: Callable[[str, str], int]
    ) -> list[dict[str, Any] | None]:
        """How far the tensors of each pair are apart.

        Args:
            pairs: Reference's and candidate's name, and the permutation of the reference's axes.
            bytes_of: Of a pair, given by its two names.
        """
        found: list[dict[str, Any] | None] = []
        for chunk in in_chunks(pairs, lambda pair: bytes_of(pair[0], pair[1])):
            found += ort_worker().call(
                f"{_CHILD}:measure_pairs", reference=self._reference, candidate=self._candidate, pairs=chunk,
                inputs=self._inputs,
            )  # fmt: skip
        return found

    def _prints_of(self, graph: str, names: Sequence[str]) -> dict[str, Print]:
        done: dict[str, Print] = {}
        call = f"{_CHILD}:fingerprints"
        for chunk in in_chunks(names, lambda _: max((p.nbytes for p in done.values()), default=_UNKNOWN)):
            done.update(_prints(chunk, ort_worker().call(call, graph=graph, names=chunk, inputs=self._inputs)))
        return done


def match(probes: Probes, reference: Sequence[str], candidate: Sequence[str]) -> Matches:
    """Pair the tensors of two runs.

    Args:
        reference, candidate: Names in topological order.

    Raises:
        GraphkitError: one side does not run.
    """
    found = Matches(probes.prints_of_reference(reference), probes.prints_of_candidate(candidate))
    closest = _closest(found.reference, found.candidate)
    refused: set[tuple[str, str]] = set()
    for _ in range(_ROUNDS):
        proposed = list(_proposed(found, closest, refused))
        measured = probes.apart(
            [(r, c, layout(found.reference[r].shape, found.candidate[c].shape)) for r, c in proposed],
            lambda r, c: found.reference[r].nbytes + found.candidate[c].nbytes,
        )
        for (r, c), errors in zip(proposed, measured, strict=True):
            if errors is None or errors["error"] > EQUAL:
                refused.add((r, c))
                continue
            found.partners[c], found.errors[c] = r, errors
            if layout(found.reference[r].shape, found.candidate[c].shape) is not None:
                found.transposed.append(c)
        if not proposed:
            break
    return found


def layout(reference: tuple[int, ...], candidate: tuple[int, ...]) -> tuple[int, ...] | None:
    """The permutation of the reference's axes between channels first and last that gives the candidate's shape; None
    where the shapes are the same, or no such permutation does."""
    if reference == candidate:
        return None
    orders = _LAYOUTS.get(len(reference), ())
    return next((o for o in orders if tuple(reference[axis] for axis in o) == candidate), None)


def _prints(names: Sequence[str], found: Sequence[dict[str, Any] | None]) -> dict[str, Print]:
    return {
        name: Print(**{**entry, "shape": tuple(entry["shape"]), "statistics": tuple(entry["statistics"])})
        for name, entry in zip(names, found, strict=True)
        if entry is not None
    }


def _proposed(
    found: Matches, closest: Mapping[str, Sequence[str]], refused: set[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    taken = set(found.partners.values())
    for name, others in closest.items():
        if name in found.partners:
            continue
        partner = next((r for r in others if r not in taken and (r, name) not in refused), None)
        if partner is not None:
            taken.add(partner)
            yield partner, name


def _closest(reference: Mapping[str, Print], candidate: Mapping[str, Print]) -> dict[str, list[str]]:
    """For each tensor of the candidate those that it may be equal to: nearest first, then in their order."""
    import numpy as np

    by_size: dict[int, list[str]] = {}
    for name, each in reference.items():
        if not each.plain:
            by_size.setdefault(each.size, []).append(name)
    tables = {size: np.array([reference[n].statistics for n in names]) for size, names in by_size.items()}
    found: dict[str, list[str]] = {}
    for name, each in candidate.items():
        if each.plain or each.size not in tables:
            continue
        gaps = np.abs(tables[each.size] - np.array(each.statistics)).max(axis=1) / (each.scale or 1.0)
        names = by_size[each.size]
        near = [int(i) for i in np.flatnonzero(gaps <= _HALF_STEP)]
        near = [i for i in near if gaps[i] <= (_HALF_STEP if _half(reference[names[i]], each) else _STEP)]
        near.sort(key=lambda i: (round(float(gaps[i]), 4), i))
        found[name] = [names[i] for i in near[:_CLOSEST]]
    return found


def _half(*prints: Print) -> bool:
    return any(p.dtype in _HALVES for p in prints)
