"""From what the user names to the Source that captures it, told by content and never by extension.

Adding a kind of source is one module with `recognise`, and one line here.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from graphkit.capture.python_callable import is_callable_spec, packages_of
from graphkit.capture.request import CaptureRequest, Source
from graphkit.errors import FileMissing, NotAModel, UnknownFormat

_FILE_SOURCES = (
    "graphkit.capture.onnx_file",
    "graphkit.capture.torch_file",
    "graphkit.capture.tflite",
    "graphkit.capture.tf_file",
)
"""Modules with `recognise(path, head, request) -> Source | None`; the first that recognises the bytes wins."""

_FOLDER_SOURCES = ("graphkit.capture.tf_file",)
"""Of these, the ones that recognise a folder; its head is empty."""

_OBJECT_SOURCES = {
    "torch": "graphkit.capture.torch_object",
    "tensorflow": "graphkit.capture.tf_object",
    "keras": "graphkit.capture.tf_object",
}
"""Top package of an object's class, or of one of its bases -> module with `recognise(target) -> Source | None`."""

_HEAD = 1024


def recognise(source: Any, request: CaptureRequest) -> Source:
    """The Source for a path, a `package.module:callable`, or a Python object.

    Raises:
        FileMissing, UnknownFormat, NotAModel, CorruptFile
    """
    if isinstance(source, Path):
        return _from_file(source, request)
    if isinstance(source, str):
        if is_callable_spec(source) and not Path(source).exists():
            from graphkit import isolate
            from graphkit.capture.isolated import IsolatedSource

            worker = isolate.worker("the model's own code")
            return IsolatedSource(source, {"callable": source}, opener=f"{__name__}:open_callable", worker=worker)
        return _from_file(Path(source), request)
    return from_object(source, "")


def open_callable(spec: dict[str, str], name: str, request: CaptureRequest) -> Source:
    """The Source for what a `package.module:callable` returns; in a child, for it runs the user's own code.

    Raises:
        BadCallable, NotAModel
    """
    from graphkit.capture.python_callable import build

    return from_object(build(spec["callable"]), name)


def _from_file(path: Path, request: CaptureRequest) -> Source:
    if path.name == "saved_model.pb" and path.is_file():  # of a SavedModel, whose weights are beside it
        path = path.resolve().parent
    if path.is_dir():
        for module in _FOLDER_SOURCES:
            folder: Source | None = importlib.import_module(module).recognise(path, b"", request)
            if folder is not None:
                return folder
        raise UnknownFormat(
            f"{path} is a folder, and no SavedModel: it holds no saved_model.pb",
            remedy="name a file, a SavedModel folder, or package.module:callable",
        )
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        raise FileMissing(
            f"no such file: {path}", remedy="check the path; a Python model is named package.module:callable"
        ) from None
    except OSError as error:
        raise FileMissing(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise UnknownFormat(f"{path.name} is empty", remedy="copy or save the file again")
    described = _known_by_sight(head)
    if described is not None:
        raise UnknownFormat(f"{path.name} is {described[0]}, not a model", remedy=described[1])
    for module in _FILE_SOURCES:
        found: Source | None = importlib.import_module(module).recognise(path, head, request)
        if found is not None:
            return found
    raise UnknownFormat(
        f"{path.name} is no model file that graphkit reads (it begins with {head[:8].hex(' ')})",
        remedy="TorchScript, .pt2, a pickled module or state_dict, .safetensors, SavedModel, .keras, .h5, GraphDef, "
        ".tflite, or .onnx",
    )


def from_object(source: Any, name: str) -> Source:
    """The Source for a Python object, under a name, or under that of its class.

    Raises:
        NotAModel
    """
    packages = packages_of(source)
    for package, module in _OBJECT_SOURCES.items():
        if package in packages:
            found: Source | None = importlib.import_module(module).recognise(source, name)
            if found is not None:
                return found
    raise NotAModel(
        f"a {type(source).__module__}.{type(source).__qualname__} is not a model that graphkit can capture",
        remedy="a path, package.module:callable, nn.Module, TorchScript, torch.fx.GraphModule, ExportedProgram, "
        "Keras model or tf.function",
    )


def _known_by_sight(head: bytes) -> tuple[str, str] | None:
    """Things that carry a model's name by accident."""
    start = head.lstrip()[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page", "the download failed: fetch the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer", "git lfs pull"
    if head[:4] in (b"vtrt", b"ftrt"):
        return "a TensorRT engine", "an engine is the end of the line: convert the model it was built from"
    if head.startswith(b"\x1f\x8b"):
        return "gzip-compressed", "gunzip it first"
    if all(b in b"\t\n\r" or 32 <= b < 127 for b in head) and not head.startswith(b"PK"):
        return "text", "name a model file, or package.module:callable"
    return None
