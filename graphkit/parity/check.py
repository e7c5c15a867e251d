"""Runs the reference and every candidate on the same inputs, at every size, and says where they part."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.errors import GraphkitError, Lacking
from graphkit.parity.compare import Tolerance, compare_outputs, floor_of, is_float, magnitude
from graphkit.parity.inputs import InputPlan, fixed_sizes, make_inputs
from graphkit.parity.judge import ByName, Judgement
from graphkit.parity.sizes import SizePoint
from graphkit.parity.verdict import Comparison, OutputComparison, Status

if TYPE_CHECKING:
    import numpy as np

    from graphkit.parity.runners import Runner

    Tensors = Mapping[str, np.ndarray[Any, Any]]

    OutputJudge = Callable[[Tensors, Tensors], Judgement]


def check(
    reference: Runner,
    candidates: Sequence[Runner],
    plans: Sequence[InputPlan],
    points: Sequence[SizePoint],
    given: Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    tolerance: Tolerance | None = None,
    judge: OutputJudge | None = None,
) -> tuple[Comparison, ...]:
    """One comparison per point and candidate; the reference runs once per point.

    A side that cannot run at a size fails there, with its reason; one that this machine cannot run at all (no GPU,
    a package missing) is `not run`. A reference whose own two runs differ is called random.

    Args:
        given: The user's own values (see `make_inputs`).
        seed: Of the generated values; each further draw at a size uses the next one.
        tolerance: Instead of the one that follows from the dtypes.
        judge: What decides on a run's outputs, `tolerance` then being its business; `ByName` where None.

    Raises:
        UnknownName, BadSample, ShapeMismatch, ShapeMissing: the inputs cannot be made, or what `judge` raises.
    """
    cases = cases_of(plans, points, given, seed)
    return check_cases(reference, candidates, cases, judge or ByName(tolerance))


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs, made anew at each call: those of all cases together may be large.

    Attributes:
        point: The sizes, those that given values fix included.
        make: Makes the inputs.
        seed: Of the drawn ones.
    """

    point: SizePoint
    make: Callable[[], Tensors]
    seed: int

    def inputs(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies: a runner that writes into its inputs must not change the user's, nor those of the next."""
        return {name: value.copy() for name, value in self.make().items()}


def cases_of(
    plans: Sequence[InputPlan], points: Sequence[SizePoint], given: Mapping[str, Any] | None = None, seed: int = 0
) -> list[Case]:
    """One case per point.

    Raises:
        UnknownName, BadSample, ShapeMismatch, ShapeMissing: as `make_inputs`.
    """
    fixed = fixed_sizes(plans, given or {})
    cases = []
    for point in points:
        point = replace(point, sizes={**point.sizes, **fixed})
        drawn = seed + point.draw
        cases.append(Case(point, functools.partial(make_inputs, plans, point.sizes, drawn, given), drawn))
    return cases


def check_cases(
    reference: Runner,
    candidates: Sequence[Runner],
    cases: Sequence[Case],
    judge: OutputJudge | Sequence[OutputJudge],
) -> tuple[Comparison, ...]:
    """As `check`, on cases that may have values of their own; with one judge, or one for each candidate.

    First the reference runs on all of them, then one candidate after the other: no two are in memory at once.
    """
    with _References(reference, cases) as references:
        columns = []
        judges = judge if isinstance(judge, Sequence) else [judge] * len(candidates)
        for candidate, own in zip(candidates, judges, strict=True):
            columns.append([_one(case, references, position, candidate, own) for position, case in enumerate(cases)])
            _release(candidate)
    return tuple(comparison for row in zip(*columns, strict=True) for comparison in row)


@dataclass(frozen=True, slots=True)
class EngineVerdict:
    """What is known about an engine: `not run` is no verdict, and never a pass."""

    status: Status
    reason: str | None
    comparisons: tuple[Comparison, ...] = ()


def engine_status(
    reference: Runner,
    engine: Runner | str,
    plans: Sequence[InputPlan],
    points: Sequence[SizePoint],
    given: Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    judge: OutputJudge | None = None,
) -> EngineVerdict:
    """Compare an engine with the reference.

    Args:
        engine: What runs it, or why nothing can: `no CUDA device`.
        judge: What decides on a run's outputs; `ByName` where None.
    """
    if isinstance(engine, str):
        return EngineVerdict("not run", engine)
    done = check(reference, [engine], plans, points, given, seed, judge=judge)
    for status in ("fail", "not run"):
        first = next((c for c in done if c.status == status), None)
        if first is not None:
            return EngineVerdict(first.status, first.reason, done)
    return EngineVerdict("pass", None, done) if done else EngineVerdict("not run", "no sizes to run at")


class _References:
    """What the reference says in every case, in files: it and a candidate need not be in memory together."""

    def __init__(self, reference: Runner, cases: Sequence[Case]) -> None:
        from graphkit.tensor_files import write_tensors

        self._reference, self._cases = reference, cases
        self._folder = tempfile.TemporaryDirectory(prefix="graphkit-check-")
        self._random: dict[int, str | None] = {}
        self._said: list[list[dict[str, str]] | tuple[Status, str]] = []
        try:
            for position, case in enumerate(cases):
                folder = Path(self._folder.name, str(position))
                folder.mkdir()
                try:
                    self._said.append(write_tensors(reference.run(case.inputs()), folder))
                except GraphkitError as error:
                    status: Status = "not run" if isinstance(error, Lacking) else "fail"
                    why = f"the reference does not run{_at_sizes(case.point)}: {error.message}"
                    self._said.append((status, why))
        except BaseException:
            self._folder.cleanup()
            raise
        _release(reference)

    def __enter__(self) -> _References:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def label(self) -> str:
        return self._reference.label

    def at(self, position: int) -> dict[str, np.ndarray[Any, Any]] | tuple[Status, str]:
        """Its outputs; or why it did not run."""
        from graphkit.tensor_files import read_tensors

        said = self._said[position]
        return said if isinstance(said, tuple) else read_tensors(said)

    def random(self, position: int, expected: Tensors) -> str | None:
        """Why a failure is no fault of the candidate; None if it is one. Costs a run only after a failure."""
        if position not in self._random:
            self._random[position] = _differs_from_itself(self._reference, expected, self._cases[position].inputs())
        return self._random[position]


def _release(runner: Runner) -> None:
    """Free what a runner holds between runs, if it can be had again."""
    release = getattr(runner, "release", None)
    if release is not None:
        release()


def _one(
    case: Case,
    references: _References,
    position: int,
    candidate: Runner,
    judge: OutputJudge,
) -> Comparison:
    point = case.point
    blank = Comparison(
        references.label, candidate.label, dict(point.sizes), case.seed, point.seen, "not run", note=point.note
    )
    expected = references.at(position)
    if isinstance(expected, tuple):
        return replace(blank, status=expected[0], reason=expected[1])
    try:
        found = candidate.run(case.inputs())
    except GraphkitError as error:
        status: Status = "not run" if isinstance(error, Lacking) else "fail"
        return replace(blank, status=status, reason="; ".join((error.message, *error.details)))
    done = _judged(blank, expected, found, judge)
    random = references.random(position, expected) if done.status == "fail" and done.outputs else None
    return replace(done, reason=random) if random else done


def _judged(blank: Comparison, expected: Tensors, found: Tensors, judge: OutputJudge) -> Comparison:
    if not expected:
        return replace(blank, status="fail", reason="the reference has no outputs: nothing is proven")
    judgement = judge(expected, found)
    outputs = tuple(_proven(o, expected) for o in judgement.outputs)
    blank = replace(blank, note="; ".join(filter(None, [blank.note, *judgement.notes, *_tiny(expected)])) or None)
    failed = [o for o in outputs if o.status == "fail"]
    reason = f"`{failed[0].output}`: {failed[0].reason}" if failed else None
    return replace(blank, status="fail" if failed else "pass", reason=reason, outputs=outputs)


def _tiny(expected: Tensors) -> Iterator[str]:
    """Outputs so small that the least tolerance covers most of what they could say."""
    for name, values in expected.items():
        if is_float(values.dtype) and values.size and values.any():
            size, floor = magnitude(values), floor_of(values.dtype.name)
            if size < 20 * floor:
                yield f"`{name}` is tiny here (about {size:.0e}): differences below {floor:.0e} are not seen"


def _proven(output: OutputComparison, expected: Tensors) -> OutputComparison:
    """A reference of nothing but NaN equals any broken graph."""
    import numpy as np

    values = expected.get(output.output)
    if values is None or not values.size or not is_float(values.dtype) or not np.isnan(values).all():
        return output
    return replace(output, status="fail", reason="the reference's output is all NaN: nothing is proven")


def _differs_from_itself(reference: Runner, expected: Tensors, inputs: dict[str, np.ndarray[Any, Any]]) -> str | None:
    try:
        again = reference.run(inputs)
    except GraphkitError as error:
        return f"the source itself is random or keeps state: run again on the same inputs it fails: {error.message}"
    moved = [o for o in compare_outputs(expected, again) if o.status == "fail"]
    if not moved:
        return None
    return (
        f"the source itself is random or keeps state: its `{moved[0].output}` differs between two runs on the same "
        f"inputs ({moved[0].reason})"
    )


def _at_sizes(point: SizePoint) -> str:
    where = ", ".join(f"{s}={n}" for s, n in point.sizes.items())
    kind = "inside the declared ranges" if point.declared else "which no --dim range excludes"
    return f" at {where} ({kind})" if where else ""
