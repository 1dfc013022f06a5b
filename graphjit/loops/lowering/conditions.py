"""Conditions under which an element is wanted: sides of frames of zeros, and of segments of a splice.

Input: sides, index expressions. Output: between which numbers an index lies where all sides hold.
Invariant: sides of one direction count together, whatever its factor: ``i < 2`` and ``6 - 2*i < 1`` exclude
each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphjit.ir.affine import UNBOUNDED, divided
from graphjit.loops.ir import Address, Axis

Range = tuple[int, int]
"""The least and the greatest value."""


@dataclass(frozen=True)
class Side:
    """``index >= low`` or ``index < high``; the other one is None."""

    index: Address
    low: int | None
    high: int | None


Where = tuple[Side, ...]


def limits(where: Where) -> dict[Address, Range]:
    """Between which numbers the directions of the sides lie where all of them hold."""
    found: dict[Address, Range] = {}
    for side in where:
        direction, factor = side.index.direction()
        if not factor:
            continue
        low = UNBOUNDED[0] if side.low is None else side.low - side.index.offset
        high = UNBOUNDED[1] if side.high is None else side.high - 1 - side.index.offset
        before, now = found.get(direction, UNBOUNDED), divided(low, high, factor)
        found[direction] = max(before[0], now[0]), min(before[1], now[1])
    return found


def contradicts(where: Where) -> bool:
    """Whether two sides exclude each other, as those of frames side by side do."""
    return any(low > high for low, high in limits(where).values())


def span(index: Address, where: Where, extents: Mapping[Axis, int]) -> Range:
    """The least and the greatest value of an index where all sides hold."""
    low, high = index.span(extents)
    direction, factor = index.direction()
    limit = limits(where).get(direction) if factor else None
    if limit is None:
        return low, high
    ends = [factor * end + index.offset for end in limit]
    return max(low, min(ends)), min(high, max(ends))
