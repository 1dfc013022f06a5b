"""Rules that move broadcasts, slices and other views to where they cost least.

Broadcasts move outward (towards the results): what is computed before a broadcast is computed on fewer
elements. Slices move inward: what is cut away is not computed. Every rule here only renames elements, so all
are exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Scalar
from graphjit.ir.patterns import splat
from graphjit.ir.types import without_ones
from graphjit.passes.rules.rule import Rule

PIECES = 512
"""Pieces of a concatenation above which its slices are not resolved one by one (the search is linear in
them).
"""
CUT = 4
"""Pieces up to which a concatenation of parts of concatenations is made of their pieces: as many as are read
where they lie (`schedule/rewrite/splice.py`)."""


def _hoist_broadcast(b: Builder, node: Node) -> Node | None:
    if node.op.name == "copy" or any(arg.op.name != "broadcast_to" for arg in node.args):
        return None
    inner = [arg.args[0] for arg in node.args]
    shape = np.broadcast_shapes(*[x.shape for x in inner])
    if math.prod(shape) >= node.type.size:
        return None
    value = b.emit(node.op, *[b.broadcast_to(x, shape=shape) for x in inner], **node.attrs)
    return b.broadcast_to(value, shape=node.shape)


def _broadcast_leading(b: Builder, node: Node) -> Node | None:
    x = node.args[0]
    if x.op.name not in ("reshape", "const") or not x.shape or x.shape[0] != 1:
        return None
    lead = next((i for i, n in enumerate(x.shape) if n != 1), len(x.shape))
    return b.broadcast_to(b.reshape(x, shape=x.shape[lead:]), shape=node.shape)


def _aligned(node: Node) -> tuple[Node, list[int]] | None:
    """For a view of a broadcast: (x, length of x along each axis of the broadcast, 1 where it has none)."""
    inner = node.args[0]
    if inner.op.name != "broadcast_to" or inner.type.size == 0:
        return None
    x = inner.args[0]
    return x, [1] * (len(inner.shape) - len(x.shape)) + list(x.shape)


def _reshape_broadcast(b: Builder, node: Node) -> Node | None:
    found = _aligned(node)
    if found is None:
        return None
    x, lengths = found
    if x.type.size == 1:
        return b.broadcast_to(b.reshape(x, shape=()), shape=node.shape)
    inner = node.args[0]
    if without_ones(inner.shape) != without_ones(node.shape):
        return None
    rest = iter([m for m, n in zip(lengths, inner.shape, strict=True) if n != 1])
    shape = tuple(1 if n == 1 else next(rest) for n in node.shape)
    return b.broadcast_to(b.reshape(x, shape=shape), shape=node.shape)


def _transpose_broadcast(b: Builder, node: Node) -> Node | None:
    found = _aligned(node)
    if found is None:
        return None
    x, lengths = found
    x = b.transpose(b.reshape(x, shape=tuple(lengths)), perm=node.attrs["perm"])  # type: ignore[arg-type]
    return b.broadcast_to(x, shape=node.shape)


def _slice_broadcast(b: Builder, node: Node) -> Node | None:
    found = _aligned(node)
    if found is None or node.type.size == 0:
        return None
    x, lengths = found
    attrs: Any = node.attrs
    inner = node.args[0]
    real = [m == n for m, n in zip(lengths, inner.shape, strict=True)]
    x = b.slice(
        b.reshape(x, shape=tuple(lengths)),
        starts=tuple(s if r else 0 for s, r in zip(attrs["starts"], real, strict=True)),
        limits=tuple(u if r else 1 for u, r in zip(attrs["limits"], real, strict=True)),
        steps=tuple(t if r else 1 for t, r in zip(attrs["steps"], real, strict=True)),
    )
    return b.broadcast_to(x, shape=node.shape)


def _flip_broadcast(b: Builder, node: Node) -> Node | None:
    found = _aligned(node)
    if found is None:
        return None
    x, _ = found
    lead = len(node.shape) - len(x.shape)
    axes: Any = node.attrs["axes"]
    x = b.flip(x, axes=tuple(a - lead for a in axes if a >= lead and x.shape[a - lead] != 1))
    return b.broadcast_to(x, shape=node.shape)


def _slice_slice(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name != "slice" or node.type.size == 0:
        return None
    outer_attrs: Any = node.attrs
    inner_attrs: Any = inner.attrs
    first = zip(inner_attrs["starts"], inner_attrs["steps"], strict=True)
    second = zip(outer_attrs["starts"], outer_attrs["steps"], strict=True)
    pairs = [(s + s2 * t, t * t2) for (s, t), (s2, t2) in zip(first, second, strict=True)]
    return b.slice(
        inner.args[0],
        starts=tuple(s for s, _ in pairs),
        limits=tuple(s + (n - 1) * t + 1 for (s, t), n in zip(pairs, node.shape, strict=True)),
        steps=tuple(t for _, t in pairs),
    )


def _slice_concatenate(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name != "concatenate" or node.type.size == 0 or len(inner.args) > PIECES:
        return None
    axis: Any = inner.attrs["axis"]
    attrs: Any = node.attrs
    first = attrs["starts"][axis]
    last = first + (node.shape[axis] - 1) * attrs["steps"][axis]
    begin = 0
    for piece in inner.args:
        end = begin + piece.shape[axis]
        if begin <= first < end:
            if last >= end:
                return None
            starts, limits = list(attrs["starts"]), list(attrs["limits"])
            starts[axis], limits[axis] = first - begin, last + 1 - begin
            return b.slice(piece, starts=tuple(starts), limits=tuple(limits), steps=attrs["steps"])
        begin = end
    return None


def _slice_elementwise(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if not _is_light(inner) or not _picks_joined(node):
        return None
    return b.emit(inner.op, *(b.slice(arg, **node.attrs) for arg in inner.args), **inner.attrs)


def _slice_transpose(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name != "transpose" or not _picks_joined(node):
        return None
    perm: Any = inner.attrs["perm"]
    attrs: Any = {
        name: tuple(value[perm.index(axis)] for axis in range(len(perm)))  # type: ignore[index]
        for name, value in node.attrs.items()
    }
    return b.transpose(b.slice(inner.args[0], **attrs), perm=perm)


LIGHT = 6
"""Cost of an elementwise operation (a quotient) up to which its components are computed one by one, though
all of it may be computed as well."""
SEARCHED = 16
"""Nodes among which joined elements are looked for."""


def _is_light(node: Node) -> bool:
    return isinstance(node.op.lower, Scalar) and node.op.lower.cost <= LIGHT and node.op.name != "copy"


def _picks_joined(node: Node) -> bool:
    """Whether a slice takes one element along an axis, and light elementwise operations and transposes lead
    to elements that were joined along it.
    """
    inner = node.args[0]
    stack = [(inner, axis) for axis, n in enumerate(node.shape) if n == 1 < inner.shape[axis]]
    seen = set(stack)
    while stack and len(seen) <= SEARCHED:
        x, axis = stack.pop()
        following: list[tuple[Node, int]] = []
        if x.op.name == "concatenate":
            if x.attrs["axis"] == axis and len(x.args) == x.shape[axis]:
                return True
        elif x.op.name == "transpose":
            perm: Any = x.attrs["perm"]
            following = [(x.args[0], perm[axis])]
        elif _is_light(x):
            following = [(arg, axis) for arg in x.args]
        stack += [found for found in following if found not in seen]
        seen.update(following)
    return False


def _slice_embed(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name != "embed" or node.type.size == 0:
        return None
    x = inner.args[0]
    cut: Any = node.attrs
    placed: Any = inner.attrs
    if (cut["starts"], cut["steps"], node.shape) == (placed["starts"], placed["steps"], x.shape):
        return x
    axes = list(
        zip(cut["starts"], cut["steps"], node.shape, placed["starts"], placed["steps"], x.shape, strict=True)
    )
    if any(map(_misses, axes)):
        return b.full(0, node.type)
    ranges = [_range_inside(axis) for axis in axes]
    if None in ranges:
        return None
    starts, limits, steps = zip(*ranges, strict=True)
    return b.slice(x, starts=starts, limits=limits, steps=steps)


CutAxis = tuple[int, int, int, int, int, int]
"""One axis of a slice of embedded values: start, step and length of the slice; where the values begin, how
far they lie apart, and how many there are.
"""


def _misses(axis: CutAxis) -> bool:
    """Whether the slice lies before or behind all embedded values."""
    start, step, length, at, spacing, n = axis
    return start + (length - 1) * step < at or start > at + (n - 1) * spacing or n == 0


def _range_inside(axis: CutAxis) -> tuple[int, int, int] | None:
    """Start, limit and step among the embedded values themselves; None where the slice takes zeros too."""
    start, step, length, at, spacing, n = axis
    last, end = start + (length - 1) * step, at + (n - 1) * spacing
    offset = start - at
    inside = at <= start and last <= end and (spacing == 1 or length == 1)
    if not inside or offset % spacing:
        return None
    return offset // spacing, offset // spacing + (length - 1) * step + 1, step


def _embed_embed(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name != "embed" or inner.type.size == 0:
        return None
    outer_attrs: Any = node.attrs
    inner_attrs: Any = inner.attrs
    rows = list(
        zip(
            outer_attrs["starts"],
            outer_attrs["steps"],
            inner_attrs["starts"],
            inner_attrs["steps"],
            strict=True,
        )
    )
    return b.embed(
        inner.args[0],
        shape=node.shape,
        starts=tuple(s + t * s2 for s, t, s2, _ in rows),
        steps=tuple(t * t2 for _, t, _, t2 in rows),
    )


def _embed_whole(b: Builder, node: Node) -> Node | None:
    x = node.args[0]
    if x.shape == node.shape and node.type.size:
        return x
    value = splat(x)
    if value is not None and value == 0 and not np.signbit(value):
        return b.full(0, node.type)
    return None


def _flip_flip(b: Builder, node: Node) -> Node | None:
    axes: Any = node.attrs["axes"]
    x = node.args[0]
    left = set(axes)
    if x.op.name == "flip":
        inner: Any = x.attrs["axes"]
        left ^= set(inner)
        x = x.args[0]
    wanted = tuple(sorted(a for a in left if x.shape[a] != 1))
    return None if x is node.args[0] and wanted == tuple(axes) else b.flip(x, axes=wanted)


def _concatenate_splat(b: Builder, node: Node) -> Node | None:
    values = [splat(arg) for arg in node.args]
    if any(value is None or value.tobytes() != values[0].tobytes() for value in values):
        return None
    return b.full(values[0], node.type)


def _concatenate_flat(b: Builder, node: Node) -> Node | None:
    axis = node.attrs["axis"]
    pieces: list[Node] = []
    for arg in node.args:
        if arg.op.name == "concatenate" and arg.attrs["axis"] == axis:
            pieces.extend(arg.args)
        elif arg.type.size or not node.type.size:
            pieces.append(arg)
    return b.concatenate(*pieces, axis=axis) if tuple(pieces) != node.args else None


def _concatenate_cut(b: Builder, node: Node) -> Node | None:
    axis: Any = node.attrs["axis"]
    pieces: list[Node] = []
    for arg in node.args:
        pieces += _cut_pieces(b, arg, axis) or [arg]
    return b.concatenate(*pieces, axis=axis) if len(node.args) < len(pieces) <= CUT else None


def _cut_pieces(b: Builder, node: Node, axis: int) -> list[Node]:
    """The pieces of a slice of a concatenation along ``axis``; none where it is something else."""
    inner = node.args[0] if node.op.name == "slice" else node
    if inner is node or inner.op.name != "concatenate" or inner.attrs["axis"] != axis:
        return []
    attrs: Any = node.attrs
    if attrs["steps"][axis] != 1:
        return []
    pieces: list[Node] = []
    begin = 0
    for piece in inner.args:
        end = begin + piece.shape[axis]
        first, last = max(attrs["starts"][axis], begin), min(attrs["limits"][axis], end)
        if first < last:
            starts, limits = list(attrs["starts"]), list(attrs["limits"])
            starts[axis], limits[axis] = first - begin, last - begin
            pieces.append(b.slice(piece, starts=tuple(starts), limits=tuple(limits), steps=attrs["steps"]))
        begin = end
    return pieces


RULES = (
    Rule(
        "hoist_broadcast",
        (),
        _hoist_broadcast,
        "f(broadcast(x), broadcast(y)) -> broadcast(f(x, y)) when x and y together are smaller than the result.",
        kinds=(Scalar,),
    ),
    Rule(
        "broadcast_leading",
        ("broadcast_to",),
        _broadcast_leading,
        "broadcast(reshape(x, (1, ...))) -> broadcast(x): leading ones are implied.",
    ),
    Rule(
        "reshape_broadcast",
        ("reshape",),
        _reshape_broadcast,
        "reshape(broadcast(x)) -> broadcast(reshape(x)) where only axes of length 1 come or go.",
    ),
    Rule(
        "transpose_broadcast",
        ("transpose",),
        _transpose_broadcast,
        "transpose(broadcast(x)) -> broadcast(transpose(x)).",
    ),
    Rule("slice_broadcast", ("slice",), _slice_broadcast, "slice(broadcast(x)) -> broadcast(slice(x))."),
    Rule("flip_broadcast", ("flip",), _flip_broadcast, "flip(broadcast(x)) -> broadcast(flip(x))."),
    Rule("slice_slice", ("slice",), _slice_slice, "slice(slice(x)) -> one slice."),
    Rule(
        "slice_concatenate",
        ("slice",),
        _slice_concatenate,
        "slice(concatenate(x, y)) -> slice(x) when it lies inside one piece.",
    ),
    Rule(
        "slice_elementwise",
        ("slice",),
        _slice_elementwise,
        "slice(f(concatenate(x, y))) -> f(x) when it takes one element and f is light: the whole need not be stored.",
    ),
    Rule(
        "slice_transpose",
        ("slice",),
        _slice_transpose,
        "slice(transpose(concatenate(x, y))) -> transpose(x) when it takes one element.",
    ),
    Rule(
        "slice_embed",
        ("slice",),
        _slice_embed,
        "slice(embed(x)) -> x, a slice of x, or zeros, when it reads only what was or was not written.",
    ),
    Rule("embed_embed", ("embed",), _embed_embed, "embed(embed(x)) -> one embed."),
    Rule("embed_whole", ("embed",), _embed_whole, "embed(x) that fills its shape -> x; of zeros -> zeros."),
    Rule(
        "flip_flip",
        ("flip",),
        _flip_flip,
        "flip(flip(x)) -> one flip along the axes flipped once; axes of length 1 need none.",
    ),
    Rule(
        "concatenate_splat",
        ("concatenate",),
        _concatenate_splat,
        "Pieces filled with one number -> broadcast of it.",
    ),
    Rule(
        "concatenate_flat",
        ("concatenate",),
        _concatenate_flat,
        "concatenate(concatenate(x, y), z) -> concatenate(x, y, z) along one axis; empty pieces go.",
        consumes=("concatenate",),
    ),
    Rule(
        "concatenate_cut",
        ("concatenate",),
        _concatenate_cut,
        "concatenate(slice(concatenate(x, y)), z) -> concatenate(slice(x), slice(y), z): a roll of a roll is one.",
    ),
)
