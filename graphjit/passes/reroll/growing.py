"""Arrays that grow or shrink from step to step, in one size for all steps.

``x[i] = (b[i] - L[i, :i] @ x[:i]) / L[i, i]`` reads one element more in each step, so no two steps are equal.
Here they are made equal: a slice that grows becomes the whole axis, and known truth values (a *window*) say
which of its elements count. What is computed of it has that size too. Sums and products leave out what does
not count; a write changes only what counts. A list that grew by some values since the step before becomes an
array into which these are written. Where a changing array is read or written at places that move, the places
become known numbers of a ``gather`` or a ``scatter_set``.

Input: a builder's nodes. Output: nodes with the same values in a fresh builder, for `rolling` to look at.
Invariants: wherever something is computed of elements that do not count, they are copies: along each axis, of
the first that counts. So no two numbers meet that did not meet before, and derivatives do not see the copies.
Sums over the longer axis may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphjit.ir.batching import from_front
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Reduce, Scalar
from graphjit.ir.scalars import identity
from graphjit.ir.types import BOOL, I64
from graphjit.passes.reroll.places import Groups, Joined, Place, put, taken


@dataclass(frozen=True)
class Frame:
    """Where a value stands in a larger array: for each axis the size of that and the place of the first
    element there.
    """

    sizes: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]]) -> Frame:
        """From a size and a place for each axis."""
        return cls(tuple(size for size, _ in pairs), tuple(place for _, place in pairs))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """A size and a place for each axis."""
        return list(zip(self.sizes, self.places, strict=True))

    def wide(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The axes on which it is larger than the value."""
        return tuple(
            axis for axis, (size, own) in enumerate(zip(self.sizes, shape, strict=True)) if size != own
        )


@dataclass(frozen=True)
class Wide:
    """A value in its frame."""

    node: Node
    frame: Frame
    shape: tuple[int, ...]
    """Of the value alone."""
    clean: bool = False
    """Whether elements that do not count are copies, along each axis of the first that does."""


