"""Writes out a product of known shape: the loops around its native parts, made for one `Plan`.

Job: a function for the blocks of a product whose B is read where it lies, packed at once when small, or
packed panel by panel (`Packing`), over the whole batch. Which code runs inside (register tiles, rows of B,
dot products, term by term) is decided in `plan.py`.
Input: a `Plan`.  Output: one function ``name(context, block)`` in the program's module, and how to call it.
Invariant: each element of C is the sum of chains of fused multiply-adds in the order of k, of some 256 terms
each, except that of a small C of many terms fixed segments of k are summed apart, that long rows are streamed
(`streamed.py`), and that few columns are dot products (`dots.py`).

Packing in chunks costs a pass over B, and the product of any shape (`packed.py`) some hundred nanoseconds of
decisions: small products and those of few rows cannot repay them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphjit.backend.llvm.products.choose_tiles import Strip
from graphjit.backend.llvm.products.dots import DOTS_PARAMETERS, declare_dots
from graphjit.backend.llvm.products.extents import (
    Extent,
    block_extents,
    call_in_blocks,
    each,
    left_of,
    minus,
    overlap,
    plus,
    times,
)
from graphjit.backend.llvm.products.panels import call_pack, declare_transpose, pack_panel
from graphjit.backend.llvm.products.plan import Packing, Plan, Way
from graphjit.backend.llvm.products.streamed import ROWS, ROWS_PARAMETERS, declare_rows
from graphjit.backend.llvm.products.tile import TILE_PARAMETERS, declare_tile
from graphjit.backend.llvm.products.vectors import VectorType, arguments
from graphjit.backend.llvm.products.workspace import give_workspace, take_workspace
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import DRIVER, HOT, Value, Writer


def emit_direct(module: Module, name: str, plan: Plan) -> None:
    """Add ``name(context, block)``: context holds A, B, C (of the oriented product) and the memory for
    partial sums.
    """
    w = _WAYS[plan.way](module, name, plan)
    w.block()
    w.finish()


def call_direct(w: Writer, name: str, plan: Plan, bases: Sequence[str]) -> None:
    """Call the function that `emit_direct` made, in blocks; ``bases`` are the addresses of A, B and C in the
    `Plan.order`.
    """
    partial = take_workspace(w, 1) if plan.partial_bytes else "null"
    call_in_blocks(w, name, [*bases, partial], plan.cuts.blocks, plan.nanoseconds)
    if plan.cuts.segments > 1:
        _add_segments(w, plan, bases[2], partial)
        give_workspace(w, partial)


def _add_segments(w: Writer, plan: Plan, target: str, partial: str) -> None:
    """Add the sums of all segments of k to that of the first, in their order."""
    tile, cells = plan.tile, plan.product.m * plan.product.n
    w.fn.driver = False  # it adds in a loop of its own
    with w.loop(0, cells) as cell:
        place = w.at(target, w.mul(cell, tile.size))
        total = w.load(tile.element, place, tile.size)
        for segment in range(plan.cuts.segments - 1):
            part = w.at(w.at(partial, segment * cells * tile.size), w.mul(cell, tile.size))
            total = w.op(f"fadd {tile.element} {total}, {w.load(tile.element, part, tile.size)}")
        w.store(tile.element, total, place, tile.size)


class _Block(Writer):
    """The function of a block under construction: where its operands lie, and what it covers of each axis."""

    def __init__(self, module: Module, name: str, plan: Plan) -> None:
        attributes = HOT if plan.way is Way.WRITTEN_OUT else DRIVER
        super().__init__(module, name, [("ptr", "context"), ("i64", "block")], attributes=attributes)
        self.plan, self.tile, self.tiling = plan, plan.tile, plan.tiling
        self.size, self.vector_bytes = plan.tile.size, plan.tile.vector.nbytes
        self.product = p = plan.product
        self.a, self.b, self.c, partial = (self.load("ptr", self.at("%context", 8 * i)) for i in range(4))
        self.packs = plan.packing is not Packing.NONE
        self.borrows = plan.packed_bytes > module.limits.products.packed_on_stack
        self.buffer = self._take_buffer()
        terms = p.k // ROWS if plan.way is Way.STREAMED else p.k
        counts = (p.batch, terms, len(self.tiling.panels), self.tiling.tiles)
        extents = block_extents(self, "%block", counts, plan.cuts)
        self.batches, self.terms, self.panels, self.tiles = extents
        if plan.cuts.segments > 1:
            self._choose_sum(partial)

    def block(self) -> None:
        """All that the block does."""
        raise NotImplementedError

    def _take_buffer(self) -> str:
        """Where a block packs B."""
        if self.plan.packing is Packing.PANEL:  # without memory B is read where it lies
            return take_workspace(self, 0)
        if self.borrows:
            return take_workspace(self, 1)
        return self.fn.alloca(f"[{self.plan.packed_bytes} x i8]", 64) if self.packs else ""

    def give_buffer(self) -> None:
        """Give back what was borrowed to pack B."""
        if self.plan.packing is Packing.PANEL:
            with self.when(self.has_buffer()):
                give_workspace(self, self.buffer)
        elif self.borrows:
            give_workspace(self, self.buffer)

    def has_buffer(self) -> str:
        """Whether there was memory for a panel."""
        return self.op(f"icmp ne ptr {self.buffer}, null")

    def _choose_sum(self, partial: str) -> None:
        """The first segment of k is summed in C, each other one in memory of its own."""
        cuts, p = self.plan.cuts, self.product
        segment = self.rem(self.div("%block", cuts.panels * cuts.rows), cuts.segments)
        other = self.at(partial, self.mul(self.sub(segment, 1), p.m * p.n * self.size))
        self.c = self.select(self.test("eq", segment, 0), self.c, other, "ptr")

    def operand(self, which: int, element: Value) -> str:
        """A (0) or B (1) of one product of the batch."""
        step = self.product.batch_strides[which] * self.size
        return self.at((self.a, self.b)[which], times(self, element, step))

    def result(self, element: Value) -> str:
        """C of one product of the batch."""
        return self.at(self.c, times(self, element, self.product.m * self.product.n * self.size))

    def panels_of(self, strip: Strip) -> Extent:
        """Panels of a strip that this block covers."""
        return overlap(self, self.panels, strip.first, strip.last)

    def first_vector(self, strip: Strip, panel: Value) -> Value:
        """The first vector of a panel."""
        return plus(self, times(self, plus(self, panel, -strip.first), strip.width), strip.vector)


class _TilesBlock(_Block):
    """`Way.TILES`: blocks of k, in them panels of B, in them tiles of rows (where all panels are packed, the
    other way round: they stay for all rows).
    """

    def block(self) -> None:
        """Each product of the batch, in blocks of k."""
        p, size = self.product, self.size
        with each(self, self.batches) as element, each(self, self.terms, self.plan.k_block) as k0:
            self.count = left_of(self, self.plan.k_block, self.terms[1], k0)
            self.a_k = self.at(self.operand(0, element), times(self, k0, p.lhs[1] * size))
            self.b_k = self.at(self.operand(1, element), times(self, k0, p.rhs[0] * size))
            self.c_k = self.result(element)
            self.continues = "0" if k0 == 0 else self.test("ne", k0, self.terms[0])
            if self.plan.packing is Packing.BLOCK:
                for strip, vector in self.each_panel():
                    self.pack(strip, vector)
                with each(self, self.tiles) as index:
                    for strip, vector in self.each_panel():
                        self.one_tile(strip, vector, index)
            else:
                for strip, vector in self.each_panel():
                    if self.packs:
                        with self.when(self.has_buffer()):
                            self.pack(strip, vector)
                    with each(self, self.tiles) as index:
                        self.one_tile(strip, vector, index)
        self.give_buffer()

    def each_panel(self) -> Iterator[tuple[Strip, Value]]:
        """Panels of this block with their strips and first vectors."""
        for strip in self.tiling.strips():
            with each(self, self.panels_of(strip)) as panel:
                yield strip, self.first_vector(strip, panel)

    def pack(self, strip: Strip, vector: Value) -> None:
        """Copy a panel of B into the buffer."""
        alone = self.plan.packing is Packing.PANEL
        target = self.buffer if alone else self.panel_of_b(strip, vector)[0]
        p = self.product
        pack_panel(self, self.tile, p.n, p.rhs, strip, vector, (target, self.b_k, self.count))

    def panel_of_b(self, strip: Strip, vector: Value) -> tuple[str, Value]:
        """Where a panel of B lies, and the distance of its rows."""
        packed_step = strip.width * self.vector_bytes
        if self.plan.packing is Packing.BLOCK:
            place = times(self, vector, self.plan.k_block * self.vector_bytes)
            return self.at(self.buffer, place), packed_step
        panel = self.at(self.b_k, times(self, vector, self.product.rhs[1] * self.vector_bytes))
        step = self.product.rhs[0] * self.size
        if not self.packs:
            return panel, step
        packed = self.has_buffer()
        return self.select(packed, self.buffer, panel, "ptr"), self.select(packed, packed_step, step)

    def one_tile(self, strip: Strip, vector: Value, index: Value) -> None:
        """Call one register tile."""
        p, tile, size, rows = self.product, self.tile, self.size, self.tiling.rows
        row = times(self, index, rows)
        panel, step = self.panel_of_b(strip, vector)
        target = self.at(
            self.at(self.c_k, times(self, row, p.n * size)), times(self, vector, self.vector_bytes)
        )
        values = [
            left_of(self, rows, p.m, row),
            minus(self, p.n - (strip.width - 1) * tile.lanes, times(self, vector, tile.lanes)),
            self.count,
            self.at(self.a_k, times(self, row, p.lhs[0] * size)),
            *(step_of_a * size for step_of_a in p.lhs),
            *(panel, step, target, p.n * size, self.continues),
        ]
        function = declare_tile(self.module, tile, rows, strip.width, strip.half)
        self.call(function, arguments(TILE_PARAMETERS, values))


class _DotsBlock(_Block):
    """`Way.DOTS`: groups of rows; columns of B that are not contiguous are copied first."""

    def block(self) -> None:
        """Each product of the batch, group by group."""
        p, tile, size, rows = self.product, self.tile, self.size, self.tiling.rows
        with each(self, self.batches) as element:
            a, b = self.operand(0, element), self.operand(1, element)
            c, step = self.result(element), p.rhs[1] * size
            if self.packs:
                if p.rhs[1] == 1:
                    declare_transpose(self.module, tile)
                call_pack(self, tile, [self.buffer, b, p.rhs[1] * size, p.rhs[0] * size, p.n, p.k, p.k])
                b, step = self.buffer, p.k * size
            with each(self, self.tiles) as index:
                row = times(self, index, rows)
                left = self.at(a, times(self, row, p.lhs[0] * size))
                target = self.at(c, times(self, row, p.n * size))
                count = left_of(self, rows, p.m, row)
                values = [count, p.k, left, p.lhs[0] * size, b, step, target, p.n * size]
                self.call(declare_dots(self.module, tile, p.n), arguments(DOTS_PARAMETERS, values))
        self.give_buffer()


class _WrittenOutBlock(_Block):
    """`Way.WRITTEN_OUT`: term by term, with B in registers; each row of C is one chain of multiply-adds."""

    def block(self) -> None:
        """Each product of the batch: all of its rows, or a loop over them."""
        p = self.product
        vector = VectorType(self.tile.kind, p.n, self.tile.fused)
        vector.declare_multiply_add(self.module)
        with each(self, self.batches) as element:
            a, b, c = self.operand(0, element), self.operand(1, element), self.result(element)
            right = [vector.load(self, self.at(b, term * p.rhs[0] * self.size)) for term in range(p.k)]
            if p.m * p.k <= self.module.limits.products.written_rows:
                for row in range(p.m):
                    self.one_row(vector, row, a, right, c)
            else:
                with self.loop(0, p.m) as index:
                    self.one_row(vector, index, a, right, c)

    def one_row(self, vector: VectorType, row: Value, a: str, right: list[str], c: str) -> None:
        """One row of C from one of A and all of B."""
        p, size = self.product, self.size
        total = "zeroinitializer"
        first = self.at(a, times(self, row, p.lhs[0] * size))
        for term, row_of_b in enumerate(right):
            factor = self.load(vector.element, self.at(first, term * p.lhs[1] * size), size)
            total = vector.multiply_add(self, vector.spread(self, factor), row_of_b, total)
        vector.store(self, total, self.at(c, times(self, row, p.n * size)))


class _StreamedBlock(_Block):
    """`Way.STREAMED`: chunks of columns, then `ROWS` terms at a time; ``terms`` counts those groups."""

    def __init__(self, module: Module, name: str, plan: Plan) -> None:
        super().__init__(module, name, plan)
        # Rows of C lie as far apart as those of B, and would displace them: they are added up side by side.
        self.step = max(panel.width for panel in self.tiling.panels) * self.vector_bytes
        self.sums = self.fn.alloca(f"[{self.product.m * self.step} x i8]", 64) if self.product.m > 1 else ""

    def block(self) -> None:
        """Each product of the batch, chunk by chunk."""
        with each(self, self.batches) as element:
            a = self.operand(0, element)
            for strip in self.tiling.strips():
                with each(self, self.panels_of(strip)) as panel:
                    vector = self.first_vector(strip, panel)
                    place = times(self, vector, self.vector_bytes)
                    b = self.at(self.operand(1, element), place)
                    target = self.at(self.result(element), place)
                    rest = minus(self, self.product.n, times(self, vector, self.tile.lanes))
                    columns = self.min(strip.width * self.tile.lanes, rest)
                    self.chunk(a, b, self.sums or target, columns)
                    if self.sums:
                        self.copy_sums(target, columns)

    def chunk(self, a: str, b: str, c: str, columns: str) -> None:
        """All terms of this block for one chunk of columns."""
        groups, rest = divmod(self.product.k, ROWS)
        if groups:
            with each(self, self.terms) as group:
                continues = "0" if group == 0 else self.test("ne", group, self.terms[0])
                self.rows(ROWS, group, (a, b, c), columns, continues)
        if rest:
            with self.when(self.test("eq", self.terms[1], groups)):
                self.rows(rest, groups, (a, b, c), columns, "1" if groups else "0")

    def rows(
        self, count: int, group: Value, matrices: tuple[str, str, str], columns: str, continues: str
    ) -> None:
        """``count`` terms of one group."""
        p, (a, b, c) = self.product, matrices
        (row_of_a, column_of_a), row_of_b = (step * self.size for step in p.lhs), p.rhs[0] * self.size
        left = self.at(a, times(self, group, ROWS * column_of_a))
        right = self.at(b, times(self, group, ROWS * row_of_b))
        values: list[Value] = [columns, left, column_of_a, right, row_of_b, c, continues]
        values += [p.m, row_of_a, self.step]
        function = declare_rows(self.module, self.tile, count, p.m > 1)
        self.call(function, arguments(ROWS_PARAMETERS, values))

    def copy_sums(self, target: str, columns: str) -> None:
        """Copy what was added up side by side into the rows of C."""
        p, copy = self.product, "llvm.memcpy.p0.p0.i64"
        self.module.declare(copy, f"declare void @{copy}(ptr, ptr, i64, i1)")
        for row in range(p.m):
            source, nbytes = self.at(self.sums, row * self.step), self.mul(columns, self.size)
            to = self.at(target, row * p.n * self.size)
            self.do(f"call void @{copy}(ptr {to}, ptr {source}, i64 {nbytes}, i1 false)")


_WAYS: dict[Way, type[_Block]] = {
    Way.TILES: _TilesBlock,
    Way.DOTS: _DotsBlock,
    Way.WRITTEN_OUT: _WrittenOutBlock,
    Way.STREAMED: _StreamedBlock,
}
