"""What is in an HDF5 file, read where h5py may crash without harm: in a child process."""

from __future__ import annotations

import contextlib
import zipfile
from typing import Any

from graphkit.errors import CorruptFile

_MOST = 200_000
_OPTIMISERS = ("optimizer", "optimizer_weights", "_optimizer")


def content(path: str, member: str | None) -> dict[str, Any]:
    """Name, dtype and shape of every dataset but those of optimisers, and Keras' configuration.

    Args:
        path: An HDF5 file, or a zip archive.
        member: The archive's member that is HDF5; None for a file that is no archive.

    Raises:
        CorruptFile: it is no HDF5 file, or damaged.
    """
    import h5py

    tensors: list[tuple[str, str, list[int]]] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(_OPTIMISERS) and len(tensors) < _MOST:
            tensors.append((name, str(item.dtype), [int(size) for size in item.shape or ()]))

    try:
        with contextlib.ExitStack() as opened:
            source: Any = path
            if member is not None:
                source = opened.enter_context(opened.enter_context(zipfile.ZipFile(path)).open(member))
            file = opened.enter_context(h5py.File(source, "r"))
            file.visititems(visit)
            config = file.attrs.get("model_config")
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise CorruptFile(f"the HDF5 file is damaged: {error}", remedy="copy or save it again") from error
    if isinstance(config, bytes):
        config = config.decode("utf-8", "replace")
    return {"tensors": tensors, "config": config if isinstance(config, str) else None}
