"""tf2onnx's own backend tests, with graphkit's translation in the place of tf2onnx's.

`python -m benchmarks.tf2onnx_suite CHECKOUT [PYTEST ARGUMENT ...]` runs them in a checkout of
https://github.com/onnx/tensorflow-onnx (Apache-2.0), of which nothing is kept here. TensorFlow's reference and the
freezing are the suite's; `run_test_case` and tf2onnx's API then go through `to_onnx`, the checker and ONNX Runtime,
a Keras model and a TFLite file through graphkit's sources. `--peer` runs the suite untouched.

What tests expect is as it was. They run where tf2onnx skips them for what it lacks itself, `numpy` has the names of
version 1 that they use (`string_`, `product`), and ONNX Runtime finds the locale `en_US.UTF-8` that its
`StringNormalizer` asks for, where `localedef` can make it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from graphkit.errors import GraphkitError

FILES = ("test_backend", "test_loops", "test_cond", "test_api", "test_convert", "test_string_ops")
OPSET = 18
PEER = "tf2onnx 1.17.0 itself: 494 passed, 10 failed, 37 skipped of 541"
NEEDED = 500

_ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the suite; exit code 1 where fewer than `NEEDED` pass, 2 where the checkout is none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tf2onnx_suite", description=__doc__)
    parser.add_argument("checkout", type=Path, help="a checkout of onnx/tensorflow-onnx")
    parser.add_argument("--peer", action="store_true", help="tf2onnx's own translation")
    options, more = parser.parse_known_args()
    tests = options.checkout / "tests"
    if not (tests / "backend_test_base.py").is_file():
        parser.error(f"{options.checkout} is no checkout of onnx/tensorflow-onnx")
    plugin = () if options.peer else ("-p", "benchmarks.tf2onnx_suite")
    files = [f"tests/{name}.py" for name in FILES]
    settings = ("-q", "--tb=line", "-rf", "-W", "ignore", "-c", os.devnull, "--rootdir", ".")
    # -P: the checkout's own tf2onnx must not hide the installed one
    command = [sys.executable, "-P", "-m", "pytest", *plugin, *settings, *files, *more]
    with tempfile.TemporaryDirectory(prefix="graphkit-locale-") as locales:
        environment = _environment() if options.peer else {**_environment(), **_locale(Path(locales))}
        return subprocess.run(command, cwd=options.checkout, env=environment, check=False).returncode


def _locale(folder: Path) -> dict[str, str]:
    """The environment in which `en_US.UTF-8` exists."""
    tool = shutil.which("localedef")
    if tool is None:
        return {}
    made = [tool, "-i", "en_US", "-f", "UTF-8", str(folder / "en_US.UTF-8")]
    done = subprocess.run(made, capture_output=True, check=False)
    return {"LOCPATH": str(folder)} if done.returncode == 0 else {}


def _environment() -> dict[str, str]:
    path = os.pathsep.join(p for p in (str(_ROOT), os.environ.get("PYTHONPATH")) if p)
    skipped = {"TF2ONNX_SKIP_TFLITE_TESTS": "TRUE", "TF2ONNX_SKIP_TFJS_TESTS": "TRUE"}
    return {
        **os.environ,
        **skipped,
        "TF2ONNX_TEST_OPSET": str(OPSET),
        "PYTHONPATH": path,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


# --- as a pytest plugin ------------------------------------------------------------------------------------------


_OWN_LIMITS = re.compile(
    "target rs6|custom ops framework|only rank 1|Not fully implemented|recently removed|failing for some opsets"
)
"""Reasons for which tf2onnx skips what it cannot translate; others are TensorFlow's, ONNX Runtime's or a GPU's."""


def pytest_configure() -> None:
    """numpy 1's names, which the suite uses."""
    import numpy as np

    np.string_, np.product = np.bytes_, np.prod  # type: ignore[attr-defined]


def pytest_pycollect_makeitem(obj: Any) -> None:
    """Let tests run that tf2onnx skips for limits of its own."""
    for name, function in list(vars(obj).items()) if isinstance(obj, type) else ():
        if _OWN_LIMITS.search(getattr(function, "__unittest_skip_why__", "")):
            setattr(obj, name, function.__wrapped__)


