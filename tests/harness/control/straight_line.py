"""A program without control flow that computes the same for given arguments: the oracle of loops and choices.

Job: write out every step of every loop, and the branches that are taken, as ordinary nodes.
Input: a graph without arrays of tapes, and arguments, which decide how many steps there are and which
branches. Output: a `Graph` with the same inputs.
Invariant: derivatives of both agree wherever the number of steps does not jump.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.interpret import evaluate
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import I64, Type


def straight_line(graph: Graph, inputs: list[np.ndarray]) -> Graph:
    """``graph`` for ``inputs``, without loops and choices."""
    run = _Run()
    nodes = [run.b.input(node.type, str(node.attrs["name"])) for node in graph.inputs]
    run.values |= dict(zip(nodes, inputs, strict=True))
    return Graph(f"straight {graph.name}", nodes, run.inline(graph, nodes))


class _Run:
    """Builds nodes, and knows their values. A tape is a list of nodes here, the last one last."""

    def __init__(self) -> None:
        self.b = Builder()
        self.values: dict[Node, Any] = {}

    def value(self, node: Node) -> Any:
        if node not in self.values:
            with np.errstate(all="ignore"):
                self.values[node] = evaluate(node, [self.value(arg) for arg in node.args])
        return self.values[node]

    def inline(self, graph: Graph, args: Any) -> list[Any]:
        made: dict[Node, Any] = dict(zip(graph.inputs, args, strict=True))
        for node in graph.nodes():
            if node in made:
                continue
            given = [made[arg] for arg in node.args]
            name = node.op.name
            if name in ("scan", "while", "unwind", "cond"):
                made[node] = getattr(self, f"{name}_")(given, **node.attrs)
            elif name == "custom":
                found = self.inline(node.attrs["body"].graph, given)  # type: ignore[attr-defined]
                made[node] = found if node.is_bundle else found[0]
            elif name == "item":
                made[node] = given[0][node.attrs["index"]]
            else:
                made[node] = self.b.copy(node, tuple(given))
                for x in (made[node], *made[node].args):
                    self.value(x)
        return [made[node] for node in graph.outputs]

    def element(self, array: Node, t: int) -> Node:
        return self.b.gather(array, self.b.const(t, I64), axes=(0,))

    def stack(self, values: list[Node], type: Type) -> Node:
        if not values:
            return self.b.full(0, type.with_shape((0, *type.shape)))
        return self.b.concatenate(*(self.b.reshape(x, shape=(1, *x.shape)) for x in values), axis=0)

    def scan_(self, args: list[Any], body: Any, carried: int, sliced: int, length: int, reverse: bool) -> Any:
        first = len(args) - sliced
        constants, carries, arrays = args[: first - carried], args[first - carried : first], args[first:]
        rows: dict[int, list[Any]] = {}
        for t in reversed(range(length)) if reverse else range(length):
            found = self.inline(body.graph, [*constants, *carries, *(self.element(x, t) for x in arrays)])
            carries, rows[t] = found[:carried], found[carried:]
        outputs = body.graph.outputs[carried:]
        columns = [[rows[t][k] for t in range(length)] for k in range(len(outputs))]
        return [*carries, *(self.stack(x, node.type) for x, node in zip(columns, outputs, strict=True))]

    def while_(self, args: list[Any], test: Any, body: Any, carried: int, taped: int) -> Any:
        constants, carries = args[: len(args) - carried], args[len(args) - carried :]
        tapes: list[list[Any]] = [[] for _ in range(taped)]
        while self.value(self.inline(test.graph, [*constants, *carries])[0]):
            found = self.inline(body.graph, [*constants, *carries])
            carries = found[:carried]
            tapes = [[*tape, x] for tape, x in zip(tapes, found[carried:], strict=True)]
        return [*carries, *tapes]

    def unwind_(self, args: list[Any], body: Any, carried: int, tapes: int) -> Any:
        first = len(args) - tapes
        constants, carries, read = args[: first - carried], args[first - carried : first], args[first:]
        written: list[list[Any]] = [[] for _ in body.graph.outputs[carried:]]
        for values in reversed(list(zip(*read, strict=True))):
            found = self.inline(body.graph, [*constants, *carries, *values])
            carries = found[:carried]
            written = [[*tape, x] for tape, x in zip(written, found[carried:], strict=True)]
        return [*carries, *written]

    def cond_(self, args: list[Any], branches: Any) -> Any:
        number = min(max(int(self.value(args[0])), 0), len(branches) - 1)
        return self.inline(branches[number].graph, args[1:])
