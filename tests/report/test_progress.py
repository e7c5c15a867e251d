import io
import re

import pytest

from graphkit.events import emit
from graphkit.report.progress import shown_on, stage_line


class Terminal(io.StringIO):
    def isatty(self):
        return True


def emit_a_conversion():
    emit("stage", name="capture", state="start")
    emit(
        "stage", name="capture", state="done", seconds=2.13, detail="torch.export, opset 20", nodes=142, size=44_800_000
    )
    emit(
        "stage",
        name="optimise",
        state="done",
        seconds=0.31,
        detail="onnxsim: 142 -> 98 nodes",
        nodes=98,
        size=44_700_000,
    )
    emit("stage", name="build", state="start")
    emit("progress", phase="Tactic selection", done=3, total=10)
    emit("note", message="the engine has TF32")
    emit("stage", name="build", state="failed", seconds=100.0, detail="Conv_3 refused")
    emit("stage", name="validate", state="skipped", detail="nothing to compare")


LINES = """\
capture        2.1 s  torch.export, opset 20; 142 nodes; 44.8 MB
optimise       0.3 s  onnxsim: 142 -> 98 nodes; 44.7 MB
note: the engine has TF32
build         failed  Conv_3 refused
validate     skipped  nothing to compare
"""


def test_without_a_terminal_each_finished_stage_is_one_plain_line():
    stream = io.StringIO()
    with shown_on(stream):
        emit_a_conversion()
    assert stream.getvalue() == LINES


def test_quiet_prints_nothing():
    for stream in (io.StringIO(), Terminal()):
        with shown_on(stream, quiet=True):
            emit_a_conversion()
        assert stream.getvalue() == ""


def test_a_terminal_gets_the_same_lasting_lines_and_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with shown_on(stream):
        emit_a_conversion()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    for line in LINES.splitlines():
        assert line in text
    assert "━" in text
    assert stream.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in stream.getvalue()  # the cursor is back


def test_the_bar_moves_with_progress_events(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    from rich.progress import Progress

    seen = []
    update = Progress.update
    monkeypatch.setattr(Progress, "update", lambda self, task, **k: (seen.append(k), update(self, task, **k))[1])
    with shown_on(Terminal()):
        emit("progress", phase="before any stage", done=1, total=2)
        emit("stage", name="build", state="start")
        emit("progress", phase="Tactic selection", done=3, total=10)
    assert seen == [{"total": 10, "description": "Tactic selection", "completed": 3}]


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with shown_on(stream):
        emit_a_conversion()
    assert stream.getvalue() == LINES


def test_the_terminal_is_restored_when_the_work_raises(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()

    def interrupted():
        emit("stage", name="build", state="start")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), shown_on(stream):
        interrupted()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")
    emit("stage", name="late", state="done")  # nobody listens any more
    assert "late" not in stream.getvalue()


def test_a_stage_cannot_steer_the_terminal():
    assert (
        stage_line({"name": "build", "state": "failed", "detail": "\x1b[2J\nx"}) == "build         failed  \\x1b[2J x"
    )
