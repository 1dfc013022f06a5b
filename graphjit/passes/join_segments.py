"""Loops that were cut into segments are one loop, where no derivative reads what lies between.

``checkpoint_every`` makes a loop over segments, each a loop, and a further loop for steps that are left over.
Reverse mode keeps the carries between segments. Where it does not, nobody needs them:

- a loop whose step is nothing but a loop of the same kind is one loop of all steps,
- a `scan` that goes on where another one ended is one with it, if both go through the same arrays.

Example: a `scan` of 3 steps, each of which is a `scan` of 4 steps, becomes a `scan` of 12.

Input and output: a graph without ``custom`` nodes.
Invariant: the same steps in the same order; carries between the loops have no other reader.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, reachable
from graphjit.ir.patterns import splat
from graphjit.ir.types import I64
from graphjit.ops.shapes import joined_slices
from graphjit.passes.bodies import inside, joined, remade
from graphjit.transforms.control.loops import Loop, Values, elements, kinds_of, opened, run
from graphjit.transforms.substitute import body_of


def join_segments(graph: Graph) -> Graph:
    """``graph`` with one loop for those that are its segments."""
    if not any(node.is_bundle for node in graph.nodes()):
        return graph
    graph = remade(inside(graph, join_segments), _flat)
    pairs = _following(graph)
    if not pairs:
        return graph
    return joined(
        graph,
        list(pairs),
        lambda b, first, second, known: _one(b, first, second, known, pairs[first, second]),
    )


# ---------------------------------------------------------------------------------------- a loop of segments


def _flat(b: Builder, node: Node, args: list[Node], read: Collection[int]) -> Values | None:
    """The results of a loop over segments as one loop; None if it is none."""
    if node.op.name not in ("scan", "while"):
        return None
    outer = opened(b, node, args)
    segment = _segment(outer)
    if segment is None:
        return None
    inner = _in_terms_of(b, outer, segment)
    if inner is None:
        return None
    places = [list(inner.inputs.carries).index(x) for x in outer.inputs.carries]
    numbers: list[Any] = [out.attrs["index"] for out in outer.outputs]
    first, behind = len(places), len(inner.after)
    if numbers[:first] != places or any(number < behind for number in numbers[first:]):
        return None
    whole = replace(
        outer,
        after=[inner.after[place] for place in places],
        made=[inner.made[number - behind] for number in numbers[first:]],
    )
    b.like(segment)
    if outer.op == "scan":
        return _long_scan(b, whole, inner) if behind == first else None
    if whole.made or not _only_counts(b, outer, inner, whole.after):
        return None
    carries = run(b, whole).carries
    return [carries[i] for i in range(first)]


def _long_scan(b: Builder, loop: Loop, inner: Loop) -> Values:
    """The results of ``loop``, whose steps are those of ``inner``; stacks are in segments."""
    count, each = loop.length, inner.length
    arrays = dict(zip(loop.inputs.slices, loop.args.slices, strict=True))
    slices = [b.reshape(arrays[x], shape=(count * each, *x.shape[1:])) for x in inner.args.slices]
    whole = replace(
        loop,
        args=loop.args._replace(slices=slices),
        inputs=loop.inputs._replace(slices=inner.inputs.slices),
        length=count * each,
    )
    results = run(b, whole)
    stacks = (b.reshape(y, shape=(count, each, *y.shape[1:])) for y in results.made)
    return [*(results.carries[i] for i in range(len(loop.after))), *stacks]


def _segment(outer: Loop) -> Node | None:
    """The loop that is all that a step does."""
    owners = {out.args[0] for out in outer.outputs if out.op.name == "item"}
    if len(owners) != 1 or any(out.op.name != "item" for out in outer.outputs):
        return None
    (segment,) = owners
    alike = segment.op.name == outer.op and segment.attrs.get("reverse", False) == outer.reverse
    return segment if alike else None


def _in_terms_of(b: Builder, outer: Loop, segment: Node) -> Loop | None:
    """The loop inside, whose body reads inputs of the loop around it; None if its arguments are other values
    than these.
    """
    constants, carries, slices = (list(segment.args[kind]) for kind in kinds_of(segment))
    own = (outer.inputs.constants, outer.inputs.carries, outer.inputs.slices)
    if any(not (x in own[0] or x.is_const) for x in constants) or any(x not in own[2] for x in slices):
        return None
    begun = [x for x in carries if x in own[1]]
    if len(set(begun)) != len(begun) or len(begun) != len(own[1]):
        return None
    fresh = [b.input(x.type, str(x.attrs["name"])) for x in body_of(segment).inputs[len(constants) :]]
    handed = [x if x in own[1] else new for x, new in zip(carries, fresh, strict=False)]
    return opened(b, segment, inputs=[*constants, *handed, *fresh[len(carries) :]])


def _only_counts(b: Builder, outer: Loop, inner: Loop, after: list[Node]) -> bool:
    """Whether a ``while`` inside goes on as the loop around it does, but for at most so many steps, which it
    counts in a carry of its own.
    """
    pairs = zip(inner.inputs.carries, inner.args.carries, inner.after, strict=True)
    own = [row for row in pairs if row[0] not in outer.inputs.carries]
    if len(own) != 1 or inner.made or inner.test is None or inner.test.op.name != "and":
        return False
    ((count, start, counted),) = own
    limits = [arg for arg in inner.test.args if arg is not outer.test]
    if len(limits) != 1 or limits[0].op.name != "lt" or limits[0].args[0] is not count or count.dtype != I64:
        return False
    most = splat(limits[0].args[1])
    if splat(start) != 0 or most is None or most < 1 or counted is not b.add(count, b.const(1, I64)):
        return False
    assert outer.test is not None
    return count not in set(reachable([*after, outer.test]))


# ------------------------------------------------------------------------------------ a loop that goes on


class _Order(NamedTuple):
    """Which of a loop's carries, slices and stacked results are which of the loop before it."""

    carries: list[int]
    slices: list[int]
    made: list[int]


