"""Every baited module is converted right, or refused with its code and its line. There is no third outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from fixtures.baited import BAITED, Bait
from graphkit.pipeline import ConvertRequest, as_ranges, as_specs, run
from graphkit.shapes import Sample

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def samples(bait: Bait, folder: Path) -> tuple[Sample, ...]:
    """Its Python numbers; and for the loop that ends for positive sums only, a positive `x`."""
    made = [Sample(name, value) for name, value in bait.extra.items()]
    if bait.name == "data_loop":
        np.save(folder / "x.npy", bait.probes()[0]["x"].numpy())
        made.append(Sample("x", folder / "x.npy"))
    return tuple(made)


def flat(probe: dict[str, Any]) -> dict[str, np.ndarray]:
    """Inputs by the names of the captured model: the entries of a dict by their keys."""
    found: dict[str, Any] = {}
    for name, value in probe.items():
        found.update(value if isinstance(value, dict) else {name: value})
    return {name: np.asarray(value) for name, value in found.items()}


@pytest.mark.parametrize("bait", BAITED.values(), ids=list(BAITED))
def test_it_is_converted_right_or_refused_with_its_line(bait, tmp_path, onnx_run):
    output = tmp_path / "out" / "m.onnx"
    output.parent.mkdir()
    request = ConvertRequest(
        output=output, shapes=as_specs(bait.shapes), dims=as_ranges(bait.dims), samples=samples(bait, tmp_path)
    )
    result = run(bait.factory(), request)
    if result.error is None:
        assert "converted" in bait.expect
        compare(bait, output, onnx_run)
        return
    assert result.error.code in bait.expect
    assert result.error.exit_code == 1
    assert f"baited.py:{bait.line()}" in str(result.error.where)
    assert not output.exists()


def compare(bait: Bait, output: Path, onnx_run: Any) -> None:
    module = bait.factory()
    for probe in bait.probes():
        with torch.no_grad():
            wanted = tree_leaves(module(**probe))
        session_inputs = flat(probe)
        if "k" in session_inputs:
            session_inputs["k"] = np.float64(probe["k"])
        found = list(onnx_run(output, **session_inputs).values())
        assert len(found) == len(wanted)
        for want, have in zip(wanted, found, strict=True):
            np.testing.assert_allclose(have, want.numpy(), atol=1e-5, rtol=1e-5)
