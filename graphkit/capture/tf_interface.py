"""Inputs and outputs that the captured graph has in NCHW, and the source itself in NHWC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.capture.tf_frozen import Frozen
from graphkit.capture.tf_layout import as_nchw

if TYPE_CHECKING:
    import numpy as np

ALL = "nchw"
"""Entry of a request's layout that means every input and output of rank 4."""


@dataclass(frozen=True, slots=True)
class Interface:
    """Names of the tensors that change places.

    Attributes:
        inputs: Inputs that are handed over in NCHW.
        outputs: Outputs that are returned in NCHW.
    """

    inputs: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, frozen: Frozen, layout: Sequence[str]) -> tuple[Interface, Frozen]:
        """The interface that a layout asks for, and the graph that has it.

        Raises:
            UnknownName, BadOption: as `as_nchw`.
        """
        names = [name for entry in layout for name in (_of_rank_4(frozen) if entry == ALL else [entry])]
        changed = as_nchw(frozen, tuple(dict.fromkeys(names)))
        inputs = {n.spec.name for o, n in zip(frozen.inputs, changed.inputs, strict=True) if o.tensor != n.tensor}
        outputs = {n.spec.name for o, n in zip(frozen.outputs, changed.outputs, strict=True) if o.tensor != n.tensor}
        return cls(frozenset(inputs), frozenset(outputs)), changed

    def to_source(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs as the source takes them."""
        return {n: a.transpose(0, 2, 3, 1) if n in self.inputs else a for n, a in arrays.items()}

    def from_source(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs as the captured graph returns them."""
        return {n: a.transpose(0, 3, 1, 2) if n in self.outputs else a for n, a in arrays.items()}


def _of_rank_4(frozen: Frozen) -> list[str]:
    return [
        t.spec.name for t in (*frozen.inputs, *frozen.outputs) if t.spec.shape is not None and len(t.spec.shape) == 4
    ]
