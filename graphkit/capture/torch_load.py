"""Load a PyTorch file without running code from it, unless the user trusts it."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphkit.capture import torch_archive, torch_pt2
from graphkit.capture.python_callable import build, search_here
from graphkit.capture.torch_archive import Archive
from graphkit.errors import (
    ArchitectureMissing,
    BadOption,
    CorruptFile,
    NotAModel,
    UnknownFormat,
    UntrustedSource,
    WeightsMismatch,
)

PLAIN_GLOBALS = frozenset(
    {
        "collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.set", "builtins.dict",
        "builtins.list", "builtins.tuple", "builtins.int", "builtins.float", "builtins.complex", "builtins.bytearray",
        "_codecs.encode", "torch.Size", "torch.Tensor", "torch.device", "torch.dtype", "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer", "torch.serialization._get_layout", "torch.storage.UntypedStorage",
        "torch.storage.TypedStorage", "torch._tensor._rebuild_from_type_v2", "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state", "torch._utils._rebuild_qtensor",
        "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_meta_tensor_no_storage",
        "torch._utils._rebuild_wrapper_subclass", "torch._utils._rebuild_device_tensor_from_numpy",
    }
    | {
        f"torch.{kind}Storage"
        for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool",
                     "ComplexFloat", "ComplexDouble", "QInt8", "QUInt8", "QInt32")
    }
    | {
        f"torch.{name}"
        for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
                     "complex64", "complex128", "float8_e4m3fn", "float8_e5m2")
    }
)  # fmt: skip
"""Globals of tensors and plain containers: torch's own safe loader rebuilds these without running code of the file."""

# Functions that stock layers keep as attributes (the activation of TransformerEncoderLayer).
_STOCK_FUNCTIONS = frozenset(
    {"torch.nn.functional.relu", "torch.nn.functional.gelu", "torch._C._nn.gelu", "torch.nn.functional.silu"}
)

# TorchScript is a sandbox of tensor operations with holes: these reach files or native code.
_SCRIPT_HOLES = re.compile(r"\b(from_file|_load_for_lite_interpreter|torch\.classes|torch\.save|torch\.load)\b")
_SCRIPT_OPS = re.compile(r"\bops\.(\w+)\.")
_KNOWN_SCRIPT_OPS = {"aten", "prim", "prims", "quantized", "torchvision", "torchaudio"}


def load(archive: Archive, *, trust: bool, architecture: str | None) -> Any:
    """The object in the file: a module, a TorchScript module, an ExportedProgram, or a module given its weights.

    Raises:
        UntrustedSource: loading would run code from the file, and `trust` is False.
        ArchitectureMissing: the file holds weights only, and no `architecture` is given.
        CorruptFile, WeightsMismatch, BadOption
    """
    if architecture is not None and archive.kind in ("torchscript", "pt2"):
        raise BadOption(
            f"--model {architecture}: {archive.path.name} is a {_WHAT[archive.kind]} and holds its own architecture",
            remedy="leave out --model",
        )
    match archive.kind:
        case "torchscript":
            return _load_script(archive, trust)
        case "pt2":
            return _load_pt2(archive, trust)
        case "safetensors":
            return _with_weights(archive, _load_safetensors(archive), architecture)
        case "pickle" | "pickle legacy":
            return _load_pickle(archive, trust, architecture)
        case kind:
            raise UnknownFormat(
                f"{archive.path.name} is {_WHAT[kind]}, a format that is retired or runs its own code",
                remedy="load it with the program that wrote it, and save a state_dict, TorchScript or .pt2",
            )


_AGAIN = "copy the file again, or save it again"

_WHAT = {
    "torchscript": "TorchScript archive",
    "pt2": "ExportedProgram archive",
    "tar": "a tar archive of PyTorch before 0.1.10",
    "package": "a torch.package archive",
    "old export": "a torch.export archive of torch 2.7 or older",
}


def _load_script(archive: Archive, trust: bool) -> Any:
    import torch

    if not trust:
        _check_script(archive)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "torch.jit.load is deprecated": there is no other way
        clean = torch_archive.repack(archive, Path(folder) / "script.pt")
        try:
            return torch.jit.load(clean, map_location="cpu")
        except RuntimeError as error:
            raise CorruptFile(
                f"{archive.path.name}: torch cannot load it: {first_line(error)}", remedy=_AGAIN
            ) from error


def _check_script(archive: Archive) -> None:
    for member in archive.members:
        inner = member.removeprefix(archive.root)
        if not (inner.startswith("code/") and inner.endswith(".py")):
            continue
        code = torch_archive.read_member(archive, inner).decode("utf-8", "replace")
        hole = _SCRIPT_HOLES.search(code)
        strange = next((m for m in _SCRIPT_OPS.finditer(code) if m.group(1) not in _KNOWN_SCRIPT_OPS), None)
        found = hole or strange
        if found is not None:
            line = code.count("\n", 0, found.start()) + 1
            raise UntrustedSource(
                f"the TorchScript code in {archive.path.name} calls `{found.group(0)}`, which can reach files or "
                "native code",
                where=f"{inner}:{line} in the archive",
                remedy="--trust, if you trust the file's author as you trust a program",
            )


def _load_pt2(archive: Archive, trust: bool) -> Any:
    import torch

    samples = trust or torch_pt2.check(archive)
    with tempfile.TemporaryDirectory() as folder:
        without = () if samples else ("data/sample_inputs/",)
        clean = torch_archive.repack(archive, Path(folder) / "model.pt2", without=without)
        try:
            return torch.export.load(clean)
        except Exception as error:
            raise CorruptFile(
                f"{archive.path.name}: torch cannot load it: {first_line(error)}", remedy=_AGAIN
            ) from error


