"""Lower sweeps: several kernels and thin matrix products over the same rows, block by block.

Job: cut the loop over rows of each kernel to one block, put kernels and products one after another into a
loop over blocks, and finish sums over rows (products of columns among them) from the partial sums of the
tasks.
Input: the parts of a `Sweep`, kernels lowered.  Output: one loop kernel.
Invariants: each row is computed once; a task adds up its blocks in order and tasks are combined in order, so
results depend on shapes only. The elements of a batch are tasks: their sums over rows go straight to where
they belong, and what all rows of an element need is theirs alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.ir.scalars import identity
from graphjit.limits import Limits, SumLimits
from graphjit.loops import ir
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
from graphjit.loops.lowering.kernels import ROWS, lower_kernel
from graphjit.loops.passes.collapse import map_addresses
from graphjit.loops.passes.sums import moved, restored, rounded_away
from graphjit.schedule.access import storage
from graphjit.schedule.program import Kernel, Product, Program, Sweep
from graphjit.schedule.sweep import sums_over_rows

Body = tuple[Statement, ...]


def lower_sweep(program: Program, sweep: Sweep, limits: Limits) -> LoopKernel:
    """Loop IR of a sweep."""
    maker = _Maker(sweep, limits.sums) if sweep.batch == 1 else _Batch(sweep, limits.sums)
    inside: list[Statement] = []
    last: list[Statement] = []
    for part in sweep.parts:
        block, final = (
            maker.multiply(program, part)
            if isinstance(part, Product)
            else maker.split(maker.kernel(program, part), ())
        )
        inside += block
        last += final
    if maker.each > 1:
        inside = [maker.over_blocks(tuple(inside))]
    before, opening = maker.opening()
    body = (*before, For(maker.task, maker.tasks, (*opening, *inside), kind="parallel"), *last)
    own = [buffer for buffer in ir.buffers(body) if buffer.kind in ("local", "scratch")]
    return LoopKernel(sweep.name, body, maker.comment, tuple(own))


@dataclass
class _Partial:
    """Where the tasks keep a sum over rows: ``size`` elements for each; ``lost``: what its additions rounded
    away, if it has many terms.
    """

    size: int
    combine: str
    lost: Buffer | None = None


class _Maker:
    """Splits kernels into what a block does and what remains for the end."""

    axis = ROWS
    """Name of the loop over rows in a kernel."""
    packed: Literal["local", "scratch"] = "local"
    """Kind of the buffers of packed operands: all tasks read them."""

    def __init__(self, sweep: Sweep, limits: SumLimits) -> None:
        self.limits = limits
        self.rows, self.length = sweep.rows, sweep.block
        self.blocks = -(-sweep.rows // sweep.block)
        # Blocks of few rows whose sums, where they are added up row by row, are added up together.
        self.turns = max(1, limits.chain_in_lanes // sweep.block)
        self.round: tuple[list[Statement], list[Statement]] = [], []  # what is done before and after them
        self.each, self.tasks = self.shares(sweep)
        self.task, self.block = Axis("task"), Axis("block")
        self.numbers = itertools.count()
        self.name = sweep.name
        self.comment = "; ".join(" ".join(node.op.name for node in part.nodes) for part in sweep.parts)
        self.partial: dict[Buffer, _Partial] = {}
        # Rows that are added up apart, where they are added up row by row.
        self.piece = next(
            (rows for rows in (2 * limits.chain_in_lanes, limits.chain_in_lanes) if sweep.block % rows == 0),
            sweep.block,
        )
        self.packing: list[Statement] = []  # of right operands of products, row by row
        self.kept: dict[Ref, tuple[Buffer, Address]] = {}  # where a sum over rows is kept, within a task

    def shares(self, sweep: Sweep) -> tuple[int, int]:
        """Blocks of a task, and tasks."""
        each = -(-self.blocks // min(sweep.tasks, self.blocks))
        if each * sweep.block > self.limits.long_in_lanes:
            each -= each % self.turns  # whole rounds
        return each, -(-self.blocks // each)

    def over_blocks(self, body: Body) -> For:
        """The loop over a task's blocks, in rounds where something is done once for several of them."""
        before, after = self.round

        def bounded(start: Address, count: int) -> Bound | None:
            return Bound(start, count) if self.blocks % self.each else None

        blocks = For(
            self.block, self.each, body, bound=bounded(Affine(0, {self.task: self.each}), self.blocks)
        )
        if not before:
            return blocks
        axis, turns = Axis("round"), self.turns
        inside = bounded(Affine(0, {self.task: self.each, axis: turns}), self.blocks)
        blocks = replace(moved(blocks, Affine(0, {axis: turns})), extent=turns, bound=inside)
        rounds = bounded(Affine(0, {self.task: self.each // turns}), -(-self.blocks // turns))
        return For(axis, self.each // turns, (*before, blocks, *after), bound=rounds)

    @property
    def start(self) -> Address:
        """The first row of the block."""
        blocks = {self.block: self.length} if self.each > 1 else {}
        return Affine(0, {self.task: self.each * self.length, **blocks})

    @property
    def bound(self) -> Bound | None:
        """Where the rows of a block may end early."""
        return Bound(self.start, self.rows) if self.rows % self.length else None

    def fresh(self, dtype: np.dtype) -> Ref:
        """A new name."""
        return Ref(next(self.numbers), dtype)

    def split(
        self, body: Body, around: tuple[tuple[Axis, int], ...]
    ) -> tuple[list[Statement], list[Statement]]:
        """What each block does, and what is done once after the last; ``around`` are the loops outside of the
        one over rows.
        """
        at = next((i for i, s in enumerate(body) if isinstance(s, For) and _has_loop(s, self.axis)), None)
        assert at is not None, "a kernel of a sweep has no loop over its rows"
        loop = body[at]
        assert isinstance(loop, For)
        before, after = body[:at], body[at + 1 :]
        sums = {s.ref: s.combine for s in before if isinstance(s, Init)}
        if loop.axis.name != self.axis:
            inner, final = self.split(loop.body, (*around, (loop.axis, loop.extent)))
            turned = self.row_by_row(loop) if loop.extent >= self.limits.wide else []
            block: list[Statement] = [*before, *(turned or [replace(loop, body=tuple(inner))])]
            rest = [*before, replace(loop, body=tuple(final)), *after] if final else []
            return block, rest
        if not sums:
            assert all(isinstance(s, For) and s.axis.name == self.axis for s in after), (
                "only sums over rows are finished later"
            )
            return [*before, self.cut(loop), *(self.cut(s) for s in after if isinstance(s, For))], []
        block, rest = self.kept_sums(sums, around)
        return [*before, self.cut(loop), *block], [*before, *rest, *after]

    def kept_sums(
        self, sums: dict[Ref, str], around: tuple[tuple[Axis, int], ...]
    ) -> tuple[list[Statement], list[Statement]]:
        """What adds sums over a block's rows to those of its task, and what combines those of all tasks."""
        block: list[Statement] = []
        rest: list[Statement] = []
        for ref, combine in sums.items():
            wide = bool(around) and around[-1][1] >= self.limits.wide
            buffer, place = self.place(
                ref, combine, around, self.each * (self.length // self.piece if wide else 1)
            )
            block += self.joined(buffer, place + Affine(0, {self.task: self.partial[buffer].size}), ref)
            rest.append(self.over_tasks(ref, combine, buffer, place))
        return block, rest

    def kernel(self, program: Program, kernel: Kernel) -> Body:
        """A kernel's loops over all rows."""
        return ir.renumbered(lower_kernel(program, kernel).body, self.numbers)

    def joined(self, buffer: Buffer, here: Address, value: Ref) -> list[Statement]:
        """What adds ``value`` to a partial sum."""
        partial = self.partial[buffer]
        old, total = self.fresh(value.dtype), self.fresh(value.dtype)
        made: list[Statement] = [
            Let(old, Load(buffer, here)),
            Let(total, Scalar(_scalar(partial.combine), (old, value))),
            Store(buffer, here, total),
        ]
        if partial.lost is not None:
            before, lost = self.fresh(value.dtype), self.fresh(value.dtype)
            error, computed = rounded_away(old, value, total, self.fresh)
            made += [
                *computed,
                Let(before, Load(partial.lost, here)),
                Let(lost, Scalar("add", (before, error))),
                Store(partial.lost, here, lost),
            ]
        return made

    def over_tasks(self, ref: Ref, combine: str, buffer: Buffer, place: Address) -> For:
        """The loop that combines, in order, what the tasks keep at ``place``."""
        axis, part = Axis(f"{self.task.name}s"), self.fresh(ref.dtype)
        partial = self.partial[buffer]
        here = place + Affine(0, {axis: partial.size})
        body: list[Statement] = [Let(part, Load(buffer, here))]
        if partial.lost is not None:
            lost = self.fresh(ref.dtype)
            part, computed = restored(part, lost, self.fresh)
            body += [Let(lost, Load(partial.lost, here)), *computed]
        return For(axis, self.tasks, (*body, Accumulate(ref, combine, part)))

    def row_by_row(self, loop: For) -> list[Statement]:
        """Sums down many columns, row by row in memory: going down the columns, each step would land on
        another page.

        Where a task has many rows, those of a piece, or of a round of blocks, are added up apart, and their
        sums to those of the task.
        """
        rows = next((s for s in loop.body if isinstance(s, For)), None)
        if rows is None or rows.axis.name != ROWS or any(isinstance(s, For) for s in rows.body):
            return []
        each: list[Statement] = [s for s in loop.body[: loop.body.index(rows)] if isinstance(s, Let)]
        before: list[Statement] = []
        after: list[Statement] = []
        apart = self.each * self.length > max(self.limits.long_in_lanes, self.piece)
        for statement in rows.body:
            if isinstance(statement, Accumulate):
                buffer, place = self.kept[statement.ref]
                here = place + Affine(0, {self.task: self.partial[buffer].size})
                if apart:
                    sums = Buffer(
                        f"{self.name}b{statement.ref.number}",
                        buffer.dtype,
                        self.partial[buffer].size,
                        "scratch",
                    )
                    before += self.fill(sums, Affine(), sums.size, statement.combine)
                    total = self.fresh(buffer.dtype)
                    after += [Let(total, Load(sums, place)), *self.joined(buffer, here, total)]
                    buffer, here = sums, place
                each.append(Store(buffer, here, statement.value, combine=statement.combine))
            else:
                each.append(statement)
        turned = self.cut(replace(rows, body=(replace(loop, body=tuple(each)),)))
        if not apart:
            return [turned]
        if self.turns > 1:
            self.round[0].extend(before)
            self.round[1].append(replace(loop, body=tuple(after)))
            return [turned]
        axis = Axis("piece")
        here = Affine(0, {axis: self.piece})
        bound = Bound(self.start + here, self.rows) if self.rows % self.piece else None
        turned = replace(moved(turned, here), extent=self.piece, bound=bound)
        whole = Affine(0, {a: factor // self.piece for a, factor in self.start.terms.items()})
        bound = Bound(whole, -(-self.rows // self.piece)) if self.bound is not None else None
        return [
            For(
                axis,
                self.length // self.piece,
                (*before, turned, replace(loop, body=tuple(after))),
                bound=bound,
            )
        ]

    def cut(self, loop: For) -> For:
        """The loop over rows, over one block of them."""

        def from_start(address: Address) -> Address:
            factor = address[loop.axis]
            return address + self.start * factor if factor else address

        def each(statement: Statement) -> Statement:
            if isinstance(statement, For):
                return replace(statement, body=tuple(map(each, statement.body)))
            buffer = _buffer(statement)  # scratch holds the rows of the block only
            return (
                statement
                if buffer is not None and buffer.kind == "scratch"
                else map_addresses(statement, from_start)
            )

        return replace(loop, extent=self.length, bound=self.bound, body=tuple(map(each, loop.body)))

    def multiply(self, program: Program, product: Product) -> tuple[list[Statement], list[Statement]]:
        """A product with a row of its result for each row, or one that sums over rows: what a block adds, and
        the sum over tasks at the end.
        """
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
        each = Multiply(
            Matrix(sums, Affine(0, {self.task: cells}), product.n),
            x,
            y,
            (product.m, product.n, self.length),
            adds=True,
            bound=self.bound,
        )
        cell, total = Axis("cell"), self.fresh(out.dtype)
        place = Affine(0, {cell: 1})
        final = (Init(total, "add"), self.over_tasks(total, "add", sums, place), Store(out, place, total))
        return [each], [For(cell, cells, final)]

    def pack(self, right: Matrix, product: Product) -> Matrix:
        """A right operand whose rows do not lie end to end, copied once for all blocks."""
        k, n = product.k, product.n
        dtype = right.buffer.dtype
        number = len(self.packing)
        buffer = Buffer(f"{self.name}y{number}", dtype, k * n, self.packed)
        term, column, value = Axis(f"k{number}"), Axis(f"n{number}"), self.fresh(dtype)
        load = Let(value, Load(right.buffer, right.at(Affine(0, {term: 1}), Affine(0, {column: 1}))))
        store = Store(buffer, Affine(0, {term: n, column: 1}), value)
        self.packing.append(For(term, k, (For(column, n, (load, store)),)))
        return Matrix(buffer, Affine(), n)

    def place(
        self, ref: Ref, combine: str, around: tuple[tuple[Axis, int], ...], terms: int
    ) -> tuple[Buffer, Address]:
        """A partial sum's buffer, and its element's address within a task, which adds ``terms`` of them
        up.
        """
        size, address = 1, Affine[Axis]()
        for axis, extent in reversed(around):
            address = address + Affine(0, {axis: size})
            size *= extent
        buffer = Buffer(f"{self.name}p{ref.number}", ref.dtype, size * self.tasks, "local")
        keeps = combine == "add" and ref.dtype.kind == "f" and terms > self.limits.chain
        lost = Buffer(f"{self.name}l{ref.number}", ref.dtype, size * self.tasks, "local") if keeps else None
        self.partial[buffer] = _Partial(size, combine, lost)
        self.kept[ref] = buffer, address
        return buffer, address

    def opening(self) -> tuple[list[Statement], list[Statement]]:
        """What stands before all tasks, and what a task does before its first block: its sums are nothing
        yet.
        """
        statements: list[Statement] = []
        for buffer, partial in self.partial.items():
            for each in (buffer, partial.lost):
                if each is not None:
                    statements += self.fill(
                        each, Affine(0, {self.task: partial.size}), partial.size, partial.combine
                    )
        return self.packing, statements

    def fill(self, buffer: Buffer, start: Address, size: int, combine: str) -> list[Statement]:
        """Elements of a buffer before anything is combined with them."""
        zero, axis = self.fresh(buffer.dtype), Axis("cell")
        store = Store(buffer, start + Affine(0, {axis: 1} if size > 1 else {}), zero)
        return [
            Let(zero, ir.Const(identity(combine, buffer.dtype))),
            For(axis, size, (store,)) if size > 1 else store,
        ]


class _Batch(_Maker):
    """The elements of a batch as tasks: a sum over the rows of one goes straight to its place, and nothing
    remains for the end.
    """

    axis = "i1"
    packed = "scratch"

    def __init__(self, sweep: Sweep, limits: SumLimits) -> None:
        super().__init__(sweep, limits)
        self.added: list[
            tuple[Matrix, int]
        ] = []  # results that the blocks of a task add to, and their elements

    def shares(self, sweep: Sweep) -> tuple[int, int]:
        return self.blocks, sweep.batch

    @property
    def start(self) -> Address:
        return Affine(0, {self.block: self.length} if self.each > 1 else {})

    def kernel(self, program: Program, kernel: Kernel) -> Body:
        """A kernel's loops over the rows of the task's element."""

        def each(statement: Statement, batch: Axis) -> Statement:
            if isinstance(statement, For):
                return replace(statement, body=tuple(each(s, batch) for s in statement.body))
            buffer = _buffer(statement)
            scratch = (
                buffer is not None and buffer.kind == "scratch"
            )  # it holds the rows of a block of this element only

            def of_task(address: Address) -> Address:
                factor = address[batch]
                return (
                    address + Affine(0, {batch: -factor, self.task: 0 if scratch else factor})
                    if factor
                    else address
                )

            return map_addresses(statement, of_task)

        taken: list[Statement] = []
        for statement in super().kernel(program, kernel):
            if isinstance(statement, For):
                assert statement.axis.name == ROWS, "the outermost loop is that over the batch"
                taken += [each(s, statement.axis) for s in statement.body]
            else:
                taken.append(statement)
        return tuple(taken)

    def multiply(self, program: Program, product: Product) -> tuple[list[Statement], list[Statement]]:
        """One product of the batch: what a block computes, or adds to the result."""
        left, right = (program.buffers[storage(arg)] for arg in product.node.args)
        sums = sums_over_rows(product)
        of_x, of_y, of_out = product.batch_strides

        def matrix(buffer: Buffer, stride: int, strides: tuple[int, int], row: int) -> Matrix:
            # Scratch holds the rows of the block only.
            at = Affine() if buffer.kind == "scratch" else self.start * row + Affine(0, {self.task: stride})
            return Matrix(buffer, at, *strides)

        x = matrix(left, of_x, product.lhs, product.lhs[1 if sums else 0])
        y = matrix(right, of_y, product.rhs, product.rhs[0] if sums else 0)
        out = matrix(program.buffers[product.node], of_out, (product.n, 1), 0 if sums else product.n)
        if sums:
            self.added.append((out, product.m * product.n))
            return [Multiply(out, x, y, (product.m, product.n, self.length), adds=True)], []
        y = self.pack(y, product) if y.column != 1 else y
        return [Multiply(out, x, y, (self.length, product.n, product.k))], []

    def opening(self) -> tuple[list[Statement], list[Statement]]:
        fills = [
            statement
            for out, cells in self.added
            for statement in self.fill(out.buffer, out.address, cells, "add")
        ]
        return [], [*self.packing, *fills]


def _buffer(statement: Statement) -> Buffer | None:
    if isinstance(statement, Let) and isinstance(statement.value, Load):
        return statement.value.buffer
    return statement.buffer if isinstance(statement, Store) else None


def _has_loop(loop: For, name: str) -> bool:
    return loop.axis.name == name or any(isinstance(s, For) and s.axis.name == name for s in walk(loop.body))


def _scalar(combine: str) -> str:
    return {"max": "maximum", "min": "minimum"}.get(combine, combine)
