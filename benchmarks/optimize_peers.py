"""The optimisers that are compared, each as a function from file to file; every one is run in a child of its own.

`python -m benchmarks.optimize_peers TOOL GIVEN MADE` optimises one file and prints one line of JSON: seconds of
loading, optimising and saving, memory beyond the imports in bytes, and the version. Exit code 3: not installed.
The interpreter may be another one than graphkit's: only `graphkit*` needs graphkit.
"""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

NOT_INSTALLED = 3
LARGE = 1_500_000_000
"""Bytes of weights above which a proto cannot hold them."""


@dataclass(frozen=True, slots=True)
class Tool:
    """An optimiser.

    Attributes:
        run: Reads the first file, writes the second.
        modules: What it imports; they are imported before anything is measured.
        package: Distribution whose version is told.
        only_transformers: Whether it is for transformers alone.
        ours: Whether it is graphkit.
    """

    run: Callable[[Path, Path], None]
    modules: tuple[str, ...]
    package: str
    only_transformers: bool = False
    ours: bool = False


def main() -> int:
    """Optimise one file."""
    name, given, made = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    tool = TOOLS[name]
    if (missing := absent(tool)) is not None:
        print(json.dumps({"missing": missing}))
        return NOT_INSTALLED
    before, started = _peak(), time.perf_counter()
    tool.run(given, made)
    taken = time.perf_counter() - started
    found = {"seconds": taken, "bytes": max(0, _peak() - before), "version": version(tool.package)}
    print(json.dumps(found))
    return 0


def absent(tool: Tool) -> str | None:
    """The first module of this tool that cannot be imported; None where all can."""
    for module in tool.modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            return error.name or module
    return None


def _peak() -> int:
    """Bytes that this process held at its peak, and its largest child."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024


def _graphkit(given: Path, made: Path, target: str) -> None:
    from graphkit.optimization import optimize

    optimize(given, target=target, verify="none").model.save(made, durable=False)


def _onnxsim(given: Path, made: Path) -> None:
    import onnx
    import onnxsim

    if _is_large(given):
        onnxsim.simplify(str(given), output_path=str(made))
        return
    # beyond two dimensions this one adds Shape, Slice and Reshape around each Gemm: BERT gets more nodes, not fewer
    model, _ = onnxsim.simplify(onnx.load(given), skipped_optimizers=["fuse_matmul_add_bias_into_gemm_batched"])
    onnx.save(model, made)


def _onnxslim(given: Path, made: Path) -> None:
    import onnx
    import onnxslim  # type: ignore[import-not-found, unused-ignore]

    _save(onnxslim.slim(onnx.load(given)), made, large=_is_large(given))


def _onnxscript(given: Path, made: Path, fusions: bool = False) -> None:
    import onnx_ir as ir
    from onnxscript import optimizer
    from onnxscript.rewriter import ort_fusions

    model = ir.load(given)
    optimizer.optimize(model)
    if fusions:
        ort_fusions.optimize_for_ort(model)
    ir.save(model, made, external_data=f"{made.name}.data" if _is_large(given) else None)


def _onnxscript_ort(given: Path, made: Path) -> None:
    _onnxscript(given, made, fusions=True)


def _onnxoptimizer(given: Path, made: Path) -> None:
    import onnx
    import onnxoptimizer  # type: ignore[import-not-found, unused-ignore]

    passes = onnxoptimizer.get_fuse_and_elimination_passes()
    _save(onnxoptimizer.optimize(onnx.load(given), passes, fixed_point=True), made, large=_is_large(given))


def _ort(given: Path, made: Path, level: str) -> None:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    settings.optimized_model_filepath = str(made)
    settings.log_severity_level = 4
    if _is_large(given):
        sidecar = "session.optimized_model_external_initializers_file_name"
        settings.add_session_config_entry(sidecar, f"{made.name}.data")
    ort.InferenceSession(given, settings, providers=["CPUExecutionProvider"])


def _ort_transformers(given: Path, made: Path) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    kinds = {"gpt2": "gpt2", "llama": "gpt2", "vit": "vit", "unetish": "unet"}
    kind = next((kind for stem, kind in kinds.items() if given.name.startswith(stem)), "bert")
    optimize_model(str(given), model_type=kind, opt_level=0).save_model_to_file(str(made))


def _graphsurgeon(given: Path, made: Path) -> None:
    import onnx
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(onnx.load(given))
    graph.fold_constants().cleanup().toposort()
    _save(gs.export_onnx(graph), made, large=_is_large(given))


def _polygraphy(given: Path, made: Path) -> None:
    # in a folder of its own: it leaves copies of the weights in the current one
    with tempfile.TemporaryDirectory(prefix="graphkit-bench-") as folder:
        command = [
            sys.executable,
            "-c",
            "from polygraphy.tools import main; main()",
            "surgeon",
            "sanitize",
            str(given.resolve()),
        ]
        command += ["--fold-constants", "--cleanup", "-o", str(made.resolve())]
        command += ["--save-external-data", f"{made.name}.data"] if _is_large(given) else []
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _save(model: object, made: Path, *, large: bool) -> None:
    import onnx

    location = f"{made.name}.data"
    onnx.save(model, made, save_as_external_data=large, location=location)  # type: ignore[arg-type]


def _is_large(given: Path) -> bool:
    return sum(file.stat().st_size for file in given.parent.glob(f"{given.name}*")) > LARGE


def _ours(target: str) -> Tool:
    modules = ("graphkit.optimization", "onnx_ir")
    return Tool(lambda given, made: _graphkit(given, made, target), modules, "graphkit-onnx", ours=True)


def _ort_at(level: str) -> Tool:
    return Tool(lambda given, made: _ort(given, made, level), ("onnxruntime",), "onnxruntime")


TOOLS: dict[str, Tool] = {
    "graphkit": _ours("onnx"),
    "graphkit_rtx": _ours("rtx"),
    "onnxsim": Tool(_onnxsim, ("onnx", "onnxsim"), "onnxsim"),
    "onnxslim": Tool(_onnxslim, ("onnx", "onnxslim"), "onnxslim"),
    "onnxscript": Tool(_onnxscript, ("onnx_ir", "onnxscript.optimizer"), "onnxscript"),
    "onnxscript_ort": Tool(_onnxscript_ort, ("onnx_ir", "onnxscript.rewriter.ort_fusions"), "onnxscript"),
    "onnxoptimizer": Tool(_onnxoptimizer, ("onnx", "onnxoptimizer"), "onnxoptimizer"),
    "ort_basic": _ort_at("BASIC"),
    "ort_extended": _ort_at("EXTENDED"),
    "ort_all": _ort_at("ALL"),
    "ort_transformers": Tool(_ort_transformers, ("onnxruntime.transformers.optimizer",), "onnxruntime", True),
    "graphsurgeon": Tool(_graphsurgeon, ("onnx", "onnx_graphsurgeon"), "onnx-graphsurgeon"),
    "polygraphy": Tool(_polygraphy, ("polygraphy", "onnx_graphsurgeon"), "polygraphy"),
}
"""Ours for `onnx` and for `rtx`, then the peers."""

if __name__ == "__main__":
    sys.exit(main())
