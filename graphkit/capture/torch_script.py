"""The second way of capturing a PyTorch module: TorchScript, which keeps branches and loops as `If` and `Loop`.

`torch.onnx.export(..., dynamo=False)` translates a scripted module node by node. It flattens tuples, but refuses
dicts, and unrolls nothing. Tracing goes through the same exporter after recording one run; it keeps no branch.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graphkit.capture.torch_example import Leaf
from graphkit.capture.torch_export import DEFAULT_OPSET, quiet
from graphkit.capture.torch_load import first_line
from graphkit.capture.torch_source_line import is_users, shown
from graphkit.errors import CaptureFailed, OpsetNotHonoured, UnsupportedOperator
from graphkit.model import Finding, SourceLine, set_provenance

if TYPE_CHECKING:
    import onnx_ir as ir

_LATEST_OPSET = 23  # RuntimeError "Unsupported onnx_opset_version: 24" in torch 2.13


@dataclass(frozen=True, slots=True)
class Scripted:
    """A graph from TorchScript, and the branches that tracing froze."""

    model: ir.Model
    frozen: tuple[Finding, ...] = ()


def to_script(module: Any) -> Any:
    """The module compiled to TorchScript.

    Raises:
        CaptureFailed: TorchScript cannot compile its code.
    """
    import torch

    if is_script(module):
        return module
    try:
        with quiet():
            return torch.jit.script(module)
    except Exception as error:  # the compiler raises RuntimeError, NotSupportedError, OSError, TypeError ...
        raise CaptureFailed(f"TorchScript cannot compile the module: {_sentence(error)}") from error


def is_script(module: Any) -> bool:
    """Whether `module` is TorchScript already: a module or a function."""
    import torch

    return isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction)


def script_to_onnx(
    script: Any, leaves: tuple[Leaf, ...], arguments: dict[str, Any], result: Any, opset: int | None
) -> Scripted:
    """A scripted module as ONNX.

    Args:
        script: TorchScript module or function.
        leaves, arguments: Its inputs, and their values.
        result: What it returned for them, whose structure is flattened.
        opset: The opset, exactly; None for the default.

    Raises:
        UnsupportedOperator, CaptureFailed, OpsetNotHonoured
    """
    flat = [arguments[leaf.param] for leaf in leaves]
    target = script
    if any(leaf.path for leaf in leaves) or _is_nested(result):
        target = _flattened(script, leaves, result)
        flat = [_at(arguments[leaf.param], leaf.path) for leaf in leaves]
    return _export(target, tuple(flat), leaves, opset)


def trace_to_onnx(module: Any, leaves: tuple[Leaf, ...], arguments: dict[str, Any], opset: int | None) -> Scripted:
    """A recording of one run as ONNX, with every branch that it froze.

    Raises:
        UnsupportedOperator, CaptureFailed, OpsetNotHonoured
    """
    if any(leaf.path for leaf in leaves):
        raise CaptureFailed("tracing does not take dicts or lists of tensors", remedy="--via export")
    return _export(module, tuple(arguments[leaf.param] for leaf in leaves), leaves, opset)


def mutated_state(script: Any) -> list[tuple[str, SourceLine | None]]:
    """Attributes and buffers that a TorchScript module writes when it is evaluated, with the user's line.

    Freezing removes what only training does (BatchNorm counts its batches there); what it leaves is compared by name
    with the graph before, which still has the lines.
    """
    import torch

    written = _written(script.inlined_graph)
    if not written or not isinstance(script, torch.jit.ScriptModule):
        return list(written.items())
    with quiet():
        try:
            frozen = torch.jit.freeze(script.eval(), optimize_numerics=False)
        except RuntimeError:  # freezing refuses some interfaces; then nothing is known to be dead
            return list(written.items())
    left = _written(frozen.inlined_graph)
    return [(name, line) for name, line in written.items() if name in left]


def _written(graph: Any) -> dict[str, SourceLine | None]:
    """Attributes that a graph writes: by `prim::SetAttr`, or an operator in place (a trailing underscore)."""
    found: dict[str, SourceLine | None] = {}
    owners: dict[str, str] = {}
    last: SourceLine | None = None
    for node in _nodes(graph):
        line = _line(node.sourceRange())
        last = replace(line, function=None) if line else last
        kind = node.kind()
        first = next(node.inputs(), None)
        owner = owners.get(first.debugName()) if first is not None else None
        if kind == "prim::GetAttr":
            owners[node.output().debugName()] = f"{owner or ''}.{node.s('name')}".strip(".")
        elif kind == "prim::SetAttr":
            found.setdefault(f"{owner or ''}.{node.s('name')}".strip("."), last)
        elif owner is not None and kind.startswith("aten::") and kind.endswith("_") and not kind.endswith("__"):
            found.setdefault(owner, last)
        elif owner is not None and kind in _VIEWS:
            owners[node.output().debugName()] = owner
    return found


_VIEWS = {"aten::view", "aten::select", "aten::slice", "aten::reshape", "aten::squeeze", "aten::unsqueeze",
          "aten::transpose", "aten::permute", "aten::detach", "aten::expand", "aten::alias", "prim::data"}  # fmt: skip


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


# --- the exporter ------------------------------------------------------------------------------------------------


def _export(target: Any, flat: tuple[Any, ...], leaves: tuple[Leaf, ...], opset: int | None) -> Scripted:
    import onnx_ir as ir
    import torch

    if opset is not None and opset > _LATEST_OPSET:
        raise OpsetNotHonoured(f"the TorchScript exporter ends at opset {_LATEST_OPSET}, {opset} was asked for")
    names = [leaf.name for leaf in leaves]
    axes = {x.name: {a: d for a, d in enumerate(x.spec.shape or ()) if isinstance(d, str)} for x in leaves}
    buffer = io.BytesIO()
    with quiet(), _source_lines(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            torch.onnx.export(
                target, flat, buffer, dynamo=False, input_names=names, opset_version=opset or DEFAULT_OPSET,
                dynamic_axes={k: v for k, v in axes.items() if v}, verbose=True, do_constant_folding=True,
            )  # fmt: skip
        except torch.onnx.errors.UnsupportedOperatorError as error:
            operator = str(error).partition("operator '")[2].partition("'")[0]
            raise UnsupportedOperator(
                f"no ONNX translation for operator `{operator}`" if operator else _sentence(error),
                data={"operators": [operator] if operator else []},
                remedy="write it with other operators, or convert a part of the model with --submodule",
            ) from error
        except Exception as error:  # the exporter is C++: RuntimeError with any text
            raise CaptureFailed(f"TorchScript export failed: {_sentence(error)}") from error
    model = ir.serde.deserialize_model(_parse(buffer.getvalue()))
    _keep_provenance(model, _call_lines(target))
    return Scripted(model, tuple(_frozen_branches(caught)))


def _parse(data: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(data)


@contextlib.contextmanager
def _source_lines() -> Iterator[None]:
    """`verbose=True` keeps the source line of every node as its doc_string, but also prints the whole graph; only
    the printing is taken away (no option separates the two in torch 2.13)."""
    from torch.onnx._internal.torchscript_exporter import utils

    original = utils.setup_onnx_logging
    utils.setup_onnx_logging = lambda _: contextlib.nullcontext()
    try:
        yield
    finally:
        utils.setup_onnx_logging = original


def _keep_provenance(model: ir.Model, calls: dict[str, SourceLine]) -> None:
    """The exporter gives a node the innermost line, often a stock layer's; the line that calls the layer says more."""
    for node in model.graph.all_nodes():
        scope = (node.name or "").strip("/").split("/")[:-1]
        module = ".".join(s for s in scope if s and s != _SHELL)
        line = _line(node.doc_string or "")
        node.doc_string = None
        if line is None or line.function != _OWN:
            line = next((calls[p] for p in _ancestors(module) if p in calls), line)
        if line is not None:
            set_provenance(node, [SourceLine(module, line.file, line.line)])
        elif module:
            set_provenance(node, [SourceLine(module)])


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _call_lines(script: Any) -> dict[str, SourceLine]:
    """For each submodule of a scripted module, the user's line that calls it (or calls its container)."""
    import torch

    if not isinstance(script, torch.jit.ScriptModule):
        return {}
    modules = dict(script.named_modules())
    found: dict[str, SourceLine] = {}
    pending: list[tuple[str, SourceLine | None]] = [("", None)]
    while pending:
        path, inherited = pending.pop()
        for child, line in _calls(modules[path]):
            full = f"{path}.{child}".strip(".")
            if full not in modules:
                continue
            line = line if line is not None and line.function == _OWN else inherited
            if line is not None:
                found.setdefault(full.removeprefix(_SHELL).strip("."), line)
            pending.append((full, line))
    return found


