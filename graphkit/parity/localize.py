"""Finds the first tensor whose error the errors of its inputs do not explain.

Backwards from an output that differs: a node whose inputs are within their tolerance, or whose output is ten times
further outside it than they are, is where the two part. A large graph is first narrowed down: of some tensors spread
over it, those that agree rule out what lies before them, and the first that differs rules out what comes after it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graphkit.model import SourceLine, provenance
from graphkit.parity.by_value import Run, names_tell_little, part
from graphkit.parity.common_tensors import CommonTensors
from graphkit.parity.divergence import Counts, Location, TensorError
from graphkit.parity.flow import steps_of
from graphkit.parity.producers import node_differences, weight_differences
from graphkit.parity.taps import Taps

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.model import Model

QUIET = 0.05
"""Errors up to this share of the tolerance are rounding: of float32 sums in another order about 0.01, of a float16
cast 0.04."""

JUMP = 10.0
"""A node whose output's error is so many times that of its inputs has made it, not passed it on."""

_HALF = (
    "the outputs agree: on the CPU ONNX Runtime computes a chain of float16 nodes in float32, also with its "
    "optimisations off, so that what overflows on a GPU comes back"
)
"""Seen with ONNX Runtime 1.32: 6e4 * 4 * 1e-4 in float16 gives 24, and infinity where the product is an output too."""

WHOLE = 256
"""Common tensors up to which all of them are measured."""

_SPREAD = 32  # tensors by which a larger graph is narrowed down
_TOP = 8
_GROWING = 1.5  # times: below it a tensor only passes on what it got


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of inputs at one set of sizes."""

    inputs: Mapping[str, np.ndarray[Any, Any]]
    sizes: Mapping[str, int]
    seed: int


def localize(reference: Model, candidate: Model, trials: Sequence[Trial], labels: tuple[str, str]) -> Location:
    """Run both graphs under ONNX Runtime, its optimisations off, and find where they part.

    Args:
        trials: Tried in turn until the outputs differ.
        labels: What to call the reference and the candidate.

    Raises:
        InvalidExport, BadSample, ParityFailed: one side cannot be loaded or run.
    """
    tensors = CommonTensors(reference, candidate)
    blank = Location("not comparable", "", *labels, counts=_counts(tensors))
    outputs = _common_outputs(reference, candidate, tensors)
    refusal = _refusal(reference, candidate, outputs)
    if refusal is not None:
        return replace(blank, reason=refusal)
    with Taps(reference, candidate, tensors) as taps:
        for position, trial in enumerate(trials):
            taps.feed(trial.inputs, trial.sizes)
            taps.measure(outputs)
            here, bad = at_trial(blank, trials, position, taps.errors.values())
            if here.reason:
                return here
            if bad is not None:
                return _locate(here, reference, candidate, tensors, taps, bad)
        return _equal(here, reference, candidate, tensors, taps, outputs)


def at_trial(
    blank: Location, trials: Sequence[Trial], position: int, outputs: Iterable[TensorError]
) -> tuple[Location, str | None]:
    """What the outputs say at one of the trials: the result so far, with its reason where it ends there since an
    output of the reference has no finite value; and the first output that is outside its tolerance."""
    errors = list(outputs)
    shapes = tuple(trial.sizes for trial in trials[: position + 1])
    here = replace(blank, sizes=dict(trials[position].sizes), seed=trials[position].seed, shapes=shapes)
    nothing = next((e.tensor for e in errors if says_nothing(e)), None)
    if nothing is not None:
        return replace(here, reason=f"the reference's output `{nothing}` has no finite value"), None
    return here, next((e.tensor for e in errors if e.error > 1), None)


def _equal(
    here: Location, reference: Model, candidate: Model, tensors: CommonTensors, taps: Taps, outputs: Sequence[str]
) -> Location:
    overflow = _overflow(candidate, tensors, taps)
    if overflow is not None:
        found = described(here, reference, candidate, tensors, taps, overflow)
        return replace(found, notes=(*found.notes, _HALF))
    here = replace(here, measured=in_order(taps), counts=replace(here.counts, measured=len(taps.errors)))
    lacking = [t.name for t in reference.signature.outputs if t.name not in taps.errors]
    if lacking:
        return replace(here, reason=f"the candidate has no tensor for the reference's output {', '.join(lacking)}")
    extra = [t.name for t in candidate.signature.outputs if t.name not in outputs]
    notes = (f"not compared, since only the candidate has them: outputs {', '.join(extra)}",) if extra else ()
    reason = f"every output is within its tolerance at {len(here.shapes)} set{'s' * (len(here.shapes) > 1)} of inputs"
    return replace(here, status="equal", reason=reason, notes=notes)


# --- what can be compared ----------------------------------------------------------------------------------------


def _common_outputs(reference: Model, candidate: Model, tensors: CommonTensors) -> list[str]:
    theirs = {v.name for v in reference.ir.graph.outputs}
    return [
        v.name
        for v in candidate.ir.graph.outputs
        if v.name in theirs and v.name in tensors.reference_values and tensors.reference_name(v.name) == v.name
    ]


def _refusal(reference: Model, candidate: Model, outputs: Sequence[str]) -> str | None:
    ours, theirs = ({t.name: t.dtype for t in m.signature.inputs} for m in (candidate, reference))
    if ours != theirs:
        return f"the inputs differ: the reference has {_listed(theirs)}, the candidate {_listed(ours)}"
    if not outputs:
        names = [", ".join(t.name for t in m.signature.outputs) for m in (reference, candidate)]
        return f"no output has the same name in both: the reference has {names[0]}, the candidate {names[1]}"
    return None


def _listed(inputs: Mapping[str, str | None]) -> str:
    return ", ".join(f"{n}: {d}" for n, d in inputs.items()) or "none"


def says_nothing(error: TensorError) -> bool:
    """Whether the reference's tensor has no finite value, so that nothing can be compared with it."""
    return "float" in error.dtype and bool(error.shape) and 0 not in error.shape and error.reference_range is None


