"""Runs the reference and every candidate on the same inputs, at every size, and says where they part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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


def check(
    reference: Runner,
    candidates: Sequence[Runner],
    plans: Sequence[InputPlan],
    points: Sequence[SizePoint],
    given: Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    tolerance: Tolerance | None = None,
    judge: Callable[[Tensors, Tensors], Judgement] | None = None,
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
    judge = judge or ByName(tolerance)
    fixed = fixed_sizes(plans, given or {})
    done: list[Comparison] = []
    for point in points:
        point = replace(point, sizes={**point.sizes, **fixed})
        inputs = make_inputs(plans, point.sizes, seed + point.draw, given)
        done.extend(_at(reference, candidates, point, inputs, seed + point.draw, judge))
    return tuple(done)


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
    tolerance: Tolerance | None = None,
) -> EngineVerdict:
    """Compare an engine with the reference.

    Args:
        engine: What runs it, or why nothing can: `no CUDA device`.
    """
    if isinstance(engine, str):
        return EngineVerdict("not run", engine)
    done = check(reference, [engine], plans, points, given, seed, tolerance=tolerance)
    for status in ("fail", "not run"):
        first = next((c for c in done if c.status == status), None)
        if first is not None:
            return EngineVerdict(first.status, first.reason, done)
    return EngineVerdict("pass", None, done) if done else EngineVerdict("not run", "no sizes to run at")


def _at(
    reference: Runner,
    candidates: Sequence[Runner],
    point: SizePoint,
    inputs: Tensors,
    seed: int,
    judge: Callable[[Tensors, Tensors], Judgement],
) -> list[Comparison]:
    blank = [
        Comparison(reference.label, c.label, dict(point.sizes), seed, point.seen, "not run", note=point.note)
        for c in candidates
    ]
    try:
        expected = reference.run(_copies(inputs))
    except GraphkitError as error:
        status: Status = "not run" if isinstance(error, Lacking) else "fail"
        why = f"the reference does not run{_at_sizes(point)}: {error.message}"
        return [replace(c, status=status, reason=why) for c in blank]
    done = [_one(c, runner, expected, inputs, judge) for c, runner in zip(blank, candidates, strict=True)]
    if any(c.status == "fail" and c.outputs for c in done):
        random = _differs_from_itself(reference, expected, inputs)
        if random:
            done = [replace(c, reason=random) if c.status == "fail" and c.outputs else c for c in done]
    return done


def _one(
    blank: Comparison,
    candidate: Runner,
    expected: Tensors,
    inputs: Tensors,
    judge: Callable[[Tensors, Tensors], Judgement],
) -> Comparison:
    try:
        found = candidate.run(_copies(inputs))
    except GraphkitError as error:
        status: Status = "not run" if isinstance(error, Lacking) else "fail"
        return replace(blank, status=status, reason="; ".join((error.message, *error.details)))
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


def _differs_from_itself(reference: Runner, expected: Tensors, inputs: Tensors) -> str | None:
    """Why a failure is no fault of the conversion; None if it is one. Costs a run only after a failure."""
    try:
        again = reference.run(_copies(inputs))
    except GraphkitError as error:
        return f"the source itself is random or keeps state: run again on the same inputs it fails: {error.message}"
    moved = [o for o in compare_outputs(expected, again) if o.status == "fail"]
    if not moved:
        return None
    return (
        f"the source itself is random or keeps state: its `{moved[0].output}` differs between two runs on the same "
        f"inputs ({moved[0].reason})"
    )


def _copies(inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    """A runner that writes into its inputs must not change those of the next."""
    return {name: value.copy() for name, value in inputs.items()}


def _at_sizes(point: SizePoint) -> str:
    where = ", ".join(f"{s}={n}" for s, n in point.sizes.items())
    kind = "inside the declared ranges" if point.declared else "which no --dim range excludes"
    return f" at {where} ({kind})" if where else ""
