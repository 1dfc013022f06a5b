"""Loops and choices of printed programs, in Python.

Job: run the printed functions of the programs inside, step by step.
Input: these functions, flat arrays for the arguments and results of the node. Output: none; results are
filled.
Invariant: never compiled: the functions are drivers, which call compiled kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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
    staying: Collection[int],
) -> None:
    """``attrs`` are carried, sliced, length, reverse; ``staying`` the carries that a step changes where they
    lie.
    """
    carried, sliced, length, reverse = attrs
    first = len(args) - sliced
    constants, arrays = args[: first - carried], args[first:]
    carries = _own(args[first - carried : first], staying)
    for t in reversed(range(length)) if reverse else range(length):
        slices = [_element(array, length, t) for array in arrays]
        stacked = [_element(array, length, t) for array in results[carried:]]
        written = _places(carries, staying)
        body([*constants, *carries, *slices], [*written, *stacked], status)
        carries = written
    _deliver(carries, results)


def while_loop(
    test: Run,
    body: Run,
    args: Sequence[Array],
    results: Sequence[Array],
    status: Array,
    carried: int,
    records: Sequence[tuple[int, Any]],
    staying: Collection[int],
) -> None:
    """A loop that ``test`` ends; ``records`` are sizes and dtypes of the values that are written on tapes."""
    constants, carries = args[: len(args) - carried], _own(args[len(args) - carried :], staying)
    holds = np.zeros(1, np.bool_)
    tapes = [0] * len(records)
    while True:
        test([*constants, *carries], [holds], status)
        if not holds[0]:
            break
        after, made = _places(carries, staying), [np.empty(*record) for record in records]
        body([*constants, *carries], [*after, *made], status)
        carries, tapes = after, _written(made, tapes)
        if status[0]:  # with what stands in for a value that failed, the loop might not end
            break
    _deliver(carries, results)
    _deliver([np.array([word]) for word in tapes], results[carried:])


def unwind(
    body: Run,
    args: Sequence[Array],
    results: Sequence[Array],
    status: Array,
    carried: int,
    tapes: int,
    records: Sequence[tuple[int, Any]],
    staying: Collection[int],
) -> None:
    """A loop over tapes; ``records`` are sizes and dtypes of the values that are written on new ones."""
    first = len(args) - tapes
    constants, carries = args[: first - carried], _own(args[first - carried : first], staying)
    read = [int(word[0]) for word in args[first:]]
    written = [0] * len(records)
    while read[0]:
        values, read = [_TAPES[word][0] for word in read], [_TAPES[word][1] for word in read]
        after, made = _places(carries, staying), [np.empty(*record) for record in records]
        body([*constants, *carries, *values], [*after, *made], status)
        carries, written = after, _written(made, written)
        if status[0]:
            break
    _deliver(carries, results)
    _deliver([np.array([word]) for word in written], results[carried:])


_TAPES: list[Any] = [None]
"""Records of tapes: the value, and the number of the record before, 0 for none. A tape is such a number."""


def push_tape(before: int, values: Array) -> int:
    """A tape with one more record."""
    (tape,) = _written([values], [int(before)])
    return tape


def peek_tape(tape: int, at: int) -> Any:
    """A number of the last record of a tape; or, if ``at`` is -1, the tape without it."""
    values, before = _TAPES[int(tape)]
    return np.int64(before) if at < 0 else values[at]


def forget_tapes() -> None:
    """After a run nobody reads its tapes any more."""
    del _TAPES[1:]


def _written(values: Sequence[Array], tapes: Sequence[int]) -> list[int]:
    """``tapes`` with a further value on each."""
    _TAPES.extend(zip(values, tapes, strict=True))
    return list(range(len(_TAPES) - len(values), len(_TAPES)))


def cond(branches: Sequence[Run], args: Sequence[Array], results: Sequence[Array], status: Array) -> None:
    """One of several branches."""
    branches[min(max(int(args[0][0]), 0), len(branches) - 1)](args[1:], results, status)


def _element(array: Array, length: int, t: int) -> Array:
    size = array.size // length
    return array[t * size : (t + 1) * size]


def _own(carries: Sequence[Array], staying: Collection[int]) -> list[Array]:
    """The carries at first; those that steps change where they lie are copies."""
    return [x.copy() if k in staying else x for k, x in enumerate(carries)]


def _places(carries: Sequence[Array], staying: Collection[int]) -> list[Array]:
    """Where a step writes its carries."""
    return [x if k in staying else np.empty_like(x) for k, x in enumerate(carries)]


def _deliver(carries: Sequence[Array], results: Sequence[Array]) -> None:
    for value, result in zip(carries, results, strict=False):
        result[:] = value


DRIVERS: dict[str, Callable[..., Any]] = {
    "scan": scan,
    "while_loop": while_loop,
    "unwind": unwind,
    "cond": cond,
    "push_tape": push_tape,
    "peek_tape": peek_tape,
}
"""What printed programs call."""
