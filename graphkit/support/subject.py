"""What is checked: read as a view, and captured only where somebody needs the whole model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.capture.onnx_file import OnnxSource
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.errors import CorruptFile
from graphkit.shapes import DimRange

if TYPE_CHECKING:
    from graphkit.model import Model
    from graphkit.view import GraphView, ModelView


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check for.

    Attributes:
        target: `trt`, `rtx` or `ort`.
        capture: How to capture a source that is no ONNX file; its shapes and ranges count for ONNX, too.
        capabilities: `8.6`; () for the target's default.
        partition: Folder for the parts that the target takes.
        select, ignore: Prefixes of the codes to show, or not.
    """

    target: str
    capture: CaptureRequest = field(default_factory=CaptureRequest)
    capabilities: tuple[str, ...] = ()
    partition: Path | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


class Subject:
    """A source. Raises: what its capture raises.

    Attributes:
        name: Of the source.
        view: Its graph.
    """

    def __init__(self, source: Any, request: CheckRequest) -> None:
        from graphkit import view

        self._request = request.capture
        self._source = recognise(source, request.capture)
        self.name = self._source.name
        self._model: Model | None = None
        as_it_stands = isinstance(self._source, OnnxSource) and not (request.capture.shapes or request.capture.samples)
        self.view: ModelView = view.read(source) if as_it_stands else view.of(self.model)
        if as_it_stands and request.capture != CaptureRequest():
            _ = self.model  # capture refuses what does not fit the file
        _refuse_bombs(self.view)

    @property
    def model(self) -> Model:
        """The whole model; captured at the first use."""
        if self._model is None:
            self._model = self._source.capture(self._request)
        return self._model

    @property
    def ranges(self) -> tuple[DimRange, ...]:
        """Ranges of dimensions of the model's inputs: its own, and over them those that were asked for."""
        symbols = self.model.signature.symbols
        return tuple({d.symbol: d for d in (*self.model.dims, *self._request.dims) if d.symbol in symbols}.values())


_MOST_EXPANDED = 1_000_000
"""As for capture: 31 functions that call one another twice reach 2^30 nodes from a file of 2 kB."""


def _refuse_bombs(view: ModelView) -> None:
    """Raises: `CorruptFile`: the functions of the model expand to more nodes than any real model has."""
    bodies = {function.key: function.body for function in view.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size(graph: GraphView, calling: frozenset[tuple[str, str, str]]) -> int:
        total = 0
        for each in graph.walk():
            for index, op in enumerate(each.ops):
                key = (each.domains[index], op, each.overloads.get(index, ""))
                if key in bodies and key not in calling:  # that a function calls itself is told elsewhere
                    if key not in sizes:
                        sizes[key] = size(bodies[key], calling | {key})
                    total += sizes[key]
                else:
                    total += 1
        return total

    total = size(view.graph, frozenset()) if bodies else 0
    if total > _MOST_EXPANDED:
        raise CorruptFile(
            f"{view.name}: its functions expand to {total:.3g} nodes; the limit is {_MOST_EXPANDED:,}",
            remedy="export the model again, with its functions inlined",
        )
