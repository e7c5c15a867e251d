"""Real models in int8 and fp8, on inputs that they were not calibrated with."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures.fetch import fetch
from fixtures.text_images import text_image
from graphkit.errors import GraphkitError
from graphkit.model import load
from graphkit.precision import quantize
from graphkit.rewrite.simplify import simplify
from tests.precision.quantised import operators, outputs

pytestmark = pytest.mark.slow

THRESHOLD = 0.3
"""Of the detector's own post-processing: a pixel above it is text."""


@pytest.fixture(scope="module")
def detector():
    try:
        folder = fetch("rapidocr")
    except GraphkitError as error:
        pytest.skip(error.message)
    return simplify(load(folder / "ch_PP-OCRv4_det_infer.onnx"))


def masks(model, seeds) -> np.ndarray:
    (spec,) = model.signature.inputs
    return np.stack([next(iter(outputs(model, {spec.name: text_image(s)}).values())) > THRESHOLD for s in seeds])


FIRST = frozenset(f"p2o.Conv.{number}" for number in range(10))
"""What `--method percentile --max-drop 0.01` keeps on these images is among these; the search takes minutes."""


def test_the_detector_finds_the_same_text_in_int8_on_every_image(detector):
    (spec,) = detector.signature.inputs
    images = [{spec.name: text_image(seed)} for seed in range(16)]
    lowered = quantize.lower(detector, "int8", images, method="percentile", keep=FIRST)
    assert lowered.share > 0.98
    assert operators(lowered.model)["QuantizeLinear"] > 40
    wanted, found = (masks(m, range(9000, 9010)).reshape(10, -1) for m in (detector, lowered.model))
    assert 0.03 < wanted.mean() < 0.3
    assert ((wanted & found).sum(1) / (wanted | found).sum(1)).min() >= 0.95
