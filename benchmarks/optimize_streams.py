"""Patterns, semantics and node tests with one optimiser in one child: a line of JSON each, as they are finished.

`python -m benchmarks.optimize_streams patterns|semantics|nodes TOOL [SKIPPED]`: the first SKIPPED are left out, so
that whoever reads goes on behind the graph that killed the child.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from benchmarks.optimize_peers import NOT_INSTALLED, TOOLS, absent
from fixtures.patterns import Optimise, all_patterns, run_case, run_pattern


def main() -> int:
    """Print one outcome a line; first the name, so that a crash can be told."""
    what, tool, skipped = sys.argv[1], TOOLS[sys.argv[2]], int(sys.argv[3]) if len(sys.argv) > 3 else 0
    shown, sys.stdout = sys.stdout, io.StringIO()  # optimisers print
    if (missing := absent(tool)) is not None:
        print(json.dumps({"missing": missing}), file=shown)
        return NOT_INSTALLED
    with tempfile.TemporaryDirectory(prefix="graphkit-bench-") as folder:
        for index, (name, judged) in enumerate(_work(what, in_memory(sys.argv[2], Path(folder)))):
            if index < skipped:
                continue
            print(json.dumps({"begun": name}), file=shown, flush=True)
            print(json.dumps({"name": name, **judged()}), file=shown, flush=True)
            sys.stdout = io.StringIO()
    return 0


def in_memory(name: str, folder: Path) -> Optimise:
    """An optimiser of files as one of protos."""

    def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
        given, made = folder / "given.onnx", folder / "made.onnx"
        made.unlink(missing_ok=True)
        onnx.save(model, given)
        TOOLS[name].run(given, made)
        return onnx.load(made)

    return optimise


def _work(what: str, optimise: Optimise) -> Iterator[tuple[str, Any]]:
    if what == "patterns":
        for pattern in all_patterns():
            yield pattern.name, lambda pattern=pattern: run_pattern(pattern, optimise).to_json()
    elif what == "semantics":
        from fixtures.patterns_semantics import cases

        for case in cases():
            yield case.name, lambda case=case: run_case(case, optimise).to_json()
    else:
        from benchmarks.optimize_node_tests import judged, tests

        for test in tests():
            yield test.name, lambda test=test: judged(test, optimise)


if __name__ == "__main__":
    sys.exit(main())
