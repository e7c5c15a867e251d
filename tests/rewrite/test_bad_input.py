"""Graphs that are odd, or wrong: rewritten right, left alone, or refused with a code; never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphkit.errors import CorruptFile, GraphkitError
from graphkit.optimization import optimize
from tests.rewrite.support import assert_same, operators, optimised

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def _x(name: str = "x", shape: list[int | str] | None = None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, ["b", 3] if shape is None else shape)


def _any(name: str, dtype: int = FLOAT, rank: int | None = None) -> onnx.ValueInfoProto:
    """Of any sizes: a matrix of numbers, or one bool or string."""
    known = rank if rank is not None else 2 if dtype == FLOAT else 0
    return helper.make_tensor_value_info(name, dtype, [None] * known)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    held: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    ir_version: int = 8,
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    constants = [numpy_helper.from_array(array, name) for name, array in (held or {}).items()]
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(nodes, "odd", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def _rows() -> dict[str, np.ndarray]:
    return {"x": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}


# --- odd, and right ------------------------------------------------------------------------------------------------


def _captured() -> onnx.ModelProto:
    """Both branches read an outer value, and give their results the same names."""
    branches = [
        helper.make_graph([helper.make_node(op, ["h"], ["r"])], op, [], [_any("r")]) for op in ("Identity", "Neg")
    ]
    nodes = [
        helper.make_node("Abs", ["x"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    return _model(nodes, [_x()], [_any("y")], {"zero": np.float32(0)})


def _shadowed() -> onnx.ModelProto:
    """Inner nodes of one name, and bodies whose values have the same names."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["a", "x"], ["r"], name="same_inside")],
        "body",
        [helper.make_tensor_value_info("i", INT64, []), _any("c", TensorProto.BOOL), _any("a")],
        [_any("d", TensorProto.BOOL), _any("r")],
    )
    nodes = [
        helper.make_node("Loop", ["n", "go", "x"], ["p"], name="same", body=body),
        helper.make_node("Loop", ["n", "go", "p"], ["y"], name="other", body=body),
    ]
    return _model(nodes, [_x()], [_any("y")], {"n": np.int64(2), "go": np.bool_(True)})


def _unknown_rank() -> onnx.ModelProto:
    """The rank depends on a value: its shape is an input's elements."""
    nodes = [
        helper.make_node("Reshape", ["x", "sizes"], ["a"]),
        helper.make_node("Transpose", ["a"], ["t"]),
        helper.make_node("Transpose", ["t"], ["u"]),
        helper.make_node("Add", ["u", "zero"], ["y"]),
    ]
    sizes = _x("sizes", ["rank"], INT64)
    return _model(nodes, [_x(), sizes], [_any("y", rank=3)], {"zero": np.zeros(1, np.float32)})


def _left_out() -> onnx.ModelProto:
    """Optional inputs that are left out in the middle: Clip without a minimum, Resize without a region."""
    nodes = [
        helper.make_node("Clip", ["x", "", "top"], ["c"]),
        helper.make_node("Clip", ["c", "", ""], ["d"]),
        helper.make_node("Resize", ["d", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    held = {"top": np.float32(0.5), "sizes": np.array([4, 6], np.int64)}
    return _model(nodes, [_x(shape=[2, 3])], [_any("y")], held)


def _sequence() -> onnx.ModelProto:
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"]),
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("ConcatFromSequence", ["t"], ["y"], axis=0),
    ]
    return _model(nodes, [_x()], [_any("y")])


def _optional() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Optional", ["x"], ["o"]),
        helper.make_node("OptionalHasElement", ["o"], ["has"]),
        helper.make_node("OptionalGetElement", ["o"], ["y"]),
    ]
    return _model(nodes, [_x()], [_any("y"), _any("has", TensorProto.BOOL)])


def _sparse_constant() -> onnx.ModelProto:
    values = numpy_helper.from_array(np.array([1.5], np.float32), "v")
    indices = numpy_helper.from_array(np.array([1], np.int64), "i")
    tensor = helper.make_sparse_tensor(values, indices, [3])
    nodes = [helper.make_node("Constant", [], ["w"], sparse_value=tensor), helper.make_node("Add", ["x", "w"], ["y"])]
    return _model(nodes, [_x()], [_any("y")])


def _strings() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Identity", ["words"], ["w"]),
        helper.make_node("Gather", ["w", "at"], ["word"]),
        helper.make_node("Neg", ["x"], ["y"]),
    ]
    held = {"words": np.array(["a", "b"], object), "at": np.int64(1)}
    return _model(nodes, [_x()], [_any("y"), _any("word", TensorProto.STRING)], held)