# --- narrowing down ----------------------------------------------------------------------------------------------


def _locate(
    here: Location, reference: Model, candidate: Model, tensors: CommonTensors, taps: Taps, bad: str
) -> Location:
    inside = len(set(tensors.names) - {t.name for t in candidate.signature.outputs})
    if names_tell_little(inside, len(reference.ir.graph), len(tensors.nodes)) and tensors.nearest(bad).between:
        return _by_value(here, reference, candidate, tensors, taps, bad)
    target, region = bad, tensors.ordered(tensors.before([bad]))
    if len(region) > WHOLE:
        target, region = narrow(tensors, taps, target, region)
    taps.measure(region)
    first = first_unexplained(tensors, taps, target)
    return described(here, reference, candidate, tensors, taps, first)


def _by_value(
    here: Location, reference: Model, candidate: Model, tensors: CommonTensors, taps: Taps, bad: str
) -> Location:
    ours, theirs = (
        Run(steps_of(model), tuple(v.name or "" for v in model.ir.graph.inputs), name)
        for model, name in ((reference, tensors.reference_name(bad)), (candidate, bad))
    )
    found = part(here, ours, theirs, taps.probes())
    makers = {v.name: n for n in reference.ir.graph for v in n.outputs}
    node = tensors.makers[found.candidate.makes[0]]
    producer = makers.get(found.reference.makes[0]) if found.reference is not None else None
    location = replace(found.location, notes=(*found.location.notes, *_limits(here.counts)))
    if producer is None or producer.op_type != node.op_type:
        return location
    differences = tuple(d for d in node_differences(producer, node) if d.what != "inputs")
    return replace(location, weights=weight_differences(reference, [node], producer), differences=differences)


def narrow(tensors: CommonTensors, taps: Taps, target: str, region: list[str]) -> tuple[str, list[str]]:
    """An earlier tensor that differs, and the tensors before it that nothing rules out."""
    while len(region) > _SPREAD:
        step = len(region) / _SPREAD
        taps.measure(region[int(i * step)] for i in range(_SPREAD))
        measured = [n for n in region if n in taps.errors]
        target = next(n for n in [*measured, target] if taps.errors[n].error > 1)
        quiet = [n for n in measured if taps.errors[n].error <= QUIET]
        kept = (tensors.before([target]) - tensors.before(quiet, evidence=True)) & set(region)
        if len(kept) > 0.7 * len(region):
            return target, tensors.ordered(kept | {target})
        region = tensors.ordered(kept | {target})
    return target, region


def first_unexplained(tensors: CommonTensors, taps: Taps, target: str) -> str:
    """The earliest tensor that leads to `target` through errors that explain one another, and that none explains."""
    frontier, reached, origins = [target], {target}, []
    while frontier:
        taps.measure(i for name in frontier for i in tensors.nearest(name).tensors)
        following = []
        for name in frontier:
            causes = [i for i in tensors.nearest(name).tensors if explains(taps.errors.get(i), taps.errors[name])]
            if not causes:
                origins.append(name)
            following += [i for i in causes if i not in reached]
            reached.update(causes)
        frontier = following
    return tensors.ordered(origins)[0]


