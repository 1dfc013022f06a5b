"""Loops and arithmetic over numbers that are known now or when the code runs.

Job: write what a block of a product covers.  A number known now is computed now, and a loop of one turn is no
loop, so that code for small shapes stays short.
Input: Python numbers, or names of i64 values in the function under construction.  Output: the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphjit.backend.llvm.writing.writer import Value, Writer

Extent = tuple[Value, Value]
"""The first number and the one behind the last."""


def call_in_blocks(w: Writer, name: str, pointers: Sequence[str], blocks: int, nanoseconds: int) -> None:
    """Call ``name(context, block)`` for all blocks, on all threads if there are several; context holds
    ``pointers``, four at the most.
    """
    context = w.fn.shared_slot("[4 x ptr]")
    for i, pointer in enumerate(pointers):
        w.store("ptr", pointer, w.at(context, 8 * i))
    if blocks == 1:
        w.call(name, [f"ptr {context}", "i64 0"])
        return
    w.module.declare("gj_parallel_for", "declare void @gj_parallel_for(ptr, ptr, i64, i64)")
    w.call("gj_parallel_for", [f"ptr @{name}", f"ptr {context}", f"i64 {blocks}", f"i64 {nanoseconds}"])


def block_extents(w: Writer, block: str, counts: Sequence[int], cuts: Sequence[int]) -> list[Extent]:
    """What ``block`` covers of each axis: ``counts`` numbers, cut into ``cuts`` parts; the last axis varies
    fastest.
    """
    extents: list[Extent] = []
    rest = block
    for count, cut in reversed(list(zip(counts, cuts, strict=True))):
        if cut == 1:
            extents.append((0, count))
            continue
        part, rest = w.rem(rest, cut), w.div(rest, cut)
        extents.append((w.div(w.mul(part, count), cut), w.div(w.mul(w.add(part, 1), count), cut)))
    return extents[::-1]


@contextmanager
def each(w: Writer, extent: Extent, step: int = 1) -> Iterator[Value]:
    """A loop, or nothing around its body when it has one turn."""
    start, stop = extent
    if isinstance(start, int) and isinstance(stop, int) and start < stop <= start + step:
        yield start
    else:
        with w.loop(start, stop, step) as index:
            yield index


def overlap(w: Writer, extent: Extent, first: int, last: int) -> Extent:
    """The part of ``extent`` from ``first`` to before ``last``."""
    start, stop = extent
    if isinstance(start, int) and isinstance(stop, int):
        return max(start, first), min(stop, last)
    return w.max(start, first), w.min(stop, last)


def left_of(w: Writer, step: int, stop: Value, index: Value) -> Value:
    """min(step, stop - index), for an index before the stop: how much of a step is left."""
    if step == 1:
        return 1
    if isinstance(stop, int) and isinstance(index, int):
        return min(step, stop - index)
    return w.min(step, w.sub(stop, index))


def times(w: Writer, value: Value, factor: int) -> Value:
    """value * factor."""
    return value * factor if isinstance(value, int) else w.mul(value, factor) if factor else 0


def plus(w: Writer, one: Value, two: Value) -> Value:
    """one + two."""
    if isinstance(one, int) and isinstance(two, int):
        return one + two
    return two if one == 0 else one if two == 0 else w.add(one, two)


def minus(w: Writer, number: int, value: Value) -> Value:
    """number - value."""
    return number - value if isinstance(value, int) else w.sub(number, value)
