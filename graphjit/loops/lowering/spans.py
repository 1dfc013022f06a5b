"""Between which numbers the integers of a loop in registers lie, so that positions in range need no check.

``for j in range(k, n)`` counts from a number that is not negative up to one below n, so j is a place of an
axis of n elements. Ends of loops are known from their tests: in the body of ``while j < n`` j is less.

Input: nodes of bodies. Output: ranges.
Invariant: a value lies in its range wherever it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphjit.ir.node import Graph, Node
from graphjit.ir.types import I64
from graphjit.schedule.in_place import first_carry
from graphjit.transforms.control.integers import counts
from graphjit.transforms.control.ranges import OPERATIONS, Range, fits, known

MOST = (1 << 62) - 1
"""A number that no count reaches."""


def _numbers(array: Node) -> bool:
    """Whether an array holds 0, 1, 2 ..., or a copy of them."""
    while array.op.name == "copy":
        (array,) = array.args
    return array.op.name == "iota" and len(array.shape) == 1


class Spans:
    """What is known of integers."""

    def __init__(self) -> None:
        self.found: dict[Node, Range | None] = {}

    def of(self, node: Node) -> Range | None:
        """The least and the greatest value of an integer; None: not known."""
        if node not in self.found:
            self.found[node] = self._computed(node)
        return self.found[node]

    def _computed(self, node: Node) -> Range | None:
        if node.is_bundle or node.dtype != I64:
            return None
        if node.is_const:
            return known(node)
        if not node.args or node.op.name not in OPERATIONS:
            return None
        args = [self.of(arg) for arg in node.args]
        present = [arg for arg in args if arg is not None]
        if len(present) < len(args):
            return None
        ends = OPERATIONS[node.op.name](*present)
        return (min(ends), max(ends)) if fits(ends) else None

    def enter(self, graph: Graph, args: Sequence[Node]) -> None:
        """Begin a body, whose first inputs are arguments from outside. Two loops may have the same one: what
        is known of it in one is forgotten.
        """
        ranges = [self.of(arg) for arg in args]
        for node in graph.nodes():
            self.found.pop(node, None)
        self.found |= dict.fromkeys(graph.inputs) | dict(zip(graph.inputs, ranges, strict=False))

    def steps(self, node: Node, body: Graph, test: Graph | None) -> None:
        """What is known of the carries and slices of a loop in its body."""
        first, length = first_carry(node), node.attrs.get("length")
        carried: Any = node.attrs["carried"]
        for k in range(carried):
            self.found[body.inputs[first + k]] = self._counted(node, body, test, first, k)
        if node.op.name == "scan" and isinstance(length, int):
            for arg, x in zip(node.args[first + carried :], body.inputs[first + carried :], strict=True):
                self.found[x] = (0, length - 1) if _numbers(arg) else None

    def _counted(self, node: Node, body: Graph, test: Graph | None, first: int, k: int) -> Range | None:
        """A carry that counts up by one, to before what the test compares it with."""
        x, start = body.inputs[first + k], self.of(node.args[first + k])
        if start is None or counts(x, body.outputs[k]) != 1:
            return None
        if node.op.name == "scan":
            steps: Any = node.attrs["length"]
            return start[0], start[1] + steps
        if (
            test is None
            or test.outputs[0].op.name != "lt"
            or test.outputs[0].args[0] is not test.inputs[first + k]
        ):
            return None
        self.enter(test, node.args[:first])
        end = self.of(test.outputs[0].args[1])
        return None if end is None or end[1] > MOST else (start[0], max(start[0], end[1] - 1))