class Grown:
    """Nodes of one size in the place of nodes that grow."""

    def __init__(self, groups: Groups) -> None:
        self.b, self.groups = Builder(), groups
        self.exact: dict[Node, Node] = {}
        self.wide: dict[Node, Wide] = {}
        self.framed: dict[tuple[Node, Frame], Node | None] = {}
        self.buffers: dict[Joined, tuple[set[Node], Node]] = {}
        """By an array that gets values at once: those that were written into it, and what it is now."""
        self.rules = {
            "slice": self._slice,
            "concatenate": self._concatenate,
            "reshape": self._reshape,
            "transpose": self._transpose,
            "flip": self._flip,
            "contract": self._contract,
            "cumsum": self._running,
            "cumprod": self._running,
        }

    def add(self, node: Node) -> None:
        """The next node in the order of recording."""
        self.b.like(node)
        found = self._made(node)
        if found is not None:
            if found.frame.wide(found.shape):
                self.wide[node] = found
            else:
                self.exact[node] = found.node
        elif node.op.name != "broadcast_to" or node.args[0] not in self.wide:
            self.exact[node] = self.b.copy(node, tuple([self.now(arg) for arg in node.args]))
        # What is broadcast and stands in a frame is copied where that is asked for.

    def _made(self, node: Node) -> Wide | None:
        """By the rule for its op; None where that makes nothing of it."""
        rule = self.rules.get(node.op.name)
        if rule is not None:
            return rule(node)
        if isinstance(node.op.lower, Reduce):
            return self._reduce(node)
        return self._scalar(node) if isinstance(node.op.lower, Scalar) else None

    def now(self, node: Node) -> Node:
        """A node with the same value."""
        found = self.exact.get(node)
        if found is None:
            wide = self.wide.get(node)
            if wide is not None:
                found = self._cut(wide)
            elif node.op.name == "broadcast_to":
                found = self.b.copy(node, (self.now(node.args[0]),))
            else:
                found = node  # older than the loop
            self.exact[node] = found
        return found

    def _cut(self, wide: Wide) -> Node:
        limits = tuple(place + size for place, size in zip(wide.frame.places, wide.shape, strict=True))
        return self.b.slice(wide.node, starts=wide.frame.places, limits=limits, steps=(1,) * len(limits))

    # ------------------------------------------------------------------------------------------- in a frame

    def at(self, node: Node, frame: Frame) -> Node | None:
        """A value in a frame, what does not count filled with copies; None where that is not known."""
        key = node, frame
        if key not in self.framed:
            self.framed[key] = self._at(node, frame)
        return self.framed[key]

    def raw(self, node: Node, frame: Frame) -> Node | None:
        """The same, filled with anything."""
        wide = self.wide.get(node)
        return wide.node if wide is not None and wide.frame == frame else self.at(node, frame)

    def _at(self, node: Node, frame: Frame) -> Node | None:
        axes = frame.wide(node.shape)
        if not axes:
            return self.now(node)
        wide = self.wide.get(node)
        if wide is not None:
            return self._moved(self.clean(wide), wide.frame, frame, node.shape)
        if node.op.name == "broadcast_to":
            return self._broadcast(node, frame)
        if node.is_const:
            known: Any = node.attrs["value"]
            array = known.array
            for axis in axes:
                array = array.take(_copied(frame, node.shape, axis), axis)
            return self.b.const(array, node.dtype)
        if isinstance(node.op.lower, Scalar) and node.args:
            args = [self.at(arg, frame) for arg in node.args]
            if None not in args:
                return self.b.emit(node.op, *args, **node.attrs)  # type: ignore[arg-type]
        return None

    def _moved(self, x: Node, own: Frame, wanted: Frame, shape: tuple[int, ...]) -> Node | None:
        """From one frame to another."""
        for axis, (here, there) in enumerate(zip(own.pairs, wanted.pairs, strict=True)):
            if here != there:
                places = self.b.const(_copied(wanted, shape, axis) + own.places[axis], I64)
                x = from_front(self.b, self.b.gather(x, places, axes=(axis,)), axis)
        return x

    def _broadcast(self, node: Node, frame: Frame) -> Node | None:
        (inner,) = node.args
        lead = len(node.shape) - len(inner.shape)
        pairs = [
            (1, 0) if size == 1 else pair for size, pair in zip(inner.shape, frame.pairs[lead:], strict=True)
        ]
        x = self.at(inner, Frame.of(pairs))
        return None if x is None else self.b.broadcast_to(x, shape=frame.sizes)

    def clean(self, wide: Wide) -> Node:
        """The array, with copies where an element does not count."""
        if wide.clean:
            return wide.node
        frame, x = wide.frame, wide.node
        for axis in frame.wide(wide.shape):
            first = taken(self.b, x, (axis,), frame.places, (1,) * len(frame.places))
            copies = self.b.broadcast_to(self.b.stop_gradient(first), shape=frame.sizes)
            x = self.b.select(self._window(frame, wide.shape, axis), x, copies)
        return x

    def _masked(self, wide: Wide, axes: Sequence[int], other: Node) -> Node:
        """The array, with the elements of another one where one does not count along ``axes``."""
        x = wide.node
        for axis in axes:
            count = self._window(wide.frame, wide.shape, axis)
            x = self.b.select(count, x, other)
        return x

    def _window(self, frame: Frame, shape: tuple[int, ...], axis: int) -> Node:
        """Which elements count along an axis."""
        number = np.arange(frame.sizes[axis]) - frame.places[axis]
        known = self.b.const((number >= 0) & (number < shape[axis]), BOOL)
        column = self.b.reshape(known, shape=(len(number), *(1 for _ in frame.sizes[axis + 1 :])))
        return self.b.broadcast_to(column, shape=frame.sizes)

    def _neutral(self, wide: Wide, axes: Sequence[int], combine: str) -> Node:
        """The array without effect on a reduction where an element does not count along some of ``axes``."""
        axes = [axis for axis in wide.frame.wide(wide.shape) if axis in axes]
        neutral: Any = identity(combine, wide.node.dtype)
        return self._masked(wide, axes, self.b.full(neutral, wide.node.type))

    # ------------------------------------------------------------------------------------------------ rules

    def _scalar(self, node: Node) -> Wide | None:
        place = self._write(node)
        if place is not None:
            return self._written(node, place)
        known = [self.wide[arg] for arg in node.args if arg in self.wide]
        if not known:
            return None
        frame = known[0].frame
        args = [self.at(arg, frame) for arg in node.args]
        if None in args:
            return None
        return Wide(self.b.emit(node.op, *args, **node.attrs), frame, node.shape, clean=True)  # type: ignore[arg-type]

    def _reduce(self, node: Node) -> Wide | None:
        wide = self.wide.get(node.args[0])
        if wide is None or not isinstance(node.op.lower, Reduce):
            return None
        axes: Any = node.attrs["axes"]
        x = self._neutral(wide, axes, node.op.lower.combine)
        found = self.b.emit(node.op, x, **node.attrs)
        rest = [pair for axis, pair in enumerate(wide.frame.pairs) if axis not in axes]
        return Wide(found, Frame.of(rest), node.shape)

    def _running(self, node: Node) -> Wide | None:
        wide = self.wide.get(node.args[0])
        if wide is None:
            return None
        axis: Any = node.attrs["axis"]
        x = self._neutral(wide, (axis,), "add" if node.op.name == "cumsum" else "mul")
        return Wide(self.b.emit(node.op, x, **node.attrs), wide.frame, node.shape)

    def _contract(self, node: Node) -> Wide | None:
        if not any(arg in self.wide for arg in node.args):
            return None
        pairs: Any = node.attrs["contract"]
        batch: Any = node.attrs["batch"]
        sides = [self.wide.get(arg) or self._whole(arg) for arg in node.args]
        one, two = [side.frame.pairs for side in sides]
        for first, second in (*zip(*pairs, strict=True), *zip(*batch, strict=True)):
            if one[first][0] == sides[0].shape[first]:
                one[first] = two[second]
            two[second] = one[first]
        args, rest = [], [one[axis] for axis in batch[0]]
        for arg, places, summed, shared in zip(node.args, (one, two), pairs, batch, strict=True):
            x = self.raw(arg, Frame.of(places))
            if x is None:
                return None
            args.append(self._neutral(Wide(x, Frame.of(places), arg.shape), summed, "add"))
            rest += [pair for axis, pair in enumerate(places) if axis not in (*summed, *shared)]
        return Wide(self.b.contract(*args, contract=pairs, batch=batch), Frame.of(rest), node.shape)

    def _whole(self, node: Node) -> Wide:
        return Wide(self.now(node), Frame(node.shape, (0,) * len(node.shape)), node.shape, clean=True)

    def _reshape(self, node: Node) -> Wide | None:
        """Axes of length 1 come or go."""
        wide = self.wide.get(node.args[0])
        if wide is None:
            return None
        pairs = [pair for pair, own in zip(wide.frame.pairs, wide.shape, strict=True) if own != 1]
        if [n for n in node.shape if n != 1] != [n for n in wide.shape if n != 1]:
            return None
        if any(own == 1 and size != 1 for own, size in zip(wide.shape, wide.frame.sizes, strict=True)):
            return None
        rest = iter(pairs)
        frame = Frame.of([(1, 0) if n == 1 else next(rest) for n in node.shape])
        return replace(wide, node=self.b.reshape(wide.node, shape=frame.sizes), frame=frame, shape=node.shape)

    def _transpose(self, node: Node) -> Wide | None:
        wide = self.wide.get(node.args[0])
        if wide is None:
            return None
        perm: Any = node.attrs["perm"]
        frame = Frame.of([wide.frame.pairs[axis] for axis in perm])
        return replace(wide, node=self.b.transpose(wide.node, perm=perm), frame=frame, shape=node.shape)

    def _flip(self, node: Node) -> Wide | None:
        wide = self.wide.get(node.args[0])
        if wide is None:
            return None
        axes: Any = node.attrs["axes"]
        pairs = wide.frame.pairs
        for axis in axes:
            size, place = pairs[axis]
            pairs[axis] = size, size - place - wide.shape[axis]
        # What were copies of the first element are now copies of the last.
        return Wide(self.b.flip(wide.node, axes=axes), Frame.of(pairs), node.shape)

    # -------------------------------------------------------------------------------------- slices and writes

    def _slice(self, node: Node) -> Wide | None:
        place = self.groups.places.get(node)
        (base,) = node.args
        wide = self.wide.get(base)
        if wide is None:
            if place is None:
                return None
            wide = self._whole(base)
        elif place is None:
            place = self.groups.place(node)
            if place is None:
                return None
        starts = [own + first for own, first in zip(wide.frame.places, place.starts, strict=True)]
        grows, moves = place.grows, list(place.moves)
        for axis in wide.frame.wide(wide.shape):
            if axis not in grows and axis not in moves:
                moves.append(axis)  # its place in the array moves with what that is a part of
        x = taken(self.b, wide.node, moves, starts, place.sizes)
        still = [k for k in range(len(starts)) if k not in grows and k not in moves]
        x = self._kept(x, still, starts, place.sizes)
        return Wide(x, _frame_of(place, wide, starts), node.shape)

    def _kept(self, x: Node, axes: Sequence[int], starts: Sequence[int], sizes: Sequence[int]) -> Node:
        """The part of an array along some axes."""
        low = tuple(starts[k] if k in axes else 0 for k in range(len(x.shape)))
        high = tuple(starts[k] + sizes[k] if k in axes else n for k, n in enumerate(x.shape))
        return self.b.slice(x, starts=low, limits=high, steps=(1,) * len(low))

    def _write(self, node: Node) -> Place | None:
        """Where a node writes, if that moves or grows, or what it writes into is there in a frame."""
        place = self.groups.place(node)
        if place is None or place.piece is None:
            return None
        return self.groups.places.get(node) or (place if place.base in self.wide else None)

    def _written(self, node: Node, place: Place) -> Wide | None:
        """An array with a part of it written anew."""
        assert place.piece is not None
        wide = self.wide.get(place.base) or self._whole(place.base)
        starts = [own + first for own, first in zip(wide.frame.places, place.starts, strict=True)]
        moves = [
            k for k in range(len(starts)) if k not in place.grows and place.sizes[k] != wide.frame.sizes[k]
        ]
        rows = taken(self.b, wide.node, moves, starts, place.sizes)
        frame = _frame_of(place, wide, starts)
        piece = self.raw(place.piece, frame)
        if piece is None:
            return None
        new = self._masked(Wide(piece, frame, place.piece.shape), frame.wide(place.piece.shape), rows)
        found = put(self.b, wide.node, new, moves, starts, place.sizes)
        return Wide(found, wide.frame, node.shape)

    def _concatenate(self, node: Node) -> Wide | None:
        place = self._write(node)
        if place is not None:
            return self._written(node, place)
        joined = self.groups.joined_by(node)
        return None if joined is None else self._joined(node, joined)

    def _joined(self, node: Node, joined: Joined) -> Wide | None:
        """Values that an array gets at once, but that are read before: it gets them one by one."""
        first, axis = joined.place(node.args), joined.axis
        if first is None or node.attrs["axis"] != axis:
            return None
        pieces = dict.fromkeys(arg for arg in node.args if arg in joined.pieces)
        if joined not in self.buffers:
            start = self.b.full(0, joined.type) if joined.base is None else self.now(joined.base)
            self.buffers[joined] = set(), start
        known, x = self.buffers[joined]
        for arg in pieces:
            if arg not in known:
                starts = tuple(joined.pieces[arg] if k == axis else 0 for k in range(len(arg.shape)))
                x = put(self.b, x, self.now(arg), (axis,), starts, arg.shape)
        self.buffers[joined] = known | set(pieces), x
        places = [(n, 0) for n in x.shape]
        places[axis] = x.shape[axis], first
        return Wide(x, Frame.of(places), node.shape)


def _copied(frame: Frame, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """For each place along an axis of a frame the number of the element that stands or is copied there."""
    number = np.arange(frame.sizes[axis]) - frame.places[axis]
    return np.where((number >= 0) & (number < shape[axis]), number, 0)


def _frame_of(place: Place, wide: Wide, starts: Sequence[int]) -> Frame:
    """The frame of a part that begins at ``starts`` in the frame of the array that it is a part of."""
    sizes = wide.frame.sizes
    return Frame.of(
        [(sizes[k], starts[k]) if k in place.grows else (n, 0) for k, n in enumerate(place.sizes)]
    )


def grown(order: Sequence[Node], since: int, roots: Sequence[Node]) -> tuple[Builder, list[Node]] | None:
    """What stands for ``roots`` after all that grows in ``order`` got one size; None where nothing grows.
    Nodes older than ``since`` are left.
    """
    groups = Groups(order, since)
    if not groups.places and not groups.joined:
        return None
    made = Grown(groups)
    for node in order:
        if node.serial >= since and (node.args or node.is_const):
            made.add(node)
    return made.b, [made.now(root) for root in roots]
