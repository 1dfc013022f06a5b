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

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphjit.backend.llvm.products.choose_tiles import Strip, Tiling, choose_tiles
from graphjit.backend.llvm.products.extents import (
    block_extents,
    call_in_blocks,
    each,
    left_of,
    minus,
    overlap,
    plus,
    times,
)
from graphjit.backend.llvm.products.panels import pack_panel
from graphjit.backend.llvm.products.plan import wanted_blocks
from graphjit.backend.llvm.products.tile import TURN_PARAMETERS, Tile, declare_tile
from graphjit.backend.llvm.products.vectors import arguments
from graphjit.backend.llvm.products.workspace import PIECE_BYTES, give_workspace, take_workspace
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import DRIVER, Value, Writer
from graphjit.limits import Limits, ProductLimits
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
    cuts: tuple[int, ...]
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
    products, rows, terms = limits.products, step.rows, step.terms
    turns, term_block = _chain(terms, tile, products)
    tiling = choose_tiles(tile, rows[-1][0], step.n, turns * term_block, limits.tiles)
    runs = runs_of(step.outer_rows)
    several = len(tiling.panels) > 1 and tiling.tiles * runs > products.few_tiles
    nanoseconds = step.batch * runs * step.k * tiling.multiplications // products.vectors_per_ns
    counts = (step.batch, runs, len(tiling.panels), tiling.tiles)
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
        several or step.rhs[1] != 1,
        _cuts(counts, nanoseconds, products),
        nanoseconds,
    )


def _chain(terms: Levels, tile: Tile, limits: ProductLimits) -> tuple[int, int]:
    """Runs of terms, and terms of each, that one call of a tile goes through: about the usual length of a
    chain, and never more than a piece of workspace holds of the widest panel.
    """
    length, most = terms[-1][0], PIECE_BYTES // (2 * tile.vectors * tile.vector.nbytes)
    runs = terms[-2][0] if len(terms) > 1 else 1
    turns = max(1, min(runs, round(limits.k_block / length), most // length))
    turns = -(-runs // -(-runs // turns))
    parts = max(1, round(length / limits.k_block), -(-length // most))
    return turns, -(-length // parts)


def _cuts(counts: tuple[int, int, int, int], nanoseconds: int, limits: ProductLimits) -> tuple[int, ...]:
    """Blocks for threads to share: of the batch, then of runs, then of panels, then of tiles. Each block
    packs its own panels, so there are not more than threads share well.
    """
    want = min(wanted_blocks(nanoseconds, limits), limits.run_blocks)
    found = []
    for count in counts:
        found.append(min(count, want))
        want = -(-want // found[-1])
    return tuple(found)


def emit_runs(module: Module, name: str, plan: RunsPlan) -> None:
    """Add ``name(context, block)``: context holds A, B and C."""
    w = _Block(module, name, plan)
    w.block()
    w.finish()


def call_runs(w: Writer, name: str, plan: RunsPlan, bases: Sequence[str]) -> None:
    """Call the function that `emit_runs` made, in blocks; ``bases`` are the addresses of A, B and C."""
    call_in_blocks(w, name, bases, plan.blocks, plan.nanoseconds)


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
                before = plus(self, times(self, run, turns * length), times(self, turn, length))
                with each(self, (0, length), plan.term_block) as first:
                    self.count = left_of(self, plan.term_block, length, first)
                    self.turns = left_of(self, plan.turns, turns, turn)
                    self.jump = (jump - length * step) * size
                    self.a_k = self.at(a_run, times(self, first, step * size))
                    self.b_k = self.at(b, times(self, plus(self, before, first), plan.rhs[0] * size))
                    self.c_k = c
                    self.continues = self.later(run, turn, first)
                    self.chunk()
        if plan.packs:
            give_workspace(self, self.buffer)

    def later(self, *counters: Value) -> str:
        """Whether one of the counters is beyond its first value: C holds a partial sum then."""
        tests = [self.test("ne", counter, 0) for counter in counters if not isinstance(counter, int)]
        assert not any(isinstance(counter, int) and counter for counter in counters)
        return functools.reduce(self.either, tests) if tests else "0"

    def offset(self, number: Value, levels: Levels) -> Value:
        """Bytes from the first run to run ``number`` of these levels."""
        total: Value = 0
        for level in reversed(range(len(levels))):
            length, stride = levels[level]
            digit: Value
            if isinstance(number, int):
                number, digit = divmod(number, length)
            else:
                digit = self.rem(number, length) if level else number
                number = self.div(number, length) if level else number
            total = plus(self, total, times(self, digit, stride * self.size))
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
        if not plan.packs:
            source = self.at(self.b_k, times(self, vector, plan.rhs[1] * self.vector_bytes))
            return source, plan.rhs[0] * self.size
        what = self.buffer, self.b_k, self.mul(self.count, self.turns)
        pack_panel(self, tile, plan.n, plan.rhs, strip, vector, what)
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
