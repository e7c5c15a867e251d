"""What the request gives as values of a model's inputs, whatever the framework: arrays in files, and nested inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.errors import BadSample, ShapeMismatch
from graphkit.shapes import TensorSpec

if TYPE_CHECKING:
    import numpy as np


def load_array(name: str, path: Path) -> np.ndarray[Any, Any]:
    """The array in a `.npy` file that `--input` names.

    Raises:
        BadSample: there is no such file, or it holds something else.
    """
    import numpy as np

    if not path.is_file():
        raise BadSample(f"--input {name}={path}: no such file", remedy="a .npy file, or a number")
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise BadSample(
            f"--input {name}={path.name} is not a .npy file of plain numbers: {str(error).splitlines()[0]}",
            remedy="write it with numpy.save",
        ) from error
    if not isinstance(array, np.ndarray):
        raise BadSample(f"--input {name}={path.name} is an .npz archive", remedy="one .npy file per input")
    return np.array(array)


def check_fits(wanted: TensorSpec, found: TensorSpec, path: Path) -> None:
    """Hold what a sample file has against the shape and dtype that were asked for.

    Raises:
        ShapeMismatch
    """
    assert wanted.shape is not None
    assert found.shape is not None
    static = zip(wanted.shape, found.shape, strict=False)
    bad_shape = len(wanted.shape) != len(found.shape) or any(isinstance(w, int) and w != f for w, f in static)
    if bad_shape or (wanted.dtype is not None and wanted.dtype != found.dtype):
        raise ShapeMismatch(f"--input {path.name} holds {found}, but --shape says {wanted}", remedy="make them agree")


def place(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Put a value into nested dicts, which are made on the way."""
    *parents, last = path
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def lists(value: Any) -> Any:
    """Turn dicts whose keys are 0, 1, 2... into lists: `states.0` is an item of a list."""
    if not isinstance(value, dict):
        return value
    inner = {k: lists(v) for k, v in value.items()}
    if inner and all(k.isdecimal() for k in inner) and sorted(map(int, inner)) == list(range(len(inner))):
        return [inner[str(i)] for i in range(len(inner))]
    return inner
