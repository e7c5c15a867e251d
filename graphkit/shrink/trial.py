"""One candidate on disk, and who judges it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from graphkit.model import Model
from graphkit.shrink.failure import Failure

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Trial:
    """A model that may fail.

    Attributes:
        model: The model.
        path: The same as a file, alone in its folder.
        samples: Sets of inputs; () where their values are not known.
        names: Of nodes and tensors of the whole model.
        other, other_path: What it is compared with, where that is another model.
    """

    model: Model
    path: Path
    samples: tuple[Arrays, ...]
    names: frozenset[str]
    other: Model | None = None
    other_path: Path | None = None


_LONGEST_STEM = 200


class Check(Protocol):
    """What decides whether a model fails.

    Attributes:
        label: What it does, in a few words.
        each_sample: Whether it looks at one set of inputs at a time.
        needs_values: Whether it says nothing without inputs.
    """

    label: str
    each_sample: bool
    needs_values: bool

    def run(self, trial: Trial, sample: int | None) -> Failure | None:
        """None where the model does not fail.

        Args:
            sample: Which set of inputs.

        Raises:
            GraphkitError: it cannot be told.
        """


def write_inputs(folder: Path, samples: Iterable[Arrays]) -> list[Path]:
    """`0/x.npy`, `1/x.npy`, ...: a folder for each set of inputs, and a file for each input, named after it.

    Characters that do not belong in a file's name are percent-encoded. bfloat16 and 8-bit floats are stored as
    unsigned integers of their size, strings as numpy's unicode arrays.
    """
    import numpy as np

    folders = []
    for position, sample in enumerate(samples):
        where = folder / str(position)
        where.mkdir(parents=True, exist_ok=True)
        for name, value in sample.items():
            np.save(where / f"{file_stem(name)}.npy", _plain(value), allow_pickle=False)
        folders.append(where)
    return folders


def file_stem(name: str) -> str:
    """The file of an input: `/layer/out:0` is `%2Flayer%2Fout%3A0`; one too long for a file ends in its CRC-32."""
    stem = quote(name, safe=" +,@=") if name not in (".", "..") else name.replace(".", "%2E")
    return stem if len(stem) <= _LONGEST_STEM else f"{stem[:_LONGEST_STEM]}~{zlib.crc32(name.encode()):08x}"


def input_names(model: Model) -> tuple[str, ...]:
    """What has to be fed."""
    return tuple(spec.name for spec in model.signature.inputs)


def fitting(sample: Arrays, names: Sequence[str]) -> dict[str, Any]:
    """The part of a sample that a model takes."""
    return {name: sample[name] for name in names}


def _plain(value: Any) -> Any:
    if value.dtype.kind in "OUS":
        return value.astype(str)
    if value.dtype.kind == "V" or value.dtype.isbuiltin != 1:
        return value.view(f"uint{8 * value.dtype.itemsize}")
    return value
