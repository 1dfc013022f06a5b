"""The least and the greatest value that integers of a graph can have.

Example: where i lies between 0 and 9, ``(i + 1) % 10`` does too. So a position needs no check, and an integer
of Python's does not outgrow 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphjit.ir.node import Node
from graphjit.ir.types import I64

Range = tuple[int, int]
"""The least and the greatest value of an integer."""

SAME = ("copy", "reshape", "broadcast_to", "transpose", "convert")
"""Ops that hand integers on."""


def _pairs(of: Callable[[int, int], int]) -> Callable[[Range, Range], list[int]]:
    """What an operation makes of all ends of two ranges."""
    return lambda one, other: [of(a, b) for a in one for b in other]


def _within(*ranges: Range) -> list[int]:
    """No further from zero than what is there."""
    most = max(abs(end) for each in ranges for end in each)
    return [-most, most]


OPERATIONS: Mapping[str, Callable[..., Sequence[int]]] = {
    **dict.fromkeys(SAME, lambda x: x),
    "neg": lambda x: [-x[0], -x[1]],
    "abs": _within,
    "square": lambda x: [0, x[0] ** 2, x[1] ** 2],
    "add": _pairs(lambda a, b: a + b),
    "sub": _pairs(lambda a, b: a - b),
    "mul": _pairs(lambda a, b: a * b),
    "maximum": _pairs(max),
    "minimum": _pairs(min),
    "floor_divide": _within,
    "remainder": lambda x, y: [0, y[1] - 1] if y[0] > 0 else _within(x, y),
}
"""The least and the greatest value, among others, of those of the arguments."""


def fits(ends: Sequence[int]) -> bool:
    """Whether integers have 64 bits."""
    return min(ends) >= -(1 << 63) and max(ends) < 1 << 63


def known(node: Node) -> Range | None:
    """The values of an integer that is known."""
    if node.is_bundle or node.dtype != I64:
        return None
    if node.op.name in SAME and node.args[0].dtype == I64:
        return known(node.args[0])
    if not node.is_const:
        return None
    value: Any = node.attrs["value"]
    array = value.array
    return (int(array.min()), int(array.max())) if array.size == 1 else None
