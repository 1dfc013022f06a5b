"""Derivatives and batches of `cond`: a choice between the derivatives, or the batches, of its branches.

Forward mode chooses between branches that compute tangents. Reverse mode chooses twice: on the way there a
branch gives what its way back reads, on the way back the same branch is taken. Branches share the places of
these values: there are as many of a type as the branch has that needs most of them, and the others fill
theirs with zeros.

Over a batch in which the number of the branch does not vary there is one choice. Where it varies, cheap
branches are all computed and selected from; else each element makes its own choice, in a `scan` over them.

Input: a node, tangents, cotangents or batches. Output: those of its results or arguments, None for zero
or, over a batch, with whether they vary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.ir.opdef import Scalar, View
from graphjit.ir.types import Type
from graphjit.ops.failing import may_fail
from graphjit.transforms.batch import batch_size, spread
from graphjit.transforms.control.batches import Batches, one_by_one
from graphjit.transforms.control.effects import refuse_effects
from graphjit.transforms.control.loops import Values, depending, outside
from graphjit.transforms.control.residuals import border_of, cut, known_of
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents, or_zeros, summed
from graphjit.transforms.substitute import substitute
from graphjit.transforms.tapes import as_stack, blank

CHEAP = 40
"""What all branches cost an element, in the units of `scalars`, up to which all of them are computed."""


@dataclass(frozen=True)
class _Branch:
    """One branch, on inputs of its own in a builder."""

    name: str
    inputs: list[Node]
    outputs: list[Node]

    @property
    def computed(self) -> list[Node]:
        """The results that it computes from its inputs."""
        below = depending(self.outputs, self.inputs)
        return [x for x in self.outputs if x in below and x not in self.inputs]


def _branches(b: Builder, node: Node) -> list[_Branch]:
    bodies: Any = node.attrs["branches"]
    found = []
    for body in bodies:
        inputs = [b.input(x.type, str(x.attrs["name"])) for x in body.graph.inputs]
        found.append(_Branch(body.graph.name, inputs, list(b.inline(body.graph, tuple(inputs)))))
    return found


def _choice(b: Builder, which: Node, args: Sequence[Node], branches: Sequence[_Branch]) -> list[Node]:
    """The results of a choice between ``branches``, whose inputs are ``args``.

    What a branch reads from outside becomes an argument; what no branch needs is none.
    """
    if not branches[0].outputs:
        return []
    read = dict.fromkeys(x for branch in branches for x in outside(branch.outputs, set(branch.inputs)))
    closed = []
    for branch in branches:
        new = {x: b.input(x.type, "outside") for x in read}
        outputs = substitute(b, branch.outputs, new) if new else branch.outputs
        closed.append(_Branch(branch.name, [*branch.inputs, *new.values()], outputs))
    args, used = [*args, *read], _used(closed)
    bodies = [Graph(branch.name, [branch.inputs[i] for i in used], branch.outputs) for branch in closed]
    node = b.emit("cond", which, *(args[i] for i in used), branches=tuple(map(Body, bodies)))
    return [b.item(node, index=k) for k in range(len(node.parts))]


def chosen_results(
    b: Builder, node: Node, numbers: Sequence[int]
) -> tuple[list[Node], Callable[[Sequence[Node]], dict[int, Node]]]:
    """The arguments on which some results of a choice depend, and the choice of these results alone."""
    branches = [
        _Branch(branch.name, branch.inputs, [branch.outputs[k] for k in numbers])
        for branch in _branches(b, node)
    ]
    used = _used(branches)

    def made(args: Sequence[Node]) -> dict[int, Node]:
        narrow = [_Branch(x.name, [x.inputs[i] for i in used], x.outputs) for x in branches]
        return dict(zip(numbers, _choice(b.like(node), args[0], args[1:], narrow), strict=True))

    return [node.args[0], *(node.args[i + 1] for i in used)], made


def _used(branches: Sequence[_Branch]) -> list[int]:
    """The numbers of the inputs that any of the branches needs."""
    below = {x for branch in branches for x in reachable(branch.outputs)}
    return [
        i for i in range(len(branches[0].inputs)) if any(branch.inputs[i] in below for branch in branches)
    ]


def cond_jvp(b: Builder, node: Node, given: Sequence[Node | None]) -> Values:
    """Tangents of the results: those that have one in any branch."""
    branches, start = _branches(b, node), len(b.told)
    which, *args = node.args
    pushed = {i: t for i, t in enumerate(given[1:]) if t is not None}
    wide, found = [], []
    for branch in branches:
        seeds = {branch.inputs[i]: b.input(t.type, "tangent") for i, t in pushed.items()}
        found.append(tangents(b, seeds, branch.outputs))
        wide.append([*branch.inputs, *seeds.values()])
    _no_effects(b, start)
    b.like(node, origin=f"jvp of {node.op.name}")
    active = _any_of(found)
    made = [
        _Branch(branch.name, inputs, _chosen(b, branch.outputs, row, active))
        for branch, inputs, row in zip(branches, wide, found, strict=True)
    ]
    results = dict(zip(active, _choice(b, which, [*args, *pushed.values()], made), strict=True))
    return [results.get(k) for k in range(len(node.parts))]


def _any_of(rows: Sequence[Sequence[Node | None]]) -> list[int]:
    """Numbers of what is there in any branch."""
    return [k for k, column in enumerate(zip(*rows, strict=True)) if any(x is not None for x in column)]


def _chosen(
    b: Builder, ones: Sequence[Node], values: Sequence[Node | None], numbers: Sequence[int]
) -> list[Node]:
    """Those of the ``values`` with these numbers, zeros like ``ones`` for None."""
    return or_zeros(b, [ones[k] for k in numbers], [values[k] for k in numbers])


def cond_vjp(b: Builder, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]) -> Values:
    """Cotangents of the arguments: those that have one in any branch."""
    branches, start = _branches(b, node), len(b.told)
    which, *args = node.args
    results = [b.item(node, index=k) for k in range(len(node.parts))]
    asked = [i for i, arg in enumerate(args) if wanted[i + 1] and arg.type.has_derivative]
    pairs = [_pulled(b, branch, asked, given) for branch in branches]
    _no_effects(b, start)
    b.like(node, origin=f"vjp of {node.op.name}")
    active = _any_of([row for row, _ in pairs])
    back = [
        _Branch(branch.name, cts, _chosen(b, [branch.inputs[i] for i in asked], row, active))
        for branch, (row, cts) in zip(branches, pairs, strict=True)
    ]
    rooms, places = _shared([_border(*both) for both in zip(branches, back, strict=True)])
    there = [
        _Branch(branch.name, branch.inputs, [row.get(k) or blank(b, type) for k, type in enumerate(rooms)])
        for branch, row in zip(branches, places, strict=True)
    ]
    kept = _choice(b, which, args, there)
    ways = [_way_back(b, rooms, *row) for row in zip(branches, back, places, strict=True)]
    cts = [ct for ct in given if ct is not None]
    found = _choice(b, which, [*args, *results, *kept, *cts], ways)
    of = {asked[k]: ct for k, ct in zip(active, found, strict=True)}
    return [None, *(of.get(i) for i in range(len(args)))]


def _pulled(
    b: Builder, branch: _Branch, asked: Sequence[int], given: Sequence[Node | None]
) -> tuple[Values, list[Node]]:
    """Cotangents of the inputs ``asked`` for of one branch, and those of its results, on inputs."""
    cts = [None if ct is None else b.input(ct.type, "ct") for ct in given]
    found = cotangents(b, summed(b, branch.outputs, cts), [branch.inputs[i] for i in asked])
    return found, [ct for ct in cts if ct is not None]


def _way_back(
    b: Builder, rooms: Sequence[Type], branch: _Branch, back: _Branch, places: Mapping[int, Node]
) -> _Branch:
    """A branch of the way back, from arguments, results, kept values and cotangents."""
    kept = [b.input(type, "saved") for type in rooms]
    results = [b.input(x.type, "result") for x in branch.outputs]
    new = {y: x for y, x in zip(branch.outputs, results, strict=True) if y in branch.computed}
    new |= {value: kept[k] for k, value in places.items()}
    inputs = [*branch.inputs, *results, *kept, *back.inputs]
    return _Branch(branch.name, inputs, substitute(b, back.outputs, new))


def _border(branch: _Branch, back: _Branch) -> list[Node]:
    """The values of a branch, besides its arguments and results, that its way back is given."""
    known = known_of(back.outputs, back.inputs)
    free = {*branch.inputs, *branch.computed}
    varying = depending(known, branch.inputs)
    kept = cut([x for x in known if x in varying], varying, free)
    return [x for x in border_of(known, free | kept) if x not in free]


def _shared(borders: Sequence[Sequence[Node]]) -> tuple[list[Type], list[dict[int, Node]]]:
    """The types of places that all branches share, and for each branch what it puts where."""
    most: Counter[Type] = Counter()
    for row in borders:
        most |= Counter(x.type for x in row)
    rooms = list(most.elements())
    places: list[dict[int, Node]] = []
    for row in borders:
        free = {type: [k for k, room in enumerate(rooms) if room == type] for type in most}
        places.append({free[x.type].pop(0): x for x in row})
    return rooms, places


def _no_effects(b: Builder, start: int) -> None:
    if b.told.take(start):
        refuse_effects("a branch of cond")


def cond_batch(
    b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool], varying: Mapping[Node, Node]
) -> Batches:
    """A choice over a batch in the arguments that are ``batched``."""
    branches = _branches(b, node)
    if batched[0]:
        if _is_cheap(branches, node):
            return _selected(b, branches, node, args, varying)
        return one_by_one(b, node, args, batched)
    inputs, found = [], []
    for branch in branches:
        pairs = list(zip(branch.inputs, args[1:], strict=True))
        wide = {x: b.input(arg.type, "batch") for x, arg in pairs if x.type != arg.type}
        inputs.append([wide.get(x, x) for x in branch.inputs])
        found.append(spread(b, branch.outputs, {**varying, **wide}))
    b.like(node)
    flags = [any(flag for _, flag in column) for column in zip(*found, strict=True)]
    size = batch_size(node, args)
    made = []
    for branch, row, xs in zip(branches, found, inputs, strict=True):
        results = zip(branch.outputs, row, flags, strict=True)
        outputs = [as_stack(b, y, x, size) if flag else x for y, (x, _), flag in results]
        made.append(_Branch(branch.name, xs, outputs))
    return list(zip(_choice(b, args[0], args[1:], made), flags, strict=True))


def _is_cheap(branches: Sequence[_Branch], node: Node) -> bool:
    """Whether all branches may be computed where one would do."""
    total = 0
    for branch in branches:
        for x in Graph(branch.name, branch.inputs, branch.outputs).nodes():
            lower = x.op.lower
            if isinstance(lower, Scalar):
                total += lower.cost
            elif x.args and not isinstance(lower, View):
                return False
            if may_fail(x):
                return False
    return total <= CHEAP and all(type.record is None for type in node.parts)


def _selected(
    b: Builder,
    branches: Sequence[_Branch],
    node: Node,
    args: Sequence[Node],
    varying: Mapping[Node, Node],
) -> Batches:
    """All branches, and of each result the one that was asked for."""
    which, inputs = b.input(node.args[0].type, "which"), branches[0].inputs
    rows = [
        substitute(b, branch.outputs, dict(zip(branch.inputs, inputs, strict=True))) for branch in branches
    ]
    outputs = rows[-1]
    for number, row in reversed(list(enumerate(rows[:-1]))):
        is_it = b.le(which, b.const(number, which.dtype))
        outputs = [
            b.select(b.broadcast_to(is_it, shape=y.shape) if y.shape else is_it, y, other)
            for y, other in zip(row, outputs, strict=True)
        ]
    pairs = list(zip([which, *inputs], args, strict=True))
    outputs = substitute(b, outputs, {x: arg for x, arg in pairs if x.type == arg.type})
    return spread(b, outputs, {**varying, **{x: arg for x, arg in pairs if x.type != arg.type}})
