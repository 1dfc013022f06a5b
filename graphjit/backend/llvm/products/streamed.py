"""A few rows times a matrix that streams from memory.

Job: C (+)= A B for a few neighbouring rows of B at a time, each read from its beginning to its end, while C
stays in the first-level cache.
Input: one row or several of A, a matrix B with contiguous rows. Output: one function per number of rows of B,
for one row of A and for several, named by `symbol`.
Invariants: each element of C is one chain of fused multiply-adds in the order of the rows; nothing outside is
read or written.

The register tile goes down the columns and touches each page of B once per panel, which a large matrix pays
for in lost prefetching, and in cache lines that displace one another where rows are a power of two apart.
"""

from __future__ import annotations

from collections.abc import Callable

from graphjit.backend.llvm.products.tile import Tile
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import HOT, Writer

ROWS = 8
"""Rows of B at a time: as many streams as processors prefetch with ease."""
SIDE_BY_SIDE = 2
"""Vectors of several rows of C at a time: so often an element of A is used once it is spread."""
PARAMETERS = [
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


def symbol(tile: Tile, rows: int, several: bool) -> str:
    """Native name of the product with ``rows`` rows of B, and one row or ``several`` of A."""
    return f"gj_rows_{tile.family}_{rows}{f'x{SIDE_BY_SIDE}' if several else ''}"


def declare(module: Module, tile: Tile, rows: int, several: bool) -> str:
    """Declare it in ``module``; returns its name."""
    name = symbol(tile, rows, several)
    module.declare(name, f"declare void @{name}({', '.join(kind for kind, _ in PARAMETERS)})")
    return name


def emit_rows(module: Module, tile: Tile, rows: int, several: bool) -> None:
    """Add c[m, n] (+)= a[m, rows] B[rows, n], m being 1 if not ``several``; a's strides (rs, cs) and
    distances of rows in bytes; continue: c holds a partial sum.
    """
    w = _Rows(module, tile, rows, several)
    lanes, size = tile.lanes, tile.size
    whole = w.op(f"and i64 %n, {-lanes}")
    start: str | int = 0
    if several:
        start = w.op(f"and i64 %n, {-lanes * SIDE_BY_SIDE}")
        with w.loop(0, start, lanes * SIDE_BY_SIDE) as column:
            w.step(w.mul(column, size), SIDE_BY_SIDE)
    with w.loop(start, whole, lanes) as column:
        w.step(w.mul(column, size), 1)
    with w.when(w.test("slt", whole, "%n")):
        ids = ", ".join(f"i64 {i}" for i in range(lanes))
        left = w.op(f"insertelement <{lanes} x i64> poison, i64 {w.sub('%n', whole)}, i32 0")
        left = w.op(
            f"shufflevector <{lanes} x i64> {left}, <{lanes} x i64> poison, <{lanes} x i32> zeroinitializer"
        )
        w.step(w.mul(whole, size), 1, f"<{lanes} x i1> {w.op(f'icmp ult <{lanes} x i64> <{ids}>, {left}')}")
    w.finish()


class _Rows(Writer):
    """The function under construction."""

    def __init__(self, module: Module, tile: Tile, rows: int, several: bool) -> None:
        super().__init__(module, symbol(tile, rows, several), PARAMETERS, attributes=HOT)
        self.tile, self.rows, self.several = tile, rows, several
        vec, lanes = tile.vector, tile.lanes
        self.short = short = f"v{lanes}{tile.kind}"
        module.declare(f"fma.{short}", f"declare {vec} @llvm.fma.{short}({vec}, {vec}, {vec})")
        module.declare(
            f"load.{short}", f"declare {vec} @llvm.masked.load.{short}.p0(ptr, i32, <{lanes} x i1>, {vec})"
        )
        module.declare(
            f"store.{short}", f"declare void @llvm.masked.store.{short}.p0({vec}, ptr, i32, <{lanes} x i1>)"
        )
        self.streams = ["%b"]
        for _ in range(1, rows):
            self.streams.append(self.at(self.streams[-1], "%ldb"))
        self.following = self.mul("%ldb", rows) if several else "0"
        # One row's factors stay in registers; those of several are spread from memory by the multiplication
        # itself.
        self.factors = [] if several else [self.spread("%a", row) for row in range(rows)]

    def spread(self, a: str, row: int) -> str:
        """An element of a row of A in all lanes."""
        tile = self.tile
        value = self.load(tile.element, self.at(a, self.mul("%cs", row)), tile.size)
        value = self.op(f"insertelement {tile.vector} poison, {tile.element} {value}, i32 0")
        return self.op(
            f"shufflevector {tile.vector} {value}, {tile.vector} poison, <{tile.lanes} x i32> zeroinitializer"
        )

    def step(self, place: str, vectors: int, mask: str = "") -> None:
        """``vectors`` neighbouring vectors of every row of C."""
        tile, vec, size, short = self.tile, self.tile.vector, self.tile.size, self.short

        def load(pointer: str) -> str:
            if not mask:
                return self.load(vec, pointer, size)
            return self.op(
                f"call {vec} @llvm.masked.load.{short}.p0(ptr {pointer}, i32 {size}, {mask}, {vec} zeroinitializer)"
            )

        def row(target: str, factor: Callable[[int], str]) -> None:
            targets = [self.at(target, v * tile.lanes * size) for v in range(vectors)]
            totals = [
                self.op(f"select i1 %continue, {vec} {load(pointer)}, {vec} zeroinitializer")
                for pointer in targets
            ]
            for j, columns in enumerate(right):
                spread = factor(j)
                for v, column in enumerate(columns):
                    if tile.fused:
                        totals[v] = self.op(
                            f"call {vec} @llvm.fma.{short}({vec} {spread}, {vec} {column}, {vec} {totals[v]})"
                        )
                    else:
                        totals[v] = self.op(
                            f"fadd {vec} {self.op(f'fmul {vec} {spread}, {column}')}, {totals[v]}"
                        )
            for total, pointer in zip(totals, targets, strict=True):
                if mask:
                    self.do(
                        f"call void @llvm.masked.store.{short}.p0({vec} {total}, ptr {pointer}, i32 {size}, {mask})"
                    )
                else:
                    self.store(vec, total, pointer, size)

        right = [
            [load(self.at(self.at(stream, place), v * tile.lanes * size)) for v in range(vectors)]
            for stream in self.streams
        ]
        if self.several and not mask:
            self.module.declare("llvm.prefetch.p0", "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
            for stream in self.streams:
                ahead = self.at(self.at(stream, place), self.following)
                for v in range(vectors):
                    self.do(
                        f"call void @llvm.prefetch.p0(ptr {self.at(ahead, v * tile.lanes * size)}, i32 0, i32 3, i32 1)"
                    )
        if not self.several:
            row(self.at("%c", place), self.factors.__getitem__)
            return
        with self.loop(0, "%m") as i:
            a = self.at("%a", self.mul(i, "%rs"))
            row(self.at(self.at("%c", self.mul(i, "%ldc")), place), lambda j: self.spread(a, j))
