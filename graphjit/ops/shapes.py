"""Ops that only move elements: broadcast, reshape, transpose, slice, flip, embed, concatenate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.affine import Affine
from graphjit.ir.batching import same_op
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Linear, Special, View, op
from graphjit.ir.types import Type
from graphjit.ops.masking import peel, remask, summed
from graphjit.ops.samples import ALL, Cases
from graphjit.ops.windows import slice_of_windows

Index = Sequence[Affine[Any]]

# ----------------------------------------------------------------------------------------------- broadcast_to


def _infer_broadcast(x: Type, *, shape: tuple[int, ...]) -> Type:
    lead = len(shape) - x.ndim
    if lead < 0 or any(n not in (1, shape[lead + i]) for i, n in enumerate(x.shape)):
        raise ShapeError(f"cannot broadcast {x} to shape {shape}")
    return x.with_shape(shape)


def _broadcast_index(node: Node, index: Index) -> tuple[Affine[Any], ...]:
    x = node.args[0]
    lead = len(node.shape) - len(x.shape)
    return tuple(
        Affine() if n == 1 and node.shape[lead + i] != 1 else index[lead + i] for i, n in enumerate(x.shape)
    )


def _broadcast_transpose(b: Builder, ct: Node, out: Node, x: Node) -> Sequence[Node | None]:
    lead = len(out.shape) - len(x.shape)
    axes = tuple(i for i, n in enumerate(out.shape) if i < lead or (x.shape[i - lead] == 1 and n != 1))
    return (_moved(b, summed(b, ct, axes), x.shape),)


def _moved(b: Builder, ct: Node, shape: tuple[int, ...]) -> Node:
    """A cotangent in another shape, its selection outermost."""
    mask = peel(b, ct)
    if mask is None:
        return b.reshape(ct, shape=shape)
    condition, value = b.reshape(mask.condition, shape=shape), b.reshape(mask.value, shape=shape)
    return remask(b, condition, mask.taken, value)


def _broadcast_rules(b: Builder, x: Node, *, shape: tuple[int, ...]) -> Node | None:
    """To its own shape -> x; broadcast of broadcast -> one broadcast."""
    if x.shape == shape:
        return x
    if x.op.name == "broadcast_to":
        return b.broadcast_to(x.args[0], shape=shape)
    return None


def _broadcast_batch(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    (x,) = args
    size, *shape = x.shape
    lead = len(node.shape) - len(shape)
    return b.broadcast_to(b.reshape(x, shape=(size, *(1,) * lead, *shape)), shape=(size, *node.shape))


op(
    "broadcast_to",
    doc="Repeat along new leading axes and axes of length 1 (NumPy's broadcasting).",
    attrs=("shape",),
    infer=_infer_broadcast,
    impl=lambda x, *, shape: np.broadcast_to(x, shape),
    grad=Linear(_broadcast_transpose),
    lower=View(_broadcast_index),
    batch=_broadcast_batch,
    simplify=[_broadcast_rules],
    samples=Cases(
        lambda rng, draw: [
            ([draw()], {"shape": (3,)}),
            ([draw(3)], {"shape": (2, 3)}),
            ([draw(3, 1)], {"shape": (3, 4)}),
            ([draw(1, 2, 1)], {"shape": (5, 3, 2, 4)}),
            ([draw(1)], {"shape": (0,)}),
        ],
        ALL,
    ),
)

# ---------------------------------------------------------------------------------------------------- reshape


def _infer_reshape(x: Type, *, shape: tuple[int, ...]) -> Type:
    if math.prod(shape) != x.size:
        raise ShapeError(f"cannot reshape array of size {x.size} into shape {shape}")
    return x.with_shape(shape)


def _reshape_rules(b: Builder, x: Node, *, shape: tuple[int, ...]) -> Node | None:
    """To its own shape -> x; reshape of reshape -> one reshape."""
    if x.shape == shape:
        return x
    return b.reshape(x.args[0], shape=shape) if x.op.name == "reshape" else None


op(
    "reshape",
    doc="The same elements in row-major order in another shape.",
    attrs=("shape",),
    infer=_infer_reshape,
    impl=lambda x, *, shape: np.reshape(x, shape),
    grad=Linear(lambda b, ct, out, x: (b.reshape(ct, shape=x.shape),)),
    lower=Special("reshape"),
    batch=lambda b, node, args, batched: b.reshape(args[0], shape=(args[0].shape[0], *node.shape)),
    simplify=[_reshape_rules],
    samples=Cases(
        lambda rng, draw: [
            ([draw(6)], {"shape": (2, 3)}),
            ([draw(2, 3, 4)], {"shape": (4, 6)}),
            ([draw(1)], {"shape": ()}),
            ([draw(0, 3)], {"shape": (3, 0)}),
        ],
        ALL,
    ),
)

# -------------------------------------------------------------------------------------------------- transpose


def _infer_transpose(x: Type, *, perm: tuple[int, ...]) -> Type:
    if sorted(perm) != list(range(x.ndim)):
        raise ShapeError(f"axes {perm} are no permutation of the axes of {x}")
    return x.with_shape(tuple(x.shape[p] for p in perm))


def _inverse(perm: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def _transpose_index(node: Node, index: Index) -> tuple[Affine[Any], ...]:
    return tuple(index[i] for i in _inverse(node.attrs["perm"]))  # type: ignore[arg-type]


def _transpose_rules(b: Builder, x: Node, *, perm: tuple[int, ...]) -> Node | None:
    """Identity -> x; transpose of transpose -> one; moving only axes of length 1 -> reshape (not of windows,
    whose axes contractions are to find).
    """
    if perm == tuple(range(len(perm))):
        return x
    if x.op.name == "transpose":
        inner: Any = x.attrs["perm"]
        return b.transpose(x.args[0], perm=tuple(inner[p] for p in perm))
    long = [p for p in perm if x.shape[p] != 1]
    if long == sorted(long) and x.op.name != "window":
        return b.reshape(x, shape=tuple(x.shape[p] for p in perm))
    return None


op(
    "transpose",
    doc="Axes in the order `perm`.",
    attrs=("perm",),
    infer=_infer_transpose,
    impl=lambda x, *, perm: np.transpose(x, perm),
    grad=Linear(lambda b, ct, out, x: (b.transpose(ct, perm=_inverse(out.attrs["perm"])),)),
    lower=View(_transpose_index),
    batch=lambda b, node, args, batched: b.transpose(
        args[0], perm=(0, *(axis + 1 for axis in node.attrs["perm"]))
    ),
    simplify=[_transpose_rules],
    samples=Cases(
        lambda rng, draw: [
            ([draw(2, 3)], {"perm": (1, 0)}),
            ([draw(2, 3, 4)], {"perm": (2, 0, 1)}),
            ([draw(0, 3)], {"perm": (1, 0)}),
        ],
        ALL,
    ),
)

# ------------------------------------------------------------------------------------------------ slice, flip


def _infer_slice(
    x: Type, *, starts: tuple[int, ...], limits: tuple[int, ...], steps: tuple[int, ...]
) -> Type:
    if not len(starts) == len(limits) == len(steps) == x.ndim:
        raise ShapeError(f"slice of {x} needs {x.ndim} starts, limits and steps")
    for n, start, limit, step in zip(x.shape, starts, limits, steps, strict=True):
        if not (0 <= start <= limit <= n and step >= 1):
            raise ShapeError(f"slice {start}:{limit}:{step} leaves axis of length {n}")
    return x.with_shape(tuple(-(-(u - s) // t) for s, u, t in zip(starts, limits, steps, strict=True)))


def _slice_impl(x: Any, *, starts: Any, limits: Any, steps: Any) -> Any:
    return x[tuple(slice(s, u, t) for s, u, t in zip(starts, limits, steps, strict=True))]


def _slice_index(node: Node, index: Index) -> tuple[Affine[Any], ...]:
    starts, steps = node.attrs["starts"], node.attrs["steps"]
    return tuple(i * t + s for i, s, t in zip(index, starts, steps, strict=True))  # type: ignore[call-overload]


def _slice_transpose(b: Builder, ct: Node, out: Node, x: Node) -> Sequence[Node | None]:
    return (b.embed(ct, shape=x.shape, starts=out.attrs["starts"], steps=out.attrs["steps"]),)


def _slice_batch(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    starts, limits, steps = node.attrs.values()
    whole = args[0].shape[0]
    return b.slice(args[0], starts=(0, *starts), limits=(whole, *limits), steps=(1, *steps))  # type: ignore[misc]


def _slice_rules(b: Builder, x: Node, *, starts: Any, limits: Any, steps: Any) -> Node | None:
    """The whole array -> x."""
    whole = limits == x.type.shape and not any(starts) and steps == (1,) * len(steps)
    return x if whole else None


op(
    "slice",
    doc="x[start:limit:step] on every axis, steps positive.",
    attrs=("starts", "limits", "steps"),
    infer=_infer_slice,
    impl=_slice_impl,
    grad=Linear(_slice_transpose),
    lower=View(_slice_index),
    batch=_slice_batch,
    simplify=[_slice_rules, slice_of_windows],
    samples=Cases(
        lambda rng, draw: [
            ([draw(7)], {"starts": (1,), "limits": (6,), "steps": (2,)}),
            ([draw(4, 5)], {"starts": (1, 0), "limits": (3, 5), "steps": (1, 3)}),
            ([draw(4)], {"starts": (2,), "limits": (2,), "steps": (1,)}),
        ],
        ALL,
    ),
)


def _infer_embed(x: Type, *, shape: tuple[int, ...], starts: tuple[int, ...], steps: tuple[int, ...]) -> Type:
    if not len(shape) == len(starts) == len(steps) == x.ndim:
        raise ShapeError(f"embed of {x} needs {x.ndim} sizes, starts and steps")
    for n, room, start, step in zip(x.shape, shape, starts, steps, strict=True):
        if start < 0 or step < 1 or (n and start + (n - 1) * step >= room):
            raise ShapeError(f"embed: {n} elements from {start} by {step} do not fit into {room}")
    return x.with_shape(shape)


def _embed_impl(x: Any, *, shape: Any, starts: Any, steps: Any) -> Any:
    out = np.zeros(shape, dtype=x.dtype)
    where = tuple(slice(s, s + n * t, t) for n, s, t in zip(x.shape, starts, steps, strict=True))
    out[where] = x
    return out


def _embed_transpose(b: Builder, ct: Node, out: Node, x: Node) -> Sequence[Node | None]:
    starts: Any = out.attrs["starts"]
    steps: Any = out.attrs["steps"]
    limits = tuple(s + (n - 1) * t + 1 if n else s for n, s, t in zip(x.shape, starts, steps, strict=True))
    return (b.slice(ct, starts=starts, limits=limits, steps=steps),)


def _embed_batch(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    _, starts, steps = node.attrs.values()
    whole = (args[0].shape[0], *node.shape)
    return b.embed(args[0], shape=whole, starts=(0, *starts), steps=(1, *steps))  # type: ignore[misc]


op(
    "embed",
    doc="Zeros of `shape` with x written at start + i*step on every axis (the transpose of `slice`).",
    attrs=("shape", "starts", "steps"),
    infer=_infer_embed,
    impl=_embed_impl,
    grad=Linear(_embed_transpose),
    lower=Special("embed"),
    batch=_embed_batch,
    samples=Cases(
        lambda rng, draw: [
            ([draw(3)], {"shape": (7,), "starts": (1,), "steps": (2,)}),
            ([draw(2, 2)], {"shape": (4, 5), "starts": (1, 0), "steps": (1, 3)}),
            ([draw(0)], {"shape": (4,), "starts": (2,), "steps": (1,)}),
        ],
        ALL,
    ),
)


def _infer_flip(x: Type, *, axes: tuple[int, ...]) -> Type:
    if any(not 0 <= a < x.ndim for a in axes):
        raise ShapeError(f"flip: axes {axes} do not fit {x}")
    return x


def _flip_index(node: Node, index: Index) -> tuple[Affine[Any], ...]:
    axes: Any = node.attrs["axes"]
    return tuple(
        n - 1 - i if a in axes else i for a, (i, n) in enumerate(zip(index, node.shape, strict=True))
    )


def _flip_rules(b: Builder, x: Node, *, axes: tuple[int, ...]) -> Node | None:
    """Nothing flipped -> x; flipped twice -> x."""
    if not axes:
        return x
    return x.args[0] if x.op.name == "flip" and x.attrs["axes"] == axes else None


op(
    "flip",
    doc="Reverse the order along `axes`.",
    attrs=("axes",),
    infer=_infer_flip,
    impl=lambda x, *, axes: np.flip(x, axes),
    grad=Linear(lambda b, ct, out, x: (b.flip(ct, axes=out.attrs["axes"]),)),
    lower=View(_flip_index),
    batch=same_op,
    simplify=[_flip_rules],
    samples=Cases(
        lambda rng, draw: [
            ([draw(5)], {"axes": (0,)}),
            ([draw(2, 3)], {"axes": (0, 1)}),
            ([draw(0)], {"axes": (0,)}),
        ],
        ALL,
    ),
)

# ------------------------------------------------------------------------------------------------ concatenate


def _infer_concatenate(*types: Type, axis: int) -> Type:
    first = types[0]
    for other in types:
        same = other.dtype == first.dtype and other.ndim == first.ndim
        if not same or any(
            i != axis and n != m for i, (n, m) in enumerate(zip(first.shape, other.shape, strict=True))
        ):
            raise ShapeError(f"concatenate along axis {axis}: {', '.join(map(str, types))} do not fit")
    shape = list(first.shape)
    shape[axis] = sum(t.shape[axis] for t in types)
    return first.with_shape(tuple(shape))


def _concatenate_transpose(b: Builder, ct: Node, out: Node, *args: Node) -> Sequence[Node | None]:
    axis: Any = out.attrs["axis"]
    pieces = []
    start = 0
    for x in args:
        starts = tuple(start if i == axis else 0 for i in range(len(out.shape)))
        limits = tuple(start + n if i == axis else n for i, n in enumerate(x.shape))
        pieces.append(b.slice(ct, starts=starts, limits=limits, steps=(1,) * len(out.shape)))
        start += x.shape[axis]
    return pieces


def joined_slices(b: Builder, pieces: Sequence[Node], axis: int) -> list[Node]:
    """Pieces to be joined along ``axis``, where slices of one array that lie side by side are one slice:
    ``x[:k], x[k:m], y`` are ``x[:m], y``.
    """
    found: list[Node] = []
    first = last = pieces[0]
    for piece in (*pieces[1:], None):
        if piece is not None and _goes_on(last, piece, axis):
            last = piece
            continue
        whole: Any = first.attrs
        if last is not first:
            limits = list(whole["limits"])
            limits[axis] = last.attrs["limits"][axis]  # type: ignore[index]
            first = b.slice(first.args[0], starts=whole["starts"], limits=tuple(limits), steps=whole["steps"])
        found.append(first)
        if piece is not None:
            first = last = piece
    return found


def _goes_on(left: Node, right: Node, axis: int) -> bool:
    """Whether a slice of an array begins along ``axis`` where another one ends."""
    if left.op.name != "slice" or right.op.name != "slice" or left.args[0] is not right.args[0]:
        return False
    first: Any = left.attrs
    second: Any = right.attrs
    return (
        first["steps"] == second["steps"]
        and first["steps"][axis] == 1
        and first["limits"][axis] == second["starts"][axis]
        and all(
            p == q
            for name in ("starts", "limits")
            for i, (p, q) in enumerate(zip(first[name], second[name], strict=True))
            if i != axis
        )
    )


def _concatenate_fewer(b: Builder, *xs: Node, axis: int) -> Node | None:
    """Slices that lie side by side are one; one piece alone is the result."""
    pieces = joined_slices(b, xs, axis) if xs else []
    if len(pieces) == 1:
        return pieces[0]
    return b.concatenate(*pieces, axis=axis) if len(pieces) < len(xs) else None


op(
    "concatenate",
    doc="Join along an existing axis.",
    arity=None,
    attrs=("axis",),
    infer=_infer_concatenate,
    impl=lambda *xs, axis: np.concatenate(xs, axis),
    grad=Linear(_concatenate_transpose, args=None),
    lower=Special("concatenate"),
    batch=same_op,
    simplify=[_concatenate_fewer],
    samples=Cases(
        lambda rng, draw: [
            ([draw(2), draw(3)], {"axis": 0}),
            ([draw(2, 3), draw(2, 1), draw(2, 2)], {"axis": 1}),
            ([draw(0), draw(3)], {"axis": 0}),
        ],
        ALL,
    ),
)