def _nothing_in_it() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Concat", ["x", "none"], ["c"], axis=0),
        helper.make_node("Slice", ["c", "start", "start"], ["empty"]),
        helper.make_node("ReduceSum", ["empty", "axes"], ["y"]),
    ]
    held = {"none": np.zeros((0, 3), np.float32), "start": np.array([1], np.int64), "axes": np.array([0], np.int64)}
    return _model(nodes, [_x()], [_any("y")], held)


def _through() -> onnx.ModelProto:
    """Outputs that are an input, an initializer, and the same value twice under two names."""
    nodes = [helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Identity", ["x"], ["again"])]
    return _model(nodes, [_x()], [_x(), _x("w", [3]), _any("same"), _any("again")], {"w": np.ones(3, np.float32)})


def _old() -> onnx.ModelProto:
    """IR version 3: initializers are inputs too."""
    nodes = [helper.make_node("Add", ["x", "w"], ["a"]), helper.make_node("Identity", ["a"], ["y"])]
    held = {"w": np.ones(3, np.float32)}
    return _model(nodes, [_x(), _x("w", [3])], [_any("y")], held, opset=8, ir_version=3)


def _function() -> onnx.ModelProto:
    """Two functions, one calling the other; one has an input that nobody gives."""
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    inner = helper.make_function("own", "Inner", ["a"], ["r"], [helper.make_node("Neg", ["a"], ["r"])], opset)
    calls = [helper.make_node("Inner", ["a"], ["n"], domain="own"), helper.make_node("Clip", ["n", "low"], ["r"])]
    outer = helper.make_function("own", "Outer", ["a", "low"], ["r"], calls, opset)
    model = _model([helper.make_node("Outer", ["x"], ["y"], domain="own")], [_x()], [_any("y")], domains=("own",))
    model.functions.extend([inner, outer])
    return model


def _with_default() -> onnx.ModelProto:
    """An initializer that a caller may replace is not a constant."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    return _model(nodes, [_x(), _x("w", [3])], [_any("y")], {"w": np.ones(3, np.float32)})


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize(
    "build",
    [
        _captured, _shadowed, _unknown_rank, _left_out, _sequence, _optional, _strings,
        _nothing_in_it, _through, _old, _function, _with_default,
    ],
)  # fmt: skip
def test_odd_models_compute_the_same(build: Callable[[], onnx.ModelProto], level: int) -> None:
    before = build()
    onnx.checker.check_model(before)
    feeds = _rows()
    if build is _unknown_rank:
        feeds["sizes"] = np.array([3, 1, 2], np.int64)
    after, _ = optimised(before, level=level)
    assert_same(before, after, feeds)
    if build is _with_default:
        assert_same(before, after, feeds | {"w": np.array([2, 3, 4], np.float32)})


# --- opaque --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Relu", "Unheard"])
def test_nodes_of_other_domains_are_kept(op: str) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node(op, ["a"], ["b"], domain="custom", depth=3),
        helper.make_node(op, ["a"], ["c"], domain="custom", depth=3),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    after, _ = optimised(_model(nodes, [_x()], [_any("y")], domains=("custom",)))
    custom = [node for node in after.graph.node if node.domain == "custom"]
    assert [(n.op_type, n.input[0], n.attribute[0].i) for n in custom] == [(op, "x", 3), (op, "x", 3)]


def _map() -> onnx.ModelProto:
    given = helper.make_value_info("m", helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, [])))
    nodes = [helper.make_node("DictVectorizer", ["m"], ["y"], domain="ai.onnx.ml", int64_vocabulary=[1, 2])]
    return _model(nodes, [given], [_any("y")], domains=("ai.onnx.ml",))


@pytest.mark.parametrize("build", [_map, _sparse_constant])
def test_what_cannot_be_held_is_refused(tmp_path: Path, build: Callable[[], onnx.ModelProto]) -> None:
    """Maps and sparse constants: no graph comes out that lacks them."""
    path = tmp_path / "held.onnx"
    onnx.save(build(), path)
    with pytest.raises(GraphkitError) as caught:
        optimize(path, verify="none")
    assert caught.value.code


def test_an_empty_graph_stays_empty() -> None:
    after, changes = optimised(_model([], [], []))
    assert not after.graph.node
    assert not changes.done


def test_training_info_does_not_get_in_the_way() -> None:
    model = _model(
        [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])], [_x()], [_any("y")]
    )
    model.training_info.add().algorithm.name = "sgd"
    after, _ = optimised(model)
    assert operators(after) == {"Neg": 1}
    assert_same(model, after, _rows())


# --- wrong ---------------------------------------------------------------------------------------------------------


def _cycle() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    return _model(nodes, [_x()], [_any("a")])


def _dangling() -> onnx.ModelProto:
    return _model([helper.make_node("Add", ["x", "nowhere"], ["y"])], [_x()], [_any("y")])


def _unmade() -> onnx.ModelProto:
    return _model([helper.make_node("Neg", ["x"], ["a"])], [_x()], [_any("y")])


def _twice() -> onnx.ModelProto:
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])]
    return _model(nodes, [_x()], [_any("y")])


def _unheard() -> onnx.ModelProto:
    return _model([helper.make_node("Unheard", ["x"], ["y"])], [_x()], [_any("y")])


def _too_few() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x"], ["a"]), helper.make_node("Reshape", ["a"], ["y"])]
    return _model(nodes, [_x()], [_any("y")])


def _bad_attributes() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[5, 9]),
        helper.make_node("Concat", ["a", "a"], ["b"]),
        helper.make_node("Softmax", ["b"], ["y"], axis="last"),
    ]
    return _model(nodes, [_x()], [_any("y")])


def _calls_itself() -> onnx.ModelProto:
    call = [helper.make_node("F", ["a"], ["r"], domain="own")]
    model = _model([helper.make_node("F", ["x"], ["y"], domain="own")], [_x()], [_any("y")], domains=("own",))
    model.functions.append(helper.make_function("own", "F", ["a"], ["r"], call, [helper.make_opsetid("own", 1)]))
    return model


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize(
    "build",
    [_cycle, _dangling, _unmade, _twice, _unheard, _too_few, _bad_attributes, _calls_itself],
)
def test_invalid_models_are_refused_or_stay_invalid(
    tmp_path: Path, build: Callable[[], onnx.ModelProto], level: int
) -> None:
    """Nothing makes a valid graph out of one that is not, or ends with anything but an error with a code."""
    path = tmp_path / "wrong.onnx"
    path.write_bytes(build().SerializeToString())
    try:
        found = optimize(path, level=level, verify="none")
    except GraphkitError:
        return
    import onnx_ir as ir

    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        onnx.checker.check_model(ir.to_proto(found.model.ir), full_check=True)


def test_a_sparse_weight_is_refused_and_not_dropped(tmp_path: Path) -> None:
    """ONNX Runtime takes it; the graph that is rewritten cannot hold it."""
    model = _model([helper.make_node("Add", ["x", "w"], ["y"])], [_x(shape=[4])], [_any("y")])
    places = numpy_helper.from_array(np.array([0, 3]), "w_places")
    values = numpy_helper.from_array(np.array([1, 2], np.float32), "w")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    path = tmp_path / "sparse.onnx"
    onnx.save(model, path)
    with pytest.raises(CorruptFile, match="nothing makes"):
        optimize(path, verify="none")
