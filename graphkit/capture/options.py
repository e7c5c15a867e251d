"""Options that concern some kinds of source only: each is heard, or refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption

FLAGS = {
    "via": ("--via", "TorchScript and torch.export are ways of PyTorch"),
    "submodule": ("--submodule", "it names a part of a PyTorch module"),
    "architecture": ("--model", "it is for a file that holds weights only"),
    "signature": ("--signature", "only SavedModels and TFLite files have signatures"),
    "outputs": ("--output-name", "only the outputs of a GraphDef can be chosen"),
    "state": ("--state", "only TensorFlow code assigns variables"),
    "layout": ("--layout", "only TensorFlow's own graphs have images as NHWC"),
}
"""Option of a `CaptureRequest` -> its flag, and why a source may not know it."""

TORCH = frozenset({"via", "submodule", "architecture"})
TENSORFLOW = frozenset({"state", "layout"})
SAVED_MODEL = TENSORFLOW | {"signature"}
TFLITE = frozenset({"signature"})
GRAPH_DEF = frozenset({"outputs", "layout"})
ANY = frozenset(FLAGS)
NONE: frozenset[str] = frozenset()


def refuse_others(request: CaptureRequest, heard: Iterable[str], what: str) -> None:
    """Refuse options that say nothing about a source.

    Args:
        request: What was asked.
        heard: Names of the options that the source knows.
        what: What the source is: `a Keras model`.

    Raises:
        BadOption
    """
    for name, (flag, reason) in FLAGS.items():
        value = getattr(request, name)
        if value and name not in heard:
            shown = " ".join(value) if isinstance(value, tuple) else value
            raise BadOption(f"{flag} {shown} says nothing about {what}: {reason}", remedy=f"leave out {flag}")


def only(request: CaptureRequest, heard: Iterable[str]) -> CaptureRequest:
    """The request without the options that a source does not know: among several sources, they are for another."""
    plain = CaptureRequest()
    without: dict[str, Any] = {name: getattr(plain, name) for name in FLAGS if name not in heard}
    return replace(request, **without)
