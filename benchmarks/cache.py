"""What a second build of the same model costs: `graphkit build`, whose engine is in the cache, against building again.

Both are whole commands, with the start of Python. Ours hashes the model's bytes, looks the engine up, copies it and
hashes the copy, and writes its description.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.convert import MINILM, RESIDUAL_CNN, ROOT, Case, fetch_minilm
from benchmarks.measure import Command, seconds
from benchmarks.results import Claim
from benchmarks.startup import program

REPEATED = 2
LIMIT = 0.5
TARGET = "8.6"

_TOKENS = "1x2:2x16:8x128"
_PROFILES = {
    RESIDUAL_CNN.title: ("input=1x3x64x64:4x3x64x64:8x3x64x64",),
    MINILM.title: (f"input_ids={_TOKENS}", f"attention_mask={_TOKENS}"),
}


def claims(folder: Path) -> Iterator[Claim]:
    """The comparisons of this room; models, engines and the cache go to `folder`."""
    fetch_minilm()
    for number, case in enumerate((RESIDUAL_CNN, MINILM)):
        model = folder / f"cached{number}.onnx"
        seconds(case.to_onnx(model))
        ours = _ours(case, model, folder)
        seconds(ours)  # the first build, which fills the cache
        yield Claim(
            f"{case.title} to an engine that the cache has, against building it with the API",
            ours,
            _raw(case, model, folder),
            None,
            limit=LIMIT,
            note="both with the start of Python; the peer builds, ours looks up, copies and checks",
        )


def _ours(case: Case, model: Path, folder: Path) -> Command:
    pairs = zip(case.options[::2], case.options[1::2], strict=True)
    ranges = [part for option, text in pairs if option == "--dim" for part in (option, text)]
    line = (program("graphkit"), "build", str(model), "--backend", "rtx", "--cc", TARGET, *ranges)
    where = {"GRAPHKIT_CACHE_DIR": str(folder / "cache")}
    return Command("graphkit build, warm cache", (*line, "-q", "-o", str(folder / "cached.engine")), where, ROOT)


def _raw(case: Case, model: Path, folder: Path) -> Command:
    target = (str(model), str(folder / "bare.engine"), TARGET, *_PROFILES[case.title])
    label = "python -m benchmarks.bare.engine"
    return Command(label, (sys.executable, "-m", "benchmarks.bare.engine", *target), cwd=ROOT)
