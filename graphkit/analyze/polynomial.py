"""Sizes that are not known yet: integers, or polynomials in named dimensions, computed exactly.

A size that divides (`floor((height - 1) / 2)` of a strided convolution) keeps the division as a factor of its own, so
that it can be evaluated later without an error of rounding.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, Union

Size: TypeAlias = Union[int, "Poly"]
Atom: TypeAlias = Union[str, "Floor"]
Monomial: TypeAlias = tuple[tuple[Atom, int], ...]

MOST_TERMS = 64
"""A polynomial of more terms helps nobody, and products of them would grow without end; see `TooLong`."""

_MOST_POWER = 16


class TooLong(ArithmeticError):
    """A polynomial has more than `MOST_TERMS` terms."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The integer part of a quotient of sizes."""

    numerator: Size
    divisor: Size

    def __str__(self) -> str:
        return f"floor(({self.numerator})/({self.divisor}))"


@dataclass(frozen=True, slots=True)
class Poly:
    """A polynomial that is no constant; +, - and * take integers too, and give an integer where the symbols cancel.

    Attributes:
        terms: Factors with their powers, and the coefficient of each; the order is always the same.
    """

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Size) -> Size:
        found = dict(self.terms)
        for monomial, count in terms_of(other):
            found[monomial] = found.get(monomial, 0) + count
        return _made(found)

    def __mul__(self, other: Size) -> Size:
        found: dict[Monomial, int] = {}
        rows = terms_of(other)
        for left, many in self.terms:
            for right, times in rows:
                monomial = _joined(left, right)
                found[monomial] = found.get(monomial, 0) + many * times
        return _made(found)

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + other * -1

    def __rsub__(self, other: int) -> Size:
        return self * -1 + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        return text(self, str)


def symbol(name: str) -> Poly:
    """The size that goes by a name."""
    return Poly(((((name, 1),), 1),))


def product(sizes: Iterable[Size]) -> Size:
    found: Size = 1
    for size in sizes:
        found = found * size
    return found


