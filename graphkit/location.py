"""`locate`: two models on the same inputs, and the first tensor at which they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest, RunnableSource
from graphkit.errors import BadOption
from graphkit.model import Model
from graphkit.parity import runners
from graphkit.parity.check import check
from graphkit.parity.divergence import Location
from graphkit.parity.inputs import InputPlan, fixed_sizes, make_inputs, plan_inputs
from graphkit.parity.localize import Trial, localize
from graphkit.parity.sizes import SizePoint, choose_sizes
from graphkit.shapes import DimRange, evaluate


def locate(reference: Any, candidate: Any, request: CaptureRequest | None = None) -> Location:
    """Find the first tensor of `candidate` whose error its inputs do not explain.

    Args:
        reference: An ONNX file, or a PyTorch source: this one is captured, shown to equal its capture, and the capture
            is compared. Shapes and ranges that the request leaves open are those of the candidate.
        candidate: An ONNX file.
        request: Shapes, ranges and values of the reference's inputs, and how to load it.

    Raises:
        BadRequest: a file or the request is bad. `Refused`: a side cannot be captured, loaded or run.
    """
    asked = request or CaptureRequest()
    runners.warm_up()
    wanted = recognise(candidate, CaptureRequest())
    if isinstance(wanted, RunnableSource):
        raise BadOption(f"CAND is {wanted.name}, which is no ONNX file", remedy="graphkit convert it, then locate")
    theirs = wanted.capture(CaptureRequest())
    source = recognise(reference, asked)
    if isinstance(source, RunnableSource):
        shapes, dims = asked.shapes or theirs.signature.inputs, asked.dims
        asked = replace(asked, shapes=shapes, dims=dims if asked.shapes or dims else theirs.dims)
    ours = source.capture(asked)
    labels = _label(source.name, captured=isinstance(source, RunnableSource)), _label(wanted.name)
    clash = _clash(ours, theirs)
    if clash is not None:
        return Location("not comparable", clash, *labels)
    plans = plan_inputs(ours)
    given = {s.name: s.value for s in asked.samples}
    points = _points(ours, theirs, plans, given)
    if isinstance(source, RunnableSource):
        unfaithful = _unfaithful(source, ours, plans, points, given, asked.seed)
        if unfaithful is not None:
            return Location("not comparable", unfaithful, *labels)
    trials = [Trial(make_inputs(plans, p.sizes, asked.seed + p.draw, given), p.sizes, asked.seed + p.draw)
              for p in points]  # fmt: skip
    return localize(ours, theirs, trials, labels)


def _label(name: str, *, captured: bool = False) -> str:
    return f"{name}{', captured' if captured else ''}: onnxruntime {version('onnxruntime')} (cpu, optimisations off)"


def _clash(reference: Model, candidate: Model) -> str | None:
    """Why no input of the reference fits the candidate."""
    theirs = {t.name: t for t in candidate.signature.inputs}
    for spec in reference.signature.inputs:
        other = theirs.get(spec.name)
        if other is None or spec.shape is None or other.shape is None:
            continue
        pairs = zip(spec.shape, other.shape, strict=False)
        fixed = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
        if fixed or len(spec.shape) != len(other.shape):
            return f"the inputs differ: the reference has {spec}, the candidate {other}"
    return None


def _points(
    reference: Model, candidate: Model, plans: Sequence[InputPlan], given: Mapping[str, Any]
) -> list[SizePoint]:
    """Sizes inside the ranges of both; a dimension that is a number in the candidate has that size."""
    static = {s: n for s, n in _static(reference, candidate).items() if n is not None}
    fixed = {**static, **fixed_sizes(plans, given)}
    symbols = reference.signature.symbols
    declared = {d.symbol: d for d in (*candidate.dims, *reference.dims) if d.symbol in symbols}
    ranges: list[DimRange] = [d for s, d in declared.items() if s not in static]
    points = choose_sizes(reference.signature, ranges, [reference.origin.sizes], fixed=fixed)
    return [replace(p, sizes={**p.sizes, **fixed}) for p in points]


def _static(reference: Model, candidate: Model) -> dict[str, int | None]:
    theirs = {t.name: t.shape or () for t in candidate.signature.inputs}
    return {
        ours: evaluate(other, {})
        for spec in reference.signature.inputs
        for ours, other in zip(spec.shape or (), theirs.get(spec.name, ()), strict=False)
        if isinstance(ours, str) and ours in reference.signature.symbols and isinstance(other, int)
    }


def _unfaithful(
    source: RunnableSource,
    captured: Model,
    plans: Sequence[InputPlan],
    points: Sequence[SizePoint],
    given: Mapping[str, Any],
    seed: int,
) -> str | None:
    """Why the captured graph cannot stand for its source; None where their outputs are equal."""
    with runners.OrtRunner(captured, optimize=False) as runner:
        done = check(source, [runner], plans, points, given, seed)
    bad = next((c for c in done if c.status != "pass"), None)
    return None if bad is None else f"{source.name} and its own capture differ already: {bad.reason}"
