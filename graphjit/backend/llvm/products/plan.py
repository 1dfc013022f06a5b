"""Decides how a matrix product of known shape runs: which code computes it, in which tiles and blocks.

Job: choose the `Way` of one product, or leave it to the product of any shape (`packed.py`).
Input: shape and strides (`Matrices`), the machine's register tile, and the limits.  Output: a `Plan`, or
None for the product of any shape.
Invariants: on one machine, what a block is, which tiles are used and in which order k is summed are functions
of shape and storage order alone, so results do not depend on the number of threads.

    plan(Matrices(1, 4096, 4096, (4096, 1), (4096, 1)), host_tile("f64"), limits).way   # Way.STREAMED
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from graphjit.backend.llvm.products.choose_tiles import Tiling, choose_tiles, even_panels
from graphjit.backend.llvm.products.dots import rows_at_once
from graphjit.backend.llvm.products.streamed import ROWS
from graphjit.backend.llvm.products.tile import Tile
from graphjit.backend.llvm.products.workspace import PIECE_BYTES
from graphjit.backend.llvm.threads.waiting import WORTH_SPINNING_NS
from graphjit.limits import Limits, ProductLimits


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

    @property
    def contiguous(self) -> bool:
        """Whether rows of B are contiguous."""
        return self.rhs[1] == 1 or self.n == 1


class Way(Enum):
    """The code that computes a product of known shape (`direct.py` writes the loops around each)."""

    TILES = "register tiles, B where it lies or packed at once"
    STREAMED = "a few rows of A, row by row of B"
    DOTS = "dot products along the terms, for a few columns"
    WRITTEN_OUT = "a batch of small products, term by term"


class Packing(Enum):
    """What a block copies of B before its tiles read it."""

    NONE = "nothing: B is read where it lies"
    BLOCK = "some terms of all panels"
    PANEL = "some terms of one panel, which the tiles of all rows then find in the first-level cache"


class Cuts(NamedTuple):
    """Into how many parts each axis is cut; a block is one part of each."""

    batch: int
    segments: int
    panels: int
    rows: int

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.batch * self.segments * self.panels * self.rows


@dataclass(frozen=True)
class Plan:
    """How a product runs.

    ``product`` is the oriented one, and ``order`` says which of A, B and C are its operands; B is packed
    ``k_block`` terms at a time.
    """

    product: Matrices
    order: tuple[int, int, int]
    tile: Tile
    way: Way
    tiling: Tiling
    packing: Packing
    k_block: int
    cuts: Cuts
    nanoseconds: int

    @cached_property
    def packed_bytes(self) -> int:
        """Size of what a block packs."""
        if self.packing is Packing.NONE:
            return 0
        panels = [panel.width for panel in self.tiling.panels]
        vectors = sum(panels) if self.packing is Packing.BLOCK else max(panels)
        columns = self.product.n if self.way is Way.DOTS else vectors * self.tile.lanes
        size = self.k_block * columns * self.tile.size
        assert size <= PIECE_BYTES
        return size

    @cached_property
    def partial_bytes(self) -> int:
        """Size of the sums of all segments but the first."""
        size = (self.cuts.segments - 1) * self.product.m * self.product.n * self.tile.size
        assert size <= PIECE_BYTES
        return size


def plan(product: Matrices, tile: Tile, limits: Limits) -> Plan | None:
    """How to run ``product``, or None when the product of any shape is better."""
    oriented = product.oriented()
    if min(oriented.m, oriented.n, oriented.k, oriented.batch) < 1:
        return None
    # In the order of the table in the docstring of the package.
    planner = _Planner(oriented, (1, 0, 2) if product.swapped else (0, 1, 2), tile, limits)
    if planner.streams():
        return planner.streamed()
    if planner.dots_pay():
        return planner.dots()
    return planner.tiles()


class _Planner:
    """One product in question."""

    def __init__(self, product: Matrices, order: tuple[int, int, int], tile: Tile, limits: Limits) -> None:
        self.product, self.order, self.tile = product, order, tile
        self.limits = limits
        self.b_bytes = product.k * product.n * tile.size

    def _plan(
        self,
        way: Way,
        tiling: Tiling,
        nanoseconds: int,
        k_block: int,
        segments: int = 1,
        packing: Packing = Packing.NONE,
    ) -> Plan:
        limits = self.limits.products
        cuts = _cuts(self.product.batch, segments, tiling, nanoseconds, limits)
        if packing is Packing.PANEL and cuts.blocks // cuts.rows >= limits.small_blocks:
            cuts = cuts._replace(rows=1)  # or else each block of rows would pack the same panel
        return Plan(self.product, self.order, self.tile, way, tiling, packing, k_block, cuts, nanoseconds)

    # ----------------------------------------------------------------------------------------------- streamed

    def streams(self) -> bool:
        """Whether a few rows of A, times a B from memory, read it row by row."""
        p, streams = self.product, self.limits.streams
        large = self.limits.products.in_place_bytes if p.m == 1 else self.limits.products.far_bytes
        wide = p.n >= streams.wide * self.tile.lanes
        return p.m <= streams.rows and p.contiguous and self.b_bytes > large and wide

    def streamed(self) -> Plan:
        """Chunks of columns; one row of A may also be cut into segments of k."""
        p, tile, streams = self.product, self.tile, self.limits.streams
        vectors = -(-p.n // tile.lanes)
        chunk = streams.chunk
        if p.m > 1:
            chunk = min(chunk, streams.sums // p.m, -(-vectors // streams.panels))
        work = p.m * p.n * p.k // (self.limits.products.vectors_per_ns * tile.lanes)
        nanoseconds = p.batch * max(self.b_bytes // self.limits.products.bytes_per_ns, work)
        segments = 1
        if p.batch == p.m == 1:
            fitting = self.limits.products.partial_bytes // (tile.size * p.n) + 1
            segments = min(
                streams.segments, fitting, p.k // ROWS, nanoseconds // self.limits.products.block_ns
            )
        chunks = Tiling(p.m, 1, even_panels(vectors, chunk))
        return self._plan(Way.STREAMED, chunks, nanoseconds, ROWS, max(1, segments))

    # --------------------------------------------------------------------------------------------------- dots

    def dots_pay(self) -> bool:
        """Whether a product of few columns is faster with vectors along k than along its columns."""
        p, lanes, cycles = self.product, self.tile.lanes, self.limits.tiles
        few = p.lhs[1] == 1 and 1 < p.n < lanes // 2
        if not few or self.b_bytes > self.limits.products.packed_bytes:
            return False
        dots = p.m * p.n * (p.k / lanes + cycles.add_lanes)
        copies = cycles.copy * p.n * p.k if p.rhs[0] != 1 else 0
        return dots + copies < cycles.narrow * p.m * p.k

    def dots(self) -> Plan:
        """Groups of rows; columns of B that are not contiguous are copied first."""
        p, tile, rows = self.product, self.tile, rows_at_once(self.product.n)
        work = p.m * p.n * p.k // (self.limits.products.vectors_per_ns * tile.lanes)
        read = p.m * p.k * tile.size // self.limits.products.bytes_per_ns // 2
        groups = Tiling(rows, -(-p.m // rows), even_panels(1, 1))
        packing = Packing.NONE if p.rhs[0] == 1 else Packing.BLOCK
        return self._plan(Way.DOTS, groups, p.batch * max(work, read), p.k, packing=packing)

    # -------------------------------------------------------------------------------------------------- tiles

    def tiles(self) -> Plan | None:
        """Register tiles over B where it lies, or packed at once; None where packing in chunks is better."""
        p, tile, limits = self.product, self.tile, self.limits.products
        terms = min(p.k, limits.k_block)
        tiling = choose_tiles(tile, p.m, p.n, terms, self.limits.tiles, self.least_panel())
        segments, packing = self.segments(), Packing.NONE if p.contiguous else Packing.BLOCK
        if self.packing_pays(tiling):
            if not self.panels_pay(tiling):
                return None
            packing = Packing.PANEL
        nanoseconds = p.batch * p.k * tiling.multiplications // limits.vectors_per_ns
        if self.b_bytes > limits.in_place_bytes:
            nanoseconds = max(nanoseconds, p.batch * self.b_bytes // limits.bytes_per_ns)
        if self.written_out_pays():
            return self._plan(Way.WRITTEN_OUT, tiling, nanoseconds, p.k)
        length = -(-p.k // segments)
        k_block = -(-length // max(1, round(length / limits.k_block)))
        return self._plan(Way.TILES, tiling, nanoseconds, k_block, segments, packing)

    def least_panel(self) -> int:
        """Vectors of a panel at the least: operands from memory are read in long pieces of their rows, since
        a narrow panel jumps from page to page.
        """
        p = self.product
        everything = p.batch * (p.m * p.k + p.k * p.n + p.m * p.n) * self.tile.size
        if p.batch > 1 and everything > self.limits.products.cache_bytes:
            return 2 * self.tile.vectors
        return self.tile.vectors if self.b_bytes > self.limits.products.far_bytes else 1

    def packing_pays(self, tiling: Tiling) -> bool:
        """Whether the product of any shape, which packs B in chunks, is better."""
        if not self.product.contiguous:
            return self.b_bytes > self.limits.products.packed_bytes
        return (
            self.b_bytes > self.limits.products.in_place_bytes
            and tiling.tiles > self.limits.products.few_tiles
        )

    def panels_pay(self, tiling: Tiling) -> bool:
        """Whether each block had better pack its own panels, one at a time. The product of any shape packs B
        for all of them, and A too where its terms lie apart, which few rows do not repay; but A is then
        read again for each panel.
        """
        p, limits = self.product, self.limits.products
        rows_of_a = min(p.k, limits.k_block) * p.m * self.tile.size
        little = len(tiling.panels) <= limits.few_panels or rows_of_a <= limits.in_place_bytes
        return p.contiguous and p.lhs[1] != 1 and little and tiling.tiles <= limits.panel_tiles

    def written_out_pays(self) -> bool:
        """Whether the products of a batch are so small that each is written out."""
        p, limits = self.product, self.limits.products
        small = max(p.m, p.k) <= limits.written_axis and p.n <= self.tile.lanes
        return p.contiguous and small and p.batch >= limits.written_batch

    def segments(self) -> int:
        """Segments of k that are summed apart, where a small C gives too few blocks."""
        p, limits = self.product, self.limits.products
        # Who packs all panels has to borrow workspace, and must hold no other meanwhile.
        if p.batch > 1 or not p.contiguous:
            return 1
        fitting = limits.partial_bytes // (self.tile.size * p.m * p.n) + 1
        return max(1, min(p.k // limits.segment, fitting, limits.max_segments))


def wanted_blocks(nanoseconds: int, limits: ProductLimits) -> int:
    """Into how many blocks a product of so many nanoseconds had better be cut."""
    # Workers that are awake halve a product of a few microseconds.
    small = min(nanoseconds // WORTH_SPINNING_NS, limits.small_blocks)
    return max(nanoseconds // limits.block_ns, small, 1)


def _cuts(batch: int, segments: int, tiling: Tiling, nanoseconds: int, limits: ProductLimits) -> Cuts:
    """Blocks for threads to share: of the batch, then of panels, then of rows."""
    want = min(wanted_blocks(nanoseconds, limits), limits.max_blocks)
    products = min(batch, want)
    want = -(-want // (products * segments))
    panels = min(len(tiling.panels), want)
    return Cuts(products, segments, panels, min(tiling.tiles, -(-want // panels)))
