"""Decides which register tiles cover a matrix of known shape.

Job: choose the height and the widths of the tiles, so that little work falls outside the matrix and enough
accumulators are in flight: the candidate with the fewest estimated cycles.
Input: the shape of C, the number of terms, the machine's tile and the cycles of its steps (`TileLimits`).
Output: a `Tiling`.
Invariant: the choice depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from graphjit.backend.llvm.products.tile import Tile
from graphjit.limits import TileLimits

MAX_ROWS = 8
"""Each row needs an address register."""


@dataclass(frozen=True)
class Panel:
    """Columns: the first vector, the number of vectors, and whether the last of them is half as wide."""

    vector: int
    width: int
    half: bool


@dataclass(frozen=True)
class Strip:
    """Neighbouring panels ``first .. last - 1``, which use the same tile; they begin at ``vector``."""

    first: int
    last: int
    vector: int
    width: int
    half: bool


@dataclass(frozen=True)
class Tiling:
    """Tiles of ``rows`` rows (the last one may hang over) by panels."""

    rows: int
    tiles: int
    panels: tuple[Panel, ...]

    @property
    def vectors(self) -> int:
        """Vectors of a row."""
        return sum(panel.width for panel in self.panels)

    @property
    def multiplications(self) -> int:
        """Vector operations per term of k, surplus rows and columns included."""
        return self.tiles * self.rows * self.vectors

    def strips(self) -> list[Strip]:
        """Panels that use the same tile, from the first to the last."""
        strips: list[Strip] = []
        for i, panel in enumerate(self.panels):
            if strips and (strips[-1].width, strips[-1].half) == (panel.width, panel.half):
                strips[-1] = Strip(strips[-1].first, i + 1, strips[-1].vector, panel.width, panel.half)
            else:
                strips.append(Strip(i, i + 1, panel.vector, panel.width, panel.half))
        return strips

    def cycles(self, k: int, limits: TileLimits) -> float:
        """Estimated cycles of one block of ``k`` terms."""
        total = 0.0
        for panel in self.panels:
            vectors = panel.width - 0.5 * panel.half
            loads = limits.fetch * vectors + 0.5 * self.rows
            total += (
                k * (max(self.rows * vectors, loads, limits.latency) + limits.hidden * loads)
                + limits.call
                + 2 * self.rows * panel.width
            )
        return total * self.tiles * (1 + limits.another_kind * (len(self.strips()) - 1))


@lru_cache(maxsize=1024)
def choose_tiles(tile: Tile, m: int, n: int, k: int, limits: TileLimits, least: int = 1) -> Tiling:
    """The tiles for C of m by n with k terms at a time; panels are made for ``least`` vectors or more, where
    C has so many.
    """
    return min(_candidates(tile, m, n, least), key=lambda t: t.cycles(k, limits))


def _candidates(tile: Tile, m: int, n: int, least: int) -> Iterator[Tiling]:
    """Tilings whose accumulators fit the registers."""
    vectors = -(-n // tile.lanes)
    half = tile.lanes >= 4 and (n - 1) % tile.lanes < tile.lanes // 2
    for rows in range(1, min(m, MAX_ROWS) + 1):
        for width in range(min(least, vectors), min(vectors, 2 * tile.vectors) + 1):
            if _fits(tile, rows, width):
                for narrow in {False, half}:
                    yield Tiling(rows, -(-m // rows), even_panels(vectors, width, narrow))


def _fits(tile: Tile, rows: int, width: int) -> bool:
    """Whether accumulators and one row of B leave a register for A."""
    return rows * width + width <= tile.rows * tile.vectors + tile.vectors or rows * width == 1


def even_panels(vectors: int, width: int, half: bool = False) -> tuple[Panel, ...]:
    """Panels of ``width`` vectors or one less, the wider ones first."""
    count = -(-vectors // width)
    low, more = divmod(vectors, count)
    panels, start = [], 0
    for i in range(count):
        size = low + (i < more)
        panels.append(Panel(start, size, half and i == count - 1))
        start += size
    return tuple(panels)
