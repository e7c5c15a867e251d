"""The first passes: functions, constants and names in one form, and a newer opset that means the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir
import pytest

from graphkit.errors import CorruptFile, OpsetNotHonoured
from graphkit.rewrite.inlining import inline
from tests.rewrite.support import assert_same, operators, optimised, run

X = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)


def model(body: str, opset: int, *, ir_version: int = 8, inputs: str = "float[2,3,4,4] x") -> onnx.ModelProto:
    text = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> g ({inputs}) => (float[?] y) {{ {body} }}'
    made = onnx.parser.parse_model(text)
    made.graph.output[0].type.tensor_type.ClearField("shape")
    made = onnx.shape_inference.infer_shapes(made, data_prop=True)
    del made.graph.value_info[:]
    kind = made.graph.output[0].type.tensor_type
    if not kind.HasField("shape"):
        kind.shape.CopyFrom(made.graph.input[0].type.tensor_type.shape)
    return made


def opset_of(proto: onnx.ModelProto) -> int:
    return next(each.version for each in proto.opset_import if not each.domain)


OLD = {
    "softmax flattens": (9, "y = Softmax<axis=1>(x)", {"Flatten": 1, "Softmax": 1, "Shape": 0, "Reshape": 1}),
    "softmax of the last axis": (9, "y = Softmax<axis=3>(x)", {"Softmax": 1}),
    "log softmax with the old default": (11, "y = LogSoftmax(x)", {"LogSoftmax": 1, "Flatten": 1, "Reshape": 1}),
    "squeeze": (
        11,
        "a = Unsqueeze<axes=[0]>(x) b = Exp(a) y = Squeeze<axes=[0]>(b)",
        {"Unsqueeze": 1, "Exp": 1, "Squeeze": 1},
    ),
    "reduce": (11, "y = ReduceMean<axes=[1,-1],keepdims=0>(x)", {"ReduceMean": 1}),
    "reduce all": (13, "y = ReduceMax(x)", {"ReduceMax": 1}),
    "sum": (11, "y = ReduceSum<axes=[2]>(x)", {"ReduceSum": 1}),
    "split": (11, "a, b = Split<axis=1,split=[1,2]>(x) y = Mul(a, b)", {"Split": 1, "Mul": 1}),
    "even split": (13, "a, b = Split<axis=2>(x) y = Mul(a, b)", {"Split": 1, "Mul": 1}),
    "clip": (9, "y = Clip<min=-0.5,max=0.5>(x)", {"Clip": 1}),
    "pad": (9, "y = Pad<pads=[0,0,1,0,0,0,0,2],value=1.5>(x)", {"Pad": 1}),
    "slice": (9, "y = Slice<starts=[1],ends=[3],axes=[2]>(x)", {"Slice": 1}),
    "top k": (9, "y, i = TopK<k=2>(x)", {"TopK": 1}),
    "dropout": (9, "a = Dropout<ratio=0.5>(x) y = Exp(a)", {"Exp": 1}),
    "upsample": (9, 's = Constant<value = float[4] {1,1,2,2}>() y = Upsample<mode="nearest">(x, s)', {"Resize": 1}),
    "upsample, linear": (7, 'y = Upsample<mode="linear",scales=[1.0,1.0,2.0,2.0]>(x)', {"Resize": 1}),
    "resize": (10, "s = Constant<value = float[4] {1,1,3,3}>() y = Resize(x, s)", {"Resize": 1}),
    "pool": (9, "y = AveragePool<kernel_shape=[2,2],pads=[1,1,1,1]>(x)", {"AveragePool": 1}),
    "group norm by groups": (
        18,
        "s = Constant<value = float[1] {2}>() b = Constant<value = float[1] {0.5}>()"
        " y = GroupNormalization<num_groups=1>(x, s, b)",
        {"GroupNormalization": 1},
    ),
    "grid": (
        16,
        "g = Constant<value = float[2,1,1,2] {0.1,0.2,0.3,0.4}>() y = GridSample(x, g)",
        {"GridSample": 1},
    ),
}


@pytest.mark.parametrize(("opset", "body", "wanted"), OLD.values(), ids=OLD)
def test_an_old_operator_becomes_what_it_was_in_a_newer_opset(opset: int, body: str, wanted: dict[str, int]) -> None:
    proto = model(body, opset)
    after, _ = optimised(proto)
    assert opset_of(after) == 24
    assert operators(after) == {op: count for op, count in wanted.items() if count}
    assert_same(proto, after, {"x": X}, of_scale=1e-6)


STUCK = {
    "shrinks to the nearest": (
        10,
        "s = Constant<value = float[4] {1,1,0.5,0.5}>() y = Resize(x, s)",
        10,
    ),
    "counts the padding at the end": (
        11,
        "y = AveragePool<kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1],ceil_mode=1,count_include_pad=1>(x)",
        18,
    ),
    "no kernel": (20, "r = RandomNormal<shape=[1],seed=1.0>() a = Sub(r, r) y = Add(x, a)", 21),
}


@pytest.mark.parametrize(("opset", "body", "reached"), STUCK.values(), ids=STUCK)
def test_the_lift_stops_where_an_operator_cannot_follow_and_says_so(opset: int, body: str, reached: int) -> None:
    proto = model(body, opset)
    after, changes = optimised(proto)
    assert opset_of(after) == reached
    assert any(miss.rule == "opset" for miss in changes.missed)
    assert_same(proto, after, {"x": X}, of_scale=1e-6)


def test_an_opset_that_was_asked_for_is_had_or_refused() -> None:
    assert opset_of(optimised(model("y = Exp(x)", 17), opset=19)[0]) == 19
    with pytest.raises(OpsetNotHonoured, match="cannot be lowered"):
        optimised(model("y = Exp(x)", 17), opset=13)
    with pytest.raises(OpsetNotHonoured, match="Resize"):
        optimised(model(STUCK["shrinks to the nearest"][1], 10), opset=18)


def test_level_1_leaves_the_opset() -> None:
    assert opset_of(optimised(model("y = Softmax<axis=1>(x)", 11), level=1)[0]) == 11


FUNCTION = """
<domain: "own", opset_import: ["" : 11]> twice <axis> (a) => (c) { b = Softmax<axis: int = @axis>(a) c = Add(b, b) }
"""


def test_a_function_of_another_opset_is_inlined_and_means_the_same() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[2,3,4,4] x) => (float[2,3,4,4] y) {'
    proto = onnx.parser.parse_model(text + " y = own.twice<axis=1>(x) }" + FUNCTION)
    after, _ = optimised(proto)
    assert not after.functions
    flat = X.reshape(2, -1)
    want = np.exp(flat) / np.exp(flat).sum(1, keepdims=True) * 2
    np.testing.assert_allclose(run(after, {"x": X})[0], want.reshape(X.shape), rtol=1e-5)


def test_functions_that_would_make_too_many_nodes_are_refused() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[2] x) => (float[2] y) { y = own.f0(x) }'
    for level in range(24):
        inner = f"b = own.f{level + 1}(a) c = own.f{level + 1}(b)" if level < 23 else "b = Exp(a) c = Exp(b)"
        text += f'<domain: "own", opset_import: ["" : 17, "own" : 1]> f{level} (a) => (c) {{ {inner} }}'
    with pytest.raises(CorruptFile, match="limit"):
        inline(onnx_ir.from_proto(onnx.parser.parse_model(text)))


CONSTANTS = {
    "value_float": ("value_float=2.5", np.float32),
    "value_floats": ("value_floats=[2.5,1.5]", np.float32),
    "value_int": ("value_int=3", np.int64),
    "value_ints": ("value_ints=[3,4]", np.int64),
    "double": ("value = double[2] {1.5,2.5}", np.float64),
}


@pytest.mark.parametrize(("written", "dtype"), CONSTANTS.values(), ids=CONSTANTS)
def test_a_constant_keeps_its_dtype(written: str, dtype: Any) -> None:
    kind = {"f4": "float", "i8": "int64", "f8": "double"}[np.dtype(dtype).str[1:]]
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({kind}[2] x) => ({kind}[2] y)'
    proto = onnx.parser.parse_model(text + f" {{ c = Constant<{written}>() y = Sub(x, c) }}")
    after, _ = optimised(proto)
    (held,) = after.graph.initializer
    assert onnx.numpy_helper.to_array(held).dtype == dtype
    assert_same(proto, after, {"x": np.arange(2).astype(dtype)})


def test_weights_that_an_old_file_lists_as_inputs_are_no_inputs() -> None:
    proto = model("a = Mul(x, w) y = Relu(a)", 8, ir_version=3, inputs="float[2,3,4,4] x, float[4] w")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "w"))
    after, _ = optimised(proto)
    assert [value.name for value in after.graph.input] == ["x"]
    assert_same(proto, after, {"x": X})
