"""Loops among repeating operations: where arguments come from in the same way in each step.

An argument of an operation of the body is, in each step, the same value (*invariant*), the result of an
operation of this step or of one some steps before (*handed on*; in the first steps it is a value from before
the loop), or another value from before the loop (*varying*). What most steps do decides. Steps that do
otherwise end a loop, and the next one begins behind them.

Input: a `Row`, a stretch of it that repeats with a period. Output: `Loop` objects.
Invariant: a loop reads nothing that is computed from its own steps, but by handing on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.ops.failing import may_fail
from graphjit.passes.reroll.recording import STEPS, Row

INVARIANT, HANDED_ON, VARYING = 0, 1, 2
MOST_BACK = 8
"""How many steps back a value may be read from. What comes from further back is an array's element."""
MULTIPLES = 8
"""Up to how many periods of the labels a step may have: two layers with the same code have two."""


@dataclass
class Loop:
    """Steps of equal operations. ``positions[t, q]`` is where operation ``q`` of step ``t`` stands in the
    row, -1 where it was not recorded, since nobody reads it.

    The arguments of all operations of a step stand side by side; ``place`` says to which operation each
    belongs, ``number[t]`` its number in the row, ``kind`` where it comes from. Of those that are handed on
    ``back`` says how many steps before, ``origin`` by which operation, ``view`` seen how.
    """

    row: Row
    positions: np.ndarray
    place: np.ndarray
    number: np.ndarray
    kind: np.ndarray
    back: np.ndarray
    origin: np.ndarray
    view: np.ndarray
    family: Any = None
    """Its `families.Family`, if it is one of many that grow."""

    @property
    def length(self) -> int:
        """The number of steps."""
        return len(self.positions)

    @property
    def size(self) -> int:
        """The number of operations in a step."""
        return int(self.positions.shape[1])

    def part(self, start: int, stop: int) -> Loop:
        """Some of the steps."""
        return Loop(
            self.row,
            self.positions[start:stop],
            self.place,
            self.number[start:stop],
            self.kind,
            self.back,
            self.origin,
            self.view,
        )


def loops_in(row: Row, start: int, stop: int, period: int, free: np.ndarray) -> list[Loop]:
    """The loops in a stretch of ``row.kept`` that repeats with this period, which may be a part of a step."""
    best: list[Loop] = []
    covered = 0
    for factor in range(1, MULTIPLES + 1):
        size = factor * period
        steps = (stop - start) // size
        if steps < STEPS:
            break
        first = start + _best_cut(row, row.kept[start : start + steps * size].reshape(steps, size))
        positions = _positions(row, first, stop, size, free)
        found = [loop for loop in _loops(row, positions) if loop.length >= STEPS]
        count = sum(loop.positions.size for loop in found)
        if count > covered:
            best, covered = found, count
        if covered > (stop - start) // 2:
            break
    return best


# --------------------------------------------------------------------------------------------- where to cut


def _best_cut(row: Row, positions: np.ndarray) -> int:
    """Where in the period steps should begin, so that few values are handed on."""
    steps, size = positions.shape
    number = row.numbers(positions)
    before = row.source[number]
    # Distances in `kept`, not in the row, in which others may stand between.
    source = np.searchsorted(row.kept, before)
    source[(before < positions[0, 0]) | (row.kept[np.minimum(source, len(row.kept) - 1)] != before)] = -1
    owner = np.searchsorted(row.kept, row.owner[number])
    distance, view = owner - source, row.view[number]
    same = (distance[1:] == distance[:-1]) & (source[:-1] >= 0) & (view[1:] == view[:-1])
    steady = np.flatnonzero(2 * same.sum(0) >= steps - 1)
    at = owner[0, steady] - owner[0, 0]
    gaps = np.median(distance[:, steady], 0).astype(int)
    reach: dict[int, int] = {}
    for place, gap in zip(at.tolist(), gaps.tolist(), strict=True):
        origin = (place - gap) % size
        reach[origin] = max(reach.get(origin, 0), gap)
    return _least(reach, size)


