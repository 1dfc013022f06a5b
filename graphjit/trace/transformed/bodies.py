"""A function of the user's as one node of a trace, `custom`, with a rule of its own.

Job: run the function on placeholders, close what it returned over everything else that it reads, and put a
node around it.
Input: the active trace, a function, its arguments, a rule. Output: the node and the results as traced values.
Invariants: the body is closed: values of the outer trace that the function read come in as further arguments,
behind the user's own; what needs no argument is computed outside, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphjit.errors import TraceError
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.ir.rule import Rule
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import TreeSpec, flatten, unflatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.tracer import Trace, Tracer, is_number, kind_of
from graphjit.trace.transformed.placeholders import unchanging
from graphjit.transforms.bodies import Batched
from graphjit.transforms.effects import retold
from graphjit.transforms.substitute import substitute


@dataclass
class Leaves:
    """A tree of values, of which some are nodes and the others stay as they are."""

    spec: TreeSpec
    leaves: list[Any]
    numbers: list[int]
    """Which of them are nodes."""

    @classmethod
    def of(cls, tree: Any, bools: bool = False) -> Leaves:
        """Those of a tree; with ``bools`` Python's bools are nodes too."""
        leaves, spec = flatten(tree)
        numbers = [
            i for i, leaf in enumerate(leaves) if is_number(leaf) or (bools and isinstance(leaf, bool))
        ]
        return cls(spec, leaves, numbers)

    def nodes(self, trace: Trace) -> list[Node]:
        """Their nodes."""
        return [trace.node(self.leaves[i]) for i in self.numbers]

    def filled(self, values: Sequence[Any]) -> Any:
        """The tree with other values for the nodes."""
        leaves = list(self.leaves)
        for i, value in zip(self.numbers, values, strict=True):
            leaves[i] = value
        return unflatten(self.spec, leaves)

    def like(self, trace: Trace, nodes: Sequence[Node]) -> Any:
        """The tree with traced values of the same kinds."""
        kinds = [kind_of(self.leaves[i]) for i in self.numbers]
        return self.filled([kind(trace, node) for kind, node in zip(kinds, nodes, strict=True)])


@dataclass
class Closed:
    """A function of the user's as a graph: its inputs are the arguments, then what it read from outside."""

    graph: Graph
    outside: list[Node]
    """What it read from outside."""
    result: Leaves


def closed(trace: Trace, function: Callable[..., Any], given: Leaves, nodes: Sequence[Node]) -> Closed:
    """``function`` on arguments like ``given``, whose nodes are these."""
    placeholders: list[Node] = []
    for node in nodes:
        placeholder = trace.builder.input(node.type, f"a{len(placeholders)}")
        if trace.values is not None:
            trace.values.arrays[placeholder] = trace.values.of(node)
        placeholders.append(placeholder)
    args, told = given.like(trace, placeholders), len(trace.builder.told)
    result = Leaves.of(unchanging(function, args, {}))
    for leaf in result.leaves:
        if isinstance(leaf, Tracer) and leaf._trace is not trace:
            raise TraceError(f"{name_of(function)} returned a traced value of another call")
    outputs = result.nodes(trace)
    outside, _ = border(placeholders, outputs)
    inner = [trace.builder.input(node.type, f"outside{i}") for i, node in enumerate(outside)]
    inside = dict(zip(outside, inner, strict=True))
    made = substitute(trace.builder, outputs, inside)
    _tell(trace, told, inside, dict(zip(placeholders, nodes, strict=True)))
    return Closed(Graph(name_of(function), [*placeholders, *inner], made), outside, result)


def _tell(trace: Trace, start: int, inside: dict[Node, Node], actual: dict[Node, Node]) -> None:
    """Effects of a body in terms of the arguments of its node, so that they happen beside it: once, however
    often a derivative computes the body again.
    """
    b = trace.builder
    for effect in b.told.effects[start:]:
        b.told.note(effect.at(substitute(b, effect.nodes, inside)))
    retold(b, start, actual)


def border(
    placeholders: Sequence[Node], outputs: Sequence[Node], kept: Iterable[Node] = ()
) -> tuple[list[Node], set[Node]]:
    """The nodes outside a function that its results read, and those inside.

    Inside is what depends on its arguments, or on a node that is ``kept`` there. Constants are not counted.
    """
    inside = {*placeholders, *kept}
    order = sorted(reachable(outputs), key=lambda node: node.serial)
    for node in order:
        if any(arg in inside for arg in node.args):
            inside.add(node)
    read = {arg for node in order if node in inside for arg in node.args} | set(outputs)
    return [node for node in order if node in read and node not in inside and not _is_known(node)], inside


def _is_known(node: Node) -> bool:
    """Whether a node is a constant, or one number repeated."""
    if node.op.name == "broadcast_to":
        node = node.args[0]
    return node.op.name in ("const", "iota")


def call_as_node(
    trace: Trace,
    function: Callable[..., Any],
    args: Any,
    rule: Callable[[Closed, Leaves], Rule],
    more: Sequence[Node] = (),
) -> tuple[Any, Node]:
    """The results of ``function(*args)`` as results of one node, and the node. ``more`` are further arguments
    of the node, which the function does not read but the rule does.
    """
    given = Leaves.of(args)
    nodes = given.nodes(trace)
    body = closed(trace, function, given, nodes)
    graph = body.graph
    if more:
        unread = [trace.builder.input(node.type, f"more{i}") for i, node in enumerate(more)]
        graph = Graph(graph.name, [*graph.inputs, *unread], graph.outputs)
    node = trace.emit("custom", *nodes, *body.outside, *more, body=Body(graph), rule=rule(body, given))
    parts = results_of_node(trace, node)
    return body.result.filled([Tracer(trace, part) for part in parts]), node


def results_of_node(trace: Trace, node: Node) -> list[Node]:
    """The results of a `custom` node, one by one."""
    if not node.is_bundle:
        return [node]
    return [trace.emit("item", node, index=k) for k in range(len(node.parts))]


class TracedRule(Rule):
    """A rule that calls functions of the user's, so it needs the trace in which derivatives are taken."""

    def over_batch(
        self, node: Node, batched: Sequence[bool], size: int, varying: Mapping[Node, Node]
    ) -> Rule:
        """The rule of each element."""
        return Batched.of(self, node, batched, size, varying)

    def trace(self) -> Trace:
        """The trace in which derivatives are taken."""
        trace = active_trace()
        assert trace is not None, f"the rule of {self.name} is asked for outside of a trace"
        return trace
