"""Sliding windows: the view ``window``, the view ``pair_axes``, and ``contract_windows``, a convolution.

A convolution is ``contract(window(x), w)``: nothing is copied, products read windows where they lie. Pooling
is a reduction over windows. For a series ``x`` of 7 elements, ``window`` with size 3, step 2 and spread 1 is

    x[0] x[1] x[2]
    x[2] x[3] x[4]
    x[4] x[5] x[6]

The axes of the elements of a window (its *taps*) stand right after the last windowed axis: (n, h, w, c) over
axes 1 and 2 becomes (n, positions, positions, taps, taps, c).

The transpose of ``window`` is ``fold`` (`ops.folds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.affine import Affine
from graphjit.ir.batching import same_op
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import REGISTRY, Bilinear, Linear, Special, View, op
from graphjit.ir.types import Type
from graphjit.ops.samples import ALL, FLOATS, Cases

Ints = tuple[int, ...]
Index = Sequence[Affine[Any]]


def positions(length: int, size: int, step: int, spread: int) -> int:
    """How many windows of ``size`` taps, ``spread`` apart, lie in ``length`` elements: each ``step``-th."""
    return (length - (size - 1) * spread - 1) // step + 1


def untransposed(x: Node) -> tuple[Node, Ints]:
    """What a value is with its axes maybe in another order, and which axis of that each axis of ``x`` is."""
    if x.op.name != "transpose":
        return x, tuple(range(len(x.shape)))
    perm: Any = x.attrs["perm"]
    return x.args[0], perm


def slice_before_transpose(b: Builder, x: Node, starts: Ints, limits: Ints, steps: Ints) -> Node:
    """The slice of a transposed value, sliced first."""
    inner, perm = untransposed(x)
    of = [perm.index(a) for a in range(len(perm))]
    first, last, every = (tuple(value[a] for a in of) for value in (starts, limits, steps))
    return b.transpose(b.slice(inner, starts=first, limits=last, steps=every), perm=perm)


def place_of_taps(axes: Ints, ndim: int) -> list[int]:
    """The axes of the taps in the result of ``window`` of an array of ``ndim`` axes."""
    return [axes[-1] + 1 + i for i in range(len(axes))]


# ----------------------------------------------------------------------------------------------------- window


def _infer_window(x: Type, *, axes: Ints, sizes: Ints, steps: Ints, spreads: Ints) -> Type:
    fits = len(axes) == len(sizes) == len(steps) == len(spreads) > 0
    if not fits or list(axes) != sorted(set(axes)) or not all(0 <= a < x.ndim for a in axes):
        raise ShapeError(f"windows over axes {axes} of {x} need as many sizes, steps and spreads")
    shape = list(x.shape)
    for axis, size, step, spread in zip(axes, sizes, steps, spreads, strict=True):
        if min(size, step, spread) < 1:
            raise ShapeError(f"windows over {x}: sizes, steps and spreads are 1 or more")
        shape[axis] = positions(x.shape[axis], size, step, spread)
        if (size - 1) * spread >= x.shape[axis]:
            raise ShapeError(
                f"a window of {size} elements, {spread} apart, is longer than axis {axis} of {x}"
            )
    last = axes[-1] + 1
    return x.with_shape((*shape[:last], *sizes, *shape[last:]))


def _window_impl(x: Any, *, axes: Ints, sizes: Ints, steps: Ints, spreads: Ints) -> Any:
    shape, strides = list(x.shape), list(x.strides)
    for axis, size, step, spread in zip(axes, sizes, steps, spreads, strict=True):
        shape[axis] = positions(x.shape[axis], size, step, spread)
        strides[axis] *= step
    last = axes[-1] + 1
    taps = [x.strides[axis] * spread for axis, spread in zip(axes, spreads, strict=True)]
    return np.lib.stride_tricks.as_strided(
        x, (*shape[:last], *sizes, *shape[last:]), (*strides[:last], *taps, *strides[last:]), writeable=False
    )


def _window_index(node: Node, index: Index) -> tuple[Affine[Any], ...]:
    axes, _, steps, spreads = (node.attrs[name] for name in ("axes", "sizes", "steps", "spreads"))
    last = axes[-1] + 1  # type: ignore[index]
    rest = [*index[:last], *index[last + len(axes) :]]  # type: ignore[arg-type]
    for i, (axis, step, spread) in enumerate(zip(axes, steps, spreads, strict=True)):  # type: ignore[call-overload]
        rest[axis] = rest[axis] * step + index[last + i] * spread
    return tuple(rest)


def _window_transpose(b: Builder, ct: Node, out: Node, x: Node) -> Sequence[Node | None]:
    attrs: Any = out.attrs
    lengths = tuple(x.shape[a] for a in attrs["axes"])
    return (b.fold(ct, axes=attrs["axes"], lengths=lengths, steps=attrs["steps"], spreads=attrs["spreads"]),)


def _single_tap(b: Builder, x: Node, *, axes: Ints, sizes: Ints, steps: Ints, spreads: Ints) -> Node | None:
    """Windows of one element each are every step-th element."""
    if any(size != 1 for size in sizes):
        return None
    every = [1] * len(x.shape)
    for axis, step in zip(axes, steps, strict=True):
        every[axis] = step
    x = b.slice(x, starts=(0,) * len(every), limits=x.shape, steps=tuple(every))
    last = axes[-1] + 1
    return b.reshape(x, shape=(*x.shape[:last], *sizes, *x.shape[last:]))


def slice_of_windows(b: Builder, x: Node, *, starts: Ints, limits: Ints, steps: Ints) -> Node | None:
    """Some of the windows and some of their taps are windows with other steps and spreads."""
    if x.op.name == "transpose" and x.args[0].op.name == "window":
        return slice_before_transpose(b, x, starts, limits, steps)
    if x.op.name != "window" or any(start >= limit for start, limit in zip(starts, limits, strict=True)):
        return None
    inner, old = x.args[0], x.attrs
    axes: Any = old["axes"]
    counts = [-(-(limit - start) // step) for start, limit, step in zip(starts, limits, steps, strict=True)]
    taps = place_of_taps(axes, len(x.shape))
    kept = [a for a in range(len(x.shape)) if a not in taps]
    where = {"starts": starts, "limits": limits, "steps": steps}
    part: Any = {name: [value[a] for a in kept] for name, value in where.items()}
    made: dict[str, Any] = {"axes": axes, "sizes": tuple(counts[t] for t in taps), "steps": (), "spreads": ()}
    for axis, tap, step, spread in zip(axes, taps, old["steps"], old["spreads"], strict=True):  # type: ignore[call-overload]
        made["steps"] += (step * steps[axis],)
        made["spreads"] += (spread * steps[tap],)
        begin = starts[axis] * step + starts[tap] * spread
        end = begin + (counts[axis] - 1) * made["steps"][-1] + (counts[tap] - 1) * made["spreads"][-1] + 1
        part["starts"][axis], part["limits"][axis], part["steps"][axis] = begin, end, 1
    return b.window(b.slice(inner, **{name: tuple(value) for name, value in part.items()}), **made)


op(
    "window",
    doc="Sliding windows of `sizes` elements along `axes`, each `step`-th one, elements `spread` apart; the axes of a window's elements come after the last of `axes`.",
    attrs=("axes", "sizes", "steps", "spreads"),
    infer=_infer_window,
    impl=_window_impl,
    grad=Linear(_window_transpose),
    lower=View(_window_index),
    batch=same_op,
    simplify=[_single_tap],
    samples=Cases(
        lambda rng, draw: [
            ([draw(7)], {"axes": (0,), "sizes": (3,), "steps": (2,), "spreads": (1,)}),
            ([draw(9)], {"axes": (0,), "sizes": (3,), "steps": (1,), "spreads": (2,)}),
            ([draw(5)], {"axes": (0,), "sizes": (1,), "steps": (2,), "spreads": (1,)}),
            ([draw(5)], {"axes": (0,), "sizes": (5,), "steps": (3,), "spreads": (1,)}),
            ([draw(2, 6, 5, 3)], {"axes": (1, 2), "sizes": (3, 2), "steps": (2, 1), "spreads": (1, 3)}),
            ([draw(3, 2, 6)], {"axes": (0, 2), "sizes": (2, 3), "steps": (1, 4), "spreads": (2, 1)}),
        ],
        ALL,
    ),
)


# -------------------------------------------------------------------------------------------------- pair_axes


def _infer_pair(x: Type, *, pair: Ints) -> Type:
    first, second = pair
    if not 0 <= first < second < x.ndim or x.shape[first] != x.shape[second]:
        raise ShapeError(f"{x} cannot pair axes {pair}")
    return x.with_shape(x.shape[:second] + x.shape[second + 1 :])


def _pair_impl(x: Any, *, pair: Ints) -> Any:
    return np.moveaxis(np.diagonal(x, 0, *pair), -1, pair[0])


def _pair_index(node: Node, index: Index) -> tuple[Affine[Any], ...]:
    pair: Any = node.attrs["pair"]
    first, second = pair
    return (*index[:second], index[first], *index[second:])


def _pair_transpose(b: Builder, ct: Node, out: Node, x: Node) -> Sequence[Node | None]:
    """The cotangent where both numbers agree, and zero elsewhere."""
    pair: Any = out.attrs["pair"]
    first, second = pair
    same = b.diagonal(shape=x.shape, first=first, second=second, offset=0)
    ct = b.reshape(ct, shape=(*out.shape[:second], 1, *out.shape[second:]))
    ct = b.broadcast_to(ct, shape=x.shape)
    return (b.select(same, ct, b.full(0, x.type)),)


op(
    "pair_axes",
    doc="Elements that have the same number along both axes of `pair`; the second of them is gone.",
    attrs=("pair",),
    infer=_infer_pair,
    impl=_pair_impl,
    grad=Linear(_pair_transpose),
    lower=View(_pair_index),
    batch=lambda b, node, args, batched: b.pair_axes(
        args[0], pair=tuple(axis + 1 for axis in node.attrs["pair"])
    ),
    samples=Cases(
        lambda rng, draw: [
            ([draw(3, 3)], {"pair": (0, 1)}),
            ([draw(2, 3, 4, 3)], {"pair": (1, 3)}),
            ([draw(4, 2, 4)], {"pair": (0, 2)}),
            ([draw(0, 0)], {"pair": (0, 1)}),
        ],
        ALL,
    ),
)


# ------------------------------------------------------------------------------------------- contract_windows

_OF_WINDOW = ("axes", "sizes", "steps", "spreads")


def _infer_windowed(x: Type, y: Type, *, contract: Any, batch: Any, **window: Any) -> Type:
    return REGISTRY["contract"].infer(_infer_window(x, **window), y, contract=contract, batch=batch)


def _windowed_impl(x: Any, y: Any, *, contract: Any, batch: Any, **window: Any) -> Any:
    return REGISTRY["contract"].impl(_window_impl(x, **window), y, contract=contract, batch=batch)


def _apart(b: Builder, node: Node, x: Node, y: Node) -> tuple[Node, Node]:
    """The windows, and the contraction of them, that a node is."""
    attrs: Any = node.attrs
    windows = b.window(x, **{name: attrs[name] for name in _OF_WINDOW})
    return windows, b.contract(windows, y, contract=attrs["contract"], batch=attrs["batch"])


def _windowed_lhs(b: Builder, ct: Node, out: Node, x: Node, y: Node) -> Node:
    windows, product = _apart(b, out, x, y)
    rule: Any = product.op.derivative
    attrs: Any = out.attrs
    lengths = tuple(x.shape[a] for a in attrs["axes"])
    by_windows = rule.lhs(b, ct, product, windows, y)
    return b.fold(
        by_windows, axes=attrs["axes"], lengths=lengths, steps=attrs["steps"], spreads=attrs["spreads"]
    )


def _windowed_rhs(b: Builder, ct: Node, out: Node, x: Node, y: Node) -> Node:
    windows, product = _apart(b, out, x, y)
    rule: Any = product.op.derivative
    return rule.rhs(b, ct, product, windows, y)  # type: ignore[no-any-return]


def _windowed_batch(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    attrs: Any = node.attrs
    x, y = args
    axes = tuple(axis + 1 for axis in attrs["axes"]) if batched[0] else attrs["axes"]
    windows = b.window(x, **{name: attrs[name] for name in _OF_WINDOW[1:]}, axes=axes)
    _, one = _apart(b, node, *node.args)
    rule: Any = one.op.batch
    return rule(b, one, (windows, y), batched)  # type: ignore[no-any-return]


op(
    "contract_windows",
    doc="`contract` of `window` of x with y, windows being read where they lie: what a convolution is run as.",
    arity=2,
    attrs=(*_OF_WINDOW, "contract", "batch"),
    infer=_infer_windowed,
    impl=_windowed_impl,
    grad=Bilinear(_windowed_lhs, _windowed_rhs),
    lower=Special("contract_windows"),
    batch=_windowed_batch,
    samples=Cases(
        lambda rng, draw: [
            (
                [draw(2, 7, 6, 3), draw(3, 2, 3, 20)],
                {
                    "axes": (1, 2),
                    "sizes": (3, 2),
                    "steps": (2, 1),
                    "spreads": (1, 2),
                    "contract": ((3, 4, 5), (0, 1, 2)),
                    "batch": ((), ()),
                },
            ),
            (
                [draw(2, 9, 4), draw(2, 7, 9)],
                {
                    "axes": (1,),
                    "sizes": (3,),
                    "steps": (1,),
                    "spreads": (1,),
                    "contract": ((0, 1), (0, 1)),
                    "batch": ((), ()),
                },
            ),
        ],
        FLOATS,
    ),
)
