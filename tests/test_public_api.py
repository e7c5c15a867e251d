"""`import graphkit as gk`: what is exported is what there is, and importing it costs nothing."""

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import graphkit as gk

HEAVY = (
    "click", "graphkit_cli", "networkx", "numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "onnxsim",
    "packaging", "polygraphy", "rich", "safetensors", "sympy", "tensorflow", "tensorrt", "tensorrt_rtx", "torch",
    "transformers",
)  # fmt: skip


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_all_is_what_type_checkers_see():
    tree = ast.parse(Path(gk.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    exported = {alias.asname for n in block.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    assert exported == set(gk.__all__) - {"__version__"}


def test_all_is_sorted_and_every_name_of_it_is_there():
    assert list(gk.__all__) == sorted(gk.__all__)
    assert dir(gk) == sorted(gk.__all__)
    assert all(getattr(gk, name) is not None for name in gk.__all__)


@pytest.mark.parametrize("name", [n for n in gk.__all__ if n != "__version__"])
def test_a_name_is_the_same_object_as_in_its_home(name):
    value = getattr(gk, name)
    assert getattr(importlib.import_module(value.__module__), name) is value


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'konvert'"):
        gk.konvert  # noqa: B018


def test_importing_graphkit_loads_no_library():
    assert loaded_by("import graphkit").isdisjoint(HEAVY)


def test_the_pipeline_loads_no_library_before_it_has_work():
    assert loaded_by("import graphkit.pipeline, graphkit.capture.registry").isdisjoint(HEAVY)


def test_recognising_a_torch_file_does_not_load_torch(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"PK\x03\x04 cut off")
    code = f"""
from pathlib import Path
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.errors import CorruptFile
try:
    recognise(Path({str(tmp_path / "m.pt")!r}), CaptureRequest())
except CorruptFile:
    pass
else:
    raise SystemExit("not refused")
"""
    assert loaded_by(code).isdisjoint(HEAVY)


def test_every_room_is_in_the_package():
    """An installation that is not editable has the packages that are listed, and no others."""
    root = Path(__file__).resolve().parents[1]
    listed = set(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(p.parent.relative_to(root).parts) for p in (root / "graphkit").rglob("__init__.py")}
    assert listed == found | {"graphkit_cli"}
