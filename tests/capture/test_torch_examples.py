"""Ordinary architectures: every dynamic dimension keeps its name, the numbers hold at both ends of its range, and nodes
know the line they come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from fixtures.torch_models import EXAMPLES, Example
from graphkit.model import Model, provenance
from graphkit.shapes import TensorSpec, evaluate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", params=EXAMPLES.values(), ids=list(EXAMPLES))
def converted(request, captured) -> tuple[Example, Any, Model]:
    example: Example = request.param
    shapes = {n: TensorSpec(n, "int64" if n in example.below else "float32", s) for n, s in example.shapes.items()}
    module = example.factory()
    return example, module, captured(module, shapes, example.dims)


def test_inputs_have_the_names_types_and_dimensions_that_were_asked(converted):
    example, _, model = converted
    assert {t.name: t.shape for t in model.signature.inputs} == dict(example.shapes)
    assert {t.name for t in model.signature.inputs if t.dtype == "int64"} == set(example.below)
    assert [(d.symbol, d.min, d.opt, d.max) for d in model.dims] == [(s, *r) for s, r in example.dims.items()]


@pytest.mark.parametrize("end", [0, 1, 2], ids=["min", "opt", "max"])
def test_numbers_and_declared_output_shapes_hold(converted, onnx_run, end):
    example, module, model = converted
    sizes = {symbol: bounds[end] for symbol, bounds in example.dims.items()}
    inputs = example.sample(seed=end + 5, **sizes)
    with torch.no_grad():
        wanted = [v.numpy() for v in tree_leaves(module(**inputs))]
    found = onnx_run(model, **inputs)
    assert len(found) == len(wanted) == example.outputs
    for spec, want in zip(model.signature.outputs, wanted, strict=True):
        np.testing.assert_allclose(found[spec.name], want, atol=2e-5, rtol=1e-4)
        assert found[spec.name].dtype == want.dtype == np.dtype(spec.dtype)
        assert tuple(evaluate(d, sizes) for d in spec.shape) == want.shape


def test_outputs_speak_of_the_inputs_dimensions_only(converted):
    example, _, model = converted
    sizes = dict.fromkeys(example.dims, 7)
    outputs = [d for t in model.signature.outputs for d in t.shape]
    assert all(evaluate(d, sizes) is not None for d in outputs), model.signature
    assert any("batch" in str(d) for d in outputs)


def test_most_nodes_know_the_line_they_come_from(converted):
    example, _, model = converted
    nodes = [n for n in model.ir.graph.all_nodes() if n.op_type != "Constant"]
    known = [n for n in nodes if provenance(n)]
    assert len(known) >= 0.8 * len(nodes)
    if example.name == "mlp":  # stock layers only: the paths of the modules are all there is to say
        assert {line.module for n in known for line in provenance(n)} >= {"0", "2", "4"}
        return
    own = [n for n in known if any(str(s.file).endswith("fixtures/torch_models.py") for s in provenance(n))]
    assert len(own) >= 0.6 * len(nodes)
    assert not any(str(line.file).startswith("/") for n in known for line in provenance(n))


def test_a_path_of_a_module_is_one_of_the_models(converted):
    _, module, model = converted
    paths = {name for name, _ in module.named_modules()}
    found = {line.module for n in model.ir.graph.all_nodes() for line in provenance(n)}
    assert found <= paths
    assert len(found) > 1 or len(paths) < 4


def test_the_origin_tells_how_it_was_captured(converted):
    _, module, model = converted
    assert model.origin.kind == "torch module"
    assert model.origin.name == type(module).__name__
    assert model.origin.versions["torch"].startswith(torch.__version__.partition("+")[0])
    assert model.origin.rungs[-1].failure is None
    assert set(model.origin.sizes) == set(model.signature.symbols)
