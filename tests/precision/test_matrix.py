"""Every fixture in every precision for every target: the graph of the engine holds it in the claimed share, or a
refusal has a code. There is no third outcome."""

from __future__ import annotations

import functools
from dataclasses import replace
from importlib.util import find_spec

import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphkit as gk
from fixtures.precision_models import HALF_MODELS, QUANT_MODELS, Builder, control_flow
from graphkit import quantization
from graphkit.capture.request import CaptureRequest
from graphkit.engine import targets
from graphkit.engine.builder import BuildRequest
from graphkit.engine.rtx import RtxBuilder
from graphkit.errors import GraphkitError, PrecisionRefused
from graphkit.model import Model, Origin
from graphkit.precision import half, quantize
from graphkit.request import QuantizeRequest
from graphkit.rewrite.passes import Options
from graphkit.shapes import DimRange, TensorSpec
from tests.precision.quantised import held

PRECISIONS = ("fp16", "bf16", "int8", "fp8", "int4")
TARGETS = ("7.5", "8.6", "8.9", "12.0")
SMALL = HALF_MODELS | QUANT_MODELS
TORCH = ("mlp", "residual_cnn", "transformer_encoder")

IN_THE_ENGINE = {"fp16": "float16", "bf16": "bfloat16", "int8": "int8", "fp8": "float8e4m3fn", "int4": "int4 weights"}
FIRST = {"fp16": "7.5", "bf16": "8.6", "int8": "7.5", "fp8": "8.9", "int4": "8.6"}
"""The oldest of TARGETS that has the precision; those after it all have."""

REFUSED = {
    **{(name, "int4"): "GK114" for name in ("guarded", "rotary", "float_sizes", "with_casts", "control_flow")},
    **{(name, "int4"): "GK114" for name in ("residual", "branched")},  # weights of no MatMul or Gemm fill a block
    ("vit", "bf16"): "GK112",  # its logits differ by more than the tolerance of bfloat16
}
"""Code of each refusal; all else is built."""


@functools.cache
def made(name: str) -> Model:
    if name in SMALL:
        # A size that is the value of an input is none that TensorRT takes.
        proto = control_flow(stacked=False) if name == "control_flow" else SMALL[name]()
        model = Model(ir.from_proto(proto), Origin("onnx file"))
        sizes = (10, 16, 33) if name == "float_sizes" else (1, 2, 4)
        return replace(model, dims=tuple(DimRange(s, *sizes) for s in model.signature.symbols))
    from fixtures.torch_models import EXAMPLES
    from graphkit.optimization import rewrite_model

    example = EXAMPLES[name]
    found = example.shapes if name != "residual_cnn" else {"input": ("batch", 3, 16, 16)}
    shapes = tuple(TensorSpec(n, "int64" if n in example.below else None, s) for n, s in found.items())
    dims = tuple(DimRange(d, *r) for d, r in example.dims.items())
    model = gk.capture_model(example.factory(), CaptureRequest(shapes=shapes, dims=dims))
    # An Attention is one node and several layers, so that the two counts could not be compared; and the builder takes
    # it only with the mark that `convert` and `build` set on the way (tests/test_building.py).
    return rewrite_model(model, Options(target="rtx", skip=("attention",))).model


