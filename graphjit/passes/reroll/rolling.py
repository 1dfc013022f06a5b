"""The pass: find loops, put a `scan` in the place of each, and look again, since the loops around them may
have become equal steps.

Input: a builder and nodes. Output: nodes with the same values.
Invariant: what depends on no loop is the node that it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Location, Node
from graphjit.passes.reroll.bodies import NotRolled, Rolled
from graphjit.passes.reroll.families import found_families
from graphjit.passes.reroll.growing import grown
from graphjit.passes.reroll.periods import periods, stretches
from graphjit.passes.reroll.recording import STEPS, VIEWS, Row, recorded, recorded_since
from graphjit.passes.reroll.stacks import joined
from graphjit.passes.reroll.steps import Loop, loops_in

LEAST = 200
"""Operations from which it is worth looking for loops."""
WORTH = 96
"""Operations from which a loop is rolled."""
WORTHWHILE = 2
"""How many times as many nodes there must have been before slices that grow are taken for whole axes."""
LEVELS = 6
"""Loops inside loops that are looked for."""

Say = Callable[[str], None]


def reroll(b: Builder, roots: Sequence[Node], since: int = 0, say: Say | None = None) -> list[Node]:
    """``roots`` with loops in the place of what repeats among the nodes from serial number ``since`` on.
    ``say`` is told what was rolled, and what was not.
    """
    if say is None:
        return _with_loops(b, roots, since, None)
    told: list[str] = []
    found = _with_loops(b, roots, since, told.append)
    told += _passed_over(recorded_since(found, since), told)
    for text in told:
        say(text)
    return found


def _passed_over(nodes: Sequence[Node], told: Sequence[str]) -> list[str]:
    """What is left to say: of lines that were recorded again and again, and of which nothing was said."""
    times: dict[str, Counter[str]] = {}
    for node in nodes:
        if node.loc is not None and node.args:
            times.setdefault(str(node.loc), Counter())[f"{node.op.name} {node.type}"] += 1
    why = (
        "there is too little in them" if len(nodes) < LEAST else "no two steps are equal, or too few in a row"
    )
    return [
        f"about {count} repetitions at {where} stay: {why}"
        for where, counts in times.items()
        if (count := _median(counts.values())) > STEPS and not any(where in text for text in told)
    ]


def _median(counts: Collection[int]) -> int:
    return sorted(counts)[(len(counts) - 1) // 2]


def _with_loops(b: Builder, roots: Sequence[Node], since: int, say: Say | None) -> list[Node]:
    if b.count() < WORTH:
        return list(roots)
    order = recorded_since(roots, since)
    even = grown(order, since, roots)
    if even is not None:
        told: list[str] = []
        fresh, nodes = even
        found = _rolled(fresh, nodes, recorded(recorded_since(nodes, since), since), told.append)
        if WORTHWHILE * len(recorded_since(found, since)) <= len(order):
            if say is not None:
                for text in told:
                    say(text)
            return found
    if b.count() < LEAST:
        return list(roots)
    row = recorded(order, since)
    return list(roots) if len(row.nodes) < LEAST else _rolled(b, list(roots), row, say)


def _rolled(b: Builder, found: list[Node], row: Row, say: Say | None) -> list[Node]:
    """The nodes with loops in the place of what repeats; ``row`` is what they need."""
    for _ in range(LEVELS):
        loops = _loops(row, say)
        if not loops:
            break
        rebuilt = _Rebuilt(b, row, loops, found, say)
        if not rebuilt.changed:
            break
        found = [rebuilt.now(node) for node in found]
        row = recorded(recorded_since(found, row.since), row.since)
    return found


def _loops(row: Row, say: Say | None) -> list[Loop]:
    """Loops that have no operation in common, in the order of the row."""
    labels = row.labels[row.kept]
    free = np.ones(len(labels), bool)
    found: list[Loop] = []
    for period in periods(labels):
        there = list(stretches(labels, period, free))
        loops = [loops_in(row, start, stop, period, free) for start, stop in there]
        shorter = found_families([loop for part in loops for loop in part], free)
        for (start, stop), part in zip(there, loops, strict=True):
            chosen = [loop for loop in part if loop.family is not None or _is_worth_it(loop)]
            if not chosen and say is not None:
                where = _repetitions((stop - start) // period, row.nodes[row.kept[start]].loc)
                why = "there is too little in them" if part else "what the steps read does not repeat"
                say(f"{where} stay: {why}")
            shorter += chosen
        for loop in shorter:
            taken = loop.positions[loop.positions >= 0]
            free[np.searchsorted(row.kept, taken)] = False
        found += shorter
    return sorted(found, key=lambda loop: int(loop.positions[0, 0]))


def _is_worth_it(loop: Loop) -> bool:
    """Whether a loop is better than its steps one by one."""
    many = loop.positions.size >= WORTH
    return many or any(loop.row.nodes[at].is_bundle for at in loop.positions[1].tolist())


def _repetitions(count: int, where: Location | None) -> str:
    return f"{count} repetitions at {where}"


class _Rebuilt:
    """A graph with scans in the place of loops."""

    def __init__(
        self, b: Builder, row: Row, loops: Sequence[Loop], roots: Sequence[Node], say: Say | None
    ) -> None:
        self.b, self.row, self.say = b, row, say
        self.new: dict[Node, Node] = {}
        self.rolled: list[Rolled | None] = [None] * len(loops)
        self.changed = False
        self.member = np.full(len(row.nodes) + 1, -1, np.int64)
        """For each operation the number of its loop; the last entry is for what comes from outside."""
        for number, loop in enumerate(loops):
            self.member[loop.positions[loop.positions >= 0]] = number
        self._reads = self._read(roots, len(loops))
        self._run(loops)

    def _read(self, roots: Sequence[Node], count: int) -> list[dict[Node, None]]:
        """For each loop the nodes by which others read its results."""
        row, member = self.row, self.member
        origin, owner = member[row.source], member[row.owner]
        found: list[dict[Node, None]] = [{} for _ in range(count)]
        for number in np.flatnonzero((origin >= 0) & (origin != owner)).tolist():
            found[origin[number]][row.argument(number)] = None
        for root in roots:
            number = int(member[row.place(root)[0]])
            if number >= 0:
                found[number][root] = None
        return found

    def _run(self, loops: Sequence[Loop]) -> None:
        """All operations in order; those of a loop at its end, and behind it what stands among its steps and
        reads them.
        """
        at = 0
        for number, loop in enumerate(loops):
            known = loop.positions[loop.positions >= 0]
            start, stop = int(known.min()), int(known.max()) + 1
            self._copy(range(at, start))
            late = self._among(number, start, stop)
            try:
                rolled = self.rolled[number] = Rolled(self.b, loop, self.now, self._reads[number])
                self.changed = True
                self._tell(loop, rolled)
            except NotRolled as reason:
                self.member[known] = -1
                late = sorted([*late, *known.tolist()])
                if self.say is not None:
                    where = self.row.nodes[start].loc
                    self.say(f"{_repetitions(loop.length, where)} stay: {reason}")
            self._copy(late)
            at = stop
        self._copy(range(at, len(self.row.nodes)))

    def _tell(self, loop: Loop, rolled: Rolled) -> None:
        if self.say is None:
            return
        count = str(loop.length) if loop.family is None else f"up to {loop.family.length}"
        where = rolled.pattern[0].loc
        carries, arrays, stacked = len(rolled.carries), len(rolled.arrays), len(rolled.stacked)
        self.say(
            f"{count} repetitions at {where} of {loop.size} operations are a loop: {carries} carries, {arrays} arrays read and {stacked} written"
        )

    def _among(self, number: int, start: int, stop: int) -> list[int]:
        """Copy what stands among the steps of a loop and does not read them; the others."""
        others = (start + np.flatnonzero(self.member[start:stop] != number)).tolist()
        late: dict[int, None] = {}
        for at in others:
            sources = self.row.source[self.row.first[at] : self.row.first[at + 1]].tolist()
            if any(self.member[source] == number or source in late for source in sources):
                late[at] = None
            else:
                self._copy([at])
        return list(late)

    def _copy(self, positions: Sequence[int]) -> None:
        """Operations on what stands for their arguments."""
        for at in positions:
            node = self.row.nodes[at]
            if not self.changed:
                self.new[node] = node
                continue
            args = tuple([self.now(arg) for arg in node.args])
            if args == node.args:
                self.new[node] = node
            elif node.op.name == "concatenate" and len(args) >= STEPS:
                axis: int = node.attrs["axis"]  # type: ignore[assignment]
                self.new[node] = joined(self.b.like(node), args, axis)
            else:
                self.new[node] = self.b.copy(node, args)

    def now(self, node: Node) -> Node:
        """What stands for a node whose operation was copied."""
        new, views = self.new, []
        while node not in new:
            source = self.row.place(node)[0]
            if source < 0:
                new[node] = node
                break
            number = self.member[source]
            found = None if number < 0 else self.rolled[number].read(node)  # type: ignore[union-attr]
            if found is not None:
                new[node] = found
                break
            assert node.op.name in VIEWS
            views.append(node)
            node = node.args[0]
        found = new[node]
        for view in reversed(views):
            found = view if found is view.args[0] else self.b.copy(view, (found,))
            new[view] = found
        return found
