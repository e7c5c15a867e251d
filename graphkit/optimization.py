"""`optimize`: rewrite a graph, prove that it computes the same, and say for every node what became of it.

A rule that breaks the result is found, left out and named; the rest is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphkit import __version__, events
from graphkit.capture import onnx_file
from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption, CorruptFile, GraphkitError, OptimizationFailed
from graphkit.model import Model
from graphkit.parity.check import cases_of, check
from graphkit.parity.inputs import fixed_sizes, plan_inputs
from graphkit.parity.runners import OrtRunner
from graphkit.parity.sizes import SizePoint, choose_sizes
from graphkit.parity.verdict import Comparison
from graphkit.rewrite import rules
from graphkit.rewrite.passes import Options, rewrite
from graphkit.rewrite.rule import Changes
from graphkit.shapes import DimRange, Sample, TensorSpec
from graphkit.view.reader import collector_paused

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.view import ModelView

Verify = Literal["none", "final", "each"]

_OF_SCALE = 1e-5
"""Largest difference of a rewritten float32 graph, of the largest magnitude in the tensor."""

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
    """

    model: Model
    opset: int
    changes: Changes
    before: Mapping[str, int]
    after: Mapping[str, int]
    rolled_back: tuple[RolledBack, ...]
    verify: Verify
    comparisons: tuple[Comparison, ...] = ()

    @property
    def proved(self) -> str:
        """`pass`, or `not run`."""
        return "pass" if self.comparisons else "not run"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the proof cannot show, because the drawn inputs have no such rows and the operator differs there."""
        fused = "attention" in self.changes.by_rule()
        nodes = self.model.ir.graph.all_nodes() if fused else ()
        masked = any(n.op_type == "Attention" and len(n.inputs) > 3 and n.inputs[3] is not None for n in nodes)
        return (_PADDING,) if masked else ()


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
    with events.stage("optimise") as said:
        origin = _Origin(source, CaptureRequest(shapes=proof.shapes, dims=proof.dims), onnxsim=proof.onnxsim)
        found = replace(_rewritten(origin, asked), verify=proof.verify)
        said.append(f"{sum(found.before.values())} -> {sum(found.after.values())} nodes")
    return found if proof.verify == "none" else _proved(origin, found, asked, proof)


def rewrite_model(model: Model, options: Options) -> Optimization:
    """As `optimize`, without proof and without progress: for who proves it otherwise.

    Raises: as `optimize`, but for `OptimizationFailed`.
    """
    return _rewritten(_Origin(model, CaptureRequest()), options)


def _rewritten(origin: _Origin, options: Options) -> Optimization:
    before = _counts(origin.model.ir)
    changes, graph = origin.rewritten(options)
    return Optimization(
        origin.with_graph(graph, changes), origin.model.opset, changes, before, _counts(graph), (), "none"
    )


# --- proof -------------------------------------------------------------------------------------------------------


def _proved(origin: _Origin, found: Optimization, options: Options, proving: Proving) -> Optimization:
    with events.stage("validate") as said, _Judge(origin, options, proving) as judge:
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
    return replace(found, comparisons=comparisons)


def _each(origin: _Origin, found: Optimization, options: Options, judge: _Judge) -> Optimization:
    """Prove the rules one after the other, each on top of those that passed."""
    names = list(found.changes.by_rule())
    for position, name in enumerate(names):
        later = tuple(names[position + 1 :])
        _, graph = origin.rewritten(_skipping(options, found, later))
        comparisons = judge.compare(origin.with_graph(graph, Changes()))
        if any(c.status != "pass" for c in comparisons):
            found = _without(origin, found, options, RolledBack(name, _reason(comparisons)))
    return found


def _culprit(origin: _Origin, found: Optimization, options: Options, judge: _Judge) -> str | None:
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


def _without(origin: _Origin, found: Optimization, options: Options, culprit: RolledBack) -> Optimization:
    rolled_back = (*found.rolled_back, culprit)
    left_out = replace(found, rolled_back=rolled_back)
    changes, graph = origin.rewritten(_skipping(options, left_out, ()))
    model = origin.with_graph(graph, changes)
    return replace(left_out, model=model, changes=changes, after=_counts(graph))


def _skipping(options: Options, found: Optimization, more: Sequence[str]) -> Options:
    return replace(options, skip=(*options.skip, *(r.rule for r in found.rolled_back), *more))


def _reason(comparisons: Sequence[Comparison]) -> str:
    bad = next(c for c in comparisons if c.status != "pass")
    output = next((o for o in bad.outputs if o.status != "pass"), None)
    if output is None:
        return bad.reason or "it could not be run"
    sizes = ", ".join(f"{name}={size}" for name, size in bad.sizes.items())
    return f"output `{output.output}`{f' at {sizes}' if sizes else ''}: {output.reason}"


class _Judge:
    """Runs the old and a new graph in ONNX Runtime, both as they stand, on the same inputs."""

    def __init__(self, origin: _Origin, options: Options, proving: Proving) -> None:
        model = origin.model
        self._plans = plan_inputs(model)
        self._given = {s.name: s.value for s in proving.samples}
        self._seed = proving.seed
        fixed = fixed_sizes(self._plans, self._given)
        points = choose_sizes(model.signature, proving.dims or model.dims, [model.origin.sizes], fixed=fixed)
        self._reference = OrtRunner(origin.reference, optimize=False, name="as given")
        self._tolerance = _exact if options.level < 2 else _tight
        self._points = self._runnable(points)

    def compare(self, model: Model) -> tuple[Comparison, ...]:
        with OrtRunner(model, optimize=False, name="rewritten") as candidate:
            return check(
                self._reference, [candidate], self._plans, self._points, self._given, self._seed,
                tolerance=self._tolerance,
            )  # fmt: skip

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


def _exact(reference: str, candidate: str, scale: float) -> tuple[float, float]:
    return 0.0, 0.0


def _tight(reference: str, candidate: str, scale: float) -> tuple[float, float]:
    """1e-5 of the scale for float32 and wider; what parity takes for narrower types, whose rounding is coarser."""
    from graphkit.parity.compare import tolerance_for

    if reference in ("float32", "float64"):
        return _OF_SCALE * scale, _OF_SCALE
    return tolerance_for(reference, candidate, scale)


# --- the model that is rewritten ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Origin:
    """Where fresh copies of the model to rewrite come from: a file, which is read anew, or a model in memory."""

    source: Model | Path | str
    request: CaptureRequest
    onnxsim: bool = False
    file: Path | None = field(init=False, default=None)
    model: Model = field(init=False)
    reference: Model | Path = field(init=False)
    _first: Model | None = field(init=False, default=None)
    _view: ModelView | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.source, Model):
            self.model = self.source
        else:
            self.file = Path(self.source)
            self.model = onnx_file.read(self.file, self.request)
        self.reference = self.file or self.model
        if self.onnxsim:
            simpler = _simplified(self.model)
            if simpler is not self.model:
                self.file, self.model = None, simpler

    def rewritten(self, options: Options) -> tuple[Changes, ir.Model]:
        """A fresh copy of the graph, rewritten, and what was done to it."""
        from graphkit import view

        with collector_paused():
            if self._view is None:
                self._view = view.read(self.file) if self.file is not None else view.of(self.model)
            graph = onnx_file.read(self.file, self.request).ir if self.file is not None else self.model.ir.clone()
            try:
                return rewrite(graph, self._view, options), graph
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                # Rules trust that a node is what its operator is defined as; checking first would cost every model.
                wrong = _invalid(self.model.ir)
                if wrong is None:
                    raise
                raise CorruptFile(wrong, remedy="graphkit check MODEL says what else is wrong with it") from error

    def with_graph(self, graph: ir.Model, changes: Changes) -> Model:
        rules = changes.by_rule()
        return self.model.with_step(f"graphkit {__version__}: {len(rules)} rules" if rules else "graphkit", graph)


def _simplified(model: Model) -> Model:
    """The model after onnxsim; the same object where onnxsim does not make it smaller.

    Raises:
        BadOption: it is too large for onnxsim. OptimizationFailed, NativeCrash: onnxsim failed.
    """
    from graphkit.rewrite import simplify

    reason = simplify.why_not(model)
    if reason is not None:
        raise BadOption(reason, remedy="leave --onnxsim out")
    simpler = simplify.simplify(model)
    return simpler if sum(_counts(simpler.ir).values()) < sum(_counts(model.ir).values()) else model


def _invalid(model: ir.Model) -> str | None:
    """What the first node that is not as its operator is defined lacks, by ONNX's checker."""
    import onnx.checker
    import onnx_ir as ir

    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = dict(model.opset_imports)
    for node in model.graph.all_nodes():
        if any(attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values()):
            continue
        try:
            onnx.checker.check_node(ir.to_proto(node), context)
        except onnx.checker.ValidationError as error:
            return f"node `{node.name}` ({node.op_type}) is invalid: {str(error).strip().splitlines()[0]}"
    return None


def _counts(graph: ir.Model) -> dict[str, int]:
    """Nodes by operator, Constant aside: it is a weight with another spelling."""
    counted = Counter(n.op_type if not n.domain else f"{n.domain}::{n.op_type}" for n in graph.graph.all_nodes())
    counted.pop("Constant", None)
    return dict(sorted(counted.items()))


__all__ = ["Optimization", "Options", "Proving", "RolledBack", "optimize"]
