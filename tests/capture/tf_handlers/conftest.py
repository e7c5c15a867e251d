"""One child with TensorFlow for all programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from graphkit.isolate import Worker


@pytest.fixture(scope="session")
def compared() -> Iterator[Callable[..., dict[str, Any]]]:
    """`compared(group, name, opset=18)`: a program of `<group>_programs.py` against TensorFlow; see `comparison`."""
    worker = Worker("TensorFlow", preload=("tensorflow",))

    def compare(group: str, name: str, opset: int = 18) -> dict[str, Any]:
        module = f"tests.capture.tf_handlers.{group}"
        arguments = {"module": module, "name": name, "opset": opset}
        return dict(worker.call("tests.capture.tf_handlers.comparison:compare", timeout=300, **arguments))

    yield compare
    worker.close()
