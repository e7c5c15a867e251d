"""The bank: every planted miscompile is flagged by `validate` and named by `locate`; good conversions pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx import version_converter

import graphkit as gk
from fixtures.miscompiles import MISCOMPILES, gate
from fixtures.torch_models import EXAMPLES
from graphkit.capture.request import CaptureRequest
from graphkit.comparison import ValidateRequest, status_of, validate
from graphkit.location import locate
from graphkit.model import load
from graphkit.parity.divergence import Location
from graphkit.parity.verdict import ParityReport
from graphkit.request import as_ranges
from graphkit.rewrite.simplify import simplify
from graphkit.shapes import TensorSpec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@dataclass(frozen=True)
class Answer:
    report: ParityReport
    location: Location
    nodes: tuple[str, ...]  # that is wrong, and those that read what it makes


def request_of(name: str, via: str | None = None) -> CaptureRequest:
    example = EXAMPLES[name]
    shapes = tuple(TensorSpec(n, "int64" if n in example.below else None, s) for n, s in example.shapes.items())
    return CaptureRequest(shapes=shapes, dims=as_ranges(example.dims), via=via)


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict[str, Path]:
    """Every example as graphkit captures it, by its name; and `gate`."""
    folder = tmp_path_factory.mktemp("exports")
    made = {name: folder / f"{name}.onnx" for name in (*EXAMPLES, "gate")}
    for name in EXAMPLES:
        gk.capture_model(EXAMPLES[name].factory(), request_of(name)).save(made[name], durable=False)
    onnx.save(gate(), made["gate"])
    return made


# --- faults ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers(exports) -> dict[str, Answer]:
    found = {}
    for fault in MISCOMPILES:
        reference = exports[fault.fixture]
        broken, wrong = fault.inject(onnx.load(reference))
        target = reference.with_name(f"{fault.name}.onnx")
        onnx.save(broken, target)
        made = {o for n in broken.graph.node if n.name == wrong for o in n.output}
        readers = (n.name for n in broken.graph.node if made & set(n.input))
        found[fault.name] = Answer(validate(reference, [target]), locate(reference, target), (wrong, *readers))
    return found


def test_the_bank_holds_at_least_twenty_different_faults():
    assert len({m.name for m in MISCOMPILES}) == len({m.plant for m in MISCOMPILES}) == len(MISCOMPILES) >= 20


@pytest.mark.parametrize("name", [m.name for m in MISCOMPILES])
def test_a_planted_fault_is_flagged(name, answers):
    assert status_of(answers[name].report) == "fail"
    assert answers[name].location.status == "located"
    assert answers[name].location.divergence.error > 1


def test_all_but_two_are_named(answers):
    missed = {n: a.location.divergence.node for n, a in answers.items() if a.location.divergence.node not in a.nodes}
    assert len(missed) <= 2, missed


def test_a_planted_fault_is_named_with_the_users_line_its_weight_or_its_attribute(answers):
    line = answers["weight_off"].location.source[0]
    assert (Path(line.file).name, line.module) == ("torch_models.py", "layers.layers.1.self_attn")
    assert len(answers["weight_off"].location.weights) == 1
    assert answers["weight_off"].location.weights[0].max_abs > 0
    assert ("epsilon", "0.01") in {(d.what, d.candidate) for d in answers["epsilon_off"].location.differences}
    assert [d.what for d in answers["sub_swapped"].location.differences] == ["inputs"]
    assert [(d.reference, d.candidate) for d in answers["relu_dropped"].location.differences] == [("Relu", "Identity")]
    assert "NaN" in answers["exp_by_log"].location.reason


def test_a_module_is_captured_and_located_against(exports, answers):
    example = EXAMPLES["mlp"]
    assert locate(example.factory(), exports["mlp"]).status == "equal"
    location = locate(example.factory(), exports["mlp"].with_name("bias_dropped.onnx"))
    assert location.divergence.node in answers["bias_dropped"].nodes
    assert location.reference.startswith("Sequential, captured")


# --- good conversions --------------------------------------------------------------------------------------------


def onnxsim(path: Path, target: Path) -> None:
    simplify(load(path)).save(target, durable=False)


def offline_basic(path: Path, target: Path) -> None:
    """What ONNX Runtime writes after its basic optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def newer_opset(path: Path, target: Path) -> None:
    proto = onnx.load(path)
    onnx.save(version_converter.convert_version(proto, proto.opset_import[0].version + 2), target)


def onnxscript_optimizer(path: Path, target: Path) -> None:
    from onnxscript import optimizer

    onnx.save(optimizer.optimize(onnx.load(path)), target)


REWRITES = (onnxsim, offline_basic, newer_opset, onnxscript_optimizer)
LEAST = 50
OTHER_WAY = {"transformer_encoder": "export"}  # TorchScript keeps a prim::is_nested, which has no ONNX form


def test_fifty_good_conversions_raise_no_alarm(exports, tmp_path):
    """Rewrites of each export, the module itself, and what TorchScript makes of it."""
    good, alarms = 0, {}
    for name, path in exports.items():
        candidates = []
        for rewrite in REWRITES:
            candidates.append(tmp_path / f"{name}.{rewrite.__name__}.onnx")
            rewrite(path, candidates[-1])
        report = validate(path, candidates)
        if name in EXAMPLES:
            module, asked = EXAMPLES[name].factory(), request_of(name)
            scripted = gk.capture_model(module, request_of(name, via=OTHER_WAY.get(name, "script")))
            reports = (report, validate(module, [path, scripted], ValidateRequest(dims=asked.dims)))
        else:
            reports = (report,)
        for each in reports:
            for candidate in dict.fromkeys(c.candidate for c in each.comparisons):
                good += 1
                bad = [c.reason for c in each.comparisons if c.candidate == candidate and c.status != "pass"]
                if bad:
                    alarms[name, candidate] = bad[0]
    assert not alarms
    assert good >= LEAST


def test_locate_raises_no_alarm_on_what_onnxsim_made_of_them(exports):
    for name in sorted({m.fixture for m in MISCOMPILES}):
        simplified = exports[name].with_name(f"{name}.simplified.onnx")
        onnxsim(exports[name], simplified)
        location = locate(exports[name], simplified)
        assert location.status == "equal", (name, location.reason)
        assert len(location.shapes) >= 3
