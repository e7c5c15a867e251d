"""MACs of PyTorch models: torch's own counter agrees, and the optimiser changes nothing."""

import pytest

import graphkit as gk
from fixtures.torch_models import EXAMPLES
from graphkit import view
from graphkit.analyze.cost import cost_of
from graphkit.analyze.inference import infer
from graphkit.analyze.polynomial import evaluate
from graphkit.capture.request import CaptureRequest
from graphkit.rewrite.simplify import simplify
from graphkit.shapes import DimRange, TensorSpec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

NAMES = ("residual_cnn", "unet", "transformer_encoder")


@pytest.fixture(scope="module")
def captured():
    """Each example, captured once."""
    made = {}
    for name in (*NAMES, "lstm_tagger"):
        example = EXAMPLES[name]
        shapes = tuple(TensorSpec(n, "int64" if n in example.below else None, s) for n, s in example.shapes.items())
        dims = tuple(DimRange(dim, *limits) for dim, limits in example.dims.items())
        made[name] = gk.capture_model(example.factory(), CaptureRequest(shapes=shapes, dims=dims))
    return made


def macs_of(model):
    cost = cost_of(infer(view.of(model)))
    assert cost.complete, (cost.unknown, cost.notes)
    return cost.macs


@pytest.mark.parametrize("name", NAMES)
def test_torchs_own_counter_agrees(name, captured):
    """With attention unfused: the counter knows no fused one on the CPU, and counts nothing."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    example = EXAMPLES[name]
    sizes = {dim: low + 1 for dim, (low, _, _) in example.dims.items()}
    macs = macs_of(captured[name])
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            example.factory()(*example.sample(**sizes).values())
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    assert 2 * evaluate(macs, sizes) == counter.get_total_flops()


@pytest.mark.parametrize("name", [*NAMES, "lstm_tagger"])
def test_macs_do_not_change_under_the_optimiser(name, captured):
    before, after = macs_of(captured[name]), macs_of(simplify(captured[name]))
    for size in (1, 2, 5):
        dims = dict.fromkeys(EXAMPLES[name].dims, size)
        assert evaluate(before, dims) == evaluate(after, dims) > 0
