"""Rows of A times a few columns of B as dot products, with vectors along the terms.

Job: C = A B where C has too few columns to fill a vector but A's rows are contiguous: every element is a dot
product of two contiguous rows.  `plan.py` says when that pays.
Input: rows of A and columns of B, each contiguous.  Output: one function per number of columns, named by
`dots_symbol`.
Invariants: an element is the sum, in a fixed tree, of one chain of fused multiply-adds per lane; nothing
outside is read or written (surplus rows repeat the last one).
"""

from __future__ import annotations

from graphjit.backend.llvm.products.tile import Tile
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import HOT, Writer

ACCUMULATORS = 20
"""Sums in registers at the most."""
MAX_ROWS = 8
"""Each row needs an address register."""
DOTS_PARAMETERS = [
    ("i64", "m"),
    ("i64", "k"),
    ("ptr", "a"),
    ("i64", "rs"),
    ("ptr", "b"),
    ("i64", "ldb"),
    ("ptr", "c"),
    ("i64", "ldc"),
]


def rows_at_once(columns: int) -> int:
    """Rows of A that one call takes."""
    return max(1, min(MAX_ROWS, ACCUMULATORS // columns))


def dots_symbol(tile: Tile, columns: int) -> str:
    """Native name of the product with ``columns`` columns of B."""
    return f"gj_dots_{tile.family}_{columns}"


def declare_dots(module: Module, tile: Tile, columns: int) -> str:
    """Declare it in ``module``; returns its name."""
    name = dots_symbol(tile, columns)
    module.declare(name, f"declare void @{name}({', '.join(kind for kind, _ in DOTS_PARAMETERS)})")
    return name


def emit_dots(module: Module, tile: Tile, columns: int) -> None:
    """Add C[m, columns] = A[m, k] B[k, columns] for 1 <= m <= `rows_at_once` and k >= 1; distances of rows of
    A, columns of B, rows of C in bytes.
    """
    w = _DotsWriter(module, tile, columns)
    whole = w.op(f"and i64 %k, {-tile.lanes}")
    sums = w.sum_whole_vectors(whole)
    # The last vector may be empty: masked lanes multiply zero by zero.
    mask = tile.vector.below(w, tile.vector.spread_index(w, w.sub("%k", whole)))
    totals = w.add_products(w.mul(whole, tile.size), sums, mask)
    w.store_sums(totals)
    w.finish()


class _DotsWriter(Writer):
    """The function under construction; sums are vectors, by row and column."""

    def __init__(self, module: Module, tile: Tile, columns: int) -> None:
        super().__init__(module, dots_symbol(tile, columns), DOTS_PARAMETERS, attributes=HOT)
        self.tile, self.vector = tile, tile.vector
        self.vector.declare_multiply_add(module)
        self.vector.declare_load(module)
        self.a, self.b, self.c = ["%a"], ["%b"], ["%c"]
        for i in range(1, rows_at_once(columns)):
            inside = self.test("slt", i, "%m")
            self.a.append(self.at(self.a[-1], self.select(inside, "%rs", 0)))
            self.c.append(self.at(self.c[-1], self.select(inside, "%ldc", 0)))
        for _ in range(1, columns):
            self.b.append(self.at(self.b[-1], "%ldb"))

    def sum_whole_vectors(self, whole: str) -> list[list[str]]:
        """The loop over the first ``whole`` terms."""
        fn = self.fn
        before, head, body, done = fn.current, fn.label("head"), fn.label("body"), fn.label("done")
        self.do(f"br label %{head}")
        fn.start(head)
        index = fn.phi("i64")
        phis = [[fn.phi(self.vector.text) for _ in self.b] for _ in self.a]
        sums = [[phi.name for phi in row] for row in phis]
        index.add("0", before)
        self.do(f"br i1 {self.test('slt', index.name, whole)}, label %{body}, label %{done}")
        fn.start(body)
        totals = self.add_products(self.mul(index.name, self.tile.size), sums)
        index.add(self.add(index.name, self.tile.lanes), body)
        for row, new in zip(phis, totals, strict=True):
            for phi, total in zip(row, new, strict=True):
                phi.add("zeroinitializer", before)
                phi.add(total, body)
        self.do(f"br label %{head}")
        fn.start(done)
        return sums

    def add_products(self, offset: str, sums: list[list[str]], mask: str = "") -> list[list[str]]:
        """``sums`` and the products of the vectors of terms at ``offset`` bytes of every row and column."""
        right = [self._terms(column, offset, mask) for column in self.b]
        totals = []
        for row, old in zip(self.a, sums, strict=True):
            left = self._terms(row, offset, mask)
            pairs = zip(right, old, strict=True)
            totals.append([self.vector.multiply_add(self, left, column, total) for column, total in pairs])
        return totals

    def _terms(self, row: str, offset: str, mask: str) -> str:
        return self.vector.load(self, self.at(row, offset), mask)

    def store_sums(self, totals: list[list[str]]) -> None:
        """Each element of C is the sum of the lanes of its total."""
        size = self.tile.size
        for row, sums in zip(self.c, totals, strict=True):
            for j, total in enumerate(sums):
                self.store(self.tile.element, self._sum(total), self.at(row, j * size), size)

    def _sum(self, vector: str) -> str:
        """The sum of the lanes: the upper half onto the lower half until one is left."""
        element, lanes = self.tile.element, self.tile.lanes
        while lanes > 1:
            of, half = f"<{lanes} x {element}>", lanes // 2
            low, high = (
                self.op(
                    f"shufflevector {of} {vector}, {of} poison, "
                    f"<{half} x i32> <{', '.join(f'i32 {start + i}' for i in range(half))}>"
                )
                for start in (0, half)
            )
            vector, lanes = self.op(f"fadd <{half} x {element}> {low}, {high}"), half
        return self.op(f"extractelement <1 x {element}> {vector}, i32 0")
