"""A PyTorch object in memory as a Source: the ladder export -> export without the optimiser -> script.

A rung that would freeze something is left for the next one; only when all are refused does the first refusal reach
the user, with the others below it. Tracing is no rung: it is asked for by name, and reports what it froze.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graphkit.capture import torch_export, torch_program, torch_script
from graphkit.capture.audit import changed_state, output_shapes, refuse_state
from graphkit.capture.request import VIA, Arrays, CaptureRequest
from graphkit.capture.torch_example import (
    Leaf,
    arguments,
    example_sizes,
    from_inputs,
    leaves_for,
    params_of,
    values_for,
)
from graphkit.capture.torch_load import first_line
from graphkit.capture.torch_names import keep_provenance, named_outputs, rename_dims, rename_io
from graphkit.capture.torch_source_line import line_of_error
from graphkit.errors import (
    BadOption,
    FrozenDimension,
    InvalidExport,
    NotAModel,
    OpsetNotHonoured,
    Refused,
    ShapeMismatch,
    UnknownName,
)
from graphkit.model import Finding, Model, Origin, Rung
from graphkit.shapes import symbols_of

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What a rung made: a graph with named inputs and outputs, and what it noticed."""

    model: ir.Model
    inputs: tuple[Leaf, ...]
    findings: tuple[Finding, ...] = ()


