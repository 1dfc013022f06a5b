"""The op ``splice``: segments of arrays one behind the other, read where they lie.

A concatenation of slices (``np.roll``, a shift with a value at the border, periodic padding) becomes this
where nobody needs it in one piece of memory (`schedule/rewrite/splice.py`). It is an index map: loops over
its readers have a seam where a segment ends, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.affine import Affine
from graphjit.ir.batching import same_op
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Linear, Special, op
from graphjit.ir.types import Type
from graphjit.ops.samples import ALL, Cases

Segment = tuple[int, int, int, int]
"""(number of the array, first position in it, step, length): a step of -1 runs backwards."""


class Run(NamedTuple):
    """``begin <= i < end`` of a splice along its axis: ``source`` at ``start + step * (i - begin)``."""

    source: Node
    begin: int
    end: int
    start: int
    step: int

    def at(self, index: Affine[Any]) -> Affine[Any]:
        """The position in the source."""
        return (index - self.begin) * self.step + self.start


def runs(node: Node) -> list[Run]:
    """The segments of a splice, with the positions along its axis that they have."""
    segments: Any = node.attrs["segments"]
    found: list[Run] = []
    begin = 0
    for which, start, step, length in segments:
        found.append(Run(node.args[which], begin, begin + length, start, step))
        begin += length
    return found


def _infer(*types: Type, axis: int, segments: tuple[Segment, ...]) -> Type:
    if not types or not segments or not 0 <= axis < types[0].ndim:
        raise ShapeError(f"splice along axis {axis} of {', '.join(map(str, types)) or 'nothing'}")
    lengths = [list(t.shape) for t in types]
    for shape in lengths:
        shape[axis] = 0
    if any(t.dtype != types[0].dtype for t in types) or any(shape != lengths[0] for shape in lengths):
        raise ShapeError(f"splice along axis {axis}: {', '.join(map(str, types))} do not fit")
    for which, start, step, length in segments:
        last = start + step * (length - 1)
        if length < 1 or not step or not 0 <= min(start, last) <= max(start, last) < types[which].shape[axis]:
            raise ShapeError(f"splice: {length} elements from {start} by {step} leave {types[which]}")
    lengths[0][axis] = sum(length for *_, length in segments)
    return types[0].with_shape(tuple(lengths[0]))


def _impl(*arrays: Any, axis: int, segments: tuple[Segment, ...]) -> Any:
    pieces = [
        np.take(arrays[which], start + step * np.arange(length), axis)
        for which, start, step, length in segments
    ]
    return np.concatenate(pieces, axis)


def _transpose(b: Builder, ct: Node, out: Node, *args: Node) -> Sequence[Node | None]:
    axis: Any = out.attrs["axis"]
    totals: list[Node | None] = [None] * len(args)
    segments: Any = out.attrs["segments"]
    for run, (which, *_) in zip(runs(out), segments, strict=True):
        starts = tuple(run.begin if i == axis else 0 for i in range(len(out.shape)))
        limits = tuple(run.end if i == axis else n for i, n in enumerate(out.shape))
        piece = b.slice(ct, starts=starts, limits=limits, steps=(1,) * len(out.shape))
        low = min(run.start, run.start + run.step * (run.end - run.begin - 1))
        piece = b.embed(
            b.flip(piece, axes=(axis,)) if run.step < 0 else piece,
            shape=args[which].shape,
            starts=tuple(low if i == axis else 0 for i in range(len(out.shape))),
            steps=tuple(abs(run.step) if i == axis else 1 for i in range(len(out.shape))),
        )
        before = totals[which]
        totals[which] = piece if before is None else b.add(before, piece)
    return totals


op(
    "splice",
    doc="Segments (array, start, step, length) of arrays one behind the other along `axis`, read where they lie.",
    arity=None,
    attrs=("axis", "segments"),
    infer=_infer,
    impl=_impl,
    grad=Linear(_transpose, args=None),
    lower=Special("splice"),
    batch=same_op,
    samples=Cases(
        lambda rng, draw: [
            ([draw(5)], {"axis": 0, "segments": ((0, 3, 1, 2), (0, 0, 1, 3))}),
            ([draw(2, 3), draw(2, 1)], {"axis": 1, "segments": ((1, 0, 1, 1), (0, 2, -1, 3), (1, 0, 1, 1))}),
            ([draw(6, 2)], {"axis": 0, "segments": ((0, 1, 2, 3),)}),
        ],
        ALL,
    ),
)
