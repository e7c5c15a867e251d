"""Whole sets of inputs: read from `.npz` and `.npy` files or a user's generator, and written for another time.

One set is `{input name: array}`. An archive holds one set under the inputs' names, or several as `0/x`, `1/x`, ...
"""

from __future__ import annotations

import inspect
import io
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import atomic
from graphkit.capture import python_callable
from graphkit.errors import BadCallable, BadSample, FileMissing

if TYPE_CHECKING:
    import numpy as np

    InputSet = Mapping[str, np.ndarray[Any, Any]]

MOST = 256
"""Sets that are taken from a generator, which may never end."""

_NUMBERED = re.compile(r"^(\d+)/(.+)$", re.DOTALL)


def read(path: Path) -> tuple[InputSet, ...]:
    """The sets in an `.npz` archive, in a folder of archives (by name), or in a folder of one `.npy` per input.

    Raises:
        FileMissing: there is no such file or folder.
        BadSample: it holds no arrays, or something that is no array.
    """
    if not path.exists():
        raise FileMissing(f"no such file or folder: {path}")
    if not path.is_dir():
        return _archive(path)
    archives, arrays = sorted(path.glob("*.npz")), sorted(path.glob("*.npy"))
    if bool(archives) == bool(arrays):
        what = "both .npz and .npy files" if archives else "neither .npz nor .npy files"
        raise BadSample(
            f"the folder {path} holds {what}", remedy="one .npz per set of inputs, or one .npy per input of one set"
        )
    if arrays:
        return ({file.stem: _load(file) for file in arrays},)
    return tuple(each for file in archives for each in _archive(file))


def generated(spec: str) -> tuple[tuple[InputSet, ...], bool]:
    """The sets that a user's `package.module:generator` yields, and whether there were more than `MOST`.

    Raises:
        BadCallable: it cannot be imported, fails, or yields nothing, or something that is not a dict of arrays.
    """
    made = python_callable.build(spec, "dicts of numpy arrays")
    if not isinstance(made, Iterable):
        raise BadCallable(f"--data {spec} gives a {type(made).__name__}", remedy=_YIELDS)
    try:
        found = tuple(_as_arrays(spec, each) for each in islice(made, MOST + 1))
    except BadCallable:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise BadCallable(f"--data {spec} failed: {type(error).__name__}: {error}", remedy=_YIELDS) from error
    finally:
        if inspect.isgenerator(made):
            made.close()
    if not found:
        raise BadCallable(f"--data {spec} yields nothing", remedy=_YIELDS)
    return found[:MOST], len(found) > MOST


def write(path: Path, sets: Sequence[InputSet]) -> None:
    """Write sets as one archive that `read` takes; the same sets give the same bytes.

    Raises:
        CannotWrite: the folder is missing or read-only.
    """
    import numpy as np

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, each in enumerate(sets):
            for name, array in each.items():
                stored = io.BytesIO()
                plain = array.astype(str) if array.dtype.kind == "O" else array
                np.lib.format.write_array(stored, np.ascontiguousarray(plain).reshape(plain.shape), allow_pickle=False)
                # A ZipInfo of its own: np.savez would write the time of day.
                member = zipfile.ZipInfo(f"{name}.npy" if len(sets) == 1 else f"{number}/{name}.npy")
                archive.writestr(member, stored.getvalue(), zipfile.ZIP_DEFLATED)
    atomic.write_bytes(path, packed.getvalue())


_YIELDS = "a function without arguments that yields dicts of numpy arrays: {'x': array}"


def _archive(path: Path) -> tuple[InputSet, ...]:
    loaded = _load(path)
    if not isinstance(loaded, dict):
        raise BadSample(f"{path.name} is one array, not a set of inputs", remedy=f"--input NAME={path}")
    if not loaded:
        raise BadSample(f"{path.name} holds no arrays", remedy="np.savez(file, x=array)")
    numbered = {name: _NUMBERED.match(name) for name in loaded}
    sets: dict[int, dict[str, Any]] = {}
    for name, match in numbered.items():
        if match is None:
            return (loaded,)
        sets.setdefault(int(match[1]), {})[match[2]] = loaded[name]
    return tuple(sets[number] for number in sorted(sets))


def _load(path: Path) -> Any:
    """An array, or the arrays of an archive by name."""
    import numpy as np

    try:
        with path.open("rb") as file:  # np.load would leave the file of a broken archive open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadSample(f"{path.name} holds no plain arrays: {why}", remedy="np.save or np.savez") from error


def _as_arrays(spec: str, each: Any) -> InputSet:
    import numpy as np

    if not isinstance(each, Mapping) or not each:
        raise BadCallable(f"--data {spec} yields a {type(each).__name__}", remedy=_YIELDS)
    return {str(name): np.asarray(value) for name, value in each.items()}
