"""float16 and bfloat16: everything is lowered but what the range trace, the weights or the target speak against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from graphkit.analyze.mac_rules import has_macs
from graphkit.errors import BadSample, PrecisionRefused, UnknownName
from graphkit.lowering import Kept, Lowering
from graphkit.model import Finding, Model, provenance
from graphkit.precision import casts, ranges
from graphkit.precision import half_masks as masks
from graphkit.precision.half_cut import LOW, Sides, divide
from graphkit.precision.half_keep import Reason, Weight, reasons
from graphkit.precision.half_types import JUNCTIONS, NAMES, Slots, is_float, settle, slots_of
from graphkit.precision.share import counted

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.parity.compare import Tolerance

    Sample = Mapping[str, np.ndarray[Any, Any]]

_DRAWS = 3
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


def lower(
    model: Model,
    precision: Literal["fp16", "bf16"],
    samples: Sequence[Sample] | None = None,
    *,
    keep: frozenset[str] = frozenset(),
    io_types: bool = False,
) -> Lowering:
    """The model with as many nodes as are safe in float16 or bfloat16.

    It is run in float32 on the samples first (see `ranges`); what overflows, vanishes or loses its meaning in the low
    type stays in float32 (see `half_keep`), masks that it cannot hold are made smaller (see `half_masks`), and the
    border between both types is drawn so that the fewest casts result (see `half_cut`). For bf16 the operator set is
    raised to 22 where no operator changes its meaning by that. Functions are inlined. The given model is left as it is.

    Args:
        model: In float32; other dtypes in it stay.
        precision: `fp16` or `bf16`.
        samples: Values of all inputs, by name, each; None draws some (and keeps a wider margin).
        keep: Names of nodes that stay in float32.
        io_types: Whether float32 inputs and outputs become low, too. One that the type cannot hold stays.

    Raises:
        PrecisionRefused: no node that multiplies would be low; the model is in that precision already; it is
            quantised.
        UnknownName: `keep` names something that is no node.
        BadSample, UnknownName, ShapeMismatch: the samples do not fit the inputs, or are not finite.
        InvalidExport, ParityFailed: the model does not load or does not run on the samples.
    """
    import onnx_ir as ir

    ranges.warm_up()
    given = _prepared(model, precision)
    _check(given, precision, keep)
    drawn = samples is None
    cases = _drawn(given) if samples is None else _checked(given, samples)
    graph = given.ir.graph
    shrunk = masks.shrink(graph, precision)
    seen = ranges.trace(given, cases)
    wrong = masks.wrong(shrunk, seen, precision)
    if wrong:
        masks.restore(wrong)
        seen = ranges.trace(given, cases)
    nodes = list(graph.all_nodes())
    slots = {id(n): slots_of(n, given.opset, precision) for n in nodes}
    why = reasons(graph, slots, seen, _weights(given.ir), precision, drawn=drawn, keep=keep)
    low = {id(n) for n in nodes if has_macs(n.op_type, n.domain) and _varies(n)}
    io = _low_io(given, seen, precision) if io_types else set()
    sides = divide(graph, slots, why.keys(), low, io)
    kept = tuple(_kept(nodes, slots, why, sides, precision))
    casts.apply(given.ir, slots, sides, ir.DataType.FLOAT16 if precision == "fp16" else ir.DataType.BFLOAT16)
    lowered = given.with_step(f"lowered to {precision}", given.ir)
    findings = [
        *_findings(model, given, seen, drawn, precision),
        *(_told(m, precision) for m in shrunk if m not in wrong),
    ]
    return _finished(lowered, precision, kept, tuple(findings))


def tolerance(precision: Literal["fp16", "bf16"]) -> Tolerance:
    """What parity allows a lowered model whose outputs are float32 all the same: that of outputs in the low type.

    See `graphkit.parity.compare` for where its figures come from.
    """
    from graphkit.parity.compare import tolerance_for

    def allowed(reference: str, candidate: str, scale: float) -> tuple[float, float]:
        return tolerance_for(reference, NAMES[precision] if "float" in candidate else candidate, scale)

    return allowed


# --- before ------------------------------------------------------------------------------------------------------


def _prepared(model: Model, precision: str) -> Model:
    """A copy that is ours: types known, functions inlined, constants among the weights."""
    import onnx_ir.passes.common as passes

    from graphkit.precision.half_opset import raised

    copy = model.ir.clone()
    if model.ir.functions:
        passes.InlinePass()(copy)
    passes.RemoveInitializersFromInputsPass()(copy)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    casts.give_bodies_their_outputs(copy.graph)
    settle(copy)
    given = replace(model, ir=copy)
    return raised(given) if precision == "bf16" else given


def _check(model: Model, precision: str, keep: frozenset[str]) -> None:
    nodes = list(model.ir.graph.all_nodes())
    unknown = sorted(keep - {n.name for n in nodes})
    if unknown:
        raise UnknownName(
            f"no node is called `{unknown[0]}`",
            remedy="graphkit inspect MODEL --layers lists their names",
            data={"unknown": unknown},
        )
    quantised = next((n for n in nodes if n.op_type in _QUANTISED), None)
    if quantised is not None:
        raise PrecisionRefused(
            f"the model is quantised ({quantised.op_type} `{quantised.name}`): its other layers cannot be lowered "
            f"to {precision} afterwards",
            remedy=f"lower the float32 model that it was made from to {precision}, or leave it as it is",
        )
    products = [n for n in nodes if has_macs(n.op_type, n.domain)]
    if not products:
        raise PrecisionRefused(
            f"nothing to lower to {precision}: the model has no Conv, Gemm, MatMul or other node that multiplies",
            remedy="leave it in float32",
        )
    dtypes = {v.dtype.name.lower() for n in products for v in n.inputs[:1] if v is not None and v.dtype is not None}
    if dtypes and "float" not in dtypes:
        already = NAMES[precision] in dtypes
        state = (
            f"is in {precision} already" if already else f"multiplies in {', '.join(sorted(dtypes))}, not in float32"
        )
        raise PrecisionRefused(f"the model {state}", remedy=None if already else "convert the float32 model")


def _drawn(model: Model) -> list[Sample]:
    """Inputs at three sizes or more, drawn with a seed of its own each."""
    from graphkit.parity.inputs import choose_sizes, make_inputs, plan_inputs

    plans = plan_inputs(model)
    seen = [model.origin.sizes] if model.origin.sizes else []
    points = choose_sizes(model.signature, model.dims, seen, _DRAWS)
    return [make_inputs(plans, point.sizes, seed) for seed, point in enumerate(points)]


def _checked(model: Model, samples: Sequence[Sample]) -> list[Sample]:
    import numpy as np

    from graphkit.parity.inputs import make_inputs, plan_inputs

    if not samples:
        raise BadSample(
            "there is no sample to run the model on", remedy="give one or more, or none at all to draw some"
        )
    plans = plan_inputs(model)
    for position, sample in enumerate(samples):
        missing = [p.spec.name for p in plans if p.spec.name not in sample]
        if missing:
            raise BadSample(f"sample {position} has no value for {', '.join(missing)}", remedy="give every input")
        values = make_inputs(plans, {}, 0, sample)
        broken = [n for n, v in values.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
        if broken:
            raise BadSample(f"`{broken[0]}` of sample {position} holds NaN or infinity", remedy="leave the sample out")
    return list(samples)


def _weights(model: ir.Model) -> dict[int, Weight]:
    from graphkit.precision.ranges import Range
    from graphkit.precision.ranges_child import Tally

    found = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is None or not is_float(value):
                continue
            tally = Tally()
            array = value.const_value.numpy()
            tally.add(array)
            found[id(value)] = Weight(Range(**tally.to_json()), float(array.reshape(())) if array.size == 1 else None)
    return found


def _varies(node: ir.Node) -> bool:
    """Whether a node reads anything but weights: one that does not is folded, and may be on either side."""
    return any(v is not None and not v.is_initializer() for v in node.inputs)


def _low_io(model: Model, seen: Mapping[int, ranges.Range], precision: str) -> set[int]:
    """Inputs and outputs that the low type holds."""
    from graphkit.precision.half_keep import LARGEST

    both = (*model.ir.graph.inputs, *model.ir.graph.outputs)
    return {
        id(v) for v in both if is_float(v) and (seen[id(v)].largest if id(v) in seen else 0.0) <= LARGEST[precision]
    }


# --- after -------------------------------------------------------------------------------------------------------


def _kept(
    nodes: Sequence[ir.Node], slots: Mapping[int, Slots], why: Mapping[int, Reason], sides: Sides, precision: str
) -> Iterator[Kept]:
    """Nodes that touch float32 tensors and are not low."""
    for node in nodes:
        where = slots[id(node)]
        if sides.node.get(id(node)) == LOW or (node.op_type in JUNCTIONS and not node.domain):
            continue
        name = node.name or (node.outputs[0].name if node.outputs else "") or ""
        if id(node) in why:
            reason = why[id(node)]
            yield Kept(name, node.op_type, reason.why, provenance(node), reason.figure)
        elif where:
            yield Kept(name, node.op_type, _BETWEEN, provenance(node))
        elif where.why_not is not None:
            yield Kept(name, node.op_type, where.why_not, provenance(node))


_BETWEEN = "stands among nodes in float32: lowering it takes more casts than leaving it"


def _told(mask: masks.Mask, precision: str) -> Finding:
    return Finding(
        "precision.mask",
        f"the constant {mask} that masks what goes into Softmax is {masks.SMALLER[precision]:.6g} now, which "
        f"{NAMES[precision]} holds: what it masks is zero all the same",
    )


def _findings(
    model: Model, given: Model, seen: Mapping[int, ranges.Range], drawn: bool, precision: str
) -> Iterator[Finding]:
    if drawn:
        yield Finding(
            "precision.drawn",
            "the ranges of tensors are those of generated inputs, not of your data",
            remedy="give samples of real data",
        )
    if model.ir.functions:
        yield Finding("precision.inlined", f"{len(model.ir.functions)} local function(s) of the model were inlined")
    if precision == "bf16" and given.opset < 22:
        yield Finding(
            "precision.opset",
            f"at opset {given.opset} many operators take no bfloat16, and theirs cannot be raised as it is",
            remedy="export it with opset 22",
        )
    broken = [v for n in given.ir.graph.all_nodes() for v in n.outputs if id(v) in seen and seen[id(v)].bad]
    if broken:
        yield Finding(
            "precision.not-finite",
            f"{len(broken)} tensors hold infinity or NaN in float32 already, `{broken[0].name}` the first of them",
        )


def _finished(model: Model, precision: str, kept: tuple[Kept, ...], findings: tuple[Finding, ...]) -> Lowering:
    share = counted(model, dtype=NAMES[precision])
    if share.nodes_low == 0:
        first = next((k for k in kept if has_macs(k.op, "")), kept[0] if kept else None)
        raise PrecisionRefused(
            f"none of the {share.nodes_total} nodes that multiply can run in {precision}"
            + (f": {first.op} `{first.node}`: {first.why}" if first is not None else ""),
            details=tuple(f"{k.op} `{k.node}`: {k.why}" for k in kept[:10]),
            remedy="another precision, or a model whose values are smaller" if precision == "fp16" else "fp16",
            data={"kept": [k.to_json() for k in kept]},
        )
    return Lowering(
        model, precision, kept, share.nodes_low, share.nodes_total, share.flops_low, share.flops_total, findings
    )