class TorchSource:
    """A module, TorchScript module or function, ExportedProgram or GraphModule.

    Args:
        target: The object.
        name: What to call it in reports.
        kind: What it is, for the model's origin.
        sha256: Digest of the file it came from.
    """

    def __init__(self, target: Any, *, name: str = "", kind: str = "", sha256: str | None = None) -> None:
        self._target = unwrap(target)
        self._kind = kind or _kind(self._target)
        self.name = name or type(self._target).__name__
        self._sha256 = sha256
        self._leaves: tuple[Leaf, ...] = ()
        self._module: Any = None

    @property
    def label(self) -> str:
        import torch

        return f"torch {torch.__version__.partition('+')[0]} (cpu)"

    def capture(self, request: CaptureRequest) -> Model:
        """Capture the object; see `Source.capture`."""
        _check_via(request.via)
        target = _submodule(self._target, request.submodule)
        with _evaluating(target):
            self._module, self._leaves, request = _prepare(target, request)
            values = _example(target, self._leaves, request)
            sizes = torch_program.sizes_of(self._leaves, values)
            example = arguments(self._leaves, values)
            result = self._try_run(example)
            _refuse_state(target, self._module, example, self.name)
            rungs = _rungs(target, self._module, self._leaves, example, result, request)
            attempt, tried = _climb(rungs, lambda: self._fails_elsewhere(request))
            return self._finish(attempt, tried, request, sizes, result)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run the object; see `Source.run`."""
        import torch

        with _evaluating(self._module), torch.no_grad():
            result = self._call(from_inputs(self._leaves, inputs))
        return {name: _array(value) for name, value in named_outputs(result)}

    def _call(self, example: dict[str, Any]) -> Any:
        """Parameters are passed by name where `forward` has them, for TorchScript functions by position."""
        import torch

        if isinstance(self._module, torch.jit.ScriptFunction):
            return self._module(*example.values())
        return self._module(**example)

    def _try_run(self, example: dict[str, Any]) -> Any:
        import torch

        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._call(example)
        except Exception as error:  # the user's code may raise anything
            shown = ", ".join(str(leaf.spec) for leaf in self._leaves)
            line = line_of_error(error)
            raise ShapeMismatch(
                f"the model's own code rejects these inputs: {type(error).__name__}: {_last_sentence(error)}",
                where=str(line) if line else None,
                details=(f"inputs: {shown}", f"sizes: {_sizes_text(example_sizes(self._leaves, ()))}")
                if symbols_of(leaf.spec for leaf in self._leaves)
                else (f"inputs: {shown}",),
                remedy="give shapes the model takes; add :int64 for indices (--shape ids=batch,seq:int64), and "
                "--dim name=min:opt:max for sizes it accepts",
            ) from error

    def _finish(
        self, attempt: _Attempt, tried: list[Rung], request: CaptureRequest, sizes: dict[str, int], result: Any
    ) -> Model:
        import torch

        model = attempt.model
        _check_opset(model, request.opset)
        outputs = named_outputs(result)
        names = _output_names(outputs, attempt.inputs)
        if len(model.graph.outputs) != len(names):
            raise InvalidExport(
                f"the exporter made {len(model.graph.outputs)} outputs, the model returns {len(names)}: {', '.join(names)}"
            )
        rename_io(model.graph, [leaf.name for leaf in attempt.inputs], names)
        _true_outputs(model, self._observe(request, sizes, outputs), dict(zip(names, (n for n, _ in outputs), strict=True)))
        model.graph.name = "graph"
        model.producer_name = "graphkit"
        origin = Origin(
            kind=self._kind,
            name=self.name,
            sha256=self._sha256,
            versions={"torch": torch.__version__},
            rungs=tuple(tried),
            findings=(*self._declared(attempt), *attempt.findings),
            sizes=sizes,
        )
        return Model(model, origin, request.dims)

    def _observe(
        self, request: CaptureRequest, sizes: dict[str, int], outputs: list[tuple[str, Any]]
    ) -> list[tuple[Mapping[str, int], dict[str, tuple[int, ...]]]]:
        """Shapes of the outputs at the captured sizes and at two others."""
        import torch

        seen: list[tuple[Mapping[str, int], dict[str, tuple[int, ...]]]] = [(sizes, _shapes(outputs))]
        for point in (1, 2) if sizes else ():
            other = example_sizes(self._leaves, request.dims, point)
            values = values_for(self._leaves, other, request.seed)
            with contextlib.suppress(Exception), torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the source cannot run is the validation's business
                seen.append((other, _shapes(named_outputs(self._call(arguments(self._leaves, values))))))
        return seen

    def _fails_elsewhere(self, request: CaptureRequest) -> str | None:
        """How the source itself fails at other sizes inside the declared ranges; None where it runs."""
        import torch

        for point in (1, 2):
            sizes = example_sizes(self._leaves, request.dims, point)
            example = arguments(self._leaves, values_for(self._leaves, sizes, request.seed))
            try:
                with torch.no_grad(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._call(example)
            except Exception as error:
                return f"the model itself fails at {_sizes_text(sizes)}: {_last_sentence(error)}"
        return None

    def _declared(self, attempt: _Attempt) -> Iterator[Finding]:
        """Python numbers that keep their default: right, but worth saying."""
        if torch_program.is_program(self._target):
            return
        given = {leaf.param for leaf in attempt.inputs}
        for param in params_of(self._module):
            if param.name not in given and isinstance(param.default, int | float) and param.default is not None:
                yield Finding(
                    "default",
                    f"argument `{param.name}` keeps its default {param.default!r}; it is no input of the graph",
                    remedy=f"--input {param.name}=VALUE with --via script makes it an input",
                )


def _prepare(target: Any, request: CaptureRequest) -> tuple[Any, tuple[Leaf, ...], CaptureRequest]:
    """What to call, its inputs, and the request with the ranges that the target itself declares."""
    if torch_program.is_program(target):
        leaves, dims = torch_program.leaves_and_dims(target, request)
        return torch_program.ProgramModule(target), leaves, replace(request, dims=dims)
    return target, leaves_for(target, request), request


def _example(target: Any, leaves: tuple[Leaf, ...], request: CaptureRequest) -> dict[str, Any]:
    if torch_program.is_program(target):
        own = torch_program.example_values(target, leaves)
        if own is not None:
            return own
    return values_for(leaves, example_sizes(leaves, request.dims), request.seed)


def unwrap(target: Any) -> Any:
    """The module inside DataParallel or DistributedDataParallel; anything else as it is."""
    import torch

    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(target, wrappers):
        target = target.module
    return target


# --- the ladder --------------------------------------------------------------------------------------------------


def _rungs(
    target: Any, module: Any, leaves: tuple[Leaf, ...], example: dict[str, Any], result: Any, request: CaptureRequest
) -> list[tuple[str, Callable[[], _Attempt]]]:
    def by_export() -> _Attempt:
        return _by_export(target, module, leaves, example, request)

    def by_script() -> _Attempt:
        script = torch_script.to_script(module)
        refuse_state(torch_script.mutated_state(script), name="the module")
        made = torch_script.script_to_onnx(script, leaves, example, result, request.opset)
        return _Attempt(made.model, leaves)

    def by_trace() -> _Attempt:
        made = torch_script.trace_to_onnx(module, leaves, example, request.opset)
        return _Attempt(made.model, leaves, made.frozen)

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


def _climb(
    rungs: list[tuple[str, Callable[[], _Attempt]]], fails_elsewhere: Callable[[], str | None]
) -> tuple[_Attempt, list[Rung]]:
    tried: list[Rung] = []
    refusals: list[Refused] = []
    for name, attempt in rungs:
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


def _without_script(remedy: str | None) -> str | None:
    """The remedy less the advice to take a way that was tried."""
    parts = [p for p in (remedy or "").split("; or ") if not p.startswith("--via script")]
    return "; or ".join(parts) or None


def _by_export(
    target: Any, module: Any, leaves: tuple[Leaf, ...], example: dict[str, Any], request: CaptureRequest
) -> _Attempt:
    if torch_program.is_program(target):
        program, symbols = target, torch_program.symbols_of(target, leaves)
    else:
        program = torch_export.export_program(module, leaves, example)
        symbols = torch_export.check_guards(program, leaves, request.dims)
    graph, decomposed, optimised = torch_export.to_onnx(program, request.opset)
    refuse_state(torch_export.mutated_state(decomposed), name="the module")
    keep_provenance(graph)
    rename_dims(graph, symbols)
    _check_opset(graph, request.opset)
    findings = () if optimised else (Finding("exporter", "the exporter's own optimiser failed and was left out"),)
    return _Attempt(graph, tuple(x for x in leaves if not x.scalar), findings)


# --- checks ------------------------------------------------------------------------------------------------------


def _check_via(via: str | None) -> None:
    if via is not None and via not in VIA:
        raise BadOption(f"--via {via}: unknown way of capturing", remedy=f"one of {', '.join(VIA)}")


def _check_opset(model: ir.Model, opset: int | None) -> None:
    found = model.opset_imports.get("", 0)
    if opset is not None and found != opset:
        raise OpsetNotHonoured(
            f"opset {opset} was asked for, but torch.onnx writes this model at opset {found}",
            remedy=f"--opset {found}, or leave the choice to graphkit",
            data={"asked": opset, "made": found},
        )


def _refuse_state(target: Any, module: Any, example: dict[str, Any], name: str) -> None:
    import torch

    if torch_script.is_script(module):
        if isinstance(module, torch.jit.ScriptModule):
            parts = _stateless_parts(module)
            refuse_state(torch_script.mutated_state(module), name=name, parts=parts)
        return
    if torch_program.is_program(target):
        return  # its signature declares what it writes; `_by_export` reads it

    def run() -> None:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(**example)

    refuse_state(changed_state(module, run), name=name)


def _stateless_parts(module: Any) -> list[str]:
    """Direct children of a TorchScript module that keep no state and can be run: what `--submodule` could take."""
    parts = []
    for name, child in module.named_children():
        with contextlib.suppress(RuntimeError, AttributeError):  # no forward, or an interface type
            if not torch_script.mutated_state(child):
                parts.append(name)
    return parts


def _submodule(target: Any, path: str | None) -> Any:
    if path is None:
        return target
    if not hasattr(target, "named_modules"):
        raise BadOption(f"--submodule {path}: a {type(target).__name__} has no submodules")
    modules = dict(target.named_modules())
    if path not in modules:
        known = [n for n in modules if n]
        close = [n for n in known if path.rpartition(".")[2] in n] or known
        raise UnknownName(
            f"--submodule {path}: the model has no such module",
            remedy=f"for example {', '.join(close[:8])}" if known else "it has no submodules",
        )
    return modules[path]


def _kind(target: Any) -> str:
    import torch

    if torch_program.is_program(target):
        return "torch ExportedProgram"
    if isinstance(target, torch.jit.ScriptFunction):
        return "TorchScript function"
    if isinstance(target, torch.jit.ScriptModule):
        return "TorchScript module"
    if isinstance(target, torch.fx.GraphModule):
        return "torch.fx GraphModule"
    if isinstance(target, torch.nn.Module):
        return "torch module"
    raise NotAModel(
        f"a {type(target).__name__} is not a model that graphkit can capture",
        remedy="an nn.Module, TorchScript module or function, torch.fx.GraphModule, or ExportedProgram",
    )


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """The module in evaluation mode; each part's own mode comes back afterwards."""
    modes = [(m, m.training) for m in module.modules()] if hasattr(module, "modules") else []
    for part, _ in modes:
        if part.training:
            part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            if part.training != training:
                part.training = training


