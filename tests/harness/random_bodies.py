"""Bodies of random graphs, and rules for them that say what the body says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.errors import DerivativeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.opdef import REGISTRY, OpDef
from graphjit.ir.rule import Rule
from graphjit.ir.types import Bundle, Type
from graphjit.transforms.bodies import Batched, Checkpoint, transposed_jvp, transposed_vjp
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents, or_zeros, summed
from graphjit.transforms.substitute import body_of

Values = list[Node | None]

MAX_ELEMENTS = 600
"""Of one value of a random graph."""


@dataclass(frozen=True)
class GraphRule(Rule):
    """Rules that are graphs: ``push`` from arguments and tangents of all of them to tangents of the results,
    or ``pull`` from arguments and cotangents of all results to cotangents of the arguments.
    """

    name: str
    push: Body | None = None
    pull: Body | None = None

    def jvp(self, b: Builder, node: Node, given: Sequence[Node | None]) -> Values:
        """By ``push``, or transposed from ``pull``."""
        if self.push is None:
            return transposed_vjp(b, self, node, given)
        return list(b.inline(self.push.graph, (*node.args, *or_zeros(b, node.args, given))))

    def vjp(self, b: Builder, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]) -> Values:
        """By ``pull``, or transposed from ``push``."""
        if self.pull is None:
            return transposed_jvp(b, self, node, given, wanted)
        found = b.inline(self.pull.graph, (*node.args, *or_zeros(b, body_of(node).outputs, given)))
        return [ct if flag else None for ct, flag in zip(found, wanted, strict=True)]

    def over_batch(
        self, node: Node, batched: Sequence[bool], size: int, varying: Mapping[Node, Node]
    ) -> Rule:
        """`Batched`."""
        return Batched.of(self, node, batched, size, varying)


def add_body(maker: Any) -> int:
    """A node with a graph inside, and items of its results."""
    args = [node for node in (maker.recent() for _ in range(maker.rng.integers(1, 4))) if node is not None]
    inner = inner_maker(maker, [maker.values[arg] for arg in args])
    inputs = list(inner.nodes)
    for _ in range(int(maker.rng.integers(2, 8))):
        inner.grow()
    made = [node for node in inner.nodes if node not in inputs and node.op.name != "const"]
    outputs = made[-int(maker.rng.integers(1, 4)) :]
    if not args or not outputs:
        return 0
    graph = Graph(f"body{len(maker.nodes)}", inputs, outputs)
    attrs: dict[str, Any] = {"body": Body(graph), "rule": random_rule(maker.rng, graph)}
    return add_node(maker, REGISTRY["custom"], args, attrs)


def inner_maker(maker: Any, values: Sequence[np.ndarray]) -> Any:
    """A maker of a graph inside, whose inputs have these values."""
    inner = type(maker)(maker.seed, None, maker.differentiable, maker.rng, maker.control)
    inner.bodies = maker.bodies - 1
    for i, value in enumerate(values):
        node = Builder().input(Type(value.dtype, value.shape), f"a{i}")
        inner.nodes.append(node)
        inner.values[node] = value
    return inner


def add_node(maker: Any, op: OpDef, args: list[Node], attrs: dict[str, Any]) -> int:
    """A node that may have several results, and items of them; 1 if it was added."""
    type = op.infer(*[arg.type for arg in args], **attrs)
    if not isinstance(type, Bundle):
        return 0 if maker.add(op, args, attrs) is None else 1
    values = maker.all_values(op, args, attrs)
    if values is None or any(value.size > MAX_ELEMENTS for value in values):
        return 0
    node = Node(op, tuple(args), attrs, type)
    for k, (part, value) in enumerate(zip(node.parts, values, strict=True)):
        item = Node(REGISTRY["item"], (node,), {"index": k}, part)
        maker.nodes.append(item)
        maker.values[item] = value
    return 1


def random_rule(rng: np.random.Generator, graph: Graph) -> Rule | None:
    """A rule that says what the body says: none, a second computation, or graphs of one mode."""
    kind = int(rng.integers(4))
    if kind == 0:
        return None
    if kind == 1:
        return Checkpoint("region")
    b = Builder()
    try:
        if kind == 2:
            given = [b.input(node.type, f"d{i}") for i, node in enumerate(graph.inputs)]
            seeds = {x: d for x, d in zip(graph.inputs, given, strict=True) if x.dtype.kind == "f"}
            found = or_zeros(b, graph.outputs, tangents(b, seeds, graph.outputs))
            return GraphRule("forward", push=Body(Graph("push", [*graph.inputs, *given], found)))
        given = [b.input(node.type, f"ct{i}") for i, node in enumerate(graph.outputs)]
        floating = [ct if ct.dtype.kind == "f" else None for ct in given]
        pulled = cotangents(b, summed(b, graph.outputs, floating), graph.inputs)
        found = or_zeros(b, graph.inputs, pulled)
        return GraphRule("backward", pull=Body(Graph("pull", [*graph.inputs, *given], found)))
    except DerivativeError:
        return None
