"""Put the body of each ``custom`` node in its place.

It is the first pass: derivatives have been taken, so who differentiates it how no longer matters, and what
follows sees ordinary ops. Equal parts of a body and of the graph around it become one.

Input and output: a graph. Invariant: no ``custom`` is left, and no ``item`` of one.
"""

from __future__ import annotations

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node
from graphjit.passes.bodies import inside


def open_bodies(graph: Graph) -> Graph:
    """``graph`` without ``custom`` nodes, in the bodies of its loops and choices too."""
    graph = inside(graph, open_bodies)
    if not any(node.op.name == "custom" for node in graph.nodes()):
        return graph
    b = Builder()
    outputs = _opened(b, graph, graph.inputs)
    return Graph(graph.name, graph.inputs, outputs)


def _opened(b: Builder, graph: Graph, args: tuple[Node, ...]) -> tuple[Node, ...]:
    """The outputs of ``graph`` on ``args``; bodies inside bodies are opened too."""
    replaced: dict[Node, Node] = dict(zip(graph.inputs, args, strict=True))
    several: dict[Node, tuple[Node, ...]] = {}
    for node in graph.nodes():
        if node in replaced:
            continue
        if node.op.name == "item" and node.args[0] in several:
            replaced[node] = several[node.args[0]][node.attrs["index"]]  # type: ignore[call-overload]
        elif node.op.name == "custom":
            body = node.attrs["body"]
            assert isinstance(body, Body)
            made = _opened(b, body.graph, tuple(replaced[arg] for arg in node.args))
            if node.is_bundle:
                several[node] = made
            else:
                (replaced[node],) = made
        else:
            replaced[node] = b.copy(node, tuple(replaced[arg] for arg in node.args))
    return tuple(replaced[node] for node in graph.outputs)
