"""Elements that the steps of a loop pick by their number become slices, and what they write is stacked.

``for t in range(n): h[t + 1] = f(h[t], x[t])`` reads and writes places that are known for every step. As a
`scan` says it best, step t gets element t of ``x``; what the step before wrote is handed on; and what the
steps write is stacked, and put in its place after the loop. Nothing is looked for, no array is changed in
every step, and derivatives see slices instead of places.

Input: a `scan` that was just recorded, taken apart. Output: another one, and what makes the results of the
first of its results.
Invariants: the same values. A place that the loop would have to check stays a place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node, reachable, users
from graphjit.ir.opdef import Scalar
from graphjit.ir.types import I64
from graphjit.transforms.control.loops import Loop, Parts, elements
from graphjit.transforms.substitute import substitute

BACK = 8
"""Steps before this one whose writes may be read."""

Results = Callable[[Sequence[Node]], list[Node]]
"""The results of a loop, of those of the loop that it has become."""


class Walk(NamedTuple):
    """The places of an array that the steps go to: ``start``, ``start + step``, ..., along an axis."""

    axis: int
    start: int
    step: int
    length: int

    @property
    def numbers(self) -> np.ndarray:
        """All of them."""
        return self.start + self.step * np.arange(self.length)


def walked(
    b: Builder, loop: Loop, numbers: Sequence[np.ndarray | None], stays: Callable[[Node], bool]
) -> tuple[Loop, Results]:
    """``loop`` with slices in the place of positions. ``numbers`` are the values of its arrays of integers,
    where they are known; single elements of arrays that ``stays`` holds for are left alone.
    """
    known = {
        x: array
        for x, array in zip(loop.inputs.slices, numbers, strict=True)
        if array is not None and array.ndim == 1
    }
    nodes = _nodes(loop)
    if not known or not any(node.op.name in ("gather", "scatter_set") for node in nodes):
        return loop, list
    places = _Places(dict(known), loop.length)
    written = {
        k: found
        for k in range(len(loop.after) if not loop.reverse else 0)
        if (found := _written(loop, nodes, k, places, stays)) is not None
    }
    loop, results = _stacked(b, loop, written)
    return _sliced(b, loop, places, stays), results


def _nodes(loop: Loop) -> list[Node]:
    """What a step computes, in order."""
    return sorted(reachable(loop.roots), key=lambda node: node.serial)


@dataclass
class _Places:
    """The positions that nodes of a body have in all steps."""

    known: dict[Node, np.ndarray | None]
    length: int

    def of(self, node: Node) -> np.ndarray | None:
        """The numbers of an integer in all steps; None: they depend on more than the number of the step."""
        if node not in self.known:
            self.known[node] = None
            if node.dtype == I64 and not node.shape:
                if node.is_const:
                    value: Any = node.attrs["value"]
                    self.known[node] = np.full(self.length, value.array)
                elif isinstance(node.op.lower, Scalar) and node.op.name != "require":
                    args = [self.of(arg) for arg in node.args]
                    if all(arg is not None for arg in args):
                        self.known[node] = node.op.impl(*args, **node.attrs)
        return self.known[node]

    def walk(
        self, x: Node, indices: Sequence[Node], axes: Sequence[int], from_end: bool = True
    ) -> Walk | None:
        """Where the steps go in ``x``; None where that is not a walk along one axis. ``from_end``: places may
        be counted from the end.
        """
        if len(axes) != 1 or indices[0].shape:
            return None
        found, size = self.of(indices[0]), x.shape[axes[0]]
        if found is None or found.min() < (-size if from_end else 0) or found.max() >= size:
            return None
        found = found % size
        step = int(found[1] - found[0]) if len(found) > 1 else 1
        if step == 0 or (np.diff(found) != step).any():
            return None
        return Walk(axes[0], int(found[0]), step, len(found))


def _axes(node: Node) -> Any:
    return node.attrs["axes"]


def _part(b: Builder, x: Node, walk: Walk) -> Node:
    """The elements that a walk goes to, stacked."""
    last = walk.start + walk.step * (walk.length - 1)
    low, high = min(walk.start, last), max(walk.start, last)
    found, ndim = elements(b, x, low, high + 1, walk.axis, abs(walk.step)), len(x.shape)
    if walk.step < 0:
        found = b.flip(found, axes=(walk.axis,))
    return b.transpose(found, perm=(walk.axis, *(i for i in range(ndim) if i != walk.axis)))


def _sliced(b: Builder, loop: Loop, places: _Places, stays: Callable[[Node], bool]) -> Loop:
    """``loop`` that gets the elements of arrays from outside instead of picking them."""
    outside = dict(zip(loop.inputs.constants, loop.args.constants, strict=True))
    arrays: list[Node] = []
    new: dict[Node, Node] = {}
    for node in _nodes(loop):
        if node.op.name != "gather" or node.args[0] not in outside:
            continue
        x = outside[node.args[0]]
        walk = places.walk(x, node.args[1:], _axes(node))
        if walk is not None and not (node.type.size == 1 and stays(x)):
            arrays.append(_part(b, x, walk))
            new[node] = b.input(node.type, "x")
    joined = replace(
        loop,
        args=loop.args.joined(Parts([], [], arrays)),
        inputs=loop.inputs.joined(Parts([], [], list(new.values()))),
    )
    return joined.with_roots(substitute(b, loop.roots, new))


# ---------------------------------------------------------------------------------------------------- writes


@dataclass
class _Written:
    """An array of which each step writes one element: where, what, and which elements it reads."""

    walk: Walk
    value: Node
    before: dict[Node, int] = field(default_factory=dict)
    """What reads an element that a step before wrote: how many steps before."""
    now: dict[Node, Node] = field(default_factory=dict)
    """What reads an element that this step wrote: what it wrote."""
    later: dict[Node, Walk] = field(default_factory=dict)
    """What reads elements that were not written yet: which."""


def _written(
    loop: Loop, nodes: Sequence[Node], k: int, places: _Places, stays: Callable[[Node], bool]
) -> _Written | None:
    """What the steps do with a carry, if all they do is to write one element and to read some."""
    x = loop.inputs.carries[k]
    versions = _versions(x, loop.after[k])
    if len(versions) < 2:
        return None
    walks = {places.walk(x, version.args[2:], _axes(version), False) for version in versions[:-1]}
    walk = walks.pop() if len(walks) == 1 else None
    if walk is None or (versions[0].args[1].type.size == 1 and stays(loop.args.carries[k])):
        return None
    if [root for root in loop.roots if root in versions] != [versions[0]]:
        return None
    readers = users(nodes)
    found = _Written(walk, versions[0].args[1])
    for following, version in zip([None, *versions], versions, strict=False):
        written = None if version is x else version.args[1]
        for node in readers.get(version, []):
            alone = node.args.count(version) == 1 and node.args[0] is version
            if not alone or (node is not following and not _reads(found, node, written, places)):
                return None
    return found


def _versions(x: Node, after: Node) -> list[Node]:
    """What single writes make of an array, the last first; nothing where it is made of something else."""
    found = [after]
    while found[-1] is not x:
        if found[-1].op.name != "scatter_set":
            return []
        found.append(found[-1].args[0])
    return found


def _reads(found: _Written, node: Node, written: Node | None, places: _Places) -> bool:
    """Note what a step reads of an array that it writes, after it has ``written`` something there. False: it
    is not known.
    """
    walk = found.walk
    if node.op.name != "gather":
        return False
    size = node.args[0].shape[walk.axis]
    if tuple(_axes(node)) != (walk.axis,) or node.args[1].shape:
        return False
    numbers = places.of(node.args[1])
    if numbers is None or numbers.min() < -size or numbers.max() >= size:
        return False
    behind = (walk.start + walk.step * np.arange(walk.length)) - numbers
    if len(set(behind.tolist())) != 1 or behind[0] % walk.step:
        return False
    steps = int(behind[0]) // walk.step
    if written is not None and steps == 0:
        found.now[node] = written
        return True
    if steps <= 0:
        straight = Walk(walk.axis, int(numbers[0]), walk.step, walk.length)
        if straight.numbers.min() < 0:
            return False
        found.later[node] = straight
        return True
    first = (walk.start - walk.step * np.arange(1, steps + 1)) % size
    if steps > BACK or any(
        first[steps - 1 - t] in walk.numbers[:t] % size for t in range(min(steps, walk.length))
    ):
        return False
    found.before[node] = steps
    return True


def _stacked(b: Builder, loop: Loop, written: dict[int, _Written]) -> tuple[Loop, Results]:
    """``loop`` that stacks what it writes into these carries."""
    if not written:
        return loop, list
    new: dict[Node, Node] = {}
    arrays, slices = [], []
    starts, handed, after = [], [], []
    for k, found in written.items():
        origin, walk, value = loop.args.carries[k], found.walk, found.value
        for node, places in found.later.items():
            arrays.append(_part(b, origin, places))
            slices.append(b.input(node.type, "x"))
            new[node] = slices[-1]
        back = max(found.before.values(), default=0)
        queue = [b.input(value.type, "before") for _ in range(back)]
        for j in range(1, back + 1):
            place = (walk.start - walk.step * j) % origin.shape[walk.axis]
            row = _part(b, origin, Walk(walk.axis, place, 1, 1))
            starts.append(b.reshape(row, shape=value.shape))
        handed += queue
        after += [value, *queue[:-1]] if queue else []
        new |= found.now | {node: queue[steps - 1] for node, steps in found.before.items()}
    kept = [k for k in range(len(loop.after)) if k not in written]
    made = [*loop.made, *(found.value for found in written.values())]
    changed = replace(
        loop,
        args=Parts(
            loop.args.constants,
            [*(loop.args.carries[k] for k in kept), *starts],
            [*loop.args.slices, *arrays],
        ),
        inputs=Parts(
            loop.inputs.constants,
            [*(loop.inputs.carries[k] for k in kept), *handed],
            [*loop.inputs.slices, *slices],
        ),
        after=[*(loop.after[k] for k in kept), *after],
        made=made,
    )
    changed = changed.with_roots(_resolved(b, changed.roots, new))
    number, first = {k: i for i, k in enumerate(kept)}, len(kept) + len(starts)

    def results(values: Sequence[Node]) -> list[Node]:
        stacks = iter(values[first + len(loop.made) :])
        carries = [
            values[number[k]]
            if k in number
            else _placed(b, loop.args.carries[k], written[k].walk, next(stacks))
            for k in range(len(loop.after))
        ]
        return [*carries, *values[first : first + len(loop.made)]]

    return changed, results


def _resolved(b: Builder, roots: Sequence[Node], new: dict[Node, Node]) -> list[Node]:
    """``roots`` with what is read replaced. What was written in the same step may depend on other reads."""
    values = {node: x for node, x in new.items() if x.op.name != "input"}
    found = list(roots)
    for _ in values:
        found = substitute(b, found, values)
    return substitute(b, found, {node: x for node, x in new.items() if x.op.name == "input"})


def _placed(b: Builder, origin: Node, walk: Walk, stack: Node) -> Node:
    """``origin`` with a stack of elements in the places of a walk."""
    ndim = len(origin.shape)
    order = (*range(1, walk.axis + 1), 0, *range(walk.axis + 1, ndim))
    if walk.step == 1 or walk.length == 1:
        part = b.transpose(stack, perm=order)
        stop, size = walk.start + walk.length, origin.shape[walk.axis]
        pieces = [part]
        if walk.start:
            pieces.insert(0, elements(b, origin, 0, walk.start, walk.axis))
        if stop < size:
            pieces.append(elements(b, origin, stop, size, walk.axis))
        return b.concatenate(*pieces, axis=walk.axis) if len(pieces) > 1 else part
    return b.scatter_set(origin, stack, b.const(walk.numbers, I64), axes=(walk.axis,))