def pytest_collection_finish() -> None:
    """Put graphkit in the place of tf2onnx, once the suite is imported."""
    from tf2onnx import convert

    base = sys.modules["backend_test_base"].Tf2OnnxBackendTestBase
    base.run_test_case = run_test_case
    convert._convert_common, convert.from_keras = convert_common, from_keras


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures, beside tf2onnx's."""
    passed, failed, skipped = _counted(terminalreporter)
    found = f"graphkit: {passed} passed, {failed} failed, {skipped} skipped of {passed + failed + skipped}"
    terminalreporter.write_line(f"{found}\n{PEER}")


def pytest_sessionfinish(session: Any) -> None:
    """A whole run fails where too few pass; a selection where any fails."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    whole = len(session.items) > NEEDED
    if whole:
        session.exitstatus = 0 if _counted(reporter)[0] >= NEEDED else 1


def _counted(reporter: Any) -> tuple[int, int, int]:
    """Tests that passed, failed and were skipped: a test with subtests has a report for each, and fails with any."""

    def tests(*outcomes: str) -> set[str]:
        return {report.nodeid for name in outcomes for report in reporter.stats.get(name, ())}

    failed = tests("failed", "error")
    skipped = tests("skipped") - failed
    return len(tests("passed") - failed - skipped), len(failed), len(skipped)


def run_test_case(
    test: Any,
    func: Any,
    feed_dict: dict[str, Any],
    input_names_with_port: list[str],
    output_names_with_port: list[str],
    rtol: float = 1e-07,
    atol: float = 1e-5,
    mtol: float | None = None,
    convert_var_to_const: bool = True,
    check_value: bool = True,
    check_shape: bool = True,
    check_dtype: bool = True,
    process_args: dict[str, Any] | None = None,
    onnx_feed_dict: dict[str, Any] | None = None,
    graph_validator: Any = None,
    as_session: bool = False,
    large_model: bool = False,
    premade_placeholders: bool = False,
    use_custom_ops: bool = False,
    optimize: bool = True,
) -> Any:
    """What the suite's own method does for TensorFlow, by graphkit's way; the arguments are the suite's."""
    del input_names_with_port, convert_var_to_const, optimize
    del use_custom_ops  # as `extra_opset`: leave to use operators outside ONNX, which graphkit never does
    arguments = process_args or {}
    expected, graph_def, tables = test.freeze_and_run_tf(
        func, feed_dict, output_names_with_port, as_session, premade_placeholders, large_model
    )
    outputs = dict(zip(output_names_with_port, expected, strict=False))  # a function may return more than it names
    try:
        proto = _translated(graph_def, feed_dict, outputs, tables or {}, arguments)
    except GraphkitError as refusal:
        raise ValueError(refusal.render()) from refusal  # what the suite expects of a refusal
    fed = feed_dict if onnx_feed_dict is None else onnx_feed_dict
    actual = test.run_onnxruntime(proto.SerializeToString(), fed, output_names_with_port)
    for position, name in enumerate(output_names_with_port):
        if name in arguments.get("outputs_as_nchw", ()):
            actual[position] = actual[position].transpose(0, 2, 3, 1)
    test.assert_results_equal(expected, actual, rtol, atol, mtol, check_value, check_shape, check_dtype)
    graph = _as_tf2onnx(proto, needed=graph_validator is not None)
    if graph_validator is not None and not graph_validator(graph):
        test.fail("the suite's validator refuses the graph")
    return graph


def convert_common(
    frozen_graph: Any,
    *,
    input_names: list[str] | None,
    output_names: list[str] | None,
    opset: int | None = None,
    tensors_to_rename: dict[str, str] | None = None,
    initialized_tables: dict[bytes, Any] | None = None,
    tflite_path: str | None = None,
    output_frozen_graph: str | None = None,
    output_path: str | None = None,
    large_model: bool = False,
    **unused: Any,
) -> tuple[Any, None]:
    """What every way into tf2onnx's API and command line ends in, by graphkit's way; the arguments are tf2onnx's."""
    from tf2onnx import utils

    if tflite_path is not None:
        return _written(_captured(Path(tflite_path), opset, ()), output_path, large_model=large_model), None
    names = tensors_to_rename or {}
    frozen = _frozen(frozen_graph, input_names or [], output_names or [], names, initialized_tables or {})
    if output_frozen_graph:
        utils.save_protobuf(output_frozen_graph, frozen_graph)
    return _written(_converted(frozen, opset or OPSET), output_path, large_model=large_model), None


