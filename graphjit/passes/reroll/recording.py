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

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import numpy as np

from graphjit.ir.node import Node

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

    order: list[Node]
    """All nodes, views and inputs too."""
    nodes: list[Node]
    labels: np.ndarray
    first: np.ndarray
    source: np.ndarray
    """For each argument a position in ``nodes``, or `OUTSIDE`."""
    view: np.ndarray
    value: np.ndarray
    """For each argument a number that says which node it is."""
    args: list[Node]
    place: dict[Node, tuple[int, int]]
    """Source and view of each node."""

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


def recorded(roots: Sequence[Node], since: int) -> Row:
    """The row of all that ``roots`` need; what is older than serial number ``since`` counts as known."""
    order = _since(roots, since)
    place: dict[Node, tuple[int, int]] = {}
    nodes: list[Node] = []
    args: list[Node] = []
    first, labels = [0], list[int]()
    known: dict[Hashable, int] = {}
    views: dict[Hashable, int] = {}
    for node in order:
        op = node.op
        if op.name in VIEWS and node.serial >= since:
            source, view = place[node.args[0]]
            key = (view, op, *node.attrs.values())
            place[node] = source, views.setdefault(key, len(views) + 1)
        elif not node.args or node.serial < since:
            place[node] = OUTSIDE, 0
        else:
            label = (op, node.type, node.loc, len(node.args), *node.attrs.values())
            labels.append(known.setdefault(label, len(known)))
            place[node] = len(nodes), 0
            nodes.append(node)
            args += node.args
            first.append(len(args))
    sources = [place[arg] for arg in args]
    pairs = np.array(sources, np.int64).reshape(-1, 2)
    return Row(
        order,
        nodes,
        np.array(labels, np.int64),
        np.array(first, np.int64),
        pairs[:, 0],
        pairs[:, 1],
        np.array([arg.serial for arg in args], np.int64),
        args,
        place,
    )


def _since(roots: Sequence[Node], since: int) -> list[Node]:
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