def _least(reach: dict[int, int], size: int) -> int:
    """The place before which the fewest values stand that are read behind it; ``reach`` says how far behind
    its origin each is read.
    """
    change = np.zeros(2 * size + 2, np.int64)
    for origin, gap in reach.items():
        rest = gap % size  # whole periods cross every place
        change[origin + 1] += 1
        change[origin + 1 + rest] -= 1
    alive = np.cumsum(change)[: 2 * size]
    return int(np.argmin(alive[:size] + alive[size:]))


def _positions(row: Row, first: int, stop: int, size: int, free: np.ndarray) -> np.ndarray:
    """Where the operations of whole steps stand, with a first and a last step that differ a little.

    Before the first operation that needs it, a first step computes what does not change from step to step,
    so operations stand among its own that come but once. In the last one operations are missing whose values
    nobody reads.
    """
    steps = (stop - first) // size
    positions = row.kept[first : first + steps * size].reshape(steps, size)
    parts = [positions]
    before = _first_step(row, first, size, free)
    if before is not None:
        parts.insert(0, before)
    after = _last_step(row, first + steps * size, positions[-1], free)
    if after is not None:
        parts.append(after)
    return np.concatenate(parts)


def _first_step(row: Row, first: int, size: int, free: np.ndarray) -> np.ndarray | None:
    """The operations of a step before number ``first`` of `Row.kept`, others among them left out."""
    labels = row.labels[row.kept[: first + size]]
    wanted = labels[first:]
    found = np.empty((1, size), np.int64)
    at = first - 1
    for place in range(size - 1, -1, -1):
        while at >= 0 and free[at] and labels[at] != wanted[place] and first - at <= 2 * size + STEPS:
            at -= 1
        if at < 0 or not free[at] or labels[at] != wanted[place]:
            return None
        found[0, place] = row.kept[at]
        at -= 1
    return found


def _last_step(row: Row, at: int, pattern: np.ndarray, free: np.ndarray) -> np.ndarray | None:
    """The operations of a step from number ``at`` of `Row.kept` on, where some are missing; ``pattern`` is a
    whole one.
    """
    found = np.full((1, len(pattern)), -1, np.int64)
    for place, whole in enumerate(pattern.tolist()):
        if at < len(row.kept) and free[at] and row.labels[row.kept[at]] == row.labels[whole]:
            found[0, place] = row.kept[at]
            at += 1
        elif may_fail(row.nodes[whole]):
            return None
    return found if (found >= 0).any() else None


# ------------------------------------------------------------------------------ where arguments come from


@dataclass
class _Origins:
    """For each step (first axis) and argument of the body (second axis): the step and the operation that it
    is the result of, -1 for values from before the loop; and whether the argument is there.
    """

    step: np.ndarray
    place: np.ndarray
    there: np.ndarray


