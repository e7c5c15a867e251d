"""The user's source line of every node of a graph that came through TorchScript.

TorchScript keeps the innermost line of each operation. Inside a stock layer that is a line of the framework's; then
the line that calls the layer is looked up in the scripted modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from graphkit.capture.torch_source_line import is_users, shown
from graphkit.model import SourceLine, set_provenance

if TYPE_CHECKING:
    import onnx_ir as ir

SHELL = "graphkit_flattened"
OWN = "own"  # marks a line as the user's while it travels in SourceLine.function
_SCRIPT_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_TRACE_FRAME = re.compile(r"([^\s(:]+\.py)\((\d+)\): \S+")


Calls = dict[str, SourceLine]
Layers = dict[tuple[str | None, int | None], list[str]]


def keep_provenance(model: ir.Model, calls: Calls, layers: Layers) -> None:
    """The exporter gives a node the innermost line, often a stock layer's; the line that calls the layer says more."""
    for node in model.graph.all_nodes():
        scope = (node.name or "").strip("/").split("/")[:-1]
        module = ".".join(s for s in scope if s and s != SHELL)
        line = users_line(node.doc_string or "")
        node.doc_string = None
        if line is not None and line.function == OWN:
            found = [SourceLine(module, line.file, line.line)]
        else:
            paths = [module] if module or line is None else layers.get((line.file, line.line), [])
            callers = [(p, next((calls[a] for a in _ancestors(p) if a in calls), line)) for p in paths]
            found = [SourceLine(p, c.file, c.line) if c else SourceLine(p) for p, c in callers if p or c]
            if not found and line is not None:
                found = [SourceLine(module, line.file, line.line)]
        set_provenance(node, found)


def line_of_operator(script: Any, operator: str) -> str | None:
    """The user's line of the first call of an operator (`aten::linalg_svd`) in a scripted module."""
    if not operator or not hasattr(script, "inlined_graph"):
        return None
    graph = script.inlined_graph  # held: a node is invalid once nobody holds the graph, which is made at each access
    found = next((n for n in nodes(graph) if n.kind() == operator), None)
    line = users_line(found.sourceRange()) if found is not None else None
    return f"{line.file}:{line.line}" if line else None


def raising_lines(script: Any) -> list[SourceLine]:
    """Lines of the user's own that raise an error in a scripted module: ONNX has nothing of the kind."""
    if not hasattr(script, "inlined_graph"):
        return []
    found = (users_line(n.sourceRange()) for n in nodes(script.inlined_graph) if n.kind() == "prim::RaiseException")
    own = [SourceLine("", line.file, line.line) for line in found if line is not None and line.function == OWN]
    return list(dict.fromkeys(own))


def layer_lines(script: Any, calls: Calls) -> Layers:
    """For each line of a framework's layer, the called modules that hold it: a recurrent layer loses its scope."""
    import torch

    found: Layers = {}
    if not isinstance(script, torch.jit.ScriptModule):
        return found
    for path, module in script.named_modules():
        shown_path = path.removeprefix(SHELL).strip(".")
        if shown_path not in calls:
            continue
        for method in module._c._method_names():
            for node in nodes(module._c._get_method(method).graph):
                line = users_line(node.sourceRange())
                if line is not None and line.function != OWN:
                    paths = found.setdefault((line.file, line.line), [])
                    if shown_path not in paths:
                        paths.append(shown_path)
    return found


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def call_lines(script: Any) -> Calls:
    """For each submodule of a scripted module, the user's line that calls it (or calls its container)."""
    import torch

    if not isinstance(script, torch.jit.ScriptModule):
        return {}
    modules = dict(script.named_modules())
    found: dict[str, SourceLine] = {}
    pending: list[tuple[str, SourceLine | None]] = [("", None)]
    while pending:
        path, inherited = pending.pop()
        for child, line in _calls_of(modules[path]):
            full = f"{path}.{child}".strip(".")
            if full not in modules:
                continue
            line = line if line is not None and line.function == OWN else inherited
            if line is not None:
                found.setdefault(full.removeprefix(SHELL).strip("."), line)
            pending.append((full, line))
    return found


def _calls_of(module: Any) -> Iterator[tuple[str, SourceLine | None]]:
    """Submodules that a scripted module's `forward` calls, and where."""
    try:
        graph = module.graph
    except RuntimeError:  # a container or interface without a forward of its own
        return
    owners: dict[str, str] = {}
    for node in nodes(graph):
        if node.kind() == "prim::GetAttr":
            owner = owners.get(node.input().debugName(), "")
            owners[node.output().debugName()] = f"{owner}.{node.s('name')}".strip(".")
        elif node.kind() == "prim::CallMethod" and next(node.inputs()).debugName() in owners:
            yield owners[next(node.inputs()).debugName()], users_line(node.sourceRange())


def users_line(text: str) -> SourceLine | None:
    """The innermost line of the user's own in what TorchScript prints about a node, else the framework's."""
    before = text.partition("Serialized ")[0]
    frames = [(f, int(n)) for f, n in (*_SCRIPT_FRAME.findall(before), *_TRACE_FRAME.findall(before))]
    own = [f for f in frames if is_users(f[0])]
    if own:
        return SourceLine("", shown(own[0][0]), own[0][1], OWN)
    return SourceLine("", shown(frames[0][0]), frames[0][1]) if frames else None


def nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes(inner)
