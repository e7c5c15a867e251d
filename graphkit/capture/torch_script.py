"""The second way of capturing a PyTorch module: TorchScript, which keeps branches and loops as `If` and `Loop`.

`torch.onnx.export(..., dynamo=False)` translates a scripted module node by node. It flattens tuples, but refuses
dicts, and unrolls nothing. Tracing goes through the same exporter after recording one run; it keeps no branch.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.capture.quiet import quiet
from graphkit.capture.torch_example import Leaf
from graphkit.capture.torch_export import DEFAULT_OPSET
from graphkit.capture.torch_flatten import flattened, is_nested, value_at
from graphkit.capture.torch_load import last_sentence
from graphkit.capture.torch_script_lines import call_lines, keep_provenance, layer_lines, line_of_operator
from graphkit.capture.torch_source_line import shown
from graphkit.errors import CaptureFailed, OpsetNotHonoured, UnsupportedOperator
from graphkit.model import Finding, SourceLine

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
        with quiet(), _types_of_its_own():
            return torch.jit.script(module)
    except Exception as error:  # the compiler raises RuntimeError, NotSupportedError, OSError, TypeError ...
        raise CaptureFailed(f"TorchScript cannot compile the module: {last_sentence(error)}") from error


def is_script(module: Any) -> bool:
    """Whether `module` is TorchScript already: a module or a function."""
    import torch

    return isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction)


@contextlib.contextmanager
def _types_of_its_own() -> Iterator[None]:
    """The exporter inlines the calls of a scripted class in the class itself, which torch shares between all modules
    of the same Python class: the next one would have no call left to tell a layer's line from."""
    from torch.jit import _recursive

    shared, _recursive.concrete_type_store = _recursive.concrete_type_store, _recursive.ConcreteTypeStore()
    try:
        yield
    finally:
        _recursive.concrete_type_store = shared


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
    if any(leaf.path for leaf in leaves) or is_nested(result):
        target = flattened(script, leaves, result)
        flat = [value_at(arguments[leaf.param], leaf.path) for leaf in leaves]
    return _export(target, tuple(flat), leaves, opset)


def trace_to_onnx(module: Any, leaves: tuple[Leaf, ...], arguments: dict[str, Any], opset: int | None) -> Scripted:
    """A recording of one run as ONNX, with every branch that it froze.

    Raises:
        UnsupportedOperator, CaptureFailed, OpsetNotHonoured
    """
    if any(leaf.path for leaf in leaves):
        raise CaptureFailed("tracing does not take dicts or lists of tensors", remedy="--via export")
    return _export(module, tuple(arguments[leaf.param] for leaf in leaves), leaves, opset)


# --- the exporter ------------------------------------------------------------------------------------------------


def _export(target: Any, flat: tuple[Any, ...], leaves: tuple[Leaf, ...], opset: int | None) -> Scripted:
    import onnx_ir as ir
    import torch

    if opset is not None and opset > _LATEST_OPSET:
        raise OpsetNotHonoured(f"the TorchScript exporter ends at opset {_LATEST_OPSET}, {opset} was asked for")
    names = [leaf.name for leaf in leaves]
    axes = {x.name: {a: d for a, d in enumerate(x.spec.shape or ()) if isinstance(d, str)} for x in leaves}
    calls = call_lines(target)  # now: the exporter inlines the calls away, in the module itself
    layers = layer_lines(target, calls)
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
                f"no ONNX translation for operator `{operator}`" if operator else last_sentence(error),
                where=line_of_operator(target, operator),
                data={"operators": [operator] if operator else []},
                remedy="write it with other operators, or convert a part of the model with --submodule",
            ) from error
        except Exception as error:  # the exporter is C++: RuntimeError with any text
            raise CaptureFailed(f"TorchScript export failed: {last_sentence(error)}") from error
    model = ir.serde.deserialize_model(_parse(buffer.getvalue()))
    keep_provenance(model, calls, layers)
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
