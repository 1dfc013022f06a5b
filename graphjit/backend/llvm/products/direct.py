"""Products that need no packing buffer, written out for their shape.

Job: the loops around the register tiles for a product whose B is read in place (or packed at once, when
small), over the whole batch.
Input: shape and strides, all known. Output: one function ``name(context, block)`` in the program's module,
and how to call it.
Invariants: what a block is, which tiles are used and in which order k is summed are functions of shape and
storage order alone; each element of C is the sum of chains of fused multiply-adds in the order of k, of some
256 terms each, except that of a small C of many terms fixed segments of k are summed apart, that long rows
are streamed (`streamed.py`), and that few columns are dot products (`dots.py`).

Packing costs a pass over B, the library's product some hundred nanoseconds of decisions: small products and
those of few rows cannot repay them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from graphjit.backend.llvm.products.dots import PARAMETERS as DOTS_PARAMETERS
from graphjit.backend.llvm.products.dots import declare as declare_dots
from graphjit.backend.llvm.products.dots import rows_for
from graphjit.backend.llvm.products.pack import call_pack, declare_transpose
from graphjit.backend.llvm.products.room import (
    MAX_SEGMENTS,
    PARTIAL_BYTES,
    ROOM,
    SEGMENT,
    give_room,
    take_room,
)
from graphjit.backend.llvm.products.streamed import PARAMETERS as ROWS_PARAMETERS
from graphjit.backend.llvm.products.streamed import ROWS
from graphjit.backend.llvm.products.streamed import declare as declare_rows
from graphjit.backend.llvm.products.tile import TILE_PARAMETERS, Tile, declare, spread
from graphjit.backend.llvm.products.tiling import Kind, Tiling, even_panels, tiling
from graphjit.backend.llvm.threads.fork_join import WORTH_SPINNING_NS
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import DRIVER, HOT, Value, Writer

IN_PLACE_BYTES = 128 << 10
"""Size of B up to which many rows read it in place: it stays in the second-level cache, far from filling it.
"""
PACKED_BYTES = 32 << 10
"""Size of B up to which it is packed when its rows are not contiguous."""
PACKED_ON_STACK = 4 << 10
"""Bytes of packed B on the stack at the most."""
FEW_TILES = 3
"""Register tiles of rows up to which B is read in place whatever its size: too few to repay packing."""
CACHE_BYTES = 1 << 20
"""Size from which the matrices of a batch come from memory: about the second-level cache."""
FAR_BYTES = 4 << 20
"""Size from which B comes from memory, or from a cache so far away that it is the same."""
K_BLOCK = 256
"""Terms of k per block, about: a panel then stays in the second-level cache."""
BYTES_PER_NS = 16
"""What memory delivers."""
WIDE = 32
"""Vectors in a row from which a row vector, or a few rows, times a large matrix streams whole rows."""
CHUNK = 128
"""Vectors of the result at a time then, at the most: they stay in the first-level cache."""
STREAM_ROWS = 24
"""Rows up to which they do, where B comes from memory."""
SUMS = 512
"""Vectors of all rows at a time, at the most."""
PANELS = 4
"""Pieces of several rows at the least, for threads to share."""
STREAM_SEGMENTS = 4
"""Segments of k then, at the most: long rows are worth more than a short sum of segments costs."""
ADD_LANES = 5
"""Cycles to add the lanes of a dot product."""
COPY = 5
"""Cycles to copy an element of B that does not lie next to the one before."""
NARROW = 0.55
"""Cycles per element of A in a register tile with one vector of columns: each is spread over a vector of its
own.
"""
FEW = 16
"""Multiply-adds of vectors up to which every row of such a product is written out; beyond that one row is, in
a loop, which compiles sooner.
"""
SMALL = 8
"""Rows and terms up to which products of one vector of columns are written out: to set up a register tile
takes longer than such a product.
"""
SEVERAL = 32
"""Products of a batch from which that is done: fewer do not repay 3 ms of compilation."""
BLOCK_NS = 5_000
"""Estimated work of a block at the least ..."""
SMALL_BLOCK_NS = WORTH_SPINNING_NS
"""... or so little where there are not more than SMALL_BLOCKS: workers that are awake then halve a product of
a few microseconds.
"""
SMALL_BLOCKS = 4
MAX_BLOCKS = 64


@dataclass(frozen=True)
class Matrices:
    """``batch`` products C = A B; strides in elements, C's rows are contiguous and lie end to end."""

    m: int
    n: int
    k: int
    lhs: tuple[int, int]
    rhs: tuple[int, int]
    batch: int = 1
    batch_strides: tuple[int, int] = (0, 0)

    @cached_property
    def swapped(self) -> bool:
        """Whether C = B^T A^T is computed instead: a column is a row then, and A may be what is read in
        vectors.
        """
        return self.n == 1 and self.m > 1 and self.lhs[0] == 1

    def oriented(self) -> Matrices:
        """The product to compute, with operands exchanged when `swapped`."""
        if not self.swapped:
            return self
        return Matrices(
            1, self.m, self.k, self.rhs[::-1], self.lhs[::-1], self.batch, self.batch_strides[::-1]
        )


