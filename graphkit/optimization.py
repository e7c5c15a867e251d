"""`optimize`: rewrite a graph, prove that it computes the same, and say for every node what became of it.

A rule that breaks the result is found, left out and named; the rest is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from graphkit import events, marks
from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption, GraphkitError, OptimizationFailed
from graphkit.model import Model
from graphkit.parity.check import cases_of, check
from graphkit.parity.inputs import fixed_sizes, plan_inputs
from graphkit.parity.padding import Padding, measure_padding
from graphkit.parity.runners import OrtRunner
from graphkit.parity.sizes import SizePoint, choose_sizes
from graphkit.parity.verdict import Comparison
from graphkit.rewrite import legalize, rules
from graphkit.rewrite.original import Original, counts
from graphkit.rewrite.passes import Options
from graphkit.rewrite.rule import Changes
from graphkit.shapes import DimRange, Sample, TensorSpec
from graphkit.view.reader import collector_paused

Verify = Literal["none", "final", "each"]

_OF_SCALE = 1e-5
"""Largest difference of a rewritten float32 graph, of the largest magnitude in the tensor."""

_LAST_BITS = 1e-6
"""The same where no rule computes anything otherwise."""

_BIT_OF_ONE = 2.0**-23
"""Least absolute difference that counts: ONNX Runtime's Sigmoid, Tanh and Softmax are rounded in bits of 1, also where
what they give is far below it (below parity's own floor, which is 1e-6)."""

_MOST_ROLLED_BACK = 8

_PADDING = (
    "Attention may differ from the nodes it replaced on rows whose keys are all masked out (padding): no model should "
    "use them, and they are not compared"
)


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A rule that was left out, because the graph with it did not compute the same."""

    rule: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Optimization:
    """What `optimize` did.

    Attributes:
        model: The new model.
        opset: Operator set of the model that was given.
        changes: Every application of a rule, and near misses.
        before, after: Nodes by operator, those of subgraphs included.
        rolled_back: Rules that were left out.
        verify: What was asked to be proved.
        comparisons: The proof, new model against old; () where none was asked for.
        target: What it was rewritten for.
        padding: What padded sequences give, where `Attention` with a mask was made and the mask is an input.
    """

    model: Model
    opset: int
    changes: Changes
    before: Mapping[str, int]
    after: Mapping[str, int]
    rolled_back: tuple[RolledBack, ...]
    verify: Verify
    comparisons: tuple[Comparison, ...] = ()
    padding: Padding | None = None
    target: str = "onnx"

    @property
    def for_target(self) -> Model:
        """The model as its target reads it: for TensorRT, `Attention` is marked as decomposable, which its builder
        wants and which nothing else takes (see `graphkit.marks`). `model` is within the standard."""
        return marks.mark(self.model) if self.marked else self.model

    @property
    def marked(self) -> bool:
        """Whether `for_target` is another model than `model`."""
        return self.target in legalize.TARGETS and marks.needs_mark(self.model.ir)

    @property
    def proved(self) -> str:
        """`pass`, or `not run`."""
        return "pass" if self.comparisons else "not run"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the proof cannot show: rows without any key, on which the operator differs by design."""
        if self.padding is not None:
            kept, hidden = self.padding.places
            return (
                f"padding, by `{self.padding.mask}`: the {kept} places that it keeps differ by at most "
                f"{self.padding.kept:.2g} of the scale, the {hidden} that it hides by {self.padding.hidden:.2g}: where "
                "all keys are masked out, Attention has no defined result, and no model should use it",
            )
        return (_PADDING,) if "attention" in self.changes.by_rule() and _masks(self.model) else ()


@dataclass(frozen=True, slots=True)
class Proving:
    """On what a rewriting is proved.

    Attributes:
        verify: `none`; `final`: the result; `each`: the result of every rule.
        onnxsim: Whether onnxsim runs first, in a child process; it is kept where it leaves fewer nodes.
        shapes: Shapes of inputs, where a file is read: names for its dimensions.
        dims: Ranges of symbolic dimensions; those of the model where ().
        samples: Values for some inputs.
        seed: Of the drawn ones.
    """

    verify: Verify = "final"
    onnxsim: bool = False
    shapes: tuple[TensorSpec, ...] = ()
    dims: tuple[DimRange, ...] = ()
    samples: tuple[Sample, ...] = ()
    seed: int = 0


def optimize(
    source: Model | Path | str, options: Options | None = None, proving: Proving | None = None, **settings: Any
) -> Optimization:
    """Rewrite a model.

    Args:
        source: A model, which stays as it is, or an ONNX file.
        options: What to rewrite; or its fields as `settings`: `level`, `target`, `opset`, `only`, `skip`, `growth`.
        proving: How to prove it; or its fields as `settings`: `verify`, `onnxsim`, `shapes`, `dims`, `samples`, `seed`.

    Raises:
        FileMissing, CorruptFile, UnsafePath: the file cannot be read.
        UnknownName: there is no such rule. BadOption: no such level or target.
        OptimizationFailed: the graph computes something else even without any rule, or cannot be run.

    Example:
        >>> optimize("m.onnx", target="trt").changes.by_rule()
    """
    own = {each.name: settings.pop(each.name) for each in fields(Proving) if each.name in settings}
    asked = replace(options or Options(), **settings)
    proof = replace(proving or Proving(), **own)
    if proof.verify not in ("none", "final", "each"):
        raise BadOption(f"--verify {proof.verify}: unknown", remedy="none, final or each")
    rules.check_names((*asked.only, *asked.skip))
    with events.stage("optimise") as said, collector_paused():
        origin = Original(source, CaptureRequest(shapes=proof.shapes, dims=proof.dims), onnxsim=proof.onnxsim)
        found = replace(_rewritten(origin, asked), verify=proof.verify)
        said.append(f"{sum(found.before.values())} -> {sum(found.after.values())} nodes")
    return found if proof.verify == "none" else _proved(origin, found, asked, proof)


def rewrite_model(model: Model, options: Options) -> Optimization:
    """As `optimize`, without proof and without progress: for who proves it otherwise.

    Raises: as `optimize`, but for `OptimizationFailed`.
    """
    return _rewritten(Original(model, CaptureRequest()), options)


def _rewritten(origin: Original, options: Options) -> Optimization:
    changes, graph = origin.rewritten(options)
    model = origin.with_graph(graph, changes)
    return Optimization(model, origin.opset, changes, origin.counts, counts(graph), (), "none", target=options.target)


# --- proof -------------------------------------------------------------------------------------------------------


def _proved(origin: Original, found: Optimization, options: Options, proving: Proving) -> Optimization:
    with events.stage("validate") as said, _Judge(origin, found.changes, proving) as judge:
        if proving.verify == "each":
            found = _each(origin, found, options, judge)
        comparisons = judge.compare(found.model)
        while any(c.status != "pass" for c in comparisons):
            culprit = _culprit(origin, found, options, judge)
            reason = _reason(comparisons)
            if culprit is None or len(found.rolled_back) == _MOST_ROLLED_BACK:
                raise OptimizationFailed(
                    f"the rewritten graph does not compute the same: {reason}",
                    details=tuple(f"left out: {r.rule} ({r.reason})" for r in found.rolled_back),
                    remedy="graphkit reduce makes a small example for a bug report; --level 0 leaves the graph alone",
                )
            found = _without(origin, found, options, RolledBack(culprit, reason))
            comparisons = judge.compare(found.model)
        said.append(f"{len(comparisons)} comparisons, all equal")
        return replace(found, comparisons=comparisons, padding=judge.padding)


def _each(origin: Original, found: Optimization, options: Options, judge: _Judge) -> Optimization:
    """Prove the rules one after the other, each on top of those that passed."""
    names = list(found.changes.by_rule())
    for position, name in enumerate(names):
        later = tuple(names[position + 1 :])
        _, graph = origin.rewritten(_skipping(options, found, later))
        comparisons = judge.compare(origin.with_graph(graph, Changes()))
        if any(c.status != "pass" for c in comparisons):
            found = _without(origin, found, options, RolledBack(name, _reason(comparisons)))
    return found


def _culprit(origin: Original, found: Optimization, options: Options, judge: _Judge) -> str | None:
    """The first rule with which the result is wrong, by bisection over the rules in their order; None if none is."""
    names = list(found.changes.by_rule())

    def right(count: int) -> bool:
        _, graph = origin.rewritten(_skipping(options, found, tuple(names[count:])))
        return all(c.status == "pass" for c in judge.compare(origin.with_graph(graph, Changes())))

    if not names or not right(0):
        return None
    low, high = 0, len(names)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if right(middle) else (low, middle)
    return names[high - 1]


def _without(origin: Original, found: Optimization, options: Options, culprit: RolledBack) -> Optimization:
    rolled_back = (*found.rolled_back, culprit)
    left_out = replace(found, rolled_back=rolled_back)
    changes, graph = origin.rewritten(_skipping(options, left_out, ()))
    model = origin.with_graph(graph, changes)
    return replace(left_out, model=model, changes=changes, after=counts(graph))


def _skipping(options: Options, found: Optimization, more: Sequence[str]) -> Options:
    return replace(options, skip=(*options.skip, *(r.rule for r in found.rolled_back), *more))


def _reason(comparisons: Sequence[Comparison]) -> str:
    bad = next(c for c in comparisons if c.status != "pass")
    output = next((o for o in bad.outputs if o.status != "pass"), None)
    if output is None:
        return bad.reason or "it could not be run"
    sizes = ", ".join(f"{name}={size}" for name, size in bad.sizes.items())
    return f"output `{output.output}`{f' at {sizes}' if sizes else ''}: {output.reason}"


def _masks(model: Model) -> bool:
    """Whether there is `Attention` with a mask."""
    attention = (n for n in model.ir.graph.all_nodes() if n.op_type == "Attention" and not n.domain)
    return any(len(n.inputs) > 3 and n.inputs[3] is not None for n in attention)


class _Judge:
    """Runs the old and a new graph in ONNX Runtime, both as they stand, on the same inputs.

    `padding` is what the last comparison found with padded sequences.
    """

    def __init__(self, origin: Original, changes: Changes, proving: Proving) -> None:
        model = origin.model
        self._without_masks = not _masks(model)
        self.padding: Padding | None = None
        self._plans = plan_inputs(model)
        self._given = {s.name: s.value for s in proving.samples}
        self._seed = proving.seed
        fixed = fixed_sizes(self._plans, self._given)
        points = choose_sizes(model.signature, proving.dims or model.dims, [model.origin.sizes], fixed=fixed)
        self._reference = OrtRunner(origin.reference, optimize=False, name="as given")
        self._tolerance = _tight if rules.rounding(changes) else _same
        self._points = self._runnable(points)

    def compare(self, model: Model) -> tuple[Comparison, ...]:
        with OrtRunner(model, optimize=False, name="rewritten") as candidate:
            drawn = self._plans, self._points, self._given, self._seed
            comparisons = check(self._reference, [candidate], *drawn, tolerance=self._tolerance)
            runs = all(c.status == "pass" for c in comparisons)
            padded = runs and self._without_masks and _masks(model)
            self.padding = measure_padding(self._reference, candidate, *drawn, self._tolerance) if padded else None
        if self.padding is None or self.padding.holds:
            return comparisons
        reason = f"padded sequences: places that `{self.padding.mask}` keeps differ by {self.padding.kept:.2g} of scale"
        return (replace(comparisons[0], status="fail", reason=reason, outputs=()), *comparisons[1:])

    def _runnable(self, points: Sequence[SizePoint]) -> list[SizePoint]:
        """The sizes at which the model as given runs: a file need not say which ones it takes.

        Raises:
            OptimizationFailed: there is none.
        """
        kept, refusal = list[SizePoint](), ""
        for point, case in zip(points, cases_of(self._plans, points, self._given, self._seed), strict=True):
            try:
                self._reference.run(case.inputs())
                kept.append(point)
            except GraphkitError as error:
                sizes = ", ".join(f"{name}={size}" for name, size in point.sizes.items())
                refusal = f"{f'at {sizes}: ' if sizes else ''}{error.message}"
        if not kept:
            self._reference.close()
            raise OptimizationFailed(
                f"nothing can be proved: the model as given does not run {refusal}",
                remedy="--dim NAME=MIN:OPT:MAX or --input X=VALUE say what it takes; --verify none proves nothing",
            )
        return kept

    def __enter__(self) -> _Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self._reference.close()


def _same(reference: str, candidate: str, scale: float) -> tuple[float, float]:
    """For the same operations in the same order: the last bits of float32, of which ONNX Runtime's vectorised kernels
    round some by where in memory an element stands (Log, Sin); nothing for float64 and whole numbers. Between nodes of
    narrower types it keeps float32 where it has no kernel for them: parity's own tolerance."""
    from graphkit.parity.compare import tolerance_for

    if reference in ("float16", "bfloat16"):
        return tolerance_for(reference, candidate, scale)
    return (max(_LAST_BITS * scale, _BIT_OF_ONE), _LAST_BITS) if reference == "float32" else (0.0, 0.0)


def _tight(reference: str, candidate: str, scale: float) -> tuple[float, float]:
    """1e-5 of the scale for float32 and wider; what parity takes for narrower types, whose rounding is coarser."""
    from graphkit.parity.compare import tolerance_for

    if reference == "float32":
        return max(_OF_SCALE * scale, _BIT_OF_ONE), _OF_SCALE
    if reference == "float64":
        return _OF_SCALE * scale, _OF_SCALE
    return tolerance_for(reference, candidate, scale)


__all__ = ["Optimization", "Options", "Proving", "RolledBack", "optimize"]
