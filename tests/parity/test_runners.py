"""ONNX Runtime in a child process: numbers, errors, crashes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphkit import isolate
from graphkit.errors import BadSample, InvalidExport, NativeCrash, ParityFailed
from graphkit.parity.ort_child import reason
from graphkit.parity.runners import OrtRunner, warm_up

INT_MIN = np.array([-(2**31)], np.int32)


def save(tmp_path, nodes, inputs, outputs, name="m.onnx", weights=()):
    info = [[helper.make_tensor_value_info(*each) for each in side] for side in (inputs, outputs)]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", *info, list(weights)), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(proto, tmp_path / name)
    return tmp_path / name


def identity(tmp_path, kind):
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(tmp_path, [node], [("x", kind, ["n"])], [("y", kind, ["n"])])


@pytest.fixture
def dividing(tmp_path):
    node = helper.make_node("Div", ["x", "d"], ["y"])
    kinds = [("x", TensorProto.INT32, [1]), ("d", TensorProto.INT32, [1])]
    return save(tmp_path, [node], kinds, [("y", TensorProto.INT32, [1])])


@pytest.mark.parametrize("optimize", [False, True])
def test_a_model_computes_what_numpy_does(graph, optimize):
    w = np.arange(12, dtype=np.float32).reshape(4, 3)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with OrtRunner(graph("g (float[n, 4] x) => (y) { y = MatMul(x, w) }", w=w), optimize=optimize) as runner:
        assert np.array_equal(runner.run({"x": x})["y"], x @ w)
        assert np.array_equal(runner.run({"x": x[:1]})["y"], x[:1] @ w)


def test_the_label_says_version_device_and_optimisation(dividing):
    with OrtRunner(dividing, optimize=False, name="before") as runner:
        assert runner.label.startswith("before: onnxruntime 1.")
        assert runner.label.endswith("(cpu, optimisations off)")


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("BFLOAT16", ml_dtypes.bfloat16),
        ("FLOAT8E4M3FN", ml_dtypes.float8_e4m3fn),
        ("FLOAT16", np.float16),
        ("DOUBLE", np.float64),
        ("UINT8", np.uint8),
        ("BOOL", np.bool_),
    ],
)
def test_every_dtype_comes_back_as_it_went_in(tmp_path, kind, dtype):
    x = np.array([0, 1, 0.5, 1.5]).astype(dtype)
    with OrtRunner(identity(tmp_path, getattr(TensorProto, kind)), optimize=False) as runner:
        y = runner.run({"x": x})["y"]
    assert y.dtype == x.dtype
    assert np.array_equal(x, y)


def test_strings_come_back_as_they_went_in(tmp_path):
    with OrtRunner(identity(tmp_path, TensorProto.STRING), optimize=False) as runner:
        y = runner.run({"x": np.array(["a", "äö"], dtype=object)})["y"]
    assert y.tolist() == ["a", "äö"]


def test_scalars_empty_tensors_and_awkward_names_survive(tmp_path):
    nodes = [helper.make_node("Identity", ["/in/../file"], ["/out/0"]), helper.make_node("Neg", ["s"], ["t"])]
    path = save(
        tmp_path,
        nodes,
        [("/in/../file", TensorProto.FLOAT, ["n", 3]), ("s", TensorProto.FLOAT, [])],
        [("/out/0", TensorProto.FLOAT, ["n", 3]), ("t", TensorProto.FLOAT, [])],
    )
    with OrtRunner(path, optimize=True) as runner:
        out = runner.run({"/in/../file": np.zeros((0, 3), np.float32), "s": np.array(2, np.float32)})
    assert out["/out/0"].shape == (0, 3)
    assert (out["t"].shape, float(out["t"])) == ((), -2)


def test_a_crash_while_running_is_an_error_and_the_next_run_works(dividing):
    good = {"x": np.array([6], np.int32), "d": np.array([3], np.int32)}
    with OrtRunner(dividing, optimize=False) as runner:
        assert runner.run(good)["y"] == 2
        with pytest.raises(NativeCrash, match="SIGFPE"):
            runner.run({"x": INT_MIN, "d": np.array([-1], np.int32)})
        assert runner.run(good)["y"] == 2


def test_a_crash_while_loading_is_an_error_and_the_next_model_works(tmp_path, dividing):
    weights = [onnx.numpy_helper.from_array(v, n) for n, v in {"a": INT_MIN, "b": np.array([-1], np.int32)}.items()]
    path = save(
        tmp_path,
        [helper.make_node("Div", ["a", "b"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])],
        [("x", TensorProto.INT32, [1])],
        [("y", TensorProto.INT32, [1])],
        "folds.onnx",
        weights,
    )
    with OrtRunner(path, optimize=True) as runner, pytest.raises(NativeCrash, match="SIGFPE"):
        runner.run({"x": np.array([6], np.int32)})
    with OrtRunner(dividing, optimize=True) as runner:
        assert runner.run({"x": np.array([9], np.int32), "d": np.array([3], np.int32)})["y"] == 3


def test_a_model_that_does_not_load_is_refused_with_one_sentence(tmp_path):
    path = save(
        tmp_path,
        [helper.make_node("NoSuchOp", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, [1])],
        [("y", TensorProto.FLOAT, [1])],
    )
    with OrtRunner(path, optimize=True) as runner, pytest.raises(InvalidExport, match="NoSuchOp") as caught:
        runner.run({})
    assert "\n" not in caught.value.message
    assert "ONNXRuntimeError" not in caught.value.message
    assert "known_bug" not in caught.value.data


def test_a_model_that_only_the_optimiser_breaks_is_called_a_bug_of_onnx_runtime(monkeypatch, dividing):
    call = isolate.Worker.call

    def breaking(self, function, /, **arguments):
        if function.endswith(":load") and arguments["optimize"]:
            raise InvalidExport("ONNX Runtime cannot load the model: Node input 'mid' is not a graph input")
        return call(self, function, **arguments)

    monkeypatch.setattr(isolate.Worker, "call", breaking)
    with OrtRunner(dividing, optimize=True) as runner, pytest.raises(InvalidExport, match="optimiser breaks") as caught:
        runner.load()
    assert caught.value.data["known_bug"].endswith("/32413")
    assert "'mid'" in caught.value.message


def test_the_known_bug_of_onnx_runtimes_optimiser_is_recognised(graph):
    model = graph(
        "g (float[2] x, float[2] a) => (float[2] y) { mid = Cast<to = 1>(a) r = Div(one, x) y = Mul(r, mid) }",
        one=np.ones(1, np.float32),
    )
    x, a = np.array([2, 4], np.float32), np.array([6, 8], np.float32)
    with OrtRunner(model, optimize=False) as plain:
        assert plain.run({"x": x, "a": a})["y"].tolist() == [3, 2]
    with OrtRunner(model, optimize=True) as optimised:
        try:
            optimised.load()
        except InvalidExport as error:
            said, data = error.message, error.data
        else:
            pytest.skip("this ONNX Runtime no longer has the bug")
    assert "'mid' is not a graph input" in said
    assert "known_bug" in data


def test_inputs_that_do_not_fit_are_refused(dividing):
    with OrtRunner(dividing, optimize=False) as runner:
        with pytest.raises(BadSample, match="float"):
            runner.run({"x": np.ones(1, np.float32), "d": np.ones(1, np.int32)})
        with pytest.raises(BadSample, match="inputs d"):
            runner.run({"x": INT_MIN})


def test_a_failure_while_running_is_a_failure_of_parity(graph):
    model = graph("g (float[2, 3] x, int64[n] s) => (y) { y = Reshape(x, s) }")
    with OrtRunner(model, optimize=False) as runner, pytest.raises(ParityFailed, match="while it runs"):
        runner.run({"x": np.ones((2, 3), np.float32), "s": np.array([4, 4])})


def test_an_output_that_is_no_tensor_is_refused(graph):
    model = graph("g (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x, x) }")
    with OrtRunner(model, optimize=False) as runner, pytest.raises(BadSample, match="`y`"):
        runner.run({"x": np.ones(2, np.float32)})


def test_nothing_is_left_behind(graph, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with OrtRunner(graph("g (float[2] x) => (y) { y = Neg(x) }"), optimize=False) as runner:
        runner.run({"x": np.ones(2, np.float32)})
        (folder,) = tmp_path.iterdir()
        assert [f.name for f in folder.iterdir()] == ["model.onnx"]
    assert list(tmp_path.iterdir()) == []


def test_warming_up_starts_the_child_that_runs_use(dividing):
    warm_up()
    process = isolate.worker("ONNX Runtime")._process
    with OrtRunner(dividing, optimize=False) as runner:
        runner.load()
    assert process is isolate.worker("ONNX Runtime")._process


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from /tmp/m.onnx failed:no op", "no op"),
        ("[ONNXRuntimeError] : 1 : FAIL : Node (a) failed\nmore", "Node (a) failed"),
        ("plain words: 3 : 4", "plain words: 3 : 4"),
        ("", "ValueError"),
    ],
)
def test_the_deciding_sentence_of_an_error_is_kept(text, sentence):
    assert reason(ValueError(text)) == sentence
