"""`graphkit validate` and `graphkit locate` against Polygraphy on the same models and inputs, under ONNX Runtime."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.convert import ROOT
from benchmarks.measure import Command
from benchmarks.results import Claim
from benchmarks.startup import program

REPEATED = 1

_LAYERS, _WIDTH, _SETS = 24, 1024, 8  # 24 matrices of 1024 x 1024 floats: 101 MB
_BLOCKS, _ROWS, _HIDDEN, _WRONG = 500, 512, 64, 313  # 2,000 nodes whose tensors have 131 kB each

_LOADER = """import numpy as np
def load_data():
    with np.load({path!r}) as file:
        for number in range({sets}):
            yield {{"x": file[f"{{number}}/x"]}}
"""


def claims(folder: Path) -> Iterator[Claim]:
    """The comparisons of this room; models and inputs go to `folder`."""
    yield _validate(folder)
    yield _locate(folder)


def _validate(folder: Path) -> Claim:
    reference, candidate, inputs = folder / "deep.onnx", folder / "copy.onnx", folder / "inputs.npz"
    rng = np.random.default_rng(0)
    for path in (reference, candidate):
        onnx.save(_deep(), path)
    np.savez(inputs, **{f"{n}/x": rng.standard_normal((n + 1, _WIDTH), dtype=np.float32) for n in range(_SETS)})
    loader = folder / "loader.py"
    loader.write_text(_LOADER.format(path=str(inputs), sets=_SETS), encoding="utf-8")
    ours = (program("graphkit"), "validate", str(reference), str(candidate), "--input", str(inputs), "--quiet")
    peer = (program("polygraphy"), "run", str(reference), "--onnxrt", "--onnxrt", "--data-loader-script", str(loader))
    return Claim(
        f"validate a model of 100 MB on {_SETS} sets of inputs",
        Command("graphkit validate", ours, cwd=ROOT),
        Command("polygraphy run --onnxrt --onnxrt", (*peer, "--atol", "1e-3", "--rtol", "1e-3"), cwd=ROOT),
        1.0,
        most_memory=0.7,
        note="ours also hashes both files, compares the graph as it stands with the optimised one, and measures ten "
        "metrics of each output; the peer runs one file twice",
    )


def _locate(folder: Path) -> Claim:
    reference, candidate = folder / "right.onnx", folder / "wrong.onnx"
    onnx.save(_blocks(None), reference)
    onnx.save(_blocks(_WRONG), candidate)
    locate = shlex.join((program("graphkit"), "locate", str(reference), str(candidate), "--quiet"))
    found = f'said=$({locate}); test $? -eq 1 && echo "$said" | head -n 1 | grep -q "\'mix{_WRONG}\'"'
    outputs = folder / "outputs.json"
    run = [program("polygraphy"), "run", "--onnxrt", "--onnx-outputs", "*"]
    peer = (
        shlex.join([*run, "--save-outputs", str(outputs), "--", str(reference)]),
        shlex.join([*run, "--load-outputs", str(outputs), "--", str(candidate)]),
    )
    return Claim(
        "locate one wrong weight among 2,000 nodes",
        Command("graphkit locate", ("bash", "-c", found), cwd=ROOT),
        Command("polygraphy run --onnx-outputs '*', twice", ("bash", "-c", f"{peer[0]} && ! {peer[1]}"), cwd=ROOT),
        1.0,
        most_memory=1 / 3,
        note="ours has to name the node; the peer prints 2,000 comparisons, and names none",
    )


def _deep() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    nodes, weights, last = [], [], "x"
    for number in range(_LAYERS):
        made = "y" if number == _LAYERS - 1 else f"b{number}"
        matrix = rng.standard_normal((_WIDTH, _WIDTH), dtype=np.float32) * np.float32((2 / _WIDTH) ** 0.5)
        weights.append(numpy_helper.from_array(matrix, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"a{number}"]))
        nodes.append(helper.make_node("Relu", [f"a{number}"], [made]))
        last = made
    return _model(nodes, weights, ["batch", _WIDTH])


def _blocks(wrong: int | None) -> onnx.ModelProto:
    rng = np.random.default_rng(2)
    nodes, weights, last = [], [], "x"
    for number in range(_BLOCKS):
        matrix = rng.standard_normal((_HIDDEN, _HIDDEN), dtype=np.float32) * np.float32(0.1 / _HIDDEN**0.5)
        bias = rng.standard_normal(_HIDDEN, dtype=np.float32) * np.float32(0.1)
        if number == wrong:
            matrix[0, 0] += 1.0
        weights += [numpy_helper.from_array(matrix, f"w{number}"), numpy_helper.from_array(bias, f"b{number}")]
        made = "y" if number == _BLOCKS - 1 else f"sum{number}"
        nodes += [
            helper.make_node("MatMul", [last, f"w{number}"], [f"m{number}"], f"mix{number}"),
            helper.make_node("Add", [f"m{number}", f"b{number}"], [f"a{number}"], f"shift{number}"),
            helper.make_node("Tanh", [f"a{number}"], [f"t{number}"], f"squash{number}"),
            helper.make_node("Add", [f"t{number}", last], [made], f"residual{number}"),
        ]
        last = made
    return _model(nodes, weights, [_ROWS, _HIDDEN])


def _model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], shape: list[int | str]) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "parity", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
