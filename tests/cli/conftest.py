"""Running the command line in this process, with the pipeline replaced where a test says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from graphkit_cli.main import main


@dataclass(frozen=True)
class Transcript:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch, tmp_path) -> Callable[..., Transcript]:
    """`run("explain", "GK104")` in an empty working directory: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    def run_command(*args: str) -> Transcript:
        monkeypatch.setattr("sys.argv", ["graphkit", *args])
        capsys.readouterr()
        code = main()
        captured = capsys.readouterr()
        return Transcript(code, captured.out, captured.err)

    return run_command


@pytest.fixture
def pipeline(monkeypatch) -> Callable[..., list]:
    """`requests = pipeline(answer)` makes `convert` answer with a result, or with what a function returns or raises.

    The list holds the `(source, request)` pairs that the command line asked for.
    """
    from graphkit import pipeline as real

    def answering(answer) -> list:
        requests = []

        def fake_run(source, request):
            requests.append((source, request))
            return answer(source, request) if callable(answer) else answer

        monkeypatch.setattr(real, "run", fake_run)
        return requests

    return answering
