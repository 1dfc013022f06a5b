"""A recorded graph as numbers, in which repetition can be looked for.

Nodes that only show others in another way (slices, reshapes, results of loops), inputs and constants are no
steps of a computation: equal ones are recorded once, wherever they are first used, so they would hide the
repetition. What is left stands in a row, in the order of recording. Each node has a *label*: equal labels
mean the same operation at the same line. Each argument has a *source*, the node of the row that it shows, and
a *view*, which says how.

Input: nodes. Output: a `Row`.
Invariant: arguments with the same source and the same view are the same value.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import numpy as np

from graphjit.ir.node import Node
from graphjit.ir.opdef import REGISTRY

VIEWS = frozenset({"slice", "reshape", "broadcast_to", "transpose", "flip", "item"})
"""Ops that show their argument in another way."""

STEPS = 16
"""Steps from which a loop is rolled up."""
OUTSIDE = -1
"""The source of an argument that shows no node of the row: an input, a constant."""


@dataclass
class Row:
    """The operations of a graph in the order of recording, and their arguments.

    Those of node ``i`` have the numbers from ``first[i]`` to before ``first[i + 1]``.
    """

    since: int
    """The serial number from which on nodes were looked at."""
    order: list[Node]
    """All nodes, views and inputs too."""
    index: dict[Node, int]
    """Their positions there."""
    shows: np.ndarray
    """For each of them the position in ``nodes`` of the operation that it shows, or `OUTSIDE`."""
    views: np.ndarray
    """For each of them the number of the way in which it shows that."""
    nodes: list[Node]
    labels: np.ndarray
    first: np.ndarray
    value: np.ndarray
    """For each argument its position in ``order``."""

    @cached_property
    def source(self) -> np.ndarray:
        """For each argument a position in ``nodes``, or `OUTSIDE`."""
        found: np.ndarray = self.shows[self.value]
        return found

    @cached_property
    def view(self) -> np.ndarray:
        """For each argument the number of its view."""
        found: np.ndarray = self.views[self.value]
        return found

    def argument(self, number: int) -> Node:
        """An argument, by its number."""
        return self.order[int(self.value[number])]

    def place(self, node: Node) -> tuple[int, int]:
        """Source and view of a node."""
        at = self.index[node]
        return int(self.shows[at]), int(self.views[at])

    @cached_property
    def kept(self) -> np.ndarray:
        """The positions of operations that occur often enough to belong to a loop. Others among the steps of
        one, such as a value that is read now and then, do not hide it.
        """
        counts = np.bincount(self.labels, minlength=1)
        return np.flatnonzero(counts[self.labels] >= STEPS)

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """The numbers of all arguments of equal operations: for each row of positions a row of numbers."""
        counts = self.first[positions[0] + 1] - self.first[positions[0]]
        place = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
        found: np.ndarray = self.first[positions[:, place]] + within
        return found

    @cached_property
    def owner(self) -> np.ndarray:
        """For each argument the position of the node that reads it."""
        return np.repeat(np.arange(len(self.nodes)), np.diff(self.first))


def recorded(order: list[Node], since: int) -> Row:
    """The row of nodes in the order of recording; what is older than ``since`` counts as known."""
    index = {node: at for at, node in enumerate(order)}
    shows, views = [OUTSIDE] * len(order), [0] * len(order)
    nodes: list[Node] = []
    value: list[int] = []
    first, labels = [0], list[int]()
    known: dict[Hashable, int] = {}
    ways: dict[Hashable, int] = {}
    view_ops = {REGISTRY[name] for name in VIEWS}
    place = index.__getitem__
    for at, node in enumerate(order):
        op, args = node.op, node.args
        if not args or node.serial < since:
            continue
        if op in view_ops:
            below = index[args[0]]
            shows[at] = shows[below]
            views[at] = ways.setdefault((views[below], op, *node.attrs.values()), len(ways) + 1)
            continue
        # There is one location for each place in the code: by its id, places of one line are told apart.
        label = (op, node.type, id(node.loc), len(args), *node.attrs.values())
        labels.append(known.setdefault(label, len(known)))
        shows[at] = len(nodes)
        nodes.append(node)
        value += map(place, args)
        first.append(len(value))
    return Row(
        since,
        order,
        index,
        _numbers(shows),
        _numbers(views),
        nodes,
        _numbers(labels),
        _numbers(first),
        _numbers(value),
    )


def _numbers(values: list[int]) -> np.ndarray:
    """An array of integers. (While a function is traced, ``np.array`` looks at each element of a list.)"""
    return np.frombuffer(array("q", values), np.int64)


def recorded_since(roots: Sequence[Node], since: int) -> list[Node]:
    """What ``roots`` need, in the order of recording; older nodes without what those need."""
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            if node.serial >= since:
                stack.extend(node.args)
    return sorted(seen, key=attrgetter("serial"))
