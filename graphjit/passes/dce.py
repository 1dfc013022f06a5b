"""Dead code: what no element of an output depends on.

Job: a `Graph` lists only what its outputs reach, so what is left to remove is work on arrays without elements.
Input and output: a graph.  Invariants: inputs stay, used or not; values are the same.
"""

from __future__ import annotations

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.passes.rewrite import rewrite


def dce(graph: Graph) -> Graph:
    """``graph`` with every empty value replaced by an empty constant."""
    if all(node.type.size or node.op.name in ("input", "const") for node in graph.nodes()):
        return graph
    return rewrite(graph, _empty)


def _empty(b: Builder, node: Node) -> Node | None:
    if node.type.size or node.op.name in ("input", "const"):
        return None
    return b.const(np.zeros(node.shape, node.dtype), node.dtype)
