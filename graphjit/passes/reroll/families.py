"""Loops that grow: in each step of an outer loop an inner one has more steps than before.

``for j in range(i): rest = rest - a[i, j] * x[j]`` is as many loops as there are values of ``i``, each of
another length, and so no two steps of the outer loop are equal. Here they are made equal. All get the length
of the longest, and known truth values say which steps count; the others hand on what they got. A list that
grew by one value since the loop before becomes an array into which that value is written. Then the outer loop
can be rolled up too.

Input: the loops of a row. Output: some of them in a `Family`; the arrays that these read.
Invariant: steps that do not count read values of steps that do, so they compute nothing that could not be.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.types import BOOL, I64
from graphjit.ops.failing import may_fail
from graphjit.passes.reroll.recording import STEPS
from graphjit.passes.reroll.stacks import PIECES, stripped
from graphjit.passes.reroll.steps import VARYING, Loop, does_as_usual


@dataclass
class Family:
    """Loops with equal bodies whose lengths grow."""

    longest: Loop
    front: bool
    """Whether new steps come in front of the others, so that all end with the same one."""
    lists: dict[int, tuple[list[Node], Node]] = field(default_factory=dict)
    """By the number of an argument: the values that the last loop read, and the array that holds them."""

    @property
    def length(self) -> int:
        """The number of steps of all."""
        return self.longest.length

    def counts(self, b: Builder, steps: int) -> Node:
        """Which steps of a loop of so many count."""
        number = np.arange(self.length)
        return b.const(number >= self.length - steps if self.front else number < steps, BOOL)

    def array(self, b: Builder, number: int, nodes: list[Node]) -> tuple[Node | None, list[Node]]:
        """What the steps of a loop read as argument ``number``, and views of its elements; None where that is
        not known for steps that do not count.
        """
        longest = [self.longest.row.argument(i) for i in self.longest.number[:, number].tolist()]
        below, views = stripped(longest)
        gap = _regular(below)
        if gap is None:
            return self._list(b, number, nodes), []
        own = []
        first = nodes[0]
        for view in views:
            if first.op is not view.op:
                return None, []
            own.append(first)
            first = first.args[0]
        return self._longer_slice(b, first, *gap, len(nodes)), own

    def _longer_slice(self, b: Builder, first: Node, axis: int, gap: int, steps: int) -> Node | None:
        """Elements of one array from a ``first`` one on, and those behind or in front of them."""
        if first.op.name != "slice":
            return None
        place, limits, step = (list(first.attrs[name]) for name in ("starts", "limits", "steps"))  # type: ignore[call-overload]
        low = place[axis] - (self.length - steps if self.front else 0) * gap
        limit = low + (self.length - 1) * gap + 1
        if low < 0 or limit > first.args[0].shape[axis]:
            return None
        place[axis], limits[axis], step[axis] = low, limit, gap
        part = b.slice(first.args[0], starts=tuple(place), limits=tuple(limits), steps=tuple(step))
        blocks = b.reshape(part, shape=(*first.shape[:axis], self.length, *first.shape[axis:]))
        others = [k for k in range(len(blocks.shape)) if k != axis]
        return b.transpose(blocks, perm=(axis, *others))

    def _list(self, b: Builder, number: int, nodes: list[Node]) -> Node | None:
        """A list of values; what the loop before read is there already."""
        before, array = self.lists.get(number, ([], None))
        known = nodes[len(nodes) - len(before) :] if self.front else nodes[: len(before)]
        if array is None:
            array = self._new_list(b, nodes)
        elif known != before:
            return None
        else:
            new = nodes[: len(nodes) - len(before)] if self.front else nodes[len(before) :]
            if len(new) > PIECES:
                return None
            first = self.length - len(nodes) if self.front else len(before)
            for place, node in enumerate(new, first):
                row = b.reshape(node, shape=(1, *node.shape))
                array = b.scatter_set(array, row, b.const([place], I64), axes=(0,))
        self.lists[number] = nodes, array
        return array

    def _new_list(self, b: Builder, nodes: list[Node]) -> Node:
        rows = [b.reshape(node, shape=(1, *node.shape)) for node in nodes]
        spare = rows[0] if self.front else rows[-1]
        rest = b.broadcast_to(spare, shape=(self.length - len(nodes), *nodes[0].shape))
        return b.concatenate(*([rest, *rows] if self.front else [*rows, rest]), axis=0)


def _regular(nodes: Sequence[Node]) -> tuple[int, int] | None:
    """The axis along which slices of one array move, and by how much each time; they are one element long."""
    first = nodes[0]
    if first.op.name != "slice" or any(
        node.op is not first.op or node.args[0] is not first.args[0] for node in nodes
    ):
        return None
    starts = np.array([node.attrs["starts"] for node in nodes], np.int64)
    moving = np.flatnonzero((starts != starts[0]).any(0)).tolist()
    if len(moving) != 1 or first.shape[moving[0]] != 1:
        return None
    gaps = np.diff(starts[:, moving[0]])
    return (moving[0], int(gaps[0])) if gaps[0] > 0 and (gaps == gaps[0]).all() else None


# -------------------------------------------------------------------------------------- which loops they are


def found_families(loops: Sequence[Loop], free: np.ndarray) -> list[Loop]:
    """Put loops into families; the shorter loops that belong to them, where all is ``free``."""
    more: list[Loop] = []
    for _, group in groupby(loops, _body):
        alike = list(group)
        gaps = {after.length - before.length for before, after in pairwise(alike)}
        if len(alike) < STEPS or len(gaps) != 1 or not 1 <= min(gaps) <= PIECES:
            continue
        front = _grows_in_front(alike[0], alike[1])
        if front is None or any(may_fail(alike[0].row.nodes[at]) for at in alike[0].positions[1].tolist()):
            continue
        shorter = _shorter(alike, min(gaps), free)
        family = Family(alike[-1], front)
        for loop in (*alike, *shorter):
            loop.family = family
        more += shorter
    return more


def _shorter(alike: Sequence[Loop], gap: int, free: np.ndarray) -> list[Loop]:
    """Loops in front of the first one that are too short to be found alone."""
    first, second = alike[:2]
    row, size = first.row, first.size
    starts = [int(np.searchsorted(row.kept, loop.positions[0, 0])) for loop in (first, second)]
    between = starts[1] - starts[0] - first.length * size
    labels = row.labels[first.positions[1]]
    found: list[Loop] = []
    start, steps = starts[0], first.length
    while steps - gap >= max(1, int(first.back.max())):
        steps -= gap
        start -= between + steps * size
        if start < 0 or not free[start : start + steps * size].all():
            break
        positions = row.kept[start : start + steps * size].reshape(steps, size)
        if not (row.labels[positions] == labels).all():
            break
        loop = replace(first, positions=positions, number=row.numbers(positions))
        if not does_as_usual(loop):
            break
        found.append(loop)
    return found


def _body(loop: Loop) -> Hashable:
    """What loops have in common that compute the same in each step."""
    row: Any = loop.row
    parts = (row.labels[loop.positions[1]], loop.kind, loop.back, loop.origin)
    return tuple(part.tobytes() for part in parts)


def _grows_in_front(first: Loop, second: Loop) -> bool | None:
    """Whether the lists that a loop reads have grown at the front since the one before; None where some have
    and others have not.
    """
    found: set[bool] = set()
    for column in np.flatnonzero(first.kind == VARYING).tolist():
        before = first.row.value[first.number[:, column]]
        after = second.row.value[second.number[:, column]]
        if (after[: len(before)] == before).all():
            found.add(False)
        elif (after[len(after) - len(before) :] == before).all():
            found.add(True)
    return found.pop() if len(found) == 1 else None
