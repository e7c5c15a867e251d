"""Names of outputs and dimensions, and the user's source line on every node, for graphs that torch exported."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphkit.capture.io_names import free_name, values_of
from graphkit.capture.torch_source_line import line_of
from graphkit.errors import CaptureFailed
from graphkit.model import SourceLine, provenance, set_provenance
from graphkit.traversal import nodes_of

if TYPE_CHECKING:
    import onnx_ir as ir


_CLASSES, _SCOPES, _TRACE = (f"pkg.torch.onnx.{name}" for name in ("class_hierarchy", "name_scopes", "stack_trace"))
"""What torch's exporter writes on every node."""


def named_outputs(result: Any) -> list[tuple[str, Any]]:
    """Leaves of what `forward` returned, named by dict key, field name or position.

    A single tensor is `output`, the items of a tuple `output_0`, `output_1`, those of a dict their keys; inside
    each, the path with dots: `hidden.0`.

    Raises:
        CaptureFailed: a leaf is neither tensor, number nor None.
    """
    import torch
    from torch.utils import _pytree as pytree  # the only place that torch names leaves

    leaves, _ = pytree.tree_flatten_with_path(result)
    named: list[tuple[str, Any]] = []
    for path, leaf in leaves:
        if leaf is None:
            continue
        if not isinstance(leaf, torch.Tensor | int | float | bool):
            raise CaptureFailed(
                f"the model returns a {type(leaf).__name__}, which holds no tensors that torch can see",
                remedy="return tensors, or a tuple, list, dict or namedtuple of tensors",
            )
        named.append((_path_name(path), leaf))
    return _unique(named)


def rename_dims(model: ir.Model, names: Mapping[str, str]) -> None:
    """Replace symbols in the shape of every value, also inside expressions: `2*s77` becomes `2*batch`."""
    import onnx_ir as ir

    if not names:
        return
    word = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for value in _all_values(model):
        if value.shape is None or not any(isinstance(d, ir.SymbolicDim) for d in value.shape):
            continue
        dims = [
            word.sub(lambda m: names[m.group()], d.value) if isinstance(d, ir.SymbolicDim) and d.value else d
            for d in value.shape
        ]
        value.shape = ir.Shape(dims)


def keep_provenance(model: ir.Model) -> None:
    """Turn torch's node metadata into source lines, and drop the rest: it holds absolute paths and repeats itself."""
    for node in model.graph.all_nodes():
        _from_torch_metadata(node)
    for function in model.functions.values():
        for node in function.all_nodes():
            _from_torch_metadata(node)
    for value in _all_values(model):
        for key in [k for k in value.metadata_props if k.startswith("pkg.")]:
            del value.metadata_props[key]
    for key in [k for k in model.graph.metadata_props if k.startswith("pkg.")]:
        del model.graph.metadata_props[key]


def learn_provenance(model: ir.Model) -> None:
    """Give source lines to the nodes of a file that torch exported, where graphkit has not; the metadata stays."""
    known: dict[tuple[str, str, str], tuple[SourceLine, ...]] = {}
    for node in nodes_of(model.graph):
        metadata = node.metadata_props
        if _SCOPES not in metadata and _TRACE not in metadata:
            continue
        if provenance(node):
            continue
        key = metadata.get(_SCOPES, ""), metadata.get(_TRACE, ""), metadata.get(_CLASSES, "")
        if key not in known:
            known[key] = _line_in(metadata)
        set_provenance(node, known[key])


def _from_torch_metadata(node: ir.Node) -> None:
    metadata = node.metadata_props
    lines = _line_in(metadata)
    for key in [k for k in metadata if k.startswith("pkg.") or k == "namespace"]:
        del metadata[key]
    set_provenance(node, lines)


def _line_in(metadata: Mapping[str, str]) -> tuple[SourceLine, ...]:
    classes = _literal_list(metadata.get(_CLASSES))
    scopes = _literal_list(metadata.get(_SCOPES))
    module = next((s for s in reversed(scopes[:-1]) if s and s not in _NO_MODULE), "")
    line = line_of(metadata.get(_TRACE, ""), module, classes[:-1])
    if line is None and module:
        line = SourceLine(module)
    return (line,) if line else ()


# torch.export's name for the module stack of nodes that its own passes insert.
_NO_MODULE = {"_empty_nn_module_stack_from_metadata_hook"}


def _literal_list(text: str | None) -> list[str]:
    try:
        value = ast.literal_eval(text or "[]")
    except (ValueError, SyntaxError):
        return []
    return [str(v) for v in value] if isinstance(value, list) else []


def _path_name(path: tuple[Any, ...]) -> str:
    if not path:
        return "output"
    keys = [str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path]
    if hasattr(path[0], "idx"):
        keys[0] = f"output_{keys[0]}"
    return ".".join(keys)


def _unique(named: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    seen: set[str] = set()
    result = []
    for name, value in named:
        result.append((free_name(name, seen), value))
        seen.add(result[-1][0])
    return result


def _all_values(model: ir.Model) -> list[ir.Value]:
    values = values_of(model.graph)
    for function in model.functions.values():
        values.extend(function.inputs)
        values.extend(output for node in function.all_nodes() for output in node.outputs)
    return values
