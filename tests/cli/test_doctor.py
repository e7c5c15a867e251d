"""`graphkit doctor` on the command line."""

import json

import pytest
from click.testing import CliRunner

from graphkit import doctor as library
from graphkit.doctor import Conflict, Diagnosis, Fit, Library, Machine, Probe, Verdict
from graphkit_cli.doctor import doctor

REMEDY = "pip install 'graphkit-onnx[trt]'"
BROKEN = Diagnosis(
    machine=Machine("3.12.0", "CPython", "Linux", "x86_64", 2),
    libraries=(Library("onnx", "1.23.2"), Library("torch", None)),
    fit=Fit("conflicts", 3, (Conflict("protobuf 7.0: torch needs <6", "pip install 'protobuf<6'"),)),
    probes=(Probe("tensorrt_rtx", "crashed", "crashed with signal 11 (SIGSEGV)"),),
    build=(Verdict("trt", "rtx", False, "TensorRT-RTX: crashed with signal 11 (SIGSEGV)", REMEDY),),
    run=(Verdict("trt", "rtx", False, "no NVIDIA GPU is here", REMEDY),),
)


@pytest.fixture
def broken(monkeypatch):
    monkeypatch.setattr(library, "diagnose", lambda: BROKEN)


def run(*arguments):
    return CliRunner().invoke(doctor, arguments, catch_exceptions=False)


def test_findings_are_a_report_and_not_a_failure(broken):
    assert run().exit_code == 0
    assert run("--json").exit_code == 0


def test_each_remedy_stands_once_on_a_line_of_its_own(broken):
    lines = [line.strip() for line in run().stdout.splitlines()]
    assert lines.count(REMEDY) == 1
    assert lines[-2:] == ["pip install 'protobuf<6'", REMEDY]


def test_text_names_the_crash_the_conflict_and_what_is_missing(broken):
    text = " ".join(run().stdout.split())
    assert "crashed with signal 11 (SIGSEGV)" in text
    assert "protobuf 7.0: torch needs <6" in text
    assert "not installed torch" in text


def test_json_has_the_same_answer_for_programs(broken):
    data = json.loads(run("--json").stdout)
    assert data["schema"] == "graphkit.doctor/1"
    assert data["remedies"] == ["pip install 'protobuf<6'", REMEDY]
    assert data["build"][0] == {
        "target": "trt",
        "by": "rtx",
        "can": False,
        "reason": "TensorRT-RTX: crashed with signal 11 (SIGSEGV)",
        "remedy": REMEDY,
        "compute_capabilities": [],
    }


def test_this_machine_gets_an_answer_on_stdout_alone():
    result = run("--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert json.loads(result.stdout)["status"] == "ok"
