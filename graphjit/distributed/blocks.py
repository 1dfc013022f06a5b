"""Where rows are cut, and in which order the results of blocks are summed.

Invariant: both depend on the numbers of rows and blocks alone, never on who computes what.

Example: 10 rows in 4 blocks are rows 0-3, 3-6, 6-8, 8-10; their sum is ``(b0 + b1) + (b2 + b3)``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from graphjit.errors import ShapeError

Value = TypeVar("Value")


def bounds(rows: int, blocks: int) -> list[tuple[int, int]]:
    """First and last row (exclusive) of every block that has rows. The first blocks have one row more where
    rows do not divide, so there are two shapes at most.
    """
    least, more = divmod(rows, blocks)
    starts = [b * least + min(b, more) for b in range(blocks + 1)]
    return [(start, stop) for start, stop in pairwise(starts) if stop > start]


def fold(count: int, leaf: Callable[[int], Value], join: Callable[[Value, Value], Value]) -> Value:
    """Join leaves 0 to ``count - 1`` in a binary tree, from left to right.

    The left half of a node is the largest power of two that leaves something for the right one: blocks come
    and go at the end without another order before it.
    """

    def node(first: int, size: int) -> Value:
        if size == 1:
            return leaf(first)
        half = 1 << (size - 1).bit_length() - 1
        left = node(first, half)
        return join(left, node(first + half, size - half))

    return node(0, count)


def check_blocks(blocks: object) -> int:
    """A number of blocks.

    Raises:
        TypeError: it is no integer.
        ValueError: it is less than one.
    """
    if isinstance(blocks, bool) or not hasattr(blocks, "__index__"):
        raise TypeError(f"blocks must be an integer, not {blocks!r}")
    number = blocks.__index__()
    if number < 1:
        raise ValueError(f"blocks={number}: there must be one or more")
    return int(number)


def require_rows(rows: int, who: str) -> None:
    """Raises: ShapeError: there are none."""
    if rows == 0:
        raise ShapeError(
            f"{who}: the data have no rows at all, and the mean or sum of nothing has no gradient; a process "
            "may be without rows as long as another one has some"
        )
