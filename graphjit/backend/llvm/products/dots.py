"""Rows of A times a few columns of B, with vectors along the terms.

Job: C = A B where C has too few columns to fill a vector but A's rows are contiguous: every element is a dot
product of two contiguous rows.
Input: rows of A and columns of B, each contiguous. Output: one function per number of rows and columns, named
by `symbol`.
Invariants: an element is the sum, in a fixed tree, of one chain of fused multiply-adds per lane; nothing
outside is read or written (surplus rows repeat the last one).
"""

from __future__ import annotations

from graphjit.backend.llvm.products.tile import Tile
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import HOT, Writer

ACCUMULATORS = 20
MAX_ROWS = 8
PARAMETERS = [
    ("i64", "m"),
    ("i64", "k"),
    ("ptr", "a"),
    ("i64", "rs"),
    ("ptr", "b"),
    ("i64", "ldb"),
    ("ptr", "c"),
    ("i64", "ldc"),
]


def rows_for(columns: int) -> int:
    """Rows at a time."""
    return max(1, min(MAX_ROWS, ACCUMULATORS // columns))


def symbol(tile: Tile, columns: int) -> str:
    """Native name of the product with ``columns`` columns of B."""
    return f"gj_dots_{tile.family}_{columns}"


def declare(module: Module, tile: Tile, columns: int) -> str:
    """Declare it in ``module``; returns its name."""
    name = symbol(tile, columns)
    module.declare(name, f"declare void @{name}({', '.join(kind for kind, _ in PARAMETERS)})")
    return name


def emit_dots(module: Module, tile: Tile, columns: int) -> None:
    """Add C[m, columns] = A[m, k] B[k, columns] for 1 <= m <= `rows_for` and k >= 1; distances of rows of A,
    columns of B, rows of C in bytes.
    """
    vec, size, lanes, elem, rows = tile.vector, tile.size, tile.lanes, tile.element, rows_for(columns)
    w = Writer(module, symbol(tile, columns), PARAMETERS, attributes=HOT)
    fn, short = w.fn, f"v{lanes}{tile.kind}"
    module.declare(f"fma.{short}", f"declare {vec} @llvm.fma.{short}({vec}, {vec}, {vec})")
    module.declare(
        f"load.{short}", f"declare {vec} @llvm.masked.load.{short}.p0(ptr, i32, <{lanes} x i1>, {vec})"
    )
    a, b, c = ["%a"], ["%b"], ["%c"]
    for i in range(1, rows):
        inside = w.test("slt", i, "%m")
        a.append(w.at(a[-1], w.select(inside, "%rs", 0)))
        c.append(w.at(c[-1], w.select(inside, "%ldc", 0)))
    for _ in range(1, columns):
        b.append(w.at(b[-1], "%ldb"))

    def step(place: str, sums: list[list[str]], mask: str) -> list[list[str]]:
        def load(pointer: str) -> str:
            if not mask:
                return w.load(vec, w.at(pointer, place), size)
            where = w.at(pointer, place)
            return w.op(
                f"call {vec} @llvm.masked.load.{short}.p0(ptr {where}, i32 {size}, {mask}, {vec} zeroinitializer)"
            )

        right, totals = [load(pointer) for pointer in b], []
        for i in range(rows):
            left = load(a[i])
            if tile.fused:
                form = [
                    f"call {vec} @llvm.fma.{short}({vec} {left}, {vec} {right[j]}, {vec} {sums[i][j]})"
                    for j in range(columns)
                ]
            else:
                form = [
                    f"fadd {vec} {w.op(f'fmul {vec} {left}, {right[j]}')}, {sums[i][j]}"
                    for j in range(columns)
                ]
            totals.append([w.op(text) for text in form])
        return totals

    whole = w.op(f"and i64 %k, {-lanes}")
    before, head, body, done = fn.current, fn.label("head"), fn.label("body"), fn.label("done")
    w.do(f"br label %{head}")
    fn.start(head)
    index = fn.phi("i64")
    phis = [[fn.phi(vec) for _ in range(columns)] for _ in range(rows)]
    index.add("0", before)
    w.do(f"br i1 {w.test('slt', index.name, whole)}, label %{body}, label %{done}")
    fn.start(body)
    totals = step(w.mul(index.name, size), [[phi.name for phi in row] for row in phis], "")
    index.add(w.add(index.name, lanes), body)
    for row, found in zip(phis, totals, strict=True):
        for phi, total in zip(row, found, strict=True):
            phi.add("zeroinitializer", before)
            phi.add(total, body)
    w.do(f"br label %{head}")
    fn.start(done)
    # The last vector may be empty: masked lanes multiply zero by zero.
    ids = ", ".join(f"i64 {i}" for i in range(lanes))
    left = w.op(f"insertelement <{lanes} x i64> poison, i64 {w.sub('%k', whole)}, i32 0")
    left = w.op(
        f"shufflevector <{lanes} x i64> {left}, <{lanes} x i64> poison, <{lanes} x i32> zeroinitializer"
    )
    mask = f"<{lanes} x i1> {w.op(f'icmp ult <{lanes} x i64> <{ids}>, {left}')}"
    totals = step(w.mul(whole, size), [[phi.name for phi in row] for row in phis], mask)
    for i in range(rows):
        for j in range(columns):
            w.store(elem, _sum(w, tile, totals[i][j]), w.at(c[i], j * size), size)
    w.finish()


def _sum(w: Writer, tile: Tile, vector: str) -> str:
    """The sum of the lanes: the upper half onto the lower half until one is left."""
    lanes = tile.lanes
    while lanes > 1:
        of, half = f"<{lanes} x {tile.element}>", lanes // 2
        low, high = (
            w.op(
                f"shufflevector {of} {vector}, {of} poison, <{half} x i32> <{', '.join(f'i32 {start + i}' for i in range(half))}>"
            )
            for start in (0, half)
        )
        vector, lanes = w.op(f"fadd <{half} x {tile.element}> {low}, {high}"), half
    return w.op(f"extractelement <1 x {tile.element}> {vector}, i32 0")