def _load_safetensors(archive: Archive) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(archive.path))
    except (SafetensorError, OSError) as error:
        raise CorruptFile(
            f"{archive.path.name} is a damaged safetensors file: {first_line(error)}", remedy=_AGAIN
        ) from error


def _load_pickle(archive: Archive, trust: bool, architecture: str | None) -> Any:
    """A weights file, or a pickled module: stock layers load through torch's safe loader, the rest needs trust."""
    assert archive.globals is not None
    stock = _stock_layers()
    strange = sorted(archive.globals.names - PLAIN_GLOBALS - stock.keys())
    needs_trust = bool(strange) or not archive.globals.resolved
    legacy_module = archive.kind == "pickle legacy" and not archive.globals.names <= PLAIN_GLOBALS
    if (needs_trust or legacy_module) and not trust:
        raise _untrusted(archive, strange)
    content = _unpickle(archive, stock, trust=needs_trust or legacy_module)
    if _is_module(content):
        if architecture is not None:
            raise BadOption(
                f"--model {architecture}: {archive.path.name} holds a whole module", remedy="leave out --model"
            )
        return content
    if isinstance(content, Mapping):
        return _with_weights(archive, _state_dict(content), architecture)
    raise NotAModel(
        f"{archive.path.name} holds a {type(content).__name__}, which is neither a module nor a state_dict",
        remedy="save the module's state_dict, TorchScript or .pt2",
    )


def _unpickle(archive: Archive, stock: dict[str, Any], *, trust: bool) -> Any:
    import torch

    try:
        if trust:
            search_here()
            return torch.load(archive.path, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals([*stock.values(), set]):
            return torch.load(archive.path, map_location="cpu", weights_only=True)
    except (ModuleNotFoundError, AttributeError) as error:
        raise NotAModel(
            f"{archive.path.name} needs Python code that is not importable here: {first_line(error)}",
            remedy="run in the folder of that code, or put it on PYTHONPATH",
        ) from error
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise CorruptFile(f"{archive.path.name}: torch cannot load it: {first_line(error)}", remedy=_AGAIN) from error


def _stock_layers() -> dict[str, Any]:
    """Layers of torch.nn, by the name a pickle gives them; a fixed set: subclasses elsewhere don't count."""
    import torch

    layers = (getattr(torch.nn, name) for name in torch.nn.modules.__all__)
    found: dict[str, Any] = {f"{c.__module__}.{c.__qualname__}": c for c in layers if isinstance(c, type)}
    linear = torch.nn.modules.linear.NonDynamicallyQuantizableLinear  # what MultiheadAttention is made of
    found[f"{linear.__module__}.{linear.__qualname__}"] = linear
    functional = torch.nn.functional
    functions = (functional.relu, functional.gelu, functional.silu)
    found.update({f"{f.__module__}.{f.__name__}": f for f in functions})
    return {
        name: value for name, value in found.items() if name.startswith("torch.nn.modules.") or name in _STOCK_FUNCTIONS
    }


def _untrusted(archive: Archive, strange: list[str]) -> UntrustedSource:
    shown = ", ".join(f"`{n}`" for n in strange[:8]) or "names that are computed while loading"
    more = f" and {len(strange) - 8} more" if len(strange) > 8 else ""
    return UntrustedSource(
        f"{archive.path.name} is a pickle; loading it would import and run {shown}{more}",
        where=archive.path.name,
        remedy="--trust, if you trust the file's author as you trust a program; or save the model as TorchScript, "
        ".pt2, or a state_dict (with --model)",
        data={"globals": strange},
    )


def _state_dict(content: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a checkpoint: at its top, or under the customary key."""
    for key in ("state_dict", "model_state_dict", "model"):
        inner = content.get(key)
        if isinstance(inner, Mapping) and any(_is_tensor(v) for v in inner.values()):
            content = inner
            break
    tensors = {str(k): v for k, v in content.items() if _is_tensor(v)}
    if tensors and all(k.startswith("module.") for k in tensors):  # saved from DataParallel
        tensors = {k.removeprefix("module."): v for k, v in tensors.items()}
    return tensors


def _with_weights(archive: Archive, weights: dict[str, Any], architecture: str | None) -> Any:
    if architecture is None:
        raise ArchitectureMissing(
            f"{archive.path.name} holds {len(weights)} weights but no architecture: {_examples(weights)}",
            where=archive.path.name,
            remedy="--model package.module:callable, the code that builds the module these weights belong to",
        )
    module = build(architecture)
    if not _is_module(module):
        raise NotAModel(f"--model {architecture} returned a {type(module).__name__}, not an nn.Module")
    own = module.state_dict()
    missing = sorted(own.keys() - weights.keys())
    unexpected = sorted(weights.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape)
    if missing or unexpected or shapes:
        raise WeightsMismatch(
            f"the weights in {archive.path.name} do not fit {architecture}",
            details=tuple(
                f"{what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''} ({len(names)})"
                for what, names in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes))
                if names
            ),
            remedy="name the architecture that these weights were saved from",
        )
    module.load_state_dict(weights)
    return module


def _examples(weights: Mapping[str, Any]) -> str:
    shown = [f"{name}{list(value.shape)}" for name, value in list(weights.items())[:3]]
    return ", ".join(shown) + (", ..." if len(weights) > 3 else "")


def _is_module(value: Any) -> bool:
    import torch

    return isinstance(value, torch.nn.Module)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def first_line(error: BaseException) -> str:
    """The sentence of an error that says something, without the colours and advice that torch adds."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def last_sentence(error: BaseException) -> str:
    """TorchScript prints the source around an error; the sentence is the first line that is not about place."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    useful = [
        x for x in lines if not x.startswith(("File ", "Traceback", "~", "---", "The following operation failed"))
    ]
    return (useful or [first_line(error)])[0][:300]
