"""`graphkit check`, as it is run."""

from __future__ import annotations

import json

import onnx
import pytest

from fixtures.malformed import write
from graphkit.errors import ExtraMissing
from graphkit.report.sarif import MOST_RESULTS
from graphkit.support import parser
from graphkit.support.rule import rules
from tests.support.models import CASES, model, node, save


@pytest.fixture(autouse=True)
def no_library(monkeypatch):
    """The rules alone answer, as on a machine without NVIDIA's libraries: quick, and the same everywhere."""
    monkeypatch.setattr(parser, "lack", lambda target: ExtraMissing("it is not installed"))


def det(folder, name="m.onnx"):
    """A Det inside a branch, with a source line."""
    made = CASES["if unique"]()
    branch = made.graph.node[0].attribute[0].g
    trace = 'File "net.py", line 7, in forward\n    return torch.linalg.det(x)'
    entry = onnx.StringStringEntryProto(key="pkg.torch.onnx.stack_trace", value=trace)
    branch.node[0].metadata_props.append(entry)
    return save(made, folder / name)


def test_text_ends_with_the_verdict(run, tmp_path):
    det(tmp_path)
    said = run("check", "m.onnx", "--target", "trt")
    assert said.code == 1
    assert (
        said.out
        == """\
error[GKC101]: TensorRT has no operator `Det`
  node:  det_in_else (Det) in n_y.else_branch
  where: net.py:7 in forward
  reads: x: float32 [2, 4]
  try:   compute it before or after the engine, in the program that runs it

parser: not run, it is not installed
builder: not run, it is not installed
m.onnx: TensorRT will not build it: 1 error at 1 of 3 nodes by the rules alone, static
"""
    )


@pytest.mark.parametrize(("name", "target", "code"), [("gelu", "trt", 0), ("gelu", "rtx", 3), ("gelu", "ort", 0)])
def test_the_exit_code_is_the_answer(run, tmp_path, name, target, code):
    save(CASES[name](), tmp_path / "m.onnx")
    said = run("check", "m.onnx", "--target", target)
    assert said.code == code
    assert "m.onnx: " in said.out.splitlines()[-1]


def test_of_many_warnings_of_one_rule_a_few_are_shown(run, tmp_path):
    values = [f"v{i}" for i in range(9)]
    nodes = [node("Relu", a, b, domain="my") for a, b in zip(["x", *values], [*values, "y"], strict=True)]
    save(model(nodes, ["x f32 2"], ["y f32 2"], domains={"my": 1}), tmp_path / "m.onnx")
    said = run("check", "m.onnx", "--target", "trt")
    assert (said.code, said.out.count("warning[GKC301]"), "GKC301: 5 more, see them with -v" in said.out) == (
        0,
        5,
        True,
    )
    assert run("check", "m.onnx", "--target", "trt", "-v").out.count("warning[GKC301]") == 10
    assert "warning" not in run("check", "m.onnx", "--target", "trt", "--ignore", "GKC3").out


def test_of_many_errors_at_one_operator_a_few_are_shown_and_others_named(run, tmp_path):
    values = [f"v{i}" for i in range(9)]
    pairs = zip(["x", *values], [*values, "w"], strict=True)
    nodes = [node("QLinearAdd" if i % 5 else "Det", a, b, name=f"n{i}") for i, (a, b) in enumerate(pairs)]
    save(model([*nodes, node("Det", "w", "y", name="last")], ["x f32 2 2"], ["y f32"]), tmp_path / "m.onnx")
    said = run("check", "m.onnx", "--target", "trt")
    assert (said.code, said.out.count("error[GKC101]")) == (1, 5 + 3), said.out
    assert "GKC101: 3 more at n7, n8, n9, see them with -v" in said.out, said.out
    assert "11 errors at 11 of 11 nodes" in said.out
    assert run("check", "m.onnx", "--target", "trt", "-v").out.count("error[GKC101]") == 11


def test_json_is_one_strict_document(run, tmp_path):
    det(tmp_path)
    said = run("check", "m.onnx", "--target", "trt", "--json", "--cc", "8.6, 8.9")
    told = json.loads(said.out, parse_constant=pytest.fail)
    assert said.code == 1
    assert (told["schema"], told["answer"], told["static"]) == ("graphkit.check/1", "no", True)
    assert told["capabilities"] == {"8.6": False, "8.9": False}
    (finding,) = told["findings"]
    assert finding["node"]["path"] == ["n_y.else_branch"]
    assert (finding["node"]["file"], finding["node"]["line"]) == ("net.py", 7)
    assert said.out == run("check", "m.onnx", "--target", "trt", "--json", "--cc", "8.6,8.9").out


# --- SARIF -------------------------------------------------------------------------------------------------------


def assert_sarif(log):
    """What the schema of SARIF 2.1.0 requires of the objects that are used here."""
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    for each in log["runs"]:
        driver = each["tool"]["driver"]
        assert driver["name"]
        ids = [rule["id"] for rule in driver["rules"]]
        assert len(set(ids)) == len(ids)
        for rule in driver["rules"]:
            assert rule["shortDescription"]["text"]
            assert rule["fullDescription"]["text"]
            assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        for result in each["results"]:
            assert result["message"]["text"]
            assert result["level"] in ("none", "note", "warning", "error")
            assert ids[result["ruleIndex"]] == result["ruleId"]
            assert all(isinstance(v, str) for v in result["partialFingerprints"].values())
            for location in result["locations"]:
                physical = location["physicalLocation"]
                assert physical["region"]["startLine"] >= 1
                assert " " not in physical["artifactLocation"]["uri"]
                assert all(each["name"] for each in location.get("logicalLocations", ()))


