"""Loops and branches with JAX's signatures, as plain Python runs them.

Input: functions of any library's arrays. Output: what the compiled loops of other libraries return.
Invariant: nothing is traced or compiled here, so these are what compiled loops are checked against.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import optree

Pytree = Any


def scan(
    f: Callable[[Pytree, Pytree], tuple[Pytree, Pytree]],
    init: Pytree,
    xs: Pytree = None,
    length: int | None = None,
    stack: Callable[[list[Any]], Any] = numpy.stack,
) -> tuple[Pytree, Pytree]:
    """Fold `f` over the first axis of `xs`, or `length` times; the last carry, and all that `f` gave beside
    it, stacked by the library's own `stack`.
    """
    count = len(optree.tree_leaves(xs)[0]) if length is None else length
    carry, rows = init, []
    for t in range(count):
        carry, row = f(carry, optree.tree_map(lambda leaf, t=t: leaf[t], xs))
        rows.append(row)
    if not optree.tree_leaves(rows[0]):
        return carry, rows[0]
    return carry, optree.tree_map(lambda *column: stack(list(column)), *rows)


def fori_loop(lower: int, upper: int, body: Callable[[int, Pytree], Pytree], init: Pytree) -> Pytree:
    """`body(i, value)` for every i from `lower` to `upper`, the latter excluded."""
    value = init
    for i in range(lower, upper):
        value = body(i, value)
    return value


def while_loop(cond: Callable[[Pytree], Any], body: Callable[[Pytree], Pytree], init: Pytree) -> Pytree:
    """`body(value)` as long as `cond(value)` holds."""
    value = init
    while cond(value):
        value = body(value)
    return value


def branch(
    pred: Any, true_fun: Callable[..., Pytree], false_fun: Callable[..., Pytree], *operands: Pytree
) -> Pytree:
    """What one of two functions makes of `operands` (`cond` elsewhere)."""
    return true_fun(*operands) if pred else false_fun(*operands)
