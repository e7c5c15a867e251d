"""A PyTorch object in memory as a Source: its inputs are made, it is run, captured, and its signature made true."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphkit.capture import torch_program, torch_state
from graphkit.capture.audit import output_shapes
from graphkit.capture.io_names import rename_io
from graphkit.capture.options import TORCH, refuse_others
from graphkit.capture.request import Arrays, CaptureRequest
from graphkit.capture.torch_example import (
    Leaf,
    arguments,
    example_sizes,
    from_inputs,
    leaves_for,
    params_of,
    values_for,
)
from graphkit.capture.torch_ladder import Attempt, Subject, check_opset, check_via, climb
from graphkit.capture.torch_load import first_line
from graphkit.capture.torch_names import named_outputs
from graphkit.capture.torch_source_line import line_of_error
from graphkit.errors import (
    BadOption,
    InvalidExport,
    NotAModel,
    ShapeMismatch,
    UnknownName,
)
from graphkit.model import Finding, Model, Origin, Rung
from graphkit.shapes import DimRange, TensorSpec, symbols_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    from graphkit.capture.taps import Tape


class TorchSource:
    """A module, TorchScript module or function, ExportedProgram or GraphModule.

    Args:
        target: The object.
        name: What to call it in reports.
        kind: What it is, for the model's origin.
        sha256: Digest of the file it came from.

    Attributes:
        dims: Ranges that were asked for or that the object itself declares; known after `prepare`.
    """

    def __init__(self, target: Any, *, name: str = "", kind: str = "", sha256: str | None = None) -> None:
        self._target = unwrap(target)
        self._kind = kind or _kind(self._target)
        self.name = name or type(self._target).__name__
        self.options = TORCH
        self._sha256 = sha256
        self._leaves: tuple[Leaf, ...] = ()
        self._module: Any = None
        self.dims: tuple[DimRange, ...] = ()

    @property
    def label(self) -> str:
        import torch

        return f"torch {torch.__version__.partition('+')[0]} (cpu)"

    def capture(self, request: CaptureRequest) -> Model:
        """Capture the object; see `Source.capture`."""
        refuse_others(request, self.options, "a PyTorch model")
        check_via(request.via)
        target = _submodule(self._target, request.submodule)
        with torch_state.restored(target), _evaluating(target):
            self._module, self._leaves, request = _prepare(target, request)
            values = _example(target, self._leaves, request)
            sizes = torch_program.sizes_of(self._leaves, values)
            example = arguments(self._leaves, values)
            result = self._try_run(example)
            torch_state.check(target, self._module, example, self.name)
            subject = Subject(target, self._module, self._leaves, example, result)
            attempt, tried = climb(subject, request, lambda: self._fails_elsewhere(request))
            return self._finish(attempt, tried, request, sizes, result)

    def prepare(self, request: CaptureRequest) -> tuple[TensorSpec, ...]:
        """Make the object ready to run; see `RunnableSource.prepare`."""
        refuse_others(request, self.options, "a PyTorch model")
        target = _submodule(self._target, request.submodule)
        with _evaluating(target):
            self._module, self._leaves, own = _prepare(target, request)
            self.dims = own.dims
        return tuple(leaf.spec for leaf in self._leaves)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run the object; see `Source.run`."""
        with _evaluating(self._module):
            outputs = named_outputs(self._try_run(from_inputs(self._leaves, inputs)))
        return {f"{name}_out" if name in inputs else name: _array(value) for name, value in outputs}

    @contextlib.contextmanager
    def ready(self, inputs: Arrays) -> Iterator[Callable[[], Any]]:
        """The object alone, without gradients; see `TimedSource.ready`."""
        import torch

        example = from_inputs(self._leaves, inputs)
        with _evaluating(self._module), torch.no_grad():
            yield lambda: self._call(example)

    def tap(self, inputs: Arrays, folder: Path) -> Tape:
        """Run the object and record it; see `TappedSource.tap`."""
        from graphkit.capture import torch_taps

        example = from_inputs(self._leaves, inputs)
        with _evaluating(self._module):
            fed = dict(named_outputs(example))
            call = lambda: named_outputs(self._try_run(example))  # noqa: E731
            tape = torch_taps.record(call, self._module, fed, folder, _array)
        renamed = {f"{name}_out" if name in inputs else name: value for name, value in tape.outputs.items()}
        return replace(tape, outputs=renamed)

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
        self, attempt: Attempt, tried: list[Rung], request: CaptureRequest, sizes: dict[str, int], result: Any
    ) -> Model:
        import torch

        model = attempt.model
        check_opset(model, request.opset)
        outputs = named_outputs(result)
        names = _output_names(outputs, attempt.inputs)
        if len(model.graph.outputs) != len(names):
            raise InvalidExport(
                f"the exporter made {len(model.graph.outputs)} outputs, the model returns {', '.join(names)}"
            )
        rename_io(model.graph, [leaf.name for leaf in attempt.inputs], names)
        originals = dict(zip(names, (n for n, _ in outputs), strict=True))
        _true_outputs(model, self._observe(request, sizes, outputs), originals)
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
        """Shapes of the outputs at the captured sizes and at two others, with other values and Python integers."""
        import torch

        seen: list[tuple[Mapping[str, int], dict[str, tuple[int, ...]]]] = [(sizes, _shapes(outputs))]
        for point in (1, 2):
            other = example_sizes(self._leaves, request.dims, point)
            values = values_for(self._leaves, other, request.seed + point)
            moved = {leaf.name: leaf.value + point for leaf in self._leaves if leaf.scalar and type(leaf.value) is int}
            for attempt in ({**values, **moved}, values) if moved else (values,):
                with contextlib.suppress(Exception), torch.no_grad(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what the source cannot run is the validation's business
                    result = self._call(arguments(self._leaves, attempt))
                    seen.append((other, _shapes(named_outputs(result))))
                    break
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

    def _declared(self, attempt: Attempt) -> Iterator[Finding]:
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
    model: ir.Model,
    observed: list[tuple[Mapping[str, int], dict[str, tuple[int, ...]]]],
    names: dict[str, str],
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

        array: np.ndarray[Any, Any] = value.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    else:
        array = value.contiguous().numpy()
    return array


def _last_sentence(error: BaseException) -> str:
    """TorchScript puts the cause last, eager torch first."""
    text = str(error).strip()
    if "Traceback of TorchScript" in text:
        return text.splitlines()[-1].strip().removeprefix(f"{type(error).__name__}: ")[:300]
    return first_line(error)


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{k}={v}" for k, v in sizes.items()) or "none"
