"""Loops that are open while a loop in registers is lowered: over the axes of a batch, and over steps.

Job: open and close the loops over a batch, and say where one element of it has the elements of its values;
compute each expression as far outside as it can be.
Input: the axes (`graphjit.schedule.batches.axes`). Output: a nest; index expressions.
Invariant: in an index the axis of a value that is the batch has the number of the element, and the others are
known, or the numbers of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.ir.affine import Affine, axis_index, linear
from graphjit.ir.buffers import Buffer
from graphjit.ir.node import Node
from graphjit.loops import ir
from graphjit.loops.ir import Address, Axis, Bound, Const, For, Index, Let, Load, Peek, Ref, Statement
from graphjit.loops.lowering.kernels import Index_, Nest
from graphjit.loops.lowering.stacks import digit
from graphjit.schedule.batches.axes import Batch, Place
from graphjit.schedule.program import Program

WIDTH = 16
"""Elements of a batch for which loops inside keep what they stack: four vectors of numbers."""


class OpenLoops(Nest):
    """The lists of statements of loops that are open. ``home`` has the number of the list in which a ref is
    defined.
    """

    def __init__(self, program: Program, batches: Sequence[tuple[Axis, Batch]]) -> None:
        super().__init__(program, [])
        self.batches = batches
        """The loops around: over axes along which elements never meet."""
        self.at: dict[Axis, Address] = {axis: axis_index(axis) for axis, _ in batches}
        """The numbers of elements of batches."""
        self.block: Axis | None = None
        self.width = 0
        """The loop over blocks of a batch, and their length, where stacks are kept for a block only."""
        self.stacks: list[Buffer] = []
        self.home: dict[Ref, int] = {}
        self.floor = 0
        """List of the innermost branch that is open: nothing moves out of it."""
        self.loops: dict[Axis, int] = {}
        """The list of the steps of each loop that is open."""

    def open_batches(self, in_blocks: bool) -> None:
        """Open the loops over the batch; the innermost in blocks, if loops inside stack something."""
        for axis, batch in self.batches:
            if in_blocks and axis is self.batches[-1][0]:
                self.cut_into_blocks(axis, batch)
            self.loops[axis] = self.enter()
            self.depth[axis], self.extents[axis] = self.loops[axis], batch.extent

    def cut_into_blocks(self, axis: Axis, batch: Batch) -> None:
        """Open a loop over blocks of a batch."""
        self.width = min(batch.extent, WIDTH)
        if self.width < batch.extent:
            self.block = Axis(f"{axis.name}b")
            self.at[axis] = Affine(0, {self.block: self.width, axis: 1})
            self.loops[self.block] = self.enter()
            self.depth[self.block] = self.loops[self.block]
            self.extents[self.block] = -(-batch.extent // self.width)

    def close_batches(self) -> None:
        """Close the loops over the batch."""
        for axis, batch in reversed(self.batches):
            extent, bound = batch.extent, None
            if self.width and axis is self.batches[-1][0]:
                extent = self.width
                if self.block is not None and batch.extent % extent:
                    bound = Bound(Affine(0, {self.block: extent}), batch.extent)
            loop = For(axis, extent, self.leave(), bound=bound)
            if self.block is not None and axis is self.batches[-1][0]:
                self.lists[-1].append(loop)
                loop = For(self.block, self.extents[self.block], self.leave())
            self.lists[-1].append(loop)

    def indices(self, shape: tuple[int, ...], places: Sequence[Place]) -> list[Index_]:
        """Where the elements of a value are, of one element of the batch: ``places`` are the axes of the
        value that are axes of the batch.
        """
        fixed = {
            place: self.at[axis]
            for (axis, _), place in zip(self.batches, places, strict=True)
            if place is not None
        }
        rest = [1 if i in fixed else n for i, n in enumerate(shape)]
        return [tuple(fixed.get(i) or Affine(p) for i, p in enumerate(at)) for at in np.ndindex(*rest)]

    def places(self, node: Node) -> list[Address]:
        """Where the elements of a value are."""
        found = self.indices(node.shape, [batch.values.get(node) for _, batch in self.batches])
        return [linear(node.shape, index) for index in found]

    def result_indices(self, node: Node, number: int) -> list[Index_]:
        """Where those of a result of a loop or a choice are; of what a step stacks, in that step."""
        places = [batch.results[node, number] for _, batch in self.batches]
        shape, carried = node.parts[number].shape, node.attrs.get("carried", len(node.parts))
        if number >= carried:  # type: ignore[operator]
            shape, places = shape[1:], [None if place is None else place - 1 for place in places]
        return self.indices(shape, places)

    def result_places(self, node: Node, number: int) -> list[Address]:
        """The same, in memory."""
        shape, carried = node.parts[number].shape, node.attrs.get("carried", len(node.parts))
        shape = shape[1:] if number >= carried else shape  # type: ignore[operator]
        return [linear(shape, index) for index in self.result_indices(node, number)]

    def index_of(self, shape: tuple[int, ...], at: Address) -> Index_:
        """The index of an element, by its place in row-major order."""
        first = np.unravel_index(at.offset, shape) if shape else ()
        index: list[Address] = [Affine(int(i)) for i in first]
        for axis, factor in at.terms.items():
            if axis is not self.block:
                i, times = digit(shape, factor)
                index[i] = index[i] + self.at.get(axis, axis_index(axis)) * times
        return tuple(index)

    def enter(self) -> int:
        """Open a list; its number."""
        self.lists.append([])
        self.memo.append({})
        return len(self.lists) - 1

    def leave(self) -> tuple[Statement, ...]:
        """Close the innermost list; what was known in it is forgotten."""
        self.memo.pop()
        return tuple(self.lists.pop())

    def known(self, key: Any) -> Any:
        """What is remembered in a list that is open."""
        return next((memo[key] for memo in reversed(self.memo) if key in memo), None)

    def let(self, level: int, dtype: np.dtype, value: ir.Expression) -> Ref:
        """Compute ``value`` as far outside as it can be; ``level`` is not asked."""
        return self.once(
            (value.value.tobytes() if isinstance(value, Const) else value, dtype), dtype, value, 0
        )

    def once(self, key: Any, dtype: np.dtype, value: ir.Expression, since: int) -> Ref:
        """``value``, known as ``key``, as far outside as it can be; but not outside of list ``since``."""
        found = self.known(key)
        if found is None:
            place = max(self.place(value), since)
            found = self.memo[place][key] = self.fresh(dtype)
            self.home[found] = place
            self.lists[place].append(Let(found, value))
        assert isinstance(found, Ref)
        return found

    def place(self, value: ir.Expression) -> int:
        """The outermost list in which ``value`` can be computed."""
        if isinstance(value, Const):
            return 0
        if isinstance(value, ir.Scalar):
            if value.check:
                return len(self.lists) - 1
            return max(self.floor, *(self.home[ref] for ref in value.args))
        if isinstance(value, Peek):
            return len(self.lists) - 1
        address = value.value if isinstance(value, Index) else value.address
        places = [self.loops[axis] for axis in address.terms]
        if isinstance(value, Load):
            places += [self.home[ref] for ref in value.refs]
        return max(self.floor if isinstance(value, Load) else 0, *places, 0)

    def handed(self, dtype: np.dtype, place: int) -> Ref:
        """A value that is there when a list begins."""
        ref = self.fresh(dtype)
        self.home[ref] = place
        return ref
