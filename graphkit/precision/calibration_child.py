"""The child's side of `calibration`: runs the model on sample after sample, and keeps what it saw of each tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphkit.errors import InvalidExport
from graphkit.parity.ort_child import infer, open_session
from graphkit.precision.quant_channels import Log
from graphkit.precision.quant_histogram import Histogram, entropy, percentile


@dataclass
class _Run:
    session: Any
    method: str
    tensors: list[str]
    percent: float
    outputs: list[str]  # of the model itself, before the watched ones
    amax: list[float]
    histograms: list[Histogram]
    logs: dict[str, Log]


_run: _Run | None = None


def begin(path: str, method: str, tensors: list[str], percent: float, by_channel: list[str]) -> None:
    """Load the model whose last outputs are the watched ones.

    Raises:
        InvalidExport: ONNX Runtime cannot load it, with its optimiser or without.
    """
    global _run
    try:
        session = open_session(path, optimize=True)
    except InvalidExport:  # its optimiser breaks some models; see parity.runners
        session = open_session(path, optimize=False)
    own = [o.name for o in session.get_outputs()][: -len(tensors)]
    histograms = [Histogram() for _ in tensors] if method != "minmax" else []
    _run = _Run(
        session, method, tensors, percent, own, [0.0] * len(tensors), histograms, {t: Log() for t in by_channel}
    )


def collect(inputs: list[dict[str, str]]) -> str | None:
    """Run one sample; returns the name of a tensor that is not finite on it, None where all are."""
    import numpy as np

    from graphkit.tensor_files import read_tensors

    assert _run is not None
    outputs = infer(_run.session, read_tensors(inputs))
    for name in _run.outputs:  # NaN in the middle of a graph can escape a maximum, but not its outputs
        if outputs[name].dtype.kind == "f" and np.isnan(outputs[name]).any():
            return name
    watched = [value for name, value in outputs.items() if name not in _run.outputs]
    for position, value in enumerate(watched):
        if not np.isfinite(value).all():
            return _run.tensors[position]
        log = _run.logs.get(_run.tensors[position])
        if log is not None:
            log.add(value)
        if _run.histograms:
            _run.histograms[position].add(value)
        else:
            largest = max(float(value.max(initial=0.0)), -float(value.min(initial=0.0)))
            _run.amax[position] = max(_run.amax[position], largest)
    return None


def finish() -> list[float]:
    """The |x| at which to clip each tensor, in their order; frees the model."""
    assert _run is not None
    _run.session = None
    if _run.method == "minmax":
        return _run.amax
    if _run.method == "entropy":
        return [entropy(h) for h in _run.histograms]
    return [percentile(h, _run.percent) for h in _run.histograms]


def channels(folder: str) -> list[dict[str, str]]:
    """What was seen of the channels, written to a folder; frees the rest."""
    from graphkit.tensor_files import write_tensors

    global _run
    assert _run is not None
    done, _run = _run, None
    found = {name: array for tensor, log in done.logs.items() for name, array in log.tensors(tensor).items()}
    return write_tensors(found, Path(folder))