@dataclass(frozen=True)
class Plan:
    """How a product runs."""

    product: Matrices
    tile: Tile
    tiling: Tiling
    packs: bool
    k_block: int
    segments: int
    nanoseconds: int
    order: tuple[int, int, int]
    streams: bool = False
    dots: bool = False
    written_out: bool = False

    @cached_property
    def splits(self) -> tuple[int, int, int, int]:
        """Blocks along the batch, k, panels and tiles of rows."""
        small = min(self.nanoseconds // SMALL_BLOCK_NS, SMALL_BLOCKS)
        want = min(max(self.nanoseconds // BLOCK_NS, small, 1), MAX_BLOCKS)
        batch = min(self.product.batch, want)
        want = -(-want // (batch * self.segments))
        panels = min(len(self.tiling.panels), want)
        rows = min(self.tiling.tiles, -(-want // panels))
        return batch, self.segments, panels, rows

    @cached_property
    def packed_bytes(self) -> int:
        """Size of what a block packs."""
        columns = self.product.n if self.dots else self.tiling.vectors * self.tile.lanes
        size = self.k_block * columns * self.tile.size if self.packs else 0
        assert size <= ROOM
        return size

    @cached_property
    def partial_bytes(self) -> int:
        """Size of the sums of all segments but the first."""
        size = (self.segments - 1) * self.product.m * self.product.n * self.tile.size
        assert size <= ROOM
        return size

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        batch, segments, panels, rows = self.splits
        return batch * segments * panels * rows


def plan(product: Matrices, tile: Tile) -> Plan | None:
    """How to run ``product`` here, or None when the library's product is better."""
    p = product.oriented()
    if min(p.m, p.n, p.k, p.batch) < 1:
        return None
    nbytes = p.k * p.n * tile.size
    contiguous = p.rhs[1] == 1 or p.n == 1
    order = (1, 0, 2) if product.swapped else (0, 1, 2)
    large = IN_PLACE_BYTES if p.m == 1 else FAR_BYTES
    if p.m <= STREAM_ROWS and contiguous and nbytes > large and p.n >= WIDE * tile.lanes:
        vectors = -(-p.n // tile.lanes)
        chunk = CHUNK if p.m == 1 else min(CHUNK, SUMS // p.m, -(-vectors // PANELS))
        chunks = Tiling(p.m, 1, even_panels(vectors, chunk))
        nanoseconds = p.batch * max(nbytes // BYTES_PER_NS, p.m * p.n * p.k // (6 * tile.lanes))
        parts = max(
            1,
            min(
                STREAM_SEGMENTS, PARTIAL_BYTES // (tile.size * p.n) + 1, p.k // ROWS, nanoseconds // BLOCK_NS
            ),
        )
        return Plan(
            p, tile, chunks, False, ROWS, parts if p.batch == p.m == 1 else 1, nanoseconds, order, True
        )
    if p.lhs[1] == 1 and 1 < p.n < tile.lanes // 2 and nbytes <= PACKED_BYTES and _dots_pay(p, tile):
        rows = Tiling(rows_for(p.n), -(-p.m // rows_for(p.n)), even_panels(1, 1))
        nanoseconds = p.batch * max(
            p.m * p.n * p.k // (6 * tile.lanes), p.m * p.k * tile.size // BYTES_PER_NS // 2
        )
        return Plan(p, tile, rows, p.rhs[0] != 1, p.k, 1, nanoseconds, order, dots=True)
    everything = p.batch * (p.m * p.k + p.k * p.n + p.m * p.n) * tile.size
    # Operands from memory are read in long pieces of their rows: a narrow panel jumps from page to page.
    least = (
        2 * tile.vectors
        if p.batch > 1 and everything > CACHE_BYTES
        else tile.vectors
        if nbytes > FAR_BYTES
        else 1
    )
    chosen = tiling(tile, p.m, p.n, min(p.k, K_BLOCK), least)
    if contiguous and nbytes > IN_PLACE_BYTES and chosen.tiles > FEW_TILES:
        return None
    if not contiguous and nbytes > PACKED_BYTES:
        return None
    nanoseconds = p.batch * p.k * chosen.multiplications // 6
    if nbytes > IN_PLACE_BYTES:
        nanoseconds = max(nanoseconds, p.batch * nbytes // BYTES_PER_NS)
    if contiguous and max(p.m, p.k) <= SMALL and p.n <= tile.lanes and p.batch >= SEVERAL:
        return Plan(p, tile, chosen, False, p.k, 1, nanoseconds, order, written_out=True)
    segments = 1
    if p.batch == 1 and contiguous:  # who packs borrows room, and must hold no other meanwhile
        room = PARTIAL_BYTES // (tile.size * p.m * p.n) + 1
        segments = max(1, min(p.k // SEGMENT, room, MAX_SEGMENTS))
    length = -(-p.k // segments)
    k_block = -(-length // max(1, round(length / K_BLOCK)))
    return Plan(p, tile, chosen, not contiguous, k_block, segments, nanoseconds, order)


def _dots_pay(p: Matrices, tile: Tile) -> bool:
    """Whether a product of few columns is faster with vectors along k than with vectors along its columns."""
    dots = p.m * p.n * (p.k / tile.lanes + ADD_LANES) + (COPY * p.n * p.k if p.rhs[0] != 1 else 0)
    return dots < NARROW * p.m * p.k


def emit_direct(module: Module, name: str, plan: Plan) -> None:
    """Add ``name(context, block)``: context holds A, B, C (of the oriented product) and the room for partial
    sums.
    """
    p, tile, shape = plan.product, plan.tile, plan.tiling
    size = tile.size
    w = Writer(
        module, name, [("ptr", "context"), ("i64", "block")], attributes=HOT if plan.written_out else DRIVER
    )
    a, b, c, partial = (w.load("ptr", w.at("%context", 8 * i)) for i in range(4))
    buffer = _take_buffer(w, plan)
    counts = (p.batch, p.k // ROWS if plan.streams else p.k, len(shape.panels), shape.tiles)
    batches, terms, panels, tiles = _ranges(w, counts, plan.splits)
    if plan.segments > 1:
        segment = w.rem(w.div("%block", plan.splits[2] * plan.splits[3]), plan.segments)
        other = w.at(partial, w.mul(w.sub(segment, 1), p.m * p.n * size))
        c = w.select(w.test("eq", segment, 0), c, other, "ptr")
    if plan.streams:
        _emit_stream(w, plan, (a, b, c), batches, terms, panels)
        return
    if plan.written_out:
        _emit_written_out(w, plan, (a, b, c), batches)
        return
    if plan.dots:
        _emit_dots(w, plan, (a, b, c, buffer), batches, tiles)
        return
    with (
        _span(w, *batches) as element,
        _span(w, *terms, plan.k_block) as k0,
    ):
        kn = _least(w, plan.k_block, terms[1], k0)
        a_k = w.at(w.at(a, _times(w, element, p.batch_strides[0] * size)), _times(w, k0, p.lhs[1] * size))
        b_k = w.at(w.at(b, _times(w, element, p.batch_strides[1] * size)), _times(w, k0, p.rhs[0] * size))
        c_k = w.at(c, _times(w, element, p.m * p.n * size))
        goes_on = "0" if k0 == 0 else w.test("ne", k0, terms[0])

        def each_panel() -> Iterator[tuple[Kind, Value]]:
            """Panels of this block with their first vectors, kind by kind."""
            for kind in shape.kinds():
                with _span(w, *_clip(w, panels, kind.first, kind.last)) as panel:
                    yield kind, _plus(w, _times(w, _plus(w, panel, -kind.first), kind.width), kind.vector)

        def right(kind: Kind, vector: Value) -> tuple[str, int]:
            """Where a panel of B lies, and the distance of its rows."""
            if not plan.packs:
                return w.at(b_k, _times(w, vector, p.rhs[1] * tile.lanes * size)), p.rhs[0] * size
            return w.at(
                buffer, _times(w, vector, plan.k_block * tile.lanes * size)
            ), kind.width * tile.lanes * size

        def one(kind: Kind, vector: Value, index: Value) -> None:
            """One register tile."""
            row = _times(w, index, shape.rows)
            place, step = right(kind, vector)
            target = w.at(w.at(c_k, _times(w, row, p.n * size)), _times(w, vector, tile.lanes * size))
            values = [
                _least(w, shape.rows, p.m, row),
                _minus(w, p.n - (kind.width - 1) * tile.lanes, _times(w, vector, tile.lanes)),
                *(kn, w.at(a_k, _times(w, row, p.lhs[0] * size)), p.lhs[0] * size, p.lhs[1] * size),
                *(place, step, target, p.n * size, goes_on),
            ]
            function = declare(module, tile, shape.rows, kind.width, kind.half)
            w.call(
                function, [f"{of} {value}" for (of, _), value in zip(TILE_PARAMETERS, values, strict=True)]
            )

        if plan.packs:
            if p.rhs[0] == 1:
                declare_transpose(module, tile)
            for kind, vector in each_panel():
                columns = kind.width * tile.lanes
                rest = _minus(w, p.n, _times(w, vector, tile.lanes))
                valid = min(columns, rest) if isinstance(rest, int) else w.min(columns, rest)
                source = w.at(b_k, _times(w, vector, p.rhs[1] * tile.lanes * size))
                call_pack(
                    w,
                    tile,
                    [right(kind, vector)[0], source, p.rhs[0] * size, p.rhs[1] * size, kn, valid, columns],
                )
            with _span(w, *tiles) as index:
                for kind, vector in each_panel():
                    one(kind, vector, index)
        else:
            for kind, vector in each_panel():
                with _span(w, *tiles) as index:
                    one(kind, vector, index)
    _give_buffer(w, plan, buffer)
    w.finish()


def _take_buffer(w: Writer, plan: Plan) -> str:
    """Where a block packs B."""
    if plan.packed_bytes > PACKED_ON_STACK:
        return take_room(w, 1)
    return w.fn.alloca(f"[{plan.packed_bytes} x i8]", 64) if plan.packs else ""


def _give_buffer(w: Writer, plan: Plan, buffer: str) -> None:
    if plan.packed_bytes > PACKED_ON_STACK:
        give_room(w, buffer)


Span = tuple[Value, Value]


def _emit_dots(w: Writer, plan: Plan, bases: tuple[str, str, str, str], batches: Span, tiles: Span) -> None:
    """The loops of a product with few columns, as dot products; columns of B that are not contiguous are
    copied first.
    """
    p, tile, size, rows = plan.product, plan.tile, plan.tile.size, plan.tiling.rows
    with _span(w, *batches) as element:
        a, b = (w.at(bases[i], _times(w, element, p.batch_strides[i] * size)) for i in range(2))
        c, step = w.at(bases[2], _times(w, element, p.m * p.n * size)), p.rhs[1] * size
        if plan.packs:
            if p.rhs[1] == 1:
                declare_transpose(w.module, tile)
            call_pack(w, tile, [bases[3], b, p.rhs[1] * size, p.rhs[0] * size, p.n, p.k, p.k])
            b, step = bases[3], p.k * size
        with _span(w, *tiles) as index:
            row = _times(w, index, rows)
            left, target = w.at(a, _times(w, row, p.lhs[0] * size)), w.at(c, _times(w, row, p.n * size))
            values = [_least(w, rows, p.m, row), p.k, left, p.lhs[0] * size, b, step, target, p.n * size]
            typed = [f"{of} {value}" for (of, _), value in zip(DOTS_PARAMETERS, values, strict=True)]
            w.call(declare_dots(w.module, tile, p.n), typed)
    _give_buffer(w, plan, bases[3])
    w.finish()


def _emit_written_out(w: Writer, plan: Plan, bases: tuple[str, str, str], batches: Span) -> None:
    """Small products term by term, with B in registers: each row of C is one chain of multiply-adds."""
    p, elem, size = plan.product, plan.tile.element, plan.tile.size
    vec = f"<{p.n} x {elem}>"
    fma = f"llvm.fma.v{p.n}{plan.tile.kind}"
    w.module.declare(fma, f"declare {vec} @{fma}({vec}, {vec}, {vec})")
    with _span(w, *batches) as element:
        a, b = (w.at(bases[i], _times(w, element, p.batch_strides[i] * size)) for i in range(2))
        c = w.at(bases[2], _times(w, element, p.m * p.n * size))
        right = [w.load(vec, w.at(b, term * p.rhs[0] * size), size) for term in range(p.k)]

        def one(row: Value) -> None:
            total = "zeroinitializer"
            first = w.at(a, _times(w, row, p.lhs[0] * size))
            for term in range(p.k):
                left = spread(w, w.load(elem, w.at(first, term * p.lhs[1] * size), size), p.n, elem)
                if plan.tile.fused:
                    total = w.op(f"call {vec} @{fma}({vec} {left}, {vec} {right[term]}, {vec} {total})")
                else:
                    total = w.op(f"fadd {vec} {w.op(f'fmul {vec} {left}, {right[term]}')}, {total}")
            w.store(vec, total, w.at(c, _times(w, row, p.n * size)), size)

        if p.m * p.k <= FEW:
            for row in range(p.m):
                one(row)
        else:
            with w.loop(0, p.m) as index:
                one(index)
    w.finish()


def _emit_stream(
    w: Writer, plan: Plan, bases: tuple[str, str, str], batches: Span, terms: Span, panels: Span
) -> None:
    """The loops of a few rows times a matrix that streams: chunks of columns, then `ROWS` terms at a time;
    ``terms`` counts those.
    """
    p, tile, size = plan.product, plan.tile, plan.tile.size
    groups, rest = divmod(p.k, ROWS)

    def rows(count: int, group: Value, a: str, b: str, c: str, columns: str, goes_on: str) -> None:
        """``count`` terms for one chunk of columns."""
        left = w.at(a, _times(w, group, ROWS * p.lhs[1] * size))
        right = w.at(b, _times(w, group, ROWS * p.rhs[0] * size))
        values = [
            columns,
            left,
            p.lhs[1] * size,
            right,
            p.rhs[0] * size,
            c,
            goes_on,
            p.m,
            p.lhs[0] * size,
            step,
        ]
        typed = [f"{of} {value}" for (of, _), value in zip(ROWS_PARAMETERS, values, strict=True)]
        w.call(declare_rows(w.module, tile, count, p.m > 1), typed)

    # Rows of C lie as far apart as those of B, and would displace them: they are added up side by side.
    step = max(panel.width for panel in plan.tiling.panels) * tile.lanes * size
    sums = w.fn.alloca(f"[{p.m * step} x i8]", 64) if p.m > 1 else ""
    with _span(w, *batches) as element:
        a = w.at(bases[0], _times(w, element, p.batch_strides[0] * size))
        for kind in plan.tiling.kinds():
            with _span(w, *_clip(w, panels, kind.first, kind.last)) as panel:
                vector = _plus(w, _times(w, _plus(w, panel, -kind.first), kind.width), kind.vector)
                place = _times(w, vector, tile.lanes * size)
                b = w.at(w.at(bases[1], _times(w, element, p.batch_strides[1] * size)), place)
                target = w.at(w.at(bases[2], _times(w, element, p.m * p.n * size)), place)
                c = sums or target
                columns = w.min(kind.width * tile.lanes, _minus(w, p.n, _times(w, vector, tile.lanes)))
                if groups:
                    with _span(w, *terms) as group:
                        rows(
                            ROWS,
                            group,
                            a,
                            b,
                            c,
                            columns,
                            "0" if group == 0 else w.test("ne", group, terms[0]),
                        )
                if rest:
                    with w.when(w.test("eq", terms[1], groups)):
                        rows(rest, groups, a, b, c, columns, "1" if groups else "0")
                if sums:
                    w.module.declare(
                        "llvm.memcpy.p0.p0.i64", "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)"
                    )
                    for row in range(p.m):
                        source, nbytes = w.at(sums, row * step), w.mul(columns, size)
                        w.do(
                            f"call void @llvm.memcpy.p0.p0.i64(ptr {w.at(target, row * p.n * size)}, ptr {source}, i64 {nbytes}, i1 false)"
                        )
    w.finish()


def call_direct(w: Writer, name: str, plan: Plan, bases: list[str]) -> None:
    """Call the function that `emit_direct` made, in blocks; ``bases`` are the addresses of A, B and C in the
    `Plan.order`.
    """
    p, tile = plan.product, plan.tile
    cells = p.m * p.n
    partial = take_room(w, 1) if plan.partial_bytes else "null"
    context = w.fn.shared_slot("[4 x ptr]")
    for i, pointer in enumerate([*bases, partial]):
        w.store("ptr", pointer, w.at(context, 8 * i))
    if plan.blocks == 1:
        w.call(name, [f"ptr {context}", "i64 0"])
        return
    w.module.declare("gj_parallel_for", "declare void @gj_parallel_for(ptr, ptr, i64, i64)")
    w.call(
        "gj_parallel_for", [f"ptr @{name}", f"ptr {context}", f"i64 {plan.blocks}", f"i64 {plan.nanoseconds}"]
    )
    if plan.segments > 1:
        w.fn.driver = False  # it adds in a loop of its own
        target = bases[2]
        with w.loop(0, cells) as cell:
            place = w.at(target, w.mul(cell, tile.size))
            total = w.load(tile.element, place, tile.size)
            for segment in range(plan.segments - 1):
                part = w.at(w.at(partial, segment * cells * tile.size), w.mul(cell, tile.size))
                total = w.op(f"fadd {tile.element} {total}, {w.load(tile.element, part, tile.size)}")
            w.store(tile.element, total, place, tile.size)
        give_room(w, partial)


def _ranges(w: Writer, counts: tuple[int, ...], splits: tuple[int, ...]) -> list[tuple[Value, Value]]:
    """First and last + 1 of each axis for this block; the last axis varies fastest."""
    found: list[tuple[Value, Value]] = []
    rest = "%block"
    for count, split in reversed(list(zip(counts, splits, strict=True))):
        if split == 1:
            found.append((0, count))
            continue
        mine, rest = w.rem(rest, split), w.div(rest, split)
        found.append((w.div(w.mul(mine, count), split), w.div(w.mul(w.add(mine, 1), count), split)))
    return found[::-1]


@contextmanager
def _span(w: Writer, start: Value, stop: Value, step: int = 1) -> Iterator[Value]:
    """A loop, or nothing around its body when it has one turn."""
    if isinstance(start, int) and isinstance(stop, int) and start < stop <= start + step:
        yield start
    else:
        with w.loop(start, stop, step) as index:
            yield index


def _clip(w: Writer, span: tuple[Value, Value], first: int, last: int) -> tuple[Value, Value]:
    start, stop = span
    if isinstance(start, int) and isinstance(stop, int):
        return max(start, first), min(stop, last)
    return w.max(start, first), w.min(stop, last)


def _least(w: Writer, step: int, stop: Value, index: Value) -> Value:
    """min(step, stop - index), for an index before the stop."""
    if step == 1:
        return 1
    if isinstance(stop, int) and isinstance(index, int):
        return min(step, stop - index)
    return w.min(step, w.sub(stop, index))


def _times(w: Writer, value: Value, factor: int) -> Value:
    return value * factor if isinstance(value, int) else w.mul(value, factor) if factor else 0


def _plus(w: Writer, value: Value, number: int) -> Value:
    return value + number if isinstance(value, int) else w.add(value, number) if number else value


def _minus(w: Writer, number: int, value: Value) -> Value:
    return number - value if isinstance(value, int) else w.sub(number, value)
