"""Lower sweeps: several kernels and thin matrix products over the same rows, block by block.

Job: cut the loop over rows of each kernel to one block, put kernels and products one after another into a loop over blocks, and finish sums over
rows (products of columns among them) from the partial sums of the tasks.
Input: the parts of a `Sweep`, kernels lowered.  Output: one loop kernel.
Invariants: each row is computed once; a task adds up its blocks in order and tasks are combined in order, so results depend on shapes only.
The elements of a batch are tasks: their sums over rows go straight to where they belong, and what all rows of an element need is theirs alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.loops import ir
from graphjit.loops.collapse import map_addresses
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Axis,
    Bound,
    For,
    Init,
    Let,
    Load,
    LoopKernel,
    Matrix,
    Multiply,
    Ref,
    Scalar,
    Statement,
    Store,
    walk,
)
from graphjit.loops.lower import ROWS, lower_kernel
from graphjit.schedule.access import storage
from graphjit.schedule.program import Product, Program, Sweep
from graphjit.schedule.sweep import sums_over_rows

WIDE = 64
"""Columns from which sums down them are taken row by row."""

Body = tuple[Statement, ...]


def lower_sweep(program: Program, sweep: Sweep) -> LoopKernel:
    """Loop IR of a sweep."""
    blocks = -(-sweep.rows // sweep.block)
    batched = sweep.batch > 1
    each = blocks if batched else -(-blocks // min(sweep.tasks, blocks))  # blocks of a task
    tasks = sweep.batch if batched else -(-blocks // each)
    numbers = itertools.count()
    maker = _Maker(sweep, numbers, each, tasks)
    inside: list[Statement] = []
    last: list[Statement] = []
    for part in sweep.parts:
        if isinstance(part, Product) and batched:
            block, final = maker.multiply_each(program, part)
        elif isinstance(part, Product):
            block, final = maker.multiply(program, part)
        elif batched:
            block, final = maker.split(maker.one(ir.renumbered(lower_kernel(program, part).body, numbers)), ())
        else:
            block, final = maker.split(ir.renumbered(lower_kernel(program, part).body, numbers), ())
        inside += block
        last += final
    if each > 1:
        bound = Bound(Affine(0, {maker.task: each}), blocks) if blocks % each else None
        inside = [For(maker.block, each, tuple(inside), bound=bound)]
    packing = tuple(maker.packing)
    task = For(maker.task, tasks, (*(packing if batched else ()), *maker.opening(), *inside), kind="parallel")
    body = (*(() if batched else packing), task, *last)
    scratch = [buffer for buffer in ir.buffers(body) if buffer.kind == "scratch"]
    packed = [] if batched else maker.packed  # a task's own are scratch
    return LoopKernel(sweep.name, body, maker.comment, (*packed, *maker.partial, *scratch))


@dataclass
class _Partial:
    """Where the tasks keep a sum over rows: ``size`` elements for each."""

    size: int
    combine: str


class _Maker:
    """Splits kernels into what a block does and what remains for the end."""

    def __init__(self, sweep: Sweep, numbers: Iterator[int], each: int, tasks: int) -> None:
        self.rows, self.length = sweep.rows, sweep.block
        self.batched, self.axis = sweep.batch > 1, ROWS if sweep.batch == 1 else "i1"
        self.task, self.block, self.each, self.tasks = Axis("task"), Axis("block"), each, tasks
        self.numbers = numbers
        self.name = sweep.name
        self.comment = "; ".join(" ".join(node.op.name for node in part.nodes) for part in sweep.parts)
        self.partial: dict[Buffer, _Partial] = {}
        self.cleared: list[tuple[Matrix, int]] = []  # results of a task that its blocks add to, and their elements
        self.packed: list[Buffer] = []  # right operands of products, row by row
        self.packing: list[Statement] = []
        self.kept: dict[Ref, tuple[Buffer, Address]] = {}  # where a sum over rows is kept, within a task

    @property
    def start(self) -> Address:
        """The first row of the block."""
        blocks = {self.block: self.length} if self.each > 1 else {}
        return Affine(0, blocks if self.batched else {self.task: self.each * self.length, **blocks})

    @property
    def bound(self) -> Bound | None:
        """Where the rows of a block may end early."""
        return Bound(self.start, self.rows) if self.rows % self.length else None

    def fresh(self, dtype: np.dtype) -> Ref:
        """A new name."""
        return Ref(next(self.numbers), dtype)

    def split(self, body: Body, around: tuple[tuple[Axis, int], ...]) -> tuple[list[Statement], list[Statement]]:
        """What each block does, and what is done once after the last; ``around`` are the loops outside of the one over rows."""
        at = next((i for i, s in enumerate(body) if isinstance(s, For) and _has_loop(s, self.axis)), None)
        assert at is not None, "a kernel of a sweep has no loop over its rows"
        loop = body[at]
        assert isinstance(loop, For)
        before, after = body[:at], body[at + 1 :]
        sums = {s.ref: s.combine for s in before if isinstance(s, Init)}
        if loop.axis.name != self.axis:
            inner, final = self.split(loop.body, (*around, (loop.axis, loop.extent)))
            turned = self.row_by_row(loop) if loop.extent >= WIDE else None
            block: list[Statement] = [*before, turned or replace(loop, body=tuple(inner))]
            rest = [*before, replace(loop, body=tuple(final)), *after] if final else []
            return block, rest
        if not sums:
            assert all(isinstance(s, For) and s.axis.name == self.axis for s in after), "only sums over rows are finished later"
            return [*before, self.cut(loop), *(self.cut(s) for s in after if isinstance(s, For))], []
        block = [*before, self.cut(loop)]
        rest = list(before)
        for ref, combine in sums.items():
            buffer, place = self.place(ref, combine, around)
            old, total = self.fresh(ref.dtype), self.fresh(ref.dtype)
            here = place + Affine(0, {self.task: self.partial[buffer].size})
            block += [Let(old, Load(buffer, here)), Let(total, Scalar(_scalar(combine), (old, ref))), Store(buffer, here, total)]
            rest.append(self.over_tasks(ref, combine, buffer, place))
        return block, [*rest, *after]

    def one(self, body: Body) -> Body:
        """A kernel for the one element of the batch that a task computes."""

        def each(statement: Statement, loop: For) -> Statement:
            if isinstance(statement, For):
                return replace(statement, body=tuple(each(s, loop) for s in statement.body))
            buffer = _buffer(statement)  # scratch holds the rows of a block of this element only

            def moved(address: Address) -> Address:
                factor = address[loop.axis]
                here = 0 if buffer is not None and buffer.kind == "scratch" else factor
                return address + Affine(0, {loop.axis: -factor, self.task: here}) if factor else address

            return map_addresses(statement, moved)

        taken: list[Statement] = []
        for statement in body:
            if isinstance(statement, For):
                assert statement.axis.name == ROWS, "the outermost loop is that over the batch"
                taken += [each(s, statement) for s in statement.body]
            else:
                taken.append(statement)
        return tuple(taken)

    def multiply_each(self, program: Program, product: Product) -> tuple[list[Statement], list[Statement]]:
        """One product of a batch: what a block computes, or adds to the result; nothing remains for the end."""
        left, right = (program.buffers[storage(arg)] for arg in product.node.args)
        out = program.buffers[product.node]

        def matrix(buffer: Buffer, stride: int, strides: tuple[int, int], rows: int) -> Matrix:
            # Scratch holds the rows of the block only.
            at = Affine() if buffer.kind == "scratch" else self.start * rows + Affine(0, {self.task: stride})
            return Matrix(buffer, at, *strides)

        of_x, of_y, of_out = product.batch_strides
        if sums_over_rows(product):
            x, y = matrix(left, of_x, product.lhs, product.lhs[1]), matrix(right, of_y, product.rhs, product.rhs[0])
            target = matrix(out, of_out, (product.n, 1), 0)
            self.cleared.append((target, product.m * product.n))
            return [Multiply(target, x, y, (product.m, product.n, self.length), adds=True)], []
        x, target = matrix(left, of_x, product.lhs, product.lhs[0]), matrix(out, of_out, (product.n, 1), product.n)
        y = matrix(right, of_y, product.rhs, 0)
        y = self.pack(y, product) if product.rhs[1] != 1 else y
        return [Multiply(target, x, y, (self.length, product.n, product.k))], []

    def over_tasks(self, ref: Ref, combine: str, buffer: Buffer, place: Address) -> For:
        """The loop that combines, in order, what the tasks keep at ``place``."""
        axis, part = Axis(f"{self.task.name}s"), self.fresh(ref.dtype)
        load = Let(part, Load(buffer, place + Affine(0, {axis: self.partial[buffer].size})))
        return For(axis, self.tasks, (load, Accumulate(ref, combine, part)))

    def row_by_row(self, loop: For) -> For | None:
        """Sums down many columns, row by row in memory: going down the columns, each step would land on another page."""
        rows = next((s for s in loop.body if isinstance(s, For)), None)
        if rows is None or rows.axis.name != ROWS or any(isinstance(s, For) for s in rows.body):
            return None
        each: list[Statement] = [s for s in loop.body[: loop.body.index(rows)] if isinstance(s, Let)]
        for statement in rows.body:
            if isinstance(statement, Accumulate):
                buffer, place = self.kept[statement.ref]
                here = place + Affine(0, {self.task: self.partial[buffer].size})
                each.append(Store(buffer, here, statement.value, combine=statement.combine))
            else:
                each.append(statement)
        return self.cut(replace(rows, body=(replace(loop, body=tuple(each)),)))

    def cut(self, loop: For) -> For:
        """The loop over rows, over one block of them."""

        def moved(address: Address) -> Address:
            factor = address[loop.axis]
            return address + self.start * factor if factor else address

        def each(statement: Statement) -> Statement:
            if isinstance(statement, For):
                return replace(statement, body=tuple(map(each, statement.body)))
            buffer = _buffer(statement)  # scratch holds the rows of the block only
            return statement if buffer is not None and buffer.kind == "scratch" else map_addresses(statement, moved)

        return replace(loop, extent=self.length, bound=self.bound, body=tuple(map(each, loop.body)))

    def multiply(self, program: Program, product: Product) -> tuple[list[Statement], list[Statement]]:
        """A product with a row of its result for each row, or one that sums over rows: what a block adds, and the sum over tasks at the end."""
        left, right = (program.buffers[storage(arg)] for arg in product.node.args)
        out = program.buffers[product.node]

        def rows(buffer: Buffer) -> Address:
            # Scratch holds the rows of the block only.
            return Affine() if buffer.kind == "scratch" else self.start * (buffer.size // self.rows)

        if not sums_over_rows(product):
            x = Matrix(left, rows(left), *product.lhs)
            target = Matrix(out, rows(out), product.n)
            y = Matrix(right, Affine(), *product.rhs)
            y = self.pack(y, product) if y.column != 1 else y
            return [Multiply(target, x, y, (self.length, product.n, product.k), bound=self.bound)], []
        x, y = Matrix(left, rows(left), *product.lhs), Matrix(right, rows(right), product.rhs[0])
        cells = product.m * product.n
        sums = Buffer(f"{self.name}m{len(self.partial)}", out.dtype, cells * self.tasks, "local")
        self.partial[sums] = _Partial(cells, "add")
        each = Multiply(Matrix(sums, Affine(0, {self.task: cells}), product.n), x, y, (product.m, product.n, self.length), adds=True, bound=self.bound)
        cell, total = Axis("cell"), self.fresh(out.dtype)
        place = Affine(0, {cell: 1})
        final = (Init(total, "add"), self.over_tasks(total, "add", sums, place), Store(out, place, total))
        return [each], [For(cell, cells, final)]

    def pack(self, right: Matrix, product: Product) -> Matrix:
        """A right operand whose rows do not lie end to end, copied once for all blocks."""
        k, n = product.k, product.n
        dtype = right.buffer.dtype
        buffer = Buffer(f"{self.name}y{len(self.packed)}", dtype, k * n, "scratch" if self.batched else "local")
        term, column, value = Axis(f"k{len(self.packed)}"), Axis(f"n{len(self.packed)}"), self.fresh(dtype)
        load = Let(value, Load(right.buffer, right.at(Affine(0, {term: 1}), Affine(0, {column: 1}))))
        store = Store(buffer, Affine(0, {term: n, column: 1}), value)
        self.packing.append(For(term, k, (For(column, n, (load, store)),)))
        self.packed.append(buffer)
        return Matrix(buffer, Affine(), n)

    def place(self, ref: Ref, combine: str, around: tuple[tuple[Axis, int], ...]) -> tuple[Buffer, Address]:
        """A partial sum's buffer, and its element's address within a task."""
        size, address = 1, Affine[Axis]()
        for axis, extent in reversed(around):
            address = address + Affine(0, {axis: size})
            size *= extent
        buffer = Buffer(f"{self.name}p{ref.number}", ref.dtype, size * self.tasks, "local")
        self.partial[buffer] = _Partial(size, combine)
        self.kept[ref] = buffer, address
        return buffer, address

    def opening(self) -> list[Statement]:
        """Sums of a task before its first block."""
        statements: list[Statement] = []
        for i, (target, cells) in enumerate(self.cleared):
            zero, cell = self.fresh(target.buffer.dtype), Axis(f"z{i}")
            statements.append(Let(zero, ir.Const(ir.identity("add", target.buffer.dtype))))
            statements.append(For(cell, cells, (Store(target.buffer, target.address + Affine(0, {cell: 1}), zero),)))
        for i, (buffer, partial) in enumerate(self.partial.items()):
            zero = self.fresh(buffer.dtype)
            axis = Axis(f"p{i}")
            address = Affine(0, {self.task: partial.size, **({axis: 1} if partial.size > 1 else {})})
            store = Store(buffer, address, zero)
            statements.append(Let(zero, ir.Const(ir.identity(partial.combine, buffer.dtype))))
            statements.append(For(axis, partial.size, (store,)) if partial.size > 1 else store)
        return statements


def _buffer(statement: Statement) -> Buffer | None:
    if isinstance(statement, Let) and isinstance(statement.value, Load):
        return statement.value.buffer
    return statement.buffer if isinstance(statement, Store) else None


def _has_loop(loop: For, name: str) -> bool:
    return loop.axis.name == name or any(isinstance(s, For) and s.axis.name == name for s in walk(loop.body))


def _scalar(combine: str) -> str:
    return {"max": "maximum", "min": "minimum"}.get(combine, combine)
