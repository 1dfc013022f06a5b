"""What steps of a loop stack for another loop of the same batch: a few elements of the batch at a time.

    a way there stacks f64[200,10000], the way back reads it    ->    f64[200,16] for 16 elements of the batch

Input: the shape of a stack, the loops around. Output: where its elements lie.
Invariant: an element has one place while one block of the batch runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.affine import Affine, strides
from graphjit.loops.ir import Address, Axis


def digit(shape: tuple[int, ...], factor: int) -> tuple[int, int]:
    """The axis along which a step of ``factor`` elements goes in row-major order, and how far."""
    for i, (n, step) in enumerate(zip(shape, strides(shape), strict=True)):
        if n > 1 and factor % step == 0:
            return i, factor // step
    raise IRError(f"no axis of {shape} has steps of {factor} elements")


@dataclass(frozen=True)
class Layout:
    """A stack of ``shape`` for ``width`` elements of the batch, which is its axis ``place``."""

    shape: tuple[int, ...]
    place: int | None
    width: int
    block: Axis | None
    """The loop over blocks: in each they lie at the same places."""

    @property
    def narrow(self) -> tuple[int, ...]:
        """The shape in memory."""
        return tuple(self.width if i == self.place else n for i, n in enumerate(self.shape))

    def where(self, at: Address) -> Address:
        """Where the element lies that has place ``at`` in row-major order."""
        near = strides(self.narrow)
        first = np.unravel_index(at.offset, self.shape)
        offset = sum(int(i) * step for i, step in zip(first, near, strict=True))
        terms: dict[Axis, int] = {}
        for axis, factor in at.terms.items():
            if axis is not self.block:
                i, times = digit(self.shape, factor)
                terms[axis] = times * near[i]
        return Affine(offset, terms)
