"""Replace composite ops by the ops they consist of, such as ``softmax`` by max, exp, sum and a quotient.

It runs after differentiation, so that derivatives come from the composite op's own rule. What an expansion
brings in is expanded too.

Input and output: a graph. Invariant: no op with a `Decompose` lowering is left.
"""

from __future__ import annotations

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Decompose
from graphjit.passes.rewrite import rewrite


def decompose(graph: Graph) -> Graph:
    """``graph`` in terms of primitive ops."""
    if not any(isinstance(node.op.lower, Decompose) for node in graph.nodes()):
        return graph
    return rewrite(graph, _expand)


def _expand(b: Builder, node: Node) -> Node | None:
    lower = node.op.lower
    return lower.expand(b, node, *node.args) if isinstance(lower, Decompose) else None
