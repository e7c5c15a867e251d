"""The Q/DQ lint on models that graphkit quantised, and on those of onnxruntime's quantiser as it is by default."""

from __future__ import annotations

import onnx
import pytest

import graphkit as gk
from fixtures.precision_models import QUANT_MODELS, residual
from graphkit.precision import int4, quantize
from tests.precision.quantised import model, samples


def findings(path, prefix: str = "GKC") -> dict[str, list[str]]:
    from graphkit import view
    from graphkit.support.rule import rules
    from graphkit.support.scene import Scene

    scene = Scene(view.read(path), "rtx", ("8.9",))
    found = {rule.code: [hit.message for hit in rule.find(scene)] for rule in rules() if rule.code.startswith(prefix)}
    return {code: messages for code, messages in found.items() if messages}


QUANTISATION = ("GKC14", "GKC34")


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("name", QUANT_MODELS)
def test_what_graphkit_quantises_is_clean(name, kind, tmp_path):
    source = model(QUANT_MODELS[name]())
    lowered = quantize.lower(source, kind, samples(source))
    (path,) = lowered.model.save(tmp_path / "m.onnx")
    found = {code: messages for prefix in QUANTISATION for code, messages in findings(path, prefix).items()}
    if name == "vit":  # attention itself is not quantised, and that is told
        assert found == {"GKC345": ["14 of 18 layers are quantised (77 %); the first that is not: `MatMul`"]}
    else:
        assert found == {}


def test_int4_weights_count_as_weight_only(tmp_path):
    (path,) = int4.lower(model(QUANT_MODELS["vit"]())).model.save(tmp_path / "m.onnx")
    found = {code: messages for prefix in QUANTISATION for code, messages in findings(path, prefix).items()}
    assert list(found) == ["GKC345"]
    assert found["GKC345"][0].startswith("13 of 18 layers are quantised (72 %), 13 by weight only")


def test_a_kept_layer_is_an_island(tmp_path):
    source = model(residual())
    lowered = quantize.prepare(source, "int8", samples(source)).lower(frozenset({"node.two.a", "node.stem"}))
    (path,) = lowered.model.save(tmp_path / "m.onnx")
    assert findings(path, "GKC342") == {"GKC342": ["`Conv` runs in float between quantised layers"]}


def test_the_default_of_onnxruntime_is_refused_for_tensorrt(tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        rows = iter(samples(model(residual())))

        def get_next(self):
            return next(self.rows, None)

    onnx.save(residual(), tmp_path / "m.onnx")
    quantize_static(tmp_path / "m.onnx", tmp_path / "q.onnx", Reader())
    found = findings(tmp_path / "q.onnx", "GKC14")
    assert any("zero point" in m for m in found["GKC141"])
    assert "`DequantizeLinear` of int32, as ONNX Runtime writes a quantised bias" in found["GKC142"]


def test_a_model_with_pairs_beside_its_layers_does_not_pass_check(tmp_path):
    from tests.support import quantised

    onnx.save(quantised.beside(), tmp_path / "m.onnx")
    result = gk.check(tmp_path / "m.onnx", "rtx")
    assert result.answer == "no"
    (error,) = result.errors
    assert error.code == "GKC143"
    assert error.message == "2 Q/DQ nodes, and none of 1 layers reads through them"