def floor(numerator: Size, divisor: Size) -> Size:
    """The quotient, rounded down; exact division is seen where the divisor is one term.

    By a number, what it divides is taken out, and a quotient within is joined to it, so that equal sizes look equal:
    floor((2a + 3)/2) = a + 1 + floor(1/2), and floor((floor(n/d) + r)/e) = floor((n + rd)/(de)).

    Raises:
        ZeroDivisionError: the divisor is 0.
    """
    if isinstance(numerator, int) and isinstance(divisor, int):
        return numerator // divisor
    exact = _quotient(numerator, divisor)
    if exact is not None:
        return exact
    if not isinstance(divisor, int) or divisor < 0:
        return _atom(numerator, divisor)
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, count in terms_of(numerator):
        if not monomial or count % divisor == 0:
            whole[monomial] = count // divisor
        if count % divisor:
            rest[monomial] = count if monomial else count % divisor
    left = _made(rest)
    inner = _single(left)
    if inner is not None and isinstance(inner[0].divisor, int) and inner[0].divisor > 0:
        quotient, more = inner
        below = inner[0].divisor
        return _made(whole) + floor(quotient.numerator + more * below, below * divisor)
    return _made(whole) + (left // divisor if isinstance(left, int) else _atom(left, divisor))


def _atom(numerator: Size, divisor: Size) -> Poly:
    return Poly(((((Floor(numerator, divisor), 1),), 1),))


def _single(size: Size) -> tuple[Floor, int] | None:
    """The quotient and the number of a size that is a quotient, once, and a number."""
    rows = dict(terms_of(size))
    number = rows.pop((), 0)
    if len(rows) != 1:
        return None
    ((monomial, count),) = rows.items()
    if count != 1 or len(monomial) != 1 or monomial[0][1] != 1 or not isinstance(monomial[0][0], Floor):
        return None
    return monomial[0][0], number


def terms_of(size: Size) -> tuple[tuple[Monomial, int], ...]:
    """Factors and coefficient of each term; a constant is a term without factors."""
    if isinstance(size, Poly):
        return size.terms
    return (((), size),) if size else ()


def symbols_in(size: Size) -> tuple[str, ...]:
    """Names in a size, sorted."""
    found: set[str] = set()
    for monomial, _ in terms_of(size):
        for atom, _ in monomial:
            if isinstance(atom, Floor):
                found.update(symbols_in(atom.numerator), symbols_in(atom.divisor))
            else:
                found.add(atom)
    return tuple(sorted(found))


def substitute(size: Size, dims: Mapping[str, Size]) -> Size:
    """The size with some of its names replaced; an integer once none is left."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, count in size.terms:
        term: Size = count
        for atom, power in monomial:
            if isinstance(atom, Floor):
                value = floor(substitute(atom.numerator, dims), substitute(atom.divisor, dims))
            else:
                value = dims.get(atom, symbol(atom))
            for _ in range(power):
                term = term * value
        total = total + term
    return total


def evaluate(size: Size, dims: Mapping[str, int]) -> int | None:
    """The size as a number; None where `dims` lacks a name, or it would divide by 0."""
    try:
        value = substitute(size, dims)
    except ZeroDivisionError:
        return None
    return value if isinstance(value, int) else None


def parse(written: str) -> Size:
    """A dimension as a file has it: `batch`, `2*seq + 1`, `floor(h/2)`; what cannot be read is a name as a whole."""
    if _HYPHEN.search(written):
        return symbol(written)
    try:
        return _expression(ast.parse(written, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return symbol(written)


def text(size: Size, number: Callable[[int], str]) -> str:
    """A size as text, its coefficients written by the function `number`: `38.8M*batch`."""
    parts: list[str] = []
    for monomial, count in terms_of(size):
        factors = "*".join(f"{atom}^{power}" if power > 1 else str(atom) for atom, power in monomial)
        amount = abs(count)
        shown = factors if factors and amount == 1 else f"{number(amount)}*{factors}" if factors else number(amount)
        sign = "-" if count < 0 else "+"
        parts.append(f" {sign} {shown}" if parts else f"-{shown}" if count < 0 else shown)
    return "".join(parts) or number(0)


def _made(found: Mapping[Monomial, int]) -> Size:
    kept = [(monomial, count) for monomial, count in found.items() if count]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    if len(kept) > MOST_TERMS:
        raise TooLong(f"more than {MOST_TERMS} terms")
    kept.sort(key=lambda term: (-sum(power for _, power in term[0]), str(term[0])))
    return Poly(tuple(kept))


def _joined(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda pair: str(pair[0])))


def _quotient(numerator: Size, divisor: Size) -> Size | None:
    """The exact quotient by a single term, or by what equals the numerator; None if there is none."""
    if numerator == divisor:
        return 1
    rows = terms_of(divisor)
    if not rows:
        raise ZeroDivisionError("a size divided by 0")
    if len(rows) > 1:
        return None
    (below, by), found = rows[0], {}
    for monomial, count in terms_of(numerator):
        powers = dict(monomial)
        for atom, power in below:
            powers[atom] = powers.get(atom, 0) - power
        if count % by or min(powers.values(), default=0) < 0:
            return None
        found[tuple((atom, power) for atom, power in powers.items() if power)] = count // by
    return _made(found)


def _expression(node: ast.expr) -> Size:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_expression(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _expression(left) + _expression(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _expression(left) - _expression(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _expression(left) * _expression(right)
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=right):
            return floor(_expression(left), _expression(right))
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))) if 0 <= power <= _MOST_POWER:
            return product([_expression(left)] * power)
        case ast.Call(func=ast.Name(id="floor"), args=[ast.BinOp(left=left, op=ast.Div(), right=right)], keywords=[]):
            return floor(_expression(left), _expression(right))
    raise ValueError(ast.dump(node))


_HYPHEN = re.compile(r"[A-Za-z_]\w*-[A-Za-z_]")
"""`batch-size` is a name; exporters write a difference with spaces."""

_UNITS = ((10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def short(number: int) -> str:
    """A number to three digits: 38.8M, 512, 1.81G."""
    for scale, unit in _UNITS:
        if number >= scale:
            digits = 2 - min(2, int(math.log10(number / scale)))
            return f"{number / scale:.{digits}f}{unit}"
    return str(number)
