"""float16 in the graph, against NVIDIA's tool for that: ViT-Base (86.6 million random weights), from file to file.

Both run the model in float32 first, graphkit on three inputs and the peer on one. The note has how many nodes each
left in float32, and how far its outputs are from the float32 model's, under ONNX Runtime.

nvidia-modelopt[onnx] pins other versions of onnx and onnxruntime than graphkit, so it lives in an environment of its
own (torch is among what it needs), whose interpreter is named by a variable:

    python -m venv modelopt && modelopt/bin/pip install 'nvidia-modelopt[onnx]'
    GRAPHKIT_BENCH_MODELOPT=modelopt/bin/python python -m benchmarks half
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import Command, seconds
from benchmarks.results import Claim

REPEATED = 1
PEER = "GRAPHKIT_BENCH_MODELOPT"
"""Variable that names the peer's interpreter."""

_OURS = (
    "import sys\n"
    "from graphkit.model import load\n"
    "from graphkit.precision.half import lower\n"
    "lower(load(sys.argv[1]), 'fp16').model.save(sys.argv[2])\n"
)
_CHOSEN = ("Constant", "Cast", "Shape", "Identity")
"""Operators that are not counted among the nodes in float32: they compute nothing."""


def claims(folder: Path) -> Iterator[Claim]:
    """The comparison of this room; 0.7 GB are written to `folder`."""
    import onnx

    from fixtures.precision_models import vit

    given = folder / "vit.onnx"
    onnx.save(vit(12, 768, 12, 224, 16), given)
    files = folder / "vit.ours.onnx", folder / "vit.peer.onnx"
    ours = Command("graphkit fp16", (sys.executable, "-c", _OURS, str(given), str(files[0])))
    peer = Command(
        "modelopt.onnx.autocast",
        (
            *(os.environ.get(PEER, sys.executable), "-m", "modelopt.onnx.autocast", "--onnx_path", str(given)),
            *("--output_path", str(files[1]), "--keep_io_types"),
        ),
    )
    notes = []
    for command, file in zip((ours, peer), files, strict=True):
        seconds(command)
        notes.append(f"{command.label}: {_in_float32(file)} nodes in float32, largest error {_error(given, file):.1e}")
    note = "; ".join(notes) + " of the largest output"
    yield Claim("ViT-Base to float16", ours, peer, 0.5, note=note)
    for file in (given, *files):
        file.unlink()


def _in_float32(file: Path) -> int:
    """Nodes that make a float32 tensor and compute something."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(file, load_external_data=False))
    floats = {v.name for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return sum(node.op_type not in _CHOSEN and bool(floats & set(node.output)) for node in model.graph.node)


def _error(reference: Path, candidate: Path) -> float:
    """Largest difference between the outputs for one input, as a share of the largest output."""
    image = np.random.default_rng(1).standard_normal((1, 3, 224, 224), np.float32)
    expected, found = (_run(file, image) for file in (reference, candidate))
    return float(np.abs(expected - found).max() / np.abs(expected).max())


def _run(file: Path, image: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": image})
    return np.asarray(output, np.float32)