def test_sarif_points_at_the_authors_line_and_else_at_the_models_file(run, tmp_path):
    det(tmp_path, "my model.onnx")
    save(CASES["float64 io"](), tmp_path / "doubles.onnx")
    said = run("check", "my model.onnx", "--target", "trt", "--sarif", "a.sarif")
    assert (said.code, "wrote a.sarif" in said.err) == (1, True)
    log = json.loads((tmp_path / "a.sarif").read_text())
    assert_sarif(log)
    (result,) = log["runs"][0]["results"]
    place = result["locations"][0]
    assert place["physicalLocation"] == {"artifactLocation": {"uri": "net.py"}, "region": {"startLine": 7}}
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "n_y.else_branch/det_in_else (Det)"
    run("check", "doubles.onnx", "--target", "trt", "--sarif", "b.sarif")
    log = json.loads((tmp_path / "b.sarif").read_text())
    assert_sarif(log)
    first = log["runs"][0]["results"][0]["locations"][0]
    assert first["physicalLocation"]["artifactLocation"]["uri"] == "doubles.onnx"
    assert first["logicalLocations"] == [{"name": "x", "fullyQualifiedName": "x", "kind": "variable"}]
    assert log["runs"][0]["properties"]["leftOut"] == 0
    assert MOST_RESULTS <= 25_000


def test_an_unwritable_report_is_refused_before_the_work(run, tmp_path):
    det(tmp_path)
    said = run("check", "m.onnx", "--target", "trt", "--sarif", "nowhere/a.sarif")
    assert (said.code, said.out) == (2, "")
    assert "GK211" in said.err


# --- GitHub, explain ----------------------------------------------------------------------------------------------


def test_github_is_given_the_line_and_one_summary(run, tmp_path):
    det(tmp_path)
    first, last = run("check", "m.onnx", "--target", "trt", "--github", "-q").err.splitlines()
    assert first.startswith("::error file=net.py,line=7,title=GKC101 the target has no such operator::TensorRT has no")
    assert last.startswith("::error title=graphkit check::parser: not run")
    save(CASES["gelu"](), tmp_path / "m.onnx")
    (only,) = run("check", "m.onnx", "--target", "ort", "--github", "-q").err.splitlines()
    assert only.startswith("::notice title=graphkit check::m.onnx: ONNX Runtime will load it")


@pytest.mark.parametrize("code", [rule.code for rule in rules()])
def test_every_code_is_explained_without_a_model(run, code):
    said = run("check", "--explain", code.lower())
    assert said.code == 0
    assert said.out.startswith(f"{code} (")
    assert "\n\ntry: " in said.out


def test_an_explanation_can_be_json(run):
    told = json.loads(run("check", "--explain", "GKC131", "--json").out)
    assert (told["schema"], told["code"], told["seen_by"]) == ("graphkit.check-rule/1", "GKC131", "builder")


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--target", "trt"], "MODEL is missing"),
        (["m.onnx"], "--target is missing"),
        (["m.onnx", "--target", "tpu"], "tpu"),
        (["m.onnx", "--target", "trt", "--select", "E5"], "no rule's code begins with 'E5'"),
        (["m.onnx", "--target", "trt", "--cc", "9.9"], "no compute capability '9.9'"),
        (["m.onnx", "--target", "trt", "--cc", "8.6,8.6"], "named twice"),
        (["m.onnx", "--target", "ort", "--cc", "8.6"], "--cc means nothing"),
        (["--explain", "GKC999"], "no rule has the code 'GKC999'"),
        (["gone.onnx", "--target", "trt"], "no such file"),
    ],
)
def test_a_bad_request_is_refused(run, tmp_path, args, said):
    save(CASES["relu"](), tmp_path / "m.onnx")
    told = run("check", *args)
    assert (told.code, told.out) == (2, "")
    assert said in told.err


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("empty.onnx", "GK202"),
        ("html.onnx", "GK202"),
        ("lfs_pointer.onnx", "GK202"),
        ("random.onnx", "GK202"),
        ("truncated.onnx", "GK203"),
        ("directory.pt", "GK202"),
    ],
)
def test_a_file_that_is_no_model_is_refused(run, tmp_path, file, code):
    write(file, tmp_path, tmp_path / "canary")
    told = run("check", file, "--target", "trt")
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(f"error[{code}]")
    assert json.loads(run("check", file, "--target", "trt", "--json").out)["error"]["code"] == code


@pytest.mark.parametrize("file", ["outside/external_data.onnx", "outside/external_data_link.onnx"])
def test_weights_outside_the_folder_are_never_read(run, tmp_path, file):
    write(file, tmp_path, tmp_path / "canary")
    told = run("check", file, "--target", "ort")
    assert (told.code, told.out) == (2, "")
    assert "GK217" in told.err