def from_keras(
    model: Any,
    input_signature: Any = None,
    opset: int | None = None,
    large_model: bool = False,
    output_path: str | None = None,
    **unused: Any,
) -> tuple[Any, None]:
    """tf2onnx's `from_keras`. Keras 3 refuses shapes that the suite's signature has without the batch: it has its
    own for these."""
    from graphkit.shapes import TensorSpec

    ranks = {tensor.name: len(tensor.shape) for tensor in model.inputs}
    shapes = (TensorSpec(s.name, s.dtype.name, tuple(s.shape)) for s in input_signature or ())
    fitting = tuple(spec for spec in shapes if len(spec.shape or ()) == ranks.get(spec.name))
    return _written(_captured(model, opset, fitting), output_path, large_model=large_model), None


def _captured(source: Any, opset: int | None, shapes: tuple[Any, ...]) -> Any:
    from graphkit.capture.registry import recognise
    from graphkit.capture.request import CaptureRequest

    request = CaptureRequest(opset=opset or OPSET, shapes=shapes)
    return recognise(source, request).capture(request).to_proto()


def _written(proto: Any, path: str | None, *, large_model: bool) -> Any:
    """The model, in a file of tf2onnx's form where one is named."""
    from tf2onnx import utils
    from tf2onnx.graph import ExternalTensorStorage

    if path and large_model:
        utils.save_onnx_zip(path, proto, ExternalTensorStorage())
    elif path:
        utils.save_protobuf(path, proto)
    return proto


def _as_tf2onnx(proto: Any, *, needed: bool) -> Any:
    """The model as the suite's validators read it. tf2onnx 1.17 cannot read a branch that returns a constant."""
    from tf2onnx.graph import GraphUtil

    try:
        return GraphUtil.create_graph_from_onnx_model(proto)
    except AttributeError:
        if needed:
            raise
        return None


def _translated(
    graph_def: Any, feed: dict[str, Any], expected: dict[str, Any], tables: dict[bytes, Any], arguments: dict[str, Any]
) -> Any:
    from graphkit.capture.tf_frozen import Frozen, FrozenTensor
    from graphkit.shapes import TensorSpec

    def tensors(arrays: dict[str, Any]) -> tuple[FrozenTensor, ...]:
        return tuple(FrozenTensor(TensorSpec(n, _dtype(a), tuple(a.shape)), n) for n, a in arrays.items())

    frozen = Frozen(graph_def, tensors(feed), tensors(expected), tables=tables)
    layout = (*arguments.get("inputs_as_nchw", ()), *arguments.get("outputs_as_nchw", ()))
    return _converted(frozen, OPSET, layout)


def _frozen(graph_def: Any, inputs: list[str], outputs: list[str], names: dict[str, str], tables: Any) -> Any:
    """With dtypes and shapes as the graph has them; an input of no known rank is a vector."""
    import tensorflow as tf

    from graphkit.capture.tf_frozen import Frozen, FrozenTensor
    from graphkit.shapes import TensorSpec

    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")

    def tensors(wanted: list[str], unknown: tuple[None, ...] | None) -> tuple[FrozenTensor, ...]:
        found = [graph.get_tensor_by_name(name) for name in wanted]
        shapes = [unknown if t.shape.rank is None else tuple(t.shape.as_list()) for t in found]
        given = [names.get(name, name) for name in wanted]
        return tuple(
            FrozenTensor(TensorSpec(name, t.dtype.base_dtype.name, shape), t.name)
            for name, t, shape in zip(given, found, shapes, strict=True)
        )

    return Frozen(graph_def, tensors(inputs, (None,)), tensors(outputs, None), tables=tables)


def _converted(frozen: Any, opset: int, layout: tuple[str, ...] = ()) -> Any:
    from graphkit.capture.tf_to_onnx import to_onnx
    from graphkit.model import Model, Origin

    return Model(to_onnx(frozen, opset=opset, layout=layout), Origin("tf2onnx suite")).to_proto()


def _dtype(value: Any) -> str:
    return "string" if value.dtype.kind in "OSU" else str(value.dtype)


if __name__ == "__main__":
    sys.exit(main())
