"""Loops and choices of printed programs, in Python.

Job: run the printed functions of the programs inside, step by step.
Input: these functions, flat arrays for the arguments and results of the node. Output: none; results are
filled.
Invariant: never compiled: the functions are drivers, which call compiled kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Run = Callable[[Sequence[Array], Sequence[Array], Array], None]
"""A printed driver: it takes arguments, results and the status cell."""


def scan(
    body: Run,
    args: Sequence[Array],
    results: Sequence[Array],
    status: Array,
    attrs: tuple[int, int, int, bool],
) -> None:
    """``attrs`` are carried, sliced, length, reverse."""
    carried, sliced, length, reverse = attrs
    first = len(args) - sliced
    constants, carries, arrays = args[: first - carried], args[first - carried : first], args[first:]
    for t in reversed(range(length)) if reverse else range(length):
        slices = [_element(array, length, t) for array in arrays]
        stacked = [_element(array, length, t) for array in results[carried:]]
        written = [np.empty_like(x) for x in carries]
        body([*constants, *carries, *slices], [*written, *stacked], status)
        carries = written
    _deliver(carries, results)


def while_loop(
    test: Run, body: Run, args: Sequence[Array], results: Sequence[Array], status: Array, carried: int
) -> None:
    """A loop that ``test`` ends."""
    constants, carries = args[: len(args) - carried], args[len(args) - carried :]
    holds = np.zeros(1, np.bool_)
    while True:
        test([*constants, *carries], [holds], status)
        if not holds[0]:
            break
        written = [np.empty_like(x) for x in carries]
        body([*constants, *carries], written, status)
        carries = written
    _deliver(carries, results)


def cond(branches: Sequence[Run], args: Sequence[Array], results: Sequence[Array], status: Array) -> None:
    """One of several branches."""
    branches[min(max(int(args[0][0]), 0), len(branches) - 1)](args[1:], results, status)


def _element(array: Array, length: int, t: int) -> Array:
    size = array.size // length
    return array[t * size : (t + 1) * size]


def _deliver(carries: Sequence[Array], results: Sequence[Array]) -> None:
    for value, result in zip(carries, results, strict=False):
        result[:] = value


DRIVERS: dict[str, Callable[..., Any]] = {"scan": scan, "while_loop": while_loop, "cond": cond}
"""What printed programs call."""
