"""Index expressions, ``offset + sum(coefficient * axis)``: which element a view or a load reads, as data.

Example: the transpose of an array of shape (3, 4) reads its element ``i0 + 4*i1``, which is
``Affine(0, {i0: 1, i1: 4})``. Since this is data and not text, two views compose, and a loop knows how far
apart its neighbours lie.

Invariant: an expression never changes; zero coefficients are not stored, so equal expressions are equal
values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

Axis = TypeVar("Axis")


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

    def __getitem__(self, axis: Axis) -> int:
        return self.terms.get(axis, 0)

    def __repr__(self) -> str:
        parts = [f"{axis}" if c == 1 else f"{c}*{axis}" for axis, c in self.terms.items()]
        if self.offset or not parts:
            parts.append(str(self.offset))
        return " + ".join(parts).replace("+ -", "- ")


def axis_index(axis: Axis) -> Affine[Axis]:
    """The index that is just ``axis``."""
    return Affine(0, {axis: 1})
