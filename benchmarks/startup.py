"""How long `graphkit --help` makes one wait."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Command
from benchmarks.results import Claim

REPEATED = 5
"""Such short commands are run this many times as often as the others."""


def claims(folder: Path) -> Iterator[Claim]:
    """The comparisons of this room; nothing is written to `folder`."""
    del folder
    graphkit = Command("graphkit --help", (program("graphkit"), "--help"))
    click = Command('python -c "import click"', (sys.executable, "-c", "import click"))
    polygraphy = Command("polygraphy --help", (program("polygraphy"), "--help"))
    yield Claim("help, against importing the library of its command line", graphkit, click, 1.5, limit=0.25)
    yield Claim("help, against Polygraphy's", graphkit, polygraphy, None)


def program(name: str) -> str:
    """The program of this name that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))
