"""The TensorRT-RTX engine build of `graphkit convert --to trt` against NVIDIA's own API and against Polygraphy.

All build the same ONNX file for the same profile and compute capabilities, on the CPU, TF32 allowed. The cache of
engines is off: `benchmarks.cache` measures what it is for.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.convert import MINILM, RESIDUAL_CNN, ROOT, Case, fetch_minilm
from benchmarks.measure import Command, seconds
from benchmarks.results import Claim
from benchmarks.startup import program

REPEATED = 1
MOST = 1.3
CAPABILITIES = ("8.6", "8.9")
TARGETS = (("8.6",), CAPABILITIES, ("8.0", "8.6", "8.9", "12.0", "12.1"))

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    """A model to build, with the smallest, usual and largest shape of each input."""

    case: Case
    profile: dict[str, tuple[Sizes, Sizes, Sizes]]


_TOKENS = ((1, 2), (2, 16), (8, 128))
_JOBS = (
    _Job(RESIDUAL_CNN, {"input": ((1, 3, 64, 64), (4, 3, 64, 64), (8, 3, 64, 64))}),
    _Job(MINILM, {"input_ids": _TOKENS, "attention_mask": _TOKENS}),
)


def claims(folder: Path) -> Iterator[Claim]:
    """The comparisons of this room; models and engines go to `folder`."""
    fetch_minilm()
    for number, job in enumerate(_JOBS):
        model = folder / f"build{number}.onnx"
        seconds(job.case.to_onnx(model))
        yield from _claims_of(job, model, folder)


def _claims_of(job: _Job, model: Path, folder: Path) -> Iterator[Claim]:
    title = job.case.title
    for targets in TARGETS:
        count = "1 target" if len(targets) == 1 else f"{len(targets)} targets"
        bare = replace(_raw(job, model, folder, targets), label="tensorrt_rtx, parse and build")
        yield Claim(
            f"{title} to an engine for {count}, the build alone, against the API",
            _stage(_ours(job, model, folder, targets)),
            replace(bare, reading=lambda out, _: float(out)),
            MOST,
            note="ours includes the preflight, the proof of the profile and the digests of model and engine",
        )
    ours, raw = _ours(job, model, folder, CAPABILITIES), _raw(job, model, folder, CAPABILITIES)
    polygraphy, stage = _polygraphy(job, model, folder), _stage(ours)
    proves = "ours also runs the ONNX file at several shapes first; the peer only builds"
    yield Claim(
        f"{title} to an engine, the build alone, against Polygraphy",
        stage,
        replace(polygraphy, label="polygraphy convert, its own figure", reading=_polygraphys_figure),
        MOST,
        note="ours includes parsing, the proof of the profile and the digests; Polygraphy's figure leaves out parsing",
    )
    yield Claim(f"{title} to an engine, the whole command, against the API", ours, raw, None, note=proves)
    yield Claim(f"{title} to an engine, the whole command, against Polygraphy", ours, polygraphy, None, note=proves)


def _stage(ours: Command) -> Command:
    return replace(ours, label="graphkit convert, stage build", reading=_build_stage)


def _ours(job: _Job, model: Path, folder: Path, targets: tuple[str, ...]) -> Command:
    ranges = [part for option, text in _pairs(job.case.options) if option == "--dim" for part in (option, text)]
    argv = (program("graphkit"), "convert", str(model), "--to", "trt", "--backend", "rtx", "--no-optimize", *ranges)
    more = ("--cc", ",".join(targets), "--no-cache", "--json", "--quiet", "-o", str(folder / "ours.engine"))
    return Command("graphkit convert --no-optimize", (*argv, *more), cwd=ROOT)


def _pairs(options: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return zip(options[::2], options[1::2], strict=True)


def _raw(job: _Job, model: Path, folder: Path, targets: tuple[str, ...]) -> Command:
    def text(sizes: Sizes) -> str:
        return "x".join(map(str, sizes))

    profiles = (f"{name}={':'.join(map(text, triple))}" for name, triple in job.profile.items())
    target = (str(model), str(folder / "raw.engine"), ",".join(targets))
    label = "python -m benchmarks.bare.engine"
    return Command(label, (sys.executable, "-m", "benchmarks.bare.engine", *target, *profiles), cwd=ROOT)


def _polygraphy(job: _Job, model: Path, folder: Path) -> Command:
    shapes: list[str] = []
    for index, point in enumerate(("min", "opt", "max")):
        shapes.append(f"--trt-{point}-shapes")
        shapes += (f"{name}:[{','.join(map(str, triple[index]))}]" for name, triple in job.profile.items())
    argv = (program("polygraphy"), "convert", str(model), "-o", str(folder / "polygraphy.engine"))
    chosen = {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    return Command("polygraphy convert", (*argv, "--compute-capabilities", *CAPABILITIES, *shapes), chosen, ROOT)


def _build_stage(output: str, _errors: str) -> float:
    stages = {stage["name"]: stage["seconds"] for stage in json.loads(output)["stages"]}
    return float(stages["build"])


def _polygraphys_figure(output: str, _errors: str) -> float:
    found = re.search(r"Finished engine building in ([0-9.]+) seconds", output)
    assert found is not None, "Polygraphy no longer says what the build took"
    return float(found[1])
