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
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, reachable
from graphjit.ir.patterns import splat
from graphjit.ir.types import I64
from graphjit.passes.bodies import inside, joined, remade
from graphjit.passes.rules.shapes import join_slices
from graphjit.transforms.control.loops import Loop, Values, elements, kinds_of, opened, run
from graphjit.transforms.substitute import body_of


def join_segments(graph: Graph) -> Graph:
    """``graph`` with one loop for those that are its segments."""
    if not any(node.is_bundle for node in graph.nodes()):
        return graph
    graph = remade(inside(graph, join_segments), _flat)
    pairs = _following(graph)
    return joined(graph, pairs, _one) if pairs else graph


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
    if inner is None or inner.reverse != outer.reverse:
        return None
    places = [list(inner.inputs.carries).index(x) for x in outer.inputs.carries]
    numbers: list[Any] = [out.attrs["index"] for out in outer.outputs]
    first = len(outer.after)
    if numbers[:first] != places or any(number < len(inner.after) for number in numbers[first:]):
        return None
    after = [inner.after[place] for place in places]
    b.like(segment)
    if outer.op == "while":
        if outer.made or not _only_counts(b, outer, inner, after):
            return None
        carries = run(b, replace(outer, after=after)).carries
        return [carries[i] for i in range(first)]
    if len(inner.after) != first:
        return None
    count, each = outer.length, inner.length
    arrays = dict(zip(outer.inputs.slices, outer.args.slices, strict=True))
    whole = replace(
        outer,
        args=outer.args._replace(
            slices=[b.reshape(arrays[x], shape=(count * each, *x.shape[1:])) for x in inner.args.slices]
        ),
        inputs=outer.inputs._replace(slices=inner.inputs.slices),
        after=after,
        made=[inner.made[number - first] for number in numbers[first:]],
        length=count * each,
    )
    results = run(b, whole)
    stacks = (b.reshape(y, shape=(count, each, *y.shape[1:])) for y in results.made)
    return [*(results.carries[i] for i in range(first)), *stacks]


def _segment(outer: Loop) -> Node | None:
    """The loop that is all that a step does."""
    owners = {out.args[0] for out in outer.outputs if out.op.name == "item"}
    if len(owners) != 1 or any(out.op.name != "item" for out in outer.outputs):
        return None
    (segment,) = owners
    return segment if segment.op.name == outer.op else None


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


def _following(graph: Graph) -> list[tuple[Node, Node]]:
    """Loops, and the one that goes on where it ended; none stands in two pairs."""
    nodes = graph.nodes()
    readers: dict[Node, list[Node]] = {out: [out] for out in graph.outputs}
    for node in nodes:
        for arg in dict.fromkeys(node.args):
            readers.setdefault(arg, []).append(node)
    pairs: dict[Node, Node] = {}
    for second in nodes:
        carries = second.args[kinds_of(second)[1]] if second.op.name == "scan" else ()
        first = carries[0].args[0] if carries and carries[0].op.name == "item" else second
        if first is second or first in pairs or first in pairs.values():
            continue
        others = [x for x in readers[first] if x not in carries]
        if (
            all(x.op.name == "item" and x.args[0] is first for x in carries)
            and [x.attrs["index"] for x in carries] == list(range(len(carries)))
            and all(readers[x] == [second] for x in carries)
            and _goes_on(first, second)
            and not set(others) & set(reachable(second.args, carries))
        ):
            pairs[first] = second
    return list(pairs.items())


def _goes_on(first: Node, second: Node) -> bool:
    """Whether a loop does to further elements of the same arrays what another one does."""
    if first.op.name != "scan" or first.attrs["carried"] != second.attrs["carried"]:
        return False
    if first.attrs["reverse"] != second.attrs["reverse"]:
        return False
    (constants, _, mine), (others, _, further) = (
        [node.args[kind] for kind in kinds_of(node)] for node in (first, second)
    )
    b = Builder()
    if constants != others or len(mine) != len(further):
        return False
    if any(_together(b, x, y, first) is None for x, y in zip(mine, further, strict=True)):
        return False
    inputs = tuple(b.input(x.type, str(x.attrs["name"])) for x in body_of(first).inputs)
    return b.inline(body_of(first), inputs) == b.inline(body_of(second), inputs)


def _together(b: Builder, mine: Node, further: Node, loop: Node) -> Node | None:
    """The array of which ``loop`` goes through one part, and the next one through the other."""
    return join_slices(b, *((further, mine) if loop.attrs["reverse"] else (mine, further)), axis=0)


def _one(b: Builder, first: Node, second: Node, known: Mapping[Node, Node]) -> tuple[list[Node], list[Node]]:
    """One loop for two, the second of which goes on where the first one ended."""
    loop, size = opened(b, first, [known[arg] for arg in first.args]), second.attrs["length"]
    assert isinstance(size, int)
    pairs = zip(loop.args.slices, (known[x] for x in second.args[kinds_of(second)[2]]), strict=True)
    ordered = [(y, x) if loop.reverse else (x, y) for x, y in pairs]
    slices = [join_slices(b, x, y, 0) or b.concatenate(x, y, axis=0) for x, y in ordered]
    whole = replace(loop, args=loop.args._replace(slices=slices), length=loop.length + size)
    results = run(b, whole)
    border = size if loop.reverse else loop.length
    parts = [(elements(b, y, 0, border), elements(b, y, border, whole.length)) for y in results.made]
    made = [(y, x) if loop.reverse else (x, y) for x, y in parts]
    carries = [results.carries[i] for i in range(len(loop.after))]
    return [*carries, *(x for x, _ in made)], [*carries, *(y for _, y in made)]
