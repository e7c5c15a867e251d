"""Measures tensors inside two graphs, some at a time, so that never all of them are in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from graphkit.parity.chunks import in_chunks
from graphkit.parity.common_tensors import CommonTensors
from graphkit.parity.divergence import TensorError
from graphkit.parity.runners import ort_worker
from graphkit.parity.value_matches import Probes
from graphkit.shapes import evaluate

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.model import Model


_UNKNOWN = 4_000_000  # bytes that a tensor of unknown shape is taken for, until one of them was seen
_INLINE = 1024  # bytes of a weight that stays in the graph: ONNX Runtime's shape inference reads small ones
_CHILD = "graphkit.parity.locate_child"


class Taps:
    """Both graphs as files that share nothing with others: a small graph and its weights, mapped and not copied.

    Args:
        reference, candidate: The two models.
        tensors: What they have in common.

    Attributes:
        errors: What was measured so far, by the tensor's name.
    """

    def __init__(self, reference: Model, candidate: Model, tensors: CommonTensors) -> None:
        self._tensors = tensors
        self._folder = Path(tempfile.mkdtemp(prefix="graphkit-locate-"))
        first = str(split(reference, self._folder / "reference"))
        self._files = [first, first if candidate is reference else str(split(candidate, self._folder / "candidate"))]
        self._inputs: list[dict[str, str]] = []
        self._sizes: Mapping[str, int] = {}
        self._largest = 0
        self.errors: dict[str, TensorError] = {}
        self._no_tensors: set[str] = set()

    def feed(self, inputs: Mapping[str, np.ndarray[Any, Any]], sizes: Mapping[str, int]) -> None:
        """Run on these values from now on; what was measured on others is forgotten.

        Args:
            sizes: Of the symbolic dimensions, to guess how large a tensor is.
        """
        from graphkit.tensor_files import write_tensors

        folder = Path(tempfile.mkdtemp(dir=self._folder))
        self._inputs, self._sizes = write_tensors(inputs, folder), sizes
        self.errors.clear()

    def measure(self, names: Iterable[str]) -> None:
        """Put the errors of some common tensors into `errors`, those that are there already left out.

        Raises:
            InvalidExport, BadSample, ParityFailed, NativeCrash, OutOfMemory: one side cannot be loaded or run.
        """
        wanted = [n for n in dict.fromkeys(names) if n not in self.errors and n not in self._no_tensors]
        for chunk in self._chunks(wanted):
            self._keep(chunk, self._measured(chunk))

    def probes(self) -> Probes:
        """A look into both graphs without regard to names."""
        return Probes(self._files[0], self._files[1], self._inputs)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _measured(self, chunk: Sequence[str]) -> list[dict[str, Any] | None]:
        """What one run of both says of some tensors."""
        pairs = [[self._tensors.reference_name(n), n] for n in chunk]
        done: list[dict[str, Any] | None] = ort_worker().call(
            f"{_CHILD}:measure", reference=self._files[0], candidate=self._files[1], pairs=pairs, inputs=self._inputs
        )
        return done

    def _keep(self, names: Sequence[str], found: Sequence[dict[str, Any] | None]) -> None:
        for name, entry in zip(names, found, strict=True):
            if entry is None:
                self._no_tensors.add(name)
                continue
            self.errors[name] = self._error(name, entry)

    def _error(self, name: str, entry: dict[str, Any]) -> TensorError:
        self._largest = max(self._largest, entry.pop("nbytes"))
        node = self._tensors.makers[name]
        ranges = {k: tuple(entry[k]) if entry[k] else None for k in ("reference_range", "candidate_range")}
        fields = {**entry, **ranges, "shape": tuple(entry["shape"])}
        return TensorError(name, node.op_type, node.name or "", self._tensors.depth[id(node)], **fields)

    def _chunks(self, names: Sequence[str]) -> Iterator[list[str]]:
        return in_chunks(names, lambda name: self._bytes(self._tensors.values[name]))

    def _bytes(self, value: ir.Value) -> int:
        """A guess at the bytes of a tensor on both sides."""
        total = 8
        for dim in value.shape if value.shape is not None else (None,):
            known = evaluate(dim if isinstance(dim, int) else getattr(dim, "value", None), self._sizes)
            if known is None:
                return self._largest or _UNKNOWN
            total *= known
        return total


def split(model: Model, folder: Path) -> Path:
    """A model as a small graph and its weights, in a folder of its own; returns the graph's path."""
    import onnx_ir as ir

    folder.mkdir()
    graph = ir.external_data.unload_from_model(model.ir.clone(), folder, "weights", size_threshold_bytes=_INLINE)
    path = folder / "graph.onnx"
    ir.save(graph, path)
    return path
