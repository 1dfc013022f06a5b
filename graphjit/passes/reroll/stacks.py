"""One array of values that differ from step to step: what a loop reads element by element.

Values that are parts of one array become a part of it, with strides where they lie regularly; known numbers
become a known array. Nothing large is copied together.

Input: a builder, nodes of one type. Output: a node with one more axis in front.
Invariant: element ``t`` of the stack is value ``t``; where that would need a copy of more than `COPIED`
bytes, or of very many pieces, there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.types import I64

COPIED = 1 << 16
"""Bytes up to which values are put together that are no parts of one array."""
PIECES = 8
"""Values, or stretches of parts of one array, that are put together at most: more would mean that what
comes before the loop is no loop.
"""
KNOWN = 1 << 22
"""Bytes of known numbers in one array at most."""
INDICES = 1 << 20
"""Positions in an index array at most."""
STRIPPED = frozenset({"slice", "reshape", "broadcast_to", "transpose", "flip"})


def stripped(nodes: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """What lies below views that all nodes have in common, and the views of the first one, the last first."""
    views: list[Node] = []
    while True:
        first = nodes[0]
        alike = first.op.name in STRIPPED and all(
            node.op is first.op and node.attrs == first.attrs and node.args[0].type == first.args[0].type
            for node in nodes
        )
        if not alike:
            return list(nodes), views
        views.append(first)
        nodes = [node.args[0] for node in nodes]


def stack(b: Builder, nodes: Sequence[Node]) -> Node | None:
    """The stack of nodes of one type; None where there is none."""
    first = nodes[0]
    if all(node is first for node in nodes):
        return b.broadcast_to(first, shape=(len(nodes), *first.shape))
    below, views = stripped(nodes)
    found = _of_constants(b, below) or _of_slices(b, below)
    if found is not None:
        for view in reversed(views):
            found = over_axis(b, view, found)
        return found
    return _of_groups(b, nodes)


def window_of(node: Node) -> tuple[int, int] | None:
    """Where the one stretch of true values begins and ends in a known row of truth values."""
    if not node.is_const or node.dtype.kind != "b" or len(node.shape) != 1:
        return None
    value: Any = node.attrs["value"]
    there = np.flatnonzero(value.array)
    if not len(there) or there[-1] - there[0] + 1 != len(there):
        return None
    return int(there[0]), int(there[-1]) + 1


def over_axis(b: Builder, view: Node, x: Node) -> Node:
    """A view of each element along the first axis."""
    rule: Any = view.op.batch
    made: Node = rule(b, view, [x], [True])
    return made


def _of_constants(b: Builder, nodes: Sequence[Node]) -> Node | None:
    if not all(node.is_const for node in nodes) or nodes[0].type.nbytes * len(nodes) > KNOWN:
        return None
    values: list[Any] = [node.attrs["value"] for node in nodes]
    return b.const(np.stack([value.array for value in values]), nodes[0].dtype)


def _of_groups(b: Builder, nodes: Sequence[Node]) -> Node | None:
    """Stacks of parts of one array each, one behind the other."""
    groups = [list(group) for _, group in groupby(nodes, _origin)]
    if len(groups) > PIECES or (len(groups) == 1 and len(nodes) > 1):
        return None
    if len(groups) == len(nodes) and nodes[0].type.nbytes * len(nodes) > COPIED:
        return None
    pieces = [
        b.reshape(group[0], shape=(1, *group[0].shape)) if len(group) == 1 else stack(b, group)
        for group in groups
    ]
    found = [piece for piece in pieces if piece is not None]
    return b.concatenate(*found, axis=0) if len(found) == len(pieces) else None


def _origin(node: Node) -> object:
    """What nodes share that are parts of one array, seen in the same way."""
    views = []
    while node.op.name in STRIPPED:
        views.append((node.op, node.type))
        node = node.args[0]
    return ("const" if node.is_const else node, *views)


# ------------------------------------------------------------------------------------------------- slices


def _of_slices(b: Builder, nodes: Sequence[Node]) -> Node | None:
    """The stack of slices of one array."""
    first = nodes[0]
    if first.op.name != "slice":
        return None
    base, steps = first.args[0], first.attrs["steps"]
    for node in nodes:
        if node.op is not first.op or node.args[0] is not base or node.type != first.type:
            return None
        if node.attrs["steps"] != steps:
            return None
    starts = np.array([node.attrs["starts"] for node in nodes], np.int64)
    moving = np.flatnonzero((starts != starts[0]).any(0)).tolist()
    if len(moving) == 1:
        (axis,) = moving
        found = _regular(b, first, starts[:, axis], axis)
        if found is not None:
            return found
    return _gathered(b, first, starts, moving)


def _regular(b: Builder, first: Node, starts: np.ndarray, axis: int) -> Node | None:
    """Slices that move by the same distance along one axis each time, and do not overlap."""
    count, size = len(starts), first.shape[axis]
    step: Any = first.attrs["steps"]
    gaps = np.diff(starts)
    gap = int(gaps[0])
    if not (gaps == gap).all() or (size > 1 and not (step[axis] == 1 and abs(gap) == size)):
        return None
    low = int(starts.min())
    place: Any = first.attrs["starts"]
    limit: Any = first.attrs["limits"]
    span = low + (count - 1) * abs(gap) + size
    stride = abs(gap) if size == 1 else 1
    part = b.slice(
        first.args[0],
        starts=(*place[:axis], low, *place[axis + 1 :]),
        limits=(*limit[:axis], span, *limit[axis + 1 :]),
        steps=(*step[:axis], stride, *step[axis + 1 :]),
    )
    blocks = b.reshape(part, shape=(*first.shape[:axis], count, *first.shape[axis:]))
    others = [k for k in range(len(blocks.shape)) if k != axis]
    found = b.transpose(blocks, perm=(axis, *others))
    return b.flip(found, axes=(0,)) if gap < 0 else found


def _gathered(b: Builder, first: Node, starts: np.ndarray, moving: Sequence[int]) -> Node | None:
    """Slices anywhere: their positions along the ``moving`` axes are known numbers."""
    if not moving:
        return None
    sizes = [first.shape[axis] for axis in moving]
    if len(starts) * int(np.prod(sizes)) > INDICES or (max(sizes) > 1 and len(moving) > 1):
        return None
    step: Any = first.attrs["steps"]
    base = _still(b, first, moving)
    indices = []
    for axis, size in zip(moving, sizes, strict=True):
        places = starts[:, axis, None] + step[axis] * np.arange(size)
        indices.append(b.const(places if max(sizes) > 1 else places[:, 0], I64))
    found = b.gather(base, *indices, axes=tuple(moving))
    if max(sizes) == 1:
        return b.reshape(found, shape=(len(starts), *first.shape))
    (axis,) = moving  # the axes of the index array came first: this one goes back to its place
    others = [k for k in range(len(found.shape)) if k != 1]
    return b.transpose(found, perm=(*others[: axis + 1], 1, *others[axis + 1 :]))


def _still(b: Builder, first: Node, moving: Sequence[int]) -> Node:
    """The array without what slices leave out along axes on which they do not move."""
    whole = first.args[0].shape
    place: Any = first.attrs["starts"]
    limit: Any = first.attrs["limits"]
    step: Any = first.attrs["steps"]
    return b.slice(
        first.args[0],
        starts=tuple(0 if k in moving else place[k] for k in range(len(whole))),
        limits=tuple(whole[k] if k in moving else limit[k] for k in range(len(whole))),
        steps=tuple(1 if k in moving else step[k] for k in range(len(whole))),
    )


# ------------------------------------------------------------------------------------------------ joining


def joined(b: Builder, pieces: Sequence[Node], axis: int) -> Node:
    """A concatenation whose neighbours are taken together where they are parts of one array."""
    groups = [list(group) for _, group in groupby(pieces, _origin)]
    found: list[Node] = []
    for group in groups:
        one = _stacked_pieces(b, group, axis) if len(group) > 1 and group[0].shape[axis] == 1 else None
        found += group if one is None else [one]
    return b.concatenate(*found, axis=axis)


def _stacked_pieces(b: Builder, group: Sequence[Node], axis: int) -> Node | None:
    """Pieces of length 1 along an axis as one, by way of their stack."""
    made = stack(b, group)
    if made is None:
        return None
    shape = group[0].shape
    rest = (*shape[:axis], *shape[axis + 1 :])
    flat = b.reshape(made, shape=(len(group), *rest))
    order = [k + 1 for k in range(len(rest))]
    return b.transpose(flat, perm=(*order[:axis], 0, *order[axis:]))
