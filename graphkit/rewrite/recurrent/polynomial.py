"""One step of a recurrent loop as polynomials: the canonical form in which two spellings of a formula are equal.

A polynomial is a sum of monomials with coefficients. A monomial is a product of factors: what the step reads (the
input, the state, the mask), `activation(polynomial)`, and `monomial @ matrix`. So `(1 - z) * n + z * h` and
`n + z * (h - n)` are the same polynomial, and so are Gemm and MatMul + Add, one wide product that is split into gates
and one product per gate, `Where(m, a, b)` and `m * a + (1 - m) * b`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Monomial: TypeAlias = tuple[int, ...]
"""Sorted numbers of factors; () is the constant term."""

MOST_TERMS = 32  # the longest gate formula has 5; products of longer sums are no recurrent cell, and may explode


@dataclass(frozen=True, slots=True)
class Atom:
    """Something that the step reads. A mask is 0 or 1: its square is itself."""

    name: str
    key: int = 0
    is_mask: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """An elementwise function of a polynomial, with the parameters of the ONNX operator."""

    op: str
    parameters: tuple[float, ...]
    argument: Polynomial = field(compare=False)
    argument_key: Any = None


@dataclass(frozen=True, slots=True)
class Product:
    """`monomial @ matrix`; `origin` names the matrix: the constant, and the columns taken of it."""

    monomial: Monomial
    matrix: Any = field(compare=False)
    origin: tuple[Any, ...] = ()


Factor: TypeAlias = Atom | Activation | Product


@dataclass(frozen=True, slots=True)
class Polynomial:
    """Coefficients by monomial: float64 scalars, or vectors over the last axis. No coefficient is all zero."""

    terms: Mapping[Monomial, Any]

    @property
    def key(self) -> Any:
        """Equal for equal polynomials of one `Algebra`."""
        return tuple(sorted((m, c.shape, c.tobytes()) for m, c in self.terms.items()))


class Algebra:
    """Makes polynomials, and numbers their factors so that equal factors have equal numbers.

    Every operation returns None where the result has no place in a cell: it is too long, or its size is unknown.
    """

    def __init__(self) -> None:
        self._numbers: dict[Factor, int] = {}
        self.factors: list[Factor] = []

    def constant(self, value: Any) -> Polynomial | None:
        """A scalar, or a vector over the last axis: shapes `()`, `(n,)` and `(1, n)`."""
        import numpy as np

        given = np.asarray(value, dtype=np.float64)
        if given.ndim > 2 or (given.ndim == 2 and given.shape[0] != 1):
            return None
        return _made({(): given.reshape(()) if given.size == 1 else given.reshape(-1)})

    def of(self, factor: Factor) -> Polynomial:
        """The polynomial that is this factor alone."""
        import numpy as np

        return Polynomial({(self._number(factor),): np.ones(())})

    def add(self, a: Polynomial, b: Polynomial, sign: float = 1.0) -> Polynomial | None:
        """`a + sign * b`."""
        terms = dict(a.terms)
        for monomial, coefficient in b.terms.items():
            scaled = sign * coefficient
            if monomial in terms and not _agree(terms[monomial], scaled):
                return None
            terms[monomial] = terms[monomial] + scaled if monomial in terms else scaled
        return _made(terms)

    def multiply(self, a: Polynomial, b: Polynomial) -> Polynomial | None:
        """`a * b`, elementwise."""
        if len(a.terms) * len(b.terms) > MOST_TERMS:
            return None
        terms: dict[Monomial, Any] = {}
        for left, x in a.terms.items():
            for right, y in b.terms.items():
                monomial = self._join(left, right)
                if not _agree(x, y) or (monomial in terms and not _agree(terms[monomial], x * y)):
                    return None
                terms[monomial] = terms[monomial] + x * y if monomial in terms else x * y
        return _made(terms)

    def matmul(self, a: Polynomial, matrix: Any, origin: tuple[Any, ...]) -> Polynomial | None:
        """`a @ matrix`; `origin` names the matrix."""
        terms: dict[Monomial, Any] = {}
        for monomial, coefficient in a.terms.items():
            if coefficient.ndim and monomial:
                return None
            if not monomial:
                if coefficient.shape != (matrix.shape[0],):
                    return None
                terms[()] = coefficient @ matrix
            else:
                terms[(self._number(Product(monomial, matrix, origin)),)] = coefficient
        return _made(terms)

    def activate(self, op: str, a: Polynomial, parameters: tuple[float, ...] = ()) -> Polynomial:
        """`op(a)`."""
        return self.of(Activation(op, parameters, a, a.key))

    def columns(self, a: Polynomial, start: int, stop: int) -> Polynomial | None:
        """`a[:, start:stop]`."""
        terms: dict[Monomial, Any] = {}
        for monomial, coefficient in a.terms.items():
            cut = [self._cut(self.factors[f], start, stop) for f in monomial]
            if any(f is None for f in cut):
                return None
            numbers = tuple(sorted(self._number(f) for f in cut if f is not None))
            terms[numbers] = coefficient[start:stop] if coefficient.ndim else coefficient
        return _made(terms)

    def width(self, a: Polynomial) -> int | None:
        """Size of the last axis where a product or a vector tells it."""
        sizes = {c.size for c in a.terms.values() if c.ndim}
        for monomial in a.terms:
            for factor in (self.factors[f] for f in monomial):
                own = factor.matrix.shape[1] if isinstance(factor, Product) else None
                own = self.width(factor.argument) if isinstance(factor, Activation) else own
                sizes |= {own} if own is not None else set()
        return max(sizes) if sizes else None

    def with_mask(self, a: Polynomial, mask: int, value: int) -> Polynomial | None:
        """`a` where the factor `mask` is 0 or 1."""
        total = Polynomial({})
        for monomial, coefficient in a.terms.items():
            rest = tuple(f for f in monomial if f != mask)
            if value or len(rest) == len(monomial):
                more = self.add(total, Polynomial({rest: coefficient}))
                if more is None:
                    return None
                total = more
        return total

    def atoms(self, a: Polynomial) -> set[Atom]:
        """Everything that `a` reads, inside activations and products too."""
        return self._atoms_of(f for m in a.terms for f in m)

    def _atoms_of(self, numbers: Any) -> set[Atom]:
        found: set[Atom] = set()
        for factor in (self.factors[n] for n in numbers):
            if isinstance(factor, Atom):
                found.add(factor)
            elif isinstance(factor, Product):
                found |= self._atoms_of(factor.monomial)
            else:
                found |= self.atoms(factor.argument)
        return found

    def _join(self, left: Monomial, right: Monomial) -> Monomial:
        masks = {f for f in left if isinstance(factor := self.factors[f], Atom) and factor.is_mask}
        return tuple(sorted((*left, *(f for f in right if f not in masks))))

    def _cut(self, factor: Factor, start: int, stop: int) -> Factor | None:
        if isinstance(factor, Atom):
            return factor if factor.is_mask else None
        if isinstance(factor, Product):
            return Product(factor.monomial, factor.matrix[:, start:stop], _range(factor, start, stop))
        inner = self.columns(factor.argument, start, stop)
        return None if inner is None else Activation(factor.op, factor.parameters, inner, inner.key)

    def _number(self, factor: Factor) -> int:
        if factor not in self._numbers:
            self._numbers[factor] = len(self.factors)
            self.factors.append(factor)
        return self._numbers[factor]


def _range(product: Product, start: int, stop: int) -> tuple[Any, ...]:
    """The name of some columns: absolute, so that a part of a part is what it would be taken at once."""
    name, first = product.origin[0], product.origin[1] if len(product.origin) > 1 else 0
    return (name, first + start, first + min(stop, product.matrix.shape[1]))


def _agree(a: Any, b: Any) -> bool:
    return not a.ndim or not b.ndim or a.shape == b.shape


def _made(terms: dict[Monomial, Any]) -> Polynomial | None:
    return Polynomial({m: c for m, c in terms.items() if c.any()}) if len(terms) <= MOST_TERMS else None
