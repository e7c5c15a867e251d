"""Named tensors as `.npy` files, one each, for the way between two processes. Nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_tensors(tensors: Mapping[str, Any], folder: Path) -> list[dict[str, str]]:
    """Write each tensor; returns `name`, `dtype` and `file` of each, for `read_tensors`.

    Files carry numbers for names, since a tensor may be called `/encoder/../out`. One file each and not one `.npz`,
    which would copy every tensor through a checksum.
    """
    import numpy as np

    written = []
    for position, (name, tensor) in enumerate(tensors.items()):
        file = folder / f"{position}.npy"
        array = np.asarray(tensor)
        dtype = "string" if array.dtype.kind in "OUS" else array.dtype.name
        if dtype == "string":
            array = array.astype(str)
        elif array.dtype.kind == "V" or "float8" in dtype or array.dtype.isbuiltin != 1:
            array = array.view(f"uint{8 * array.dtype.itemsize}")  # .npy stores these as bytes without a type
        np.save(file, array, allow_pickle=False)
        written.append({"name": name, "dtype": dtype, "file": str(file)})
    return written


def read_tensors(entries: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Inverse of `write_tensors`; strings come back as arrays of `str` objects."""
    import ml_dtypes
    import numpy as np

    tensors = {}
    for entry in entries:
        array = np.load(entry["file"], allow_pickle=False)
        dtype = entry["dtype"]
        if dtype == "string":
            array = array.astype(object)
        elif array.dtype.name != dtype:
            array = array.view(getattr(ml_dtypes, dtype))
        tensors[entry["name"]] = array
    return tensors
