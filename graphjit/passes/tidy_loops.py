"""Loops and choices without what nobody needs.

Derivatives and batches leave much in loops that no result depends on: carries of values that only the way
back would have read, stacked results that nobody reads. This pass takes away

- results that nobody reads, and carries that no result needs,
- carries that never change: they become constants,
- constants that are known numbers: they are written into the body,
- arguments that the body does not read, or that stand there twice,
- arrays with the same number in every step: their element is a constant,
- what a body computes of constants alone: it is computed once, before the loop, if the loop runs,
- loops of no steps, and choices whose number is known.

Input and output: a graph without ``custom`` nodes.
Invariant: the same values; nothing that can raise is moved out of a choice or of a loop that may not run.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.ir.opdef import View
from graphjit.ir.patterns import splat
from graphjit.ops.failing import may_fail
from graphjit.passes.bodies import inside
from graphjit.passes.simplify import simplify

Values = list[Node | None]


def tidy_loops(graph: Graph) -> Graph:
    """``graph`` with tidy loops and choices, in their bodies too."""
    if not any(node.is_bundle for node in graph.nodes()):
        return graph
    graph = inside(graph, lambda body: tidy_loops(simplify(body)))
    read: dict[Node, set[int]] = {}
    for node in graph.nodes():
        if node.op.name == "item":
            read.setdefault(node.args[0], set()).add(node.attrs["index"])  # type: ignore[arg-type]
    b = Builder()
    replaced: dict[Node, Node] = {}
    results: dict[Node, Values] = {}
    for node in graph.nodes():
        if node.op.name == "item":
            value = results[node.args[0]][node.attrs["index"]]  # type: ignore[call-overload]
            assert value is not None
            replaced[node] = value
            continue
        args = [replaced[arg] for arg in node.args]
        if node.is_bundle:
            results[node] = TIDY[node.op.name](b.like(node), node, args, read[node])
        else:
            replaced[node] = b.copy(node, tuple(args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


# --------------------------------------------------------------------------------------------- what is shared


@dataclass
class Argument:
    """An argument of a loop or a choice, and the input that stands for it in the bodies."""

    value: Node
    x: Node


def is_known(node: Node) -> bool:
    """Whether a node is a number, or one number repeated."""
    while node.op.name in ("broadcast_to", "reshape"):
        node = node.args[0]
    return node.is_const and node.type.size == 1


def repeated_element(b: Builder, array: Node) -> Node | None:
    """The element of an array along its first axis, if all are the same and known."""
    return b.full(splat(array), array.type.with_shape(array.shape[1:])) if is_known(array) else None


def settle(arguments: Sequence[Argument], needed: Container[Node], known: dict[Node, Node]) -> list[Argument]:
    """The arguments that stay; for the inputs of others ``known`` says what stands there: a number, or the
    input of an equal argument.
    """
    kept: dict[Node, Argument] = {}
    for argument in arguments:
        if argument.x not in needed:
            continue
        if is_known(argument.value):
            known[argument.x] = argument.value
        elif argument.value in kept:
            known[argument.x] = kept[argument.value].x
        else:
            kept[argument.value] = argument
    return list(kept.values())


def body_of(
    b: Builder, name: str, inputs: Sequence[Node], roots: Sequence[Node], known: Mapping[Node, Node]
) -> Body:
    """A closed graph with inputs like these; ``known`` says what stands for other nodes."""
    fresh = [
        b.input(x.type, str(x.attrs["name"])) if x.op.name == "input" else b.input(x.type, "before")
        for x in inputs
    ]
    places = {**known, **dict(zip(inputs, fresh, strict=True))}
    places = {x: places.get(value, value) for x, value in places.items()}
    return Body(Graph(name, fresh, rebuilt(b, roots, places)))


def rebuilt(b: Builder, roots: Sequence[Node], places: Mapping[Node, Node]) -> list[Node]:
    """``roots`` in terms of what stands for some nodes."""
    made = dict(places)
    for node in sorted(reachable(roots, places), key=lambda node: node.serial):
        if node not in made:
            made[node] = b.copy(node, tuple(made[arg] for arg in node.args))
    return [made[root] for root in roots]


# ------------------------------------------------------------------------------------------------------ loops


@dataclass
class Loop:
    """A loop taken apart. Its test, if there is one, and its body are over the same inputs."""

    constants: list[Argument]
    carries: list[Argument]
    slices: list[Argument]
    test: list[Node]
    outputs: list[Node]
    """Of the body: new carries, then the other results."""

    @classmethod
    def of(cls, b: Builder, node: Node, args: Sequence[Node]) -> Loop:
        """That of a node whose arguments are ``args``."""
        body, test = node.attrs["body"], node.attrs.get("test")
        assert isinstance(body, Body)
        carried: Any = node.attrs["carried"]
        sliced: Any = node.attrs.get("sliced", node.attrs.get("tapes", 0))
        inputs = body.graph.inputs
        tests = list(b.inline(test.graph, inputs)) if isinstance(test, Body) else []
        pairs = [Argument(arg, x) for arg, x in zip(args, inputs, strict=True)]
        first = len(args) - sliced
        return cls(
            pairs[: first - carried],
            pairs[first - carried : first],
            pairs[first:],
            tests,
            list(body.graph.outputs),
        )

    def repeated(self, b: Builder) -> dict[Node, Node]:
        """What stands for the elements of arrays that have the same number in each step."""
        elements = {argument.x: repeated_element(b, argument.value) for argument in self.slices}
        return {x: element for x, element in elements.items() if element is not None}

    def roots(self, numbers: Iterable[int]) -> list[Node]:
        """The outputs with these numbers, and the test."""
        return [*self.test, *(self.outputs[k] for k in numbers)]

    def live(self, read: set[int]) -> list[int]:
        """The carries that are needed, directly or for others, and the other results that are read."""
        live = set(read)
        while True:
            needed = set(reachable(self.roots(live)))
            more = {k for k, carry in enumerate(self.carries) if carry.x in needed} - live
            if not more:
                return sorted(live)
            live |= more


def _tidy_loop(b: Builder, node: Node, args: Sequence[Node], read: set[int]) -> Values:
    """A scan or a while; the values of its results."""
    loop = Loop.of(b, node, args)
    count = len(loop.carries)
    if node.attrs.get("length") == 0:
        stacked = [b.full(0, part) for part in node.parts[count:]]
        return [*(carry.value for carry in loop.carries), *stacked]
    fixed = [k for k, carry in enumerate(loop.carries) if loop.outputs[k] is carry.x]
    live = [k for k in loop.live(read) if k not in fixed]
    known = loop.repeated(b)
    needed = set(reachable(loop.roots(live)))
    carries = [loop.carries[k] for k in live if k < count]
    slices = [x for x in loop.slices if x.x in needed and x.x not in known]
    if node.op.name == "unwind":  # which runs as often as its tapes say
        slices = slices or loop.slices[:1]
    constants = settle([*loop.constants, *(loop.carries[k] for k in fixed)], needed, known)
    varying = {argument.x for argument in (*carries, *slices)}
    early = _hoisted(loop.roots(live), varying, node.op.name == "scan")
    constants = _with_early(b, constants, early, set(reachable(loop.roots(live), early)), known)
    arguments = [*constants, *carries, *slices]
    counts = len(carries), len(slices)
    outputs = [loop.outputs[k] for k in live]
    made = remade(b, node, arguments, outputs, counts, known, loop.test)
    values: Values = [None] * len(node.parts)
    for k in fixed:
        values[k] = loop.carries[k].value
    for k, value in zip(live, made, strict=True):
        values[k] = value
    return values


def _with_early(
    b: Builder,
    constants: Sequence[Argument],
    early: Sequence[Node],
    needed: set[Node],
    known: dict[Node, Node],
) -> list[Argument]:
    """The constants of a loop whose nodes ``early`` are computed before it; ``needed`` is what the body reads
    besides.
    """
    outside = {**known, **{constant.x: constant.value for constant in constants}}
    outside = {x: outside.get(value, value) for x, value in outside.items()}
    lifted = [Argument(value, x) for x, value in zip(early, rebuilt(b, early, outside), strict=True)]
    # What stands for another input is read where that is.
    read = {known.get(x, x) for x in needed}
    return settle([*constants, *lifted], {*needed, *read, *early}, known)


def remade(
    b: Builder,
    node: Node,
    arguments: Sequence[Argument],
    outputs: Sequence[Node],
    counts: tuple[int, int],
    known: Mapping[Node, Node] = MappingProxyType({}),
    test: Sequence[Node] = (),
) -> list[Node]:
    """The loop ``node`` with other arguments and outputs; its results.

    ``counts`` are the numbers of carries and of slices among the ``arguments``; ``known`` says what stands
    for inputs that are no arguments any more.
    """
    inputs = [argument.x for argument in arguments]
    carried, sliced = counts
    name = node.attrs["body"].graph.name  # type: ignore[attr-defined]
    attrs = {**node.attrs, "body": body_of(b, name, inputs, outputs, known), "carried": carried}
    if test:
        attrs["test"] = body_of(b, node.attrs["test"].graph.name, inputs, test, known)  # type: ignore[attr-defined]
    counted = {"sliced": sliced, "tapes": sliced, "taped": len(outputs) - carried}
    attrs |= {name: count for name, count in counted.items() if name in attrs}
    made = b.like(node).emit(node.op, *(argument.value for argument in arguments), **attrs)
    return [b.item(made, index=k) for k in range(len(outputs))]


def _hoisted(roots: Sequence[Node], varying: set[Node], runs: bool) -> list[Node]:
    """The last nodes of a body that do not depend on ``varying`` inputs and are worth computing before the
    loop; ``runs``: the loop runs at least once.
    """
    moving = set(varying)
    order = sorted(reachable(roots), key=lambda node: node.serial)
    for node in order:
        if any(arg in moving for arg in node.args) or (node.args and not runs and may_fail(node)):
            moving.add(node)
    stack = [arg for node in order if node in moving for arg in node.args if arg not in moving]
    stack += [root for root in roots if root not in moving]
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.args and _is_worth_keeping(node):
            found[node] = None
        else:
            stack.extend(node.args)
    return sorted(found, key=lambda node: node.serial)


def _is_worth_keeping(node: Node) -> bool:
    """Whether a value is better read than computed again in each step: it takes work, and no more memory than
    what it is made of.
    """
    if isinstance(node.op.lower, View) or node.is_bundle or is_known(node):
        return False
    if node.op.name in ("reshape", "item"):
        return False
    return node.type.nbytes <= max(64, *(arg.type.nbytes for arg in node.args))


def _tidy_cond(b: Builder, node: Node, args: Sequence[Node], read: set[int]) -> Values:
    """A choice; the values of its results."""
    branches: Any = node.attrs["branches"]
    which = splat(args[0])
    live = sorted(read)
    values: Values = [None] * len(node.parts)
    if which is not None:
        chosen = branches[min(max(int(which), 0), len(branches) - 1)]
        return list(b.inline(chosen.graph, tuple(args[1:])))
    first = branches[0].graph.inputs
    outputs = [[b.inline(branch.graph, first)[k] for k in live] for branch in branches]
    known: dict[Node, Node] = {}
    needed = set(reachable([root for roots in outputs for root in roots]))
    kept = settle([Argument(value, x) for value, x in zip(args[1:], first, strict=True)], needed, known)
    inputs = [argument.x for argument in kept]
    bodies = tuple(
        body_of(b, branch.graph.name, inputs, roots, known)
        for branch, roots in zip(branches, outputs, strict=True)
    )
    made = b.like(node).emit(node.op, args[0], *(argument.value for argument in kept), branches=bodies)
    for number, k in enumerate(live):
        values[k] = b.item(made, index=number)
    return values


Tidy = Callable[[Builder, Node, Sequence[Node], set[int]], Values]
TIDY: dict[str, Tidy] = {"scan": _tidy_loop, "while": _tidy_loop, "unwind": _tidy_loop, "cond": _tidy_cond}
