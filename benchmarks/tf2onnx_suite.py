"""tf2onnx's own backend tests, with graphkit's translation in the place of tf2onnx's.

`python -m benchmarks.tf2onnx_suite CHECKOUT [PYTEST ARGUMENT ...]` runs them in a checkout of
https://github.com/onnx/tensorflow-onnx (Apache-2.0), of which nothing is kept here. TensorFlow's reference and the
freezing are the suite's; `run_test_case` then goes through `to_onnx`, the checker and ONNX Runtime. Tests of tf2onnx's
own API and command line (test_api, test_convert) do not pass there and count as they are. `--peer` runs the suite
untouched.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import unittest
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
    return subprocess.run(command, cwd=options.checkout, env=_environment(), check=False).returncode


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


def pytest_collection_finish() -> None:
    """Put graphkit in the place of tf2onnx, once the suite is imported."""
    base = sys.modules["backend_test_base"].Tf2OnnxBackendTestBase
    base.run_test_case = run_test_case


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures, beside tf2onnx's."""

    def tests(*outcomes: str) -> int:  # a test with subtests has a report for each
        return len({report.nodeid for name in outcomes for report in terminalreporter.stats.get(name, ())})

    passed, failed, skipped = tests("passed"), tests("failed", "error"), tests("skipped")
    found = f"graphkit: {passed} passed, {failed} failed, {skipped} skipped of {passed + failed + skipped}"
    terminalreporter.write_line(f"{found}\n{PEER}")


def pytest_sessionfinish(session: Any) -> None:
    """A whole run fails where too few pass; a selection where any fails."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    whole = len(session.items) > NEEDED
    if whole:
        session.exitstatus = 0 if len(reporter.stats.get("passed", ())) >= NEEDED else 1


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
    arguments = process_args or {}
    if use_custom_ops or arguments.get("extra_opset"):
        raise unittest.SkipTest("operators outside ONNX are no part of graphkit's translation")
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
    from graphkit.capture.tf_to_onnx import to_onnx
    from graphkit.model import Model, Origin
    from graphkit.shapes import TensorSpec

    def tensors(arrays: dict[str, Any]) -> tuple[FrozenTensor, ...]:
        return tuple(FrozenTensor(TensorSpec(n, _dtype(a), tuple(a.shape)), n) for n, a in arrays.items())

    frozen = Frozen(graph_def, tensors(feed), tensors(expected), tables=tables)
    layout = (*arguments.get("inputs_as_nchw", ()), *arguments.get("outputs_as_nchw", ()))
    return Model(to_onnx(frozen, opset=OPSET, layout=layout), Origin("tf2onnx suite")).to_proto()


def _dtype(value: Any) -> str:
    return "string" if value.dtype.kind in "OSU" else str(value.dtype)


if __name__ == "__main__":
    sys.exit(main())