def _loops(row: Row, positions: np.ndarray) -> Iterator[Loop]:
    """The loops among these steps."""
    pattern = positions[len(positions) // 2]
    place = np.repeat(np.arange(len(pattern)), row.first[pattern + 1] - row.first[pattern])
    there = positions[:, place] >= 0
    whole_steps = np.where(positions >= 0, positions, pattern)  # what nobody reads may read anything
    number = row.numbers(whole_steps)
    origins = _origins(row, positions, number, there)
    steps = np.arange(len(positions))[:, None]
    back = np.where(origins.place >= 0, steps - origins.step, -1)
    value, view = row.value[number], row.view[number]
    many, most = int(view.max(initial=0)) + 1, len(pattern)
    code = np.where(
        (back >= 0) & (back <= MOST_BACK) & there, (back * most + origins.place) * many + view, -1
    )
    handed = ((code[1:] == code[:-1]) & (code[1:] >= 0)).sum(0)
    same = ((value[1:] == value[:-1]) & there[1:]).sum(0)
    half = (len(positions) - 1) / 2
    kind = np.where((handed > same) & (handed >= half), HANDED_ON, np.where(same >= half, INVARIANT, VARYING))
    usual = _usual(code, kind)
    whole = Loop(
        row,
        positions,
        place,
        number,
        kind,
        usual // many // most,
        usual // many % most,
        usual % many,
    )
    for start, stop in _intervals(whole, origins, code == usual, value):
        yield whole.part(start, stop)


def _usual(code: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """The most frequent code of each argument that is handed on."""
    usual = np.zeros(code.shape[1], np.int64)
    for column in np.flatnonzero(kind == HANDED_ON).tolist():
        codes, counts = np.unique(code[:, column], return_counts=True)
        counts[codes < 0] = 0
        usual[column] = codes[np.argmax(counts)]
    return usual


def _origins(row: Row, positions: np.ndarray, number: np.ndarray, there: np.ndarray) -> _Origins:
    """Which steps and operations arguments are results of."""
    steps, size = positions.shape
    flat = positions.ravel()
    known = flat >= 0
    low, high = int(flat[known].min()), int(flat.max()) + 1
    step = np.full(high - low + 1, -1, np.int64)  # the last entry is for what comes from elsewhere
    place = step.copy()
    step[flat[known] - low] = np.repeat(np.arange(steps), size)[known]
    place[flat[known] - low] = np.tile(np.arange(size), steps)[known]
    _taint(row, low, high, step)
    source = row.source[number]
    local = np.where((source >= low) & (source < high), source - low, high - low)
    return _Origins(step[local], place[local], there)


def _taint(row: Row, low: int, high: int, step: np.ndarray) -> None:
    """Let operations that stand among those of a step, and read its results, count as that step's."""
    for at in (low + np.flatnonzero(step[: high - low] < 0)).tolist():
        sources = row.source[row.first[at] : row.first[at + 1]]
        sources = sources[sources >= low]
        step[at - low] = max((int(step[source - low]) for source in sources), default=-1)


# ---------------------------------------------------------------------------------------------- intervals


def _intervals(loop: Loop, origins: _Origins, usual: np.ndarray, value: np.ndarray) -> list[tuple[int, int]]:
    """Start and stop of steps that do as the loop does, as long as possible."""
    handed = loop.kind == HANDED_ON
    steps = np.arange(loop.length)[:, None]
    odd = handed & ~usual & origins.there
    broken = (odd & (loop.back == 0)).any(1)
    # A value from before the loop takes the place of one that is handed on in its first steps.
    initial = np.where(odd, np.maximum(steps - loop.back, origins.step), -1).max(1, initial=-1)
    outside = np.where(~handed & origins.there, origins.step, -1).max(1, initial=-1)
    after = np.maximum(initial, outside)
    changed = (value[1:] != value[:-1])[:, loop.kind == INVARIANT].any(1)
    return _cut(broken.tolist(), after.tolist(), [False, *changed.tolist()])


def _cut(broken: list[bool], after: list[int], changed: list[bool]) -> list[tuple[int, int]]:
    """Intervals without ``broken`` steps, that begin after each step's ``after``, and in which nothing
    ``changed`` from one step to the next.
    """
    found: list[tuple[int, int]] = []
    start = 0
    for t in range(len(broken)):
        if not broken[t] and not changed[t] and after[t] < start:
            continue
        found.append((start, t))
        start = t + 1 if broken[t] or after[t] >= t else t
    found.append((start, len(broken)))
    return [(start, stop) for start, stop in found if stop > start]


def does_as_usual(loop: Loop) -> bool:
    """Whether all arguments of a loop come from where its ``kind``, ``back``, ``origin`` and ``view`` say."""
    row = loop.row
    origins = _origins(row, loop.positions, loop.number, np.ones(loop.number.shape, bool))
    steps = np.arange(loop.length)[:, None]
    usual = (
        (steps - origins.step == loop.back)
        & (origins.place == loop.origin)
        & (row.view[loop.number] == loop.view)
    )
    value = row.value[loop.number]
    found = _intervals(loop, origins, usual, value)
    return found == [(0, loop.length)]
