"""`quantize`: a model in fp16, bf16, int8, fp8 or int4, compared with the model as it was given.

fp16 and bf16 outputs are held to the tolerance of that type. Quantised ones have no such tolerance per element: they
are held to a likeness of whole outputs (`precision.quant_judge`), or to the `--max-drop` that was asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from graphkit import events
from graphkit.capture import onnx_file
from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption, ParityFailed
from graphkit.lowering import Lowering
from graphkit.model import Model
from graphkit.parity.check import Case, cases_of, check_cases
from graphkit.parity.compare import in_tf32
from graphkit.parity.inputs import fixed_sizes, plan_inputs
from graphkit.parity.judge import ByName
from graphkit.parity.metrics import Condition
from graphkit.parity.runners import OrtRunner
from graphkit.parity.sizes import SizePoint, choose_sizes
from graphkit.parity.verdict import Comparison
from graphkit.request import QuantizeRequest

if TYPE_CHECKING:
    from graphkit.precision.quant_judge import QuantisedJudge
    from graphkit.precision.search import SearchResult

PRECISIONS = ("fp16", "bf16", "int8", "fp8", "int4")
HALF = ("fp16", "bf16")

_MOST_CASES = 8


@dataclass(frozen=True, slots=True)
class Quantization:
    """A lowered model and its proof.

    Attributes:
        lowering: The model, and what stayed in float32 and why.
        comparisons: With the model that was given.
        search: How the layers that stay were found; None where `max_drop` did not ask for it.
    """

    lowering: Lowering
    comparisons: tuple[Comparison, ...]
    search: SearchResult | None = None

    @property
    def model(self) -> Model:
        return self.lowering.model

    @property
    def status(self) -> Literal["pass", "fail", "not run"]:
        """`fail` where any comparison failed, `not run` where any was not run."""
        found = {c.status for c in self.comparisons}
        return "fail" if "fail" in found else "not run" if "not run" in found or not found else "pass"


def quantize(source: Model | Path | str, request: QuantizeRequest | None = None, **settings: Any) -> Quantization:
    """Bring a model to a lower precision, and compare it with the model as it was given.

    Args:
        source: A model, or an ONNX file. Optimise it first: a BatchNormalization that is still there is not quantised.
        request: What is asked for; or its fields as `settings`.

    Raises:
        PrecisionRefused: nothing would really run in that precision, it is there already, or `max_drop` is not met.
        BadOption: options contradict one another, or there is no data where it is needed.
        ParityFailed: the result differs by more than it may.

    Example:
        >>> quantize("m.onnx", precision="int8", data="samples/").lowering.share
    """
    asked = replace(request, **settings) if request is not None else QuantizeRequest(**settings)
    if isinstance(source, Model):
        model = replace(source, dims=asked.dims or source.dims)
    else:
        model = onnx_file.read(source, CaptureRequest(shapes=asked.shapes, dims=asked.dims))
    with events.stage("lower") as said:
        found = lower(model, asked)
        said.append(f"{found.lowering.summary}; {len(found.comparisons)} comparisons")
    if found.status != "pass":
        bad = [c for c in found.comparisons if c.status != "pass"]
        raise ParityFailed(
            f"the {asked.precision} model differs in {len(bad)} of {len(found.comparisons)} comparisons: "
            f"{bad[0].reason if bad else 'nothing could be compared'}",
            where=f"{bad[0].candidate} against {bad[0].reference}" if bad else None,
            remedy="--max-drop X looks for the layers that have to stay in float32; --keep NAME keeps one",
        )
    return found


def lower(model: Model, asked: QuantizeRequest) -> Quantization:
    """As `quantize`, but a result that differs is returned, not raised."""
    check_options(asked)
    lowering, search = _searched(model, asked) if asked.max_drop is not None else (_lowered(model, asked), None)
    comparisons = compare(model, lowering, asked)
    return Quantization(lowering, comparisons, search)


def check_options(asked: QuantizeRequest) -> None:
    """Refuse options that say nothing about this precision.

    Raises:
        BadOption
    """
    if asked.precision not in PRECISIONS:
        raise BadOption(f"--precision {asked.precision}: unknown", remedy=f"one of {', '.join(PRECISIONS)}")
    half, calibrated = asked.precision in HALF, asked.precision in ("int8", "fp8")
    idle = {
        "--io-types": asked.io_types and not half,
        "--block": asked.block is not None and asked.precision != "int4",
        "--uncalibrated": asked.uncalibrated and not calibrated,
        f"--method {asked.method}": asked.method != "minmax" and not calibrated,
        "--keep": bool(asked.keep) and asked.max_drop is not None,
    }
    option = next((name for name, wrong in idle.items() if wrong), None)
    if option == "--keep":
        raise BadOption("--keep says which layers stay, --max-drop looks for them", remedy="give one of the two")
    if option is not None:
        raise BadOption(f"{option} says nothing about {asked.precision}", remedy=f"leave {option} out")


def compare(reference: Model, lowering: Lowering, asked: QuantizeRequest) -> tuple[Comparison, ...]:
    """The two in ONNX Runtime, as they stand, on the data where there is some, else on drawn inputs.

    Of a float16 or bfloat16 model a twin is run that rounds every tensor: ONNX Runtime computes chains of them in
    float32 on a CPU, which hides an overflow (see `precision.half_rounded`).
    """
    cases = _cases(reference, asked)
    if asked.precision in HALF and asked.max_drop is None:
        from graphkit.precision import half_rounded

        return half_rounded.check(reference, lowering, cases)
    with (
        OrtRunner(reference, optimize=False, name="as given") as before,
        OrtRunner(lowering.model, optimize=False, name=asked.precision) as after,
    ):
        return check_cases(before, [after], cases, _judge(asked))


def engine_judge(asked: QuantizeRequest | None, *, tf32: bool) -> ByName | QuantisedJudge:
    """What makes the outputs of an engine good enough, for the precision of its graph and TF32 in it."""
    from graphkit.precision import half

    if asked is None:
        return ByName(in_tf32 if tf32 else None)
    if asked.precision == "fp16" or asked.precision == "bf16":
        return ByName(half.tolerance(asked.precision)) if asked.max_drop is None else _judge(asked)
    return _judge(asked)


def _judge(asked: QuantizeRequest) -> QuantisedJudge:
    """What makes the outputs of a quantised model good enough."""
    from graphkit.precision.quant_judge import QuantisedJudge

    if asked.max_drop is None:
        return QuantisedJudge(asked.precision)
    limit = asked.max_drop
    bound = Condition("cosine", 1 - limit) if asked.metric == "cosine" else Condition("l2", limit)
    return QuantisedJudge("int8" if asked.precision in HALF else asked.precision, (bound,))


# --- lowering ----------------------------------------------------------------------------------------------------


def _lowered(model: Model, asked: QuantizeRequest, keep: frozenset[str] | None = None) -> Lowering:
    from graphkit.precision import half, int4, quantize

    stays = asked.keep if keep is None else keep
    if asked.precision in ("fp16", "bf16"):
        return half.lower(model, asked.precision, _samples(model, asked), keep=stays, io_types=asked.io_types)
    if asked.precision == "int4":
        return int4.lower(model, block=asked.block or int4.DEFAULT_BLOCK, keep=stays)
    kind = cast("Literal['int8', 'fp8']", asked.precision)
    return quantize.lower(model, kind, asked.data, method=asked.method, uncalibrated=asked.uncalibrated, keep=stays)


def _searched(model: Model, asked: QuantizeRequest) -> tuple[Lowering, SearchResult]:
    from graphkit.analyze.mac_rules import has_macs
    from graphkit.precision import quant_search
    from graphkit.precision.data import made_up, open_data
    from graphkit.precision.search import search
    from graphkit.precision.search_groups import layers_of

    assert asked.max_drop is not None
    if asked.precision in HALF:
        samples = open_data(model, asked.data) if asked.data is not None else made_up(model)
        names = [n.name for n in model.ir.graph.all_nodes() if n.name and has_macs(n.op_type, n.domain)]
        result = search(
            model, functools.partial(_lowered, model, replace(asked, max_drop=None)), layers_of(model, names), samples,
            max_drop=asked.max_drop, metric=asked.metric,
        )  # fmt: skip
    else:
        kind = cast("Literal['int8', 'fp8', 'int4']", asked.precision)
        result = quant_search.within(
            model, kind, asked.data, max_drop=asked.max_drop, metric=asked.metric, method=asked.method,
            uncalibrated=asked.uncalibrated, block=asked.block,
        )  # fmt: skip
    return result.lowering, result


def _samples(model: Model, asked: QuantizeRequest) -> Sequence[dict[str, Any]] | None:
    from graphkit.precision.data import open_data

    return list(islice(open_data(model, asked.data), _MOST_CASES * 4)) if asked.data is not None else None


def _cases(model: Model, asked: QuantizeRequest) -> list[Case]:
    plans = plan_inputs(model)
    if asked.data is not None or asked.max_drop is not None:  # a search is judged on what it was made with
        from graphkit.precision.data import made_up, open_data

        data = open_data(model, asked.data) if asked.data is not None else made_up(model)
        samples = list(islice(data, _MOST_CASES))
        return [
            Case(
                SizePoint(
                    fixed_sizes(plans, each), f"sample {number}", draw=number, note=f"sample {number} of the data"
                ),
                functools.partial(dict, each),
                asked.seed + number,
            )
            for number, each in enumerate(samples)
        ]
    given = {s.name: s.value for s in asked.samples}
    points = choose_sizes(model.signature, model.dims, [model.origin.sizes], fixed=fixed_sizes(plans, given))
    return cases_of(plans, points, given, asked.seed)
