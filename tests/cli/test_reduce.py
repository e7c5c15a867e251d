"""`graphkit reduce`: exit codes, and what goes where."""

from __future__ import annotations

import json
import shlex

import onnx
import pytest

from fixtures.towers import tower

ERF = "sh -c " + shlex.quote('grep -q Erf "$0" && { echo "no Erf" >&2; exit 3; }; exit 0') + " {model}"


@pytest.fixture
def model(tmp_path):
    onnx.save(tower(3, {1: lambda op, h, p: op("Erf", [h], f"{p}erf")}), tmp_path / "tower.onnx")
    return "tower.onnx"


def test_a_smaller_model_that_fails_ends_with_0(run, model, tmp_path):
    said = run("reduce", model, "--check", ERF, "-q")
    assert (said.code, said.err) == (0, "")
    first, *rest = said.out.splitlines()
    assert first == "reduced: 1 of 41 nodes fail in the same way"
    assert "  why    exit status 3: no Erf" in rest
    assert "  node   Erf 'node.block1.erf'" in rest
    assert "  fed    block1.out: float32[batch, 8, 16]; 3 sets of values" in rest
    assert rest[-1].startswith("wrote tower-reduced/: in it, sh -c ")
    assert sorted(p.name for p in (tmp_path / "tower-reduced").iterdir()) == [
        "README.md",
        "failure.json",
        "inputs",
        "model.onnx",
    ]


def test_a_model_that_does_not_fail_ends_with_1(run, model, tmp_path):
    said = run("reduce", model, "--check", "true {model}", "-q", "-o", "out")
    assert (said.code, said.out.splitlines()[0]) == (
        1,
        "passes: nothing to reduce: the check passes on the whole model",
    )
    assert not (tmp_path / "out").exists()


def test_a_command_that_is_not_there_ends_with_2(run, model):
    said = run("reduce", model, "--check", "no-such-program {model}")
    assert (said.code, said.out) == (2, "")
    assert "error[GK212]: --check: there is no program 'no-such-program'" in said.err


def test_json_has_the_answer_also_where_there_is_none(run, model):
    said = run("reduce", model, "--check", ERF, "--json", "-o", "out", "--max-trials", "4")
    read = json.loads(said.out, parse_constant=pytest.fail)
    assert (said.code, read["schema"], read["status"], read["trials"]) == (0, "graphkit.reduce/1", "stopped", 4)
    assert read["nodes_after"] == len(read["nodes"]) < 41
    said = run("reduce", "none.onnx", "--check", ERF, "--json")
    read = json.loads(said.out, parse_constant=pytest.fail)
    assert (said.code, read["status"], read["error"]["code"]) == (2, "error", "GK201")


def test_progress_goes_to_stderr(run, model):
    said = run("reduce", model, "--check", ERF, "-o", "out")
    assert said.err.startswith("reduce ")
    assert "41 -> 1 nodes; " in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--until", "build", "--timeout", "3"], "--timeout is not for --until build"),
        (["--until", "ort", "--cc", "8.6"], "--backend and --cc are for --until build"),
        (["--until", "ort", "--input", "a.npz", "--input", "x=1"], "more than one way"),
        ([], "either a command or --until"),
    ],
)
def test_options_that_do_not_go_together_end_with_2(arguments, message, run, model):
    said = run("reduce", model, *arguments)
    assert (said.code, message in said.err) == (2, True)


def test_a_configuration_file_cannot_have_a_command_run(run, model, tmp_path):
    (tmp_path / "graphkit.toml").write_text('[reduce]\ncheck = "touch {model} ran"\n')
    said = run("reduce", model)
    assert (said.code, "check" in said.err) == (2, True)
    assert not (tmp_path / "ran").exists()
