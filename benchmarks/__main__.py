"""`python -m benchmarks [ROOM ...] [--runs N]`: measure, and rewrite RESULTS.md when every room was measured."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import CommandFailed
from benchmarks.results import FEW_RUNS, Claim, page

ROOMS = ("startup", "convert", "tf_convert", "build", "cache", "parity", "inspect", "calibration")
BY_NAME = ("half",)
"""Rooms whose peer does not install beside the others: nvidia-modelopt pins other versions of onnx."""

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Print the page; write it where all rooms ran often enough. Exit code 1: a target was missed; 2: a run failed."""
    parser = _parser()
    options = parser.parse_args()
    rooms = tuple(options.room) or ROOMS
    if unknown := [name for name in rooms if name not in (*ROOMS, *BY_NAME)]:
        parser.error(f"no such room: {', '.join(unknown)}; there are {', '.join((*ROOMS, *BY_NAME))}")
    if importlib.util.find_spec("psutil") is None:
        parser.error("psutil is not installed: pip install -e '.[bench]'")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    claims: list[Claim] = []
    try:
        for claim in _measured(rooms, options.runs, options.warm_up):
            claims.append(claim)
    except CommandFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = page(claims, runs=options.runs, warm_up=options.warm_up, load=load)
    print(text)
    if options.to is not None:
        options.to.write_text(text, encoding="utf-8")
    elif set(rooms) == set(ROOMS) and options.runs >= FEW_RUNS:
        RESULTS.write_text(text, encoding="utf-8")
    else:
        print(f"{RESULTS.name} is as it was: it takes every room and --runs {FEW_RUNS} or more", file=sys.stderr)
    return 1 if any(claim.met is False for claim in claims) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "room", nargs="*", metavar="ROOM", help=f"{', '.join(ROOMS)}: all, if none is named; {', '.join(BY_NAME)}"
    )
    parser.add_argument("--runs", type=int, default=FEW_RUNS, help="timed runs a side (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=1, help="untimed runs a side (default: %(default)s)")
    parser.add_argument("--to", type=Path, metavar="FILE", help="write the page of these rooms to FILE")
    return parser


def _measured(rooms: tuple[str, ...], runs: int, warm_up: int) -> Iterator[Claim]:
    with tempfile.TemporaryDirectory(prefix="graphkit-bench-") as folder:
        for name in rooms:
            room = importlib.import_module(f"benchmarks.{name}")
            for claim in room.claims(Path(folder)):
                print(f"{claim.what} ...", file=sys.stderr, flush=True)
                often = runs * room.REPEATED if runs >= FEW_RUNS else runs
                yield replace(claim.measured(runs=often, warm_up=warm_up), room=name)


if __name__ == "__main__":
    sys.exit(main())