def explains(cause: TensorError | None, effect: TensorError) -> bool:
    """Whether the error of a node's input is reason enough for that of its output."""
    return cause is not None and (cause.error > 1 or cause.error > max(QUIET, effect.error / JUMP))


def _overflow(candidate: Model, tensors: CommonTensors, taps: Taps) -> str | None:
    """The first tensor of a float16 graph that is not finite where the reference is, though no output shows it."""
    import onnx_ir as ir

    values = (*tensors.values.values(), *candidate.ir.graph.initializers.values())
    if not any(v.dtype == ir.DataType.FLOAT16 for v in values) and not any(_to_half(n) for n in tensors.nodes):
        return None
    taps.measure(tensors.names)
    return next((n for n in tensors.names if n in taps.errors and _overflows(taps.errors[n])), None)


def _to_half(node: ir.Node) -> bool:
    import onnx_ir as ir

    to = node.attributes.get("to")
    return node.op_type == "Cast" and to is not None and to.value == ir.DataType.FLOAT16


def _overflows(error: TensorError) -> bool:
    return error.dtype.endswith(" / float16") and (error.reason or "").startswith("NaN")


# --- the answer --------------------------------------------------------------------------------------------------


def described(
    here: Location, reference: Model, candidate: Model, tensors: CommonTensors, taps: Taps, first: str
) -> Location:
    """The answer for the tensor at which the two part."""
    errors = {n: replace(e, growth=_growth(tensors, taps, n)) for n, e in taps.errors.items()}
    found, nearest = errors[first], tensors.nearest(first)
    node, theirs = tensors.makers[first], tensors.reference_values[first].producer()
    readers = [node, *nearest.between]
    return replace(
        here,
        status="located",
        reason=_why(found, [errors[n] for n in nearest.tensors if n in errors]),
        divergence=found,
        reference_op=theirs.op_type if theirs is not None else "",
        reference_node=(theirs.name or "") if theirs is not None else "",
        source=_lines(node, theirs),
        inputs=tuple(errors[n] for n in nearest.tensors if n in errors),
        between=tuple(label_of(n) for n in sorted(nearest.between, key=lambda n: tensors.depth[id(n)])),
        weights=weight_differences(reference, readers, theirs),
        differences=node_differences(theirs, node) if theirs is not None else (),
        contributors=_contributors(errors.values()),
        measured=tuple(sorted(errors.values(), key=lambda e: (e.depth, e.tensor))),
        counts=replace(here.counts, measured=len(errors)),
        notes=_limits(here.counts),
    )


def _growth(tensors: CommonTensors, taps: Taps, name: str) -> float | None:
    """How many times further outside its tolerance a tensor is than its inputs; rounding counts as `QUIET`."""
    before = tensors.nearest(name).tensors
    if any(n not in taps.errors for n in before):
        return None
    largest = max([QUIET, *(taps.errors[n].error for n in before)])
    error = taps.errors[name].error
    return 1.0 if error == largest else error / largest


def _why(found: TensorError, inputs: Sequence[TensorError]) -> str:
    worst = max((i.error for i in inputs), default=0.0)
    if found.reason is not None:
        return f"`{found.tensor}`: {found.reason}"
    inside = "inside their tolerance" if worst <= 1 else f"at most {worst:.2g} tolerances off"
    return f"`{found.tensor}` is {found.error:.2g} tolerances off; " + (
        f"the inputs of its node are {inside}" if inputs else "its node reads nothing but inputs and weights"
    )


def _lines(node: ir.Node, theirs: ir.Node | None) -> tuple[SourceLine, ...]:
    return provenance(node) or (provenance(theirs) if theirs is not None else ())


def label_of(node: ir.Node) -> str:
    """`Conv 'conv_1'`; a node without a name is called after what it makes."""
    return f"{node.op_type} '{node.name or node.outputs[0].name}'"


def _contributors(errors: Collection[TensorError]) -> tuple[TensorError, ...]:
    loud = [e for e in errors if e.error > QUIET and (e.growth or 0) > _GROWING]
    return tuple(sorted(loud, key=lambda e: (-(e.growth or 0), e.depth, e.tensor))[:_TOP])


def in_order(taps: Taps) -> tuple[TensorError, ...]:
    """What was measured, in the candidate's order."""
    return tuple(sorted(taps.errors.values(), key=lambda e: (e.depth, e.tensor)))


def _counts(tensors: CommonTensors) -> Counts:
    return Counts(common=len(tensors.names), unmatched=tensors.unmatched, inside=tensors.inside)


def _limits(counts: Counts) -> tuple[str, ...]:
    notes = []
    if counts.inside:
        notes.append(f"{counts.inside} tensors inside the bodies of If, Loop or Scan were not looked into")
    return tuple(notes)
