"""Loops taken apart: the body of a `scan`, a `while` or an `unwind` on inputs of its own, to be made another.

Input: a node. Output: a `Loop`, which `run` makes a node of again.
Invariants: body and test share their inputs; a loop that runs reads nothing but its arguments (what a rule of
the user's read from outside becomes a constant), and has no argument that nothing needs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.transforms.substitute import body_of, substitute

Values = list[Node | None]


class Parts(NamedTuple):
    """Arguments of a loop, or inputs of its body: what is the same in each step, what a step hands to the
    next, and what is another in each step.
    """

    constants: Sequence[Any]
    carries: Sequence[Any]
    slices: Sequence[Any]

    @property
    def all(self) -> list[Any]:
        """In their order."""
        return [*self.constants, *self.carries, *self.slices]

    def joined(self, more: Parts) -> Parts:
        """With ``more`` of each kind behind."""
        pairs = zip(self, more, strict=True)
        return Parts(*([*first, *second] for first, second in pairs))

    def without_none(self) -> Parts:
        """Those that are there."""
        return Parts(*([x for x in part if x is not None] for part in self))


class Results(NamedTuple):
    """What a loop computed: carries by their number, and all that it stacked."""

    carries: dict[int, Node]
    made: list[Node]


@dataclass(frozen=True)
class Loop:
    """A loop and its body."""

    op: str
    args: Parts
    inputs: Parts
    after: list[Node]
    """What a step makes of the carries."""
    made: list[Node]
    """What it computes besides: one element of an array, or one value on a tape."""
    test: Node | None
    """Whether there is a further step, of a ``while``."""
    length: int
    """The number of steps of a ``scan``; of others -1."""
    reverse: bool
    name: str
    test_name: str = "test"

    @classmethod
    def of_scan(cls, graph: Graph, args: Parts, length: int, reverse: bool) -> Loop:
        """A `scan` that is not a node yet; the graph of its body becomes the loop's."""
        ends = len(args.constants), len(args.constants) + len(args.carries)
        inputs = Parts(graph.inputs[: ends[0]], graph.inputs[slice(*ends)], graph.inputs[ends[1] :])
        carried = len(args.carries)
        after, made = list(graph.outputs[:carried]), list(graph.outputs[carried:])
        return cls("scan", args, inputs, after, made, None, length, reverse, graph.name)

    @property
    def outputs(self) -> list[Node]:
        """Results of the body."""
        return [*self.after, *self.made]

    @property
    def roots(self) -> list[Node]:
        """All that a step computes."""
        return [*self.outputs, *([] if self.test is None else [self.test])]

    def with_roots(self, roots: Sequence[Node]) -> Loop:
        """The loop with other `roots`."""
        first, second = len(self.after), len(self.after) + len(self.made)
        test = None if self.test is None else roots[-1]
        return replace(self, after=list(roots[:first]), made=list(roots[first:second]), test=test)

    def split(self, values: Sequence[Any]) -> Parts:
        """Values for each argument, by kind."""
        first, second = len(self.args.constants), len(self.args.constants) + len(self.args.carries)
        return Parts(values[:first], values[first:second], values[second:])


def kinds_of(node: Node) -> tuple[slice, slice, slice]:
    """Where constants, carries and slices stand among the arguments of a loop."""
    attrs: Mapping[str, Any] = node.attrs
    last = len(node.args) - attrs.get("sliced", attrs.get("tapes", 0))
    first = last - attrs["carried"]
    return slice(first), slice(first, last), slice(last, None)


def opened(
    b: Builder, node: Node, args: Sequence[Node] | None = None, inputs: Sequence[Node] | None = None
) -> Loop:
    """A loop with its body in ``b``: on ``inputs``, or on fresh ones, with ``args`` or with the node's."""
    attrs: Mapping[str, Any] = node.attrs
    graph = body_of(node)
    if inputs is None:
        inputs = [b.input(x.type, str(x.attrs["name"])) for x in graph.inputs]
    args = node.args if args is None else args
    outputs = list(b.inline(graph, tuple(inputs)))
    carried, kinds = attrs["carried"], kinds_of(node)
    loop = Loop(
        node.op.name,
        Parts(*(list(args[kind]) for kind in kinds)),
        Parts(*(list(inputs[kind]) for kind in kinds)),
        outputs[:carried],
        outputs[carried:],
        None,
        attrs.get("length", -1),
        attrs.get("reverse", False),
        graph.name,
    )
    if node.op.name != "while":
        return loop
    asks: Graph = attrs["test"].graph
    (test,) = b.inline(asks, tuple(inputs))
    return replace(loop, test=test, test_name=asks.name)


