"""Common subexpressions: compute the same thing once.

Job: rebuild a graph through one builder, whose interning merges equal nodes and whose local exact rules see the merged arguments.
Input and output: a graph.  Invariant: values are the same bit for bit.
"""

from __future__ import annotations

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node


def cse(graph: Graph) -> Graph:
    """``graph`` with equal nodes merged."""
    copy = Builder().copy
    replaced: dict[Node, Node] = {}
    for node in graph.nodes():
        replaced[node] = copy(node, tuple([replaced[arg] for arg in node.args]))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])
