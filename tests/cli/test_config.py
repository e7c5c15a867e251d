"""Defaults from `graphkit.toml` and `pyproject.toml`."""

from pathlib import Path

import pytest

from graphkit.pipeline import ConvertRequest
from graphkit.result import ConvertResult
from graphkit.shapes import DimRange, Sample, TensorSpec
from graphkit_cli.main import COMMANDS

ALL = """\
[{prefix}convert]
to = "trt"
shape = {{ x = "batch,3,8,8" }}
dim = ["batch=1:4:8"]
input = {{ sr = 16000, flag = true }}
opset = 20
optimize = false
cc = "8.6,8.9"
tf32 = false
"""
ASKED = ConvertRequest(
    to="trt",
    shapes=(TensorSpec("x", None, ("batch", 3, 8, 8)),),
    dims=(DimRange("batch", 1, 4, 8),),
    samples=(Sample("sr", 16000), Sample("flag", True)),
    opset=20,
    optimize=False,
    compute_capabilities=("8.6", "8.9"),
    tf32=False,
)


@pytest.fixture
def requests(pipeline):
    return pipeline(ConvertResult("m.pt", "onnx"))


@pytest.mark.parametrize(("file", "prefix"), [("pyproject.toml", "tool.graphkit."), ("graphkit.toml", "")])
def test_defaults_come_from_the_working_directory(run, requests, file, prefix):
    Path(file).write_text(ALL.format(prefix=prefix))
    assert run("convert", "m.pt").code == 0
    assert requests == [("m.pt", ASKED)]


def test_flags_win(run, requests):
    Path("graphkit.toml").write_text("[convert]\nopset = 18\noptimize = false\nshape = { x = '1' }\n")
    run("convert", "m.pt", "--opset", "20", "--optimize", "--shape", "y=2")
    assert requests == [("m.pt", ConvertRequest(opset=20, shapes=(TensorSpec("y", None, (2,)),)))]


def test_graphkit_toml_is_read_instead_of_pyproject(run, requests):
    Path("graphkit.toml").write_text("[convert]\nopset = 18\n")
    Path("pyproject.toml").write_text("[tool.graphkit.convert]\nseed = 5\n")
    run("convert", "m.pt")
    assert requests == [("m.pt", ConvertRequest(opset=18))]


def test_a_pyproject_without_our_table_changes_nothing(run, requests):
    Path("pyproject.toml").write_text("[project]\nname = 'x'\n[tool.ruff]\n")
    run("convert", "m.pt")
    assert requests == [("m.pt", ConvertRequest())]


def test_engine_defaults_do_not_forbid_an_onnx_run(run, requests):
    Path("graphkit.toml").write_text("[convert]\ncc = '8.6'\nbackend = 'rtx'\ntf32 = false\n")
    assert run("convert", "m.pt", "--to", "onnx").code == 0
    assert requests == [("m.pt", ConvertRequest())]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "[convert]\nshpae = ['x=1']",
            "error[GK212]: unknown option `shpae`\n"
            "  where: [convert] in graphkit.toml\n  try:   did you mean `shape`?\n",
        ),
        (
            "[convrt]\nopset = 1",
            "error[GK212]: [convrt] is not the table of a command\n"
            "  where: graphkit.toml\n  try:   did you mean `convert`?\n",
        ),
        (
            "opset = 1",
            "error[GK212]: [opset] is not the table of a command\n"
            f"  where: graphkit.toml\n  try:   one of: {', '.join(COMMANDS)}\n",
        ),
        (
            "[convert]\nopset = '20'",
            "error[GK212]: `opset` is '20', which is not a whole number\n"
            "  where: [convert] in graphkit.toml\n  try:   opset = a whole number\n",
        ),
        (
            "[convert]\nshape = 'x=1'",
            "error[GK212]: `shape` is 'x=1', which is not a list of strings or a table\n"
            "  where: [convert] in graphkit.toml\n  try:   shape = a list of strings or a table\n",
        ),
        (
            "[convert]\noptimize = 1",
            "error[GK212]: `optimize` is 1, which is not true or false\n"
            "  where: [convert] in graphkit.toml\n  try:   optimize = true or false\n",
        ),
        (
            "[convert]\nvia = 'guess'",
            "error[GK212]: Invalid value for '--via': 'guess' is not one of 'export', 'script', 'trace'\n"
            "  try:   graphkit convert --help\n",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(run, requests, text, shown):
    Path("graphkit.toml").write_text(text)
    said = run("convert", "m.pt")
    assert (said.code, said.out, said.err) == (2, "", shown)
    assert requests == []


@pytest.mark.parametrize("key", ["trust", "model", "output", "json", "quiet", "verbose"])
def test_a_folder_cannot_decide_what_is_run_or_overwritten(run, requests, key):
    Path("graphkit.toml").write_text(f"[convert]\n{key} = true\n")
    said = run("convert", "m.pt")
    assert said.code == 2
    assert f"`{key}` cannot be set in a configuration file" in said.err
    assert f"give --{key} on the command line" in said.err
    assert requests == []


@pytest.mark.parametrize("content", [b"[convert", b"\xff\xfe"])
def test_a_broken_file_is_refused(run, requests, content):
    Path("graphkit.toml").write_bytes(content)
    said = run("convert", "m.pt")
    assert said.code == 2
    assert said.err.startswith("error[GK212]: graphkit.toml is not TOML: ")


@pytest.mark.parametrize(("text", "code"), [("tool = 1", 0), ("[tool]\ngraphkit = 3", 2)])
def test_a_tool_table_of_another_kind(run, requests, text, code):
    Path("pyproject.toml").write_text(text)
    assert run("convert", "m.pt").code == code