def _calls(module: Any) -> Iterator[tuple[str, SourceLine | None]]:
    """Submodules that a scripted module's `forward` calls, and where."""
    try:
        graph = module.graph
    except RuntimeError:  # a container or interface without a forward of its own
        return
    owners: dict[str, str] = {}
    for node in _nodes(graph):
        if node.kind() == "prim::GetAttr":
            owner = owners.get(node.input().debugName(), "")
            owners[node.output().debugName()] = f"{owner}.{node.s('name')}".strip(".")
        elif node.kind() == "prim::CallMethod" and next(node.inputs()).debugName() in owners:
            yield owners[next(node.inputs()).debugName()], _line(node.sourceRange())


_SHELL = "graphkit_flattened"
_OWN = "own"  # marks a line as the user's while it travels in SourceLine.function
_SCRIPT_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_TRACE_FRAME = re.compile(r"([^\s(:]+\.py)\((\d+)\): \S+")


def _line(text: str) -> SourceLine | None:
    """The innermost line of the user's own in what TorchScript prints about a node, else the framework's."""
    before = text.partition("Serialized ")[0]
    frames = [(f, int(n)) for f, n in (*_SCRIPT_FRAME.findall(before), *_TRACE_FRAME.findall(before))]
    own = [f for f in frames if is_users(f[0])]
    if own:
        return SourceLine("", shown(own[0][0]), own[0][1], _OWN)
    return SourceLine("", shown(frames[0][0]), frames[0][1]) if frames else None


