"""How the tests of loops and conditions run a function: as it is traced, by the interpreter.

`run` is the one place that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphjit
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node, with_bodies
from graphjit.trace.prepared import Prepared

COMPILED = False
"""Whether functions are compiled (the fixture ``both_ways`` does both)."""


class Interpreted:
    """A graph in the place of its code."""

    in_place: dict[int, int] = {}

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.outputs = [node.type for node in graph.outputs]

    def run(self, arrays: Sequence[np.ndarray], ready: Any) -> list[np.ndarray]:
        """The outputs."""
        return [np.array(value) for value in interpret(self.graph, *arrays)]


def run(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a traced function, which may be a derivative."""
    compiled: Any = function if hasattr(function, "dispatcher") else graphjit.jit(function)
    if COMPILED:
        return compiled(*args)
    dispatcher = compiled.dispatcher
    leaves, kinds, spec = dispatcher.signature(args, {})
    staged = dispatcher.stage(kinds, spec)
    return Prepared(staged, Interpreted(staged.graph)).run(leaves, kinds, True)  # type: ignore[arg-type]


def graph_of(function: Callable[..., Any], *args: Any) -> Graph:
    """What a function records."""
    return graphjit.make_graph(function)(*args)


def nodes_named(graph: Graph, name: str) -> list[Node]:
    """The nodes of one op, those in bodies too."""
    return [node for node in with_bodies(graph) if node.op.name == name]
