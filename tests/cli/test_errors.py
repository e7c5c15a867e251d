"""How failures are shown, and which exit code they have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphkit.errors import DataDependentBranch, ExtraMissing, InternalError, NativeCrash
from graphkit.result import ConvertResult

BRANCH = DataDependentBranch(
    "branch depends on data: `if x.sum() > 0`",
    where="model.py:41 in Gate.forward (module `head.gate`)",
    details=("1 more: model.py:52",),
    remedy="graphkit convert model.pt --via script   (keeps both branches as ONNX If)",
)

SHOWN = """\
error[GK104]: branch depends on data: `if x.sum() > 0`
  where: model.py:41 in Gate.forward (module `head.gate`)
         1 more: model.py:52
  try:   graphkit convert model.pt --via script   (keeps both branches as ONNX If)
"""


def test_an_error_is_one_block_on_stderr(run, pipeline):
    pipeline(ConvertResult("model.pt", "onnx", error=BRANCH))
    said = run("convert", "model.pt")
    assert (said.code, said.out, said.err) == (1, "", SHOWN)


@pytest.mark.parametrize(
    ("terminal", "environment", "colour"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False),
     (True, {"NO_COLOR": ""}, True)],
)  # fmt: skip
def test_colour_is_for_terminals_that_want_it(run, monkeypatch, terminal, environment, colour):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    said = run("explain", "GK999")
    assert ("\x1b[" in said.err) is colour
    assert "GK999" in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [(BRANCH, 1), (ExtraMissing("torch is not installed"), 3), (NativeCrash("onnxsim crashed"), 4)],
    ids=lambda v: getattr(v, "code", v),
)
def test_the_exit_code_is_that_of_the_error(run, pipeline, error, code):
    pipeline(ConvertResult("m.pt", "onnx", error=error))
    assert run("convert", "m.pt").code == code


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("conver m.pt", "error[GK212]: no such command 'conver'; did you mean 'convert'?\n  try:   graphkit --help\n"),
        ("--foo", "error[GK212]: no such option '--foo'\n  try:   graphkit --help\n"),
        ("convert", "error[GK212]: Missing argument 'SRC'\n  try:   graphkit convert --help\n"),
        (
            "convert m.pt --shap x=1",
            "error[GK212]: no such option '--shap'; did you mean '--shape'?\n  try:   graphkit convert --help\n",
        ),
        (
            "convert m.pt --to trtt",
            "error[GK212]: Invalid value for '--to': 'trtt' is not one of 'onnx', 'trt', 'saved_model', 'tflite'\n"
            "  try:   graphkit convert --help\n",
        ),
        (
            "convert m.pt --opset x",
            "error[GK212]: Invalid value for '--opset': 'x' is not a valid integer range\n"
            "  try:   graphkit convert --help\n",
        ),
        (
            "convert m.pt --shape x",
            "error[GK212]: --shape 'x' is not name=dims\n  try:   --shape x=batch,3,224,224[:float32]\n",
        ),
        (
            "convert m.pt --dim batch=8:4:1",
            "error[GK209]: dimension `batch` has the range 8:4:1\n"
            "  try:   --dim batch=MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX\n",
        ),
        (
            "convert m.pt --dim b=1 --dim b=2",
            "error[GK212]: --dim is given twice for `b`\n  try:   one --dim for each name\n",
        ),
        (
            "convert m.pt --to trt --cc sm_86",
            "error[GK212]: --cc 'sm_86' is not a list of compute capabilities\n"
            "  try:   --cc 8.6,8.9,12.0, or --cc all\n",
        ),
        (
            "convert m.pt --no-tf32",
            "error[GK212]: --tf32 says how an engine is built, but --to is onnx\n"
            "  try:   add --to trt, or leave --tf32 out\n",
        ),
        (
            "explain GK999",
            "error[GK208]: no error has the code 'GK999'\n"
            "  try:   one of GK101-GK115, GK201-GK217, GK301-GK303, GK401-GK404\n",
        ),
    ],
)
def test_bad_requests(run, pipeline, line, shown):
    requests = pipeline(ConvertResult("m.pt", "onnx"))
    said = run(*line.split())
    assert (said.code, said.out, said.err) == (2, "", shown)
    assert requests == []


def test_a_bug_leaves_a_report_and_no_traceback(run, pipeline, tmp_path):
    def bug(source, request):
        raise KeyError("dtype\nof x")

    pipeline(bug)
    said = run("convert", "m.pt", "--seed", "7")
    (report,) = tmp_path.iterdir()
    assert said.code == 4
    assert said.err == (
        f"error[GK404]: a bug in graphkit: KeyError: 'dtype\\nof x'\n"
        f"         report: {report}\n"
        f"  try:   attach that file to an issue of graphkit\n"
    )
    text = report.read_text()
    assert "arguments ['convert', 'm.pt', '--seed', '7']" in text
    assert "Traceback (most recent call last)" in text
    assert "\nonnx " in text
    assert text.startswith("graphkit ")


def test_the_report_goes_to_the_temporary_folder_where_the_working_directory_is_not_writable(
    run, pipeline, tmp_path, monkeypatch
):
    from graphkit import atomic
    from graphkit.errors import CannotWrite

    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    write = atomic.write_bytes

    def only_elsewhere(path, data):
        if path.absolute().parent != elsewhere:
            raise CannotWrite("read-only")
        write(path, data)

    monkeypatch.setattr(atomic, "write_bytes", only_elsewhere)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(elsewhere))
    pipeline(lambda source, request: 1 // 0)
    said = run("convert", "m.pt")
    (report,) = elsewhere.iterdir()
    assert str(report) in said.err


def test_a_bug_in_a_child_process_has_the_childs_traceback_in_its_report(run, pipeline, tmp_path):
    pipeline(ConvertResult("m.pt", "onnx", error=InternalError("child: bad", data={"traceback": "File child.py"})))
    said = run("convert", "m.pt")
    (report,) = tmp_path.iterdir()
    assert said.code == 4
    assert str(report) in said.err
    assert "In the child process:\nFile child.py" in report.read_text()


def test_vv_shows_the_traceback(run, pipeline):
    def deep(source, request):
        return ConvertResult("m.pt", "onnx", error=error_with_traceback())

    pipeline(deep)
    assert "error_with_traceback" not in run("convert", "m.pt", "-v").err
    said = run("convert", "m.pt", "-vv")
    assert "in error_with_traceback" in said.err
    assert said.err.endswith(SHOWN)


def error_with_traceback():
    try:
        raise BRANCH
    except DataDependentBranch as error:
        return error


def test_ctrl_c_is_130_without_a_traceback(run, pipeline):
    def interrupted(source, request):
        raise KeyboardInterrupt

    pipeline(interrupted)
    said = run("convert", "m.pt")
    assert (said.code, said.out) == (130, "")
    assert said.err.strip() == "interrupted"


def test_a_reader_that_leaves_is_no_bug():
    command = Path(sys.executable).with_name("graphkit")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([command, "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_error_cannot_steer_the_terminal(run):
    assert r"\x1b[2J" in run("explain", "\x1b[2J").err
