"""Values of tensors inside a model, recorded when they are asked for and kept in files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.errors import GraphkitError
from graphkit.parity.runners import OrtRunner
from graphkit.shrink.cut import TensorType, cut
from graphkit.shrink.graph import Graph, Region

if TYPE_CHECKING:
    import numpy as np

    from graphkit.model import Model

    Arrays = Mapping[str, np.ndarray[Any, Any]]

AT_ONCE = 64
"""Tensors of one run."""


class Recorder:
    """Runs the part of a model before the tensors that are asked for, with ONNX Runtime's optimisations off.

    Args:
        model, graph: What is recorded from.
        samples: Inputs of the whole model.
        folder: Where the values are kept.
        timeout: Seconds that one run may take.
    """

    def __init__(
        self, model: Model, graph: Graph, samples: Sequence[Arrays], folder: Path, timeout: float | None = None
    ) -> None:
        self._model, self._graph, self._samples, self._timeout = model, graph, samples, timeout
        self._folder = folder
        self._kept: dict[str, list[dict[str, str]]] = {}
        self._lost: set[str] = set()

    def values(self, names: Sequence[str]) -> dict[str, list[np.ndarray[Any, Any]]]:
        """The value of each tensor on each sample; a tensor that ONNX Runtime cannot compute is left out."""
        from graphkit.tensor_files import read_tensors

        self._record([n for n in names if n not in self._kept and n not in self._lost])
        found = {}
        for name in names:
            if name in self._graph.inputs:
                found[name] = [sample[name] for sample in self._samples]
            elif name in self._kept:
                found[name] = [read_tensors([entry])[name] for entry in self._kept[name]]
        return found

    def types(self, names: Sequence[str]) -> dict[str, TensorType]:
        """Types of tensors, as they were recorded."""
        import onnx_ir as ir

        found = {}
        for start in range(0, len(names), AT_ONCE):
            for name, values in self.values(names[start : start + AT_ONCE]).items():
                kind = values[0].dtype
                found[name] = TensorType(ir.DataType.STRING if kind.kind in "OUS" else ir.DataType.from_numpy(kind))
        return found

    def _record(self, names: Sequence[str]) -> None:
        wanted = [n for n in names if n in self._graph.makers and n not in self._lost]
        if not wanted or not self._samples:
            return
        try:
            self._run(wanted)
        except GraphkitError:
            if len(wanted) == 1:
                self._lose(wanted[0])
                return
            half = len(wanted) // 2  # in order: what fails first takes all that depends on it with it
            self._record(wanted[:half])
            self._record(wanted[half:])

    def _run(self, names: Sequence[str]) -> None:
        from graphkit.tensor_files import write_tensors

        outputs = self._graph.ordered(names)
        region = Region(self._graph.before(outputs, within=range(len(self._graph.nodes))), outputs)
        part = cut(self._model, self._graph, region, {}, {})
        fed = {v.name for v in part.ir.graph.inputs}
        made = []
        with OrtRunner(part, optimize=False, timeout=self._timeout) as runner:
            for sample in self._samples:
                made.append(runner.run({n: v for n, v in sample.items() if n in fed}))
        for position, results in enumerate(made):
            folder = Path(tempfile.mkdtemp(prefix=f"{position}-", dir=self._folder))
            for entry in write_tensors(results, folder):
                self._kept.setdefault(entry["name"], []).append(entry)

    def _lose(self, name: str) -> None:
        """A tensor that cannot be computed, and all that need it."""
        behind = self._graph.after(self._graph.makers[name])
        self._lost.update(v.name for i in behind for v in self._graph.nodes[i].outputs if v.name)
        self._lost.difference_update(self._kept)
