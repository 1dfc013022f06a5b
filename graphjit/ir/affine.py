"""Index expressions, ``offset + sum(coefficient * axis)``: which element a view or a load reads, as data.

Example: the transpose of an array of shape (3, 4) reads its element ``i0 + 4*i1``, which is
``Affine(0, {i0: 1, i1: 4})``. Since this is data and not text, two views compose, and a loop knows how far
apart its neighbours lie.

Invariant: an expression never changes; zero coefficients are not stored, so equal expressions are equal
values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from graphjit.ir.types import without_ones

Axis = TypeVar("Axis")


UNBOUNDED = (-(2**63), 2**63 - 1)
"""The least and the greatest value of an integer of which nothing is known."""


class Affine(Generic[Axis]):
    """``offset + sum(coefficient * axis)``; supports + and - with ints and Affines, and * with ints."""

    __slots__ = ("_hash", "offset", "terms")

    def __init__(self, offset: int = 0, terms: Mapping[Axis, int] | None = None) -> None:
        self.offset = offset
        self.terms: dict[Axis, int] = {axis: c for axis, c in (terms or {}).items() if c}
        self._hash = hash((offset, frozenset(self.terms.items())))

    def __add__(self, other: Affine[Axis] | int) -> Affine[Axis]:
        if isinstance(other, int):
            return Affine(self.offset + other, self.terms)
        terms = dict(self.terms)
        for axis, c in other.terms.items():
            terms[axis] = terms.get(axis, 0) + c
        return Affine(self.offset + other.offset, terms)

    __radd__ = __add__

    def __mul__(self, factor: int) -> Affine[Axis]:
        return Affine(self.offset * factor, {axis: c * factor for axis, c in self.terms.items()})

    __rmul__ = __mul__

    def __neg__(self) -> Affine[Axis]:
        return self * -1

    def __sub__(self, other: Affine[Axis] | int) -> Affine[Axis]:
        return self + other * -1

    def __rsub__(self, other: int) -> Affine[Axis]:
        return self * -1 + other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Affine) and self.offset == other.offset and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def span(self, extents: Mapping[Axis, int]) -> tuple[int, int]:
        """Smallest and largest value while each axis runs from 0 to below its extent, which is positive."""
        lasts = [c * (extents[axis] - 1) for axis, c in self.terms.items()]
        low, high = sum(min(0, last) for last in lasts), sum(max(0, last) for last in lasts)
        return self.offset + low, self.offset + high

    def direction(self) -> tuple[Affine[Axis], int]:
        """The expression without its offset and its common factor, and that factor: 6 - 2*i is -2 times i.
        Expressions that are multiples of one have the same direction; a constant has none, and factor 0.
        """
        if not self.terms:
            return Affine(), 0
        factor = math.gcd(*self.terms.values())
        if self.terms[min(self.terms, key=str)] < 0:
            factor = -factor
        return Affine(0, {axis: c // factor for axis, c in self.terms.items()}), factor

    def __getitem__(self, axis: Axis) -> int:
        return self.terms.get(axis, 0)

    def __repr__(self) -> str:
        parts = [f"{axis}" if c == 1 else f"{c}*{axis}" for axis, c in self.terms.items()]
        if self.offset or not parts:
            parts.append(str(self.offset))
        return " + ".join(parts).replace("+ -", "- ")


def divided(low: int, high: int, factor: int) -> tuple[int, int]:
    """Between which numbers x lies where ``low <= factor * x <= high``."""
    if factor < 0:
        low, high, factor = -high, -low, -factor
    return -(-low // factor), high // factor


def axis_index(axis: Axis) -> Affine[Axis]:
    """The index that is just ``axis``."""
    return Affine(0, {axis: 1})


def index_over(axes: Iterable[Axis], shape: Sequence[int]) -> tuple[Affine[Axis], ...]:
    """The index of an element of ``shape`` over these axes, of which those of length 1 are dropped."""
    return tuple(axis_index(a) if n != 1 else Affine() for a, n in zip(axes, shape, strict=True))


def own_index(shape: Sequence[int]) -> tuple[Affine[int], ...]:
    """The index of an element over the numbers of its axes."""
    return index_over(range(len(shape)), shape)


def reshape_index(
    inner: Sequence[int], shape: Sequence[int], index: Sequence[Affine[Axis]]
) -> tuple[Affine[Axis], ...] | None:
    """Where the element at ``index`` stood in ``inner``, before a reshape to ``shape`` that only adds or
    drops axes of length 1; None for any other reshape.
    """
    if without_ones(inner) != without_ones(shape):
        return None
    rest = iter([i for i, n in zip(index, shape, strict=True) if n != 1])
    return tuple(Affine() if n == 1 else next(rest) for n in inner)


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    steps = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        steps[i] = steps[i + 1] * shape[i + 1]
    return tuple(steps)


def linear(shape: Sequence[int], index: Sequence[Affine[Any]]) -> Affine[Any]:
    """Element address of ``index`` in a contiguous array."""
    if len(index) == 1:  # as often as not: values that are components of others have one axis
        return index[0]
    offset = 0
    terms: dict[Any, int] = {}
    for i, stride in zip(index, strides(shape), strict=True):
        offset += i.offset * stride
        for axis, factor in i.terms.items():
            total = terms.get(axis, 0) + factor * stride
            if total:
                terms[axis] = total
            else:
                terms.pop(axis, None)
    return Affine(offset, terms)
