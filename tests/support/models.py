"""Small models for the rules: each is one claim about what a target takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

Spec = tuple[str, int, "list[int | str] | None"]

TYPES = {
    "f32": T.FLOAT,
    "f16": T.FLOAT16,
    "bf16": T.BFLOAT16,
    "f64": T.DOUBLE,
    "i64": T.INT64,
    "i32": T.INT32,
    "i8": T.INT8,
    "u8": T.UINT8,
    "bool": T.BOOL,
    "str": T.STRING,
    "f8": T.FLOAT8E4M3FN,
    "f8e5": T.FLOAT8E5M2,
    "i16": T.INT16,
    "i4": T.INT4,
    "c64": T.COMPLEX64,
}


def value(text: str) -> onnx.ValueInfoProto:
    """`x f32 batch,4`; `x f32 -` for no rank; `x f32` for a scalar."""
    name, dtype, *dims = text.split()
    if dims == ["-"]:
        return helper.make_tensor_value_info(name, TYPES[dtype], None)
    shape = [int(d) if d.isdigit() else d for d in (dims[0].split(",") if dims else [])]
    return helper.make_tensor_value_info(name, TYPES[dtype], shape)


def node(op: str, reads: str, makes: str, *, domain: str = "", name: str | None = None, **attributes: Any) -> Any:
    """A node; `-` in `reads` is an input left out."""
    names = ["" if r == "-" else r for r in reads.split()]
    called = name if name is not None else f"n_{makes.split()[0]}"
    return helper.make_node(op, names, makes.split(), name=called, domain=domain, **attributes)


def model(
    nodes: list[Any],
    inputs: list[str],
    outputs: list[str],
    *,
    opset: int = 20,
    weights: dict[str, Any] | None = None,
    domains: dict[str, int] | None = None,
    functions: list[Any] | None = None,
) -> onnx.ModelProto:
    """A model of these nodes."""
    tensors = [
        w if isinstance(w, onnx.TensorProto) else numpy_helper.from_array(np.asarray(w), n)
        for n, w in (weights or {}).items()
    ]
    graph = helper.make_graph(nodes, "g", [value(i) for i in inputs], [value(o) for o in outputs], tensors)
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(d, v) for d, v in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions or [])


def save(made: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


F = np.float32
_W = np.linspace(-1, 1, 16, dtype=F).reshape(4, 4)


def _single(op: str, reads: str, inputs: list[str], outputs: list[str], **options: Any) -> onnx.ModelProto:
    own = {k: options.pop(k) for k in ("opset", "weights", "domains") if k in options}
    makes = " ".join(o.split()[0] for o in outputs)
    return model([node(op, reads, makes, **options)], inputs, outputs, **own)


def _attention(dtype: str, *, opset: int = 23, dims: str = "1,4,16,32", **attributes: Any) -> onnx.ModelProto:
    io = [f"{n} {dtype} {dims}" for n in "qkv"]
    return _single("Attention", "q k v", io, [f"y {dtype} {dims}"], opset=opset, **attributes)


def _branch(name: str, nodes: list[Any], output: str, weights: dict[str, Any] | None = None) -> Any:
    made = [numpy_helper.from_array(np.asarray(w), n) for n, w in (weights or {}).items()]
    return helper.make_graph(nodes, name, [], [value(output)], made)


def _if(then: Any, other: Any, output: str) -> onnx.ModelProto:
    return model(
        [node("If", "c", output.split()[0], then_branch=then, else_branch=other)],
        ["c bool", "x f32 2,4"],
        [output],
    )


def _quantised(zero: Any, dtype: Any, *, scale: Any = 0.1, opset: int = 21) -> onnx.ModelProto:
    return model(
        [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node("MatMul", "d w", "y")],
        ["x f32 2,4"],
        ["y f32 2,4"],
        weights={"s": F(scale), "z": np.asarray(zero, dtype), "w": _W},
        opset=opset,
    )


def _typed_zero(dtype: int) -> onnx.TensorProto:
    return helper.make_tensor("z", dtype, [], [0.0])


def _quantised_float8(dtype: int) -> onnx.ModelProto:
    made = _quantised(0, np.int8)
    made.graph.initializer[1].CopyFrom(_typed_zero(dtype))
    return made


def _loop(*, scan: bool) -> onnx.ModelProto:
    nodes = [node("Identity", "cond_in", "cond_out"), node("Add", "h x", "h_out")]
    outs = ["cond_out bool", "h_out f32 2,4"]
    if scan:
        nodes.append(node("Identity", "h_out", "each"))
        outs.append("each f32 2,4")
    body = helper.make_graph(
        nodes, "body", [value("i i64"), value("cond_in bool"), value("h f32 2,4")], [value(o) for o in outs]
    )
    makes = ["y f32 2,4", *(["all f32 steps,2,4"] if scan else [])]
    names = " ".join(m.split()[0] for m in makes)
    return model(
        [node("Loop", "n t x", names, body=body)], ["x f32 2,4"], makes, weights={"n": np.int64(3), "t": np.bool_(True)}
    )


CASES: dict[str, Any] = {
    "relu": lambda: _single("Relu", "x", ["x f32 2,4"], ["y f32 2,4"]),
    "matmul": lambda: _single("MatMul", "x w", ["x f32 2,4"], ["y f32 2,4"], weights={"w": _W}),
    "dynamic batch": lambda: _single("MatMul", "x w", ["x f32 batch,4"], ["y f32 batch,4"], weights={"w": _W}),
    "gelu": lambda: _single("Gelu", "x", ["x f32 2,4"], ["y f32 2,4"]),
    "layernorm": lambda: _single(
        "LayerNormalization", "x g", ["x f32 2,4"], ["y f32 2,4"], weights={"g": np.ones(4, F)}
    ),
    "layernorm three outputs": lambda: _single(
        "LayerNormalization",
        "x g",
        ["x f32 2,4"],
        ["y f32 2,4", "m f32 2,1", "v f32 2,1"],
        weights={"g": np.ones(4, F)},
    ),
    "layernorm mixed": lambda: _single(
        "LayerNormalization", "x g", ["x f16 2,4"], ["y f16 2,4"], weights={"g": np.ones(4, F)}
    ),
    "unique": lambda: _single("Unique", "x", ["x f32 8"], ["y f32 u"]),
    "nonzero": lambda: _single("NonZero", "x", ["x f32 2,4"], ["y i64 2,n"]),
    "nonzero inside": lambda: model(
        [node("NonZero", "x", "i"), node("ReduceSum", "i", "y", keepdims=0)], ["x f32 2,4"], ["y i64"]
    ),
    "compress": lambda: _single("Compress", "x c", ["x f32 4", "c bool 4"], ["y f32 n"]),
    "nms": lambda: _single("NonMaxSuppression", "b s", ["b f32 1,6,4", "s f32 1,1,6"], ["y i64 n,3"]),
    "bitshift": lambda: _single("BitShift", "x x", ["x u8 4"], ["y u8 4"], direction="LEFT"),
    "bitwise": lambda: _single("BitwiseAnd", "x x", ["x i32 4"], ["y i32 4"]),
    "det": lambda: _single("Det", "x", ["x f32 2,3,3"], ["y f32 2"]),
    "dft": lambda: _single("DFT", "x", ["x f32 1,8,1"], ["y f32 1,8,2"], axis=1, opset=17),
    "stft": lambda: _single(
        "STFT", "x s w", ["x f32 1,64,1"], ["y f32 1,n,9,2"], opset=17, weights={"s": np.int64(8), "w": np.ones(16, F)}
    ),
    "einsum": lambda: _single("Einsum", "a b", ["a f32 2,4", "b f32 4,3"], ["y f32 2,3"], equation="ij,jk->ik"),
    "topk": lambda: _single("TopK", "x k", ["x f32 2,4"], ["v f32 2,2", "i i64 2,2"], weights={"k": np.array([2])}),
    "cumsum": lambda: _single("CumSum", "x a", ["x f32 2,4"], ["y f32 2,4"], weights={"a": np.int64(1)}),
    "gridsample": lambda: _single("GridSample", "x g", ["x f32 1,1,4,4", "g f32 1,2,2,2"], ["y f32 1,1,2,2"]),
    "scatter add": lambda: _single(
        "ScatterElements", "x i u", ["x f32 2,4", "i i64 2,2", "u f32 2,2"], ["y f32 2,4"], axis=1, reduction="add"
    ),
    "scatter": lambda: _single(
        "ScatterElements", "x i u", ["x f32 2,4", "i i64 2,2", "u f32 2,2"], ["y f32 2,4"], axis=1
    ),
    "scatternd add": lambda: _single(
        "ScatterND", "x i u", ["x f32 4,4", "i i64 2,1", "u f32 2,4"], ["y f32 4,4"], reduction="add"
    ),
    "attention fp32": lambda: _attention("f32"),
    "attention fp32 decomposable": lambda: _attention("f32", TRT_decomposable=1),
    "attention fp16": lambda: _attention("f16"),
    "attention fp16 d512": lambda: _attention("f16", dims="1,1,16,512"),
    "attention softcap": lambda: _attention("f16", softcap=2.0),
    "attention fp32 causal 3d": lambda: _attention("f32", dims="1,16,64", q_num_heads=4, kv_num_heads=4, is_causal=1),
    "attention fp32 3d": lambda: _attention("f32", dims="1,16,64", q_num_heads=4, kv_num_heads=4),
    "foreign relu": lambda: _single("Relu", "x", ["x f32 2,4"], ["y f32 2,4"], domain="my", domains={"my": 1}),
    "custom op": lambda: _single("MyOp", "x", ["x f32 2,4"], ["y f32 2,4"], domain="com.acme", domains={"com.acme": 1}),
    "biasgelu": lambda: _single(
        "BiasGelu",
        "x b",
        ["x f32 2,4"],
        ["y f32 2,4"],
        domain="com.microsoft",
        domains={"com.microsoft": 1},
        weights={"b": np.ones(4, F)},
    ),
    "ms gelu": lambda: _single(
        "Gelu", "x", ["x f32 2,4"], ["y f32 2,4"], domain="com.microsoft", domains={"com.microsoft": 1}
    ),
    "rms opset20": lambda: _single(
        "RMSNormalization", "x g", ["x f32 2,4"], ["y f32 2,4"], weights={"g": np.ones(4, F)}, opset=20
    ),
    "float64 inside": lambda: model(
        [node("Cast", "x", "d", to=T.DOUBLE), node("Sqrt", "d", "e"), node("Cast", "e", "y", to=T.FLOAT)],
        ["x f32 2,4"],
        ["y f32 2,4"],
    ),
    "float64 io": lambda: _single("Add", "x x", ["x f64 2,4"], ["y f64 2,4"]),
    "int64 io": lambda: _single("Add", "x x", ["x i64 2,4"], ["y i64 2,4"]),
    "int16": lambda: _single("Add", "x x", ["x i16 2,4"], ["y i16 2,4"]),
    "uint8 add": lambda: _single("Cast", "x", ["x u8 2,4"], ["y f32 2,4"], to=T.FLOAT),
    "int8 io": lambda: _single("Cast", "x", ["x i8 2,4"], ["y f32 2,4"], to=T.FLOAT),
    "string": lambda: _single("StringNormalizer", "x", ["x str 3"], ["y str n"]),
    "string passes": lambda: _single("Identity", "x", ["x str 3"], ["y str 3"]),
    "sequence": lambda: model(
        [node("SplitToSequence", "x", "s", axis=0), node("ConcatFromSequence", "s", "y", axis=0)],
        ["x f32 2,4"],
        ["y f32 2,4"],
    ),
    "complex": lambda: _single("Identity", "x", ["x c64 2"], ["y c64 2"]),
    "no rank": lambda: _single("Relu", "x", ["x f32 -"], ["y f32 -"]),
    "input is output": lambda: model([node("Relu", "x", "y")], ["x f32 2,4"], ["y f32 2,4", "x f32 2,4"]),
    "output twice": lambda: model([node("Relu", "x", "y")], ["x f32 2,4"], ["y f32 2,4", "y f32 2,4"]),
    "weight is output": lambda: model(
        [node("Relu", "x", "y")], ["x f32 2,4"], ["y f32 2,4", "w f32 4,4"], weights={"w": _W}
    ),
    "unused input": lambda: model([node("Relu", "x", "y")], ["x f32 2,4", "z f32 3"], ["y f32 2,4"]),
    "shape input": lambda: _single("Reshape", "x s", ["x f32 2,4", "s i64 2"], ["y f32 a,b"]),
    "shape computed": lambda: model(
        [node("Shape", "z", "s"), node("Reshape", "x s", "y")], ["x f32 2,4", "z f32 4,2"], ["y f32 4,2"]
    ),
    "reduce axes input": lambda: _single("ReduceSum", "x a", ["x f32 2,4", "a i64 1"], ["y f32 p,q"]),
    "reduce axes weight": lambda: _single(
        "ReduceSum", "x a", ["x f32 2,4"], ["y f32 2,1"], weights={"a": np.array([1])}
    ),
    "reshape rank": lambda: model(
        [node("Shape", "z", "s"), node("Reshape", "x s", "y")], ["x f32 8", "z f32 -"], ["y f32 -"]
    ),
    "if same": lambda: _if(
        _branch("t", [node("Relu", "x", "y1")], "y1 f32 2,4"),
        _branch("e", [node("Neg", "x", "y2")], "y2 f32 2,4"),
        "y f32 2,4",
    ),
    "if different": lambda: _if(
        _branch("t", [node("Relu", "x", "y1")], "y1 f32 2,4"),
        _branch("e", [node("ReduceMax", "x", "y2", keepdims=1)], "y2 f32 1,1"),
        "y f32 a,b",
    ),
    "if rank": lambda: _if(
        _branch("t", [node("Relu", "x", "y1")], "y1 f32 2,4"),
        _branch("e", [node("ReduceMax", "x", "y2", keepdims=0)], "y2 f32"),
        "y f32 -",
    ),
    "if unique": lambda: _if(
        _branch("t", [node("Relu", "x", "y1")], "y1 f32 2,4"),
        _branch("e", [node("Det", "x", "y2", name="det_in_else")], "y2 f32 2,4"),
        "y f32 2,4",
    ),
    "loop": lambda: _loop(scan=False),
    "loop scan": lambda: _loop(scan=True),
    "qdq int8": lambda: _quantised(0, np.int8),
    "qdq uint8": lambda: _quantised(128, np.uint8),
    "qdq uint8 zero 0": lambda: _quantised(0, np.uint8),
    "qdq asymmetric": lambda: _quantised(3, np.int8),
    "qdq int16": lambda: _quantised(0, np.int16),
    "qdq fp8": lambda: _quantised_float8(T.FLOAT8E4M3FN),
    "qdq fp8 e5m2": lambda: _quantised_float8(T.FLOAT8E5M2),
    "bias int32 dq": lambda: model(
        [node("DequantizeLinear", "b s", "d"), node("Add", "x d", "y")],
        ["x f32 2,4"],
        ["y f32 2,4"],
        weights={"b": np.arange(4, dtype=np.int32), "s": F(0.1)},
    ),
    "dynamic quantize": lambda: model(
        [node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z", "y")],
        ["x f32 2,4"],
        ["y f32 2,4"],
    ),
    "bf16 matmul": lambda: _single("MatMul", "x x", ["x bf16 4,4"], ["y bf16 4,4"]),
    "fp16 matmul": lambda: _single("MatMul", "x x", ["x f16 4,4"], ["y f16 4,4"]),
    "resize scales": lambda: _single("Resize", "x - s", ["x f32 1,1,4,4", "s f32 4"], ["y f32 1,1,a,b"]),
    "resize antialias": lambda: _single(
        "Resize",
        "x - s",
        ["x f32 1,1,4,4"],
        ["y f32 1,1,2,2"],
        mode="linear",
        antialias=1,
        weights={"s": np.array([1, 1, 0.5, 0.5], F)},
    ),
    "batchnorm training": lambda: _single(
        "BatchNormalization",
        "x a b c d",
        ["x f32 2,4"],
        ["y f32 2,4", "m f32 4", "v f32 4"],
        training_mode=1,
        weights={k: np.ones(4, F) for k in "abcd"},
    ),
    "dropout": lambda: _single("Dropout", "x", ["x f32 2,4"], ["y f32 2,4"]),
    "dropout mask": lambda: _single("Dropout", "x", ["x f32 2,4"], ["y f32 2,4", "m bool 2,4"]),
    "randn": lambda: _single("RandomNormalLike", "x", ["x f32 2,4"], ["y f32 2,4"]),
    "bernoulli": lambda: _single("Bernoulli", "x", ["x f32 2,4"], ["y f32 2,4"]),
    "multinomial": lambda: _single("Multinomial", "x", ["x f32 2,4"], ["y i32 2,1"]),
    "maxpool indices": lambda: _single(
        "MaxPool", "x", ["x f32 1,1,4,4"], ["y f32 1,1,2,2", "i i64 1,1,2,2"], kernel_shape=[2, 2], strides=[2, 2]
    ),
    "lstm": lambda: _single(
        "LSTM",
        "x w r",
        ["x f32 3,1,4"],
        ["y f32 3,1,1,4"],
        hidden_size=4,
        weights={"w": np.ones((1, 16, 4), F), "r": np.ones((1, 16, 4), F)},
    ),
    "gru": lambda: _single(
        "GRU",
        "x w r",
        ["x f32 3,1,4"],
        ["y f32 3,1,1,4"],
        hidden_size=4,
        weights={"w": np.ones((1, 12, 4), F), "r": np.ones((1, 12, 4), F)},
    ),
    "conv": lambda: _single(
        "Conv", "x w", ["x f32 1,1,4,4"], ["y f32 1,1,2,2"], weights={"w": np.ones((1, 1, 3, 3), F)}
    ),
    "conv dynamic weight": lambda: _single("Conv", "x w", ["x f32 1,1,4,4", "w f32 1,1,3,3"], ["y f32 1,1,2,2"]),
    "convtranspose": lambda: _single(
        "ConvTranspose", "x w", ["x f32 1,1,4,4"], ["y f32 1,1,6,6"], weights={"w": np.ones((1, 1, 3, 3), F)}
    ),
    "onehot": lambda: _single(
        "OneHot", "x d v", ["x i64 2"], ["y f32 2,3"], weights={"d": np.int64(3), "v": np.array([0, 1], F)}
    ),
    "range": lambda: _single("Range", "a b c", ["b i64"], ["y i64 n"], weights={"a": np.int64(0), "c": np.int64(1)}),
    "tile": lambda: _single("Tile", "x r", ["x f32 2,4", "r i64 2"], ["y f32 a,b"]),
    "expand": lambda: _single("Expand", "x s", ["x f32 1,4", "s i64 2"], ["y f32 a,4"]),
    "mod float": lambda: _single("Mod", "x x", ["x f32 2,4"], ["y f32 2,4"], fmod=1),
    "size": lambda: _single("Size", "x", ["x f32 2,4"], ["y i64"]),
    "isinf": lambda: _single("IsInf", "x", ["x f32 2,4"], ["y bool 2,4"]),
    "optional": lambda: model([node("OptionalHasElement", "x", "y")], ["x f32 2,4"], ["y bool"]),
    "float8 io": lambda: _single("Cast", "x", ["x f8 2,4"], ["y f32 2,4"], to=T.FLOAT),
    "int4 dq": lambda: model(
        [node("DequantizeLinear", "q s", "d", axis=0, block_size=16), node("MatMul", "x d", "y")],
        ["x f32 2,32"],
        ["y f32 2,16"],
        opset=21,
        weights={"q": helper.make_tensor("q", T.INT4, [32, 16], [1] * 512), "s": np.ones((2, 16), F)},
    ),
}
