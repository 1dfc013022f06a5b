"""Products whose left operand lies in runs: what convolutions are.

Job: write out a product of known shape whose rows and terms are those of sliding windows. Within a run, rows
lie one step apart, and so do terms; the next run begins elsewhere. The operand is read where it lies:
windows are never copied. B, small or not, is packed panel by panel where a row of it is more than one panel.
Input: a `schedule.program.Product`.  Output: one function ``name(context, block)`` in the program's module,
and how to call it.
Invariant: each element of C is the sum of chains of fused multiply-adds in the order of terms, of some 256
terms each; how terms are cut follows from the shape alone.

A block is some runs of rows by some panels. It goes over chunks of terms; in each over its panels, which are
packed then; in each over runs of rows and their tiles, for which the panel stays in the first-level cache.
Terms of several runs are one chain: the tile itself goes from one run to the next (`tile.TURN_PARAMETERS`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphjit.backend.llvm.products.choose_tiles import Strip, Tiling, choose_tiles
from graphjit.backend.llvm.products.extents import block_extents, each, left_of, minus, overlap, plus, times
from graphjit.backend.llvm.products.panels import call_pack, declare_transpose
from graphjit.backend.llvm.products.tile import TURN_PARAMETERS, Tile, declare_tile
from graphjit.backend.llvm.products.vectors import arguments
from graphjit.backend.llvm.products.workspace import PIECE_BYTES, give_workspace, take_workspace
from graphjit.backend.llvm.threads.waiting import WORTH_SPINNING_NS
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import DRIVER, Value, Writer
from graphjit.limits import Limits
from graphjit.schedule.program import Levels, Product, runs_of


@dataclass(frozen=True)
class RunsPlan:
    """How a product whose rows and terms come in runs is computed.

    Attributes:
        rows, terms: the runs of either, and in the last place the elements of a run: (length, stride).
        n: columns.
        rhs: strides of B.
        batch, batch_strides: products of a batch, and what lies between them in A and B.
        tile, tiling: the register tiles of one run of rows.
        turns: runs of terms that a tile goes through at once.
        term_block: terms of a run that it takes at once, if that is one run.
        packs: whether panels of B are packed.
        cuts: parts of the batch, of the runs of rows, of the panels and of the tiles of a run.
        nanoseconds: an estimate.
    """

    rows: Levels
    terms: Levels
    n: int
    rhs: tuple[int, int]
    batch: int
    batch_strides: tuple[int, int]
    tile: Tile
    tiling: Tiling
    turns: int
    term_block: int
    packs: bool
    cuts: tuple[int, int, int, int]
    nanoseconds: int

    @property
    def m(self) -> int:
        """All rows."""
        return math.prod(length for length, _ in self.rows)

    @property
    def row_runs(self) -> int:
        """Runs of rows."""
        return math.prod(length for length, _ in self.rows[:-1])

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return math.prod(self.cuts)


def plan_runs(step: Product, tile: Tile, limits: Limits) -> RunsPlan:
    """How to compute a product in runs."""
    products = limits.products
    rows, terms = (
        (*step.outer_rows, (step.m // runs_of(step.outer_rows), step.lhs[0])),
        (
            *step.outer_terms,
            (step.k // runs_of(step.outer_terms), step.lhs[1]),
        ),
    )
    length = terms[-1][0]
    # Runs of terms that one call of a tile goes through: as many as make a chain of the usual length.
    inner_runs = terms[-2][0] if len(terms) > 1 else 1
    turns = max(1, min(inner_runs, round(products.k_block / length)))
    turns = -(-inner_runs // -(-inner_runs // turns))
    term_block = -(-length // max(1, round(length / products.k_block)))
    deep = turns * term_block
    tiling = choose_tiles(tile, rows[-1][0], step.n, deep, limits.tiles)
    nanoseconds = (
        step.batch * runs_of(step.outer_rows) * step.k * tiling.multiplications // products.vectors_per_ns
    )
    widest = max(panel.width for panel in tiling.panels) * tile.vector.nbytes
    several = len(tiling.panels) > 1 and tiling.tiles * runs_of(step.outer_rows) > products.few_tiles
    packs = (several or step.rhs[1] != 1) and deep * widest <= PIECE_BYTES
    counts = (step.batch, runs_of(step.outer_rows), len(tiling.panels), tiling.tiles)
    return RunsPlan(
        rows,
        terms,
        step.n,
        step.rhs,
        step.batch,
        step.batch_strides[:2],
        tile,
        tiling,
        turns,
        term_block,
        packs,
        _cuts(counts, nanoseconds, limits),
        nanoseconds,
    )


def _cuts(counts: tuple[int, int, int, int], nanoseconds: int, limits: Limits) -> tuple[int, int, int, int]:
    """Blocks for threads to share: of the batch, then of runs, then of panels, then of tiles. Each block
    packs its own panels, so there are not more than threads share well.
    """
    products = limits.products
    small = min(nanoseconds // WORTH_SPINNING_NS, products.small_blocks)
    want = min(max(nanoseconds // products.block_ns, small, 1), products.run_blocks)
    found = []
    for count in counts:
        part = min(count, want)
        found.append(part)
        want = -(-want // part)
    return found[0], found[1], found[2], found[3]


def emit_runs(module: Module, name: str, plan: RunsPlan) -> None:
    """Add ``name(context, block)``: context holds A, B and C."""
    w = _Block(module, name, plan)
    w.block()
    w.finish()


def call_runs(w: Writer, name: str, plan: RunsPlan, bases: Sequence[str]) -> None:
    """Call the function that `emit_runs` made, in blocks; ``bases`` are the addresses of A, B and C."""
    context = w.fn.shared_slot("[4 x ptr]")
    for i, pointer in enumerate(bases):
        w.store("ptr", pointer, w.at(context, 8 * i))
    if plan.blocks == 1:
        w.call(name, [f"ptr {context}", "i64 0"])
        return
    w.module.declare("gj_parallel_for", "declare void @gj_parallel_for(ptr, ptr, i64, i64)")
    w.call(
        "gj_parallel_for", [f"ptr @{name}", f"ptr {context}", f"i64 {plan.blocks}", f"i64 {plan.nanoseconds}"]
    )


class _Block(Writer):
    """The function of a block under construction."""

    def __init__(self, module: Module, name: str, plan: RunsPlan) -> None:
        super().__init__(module, name, [("ptr", "context"), ("i64", "block")], attributes=DRIVER)
        self.plan, self.tile, self.size = plan, plan.tile, plan.tile.size
        self.vector_bytes = plan.tile.vector.nbytes
        self.a, self.b, self.c = (self.load("ptr", self.at("%context", 8 * i)) for i in range(3))
        counts = (plan.batch, plan.row_runs, len(plan.tiling.panels), plan.tiling.tiles)
        self.batches, self.runs, self.panels, self.tiles = block_extents(self, "%block", counts, plan.cuts)
        self.buffer = take_workspace(self, 1) if plan.packs else ""

    def block(self) -> None:
        """Each product of the batch: chunks of terms, in them panels, in them runs of rows."""
        plan, size = self.plan, self.size
        length, step = plan.terms[-1]
        runs = plan.terms[:-1]
        outer, (turns, jump) = (runs[:-1], runs[-1]) if runs else ((), (1, 0))
        with each(self, self.batches) as element:
            a = self.at(self.a, times(self, element, plan.batch_strides[0] * size))
            b = self.at(self.b, times(self, element, plan.batch_strides[1] * size))
            c = self.at(self.c, times(self, element, plan.m * plan.n * size))
            with each(self, (0, runs_of(outer))) as run, each(self, (0, turns), plan.turns) as turn:
                a_run = self.at(self.at(a, self.offset(run, outer)), times(self, turn, jump * size))
                # All terms before: B lies in their order.
                before = plus_of(self, times(self, run, turns * length), times(self, turn, length))
                with each(self, (0, length), plan.term_block) as first:
                    self.count = left_of(self, plan.term_block, length, first)
                    self.turns = left_of(self, plan.turns, turns, turn)
                    self.jump = (jump - length * step) * size
                    self.a_k = self.at(a_run, times(self, first, step * size))
                    self.b_k = self.at(b, times(self, plus_of(self, before, first), plan.rhs[0] * size))
                    self.c_k = c
                    self.continues = self.later(run, turn, first)
                    self.chunk()
        if plan.packs:
            give_workspace(self, self.buffer)

    def later(self, *counters: Value) -> str:
        """Whether one of the counters is beyond its first value: C holds a partial sum then."""
        tests = [self.test("ne", counter, 0) for counter in counters if not isinstance(counter, int)]
        if any(isinstance(counter, int) and counter for counter in counters):
            return "1"
        if not tests:
            return "0"
        found = tests[0]
        for test in tests[1:]:
            found = self.either(found, test)
        return found

    def offset(self, number: Value, levels: Levels) -> Value:
        """Bytes from the first run to run ``number`` of these levels."""
        total: Value = 0
        rest = number
        for length, stride in reversed(levels):
            if isinstance(rest, int):
                rest, digit = divmod(rest, length)
                part: Value = digit * stride * self.size
            else:
                last = levels[0] == (length, stride)
                digit_at = rest if last else self.rem(rest, length)
                part = self.mul(digit_at, stride * self.size)
                rest = rest if last else self.div(rest, length)
            total = plus_of(self, total, part)
        return total

    def chunk(self) -> None:
        """One chunk of terms."""
        plan = self.plan
        for strip in plan.tiling.strips():
            with each(self, overlap(self, self.panels, strip.first, strip.last)) as panel:
                vector = plus(self, times(self, plus(self, panel, -strip.first), strip.width), strip.vector)
                place, step = self.panel_of_b(strip, vector)
                with each(self, self.runs) as run:
                    a_run = self.at(self.a_k, self.offset(run, plan.rows[:-1]))
                    c_run = self.at(self.c_k, times(self, run, plan.rows[-1][0] * plan.n * self.size))
                    with each(self, self.tiles) as index:
                        self.one_tile(strip, vector, index, (a_run, place, c_run), step)

    def panel_of_b(self, strip: Strip, vector: Value) -> tuple[str, Value]:
        """Where the panel lies, packed or not, and the distance of its rows."""
        plan, tile = self.plan, self.tile
        source = self.at(self.b_k, times(self, vector, plan.rhs[1] * self.vector_bytes))
        row, column = (stride * self.size for stride in plan.rhs)
        if not plan.packs:
            return source, row
        if plan.rhs[0] == 1:
            declare_transpose(self.module, tile)
        columns = strip.width * tile.lanes
        rest = minus(self, plan.n, times(self, vector, tile.lanes))
        valid = min(columns, rest) if isinstance(rest, int) else self.min(columns, rest)
        terms = self.mul(self.count, self.turns)
        call_pack(self, tile, [self.buffer, source, row, column, terms, valid, columns])
        return self.buffer, strip.width * self.vector_bytes

    def one_tile(
        self, strip: Strip, vector: Value, index: Value, places: tuple[str, str, str], step: Value
    ) -> None:
        """Call one register tile."""
        plan, tile, size, rows = self.plan, self.tile, self.size, self.plan.tiling.rows
        a, b, c = places
        row = times(self, index, rows)
        length, row_step = plan.rows[-1]
        target = self.at(self.at(c, times(self, row, plan.n * size)), times(self, vector, self.vector_bytes))
        values = [
            left_of(self, rows, length, row),
            minus(self, plan.n - (strip.width - 1) * tile.lanes, times(self, vector, tile.lanes)),
            self.count,
            self.at(a, times(self, row, row_step * size)),
            row_step * size,
            plan.terms[-1][1] * size,
            *(b, step, target, plan.n * size, self.continues, self.turns, self.jump),
        ]
        function = declare_tile(self.module, tile, rows, strip.width, strip.half, turns=True)
        self.call(function, arguments(TURN_PARAMETERS, values))


def plus_of(w: Writer, one: Value, two: Value) -> Value:
    """one + two, either known now or not."""
    if isinstance(one, int):
        return plus(w, two, one)
    return plus(w, one, two) if isinstance(two, int) else w.add(one, two)
