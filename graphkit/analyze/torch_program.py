"""An exported program (`.pt2`), from its JSON: signature with ranges, operators, weights.

Source: torch/_export/serde/schema.py of PyTorch 2.13.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from graphkit.analyze.inspection import Inspection, Stored, totals
from graphkit.capture import torch_pt2
from graphkit.capture.torch_archive import Archive, read_member
from graphkit.errors import CorruptFile, UntrustedSource
from graphkit.shapes import Dim, TensorSpec

_AGAIN = "copy or save it again"
_DTYPES = (
    "", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "", "complex64", "complex128",
    "bool", "bfloat16",
)  # fmt: skip


def look_at(archive: Archive) -> Inspection:
    """What an exported program holds. Raises: `CorruptFile`."""
    members = [name.removeprefix(archive.root) for name in archive.members]
    models = [name for name in members if name.startswith("models/") and name.endswith(".json")]
    path = archive.path
    if not models:
        raise CorruptFile(f"{path.name} is a .pt2 archive without a model", remedy=_AGAIN)
    try:
        program = json.loads(read_member(archive, models[0]))
        graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
        values = graph["tensor_values"]
        sources, results = _signature(signature)
        inputs = tuple(_spec(name, values) for kind, name, _ in sources if kind == "user_input")
        outputs = tuple(_spec(name, values) for name in results)
        stored = tuple(
            _stored(target, values[name]) for kind, name, target in sources if kind != "user_input" and target
        )
        calls = Counter(_short(node["target"]) for node in graph["nodes"])
        facts = _facts(program)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CorruptFile(f"{path.name} is a damaged exported program: {error!r}", remedy=_AGAIN) from error
    operators = tuple(sorted(calls.items(), key=lambda row: (-row[1], row[0])))
    notes = ["cost and memory are those of its ONNX (graphkit convert)"]
    if len(models) > 1:
        notes.append(f"of {len(models)} programs in the archive this is {models[0]}")
    try:
        torch_pt2.check(archive)
    except UntrustedSource as refusal:
        notes.append(refusal.message)
    return Inspection(
        path.name, "exported program (.pt2)", path.stat().st_size, facts, inputs, outputs, operators, totals(stored),
        stored, tuple(notes),
    )  # fmt: skip


_TARGETS = ("parameter_name", "buffer_name", "tensor_constant_name")


def _signature(signature: dict[str, Any]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Kind, name in the graph and name in the model of each input; names of what the user gets."""
    sources = []
    for each in signature["input_specs"]:
        ((kind, content),) = each.items()
        argument = content["arg"]
        if "as_tensor" in argument:
            argument = argument["as_tensor"]
        target = (
            content.get("parameter_name") or content.get("buffer_name") or content.get("tensor_constant_name") or ""
        )
        if "name" in argument:
            sources.append((kind, str(argument["name"]), str(target)))
    results = []
    for each in signature["output_specs"]:
        content = each.get("user_output")
        if content is not None and "as_tensor" in content["arg"]:
            results.append(str(content["arg"]["as_tensor"]["name"]))
    return sources, results


def _spec(name: str, values: dict[str, Any]) -> TensorSpec:
    if name not in values:
        return TensorSpec(name, None, None)
    value = values[name]
    return TensorSpec(name, _dtype(value["dtype"]), tuple(_dim(size) for size in value["sizes"]))


def _stored(name: str, value: dict[str, Any]) -> Stored:
    dims = tuple(int(size["as_int"]) for size in value["sizes"])
    return Stored(name, _dtype(value["dtype"]) or "unknown", dims)


def _dtype(code: int) -> str | None:
    return (_DTYPES[code] or None) if 0 <= code < len(_DTYPES) else None


_SYMBOL = re.compile(r"Symbol\('(\w+)'[^)]*\)")


def _dim(size: dict[str, Any]) -> Dim:
    if "as_int" in size:
        return int(size["as_int"])
    return _SYMBOL.sub(r"\1", str(size["as_expr"]["expr_str"]))[:80]


def _short(target: str) -> str:
    return target.removeprefix("torch.ops.")


def _facts(program: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    version = program.get("schema_version", {})
    facts = [("schema", f"{version.get('major')}.{version.get('minor')}")]
    if program.get("torch_version"):
        facts.append(("torch", str(program["torch_version"])))
    for symbol, limits in program.get("range_constraints", {}).items():
        low, high = limits.get("min_val"), limits.get("max_val")
        facts.append((f"range of {symbol}", f"{low} to {'any' if high is None else high}"))
    return tuple(facts)
