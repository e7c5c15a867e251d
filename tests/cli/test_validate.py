"""`graphkit validate`: the exit code is the verdict, and every report is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from junitparser import JUnitXml
from onnx import numpy_helper

import graphkit as gk
from fixtures.torch_models import EXAMPLES, two_inputs
from tests.test_comparison import OFF, SourceLine, write
from tests.test_comparison_engines import engine


@pytest.fixture
def here(run, tmp_path) -> Path:
    """The working directory, with a good and a bad copy of `ref.onnx`."""
    write(tmp_path / "ref.onnx")
    write(tmp_path / "good.onnx")
    write(tmp_path / "bad.onnx", line=SourceLine("head", "net.py", 12, "forward"), w=OFF)
    return tmp_path


def test_equal_models_end_with_0(run, here):
    said = run("validate", "ref.onnx", "good.onnx", "--dim", "batch=1:4:8", "-q")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("parity: pass against ref.onnx: onnxruntime ")


def test_a_difference_ends_with_1_and_writes_every_report(run, here):
    reports = ("--junit", "j.xml", "--markdown", "m.md", "--github")
    said = run("validate", "ref.onnx", "good.onnx", "bad.onnx", "-q", *reports)
    assert said.code == 1
    assert "::error file=net.py,line=12," in said.err
    assert "error[GK112]" in said.err
    assert "net.py:12" in said.out
    assert JUnitXml.fromfile("j.xml").failures > 0
    assert Path("m.md").read_text().startswith("### graphkit validate: fail\n")


def test_the_reports_are_the_same_bytes_again(run, here):
    found = []
    for _ in range(2):
        out = run("validate", "ref.onnx", "bad.onnx", "-q", "--junit", "j.xml", "--markdown", "m.md", "--json").out
        found.append((out, Path("j.xml").read_bytes(), Path("m.md").read_bytes()))
    assert found[0] == found[1]


def test_json_is_strict_whatever_the_outcome(run, here):
    outcomes = {"good.onnx": ("pass", 0), "bad.onnx": ("fail", 1), "none.onnx": ("error", 2)}
    for name, (status, code) in outcomes.items():
        said = run("validate", "ref.onnx", name, "--json", "-q")
        data = json.loads(said.out, parse_constant=pytest.fail)
        assert (said.code, data["schema"], data["status"]) == (code, "graphkit.validate/1", status)
        assert (data["error"] is None) == (code == 0)


def test_an_engine_without_a_gpu_ends_with_3(run, here, monkeypatch):
    from graphkit.engine import builder

    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    engine(here)
    said = run("validate", "ref.onnx", "m.engine", "-q")
    assert said.code == 3
    assert "engine: not run (no CUDA device)" in said.out
    assert "error[GK302]: 4 of" in said.err or "error[GK302]: 3 of" in said.err


def test_other_signatures_end_with_2_and_name_both(run, here):
    write(here / "two.onnx", "g (float[n, 6] x, float[6] c) => (float[n, 6] y) { h = MatMul(x, w) y = Add(h, c) }")
    said = run("validate", "ref.onnx", "two.onnx", "-q")
    assert said.code == 2
    assert "error[GK207]" in said.err
    assert "two.onnx: x: float32[n, 6], c: float32[6]" in said.err


def test_tolerances_and_metrics_decide(run, here):
    assert run("validate", "ref.onnx", "bad.onnx", "-q", "--atol", "1", "--rtol", "p=1").code == 0
    assert run("validate", "ref.onnx", "bad.onnx", "-q", "--atol", "1", "--metric", "y:snr>=300").code == 1
    said = run("validate", "ref.onnx", "bad.onnx", "-q", "--atol", "1")
    assert "tolerance  float32: 1 + 0.001 * |expected|" in said.out


@pytest.mark.parametrize(
    "options",
    [
        ("--metric", "psnr>=3"),
        ("--metric", "snr<=3"),
        ("--rtol", "much"),
        ("--atol", "-1"),
        ("--atol", "nan"),
        ("--atol", "1", "--atol", "2"),
        ("--input", "x=1", "--input", "in.npz"),
        ("--input", "in.npz", "--data", "m:f"),
        ("--submodule", "head"),
        ("--certificate", "c.json"),
        ("--shape", "x=batch,6", "--shape", "x=n,6"),
    ],
)
def test_malformed_and_contradicting_options_are_refused(options, run, here):
    said = run("validate", "ref.onnx", "good.onnx", "-q", *options)
    assert said.code == 2
    assert "error[GK212]" in said.err


def test_one_model_is_nothing_to_compare(run, here):
    assert "at least two models" in run("validate", "ref.onnx").err


def test_inputs_are_saved_read_and_generated(run, here):
    assert run("validate", "ref.onnx", "good.onnx", "-q", "--save-inputs", "in.npz").code == 0
    said = run("validate", "ref.onnx", "good.onnx", "-q", "--input", "in.npz")
    assert "3 given sets of inputs" in said.out
    np.save("x.npy", np.ones((2, 6), np.float32))
    assert "shapes     batch=2\n" in run("validate", "ref.onnx", "good.onnx", "-q", "--input", "x=x.npy").out
    Path("gk_cli_feed.py").write_text("import numpy as np\ndef f():\n    yield {'x': np.ones((3, 6), 'float32')}\n")
    assert "1 given set of inputs" in run("validate", "ref.onnx", "good.onnx", "-q", "--data", "gk_cli_feed:f").out


def test_a_configuration_file_cannot_name_code_or_files(run, here):
    for key in ("data", "junit", "markdown", "save-inputs", "save-certificate", "certificate", "trust"):
        Path("graphkit.toml").write_text(f'[validate]\n{key} = "x"\n')
        said = run("validate", "ref.onnx", "good.onnx")
        assert said.code == 2
        assert "cannot be set in a configuration file" in said.err


def test_a_certificate_is_read_again(run, here):
    assert run("validate", "ref.onnx", "good.onnx", "-q", "--save-certificate", "c.json").code == 0
    assert json.loads(Path("c.json").read_text())["schema"] == "graphkit.parity/1"
    said = run("validate", "--certificate", "c.json")
    assert (said.code, said.out) == (0, "c.json: parity pass\n  ref.onnx   same\n  good.onnx  same\n")
    Path("good.onnx").write_bytes(Path("bad.onnx").read_bytes())
    said = run("validate", "--certificate", "c.json", "--json")
    assert (said.code, json.loads(said.out)["files"]) == (1, {"ref.onnx": "same", "good.onnx": "changed"})
    Path("good.onnx").unlink()
    assert run("validate", "--certificate", "c.json").code == 2
    assert run("validate", "--certificate", "none.json").code == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_conversion_is_validated_and_a_fault_in_it_is_found_at_its_line(run, here):
    example = EXAMPLES["two_inputs"]
    gk.convert(two_inputs(), output="two.onnx", shapes=example.shapes, dims=example.dims)
    assert run("validate", "fixtures.torch_models:two_inputs", "two.onnx", "-q").code == 0
    assert run("validate", "--certificate", "two.onnx.parity.json").code == 0
    proto = onnx.load("two.onnx")
    weight = max(proto.graph.initializer, key=lambda t: np.prod(t.dims))
    values = numpy_helper.to_array(weight).copy()
    values.flat[7] += np.abs(values).max()
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(proto, "two.onnx")
    said = run("validate", "fixtures.torch_models:two_inputs", "two.onnx", "-q", "--github")
    assert said.code == 1
    assert "::error file=" in said.err
    assert "torch_models.py,line=" in said.err
    assert run("validate", "--certificate", "two.onnx.parity.json").code == 1


@pytest.mark.slow
def test_a_saved_model_folder_is_compared_and_certified_file_by_file(run, tmp_path):
    """One that was trained further is another model."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="scores")(keras.layers.Dense(4, activation="tanh")(x)))
    model.export(str(tmp_path / "elsewhere" / "saved_model_dir"), verbose=False)
    source, kept = str(tmp_path / "elsewhere" / "saved_model_dir"), tmp_path / "out" / "model.parity.json"
    kept.parent.mkdir()
    gk.convert(source, output=kept.with_name("model.onnx"))
    said = run("validate", source, "out/model.onnx", "-q", "--json", "--save-certificate", str(kept))
    assert said.code == 0
    report = json.loads(said.out)["parity"]
    assert report["comparisons"][0]["reference"].startswith("saved_model_dir: tensorflow ")
    assert "saved_model_dir/variables/variables.index" in report["files"]
    assert ("tensorflow" in report["versions"], "torch" in report["versions"]) == (True, False)
    files = json.loads(kept.read_text())["files"]
    assert {"model.onnx", "source: saved_model_dir/saved_model.pb"} <= set(files)
    assert run("validate", "--certificate", str(kept)).code == 0
    model.layers[1].set_weights([1.1 * w for w in model.layers[1].get_weights()])
    model.export(source, verbose=False)
    said = run("validate", source, "out/model.onnx", "-q")
    assert (said.code, "GK112" in said.err) == (1, True)
    assert said.out.startswith("parity: fail against saved_model_dir: tensorflow ")
