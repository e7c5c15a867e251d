"""What several commands do alike: options that name something once, and a standard output that is the answer alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import click

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])

_SOURCE_OPTIONS = (
    click.option("--signature", metavar="NAME", help="Which signature of a SavedModel or TFLite file."),
    click.option("--output-name", multiple=True, metavar="T", help="An output of a GraphDef: scores, split:1."),
    click.option("--state", type=click.Choice(["inputs"]), help="TensorFlow variables as inputs and outputs."),
    click.option("--layout", multiple=True, metavar="nchw[:X]", help="TensorFlow's images as NCHW; X: that one only."),
)


def source_options(command: C) -> C:
    """The options that only some sources of TensorFlow's know."""
    for option in reversed(_SOURCE_OPTIONS):
        command = option(command)
    return command


def source_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a `CaptureRequest` calls the options of a command that concern how a source is opened."""
    return {
        "submodule": options["submodule"],
        "architecture": options["model"],
        "trust": options["trust"],
        "signature": options["signature"],
        "state": options["state"],
        "layout": options["layout"],
        "outputs": options["output_name"],
    }


def each_once(option: str, texts: tuple[str, ...], parse: Callable[[str], T], key: Callable[[T], str]) -> tuple[T, ...]:
    from graphkit.errors import BadOption

    found: dict[str, T] = {}
    for text in texts:
        value = parse(text)
        if key(value) in found:
            raise BadOption(f"{option} is given twice for `{key(value)}`", remedy=f"one {option} for each name")
        found[key(value)] = value
    return tuple(found.values())


@contextlib.contextmanager
def libraries_kept_off_stdout(verbose: int) -> Iterator[None]:
    """Send what libraries and the model's own code print to stderr: stdout is for the answer.

    torch.onnx prints from Python, TensorRT and the children from C: hence both the object and the descriptor.
    """
    import warnings

    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        if not verbose:
            warnings.simplefilter("ignore")  # what matters to the user comes as a Finding
        with contextlib.suppress(OSError):  # a process without stdout or stderr has nothing to mix up
            stack.enter_context(_descriptor_to(1, 2))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


@contextlib.contextmanager
def _descriptor_to(descriptor: int, target: int) -> Iterator[None]:
    sys.stdout.flush()
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
