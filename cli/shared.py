"""What several commands do alike: options that name something once, and a standard output that is the answer alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


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