def _frozen_branches(caught: list[warnings.WarningMessage]) -> Iterator[Finding]:
    import torch

    for each in caught:
        if issubclass(each.category, torch.jit.TracerWarning):
            line = SourceLine("", shown(each.filename), each.lineno)
            import linecache

            code = linecache.getline(each.filename, each.lineno).strip()
            yield Finding(
                "traced",
                f"tracing froze `{code}`" if code else f"tracing: {str(each.message).splitlines()[0]}",
                str(line),
                "--via script keeps branches and loops",
            )


# --- dicts, lists and nested tuples ------------------------------------------------------------------------------


def _is_nested(result: Any) -> bool:
    import torch

    if isinstance(result, torch.Tensor | int | float | bool):
        return False
    items = result if isinstance(result, tuple) and not hasattr(result, "_fields") else None
    return items is None or not all(isinstance(i, torch.Tensor) for i in items)


def _flattened(script: Any, leaves: tuple[Leaf, ...], result: Any) -> Any:
    """A scripted shell around the module that takes and returns flat tuples: the exporter refuses dicts."""
    import torch

    types = {True: "int", False: "Tensor"}
    parameters = []
    for position, leaf in enumerate(leaves):
        kind = leaf.spec.dtype if leaf.scalar else types[False]
        parameters.append(f"i{position}: {kind}")
    by_param: dict[str, list[tuple[Leaf, str]]] = {}
    for position, leaf in enumerate(leaves):
        by_param.setdefault(leaf.param, []).append((leaf, f"i{position}"))
    passed = ", ".join(f"{param}={_literal(items)}" for param, items in by_param.items())
    returned = ", ".join(_paths(result, "out"))
    code = f"def forward(self, {', '.join(parameters)}):\n  out = self.{_SHELL}({passed})\n  return ({returned},)\n"

    class Shell(torch.jit.ScriptModule):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            setattr(self, _SHELL, script)
            self.define(code)

    try:
        with quiet():
            return Shell().eval()
    except Exception as error:
        raise CaptureFailed(f"TorchScript cannot flatten the model's inputs and outputs: {_sentence(error)}") from error


def _literal(items: list[tuple[Leaf, str]]) -> str:
    if len(items) == 1 and not items[0][0].path:
        return items[0][1]
    inner: dict[str, list[tuple[Leaf, str]]] = {}
    for leaf, name in items:
        rest = Leaf(leaf.param, leaf.path[1:], leaf.spec, leaf.value, leaf.scalar)
        inner.setdefault(leaf.path[0], []).append((rest, name))
    if all(k.isdecimal() for k in inner):
        return "[" + ", ".join(_literal(inner[k]) for k in sorted(inner, key=int)) + "]"
    return "{" + ", ".join(f'"{k}": {_literal(v)}' for k, v in inner.items()) + "}"


def _paths(value: Any, path: str) -> list[str]:
    """TorchScript expressions that reach every tensor of a nested result, in the order of `named_outputs`."""
    import torch

    if isinstance(value, torch.Tensor):
        return [path]
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in _paths(v, f"{path}[{_quoted(k)}]")]
    if hasattr(value, "_fields"):
        return [p for f in value._fields for p in _paths(getattr(value, f), f"{path}.{f}")]
    if isinstance(value, tuple | list):
        return [p for i, v in enumerate(value) for p in _paths(v, f"{path}[{i}]")]
    raise CaptureFailed(
        f"the scripted model returns a {type(value).__name__} inside its result", remedy="return tensors"
    )


def _quoted(key: Any) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def _sentence(error: BaseException) -> str:
    """TorchScript prints the source around an error; the sentence is the first line that is not about place."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    useful = [
        x for x in lines if not x.startswith(("File ", "Traceback", "~", "---", "The following operation failed"))
    ]
    return (useful or [first_line(error)])[0][:300]