# --- results -----------------------------------------------------------------------------------------------------


def _output_names(outputs: list[tuple[str, Any]], inputs: tuple[Leaf, ...]) -> list[str]:
    taken = {leaf.name for leaf in inputs}
    return [f"{name}_out" if name in taken else name for name, _ in outputs]


def _true_outputs(
    model: ir.Model, observed: list[tuple[Mapping[str, int], dict[str, tuple[int, ...]]]], names: dict[str, str]
) -> None:
    """Replace what the exporter declares about output shapes by what is true of them."""
    import onnx_ir as ir

    declared = {names[v.name or ""]: _dims(v) for v in model.graph.outputs}
    shapes = output_shapes(declared, observed)
    for value in model.graph.outputs:
        shape = shapes.get(names[value.name or ""])
        if shape is not None:
            value.shape = ir.Shape(shape)


def _dims(value: ir.Value) -> tuple[Any, ...] | None:
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def _shapes(outputs: list[tuple[str, Any]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) if hasattr(value, "shape") else () for name, value in outputs}


def _array(value: Any) -> np.ndarray[Any, Any]:
    import numpy as np
    import torch

    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:
        import ml_dtypes

        return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    array: np.ndarray[Any, Any] = value.contiguous().numpy()
    return array


def _last_sentence(error: BaseException) -> str:
    """TorchScript puts the cause last, eager torch first."""
    text = str(error).strip()
    return text.splitlines()[-1].strip()[:300] if "Traceback of TorchScript" in text else first_line(error)


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{k}={v}" for k, v in sizes.items()) or "none"
