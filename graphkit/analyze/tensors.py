"""What is known of a value before anything runs: its dtype, and its sizes as numbers or polynomials."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias

from graphkit.analyze.polynomial import Size, parse, product
from graphkit.view import TypeView
from graphkit.view.dtypes import BY_NAME

Shape: TypeAlias = tuple[Size | None, ...]
"""None for a size that is not known."""


class Tensor(NamedTuple):
    """Attributes:
    shape: None where even the rank is unknown.
    dtype: None where it is unknown, and for what is no tensor.
    """

    shape: Shape | None = None
    dtype: str | None = None

    @property
    def elements(self) -> Size | None:
        """Number of elements; None if it is unknown."""
        return elements(self.shape)

    @property
    def nbytes(self) -> Size | None:
        """Bytes; None if shape or dtype are unknown, or elements have no fixed width or share bytes."""
        known = BY_NAME.get(self.dtype or "")
        count = self.elements
        if count is None or known is None or not known.bits:
            return None
        if known.bits % 8:
            return -(-count * known.bits // 8) if isinstance(count, int) else None
        return count * (known.bits // 8)


UNKNOWN = Tensor()


@lru_cache(maxsize=1024)
def elements(shape: Shape | None) -> Size | None:
    """Product of the sizes; None if one of them is unknown."""
    if shape is None:
        return None
    known = [size for size in shape if size is not None]
    return product(known) if len(known) == len(shape) else None


def stated(type_: TypeView | None) -> Tensor:
    """What a file says of a value."""
    if type_ is None or type_.kind != "tensor":
        return UNKNOWN
    shape = None
    if type_.shape is not None:
        shape = tuple(_size(dim) for dim in type_.shape)
    return Tensor(shape, None if type_.dtype in (None, "undefined") else type_.dtype)


_NAMELESS = frozenset(("?", "-1", "None"))
"""What exporters write for a size that they do not know; two of them need not be equal."""


def _size(dim: int | str | None) -> Size | None:
    if isinstance(dim, str):
        return None if dim in _NAMELESS else parse(dim)
    return dim if dim is None or dim >= 0 else None
