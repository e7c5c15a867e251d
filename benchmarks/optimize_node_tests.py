"""onnx's own node tests after optimisation: those that ONNX Runtime runs and passes before, how many does it after?

`python -m benchmarks.optimize_node_tests [--tools ours,peers] [--to FILE]`. Inputs, expected outputs and tolerances are
the test's own; ONNX Runtime's optimisations are off on both sides. Results are kept and taken up again.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fixtures.patterns import Optimise

COMPARED = ("graphkit", "onnxsim", "onnxscript", "onnxslim", "onnxoptimizer", "ort_basic")


def main() -> int:
    """Run the tests with every tool; exit code 1 where one of ours fails."""
    from benchmarks.optimize_runs import stream

    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimize_node_tests", description=__doc__)
    parser.add_argument("--tools", default=",".join(COMPARED), help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("build/optimize"), help="where results are kept")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--again", default="", help="tools whose kept results are dropped")
    parser.add_argument("--to", type=Path, help="the page")
    options = parser.parse_args()
    rows, bad = [], 0
    for name in options.tools.split(","):
        found = stream("nodes", name, options.work, options.python, again=name in options.again.split(","))
        rows.append(_row(name, found))
        failed = [each for each in found if each.get("verdict") in ("wrong", "error", "crash")]
        bad += len(failed) if name.startswith("graphkit") else 0
        for each in failed[:20]:
            print(f"{name}: {each['name']}: {each['verdict']}: {each.get('detail', '')}", file=sys.stderr)
    head = "| tool | tests | not run before | good | wrong | refused or crashed | share |"
    text = "\n".join([head, "|" + "---|" * 7, *rows, ""])
    print(text)
    if options.to is not None:
        options.to.write_text(f"# ONNX node tests after optimisation\n\n{text}", encoding="utf-8")
    return 1 if bad else 0


def tests() -> Iterator[Any]:
    """The node tests, by name: those without another domain's operators."""
    from onnx.backend.test.loader import load_model_tests

    yield from sorted(load_model_tests(kind="node"), key=lambda test: test.name)


def judged(test: Any, optimise: Optimise) -> dict[str, Any]:
    """`verdict`: `not run` (ONNX Runtime did not pass it before), `good`, `wrong` or `error`, with a `detail`."""
    model = test.model
    if (before := _passes(model, test)) != "":
        return {"verdict": "not run", "detail": before}
    try:
        after = optimise(model)
    except Exception as error:  # any optimiser, any error
        return {"verdict": "error", "detail": f"{type(error).__name__}: {str(error)[:160]}"}
    wrong = _passes(after, test)
    return {"verdict": "wrong" if wrong else "good", "detail": wrong}


def _passes(model: Any, test: Any) -> str:
    """What is wrong with the outputs; "" where they are as expected."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        for given, expected in test.data_sets:
            names = [value.name for value in session.get_inputs()]
            found = session.run(None, dict(zip(names, given, strict=False)))
            for left, right in zip(expected, found, strict=True):
                _require_equal(left, right, test)
    except AssertionError as error:
        return f"not equal: {' '.join(str(error).split())[:160]}"
    except Exception as error:  # ONNX Runtime raises many classes
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return ""


def _require_equal(left: Any, right: Any, test: Any) -> None:
    if left is None or right is None:
        assert left is right, "an optional is empty on one side only"
    elif isinstance(left, list):
        assert len(left) == len(right), "another length"
        for a, b in zip(left, right, strict=True):
            _require_equal(a, b, test)
    elif left.dtype.kind in "UO":
        np.testing.assert_array_equal(np.asarray(left, object), np.asarray(right, object))
    else:
        assert left.dtype == right.dtype, f"{left.dtype} became {right.dtype}"
        assert left.shape == right.shape, f"{left.shape} became {right.shape}"
        np.testing.assert_allclose(left, right, rtol=test.rtol, atol=test.atol)


def _row(name: str, found: list[dict[str, Any]]) -> str:
    if not found or "missing" in found[0]:
        return f"| {name} | not installed | | | | | |"
    counts = Counter(each["verdict"] for each in found)
    ran = len(found) - counts["not run"]
    refused = counts["error"] + counts["crash"]
    share = f"{counts['good'] / ran:.2%}" if ran else "-"
    return (
        f"| {name} | {len(found)} | {counts['not run']} | {counts['good']} | {counts['wrong']} | {refused} | {share} |"
    )


if __name__ == "__main__":
    sys.exit(main())
