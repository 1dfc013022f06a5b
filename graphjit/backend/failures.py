"""What a program can report, and where.

Job: the exception for a status; the same failures at the lines of another graph that shares the code.
Input: `Program.errors`, the graph that was compiled. Output: exceptions; failures of a graph with an equal
key.
Invariant: a failure names a line of the graph it is asked for. Code belongs to all graphs that compute the
same thing, lines to each of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from graphjit.backend.llvm.entry.interrupts import INTERRUPTED, taken
from graphjit.backend.llvm.kernels.registers import OUT_OF_MEMORY
from graphjit.ir.node import Graph, Location
from graphjit.schedule.program import Failure


def exception(failures: Sequence[Failure], status: int) -> BaseException:
    """The exception for a status that a program returned."""
    if status == OUT_OF_MEMORY:
        return MemoryError("no memory for the intermediate values of a compiled function")
    if status == INTERRUPTED:
        return taken()
    failure = failures[status - 1]
    return failure.kind(failure.text())


def locations(graph: Graph) -> list[Location | None]:
    """The lines of all nodes, in an order that is the same in graphs with equal keys."""
    given = set(graph.inputs)
    return [node.loc for node in (*graph.inputs, *(node for node in graph.nodes() if node not in given))]


class Failures:
    """Failures of one program by the nodes they may come from."""

    def __init__(self, failures: Sequence[Failure], graph: Graph) -> None:
        """``graph`` is the graph that was compiled, before any pass: passes keep the line of a node for what
        they make of it.
        """
        self.own = tuple(failures)
        numbers = defaultdict(list)
        for number, loc in enumerate(locations(graph) if self.own else ()):
            numbers[loc].append(number)
        self._numbers = [numbers[failure.loc] for failure in self.own]

    def within(self, graph: Graph) -> tuple[Failure, ...] | None:
        """The failures at the lines of ``graph``, whose key is equal; None if nodes that failed at one line
        lie at several there.
        """
        found = []
        lines = locations(graph) if self.own else []
        for failure, numbers in zip(self.own, self._numbers, strict=True):
            places = {lines[number] for number in numbers}
            if len(places) != 1:
                return None
            found.append(failure._replace(loc=places.pop()))
        return tuple(found)
