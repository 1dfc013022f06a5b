"""A graph as boxes: operations, loops and choices that open.

Input: a graph, and what each of its nodes takes. Output: a `Board`.
Invariants: numbers are those of `graphjit.ir.printer`; each node of the graph and of the graphs inside it is
one item.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from graphjit.ir.names import name_text
from graphjit.ir.node import Body, ConstValue, Graph, Node, bodies
from graphjit.ir.opdef import Decompose, Lowering, Reduce, Scalar, Scan, View
from graphjit.ir.printer import LIST_LIMIT, number_nodes, value_text
from graphjit.ir.types import Type
from graphjit.view.board import BACKWARD, FORWARD, TANGENT, Board, Item

TEXT = 120
"""Characters that an attribute may have."""

KINDS: tuple[tuple[type, str], ...] = (
    (Scalar, "scalar"),
    (View, "view"),
    (Reduce, "reduce"),
    (Scan, "reduce"),
    (Decompose, "composite"),
)
"""How an operation is drawn, by what it is lowered to."""

MOVES = ("reshape", "concatenate", "copy", "item", "embed", "splice")
"""Operations that compute nothing, whatever they are lowered to."""

PLACES = ("input", "const", "iota")
"""Operations that compute nothing of which a phase could be told."""


def add_graph(board: Board, graph: Graph, parent: int, costs: Mapping[Node, float]) -> dict[Node, int]:
    """Put the nodes of a graph into a box; returns the items of all nodes, those of bodies too."""
    found: dict[Node, int] = {}
    for node, number in number_nodes(graph).items():
        item = node_item(node, number, parent, costs)
        item.args = [found[arg] for arg in node.args]
        found[node] = board.add(item)
        inside = add_bodies(board, node, found[node], costs)
        item.nanoseconds += sum(costs.get(each, 0.0) for each in inside)
        found |= inside
    for i, node in enumerate(graph.outputs):
        board.add(Item(f"result {i}", "output", type=type_text(node.type), parent=parent, args=[found[node]]))
    return found


def add_bodies(board: Board, node: Node, parent: int, costs: Mapping[Node, float]) -> dict[Node, int]:
    """Put the graphs inside a node into a box; several go each into one of its own."""
    found: dict[Node, int] = {}
    inner = list(_bodies_of(node))
    if len(inner) == 1:
        return add_graph(board, inner[0][1].graph, parent, costs)
    for role, body in inner:
        item = Item(role, "body", text=name_text(body.graph.name), parent=parent, phase=phase(node))
        inside = add_graph(board, body.graph, board.add(item), costs)
        item.nanoseconds = sum(costs.get(each, 0.0) for each in inside)
        found |= inside
    return found


def node_item(node: Node, number: int, parent: int, costs: Mapping[Node, float]) -> Item:
    """One node as an item; its arguments are not known yet."""
    name: Any = node.attrs.get("name") if node.op.name == "input" else node.op.name
    return Item(
        label=str(name or "argument"),
        kind=kind_of(node),
        number=number,
        type=type_text(node.type),
        text=_attributes(node),
        loc=node.loc,
        origin=node.origin,
        phase=phase(node),
        parent=parent,
        nanoseconds=costs.get(node, 0.0),
        hidden=node.is_const and not node.shape,
    )


@functools.lru_cache(maxsize=1_000)
def type_text(type: Type) -> str:
    """A type as printed stages have it; most nodes of a graph share a few."""
    return str(type)


def kind_of(node: Node) -> str:
    """How an operation is drawn."""
    if node.op.name in PLACES:
        return "input" if node.op.name == "input" else "const"
    if bodies(node):
        return {"cond": "choice", "scan": "loop", "while": "loop", "unwind": "loop"}.get(
            node.op.name, "nested"
        )
    if node.op.name in MOVES:
        return "view"
    lower: Lowering = node.op.lower
    return next((kind for of, kind in KINDS if isinstance(lower, of)), "special")


def made_by(node: Node) -> str:
    """The operation that computes a value, also where it makes several."""
    return node.args[0].op.name if node.op.name == "item" else node.op.name


def phase(node: Node) -> str:
    """Which part of the computation a node belongs to.

    The rule of a loop also makes the loop of the way there that keeps what the way back reads. It is told
    from the one back by what its body computes.
    """
    if node.op.name in PLACES:
        return FORWARD
    if node.op.name == "item":
        return phase(node.args[0])
    inside = [part for body in bodies(node) for part in body.graph.nodes() if part.op.name not in PLACES]
    if inside:
        phases = {phase(part) for part in inside}
        return BACKWARD if BACKWARD in phases else TANGENT if TANGENT in phases else FORWARD
    kind = node.origin.partition(" of ")[0]
    return {"vjp": BACKWARD, "jvp": TANGENT}.get(kind, FORWARD)


def _bodies_of(node: Node) -> Iterator[tuple[str, Body]]:
    """The graphs inside a node, by what they are for."""
    for name, value in node.attrs.items():
        parts = value if isinstance(value, tuple) else (value,)
        several = len(parts) > 1
        for i, part in enumerate(parts):
            if isinstance(part, Body):
                yield f"{name} {i}" if several else name, part


def _attributes(node: Node) -> str:
    """The attributes but bodies and names, each cut where it is long."""
    if node.op.name == "input":
        return ""
    texts = []
    for name, value in node.attrs.items():
        parts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(part, Body) for part in parts):
            continue
        large = isinstance(value, ConstValue) and value.array.size > LIST_LIMIT
        text = "an array of values" if large else value_text(value)
        text = text if len(text) <= TEXT else f"{text[:TEXT]}..."
        texts.append(text if node.is_const else f"{name}={text}")
    return " ".join(texts)
