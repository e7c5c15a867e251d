"""int8 with calibration against bare onnxruntime.quantization.quantize_static: whole processes, the same samples.

Both write a Q/DQ model for TensorRT: symmetric, one scale per channel, biases in float32; the peer quantises the two
products of attention, too, and records no source lines. Its entropy looks at 128 bins of a histogram, ours at 2,048.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import Command
from benchmarks.results import Claim

REPEATED = 1
ROOT = Path(__file__).resolve().parent.parent
MOST = 1.2
SAMPLES = 16


def claims(folder: Path) -> Iterator[Claim]:
    """The comparisons of this room; models and samples are written to `folder`."""
    import onnx

    from fixtures.precision_models import vit

    path = folder / "vit.onnx"
    onnx.save(vit(6, 384, 6, 224, 16), path)
    data = folder / "samples.npz"
    rng = np.random.default_rng(0)
    shape = (1, 3, 224, 224)
    np.savez(data, **{f"{n}/image": rng.standard_normal(shape, dtype=np.float32) for n in range(SAMPLES)})
    for method in ("minmax", "entropy"):
        sides = [
            Command(
                label,
                (sys.executable, "-m", f"benchmarks.bare.{script}", *map(str, (path, data, out)), method),
                cwd=ROOT,
            )
            for label, script, out in (
                ("graphkit int8", "quantized", folder / "ours.onnx"),
                ("quantize_static", "quantize_static", folder / "peer.onnx"),
            )
        ]
        yield Claim(f"int8 calibration by {method}, ViT of 6 layers, {SAMPLES} images", *sides, MOST)
