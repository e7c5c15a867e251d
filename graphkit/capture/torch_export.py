"""The first way of capturing a PyTorch module: torch.export, then torch.onnx on the exported program.

torch.export runs the module's Python code on fake tensors and records every assumption it makes about sizes as a
guard (PyTorch docs, "torch.export programming model"). torch.onnx drops those guards; here each is held against
what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.capture import torch_guards
from graphkit.capture.quiet import quiet
from graphkit.capture.torch_example import Leaf
from graphkit.capture.torch_load import first_line
from graphkit.capture.torch_source_line import code_at, line_of, line_of_error
from graphkit.errors import (
    CaptureFailed,
    DataDependentBranch,
    UnsupportedOperator,
)
from graphkit.model import SourceLine

if TYPE_CHECKING:
    import onnx_ir as ir

DEFAULT_OPSET = 20
_LOWEST_OPSET = 18  # of torch.onnx's translations; below, it converts down where it can


@dataclass(frozen=True, slots=True)
class Exported:
    """What torch.export and torch.onnx made.

    Attributes:
        model: The ONNX graph, with torch's names and metadata.
        symbols: torch's name of a dimension -> the user's.
        optimised: Whether the exporter's own optimiser ran.
    """

    model: ir.Model
    symbols: dict[str, str]
    optimised: bool


def export_program(module: Any, leaves: tuple[Leaf, ...], arguments: Mapping[str, Any]) -> Any:
    """A torch.export ExportedProgram whose dimensions are dynamic where the leaves have symbols.

    Raises:
        DataDependentBranch, CaptureFailed
    """
    import torch

    shapes = _dynamic_shapes(leaves, arguments)
    try:
        with quiet(), torch_guards.recording_lines():
            return torch.export.export(module, (), dict(arguments), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises a dozen types; the kind is in the deepest one
        raise _explain(error) from error


def to_onnx(program: Any, opset: int | None) -> tuple[ir.Model, Any, bool]:
    """The program as ONNX: the graph, the decomposed program, and whether the exporter's optimiser ran.

    Raises:
        UnsupportedOperator, CaptureFailed
    """
    import torch

    failure: Exception | None = None
    for optimize in (True, False):
        try:
            with quiet():
                result = torch.onnx.export(
                    program, (), dynamo=True, opset_version=opset or DEFAULT_OPSET, optimize=optimize, verbose=False
                )
            return result.model, result.exported_program, optimize
        except Exception as error:  # each step of the exporter wraps what it raises
            failure = error
            if _deepest(error).__class__.__name__ == "DispatchError":
                break
    assert failure is not None
    raise _explain(failure, program) from failure


def mutated_state(program: Any) -> list[tuple[str, SourceLine | None]]:
    """Buffers and parameters that the (decomposed) program writes, with the user's line."""
    signature = program.graph_signature
    written = {**getattr(signature, "buffers_to_mutate", {}), **getattr(signature, "parameters_to_mutate", {})}
    nodes = {n.name: n for n in program.graph.nodes}
    return [
        (target, line_of(nodes[name].meta.get("stack_trace") or "") if name in nodes else None)
        for name, target in written.items()
    ]


# --- torch.export ------------------------------------------------------------------------------------------------


def _dynamic_shapes(leaves: tuple[Leaf, ...], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Dim.AUTO, not DYNAMIC: a dimension that cannot be dynamic is then found with its guard, not by a bare error."""
    import torch
    from torch.utils import _pytree as pytree

    tensors = {}
    for leaf in leaves:
        dims = {a: torch.export.Dim.AUTO for a, d in enumerate(leaf.spec.shape or ()) if isinstance(d, str)}
        tensors[leaf.param, leaf.path] = dims or None

    def entry(path: tuple[Any, ...], value: Any) -> Any:
        param, *rest = (str(getattr(k, "key", getattr(k, "idx", k))) for k in path)
        return tensors.get((param, tuple(rest))) if isinstance(value, torch.Tensor) else None

    shapes: dict[str, Any] = pytree.tree_map_with_path(entry, dict(arguments))
    return shapes


def _explain(error: Exception, program: Any = None) -> CaptureFailed | DataDependentBranch | UnsupportedOperator:
    deepest = _deepest(error)
    line = line_of_error(error) or line_of_error(deepest) or _line_of_node(deepest)
    where = str(line) if line else None
    kind = type(deepest).__name__
    if kind in ("GuardOnDataDependentSymNode", "UserError") and "data-dependent" in str(deepest):
        code = code_at(line)
        return DataDependentBranch(
            f"branch or size depends on data: `{code}`" if code else "branch or size depends on data",
            where=where,
            remedy="--via script (keeps both branches as ONNX If); or torch.where / torch.cond in the model",
        )
    if kind == "DispatchError" or "No ONNX function found" in str(deepest):
        operator = str(deepest).partition("OpOverload(op='")[2].partition("'")[0]
        where = where or _where_is(operator, program)
        return UnsupportedOperator(
            f"no ONNX translation for operator `{operator}`" if operator else first_line(deepest),
            where=where,
            remedy="write it with other operators, or convert a part of the model with --submodule",
            data={"operators": [operator] if operator else []},
        )
    return CaptureFailed(f"{kind}: {first_line(deepest)}", where=where)


def _line_of_node(error: BaseException) -> SourceLine | None:
    """The user's line of the node that the exporter was translating: its error names the node, not the line."""
    frame = error.__traceback__
    while frame is not None:
        node = frame.tb_frame.f_locals.get("node")
        if trace := getattr(node, "meta", {}).get("stack_trace"):
            return line_of(trace)
        frame = frame.tb_next
    return None


def _where_is(operator: str, program: Any) -> str | None:
    """The user's line of the first call of an operator, which may appear only when others are taken apart."""
    if program is None or not operator:
        return None
    with quiet():
        decomposed = program.run_decompositions()
    for each in (program, decomposed):
        for node in each.graph.nodes:
            if node.op == "call_function" and str(node.target).startswith(operator):
                return str(line_of(node.meta.get("stack_trace") or "") or "") or None
    return None


def _deepest(error: BaseException) -> BaseException:
    seen = {id(error)}
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None or id(inner) in seen:
            return error
        seen.add(id(inner))
        error = inner
