"""`graphkit convert`: what it asks the pipeline for, and what it prints."""

import json
import os
import sys
import warnings
from pathlib import Path

import pytest

from graphkit.events import emit
from graphkit.pipeline import ConvertRequest
from graphkit.result import ConvertResult
from graphkit.shapes import DimRange, Sample, TensorSpec
from tests.report.results import failing_parity, passing
from tests.report.test_convert import FAILING, PASSING


def test_every_option_reaches_the_pipeline(run, pipeline):
    requests = pipeline(ConvertResult("m.pt", "trt"))
    line = (
        "convert m.pt --to trt -o out.engine --shape x=batch,3:float16 --shape y=2 --dim batch=1:4:8 "
        "--input sr=16000 --input z=z.npy --opset 20 --via script --submodule a.b --model pkg.net:build "
        "--trust --no-optimize --backend rtx --cc 8.6,12.0 --no-tf32 --seed 3 -q"
    )
    run(*line.split())
    expected = ConvertRequest(
        to="trt",
        output=Path("out.engine"),
        shapes=(TensorSpec("x", "float16", ("batch", 3)), TensorSpec("y", None, (2,))),
        dims=(DimRange("batch", 1, 4, 8),),
        samples=(Sample("sr", 16000), Sample("z", Path("z.npy"))),
        opset=20,
        via="script",
        submodule="a.b",
        architecture="pkg.net:build",
        trust=True,
        optimize=False,
        backend="rtx",
        compute_capabilities=("8.6", "12.0"),
        tf32=False,
        seed=3,
    )
    assert requests == [("m.pt", expected)]


def test_without_options_the_request_is_the_default(run, pipeline):
    requests = pipeline(ConvertResult("m.pt", "onnx"))
    run("convert", "pkg.net:build")
    assert requests == [("pkg.net:build", ConvertRequest())]


def test_the_answer_is_on_stdout_and_the_stages_are_on_stderr(run, pipeline, tmp_path):
    def answer(source, request):
        emit("stage", name="capture", state="start")
        emit("stage", name="capture", state="done", seconds=1.25, detail="torch.export, opset 20", nodes=1, size=12)
        return passing(tmp_path)

    pipeline(answer)
    said = run("convert", "m.pt")
    assert said.code == 0
    assert said.out == PASSING + "\n"
    assert said.err == "capture        1.2 s  torch.export, opset 20; 1 node; 12 B\n"
    assert run("convert", "m.pt", "-q").err == ""


def test_a_failed_parity_shows_what_differs_and_exits_with_1(run, pipeline):
    pipeline(failing_parity())
    said = run("convert", "m.pt")
    assert said.code == 1
    assert said.out == FAILING + "\n"
    assert said.err == "error[GK112]: `logits` is not equal\n  try:   graphkit convert m.pt --no-optimize\n"


@pytest.mark.parametrize("make", [passing, lambda _: failing_parity()], ids=["pass", "fail"])
def test_json_is_the_only_thing_on_stdout(run, pipeline, make, tmp_path):
    def noisy(source, request):
        print("a model prints")
        emit("stage", name="capture", state="done", seconds=1.0)
        return make(tmp_path)

    pipeline(noisy)
    said = run("convert", "m.pt", "--json")
    assert json.loads(said.out, parse_constant=pytest.fail) == make(tmp_path).to_json()
    assert "a model prints\n" in said.err
    assert "capture        1.0 s\n" in said.err
    assert said.code == (1 if make(tmp_path).error else 0)


@pytest.mark.parametrize(
    ("options", "code"), [(["--shape", "x"], "GK212"), (["--dim", "b=3:2:1"], "GK209"), (["--cc", "8.6"], "GK212")]
)
def test_json_answers_a_bad_request_too(run, pipeline, options, code):
    pipeline(ConvertResult("m.pt", "onnx"))
    said = run("convert", "m.pt", "--json", *options)
    data = json.loads(said.out)
    assert (said.code, data["status"], data["error"]["code"]) == (2, "error", code)


def test_json_answers_after_a_bug_too(run, pipeline):
    pipeline(lambda source, request: 1 // 0)
    said = run("convert", "m.pt", "--json")
    data = json.loads(said.out)
    assert (said.code, data["error"]["code"]) == (4, "GK404")
    assert Path(data["error"]["data"]["report"]).is_file()
    assert len(list(Path.cwd().iterdir())) == 1  # one report, not one for each of the two who saw the bug


def test_what_native_code_prints_does_not_reach_stdout(pipeline, tmp_path, monkeypatch, capfd):
    from graphkit_cli.main import main

    def native(source, request):
        os.write(1, b"printed from C\n")
        return passing(tmp_path)

    monkeypatch.chdir(tmp_path)
    pipeline(native)
    assert main(["convert", "m.pt", "--json"]) == 0
    captured = capfd.readouterr()
    json.loads(captured.out)
    assert "printed from C" in captured.err


def test_warnings_of_libraries_are_for_v(run, pipeline):
    def warns(source, request):
        warnings.warn("deprecated in torch", FutureWarning, stacklevel=1)
        return ConvertResult("m.pt", "onnx")

    pipeline(warns)
    assert "deprecated" not in run("convert", "m.pt").err
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.warns(FutureWarning, match="deprecated in torch"):
            run("convert", "m.pt", "-v")


def test_a_name_that_the_terminal_cannot_spell_is_escaped(run, pipeline, monkeypatch):
    pipeline(ConvertResult("m.pt", "onnx", output=Path("größe.onnx")))
    stream = open(os.devnull, "w", encoding="ascii")  # noqa: PTH123, SIM115
    with stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run("convert", "m.pt").code == 0
