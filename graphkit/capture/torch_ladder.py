"""The ladder: export -> export without the exporter's optimiser -> script.

A rung that would freeze something is left for the next one; only when all are refused does the first refusal reach
the user, with the others below it. Tracing is no rung: it is asked for by name, and reports what it froze.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.capture import torch_export, torch_guards, torch_program, torch_script, torch_state
from graphkit.capture.audit import refuse_state
from graphkit.capture.request import VIA, CaptureRequest
from graphkit.capture.torch_example import Leaf
from graphkit.capture.torch_names import keep_provenance, named_outputs, rename_dims
from graphkit.capture.torch_script_lines import raising_lines
from graphkit.errors import BadOption, CaptureFailed, FrozenDimension, OpsetNotHonoured, Refused
from graphkit.model import Finding, Rung, SourceLine

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Subject:
    """What is captured, and one run of it.

    Attributes:
        target: The object: a module, TorchScript, an ExportedProgram.
        module: What is called.
        leaves: Its inputs.
        example, result: Arguments, and what it returned for them.
    """

    target: Any
    module: Any
    leaves: tuple[Leaf, ...]
    example: dict[str, Any]
    result: Any


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a rung made: a graph with named inputs and outputs, and what it noticed."""

    model: ir.Model
    inputs: tuple[Leaf, ...]
    findings: tuple[Finding, ...] = ()


def climb(
    subject: Subject, request: CaptureRequest, fails_elsewhere: Callable[[], str | None]
) -> tuple[Attempt, list[Rung]]:
    """The first way that captures the subject faithfully, and every way that was tried.

    Args:
        fails_elsewhere: How the subject itself fails at other sizes of the declared ranges, if it does: then no
            other way can make a dimension dynamic.

    Raises:
        Refused: all ways were refused; the first refusal, with the others in its details.
    """
    tried: list[Rung] = []
    refusals: list[Refused] = []
    for name, attempt in _rungs(subject, request):
        try:
            made = attempt()
        except Refused as refusal:
            tried.append(Rung(name, f"{refusal.code}: {refusal.message}"))
            refusals.append(refusal)
            if isinstance(refusal, FrozenDimension) and (failure := fails_elsewhere()) is not None:
                refusal.details = (*refusal.details, failure)
                raise
        else:
            return made, [*tried, Rung(name)]
    first = refusals[0]
    if len(refusals) > 1:
        first.details = (*first.details, *(f"{t.name}: {t.failure}" for t in tried[1:]))
        first.remedy = _without_script(first.remedy)
    raise first


def check_via(via: str | None) -> None:
    """Refuse an unknown `--via`."""
    if via is not None and via not in VIA:
        raise BadOption(f"--via {via}: unknown way of capturing", remedy=f"one of {', '.join(VIA)}")


def check_opset(model: ir.Model, opset: int | None) -> None:
    """Refuse a graph that is not at the opset that was asked for.

    Raises:
        OpsetNotHonoured
    """
    found = model.opset_imports.get("", 0)
    if opset is not None and found != opset:
        raise OpsetNotHonoured(
            f"opset {opset} was asked for, but torch.onnx writes this model at opset {found}",
            remedy=f"--opset {found}, or leave the choice to graphkit",
            data={"asked": opset, "made": found},
        )


def _rungs(subject: Subject, request: CaptureRequest) -> list[tuple[str, Callable[[], Attempt]]]:
    target, module, leaves = subject.target, subject.module, subject.leaves

    def by_export() -> Attempt:
        return _by_export(subject, request)

    def by_script() -> Attempt:
        script = torch_script.to_script(module)
        refuse_state(torch_state.script_mutations(script), name="the module")
        raising = raising_lines(script)  # now: the exporter rewrites the module's graph
        made = torch_script.script_to_onnx(script, leaves, subject.example, subject.result, request.opset)
        return Attempt(made.model, leaves, tuple(_raises(line) for line in raising))

    def by_trace() -> Attempt:
        made = torch_script.trace_to_onnx(module, leaves, subject.example, request.opset)
        return Attempt(made.model, leaves, made.frozen)

    ways = {"export": by_export, "script": by_script, "trace": by_trace}
    if request.via is not None:
        if torch_script.is_script(module) and request.via == "export":
            raise BadOption("--via export: TorchScript holds no Python code to export", remedy="--via script")
        if torch_program.is_program(target) and request.via != "export":
            raise BadOption(f"--via {request.via}: an ExportedProgram is exported already", remedy="leave out --via")
        return [(request.via, ways[request.via])]
    if torch_script.is_script(module):
        return [("script", by_script)]
    if torch_program.is_program(target):
        return [("export", by_export)]
    return [("export", by_export), ("script", by_script)]


def _check_outputs(result: Any) -> None:
    """torch.onnx fails on an output that is a Python number, with an internal error."""
    import torch

    number = next(((name, v) for name, v in named_outputs(result) if not isinstance(v, torch.Tensor)), None)
    if number is not None:
        raise CaptureFailed(
            f"the model returns the Python {type(number[1]).__name__} {number[1]} as `{number[0]}`",
            remedy="return torch.tensor(...) there, or leave it out",
        )


def _raises(line: SourceLine) -> Finding:
    return Finding(
        "raise",
        "the model raises an error on some inputs; an ONNX graph cannot, and computes on there",
        str(line),
        "check those inputs before they reach the graph",
    )


def _without_script(remedy: str | None) -> str | None:
    """The remedy less the advice to take a way that was tried."""
    parts = [p for p in (remedy or "").split("; or ") if not p.startswith("--via script")]
    return "; or ".join(parts) or None


def _by_export(subject: Subject, request: CaptureRequest) -> Attempt:
    target, leaves = subject.target, subject.leaves
    _check_outputs(subject.result)
    if torch_program.is_program(target):
        program, symbols = target, torch_program.symbols_of(target, leaves)
    else:
        program = torch_export.export_program(subject.module, leaves, subject.example)
        symbols = torch_guards.check(program, leaves, request.dims)
    graph, decomposed, optimised = torch_export.to_onnx(program, request.opset)
    refuse_state(torch_export.mutated_state(decomposed), name="the module")
    keep_provenance(graph)
    rename_dims(graph, symbols)
    check_opset(graph, request.opset)
    findings = () if optimised else (Finding("exporter", "the exporter's own optimiser failed and was left out"),)
    return Attempt(graph, tuple(x for x in leaves if not x.scalar), findings)
