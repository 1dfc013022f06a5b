"""Loops over a batch whose elements never meet: along which axes their steps take no element to another.

A step of ``h = tanh(h * w + x)`` on 10 000 rows is 10 000 steps that know nothing of each other. So the loop
over the rows may be outside and the loop over the steps inside, where carries are a few numbers: what
`vmap` makes of a small loop, and what people write by hand.

    carry f64[10000,2]; a step computes row by row       ->    an axis of 10000, axis 0 of the carry
    carry f64[10000]; a step reads ``h - np.mean(h)``    ->    none

An axis is followed from what a step leaves to what it finds: each op says by its index map at which place of
its arguments the axis stands. What lies in memory all along, constants and slices, may be read anywhere.

Input: a loop. Output: the axes, and where each value of its body has them.
Invariant: an element of a carry depends on elements of carries that have the same number along the axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphjit.ir.affine import Affine, axis_index, own_index, strides
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, bodies
from graphjit.ir.opdef import Reduce, Scalar, View
from graphjit.passes.tidy_loops import tidy_loops
from graphjit.schedule.access import is_window, operands
from graphjit.schedule.loops.versions import once
from graphjit.transforms.control.loops import kinds_of

MANY = 4
"""Elements that a batch has at the least: fewer are no work for vectors."""

Place = int | None
"""The axis of a value that is the batch; None: the value is the same for the whole batch."""
Result = tuple[Node, int]
"""A result of a loop or a choice, by its number."""


@dataclass(frozen=True)
class Batch:
    """An axis of a loop: its length, and where values of bodies and results of loops and choices have it.

    Of what lies in memory all along nothing is said.
    """

    extent: int
    values: Mapping[Node, Place]
    results: Mapping[Result, Place]


@once
def batches_of(node: Node) -> tuple[Batch, ...]:
    """The axes of a loop along which its elements never meet, those of the first carry that has any, in
    order; each result of the loop has all of them or none. A loop of one step has no carries.
    """
    if node.op.name not in ("scan", "while") or any(part.record is not None for part in node.parts):
        return ()
    carried: Any = node.attrs["carried"]
    parts = enumerate(
        node.parts[:carried] if carried else node.parts if node.attrs.get("length") == 1 else ()
    )
    for k, part in parts:
        axes = range(0 if carried else 1, len(part.shape))
        tried = (_along(node, k, axis) for axis in axes if part.shape[axis] >= MANY)
        found = [batch for batch in tried if batch is not None]
        while len(found) > 1 and _is_partial(node, found):
            found.pop()
        if found:
            return tuple(found)
    return ()


def shared_results(node: Node, batches: Sequence[Batch]) -> list[int]:
    """The results of a loop that are the same for the whole batch, such as a time that steps count."""
    return [k for k in range(len(node.parts)) if batches[0].results[node, k] is None]


def shared_loop(node: Node, batches: Sequence[Batch]) -> Node | None:
    """The loop that computes only the `shared_results`; None if there are none."""
    kept = shared_results(node, batches)
    if not kept:
        return None
    kinds, carried = kinds_of(node), node.attrs["carried"]
    alone = [k for k in kept if k < carried]  # type: ignore[operator]

    def some(values: Sequence[Node]) -> list[Node]:
        carries = values[kinds[1]]
        return [*values[kinds[0]], *(carries[k] for k in alone), *values[kinds[2]]]

    def part(body: Any, outputs: Sequence[Node]) -> Body:
        # A choice inside may compute values for the other results too, of carries that are gone.
        return Body(tidy_loops(Graph(body.graph.name, some(body.graph.inputs), outputs)))

    attrs: Any = dict(node.attrs)
    body = attrs["body"]
    attrs |= {"body": part(body, [body.graph.outputs[k] for k in kept]), "carried": len(alone)}
    if "test" in attrs:
        attrs["test"] = part(attrs["test"], attrs["test"].graph.outputs)
    return Builder().emit(node.op, *some(node.args), **attrs)


def _is_partial(node: Node, batches: Sequence[Batch]) -> bool:
    """Whether a result has some of the axes only."""
    return any(len({batch.results[node, k] is None for batch in batches}) > 1 for k in range(len(node.parts)))


def _along(node: Node, number: int, axis: int) -> Batch | None:
    """The batch that ``axis`` of a result is; None if elements meet along it."""
    extent = node.parts[number].shape[axis]
    search = _Search(node, extent).with_result((node, number), axis)
    for k, part in enumerate(node.parts):
        if search is None:
            return None
        if (node, k) not in search.results:
            first = 0 if k < node.attrs["carried"] else 1  # type: ignore[operator]
            places = [i for i, n in enumerate(part.shape) if n == extent and i >= first]
            tried = (search.with_result((node, k), place) for place in (*places, None))
            search = next((found for found in tried if found is not None), None)
    return None if search is None else Batch(extent, search.values, search.results)


class _Meet(Exception):
    """Elements of the batch meet."""


class _Search:
    """Where values have the axis, as far as it was followed."""

    def __init__(self, top: Node, extent: int, known: _Search | None = None) -> None:
        self.top = top
        self.extent = extent
        self.values: dict[Node, Place] = dict(known.values) if known else {}
        self.results: dict[Result, Place] = dict(known.results) if known else {}
        self.inputs: dict[Node, tuple[Node, int]] = dict(known.inputs) if known else {}
        """The loop or choice of an input of a body, and the number of the argument that it stands for."""
        self.entered: set[Node] = set(known.entered) if known else set()
        self.pending: list[tuple[Node, Place]] = []

    def with_result(self, result: Result, place: Place) -> _Search | None:
        """What follows where a result of the loop has the axis at ``place``; None if elements meet."""
        found = _Search(self.top, self.extent, self)
        try:
            found.result(result, place)
            while found.pending:
                found.value(*found.pending.pop())
        except _Meet:
            return None
        return found

    def enter(self, node: Node) -> None:
        """Say what the inputs of the bodies of a loop or a choice are."""
        self.entered.add(node)
        if node.op.name not in ("scan", "while", "cond") or any(
            part.record is not None for part in node.parts
        ):
            raise _Meet
        first = 1 if node.op.name == "cond" else 0
        for body in bodies(node):
            for at, x in enumerate(body.graph.inputs, first):
                if self.inputs.setdefault(x, (node, at)) != (node, at):  # two loops with one body
                    raise _Meet
        self.pending += [(x, None) for x in _asked(node)]

    def result(self, result: Result, place: Place) -> None:
        """A result of a loop or a choice is read along ``place``."""
        if result in self.results:
            if self.results[result] != place:
                raise _Meet
            return
        node, k = result
        if node not in self.entered:
            self.enter(node)
        self.results[result] = place
        if node.op.name == "cond":
            self.pending += [(branch.graph.outputs[k], place) for branch in bodies(node)]
            return
        body: Any = node.attrs["body"]
        if k >= node.attrs["carried"]:  # type: ignore[operator]
            if place == 0:
                raise _Meet
            self.pending.append((body.graph.outputs[k], None if place is None else place - 1))
            return
        self.pending.append((body.graph.outputs[k], place))
        if node is not self.top:
            self.pending.append((node.args[kinds_of(node)[1]][k], place))

    def value(self, node: Node, place: Place) -> None:
        """A value is read along ``place``."""
        owner, number = self.inputs.get(node, (None, 0))
        carries = range(0) if owner is None or owner.op.name == "cond" else _numbers(owner, 1)
        if owner is self.top and number not in carries:
            return  # in memory
        if node in self.values:
            if self.values[node] != place:
                raise _Meet
            return
        self.values[node] = place
        if owner is None:
            self.pending += self.read(node, place)
        elif number in carries:
            self.result((owner, number - carries.start), place)
        else:
            sliced = owner.op.name == "scan" and number in _numbers(owner, 2)
            self.pending.append((owner.args[number], place + 1 if sliced and place is not None else place))

    def read(self, node: Node, place: Place) -> list[tuple[Node, Place]]:
        """What an op reads to compute its elements, and where that has the axis."""
        lower, name = node.op.lower, node.op.name
        if name == "item":
            self.result((node.args[0], node.attrs["index"]), place)  # type: ignore[arg-type]
            return []
        if place is None or name == "iota":
            return [(arg, None) for arg in operands(node)]
        if isinstance(lower, Scalar):
            return [(arg, place) for arg in node.args]
        if isinstance(lower, Reduce):
            axes: Any = node.attrs["axes"]
            rest = [axis for axis in range(len(node.args[0].shape)) if axis not in axes]
            return [(node.args[0], rest[place])]
        if isinstance(lower, View):
            index = lower.index_map(node, own_index(node.shape))
            return [(node.args[0], self.moved(node.args[0], index, place))]
        return self.put_together(node, place)

    def put_together(self, node: Node, place: int) -> list[tuple[Node, Place]]:
        """The same of what moves elements other than by an index map."""
        if not node.args:  # a table that is known
            raise _Meet
        name, x = node.op.name, node.args[0]
        if name == "reshape":
            return [(x, self.reshaped(node, place))]
        if name == "gather":
            depth = len(node.args[1].shape)
            return [(arg, place if place < depth else None) for arg in node.args[1:]]
        if name in ("concatenate", "splice") and node.attrs["axis"] != place:
            return [(arg, place) for arg in node.args]
        if is_window(node) and x.shape[place] == self.extent:
            return [(x, place)]
        raise _Meet

    def moved(self, x: Node, index: Sequence[Affine[int]], place: int) -> Place:
        """Where the argument of a view has the axis that the view has at ``place``."""
        found = [i for i, at in enumerate(index) if at[place]]
        if not found:
            return None
        if len(found) > 1 or index[found[0]] != axis_index(place) or x.shape[found[0]] != self.extent:
            raise _Meet
        return found[0]

    def reshaped(self, node: Node, place: int) -> Place:
        """The same of a reshape: the axis of as many elements, as far apart."""
        step, inner = strides(node.shape)[place], node.args[0].shape
        for i, (n, other) in enumerate(zip(inner, strides(inner), strict=True)):
            if n == self.extent and other == step:
                return i
        raise _Meet


def _numbers(node: Node, kind: int) -> range:
    """The numbers of the constants, carries or slices among the arguments of a loop."""
    return range(*kinds_of(node)[kind].indices(len(node.args)))


def _asked(node: Node) -> list[Node]:
    """What decides how a loop or a choice goes on: that has to be the same for the whole batch."""
    if node.op.name == "cond":
        return [node.args[0]]
    test: Any = node.attrs.get("test")
    return [] if test is None else list(test.graph.outputs)
