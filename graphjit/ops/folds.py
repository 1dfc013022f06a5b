"""The op ``fold``: windows added up where they overlap, the transpose of ``window``.

It reads rather than writes: element ``i`` of the result is the sum of the taps that lie at ``i``. With a step
``s`` that depends on ``i % s``, so the result is put together of *phases*, each of which is a fold of step 1
over every s-th tap. The fold of a contraction (the gradient of a convolution by its argument) is itself a
convolution, phase by phase.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.batching import same_op
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Decompose, Linear, op
from graphjit.ir.types import Type
from graphjit.ops.contraction import free_axes
from graphjit.ops.samples import FLOATS, INTS, Cases
from graphjit.ops.windows import Ints, place_of_taps, positions, untransposed


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
    """Every step-th element of a fold along one axis: its element q is the sum over ``number`` taps, tap
    ``first + stride * t`` of the window at ``q + offset - spread * t``.
    """

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
        found.append(Phase(first, stride, count, (start - first * spread) // step, spread // common))
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


Pairs = tuple[Ints, Ints]
Owner = tuple[str, int]
"""An axis of one of the two factors, or of both ("both", and its number in the first)."""


def _owners(g: Node, w: Node, contract: Pairs, batch: Pairs) -> list[Owner]:
    """Which axis of which factor each axis of a contraction is."""
    return [
        *(("both", a) for a in batch[0]),
        *(("g", a) for a in free_axes(len(g.shape), contract[0], batch[0])),
        *(("w", a) for a in free_axes(len(w.shape), contract[1], batch[1])),
    ]


def _taken_apart(y: Node) -> tuple[Node, Node, Pairs, Pairs, list[Owner]] | None:
    """Factors, paired axes and owners of the axes of a contraction whose axes may be in another order. The
    first factor is what lies in memory, also where the contraction reads it with its axes in another order.
    """
    made, perm = untransposed(y)
    if made.op.name != "contract":
        return None
    g, w = made.args
    attrs: Any = made.attrs
    contract, batch = attrs["contract"], attrs["batch"]
    owners = _owners(g, w, contract, batch)
    g, inner = untransposed(g)
    owners = [(which, a if which == "w" else inner[a]) for which, a in (owners[p] for p in perm)]
    contract = tuple(inner[a] for a in contract[0]), contract[1]
    batch = tuple(inner[a] for a in batch[0]), batch[1]
    return g, w, contract, batch, owners


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
        found = _taken_apart(y)
        if found is None:
            return None
        g, w, contract, batch, owners = found
        taps = place_of_taps(axes, len(y.shape))
        of_g, of_w = [owners[a] for a in axes], [owners[t] for t in taps]
        if {which for which, _ in of_g} != {"g"} or {which for which, _ in of_w} != {"w"}:
            return None
        if of_g != sorted(of_g):
            return None
        left = [owner for owner in _owners(g, w, contract, batch) if owner not in of_w]
        order = tuple(left.index(owner) for owner in owners if owner not in of_w)
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
