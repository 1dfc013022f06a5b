"""Which register tiles cover a matrix of known shape.

Job: choose the height and widths of the tiles, so that little work falls outside the matrix and enough
accumulators are in flight.
Input: the shape of C, the number of terms, the machine's tile.  Output: a `Tiling`.
Invariant: the choice depends on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from graphjit.backend.llvm.products.tile import Tile

MAX_ROWS = 8
"""Each row needs an address register."""
LATENCY = 4
"""Cycles that a fused multiply-add takes; one can begin in each."""
FETCH = 2
"""Cycles to fetch a vector of B from the second-level cache."""
HIDDEN = 0.05
"""Part of the time of loads that shows although multiply-adds outlast them."""
CALL = 20
"""Cycles to call a tile and to begin and end it, without its loads and stores."""
KIND = 0.03
"""What one more kind of tile must save to be worth compiling."""


@dataclass(frozen=True)
class Panel:
    """Columns: the first vector, the number of vectors, and whether the last of them is half as wide."""

    vector: int
    width: int
    half: bool


@dataclass(frozen=True)
class Kind:
    """Panels ``first .. last - 1``, which use the same tile; they begin at ``vector``."""

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

    def kinds(self) -> list[Kind]:
        """Panels by the tile that they use, in order."""
        found: list[Kind] = []
        for i, panel in enumerate(self.panels):
            if found and (found[-1].width, found[-1].half) == (panel.width, panel.half):
                found[-1] = Kind(found[-1].first, i + 1, found[-1].vector, panel.width, panel.half)
            else:
                found.append(Kind(i, i + 1, panel.vector, panel.width, panel.half))
        return found

    def cycles(self, k: int) -> float:
        """Estimated cycles of one block of ``k`` terms."""
        total = 0.0
        for panel in self.panels:
            vectors = panel.width - 0.5 * panel.half
            loads = FETCH * vectors + 0.5 * self.rows
            total += (
                k * (max(self.rows * vectors, loads, LATENCY) + HIDDEN * loads)
                + CALL
                + 2 * self.rows * panel.width
            )
        return total * self.tiles * (1 + KIND * (len(self.kinds()) - 1))


@lru_cache(maxsize=1024)
def tiling(tile: Tile, m: int, n: int, k: int, least: int = 1) -> Tiling:
    """The tiles for C of m by n with k terms at a time; panels are made for ``least`` vectors or more, where
    C has so many.
    """
    vectors = -(-n // tile.lanes)
    half = tile.lanes >= 4 and (n - 1) % tile.lanes < tile.lanes // 2
    candidates = []
    for rows in range(1, min(m, MAX_ROWS) + 1):
        for width in range(min(least, vectors), 2 * tile.vectors + 1):
            # Accumulators and one row of B must leave a register for A.
            if width > vectors or (
                rows * width + width > tile.rows * tile.vectors + tile.vectors and rows * width > 1
            ):
                continue
            for narrow in {False, half}:
                candidates.append(Tiling(rows, -(-m // rows), even_panels(vectors, width, narrow)))
    return min(candidates, key=lambda t: t.cycles(k))


def even_panels(vectors: int, width: int, half: bool = False) -> tuple[Panel, ...]:
    """Panels of ``width`` vectors or one less, the wider ones first."""
    count = -(-vectors // width)
    low, more = divmod(vectors, count)
    panels, start = [], 0
    for i in range(count):
        own = low + (i < more)
        panels.append(Panel(start, own, half and i == count - 1))
        start += own
    return tuple(panels)
