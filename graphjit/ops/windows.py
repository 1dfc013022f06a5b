"""Sliding windows: the view ``window``, its transpose ``fold``, and the view ``pair_axes`` that it reads.

A convolution is ``contract(window(x), w)``: nothing is copied, products read windows where they lie. Pooling
is a reduction over windows. For a series ``x`` of 7 elements, ``window`` with size 3, step 2 and spread 1 is

    x[0] x[1] x[2]
    x[2] x[3] x[4]
    x[4] x[5] x[6]

The axes of the elements of a window (its *taps*) stand right after the last windowed axis: (n, h, w, c) over
axes 1 and 2 becomes (n, positions, positions, taps, taps, c).

``fold`` adds windows up where they overlap. It reads rather than writes: element ``i`` of the result is the
sum of the taps that lie at ``i``. With a step ``s`` that depends on ``i % s``, so the result is put together
of *phases*, each of which is a fold of step 1 over every s-th tap. The fold of a contraction (the gradient of
a convolution by its argument) is itself a convolution, phase by phase.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.affine import Affine
from graphjit.ir.batching import same_op
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import REGISTRY, Bilinear, Decompose, Linear, Special, View, op
from graphjit.ir.types import Type
from graphjit.ops.contraction import free_axes
from graphjit.ops.samples import ALL, FLOATS, INTS, Cases

Ints = tuple[int, ...]
Index = Sequence[Affine[Any]]


def positions(length: int, size: int, step: int, spread: int) -> int:
    """How many windows of ``size`` taps, ``spread`` apart, lie in ``length`` elements: each ``step``-th."""
    return (length - (size - 1) * spread - 1) // step + 1


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
        perm: Any = x.attrs["perm"]
        of = [perm.index(a) for a in range(len(perm))]
        attrs = {"starts": starts, "limits": limits, "steps": steps}
        moved: Any = {name: tuple(value[a] for a in of) for name, value in attrs.items()}
        return b.transpose(b.slice(x.args[0], **moved), perm=perm)
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


# ------------------------------------------------------------------------------------------------------- fold


def _infer_fold(y: Type, *, axes: Ints, lengths: Ints, steps: Ints, spreads: Ints) -> Type:
    count = len(axes)
    if not count == len(lengths) == len(steps) == len(spreads) or y.ndim < axes[-1] + 1 + count:
        raise ShapeError(f"fold of {y} over axes {axes} needs as many lengths, steps and spreads")
    shape = list(y.shape)
    sizes = y.shape[axes[-1] + 1 : axes[-1] + 1 + count]
    for axis, length, size, step, spread in zip(axes, lengths, sizes, steps, spreads, strict=True):
        if (size - 1) * spread >= length or positions(length, size, step, spread) != y.shape[axis]:
            raise ShapeError(f"fold: {y} are no windows over axis {axis} of {length} elements")
        shape[axis] = length
    del shape[axes[-1] + 1 : axes[-1] + 1 + count]
    return y.with_shape(tuple(shape))


def _fold_impl(y: Any, *, axes: Ints, lengths: Ints, steps: Ints, spreads: Ints) -> Any:
    taps = place_of_taps(axes, y.ndim)
    shape = [n for i, n in enumerate(y.shape) if i not in taps]
    for axis, length in zip(axes, lengths, strict=True):
        shape[axis] = length
    out = np.zeros(shape, y.dtype)
    for tap in itertools.product(*(range(y.shape[t]) for t in taps)):
        where: list[Any] = [slice(None)] * len(shape)
        for axis, k, step, spread in zip(axes, tap, steps, spreads, strict=True):
            begin = k * spread
            where[axis] = slice(begin, begin + step * (y.shape[axis] - 1) + 1, step)
        piece: list[Any] = [slice(None)] * y.ndim
        for t, k in zip(taps, tap, strict=True):
            piece[t] = k
        out[tuple(where)] += y[tuple(piece)]
    return out


def _fold_transpose(b: Builder, ct: Node, out: Node, y: Node) -> Sequence[Node | None]:
    attrs: Any = out.attrs
    sizes = tuple(y.shape[t] for t in place_of_taps(attrs["axes"], len(y.shape)))
    return (b.window(ct, axes=attrs["axes"], sizes=sizes, steps=attrs["steps"], spreads=attrs["spreads"]),)


class Phase(NamedTuple):
    """Every step-th element of a fold along one axis, from ``start``: the sum over its taps ``first + stride
    * t`` at position ``q + offset - spread * t``.
    """

    start: int
    first: int
    stride: int
    number: int
    offset: int
    spread: int


def phases(size: int, step: int, spread: int) -> list[Phase]:
    """The phases of a fold, one for each remainder; those without taps are zero."""
    common = math.gcd(step, spread)
    found = []
    for start in range(step):
        stride = step // common
        first = next((k for k in range(min(size, stride)) if (start - k * spread) % step == 0), size)
        count = -(-(size - first) // stride)
        found.append(Phase(start, first, stride, count, (start - first * spread) // step, spread // common))
    return found


def _padded(b: Builder, x: Node, axes: Ints, chosen: Sequence[Phase], rows: Ints) -> Node:
    """Positions around those that there are, zero or left out, so that windows over them are ``rows``."""
    for axis, phase, count in zip(axes, chosen, rows, strict=True):
        low = (phase.number - 1) * phase.spread - phase.offset  # zeros in front
        total = count + (phase.number - 1) * phase.spread
        x = _framed(b, x, axis, low, total)
    return x


def _framed(b: Builder, x: Node, axis: int, low: int, total: int) -> Node:
    """``low`` zeros in front of an axis (less than none: elements left out) and ``total`` elements in all."""
    ndim, n = len(x.shape), x.shape[axis]
    begin = max(0, -low)
    end = min(n, total - low)
    if end <= begin:
        return b.full(0, x.type.with_shape((*x.shape[:axis], total, *x.shape[axis + 1 :])))
    starts = tuple(begin if i == axis else 0 for i in range(ndim))
    limits = tuple(end if i == axis else m for i, m in enumerate(x.shape))
    x = b.slice(x, starts=starts, limits=limits, steps=(1,) * ndim)
    if end - begin == total:
        return x
    shape = tuple(total if i == axis else m for i, m in enumerate(x.shape))
    starts = tuple(max(0, low) if i == axis else 0 for i in range(ndim))
    return b.embed(x, shape=shape, starts=starts, steps=(1,) * ndim)


def _taps(b: Builder, x: Node, places: Sequence[int], chosen: Sequence[Phase]) -> Node:
    """The taps of a phase along the axes ``places``, the last one first."""
    ndim = len(x.shape)
    starts, limits, steps = [0] * ndim, list(x.shape), [1] * ndim
    for place, phase in zip(places, chosen, strict=True):
        starts[place], steps[place] = phase.first, phase.stride
        limits[place] = phase.first + (phase.number - 1) * phase.stride + 1
    x = b.slice(x, starts=tuple(starts), limits=tuple(limits), steps=tuple(steps))
    return b.flip(x, axes=tuple(sorted(places)))


def _assembled(
    b: Builder, out: Type, axes: Ints, lengths: Ints, steps: Ints, piece: Any, sizes: Ints, spreads: Ints
) -> Node:
    """A fold put together of its phases; ``piece`` makes one of them with a given number of elements."""
    rows = tuple(-(-length // step) for length, step in zip(lengths, steps, strict=True))
    kinds = [phases(size, step, spread) for size, step, spread in zip(sizes, steps, spreads, strict=True)]
    shape = list(out.shape)
    for axis, count in zip(axes, rows, strict=True):
        shape[axis] = count

    def together(chosen: list[Phase], depth: int) -> Node:
        """All phases of the axes from number ``depth`` on, side by side: axis ``a`` becomes (rows, steps)."""
        if depth == len(axes):
            if any(phase.number <= 0 for phase in chosen):
                return b.full(0, out.with_shape(tuple(shape)))
            return piece(chosen, rows)  # type: ignore[no-any-return]
        parts = [together([*chosen, phase], depth + 1) for phase in kinds[depth]]
        if len(parts) == 1:
            return parts[0]
        axis = axes[depth]
        wide = [
            b.reshape(part, shape=(*part.shape[: axis + 1], 1, *part.shape[axis + 1 :])) for part in parts
        ]
        joined = b.concatenate(*wide, axis=axis + 1)
        n, step, length = joined.shape[axis], joined.shape[axis + 1], lengths[depth]
        joined = b.reshape(joined, shape=(*joined.shape[:axis], n * step, *joined.shape[axis + 2 :]))
        return _framed(b, joined, axis, 0, length)

    return together([], 0)


def _expand_fold(b: Builder, out: Node, y: Node) -> Node:
    """Sums over taps of what lies at ``i - tap``: the diagonal of windows over positions beside the taps."""
    attrs: Any = out.attrs
    axes: Ints = attrs["axes"]
    taps = place_of_taps(axes, len(y.shape))

    def piece(chosen: Sequence[Phase], rows: Ints) -> Node:
        part = _padded(b, _taps(b, y, taps, chosen), axes, chosen, rows)
        for number, (axis, phase) in enumerate(zip(axes, chosen, strict=True)):
            # New taps come right after the axis; those of the fold stand behind, one axis further.
            part = b.window(part, axes=(axis,), sizes=(phase.number,), steps=(1,), spreads=(phase.spread,))
            part = b.pair_axes(part, pair=(axis + 1, taps[number] + 1))
            # Now the taps of this axis stand at axis + 1: back to where those of the fold are.
            order = [a for a in range(len(part.shape)) if a != axis + 1]
            order.insert(taps[number], axis + 1)
            part = b.transpose(part, perm=tuple(order))
        kept = [a for a in range(len(part.shape)) if a not in taps]
        part = b.transpose(part, perm=(*kept, *taps))  # loops go over taps innermost
        return b.sum(part, axes=tuple(range(len(kept), len(part.shape))))

    sizes = tuple(y.shape[t] for t in taps)
    return _assembled(b, out.type, axes, attrs["lengths"], attrs["steps"], piece, sizes, attrs["spreads"])


class _Convolution(NamedTuple):
    """A contraction of positions with taps, of which the windows are to be added up.

    Attributes:
        g: the factor that has the positions, along the axes ``of_g``.
        w: the factor that has the taps, along the axes ``of_w``.
        contract, batch: the attributes of the contraction.
        order: the axes of a phase among those of its contraction.
    """

    g: Node
    w: Node
    of_g: Ints
    of_w: Ints
    contract: tuple[Ints, Ints]
    batch: tuple[Ints, Ints]
    order: Ints

    @classmethod
    def of(cls, y: Node, axes: Ints) -> _Convolution | None:
        """Windows as such a contraction, its axes maybe in another order; None if they are another value."""
        perm: Any = y.attrs["perm"] if y.op.name == "transpose" else tuple(range(len(y.shape)))
        made = y.args[0] if y.op.name == "transpose" else y
        if made.op.name != "contract":
            return None
        g, w = made.args
        attrs: Any = made.attrs
        contract, batch = attrs["contract"], attrs["batch"]
        taps = place_of_taps(axes, len(y.shape))
        free_g = free_axes(len(g.shape), contract[0], batch[0])
        free_w = free_axes(len(w.shape), contract[1], batch[1])
        # Which axis of which factor an axis of the result is.
        inner: Any = g.attrs["perm"] if g.op.name == "transpose" else tuple(range(len(g.shape)))
        owners = [
            *((0, inner[a]) for a in batch[0]),
            *((0, inner[a]) for a in free_g),
            *((1, a) for a in free_w),
        ]
        of_g, of_w = [owners[perm[a]] for a in axes], [owners[perm[t]] for t in taps]
        shared = {inner[a] for a in batch[0]}
        if any(which or a in shared for which, a in of_g) or not all(which for which, _ in of_w):
            return None
        if of_g != sorted(of_g):
            return None
        batch = tuple(inner[a] for a in batch[0]), batch[1]
        contract = tuple(inner[a] for a in contract[0]), contract[1]
        g = g.args[0] if g.op.name == "transpose" else g
        made_of = [(0, a) for a in batch[0]]
        made_of += [(0, a) for a in free_axes(len(g.shape), contract[0], batch[0])]
        made_of += [(1, a) for a in free_w if (1, a) not in of_w]
        order = tuple(made_of.index(owners[a]) for i, a in enumerate(perm) if i not in taps)
        return cls(g, w, tuple(a for _, a in of_g), tuple(a for _, a in of_w), contract, batch, order)

    def phase(self, b: Builder, chosen: Sequence[Phase], rows: Ints) -> Node:
        """One phase: windows of the first factor, contracted with some taps of the second too."""
        windows = b.window(
            _padded(b, self.g, self.of_g, chosen, rows),
            axes=self.of_g,
            sizes=tuple(phase.number for phase in chosen),
            steps=(1,) * len(chosen),
            spreads=tuple(phase.spread for phase in chosen),
        )
        last, count = self.of_g[-1] + 1, len(chosen)

        def moved(axes: Ints) -> Ints:
            return tuple(a + count if a >= last else a for a in axes)

        made = b.contract(
            windows,
            _taps(b, self.w, self.of_w, chosen),
            contract=(
                (*moved(self.contract[0]), *range(last, last + count)),
                (*self.contract[1], *self.of_w),
            ),
            batch=(moved(self.batch[0]), self.batch[1]),
        )
        return b.transpose(made, perm=self.order)


def _fold_of_contraction(
    b: Builder, y: Node, *, axes: Ints, lengths: Ints, steps: Ints, spreads: Ints
) -> Node | None:
    """Positions of one factor, taps of the other: the first is convolved with the second, by phases."""
    found = _Convolution.of(y, axes)
    if found is None:
        return None
    sizes = tuple(found.w.shape[a] for a in found.of_w)
    out = _infer_fold(y.type, axes=axes, lengths=lengths, steps=steps, spreads=spreads)
    piece = functools.partial(found.phase, b)
    return _assembled(b, out, axes, lengths, steps, piece, sizes, spreads)


op(
    "fold",
    doc="Windows added up where they overlap, along `axes` of `lengths` elements: the transpose of `window`.",
    attrs=("axes", "lengths", "steps", "spreads"),
    infer=_infer_fold,
    impl=_fold_impl,
    grad=Linear(_fold_transpose),
    lower=Decompose(_expand_fold),
    batch=same_op,
    simplify=[_fold_of_contraction],
    samples=Cases(
        lambda rng, draw: [
            ([draw(3, 3)], {"axes": (0,), "lengths": (7,), "steps": (2,), "spreads": (1,)}),
            ([draw(3, 3)], {"axes": (0,), "lengths": (8,), "steps": (2,), "spreads": (1,)}),
            ([draw(5, 3)], {"axes": (0,), "lengths": (9,), "steps": (1,), "spreads": (2,)}),
            ([draw(2, 2)], {"axes": (0,), "lengths": (6,), "steps": (4,), "spreads": (1,)}),
            ([draw(3, 3)], {"axes": (0,), "lengths": (16,), "steps": (4,), "spreads": (2,)}),
            (
                [draw(2, 2, 2, 3, 2, 3)],
                {"axes": (1, 2), "lengths": (6, 5), "steps": (2, 1), "spreads": (1, 3)},
            ),
            ([draw(4, 2, 1, 2, 3)], {"axes": (0, 2), "lengths": (6, 6), "steps": (1, 4), "spreads": (2, 1)}),
        ],
        FLOATS + INTS,
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
    return _window_transpose(b, rule.lhs(b, ct, product, windows, y), windows, x)[0]  # type: ignore[return-value]


def _windowed_rhs(b: Builder, ct: Node, out: Node, x: Node, y: Node) -> Node:
    windows, product = _apart(b, out, x, y)
    rule: Any = product.op.derivative
    return rule.rhs(b, ct, product, windows, y)  # type: ignore[no-any-return]


def _windowed_batch(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    attrs: Any = node.attrs
    x, y = args
    axes = tuple(axis + 1 for axis in attrs["axes"]) if batched[0] else attrs["axes"]
    windows = b.window(x, **{name: attrs[name] for name in _OF_WINDOW[1:]}, axes=axes)
    one = b.contract(
        b.window(node.args[0], **{name: attrs[name] for name in _OF_WINDOW}),
        node.args[1],
        contract=attrs["contract"],
        batch=attrs["batch"],
    )
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