def run(b: Builder, loop: Loop, wanted: Collection[int] | None = None) -> Results:
    """The results of a loop, at the line that ``b`` is at. Of the carries only those numbered in ``wanted``
    need to be there; by default all.
    """
    loc, origin = b.loc, b.origin
    loop, kept = pruned(_closed(b, loop), range(len(loop.after)) if wanted is None else wanted)
    if not kept and not loop.made:
        return Results({}, [])
    body = Body(Graph(loop.name, loop.inputs.all, loop.outputs))
    attrs: dict[str, Any] = {"body": body, "carried": len(kept)}
    if loop.op == "scan":
        attrs |= {"sliced": len(loop.args.slices), "length": loop.length, "reverse": loop.reverse}
    elif loop.op == "unwind":
        attrs |= {"tapes": len(loop.args.slices)}
    else:
        assert loop.test is not None
        test = Graph(loop.test_name, [*loop.inputs.constants, *loop.inputs.carries], [loop.test])
        attrs |= {"test": Body(test), "taped": len(loop.made)}
    b.loc, b.origin = loc, origin
    node = b.emit(loop.op, *loop.args.all, **attrs)
    items = [b.item(node, index=k) for k in range(len(node.parts))]
    return Results(dict(zip(kept, items, strict=False)), items[len(kept) :])


def elements(b: Builder, array: Node, start: int, stop: int, axis: int = 0, step: int = 1) -> Node:
    """Elements from ``start`` to before ``stop`` along an axis."""
    along = [i == axis for i in range(len(array.shape))]
    return b.slice(
        array,
        starts=tuple(start if here else 0 for here in along),
        limits=tuple(stop if here else n for here, n in zip(along, array.shape, strict=True)),
        steps=tuple(step if here else 1 for here in along),
    )


def depending(roots: Iterable[Node], sources: Collection[Node]) -> set[Node]:
    """The nodes that ``roots`` need and that depend on ``sources``, which are among them."""
    found = set(sources)
    for node in sorted(reachable(roots, sources), key=lambda node: node.serial):
        if any(arg in found for arg in node.args):
            found.add(node)
    return found


def outside(roots: Sequence[Node], own: Collection[Node]) -> list[Node]:
    """What ``roots`` read that depends on inputs of other graphs, and on none of their ``own``."""
    below = list(reachable(roots, own))
    strangers = [node for node in below if node.op.name == "input"]
    if not strangers:
        return []
    inside, strange = depending(roots, own), depending(roots, strangers)
    read = dict.fromkeys(roots)
    for node in sorted(inside - set(own), key=lambda node: node.serial):
        read |= dict.fromkeys(node.args)
    return [node for node in read if node in strange and node not in inside]


def _closed(b: Builder, loop: Loop) -> Loop:
    """``loop`` with what it reads from outside among its constants."""
    read = outside(loop.roots, set(loop.inputs.all))
    if not read:
        return loop
    new = {node: b.input(node.type, "outside") for node in read}
    return replace(
        loop,
        args=loop.args.joined(Parts(read, [], [])),
        inputs=loop.inputs.joined(Parts(list(new.values()), [], [])),
    ).with_roots(substitute(b, loop.roots, new))


def pruned(loop: Loop, wanted: Collection[int]) -> tuple[Loop, list[int]]:
    """``loop`` without arguments that nothing needs, and the numbers of the carries that are left."""
    carries = loop.inputs.carries
    kept = set(wanted)
    needed: set[Node] = set()
    while True:
        roots = [*loop.made, *(loop.after[i] for i in kept), *([] if loop.test is None else [loop.test])]
        needed = set(reachable(roots))
        more = kept | {i for i, x in enumerate(carries) if x in needed}
        if more == kept:
            break
        kept = more
    numbers = sorted(kept)
    flags = Parts(
        [x in needed for x in loop.inputs.constants],
        [i in kept for i in range(len(carries))],
        [x in needed for x in loop.inputs.slices],
    )
    if loop.op == "unwind" and not any(flags.slices):
        flags.slices[0] = True  # type: ignore[index]
    args, inputs = _chosen(loop.args, flags), _chosen(loop.inputs, flags)
    return replace(loop, args=args, inputs=inputs, after=[loop.after[i] for i in numbers]), numbers


def _chosen(parts: Parts, flags: Parts) -> Parts:
    return Parts(
        *(
            [x for x, flag in zip(values, chosen, strict=True) if flag]
            for values, chosen in zip(parts, flags, strict=True)
        )
    )