def refusal(name: str, precision: str, folder) -> str | None:
    """Build it and look into it; the code where it is refused."""
    model, guess = made(name), precision in ("int8", "fp8")
    try:
        lowering = quantization.quantize(model, QuantizeRequest(precision, uncalibrated=guess)).lowering
    except GraphkitError as error:
        return error.code
    (path,) = lowering.model.save(folder / "m.onnx")
    low, total = held(onnx.load(path), precision)
    assert (low, total) == (lowering.nodes_low, lowering.nodes_total)
    assert 0 < lowering.share <= 1
    request = BuildRequest(lowering.model, model.dims, TARGETS, file=path, find_ranges=True)
    built = targets.build(RtxBuilder(), request, folder / "m.engine", durable=False)
    compute = built.engine.precision["compute"]
    assert (compute[IN_THE_ENGINE[precision]], sum(compute.values())) == (low, total)

    left = tuple(each.target for each in built.left_out)
    assert tuple(t for t in TARGETS if t not in left) == built.engine.targets
    assert (built.complaint() is None) == (not left)
    assert not left or built.complaint().code == "GK115"
    # Turing has no float32 product, neither one that was kept nor one between Q/DQ; beyond that, it is the precision.
    turing = {"7.5"} if any(each.code == "GKC205" for each in built.left_out) else set()
    assert set(left) == turing | set(TARGETS[: TARGETS.index(FIRST[precision])])
    return None


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
@pytest.mark.parametrize("name", [*SMALL, *TORCH])
def test_it_is_in_the_engine_as_claimed_or_refused_with_a_code(name, tmp_path):
    found = {}
    for precision in PRECISIONS:
        (tmp_path / precision).mkdir()
        found[precision] = refusal(name, precision, tmp_path / precision)
    assert found == {precision: REFUSED.get((name, precision)) for precision in PRECISIONS}


# --- any graph ---------------------------------------------------------------------------------------------------


@st.composite
def chains(draw) -> onnx.ModelProto:
    """Up to five convolutions of an image, or products of a row; some have no weight, or one that fills no block."""
    b, image = Builder(), draw(st.booleans())
    kinds = ("Conv", "Relu", "Add") if image else ("Gemm", "MatMul", "Square", "Relu", "Add")
    width, h = draw(st.sampled_from([4, 8, 32])), "x"
    shape = lambda channels: [1, channels, 4, 4] if image else [2, channels]  # noqa: E731
    given = shape(width)
    for number, kind in enumerate(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5))):
        wide, out = draw(st.sampled_from([4, 8, 32])), f"t{number}"
        if kind == "Conv":
            h, width = b.op("Conv", [h, b.weight(f"{out}.w", wide, width, 1, 1)], out), wide
        elif kind == "Gemm":
            inputs = [h, b.weight(f"{out}.w", wide, width), b.weight(f"{out}.b", wide)]
            h, width = b.op("Gemm", inputs, out, transB=1), wide
        elif kind == "MatMul":
            h, width = b.op("MatMul", [h, b.weight(f"{out}.w", width, wide)], out), wide
        elif kind == "Square":  # [2, width] by its transpose and back
            turned = b.op("Transpose", [h], f"{out}.turned", perm=[1, 0])
            h = b.op("MatMul", [b.op("MatMul", [h, turned], f"{out}.square"), h], out)
        else:
            h = b.op(kind, [h] if kind == "Relu" else [h, h], out)
    return b.model({"x": given}, {h: shape(width)})


def no_weights(proto: onnx.ModelProto) -> bool:
    """Whether no product of a graph has a constant operand."""
    stored = {t.name for t in proto.graph.initializer}
    return not any(stored & set(n.input[:2]) for n in proto.graph.node)


@given(chains())
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_chain_holds_what_is_claimed_or_is_refused(proto):
    model = Model(ir.from_proto(proto), Origin("onnx text"))
    for precision in PRECISIONS:
        try:
            if precision in quantization.HALF:
                lowering = half.lower(model, precision)
            else:
                lowering = quantize.lower(model, precision, uncalibrated=precision != "int4")
        except PrecisionRefused:
            # A half needs a product; int8 and fp8 one with a weight; int4 one whose weight blocks of 32 fill.
            assert precision == "int4" or no_weights(proto)
            assert precision not in quantization.HALF or not held(proto, precision)[1]
            continue
        assert held(lowering.model.to_proto(), precision) == (lowering.nodes_low, lowering.nodes_total)
        assert lowering.nodes_low > 0
        assert 0 < lowering.share <= 1