def _following(graph: Graph) -> dict[tuple[Node, Node], _Order]:
    """Loops, and the one that goes on where it ended; none stands in two pairs."""
    readers = _readers(graph)
    pairs: dict[tuple[Node, Node], _Order] = {}
    taken: set[Node] = set()
    for second in graph.nodes():
        carries = second.args[kinds_of(second)[1]] if second.op.name == "scan" else ()
        first = carries[0].args[0] if carries and carries[0].op.name == "item" else second
        if first is second or first in taken or any(x.args != (first,) for x in carries):
            continue
        others = [x for x in readers[first] if x not in carries]
        alone = all(readers[x] == [second] for x in carries)
        if alone and not set(others) & set(reachable(second.args, carries)):
            order = _goes_on(first, second)
            if order is not None:
                pairs[first, second] = order
                taken |= {first, second}
    return pairs


def _readers(graph: Graph) -> dict[Node, list[Node]]:
    """Who reads each node; an output is read by itself."""
    readers: dict[Node, list[Node]] = {out: [out] for out in graph.outputs}
    for node in graph.nodes():
        for arg in dict.fromkeys(node.args):
            readers.setdefault(arg, []).append(node)
    return readers


def _goes_on(first: Node, second: Node) -> _Order | None:
    """How a loop does to further elements of the same arrays what another one does; None: it does not."""
    if first.op.name != "scan" or first.attrs["reverse"] != second.attrs["reverse"]:
        return None
    b = Builder()
    loop = opened(b, first)
    constants, carries, slices = (second.args[kind] for kind in kinds_of(second))
    numbers: list[Any] = [x.attrs["index"] for x in carries]
    if sorted(numbers) != list(range(len(loop.after))) or len(slices) != len(loop.args.slices):
        return None
    places = [_place(b, loop, y) for y in slices]
    known = dict(zip(loop.args.constants, loop.inputs.constants, strict=True))
    if sorted(places) != list(range(len(places))) or not set(constants) <= set(known):
        return None
    mine = loop.inputs
    inputs = [*map(known.__getitem__, constants), *map(mine.carries.__getitem__, numbers)]
    inputs += map(mine.slices.__getitem__, places)
    further = opened(b, second, inputs=inputs)
    if further.after != [loop.after[i] for i in numbers] or not set(further.made) <= set(loop.made):
        return None
    return _Order(numbers, places, [loop.made.index(y) for y in further.made])


def _place(b: Builder, loop: Loop, further: Node) -> int:
    """Which array of a loop goes on with ``further``; -1: none."""
    for i, x in enumerate(loop.args.slices):
        left, right = (further, x) if loop.reverse else (x, further)
        if len(joined_slices(b, (left, right), 0)) == 1:
            return i
    return -1


def _one(
    b: Builder, first: Node, second: Node, known: Mapping[Node, Node], order: _Order
) -> tuple[list[Node], list[Node]]:
    """One loop for two, the second of which goes on where the first one ended."""
    loop, size = opened(b, first, [known[arg] for arg in first.args]), second.attrs["length"]
    assert isinstance(size, int)
    further = [known[x] for x in second.args[kinds_of(second)[2]]]
    slices = list(loop.args.slices)
    for i, y in zip(order.slices, further, strict=True):
        left, right = (y, slices[i]) if loop.reverse else (slices[i], y)
        slices[i] = b.concatenate(left, right, axis=0)
    whole = replace(loop, args=loop.args._replace(slices=slices), length=loop.length + size)
    results = run(b, whole)
    border = size if loop.reverse else loop.length
    halves = [(elements(b, y, 0, border), elements(b, y, border, whole.length)) for y in results.made]
    made = [(y, x) if loop.reverse else (x, y) for x, y in halves]
    carries = [results.carries[i] for i in range(len(loop.after))]
    mine = [*carries, *(x for x, _ in made)]
    return mine, [*(carries[i] for i in order.carries), *(made[i][1] for i in order.made)]
