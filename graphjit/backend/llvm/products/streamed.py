"""A few rows of A times a matrix B that streams from memory, row by row of B.

Job: C (+)= A B for a few neighbouring rows of B at a time, each read from its beginning to its end, while C
stays in the first-level cache.  `plan.py` says when that is done.
Input: one row or several of A, a matrix B with contiguous rows.  Output: one function per number of rows of
B, for one row of A and for several, named by `rows_symbol`.
Invariants: each element of C is one chain of fused multiply-adds in the order of the rows; nothing outside is
read or written.

The register tile goes down the columns and touches each page of B once per panel, which a large matrix pays
for in lost prefetching, and in cache lines that displace one another where rows are a power of two apart.
"""

from __future__ import annotations

from collections.abc import Callable

from graphjit.backend.llvm.products.tile import Tile
from graphjit.backend.llvm.products.vectors import declare_fetch, fetch
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import HOT, Writer

ROWS = 8
"""Rows of B at a time: as many streams as processors prefetch with ease."""
SIDE_BY_SIDE = 2
"""Vectors of several rows of C at a time: so often an element of A is used once it is spread."""
ROWS_PARAMETERS = [
    ("i64", "n"),
    ("ptr", "a"),
    ("i64", "cs"),
    ("ptr", "b"),
    ("i64", "ldb"),
    ("ptr", "c"),
    ("i1", "continue"),
    ("i64", "m"),
    ("i64", "rs"),
    ("i64", "ldc"),
]


def rows_symbol(tile: Tile, rows: int, several: bool) -> str:
    """Native name of the product with ``rows`` rows of B, and one row or ``several`` of A."""
    return f"gj_rows_{tile.family}_{rows}{f'x{SIDE_BY_SIDE}' if several else ''}"


def declare_rows(module: Module, tile: Tile, rows: int, several: bool) -> str:
    """Declare it in ``module``; returns its name."""
    name = rows_symbol(tile, rows, several)
    module.declare(name, f"declare void @{name}({', '.join(kind for kind, _ in ROWS_PARAMETERS)})")
    return name


def emit_rows(module: Module, tile: Tile, rows: int, several: bool) -> None:
    """Add c[m, n] (+)= a[m, rows] B[rows, n], m being 1 if not ``several``; a's strides (rs, cs) and
    distances of rows in bytes; continue: c holds a partial sum.
    """
    w = _RowsWriter(module, tile, rows, several)
    lanes, size = tile.lanes, tile.size
    whole = w.op(f"and i64 %n, {-lanes}")
    start: str | int = 0
    if several:
        start = w.op(f"and i64 %n, {-lanes * SIDE_BY_SIDE}")
        with w.loop(0, start, lanes * SIDE_BY_SIDE) as column:
            w.columns(w.mul(column, size), SIDE_BY_SIDE)
    with w.loop(start, whole, lanes) as column:
        w.columns(w.mul(column, size), 1)
    with w.when(w.test("slt", whole, "%n")):
        left = tile.vector.spread_index(w, w.sub("%n", whole))
        w.columns(w.mul(whole, size), 1, tile.vector.below(w, left))
    w.finish()


class _RowsWriter(Writer):
    """The function under construction."""

    def __init__(self, module: Module, tile: Tile, rows: int, several: bool) -> None:
        super().__init__(module, rows_symbol(tile, rows, several), ROWS_PARAMETERS, attributes=HOT)
        self.tile, self.vector, self.several = tile, tile.vector, several
        self.vector.declare_multiply_add(module)
        self.vector.declare_load(module)
        self.vector.declare_store(module)
        self.streams = ["%b"]
        for _ in range(1, rows):
            self.streams.append(self.at(self.streams[-1], "%ldb"))
        self.following = self.mul("%ldb", rows) if several else "0"
        # One row's factors stay in registers; those of several are spread from memory by the multiplication
        # itself.
        self.factors = [] if several else [self.factor("%a", row) for row in range(rows)]

    def factor(self, a: str, row: int) -> str:
        """An element of a row of A, by which a row of B is multiplied, in all lanes."""
        value = self.load(self.tile.element, self.at(a, self.mul("%cs", row)), self.tile.size)
        return self.vector.spread(self, value)

    def columns(self, place: str, vectors: int, mask: str = "") -> None:
        """``vectors`` neighbouring vectors of every row of C, ``place`` bytes from its beginning."""
        step = self.vector.nbytes
        right = [
            [self.vector.load(self, self.at(self.at(stream, place), v * step), mask) for v in range(vectors)]
            for stream in self.streams
        ]
        if self.several and not mask:
            self._fetch_following(place, vectors)
        if not self.several:
            self._add_rows(self.at("%c", place), right, self.factors.__getitem__, mask)
            return
        with self.loop(0, "%m") as i:
            a = self.at("%a", self.mul(i, "%rs"))
            target = self.at(self.at("%c", self.mul(i, "%ldc")), place)
            self._add_rows(target, right, lambda row: self.factor(a, row), mask)

    def _fetch_following(self, place: str, vectors: int) -> None:
        """Ask for the same columns of the rows of B that come next."""
        declare_fetch(self.module)
        for stream in self.streams:
            ahead = self.at(self.at(stream, place), self.following)
            for v in range(vectors):
                fetch(self, self.at(ahead, v * self.vector.nbytes))

    def _add_rows(self, target: str, right: list[list[str]], factor: Callable[[int], str], mask: str) -> None:
        """Vectors of one row of C (+)= factors times the vectors ``right`` of the rows of B."""
        vec = self.vector.text
        pointers = [self.at(target, v * self.vector.nbytes) for v in range(len(right[0]))]
        totals = [
            self.op(
                f"select i1 %continue, {vec} {self.vector.load(self, pointer, mask)}, {vec} zeroinitializer"
            )
            for pointer in pointers
        ]
        for row, vectors in enumerate(right):
            spread = factor(row)
            totals = [
                self.vector.multiply_add(self, spread, vector, total)
                for vector, total in zip(vectors, totals, strict=True)
            ]
        for total, pointer in zip(totals, pointers, strict=True):
            self.vector.store(self, total, pointer, mask)
