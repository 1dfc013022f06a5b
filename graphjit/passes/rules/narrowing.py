"""Rules that compute less: where only some rows or columns of a result are read, only those are computed.

A slice or a gather of what nobody else reads moves to the arguments. In ``(x @ w)[:, :3]`` three columns of
``w`` are multiplied; in ``(x @ w)[rows]`` those rows of ``x``. Each element is still made from the same
terms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphjit.ops  # noqa: F401 (fills the registry)
from graphjit.ir.batching import from_front, to_front
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import REGISTRY, Reduce, Scalar
from graphjit.ops.contraction import free_axes
from graphjit.ops.windows import slice_before_transpose
from graphjit.passes.rules.contraction import ORDER
from graphjit.passes.rules.rule import Rule

Take = Callable[[Node, int], Node]
"""Some elements of a node along an axis."""

ELEMENTWISE = tuple(
    name for name, op in REGISTRY.items() if isinstance(op.lower, Scalar) and name not in ("copy", "narrow")
)
MOVES = ("broadcast_to", "transpose", "slice")
REDUCTIONS = tuple(name for name, op in REGISTRY.items() if isinstance(op.lower, Reduce))


def _gather_early(b: Builder, node: Node) -> Node | None:
    axes: Any = node.attrs["axes"]
    x, *indices = node.args
    if len(axes) != 1 or len(indices[0].shape) != 1:
        return None
    (axis,), (index,) = axes, indices
    if indices[0].shape[0] >= x.shape[axis]:
        return None

    def take(value: Node, along: int) -> Node:
        rows: Node = b.gather(value, index, axes=(along,))
        moved: Node = from_front(b, rows, along)
        return moved

    made = _of_arguments(b, x, axis, take, index.shape[0])
    if made is None:
        return None
    front: Node = to_front(b, made, axis)
    return front


def _slice_early(b: Builder, node: Node) -> Node | None:
    (x,) = node.args
    starts, limits, steps = node.attrs.values()
    made: Node | None = x
    for axis, (start, limit, step) in enumerate(zip(starts, limits, steps, strict=True)):  # type: ignore[call-overload]
        if (start, limit, step) == (0, x.shape[axis], 1):
            continue

        def take(value: Node, along: int, cut: tuple[int, int, int] = (start, limit, step)) -> Node:
            ndim = len(value.shape)
            return b.slice(
                value,
                starts=tuple(cut[0] if i == along else 0 for i in range(ndim)),
                limits=tuple(cut[1] if i == along else n for i, n in enumerate(value.shape)),
                steps=tuple(cut[2] if i == along else 1 for i in range(ndim)),
            )

        assert made is not None
        if made.op.name != "contract" or (made := _of_contraction(b, made, axis, take)) is None:
            return None
    return made


def _slice_before_transpose(b: Builder, node: Node) -> Node | None:
    (moved,) = node.args
    if moved.op.name != "transpose" or moved.args[0].op.name != "contract":
        return None
    attrs: Any = node.attrs
    return slice_before_transpose(b, moved, **attrs)


def _of_arguments(b: Builder, x: Node, axis: int, take: Take, count: int) -> Node | None:
    """``take(x, axis)``, which has ``count`` elements along the axis, made of what is taken of arguments."""
    name = x.op.name
    if name == "contract":
        return _of_contraction(b, x, axis, take)
    if name in ELEMENTWISE:
        if x.dtype.kind in "iu" and name in (
            "floor_divide",
            "remainder",
            "fmod",
            "pow",
            "left_shift",
            "right_shift",
        ):
            return None  # an element that is not computed reports no error
        return b.emit(x.op, *(take(arg, axis) for arg in x.args), **x.attrs)
    if name in REDUCTIONS:
        reduced: Any = x.attrs["axes"]
        kept = [i for i in range(len(x.args[0].shape)) if i not in reduced]
        return b.emit(x.op, take(x.args[0], kept[axis]), **x.attrs)
    return _of_view(b, x, axis, take, count) if name in MOVES else None


def _of_view(b: Builder, x: Node, axis: int, take: Take, count: int) -> Node | None:
    (inner,) = x.args
    if x.op.name == "transpose":
        perm: Any = x.attrs["perm"]
        return b.transpose(take(inner, perm[axis]), perm=perm)
    if x.op.name == "broadcast_to":
        own = axis - (len(x.shape) - len(inner.shape))
        if own < 0 or inner.shape[own] == 1:
            return None  # nothing would be picked, so nothing would check the positions
        taken = take(inner, own)
        return b.broadcast_to(taken, shape=(*x.shape[:axis], count, *x.shape[axis + 1 :]))
    starts, limits, steps = (list(value) for value in x.attrs.values())  # type: ignore[call-overload]
    if (starts[axis], limits[axis], steps[axis]) != (0, inner.shape[axis], 1):
        return None
    taken = take(inner, axis)
    limits[axis] = count
    return b.slice(taken, starts=tuple(starts), limits=tuple(limits), steps=tuple(steps))


def _of_contraction(b: Builder, x: Node, axis: int, take: Take) -> Node:
    """A batch axis is one of both arguments, a free one of one of them."""
    left, right = x.args
    attrs: Any = x.attrs
    (cx, cy), (bx, by) = attrs["contract"], attrs["batch"]
    free_x, free_y = free_axes(len(left.shape), cx, bx), free_axes(len(right.shape), cy, by)
    if axis < len(bx):
        left, right = take(left, bx[axis]), take(right, by[axis])
    elif axis < len(bx) + len(free_x):
        left = take(left, free_x[axis - len(bx)])
    else:
        right = take(right, free_y[axis - len(bx) - len(free_x)])
    return b.contract(left, right, contract=(cx, cy), batch=(bx, by))


RULES = (
    Rule(
        "gather_early",
        ("gather",),
        _gather_early,
        "f(x)[rows] -> f(x[rows]), for fewer rows than there are: only those are computed.",
        bound=ORDER,
        consumes=("contract", *ELEMENTWISE, *MOVES, *REDUCTIONS),
    ),
    Rule(
        "slice_contract",
        ("slice",),
        _slice_early,
        "contract(x, y)[:k] -> contract(x[:k], y), and the same for y and for batches.",
        bound=ORDER,
        consumes=("contract",),
    ),
    Rule(
        "slice_transposed_contract",
        ("slice",),
        _slice_before_transpose,
        "transpose(contract(x, y))[:k] -> transpose(contract(x, y)[..., :k]), which computes less.",
        consumes=("transpose",),
    ),
)
