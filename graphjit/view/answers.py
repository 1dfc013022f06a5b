"""Who answers whom: the operations of a derivative, and those of the function whose derivative they are.

Job: find the operation of the way there for each one of the way back.
Input: a board, and the items of all nodes. Output: the ``answers`` of its items.
Invariant: an item answers what its ``origin`` names, on its line: "vjp of sin" a ``sin``. Where that does not
say which one, it is one whose values it reads. The rules of linear operations read none: then it is one that
fits by its size. What nobody needs is not in the graph, so what answered it may have no answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from graphjit.ir.node import Node
from graphjit.ir.opdef import REGISTRY, ByRule, Linear
from graphjit.view.board import FORWARD, Board
from graphjit.view.graphs import PLACES, phase

MOST = 8
"""Items that one may answer; where it could be more, only the line is known."""


def answer(board: Board, places: Mapping[Node, int]) -> None:
    """Fill in ``answers``.

    Passes replace operations. In the stage ``optimized`` all that remains of a line stands for one that is
    gone.
    """
    forward: dict[tuple[Any, str], list[Node]] = defaultdict(list)
    lines: dict[Any, list[Node]] = defaultdict(list)
    derived: dict[tuple[Any, str], list[Node]] = defaultdict(list)
    for node in places:
        if node.loc is None or node.op.name in PLACES:
            continue
        rule, _, name = node.origin.partition(" of ")
        if phase(node) == FORWARD:
            forward[node.loc, node.op.name].append(node)
            lines[node.loc].append(node)
        elif rule in ("vjp", "jvp"):
            derived[node.loc, name].append(node)
    for (loc, name), nodes in derived.items():
        candidates = forward.get((loc, name), [])
        others = lines.get(loc, []) if board.key == "optimized" and not candidates else []
        chosen = _chosen(name, nodes, candidates)
        for node in nodes:
            found = dict.fromkeys(chosen.get(node, others))
            if len(found) <= MOST:
                board.items[places[node]].answers = sorted(places[each] for each in found)


def _chosen(name: str, nodes: Sequence[Node], candidates: Sequence[Node]) -> dict[Node, list[Node]]:
    """The candidates that each derived node may answer, as far as something says so."""
    touching, without_values = _touching(candidates), _without_values(name, candidates)
    found: dict[Node, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.serial):
        shared = [touching[arg] for arg in node.args if arg in touching]
        before = [found[arg] for arg in node.args if arg in found]
        if shared:
            those = min(shared, key=len)
        elif before:  # a rule runs through the way there from its end: the earliest one is meant
            those = min(before, key=lambda some: some[0].serial)
        else:
            those = without_values
        if not shared and _reads_nothing(name):
            those = [each for each in those if _fits(node, each)]
        if those:
            found[node] = those
    return found


def _touching(candidates: Sequence[Node]) -> dict[Node, list[Node]]:
    """For each value that candidates make or read: those candidates."""
    found: dict[Node, list[Node]] = {}
    for candidate in candidates:
        for value in dict.fromkeys((candidate, *candidate.args)):
            if not _is_number(value):
                found.setdefault(value, []).append(candidate)
    return found


def _without_values(name: str, candidates: Sequence[Node]) -> list[Node]:
    """The candidates whose rule may read none of their values."""
    reads_nothing = _reads_nothing(name)
    return [each for each in candidates if reads_nothing or any(map(_is_number, each.args))]


def _is_number(node: Node) -> bool:
    """Whether a value is a constant, or one in every element: all nodes share those."""
    return node.is_const or (node.op.name == "broadcast_to" and node.args[0].is_const)


def _reads_nothing(name: str) -> bool:
    """Whether the derivative of an operation needs none of its values. (Loops have rules of their own.)"""
    op = REGISTRY.get(name)
    return op is not None and isinstance(op.derivative, Linear | ByRule)


def _fits(node: Node, candidate: Node) -> bool:
    """Whether a node has as many elements as what a candidate makes, or reads."""
    if candidate.is_bundle or node.is_bundle:
        return True
    return node.type.size in {candidate.type.size, *(arg.type.size for arg in candidate.args)}
