"""Models saved once, in a private folder, for the native tools that want a file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from graphkit import atomic
from graphkit.model import INLINE_LIMIT, Model


class Drafts:
    """The files of one conversion; they go when it ends."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="graphkit-")
        self._saved: dict[int, tuple[Model, Path]] = {}  # the model is kept, so that its id stays its own

    def path(self, model: Model) -> Path:
        """The model's file, saved at the first call."""
        if id(model) not in self._saved:
            target = Path(self._folder.name, f"{len(self._saved)}.onnx")
            self._saved[id(model)] = (model, model.save(target, durable=False)[0])
        return self._saved[id(model)][1]

    def adopt(self, model: Model, file: Path) -> None:
        """Use a file of the model that exists already, in a folder that outlives this one."""
        self._saved[id(model)] = (model, file)

    def publish(self, model: Model, output: Path) -> list[Path]:
        """Write the model to `output`, whole or not at all: byte for byte the file that was compared and built from.

        Two models are written again: one with external weights, which are named after the output, and one whose
        declared output shapes were made true after the comparison. Their nodes and weights are those of that file.
        """
        if model.weight_bytes >= INLINE_LIMIT:
            return model.save(output)
        with atomic.replacing(output) as temporary:
            shutil.copyfile(self.path(model), temporary)
        return [output]

    def __enter__(self) -> Drafts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()
