"""Where slices and writes of a recorded graph lie, and how they move and grow from step to step.

Slices made at one place in the code are a group; so are writes. Along an axis a group *grows* if its slices
have ever other lengths, and *moves* if they have one length and lie at ever other places of an array that
changes. (Slices of one array that stays are no matter: `stacks` reads them element by element.)

Input: nodes in the order of recording. Output: a `Place` for each slice and each write of a group that grows
or moves; and the same reads and writes at places that are known numbers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.patterns import splat
from graphjit.ir.types import I64, Type
from graphjit.passes.reroll.recording import STEPS


@dataclass(frozen=True)
class Place:
    """A part of an array that is read or written."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    base: Node
    """The array."""
    piece: Node | None = None
    """What is written."""
    grows: tuple[int, ...] = ()
    """Axes on which parts made at the same place in the code have ever other lengths."""
    moves: tuple[int, ...] = ()
    """Others, on which they lie at ever other places of an array that changes."""


class Groups:
    """The places of slices and writes, and the lists that grow."""

    def __init__(self, order: Sequence[Node], since: int) -> None:
        self.places: dict[Node, Place] = {}
        """Those of groups that grow or move."""
        self._known: dict[Node, Place | None] = {}
        self.joined: dict[Node, Joined] = {}
        """By each value that an array gets with others at once: that array."""
        groups: dict[Hashable, list[Node]] = {}
        for node in order:
            if node.op.name in _PARTS and node.serial >= since:
                groups.setdefault((node.op, id(node.loc), len(node.shape)), []).append(node)
        for members in groups.values():
            if members[0].op.name == "concatenate":
                self._add_lists(members)
            if _may_vary(members):
                self._add_parts(members)
        written = {node for node, place in self.places.items() if place.piece is not None}
        for node in order if written else ():
            place = self.place(node) if node.op.name in ("select", "concatenate") else None
            if place is not None and place.base in written:  # single writes too
                self.places.setdefault(node, place)

    def place(self, node: Node) -> Place | None:
        """The part of an array that a node reads or writes, whether it grows or not."""
        if node not in self._known:
            self._known[node] = _place(node)
        return self._known[node]

    def _add_parts(self, nodes: Sequence[Node]) -> None:
        """Parts made at one place in the code, in groups of those with the same ends. A group that grows or
        moves takes in what is like it: the first and the last steps may have other ends.
        """
        alike: dict[Hashable, list[Place]] = {}
        for node in nodes:
            place = self.place(node)
            if place is not None:
                alike.setdefault(_ends(place), []).append(place)
        kinds = [kind for places in alike.values() if (kind := _kind(places)) is not None]
        for node in nodes if kinds else ():
            place = self.place(node)
            kind = next((kind for kind in kinds if place is not None and kind.takes(place)), None)
            if place is not None and kind is not None:
                self.places[node] = replace(place, grows=kind.grows, moves=kind.moves)

    def _add_lists(self, lists: Sequence[Node]) -> None:
        """Lists made at one place in the code: if they grow, they are parts of an array that gets the same
        values later, or of a longer one.
        """
        if len({node.shape for node in lists}) < STEPS:
            return
        for node in sorted(lists, key=lambda node: -node.type.size):
            if self.joined_by(node) is None:
                joined = Joined.of(node) or Joined.of_parts(node, None)
                if joined is not None:
                    self.joined.update(dict.fromkeys(joined.pieces, joined))

    def joined_by(self, node: Node) -> Joined | None:
        """The array that gets the values of a list."""
        return self.joined.get(node.args[0]) or self.joined.get(node.args[-1])


_PARTS = frozenset({"slice", "select", "concatenate"})


def _may_vary(nodes: Sequence[Node]) -> bool:
    """Whether so many nodes may be parts that grow, or that move in an array that changes."""
    if len(nodes) < STEPS:
        return False
    if nodes[0].op.name != "slice":
        return True
    if len({node.shape for node in nodes}) >= STEPS:
        return True
    many = [len({node.args[0] for node in nodes}), len({node.attrs["starts"] for node in nodes})]
    return min(many) >= STEPS


def _place(node: Node) -> Place | None:
    """Which part of an array a node reads or writes."""
    name = node.op.name
    if name == "slice":
        return _box(node, node.attrs["starts"], node.shape, node.attrs["steps"], node.args[0])
    if name == "select":
        mask, part, base = node.args
        if mask.op.name == part.op.name == "embed" and mask.attrs == part.attrs and splat(mask.args[0]):
            (piece,) = part.args
            return _box(node, part.attrs["starts"], piece.shape, part.attrs["steps"], base, piece)
    return _replaced(node) if name == "concatenate" else None


def _ends(place: Place) -> Hashable:
    """On which axes a part has the first and the last elements. It tells slices apart that are made at one
    place in the code: views are read where they are used.
    """
    shape = place.base.shape
    return tuple((s == 0, s + n == all_) for s, n, all_ in zip(place.starts, place.sizes, shape, strict=True))


def _box(
    node: Node, starts: object, sizes: tuple[int, ...], steps: object, base: Node, piece: Node | None = None
) -> Place | None:
    if steps != (1,) * len(sizes):
        return None
    return Place(tuple(starts), sizes, base, piece)  # type: ignore[arg-type]


def _replaced(node: Node) -> Place | None:
    """A concatenation of a value and of what lies before and behind it in an array."""
    whole = Joined.of(node)
    if whole is None or whole.base is None or len(whole.pieces) != 1:
        return None
    ((piece, first),) = whole.pieces.items()
    starts = tuple(first if k == whole.axis else 0 for k in range(len(node.shape)))
    return Place(starts, piece.shape, whole.base, piece)


