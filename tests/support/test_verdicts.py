"""What `check` answers is what TensorRT-RTX then does: on a table of small models, and on real files."""

from __future__ import annotations

import functools

import pytest

from fixtures.fetch import MANIFEST, fetch
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.engine.builder import BuildRequest
from graphkit.engine.rtx import RtxBuilder
from graphkit.errors import BadRequest, GraphkitError
from graphkit.shapes import DimRange
from graphkit.support.check import CheckRequest, check
from tests.support.models import CASES, save

pytest.importorskip("tensorrt_rtx")

STATIC_ENOUGH = set(CASES) - {"stft", "nonzero", "nonzero inside", "nms", "reshape rank"}
"""Where TensorRT-RTX's parser and the rules for it agree; the others need its word, or have no plugin there alone."""


@functools.cache
def verdicts(name: str, folder) -> tuple[object, str]:
    """What check says of a case, and what the builder does: `yes` or `no`."""
    path = save(CASES[name](), folder / f"{name}.onnx")
    model = recognise(path, CaptureRequest()).capture(CaptureRequest())
    dims = tuple(DimRange(s, 1, 2, 4) for s in model.signature.symbols)
    result = check(path, CheckRequest("rtx", CaptureRequest(dims=dims)))
    try:
        RtxBuilder().build(BuildRequest(model, dims), folder / f"{name}.engine", durable=False)
    except GraphkitError:
        return result, "no"
    return result, "yes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("verdicts")


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_what_the_builder_does(name, folder):
    result, built = verdicts(name, folder)
    assert result.answer == built
    assert result.static is False
    assert {a.who: a.ran for a in result.asked}["parser"]
    for finding in result.errors:
        assert finding.node is not None or finding.value is not None


@pytest.mark.parametrize("name", sorted(STATIC_ENOUGH))
def test_the_rules_alone_say_the_same(name, folder, monkeypatch):
    from graphkit.errors import ExtraMissing
    from graphkit.support import parser

    monkeypatch.setattr(parser, "lack", lambda target: ExtraMissing("it is not installed"))
    result = check(save(CASES[name](), folder / "static.onnx"), "rtx")
    assert (result.static, result.exit_code) == (True, 3)
    assert result.answer == verdicts(name, folder)[1]


def test_the_table_has_both_answers(folder):
    answers = [verdicts(name, folder)[1] for name in CASES]
    assert answers.count("yes") > 30
    assert answers.count("no") > 30


# --- real files --------------------------------------------------------------------------------------------------

SIZES = {
    "silero": dict.fromkeys(("batch", "state_dim1"), (1, 2, 4))
    | dict.fromkeys(("input_dim1", "sequence"), (576, 576, 576))
    | {"sequence_length": (1, 4, 16)},
    "rapidocr": {"batch": (1, 2, 4), "x_dim2": (48, 48, 48), "x_dim3": (96, 192, 320)},
}
DETECTOR = {"batch": (1, 1, 1), "x_dim2": (64, 96, 128), "x_dim3": (64, 96, 128)}
FILES = [
    (name, member.name)
    for name in ("silero", "rapidocr")
    for member in MANIFEST[name].members
    if ".onnx" in member.name
]
REFUSED = {
    "silero_vad.onnx": ["If_0"],
    "silero_vad_half.onnx": ["/decoder/If_1"],
    "silero_vad_16k_op15.onnx": ["/model/decoder/If_1"],
}
"""The nodes at which TensorRT-RTX 1.7.1's builder fails, of models that its parser takes whole: branches that nest."""


@pytest.mark.slow
@pytest.mark.parametrize(("package", "file"), FILES, ids=[file for _, file in FILES])
def test_the_answer_for_a_real_file_is_what_the_builder_does(package, file, tmp_path):
    path = fetch(package) / file
    model = recognise(path, CaptureRequest()).capture(CaptureRequest())
    sizes = DETECTOR if "det" in file else SIZES[package]
    dims = tuple(DimRange(s, *sizes[s]) for s in model.signature.symbols)
    result = check(path, CheckRequest("rtx", CaptureRequest(dims=dims)))
    try:
        RtxBuilder().build(BuildRequest(model, dims), tmp_path / "m.engine", durable=False)
        built = "yes"
    except GraphkitError:
        built = "no"
    assert result.answer == built
    assert [f.node.name for f in result.errors if f.node is not None] == REFUSED.get(file, [])
    assert check(path, "ort").answer == "yes"


@pytest.mark.slow
def test_branches_need_sizes_before_the_builder_can_be_asked():
    with pytest.raises(BadRequest, match="range for dimension") as raised:
        check(fetch("silero") / "silero_vad_half.onnx", "rtx")
    assert "--dim sequence" in raised.value.remedy
