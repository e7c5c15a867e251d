"""`python -m benchmarks [ROOM ...] [--runs N]`: measure, and rewrite the sections of these rooms in RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import CommandFailed
from benchmarks.results import FEW_RUNS, Claim, page

ROOMS = ("startup", "convert", "tf_convert", "build", "cache", "parity", "inspect", "calibration")
BY_NAME = ("half",)
"""Rooms whose peer does not install beside the others: nvidia-modelopt pins other versions of onnx, and is run by the
interpreter that GRAPHKIT_BENCH_MODELOPT names (see `benchmarks.half`)."""

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Print each room, and write its section where it ran often enough.

    Exit code 1: a target was missed; 2: a run failed, and its room's section is as it was.
    """
    parser = _parser()
    options = parser.parse_args()
    rooms = tuple(options.room) or ROOMS
    if unknown := [name for name in rooms if name not in (*ROOMS, *BY_NAME)]:
        parser.error(f"no such room: {', '.join(unknown)}; there are {', '.join((*ROOMS, *BY_NAME))}")
    if importlib.util.find_spec("psutil") is None:
        parser.error("psutil is not installed: pip install -e '.[bench]'")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    claims: list[Claim] = []
    failed: list[str] = []
    target = options.to or (RESULTS if options.runs >= FEW_RUNS else None)
    for room in rooms:
        try:
            measured = _measured(room, options.runs, options.warm_up)
        except CommandFailed as error:
            print(f"error: {room}: {error}", file=sys.stderr)
            failed.append(room)
            continue
        claims += measured
        text = page(measured, runs=options.runs, warm_up=options.warm_up, load=load)
        print(text.partition("\n## ")[2], flush=True)
        if target is not None:  # room by room: what is measured stays, whatever comes after it
            before = target.read_text(encoding="utf-8") if target.is_file() else ""
            how = {"runs": options.runs, "warm_up": options.warm_up, "load": load}
            target.write_text(page(measured, before=before, **how), encoding="utf-8")
    if target is None:
        print(f"{RESULTS.name} is as it was: it takes --runs {FEW_RUNS} or more", file=sys.stderr)
    if failed:
        return 2
    return 1 if any(claim.met is False for claim in claims) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "room", nargs="*", metavar="ROOM", help=f"{', '.join(ROOMS)}: all, if none is named; {', '.join(BY_NAME)}"
    )
    parser.add_argument("--runs", type=int, default=FEW_RUNS, help="timed runs a side (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=1, help="untimed runs a side (default: %(default)s)")
    parser.add_argument("--to", type=Path, metavar="FILE", help="merge the rooms into FILE, not RESULTS.md")
    return parser


def _measured(name: str, runs: int, warm_up: int) -> list[Claim]:
    room = importlib.import_module(f"benchmarks.{name}")
    often = runs * room.REPEATED if runs >= FEW_RUNS else runs
    found = []
    with tempfile.TemporaryDirectory(prefix="graphkit-bench-") as folder:
        for claim in room.claims(Path(folder)):
            print(f"{claim.what} ...", file=sys.stderr, flush=True)
            found.append(replace(claim.measured(runs=often, warm_up=warm_up), room=name))
    return found


if __name__ == "__main__":
    sys.exit(main())