@dataclass(frozen=True, eq=False)
class Joined:
    """A concatenation of values and of what lies between them in an array."""

    type: Type
    base: Node | None
    """The array; None where there is none."""
    axis: int
    pieces: dict[Node, int]
    """Where each value begins."""

    def place(self, parts: Sequence[Node]) -> int | None:
        """Where these values, one behind the other, begin in the array; None where they are not there."""
        axis, rank = self.axis, len(self.type.shape)
        first = self.pieces.get(parts[0])
        if first is None:
            first = parts[0].attrs["starts"][axis] if parts[0].op.name == "slice" else 0  # type: ignore[index]
        at: int = first
        for part in parts:
            starts = tuple(at if k == axis else 0 for k in range(rank))
            if self.pieces.get(part) != at and not _is_part(part, self.base, starts):
                return None
            at += part.shape[axis]
        return first

    @classmethod
    def of(cls, node: Node) -> Joined | None:
        """What a concatenation joins; None where nothing of an array is left."""
        for arg in (node.args[0], node.args[-1]):
            if arg.op.name == "slice" and arg.args[0].type == node.type:
                return cls.of_parts(node, arg.args[0])
        return None

    @classmethod
    def of_parts(cls, node: Node, base: Node | None) -> Joined | None:
        """What a concatenation joins with parts of ``base``; None where one value comes twice."""
        axis: int = node.attrs["axis"]  # type: ignore[assignment]
        pieces: dict[Node, int] = {}
        first = 0
        for arg in node.args:
            starts = tuple(first if k == axis else 0 for k in range(len(node.shape)))
            if not _is_part(arg, base, starts):
                if arg in pieces:
                    return None
                pieces[arg] = first
            first += arg.shape[axis]
        return cls(node.type, base, axis, pieces)  # type: ignore[arg-type]


def _is_part(x: Node, base: Node | None, starts: tuple[int, ...]) -> bool:
    """Whether ``x`` is the part of an array that begins there."""
    if x.op.name != "slice" or x.args[0] is not base:
        return False
    return x.attrs["starts"] == starts and x.attrs["steps"] == (1,) * len(starts)


@dataclass(frozen=True)
class _Kind:
    """How the parts of a group lie."""

    grows: tuple[int, ...]
    moves: tuple[int, ...]
    usual: dict[int, int]
    """Their length on the axes on which they do not grow."""

    def takes(self, place: Place) -> bool:
        """Whether a part is one of the group."""
        sizes = place.sizes
        return all(sizes[k] == n for k, n in self.usual.items()) and all(sizes[k] > 1 for k in self.grows)


def _kind(places: Sequence[Place]) -> _Kind | None:
    """How parts lie that grow or move; None where they do neither."""
    if len(places) < STEPS:
        return None
    starts = np.array([place.starts for place in places])
    sizes = np.array([place.sizes for place in places])
    axes = range(starts.shape[1])
    grows = tuple(k for k in axes if len(np.unique(sizes[:, k])) >= STEPS)
    changes = len({place.base for place in places}) >= STEPS
    moves = tuple(k for k in axes if k not in grows and changes and len(np.unique(starts[:, k])) >= STEPS)
    if not grows and not moves:
        return None
    usual = {k: int(np.bincount(sizes[:, k]).argmax()) for k in axes if k not in grows}
    return _Kind(grows, moves, usual)


# --------------------------------------------------------------------------------- places as known numbers


def taken(b: Builder, x: Node, axes: Sequence[int], starts: Sequence[int], sizes: Sequence[int]) -> Node:
    """The part of ``x`` that begins at ``starts`` along ``axes`` and is so long there."""
    if not axes:
        return x
    if all(sizes[k] == 1 for k in axes):
        found = b.gather(x, *(b.const(starts[k], I64) for k in axes), axes=tuple(axes))
        return b.reshape(found, shape=tuple(1 if k in axes else n for k, n in enumerate(x.shape)))
    found = b.gather(x, *_grid(b, axes, starts, sizes), axes=tuple(axes))
    return b.transpose(found, perm=tuple(np.argsort(_in_front(axes, x)).tolist()))


def put(
    b: Builder, x: Node, part: Node, axes: Sequence[int], starts: Sequence[int], sizes: Sequence[int]
) -> Node:
    """``x`` with that part replaced."""
    if not axes:
        return part
    if all(sizes[k] == 1 for k in axes):
        rows = b.reshape(part, shape=tuple(n for k, n in enumerate(x.shape) if k not in axes))
        return b.scatter_set(x, rows, *(b.const(starts[k], I64) for k in axes), axes=tuple(axes))
    rows = b.transpose(part, perm=_in_front(axes, x))
    return b.scatter_set(x, rows, *_grid(b, axes, starts, sizes), axes=tuple(axes))


def _grid(b: Builder, axes: Sequence[int], starts: Sequence[int], sizes: Sequence[int]) -> list[Node]:
    """Places along each axis of all elements of a part."""
    grid = np.indices([sizes[k] for k in axes])
    return [b.const(place + starts[k], I64) for place, k in zip(grid, axes, strict=True)]


def _in_front(axes: Sequence[int], x: Node) -> tuple[int, ...]:
    """All axes, with those in front that are indexed."""
    return (*axes, *(k for k in range(len(x.shape)) if k not in axes))
