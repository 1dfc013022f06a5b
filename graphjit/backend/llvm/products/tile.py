"""The register tile: the innermost code of a matrix product.

Job: one tile of C, ``rows`` rows by up to ``vectors`` vectors of columns, held in registers over a whole
block of k.  `host_tile` says which tile fits this machine's registers.
Input: strided A, B with contiguous vectors (where it lies or packed).  Output: one function per height and
width, named by `tile_symbol`.
Invariants: what one run adds to an element of C is one chain of fused multiply-adds in the order of k.
Callers cut k by its length alone, so no element depends on tile shape, packing or the number of threads;
chains are short, so rounding errors stay small however many terms there are; nothing outside the matrices is
read or written, only fetched (columns by mask, surplus rows repeat the last one).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

from graphjit.backend.llvm.products.vectors import VectorType, declare_fetch, fetch
from graphjit.backend.llvm.writing.text import Module, Phi
from graphjit.backend.llvm.writing.writer import HOT, Writer
from graphjit.machine import machine

TILE_PARAMETERS = [
    ("i64", "m"),
    ("i64", "n"),
    ("i64", "k"),
    ("ptr", "a"),
    ("i64", "rs"),
    ("i64", "cs"),
    ("ptr", "b"),
    ("i64", "ldb"),
    ("ptr", "c"),
    ("i64", "ldc"),
    ("i1", "continue"),
]
"""m rows; n columns in the last vector; k terms, at least one; A's strides, B's row stride and C's row stride
in bytes; continue: C holds a partial sum.
"""
TURN_PARAMETERS = [*TILE_PARAMETERS, ("i64", "turns"), ("i64", "jump")]
"""Besides, of a tile that reads its terms in several turns: their number, at least one, and what in A lies
between the end of one and the beginning of the next, in bytes. B goes on as before.
"""


@dataclass(frozen=True)
class Tile:
    """Shape of the register tile: what fits a machine's registers."""

    kind: str
    rows: int
    vectors: int
    lanes: int
    fused: bool

    @cached_property
    def element(self) -> str:
        """LLVM's element type."""
        return self.vector.element

    @cached_property
    def size(self) -> int:
        """Bytes of an element."""
        return self.vector.size

    @cached_property
    def vector(self) -> VectorType:
        """Vectors that fill a register."""
        return VectorType(self.kind, self.lanes, self.fused)

    @property
    def columns(self) -> int:
        """Columns of the widest tile."""
        return self.vectors * self.lanes

    @property
    def family(self) -> str:
        """What the names of native functions say of vectors and arithmetic: ``f64x8``, ``f64x2m`` without
        fused multiply-add.
        """
        return f"{self.kind}x{self.lanes}{'' if self.fused else 'm'}"


def host_tile(kind: str) -> Tile:
    """The tile for this machine: 32 registers of 512 bit, 16 of 256 bit, or 128 bit (32 registers on ARM, 16
    on x86).
    """
    here = machine()
    lanes = here.vector_bytes // (8 if kind == "f64" else 4)
    if not here.fused:
        return Tile(kind, 4, 2, lanes, False)
    return Tile(kind, 6, 4 if here.vector_registers == 32 else 2, lanes, True)


def tile_symbol(tile: Tile, rows: int, vectors: int, half: bool = False) -> str:
    """Native name of the tile of ``rows`` rows and ``vectors`` vectors; ``half``: the last vector is half as
    wide.
    """
    return f"gj_tile_{tile.family}_{rows}x{vectors}{'h' if half else ''}"


def turns_symbol(tile: Tile, rows: int, vectors: int, half: bool = False) -> str:
    """Native name of the same tile where it reads its terms in turns."""
    return tile_symbol(tile, rows, vectors, half).replace("gj_tile_", "gj_turns_")


def declare_tile(
    module: Module, tile: Tile, rows: int, vectors: int, half: bool = False, turns: bool = False
) -> str:
    """Declare a tile in ``module``; returns its name."""
    name = (turns_symbol if turns else tile_symbol)(tile, rows, vectors, half)
    parameters = TURN_PARAMETERS if turns else TILE_PARAMETERS
    module.declare(name, f"declare void @{name}({', '.join(kind for kind, _ in parameters)})")
    return name


def emit_tile(
    module: Module, tile: Tile, rows: int, vectors: int, half: bool = False, turns: bool = False
) -> None:
    """Add a tile: C[m, n] (+)= A[m, k] B[k, n] for 1 <= m <= rows and n in the last of ``vectors`` vectors;
    strides in bytes. With ``turns``, the terms are k a turn.
    """
    w = _TileWriter(module, tile, rows, vectors, half, turns)
    w.point_to_rows()
    w.store_totals(w.sum_terms())
    w.finish()


class _TileWriter(Writer):
    """A tile under construction."""

    def __init__(self, module: Module, tile: Tile, rows: int, vectors: int, half: bool, turns: bool) -> None:
        name = (turns_symbol if turns else tile_symbol)(tile, rows, vectors, half)
        super().__init__(module, name, TURN_PARAMETERS if turns else TILE_PARAMETERS, attributes=HOT)
        self.tile, self.rows, self.turns = tile, rows, turns
        full = tile.vector
        last = VectorType(tile.kind, tile.lanes // 2, tile.fused) if half else full
        self.row = [full] * (vectors - 1) + [last]
        """The vectors of a row; the last one is masked."""
        for of in self.row:
            of.declare_multiply_add(module)
        last.declare_load(module)
        last.declare_store(module)
        self.mask = last.below(self, last.spread_index(self, "%n"))
        self.a, self.c = ["%a"], ["%c"]
        self.ahead = self.mul("%cs", module.limits.tiles.ahead)

    def hidden(self, step: str) -> str:
        """A step that the optimiser knows nothing of. Strength reduction then finds nothing to ponder, which
        saves a quarter of the time to compile; to read it from memory in each turn would do so too, but
        loads are what a tile of few registers runs out of (6 x 2 vectors: 34 to 43.5 of 47 GF/s).
        """
        return self.op(f'call i64 asm "", "=r,0"(i64 {step})')

    def point_to_rows(self) -> None:
        """Pointers to the rows of A and C; surplus rows are the last one again."""
        for i in range(1, self.rows):
            inside = self.test("slt", i, "%m")
            self.a.append(self.at(self.a[-1], self.select(inside, "%rs", 0)))
            self.c.append(self.at(self.c[-1], self.select(inside, "%ldc", 0)))

    def load_vector(self, row: str, v: int) -> str:
        """Vector ``v`` of a row of B or C."""
        place, mask = self._place(row, v)
        return self.row[v].load(self, place, mask)

    def store_vector(self, value: str, row: str, v: int) -> None:
        """Store vector ``v`` of a row of C."""
        place, mask = self._place(row, v)
        self.row[v].store(self, value, place, mask)

    def _place(self, row: str, v: int) -> tuple[str, str]:
        """Where vector ``v`` of a row lies, and its mask."""
        return self.at(row, v * self.tile.vector.nbytes), self.mask if v == len(self.row) - 1 else ""

    def sum_terms(self) -> list[list[str]]:
        """The loop over k, or over turns and k; gives the sums, by row and vector."""
        zeros = [["zeroinitializer"] * len(self.row) for _ in range(self.rows)]
        if not self.turns:
            return self._one_turn("0", "%b", zeros)[0]
        fn = self.fn
        begin, head, done = fn.current, fn.label("turn"), fn.label("summed")
        self.do(f"br label %{head}")
        fn.start(head)
        left, offset, b, sums = self._phis("%turns", "0", "%b", zeros, begin)
        totals, behind, b_behind = self._one_turn(
            offset.name, b.name, [[s.name for s in row] for row in sums]
        )
        end = fn.current
        left.add(self.sub(left.name, 1), end)
        offset.add(self.add(behind, self.hidden("%jump")), end)
        b.add(b_behind, end)
        for row, values in zip(sums, totals, strict=True):
            for phi, value in zip(row, values, strict=True):
                phi.add(value, end)
        self.do(f"br i1 {self.test('sgt', left.name, 1)}, label %{head}, label %{done}")
        fn.start(done)
        return totals

    def _phis(
        self, count: str, offset: str, b: str, sums: list[list[str]], begin: str
    ) -> tuple[Phi, Phi, Phi, list[list[Phi]]]:
        """What a loop carries: what is left of it, the places in A and B, the sums."""
        fn = self.fn
        found = fn.phi("i64"), fn.phi("i64"), fn.phi("ptr")
        for phi, value in zip(found, (count, offset, b), strict=True):
            phi.add(value, begin)
        carried = [[fn.phi(of.text) for of in self.row] for _ in range(self.rows)]
        for phi, value in zip(itertools.chain(*carried), itertools.chain(*sums), strict=True):
            phi.add(value, begin)
        return *found, carried

    def _one_turn(
        self, offset_of_a: str, place_in_b: str, before: list[list[str]]
    ) -> tuple[list[list[str]], str, str]:
        """The loop over k; gives the sums, by row and vector, and the places behind it."""
        fn = self.fn
        begin, head, done = fn.current, fn.label("k"), fn.label("done")
        self.do(f"br label %{head}")
        fn.start(head)
        left, offset, b, sums = self._phis("%k", offset_of_a, place_in_b, before, begin)
        self._fetch_ahead(offset.name)
        right = [self.load_vector(b.name, v) for v in range(len(self.row))]
        totals = [self._add_term(i, offset.name, right, sums[i], head) for i in range(self.rows)]
        left.add(self.sub(left.name, 1), head)
        behind, b_behind = self.add(offset.name, self.hidden("%cs")), self.at(b.name, self.hidden("%ldb"))
        offset.add(behind, head)
        b.add(b_behind, head)
        self.do(f"br i1 {self.test('sgt', left.name, 1)}, label %{head}, label %{done}")
        fn.start(done)
        return totals, behind, b_behind

    def _fetch_ahead(self, offset: str) -> None:
        """Ask for later terms of the first and the last row of A."""
        declare_fetch(self.module)
        ahead = self.add(offset, self.hidden(self.ahead))
        for row in sorted({0, self.rows - 1}):
            fetch(self, self.at(self.a[row], ahead))

    def _add_term(self, i: int, offset: str, right: list[str], sums: list[Phi], head: str) -> list[str]:
        """One term of row ``i``: an element of A times a row of B, added to the sums."""
        value = self.load(self.tile.element, self.at(self.a[i], offset), self.tile.size)
        spread = {of: of.spread(self, value) for of in dict.fromkeys(self.row)}
        totals = []
        for of, column, phi in zip(self.row, right, sums, strict=True):
            totals.append(of.multiply_add(self, spread[of], column, phi.name))
            phi.add(totals[-1], head)
        return totals

    def store_totals(self, totals: list[list[str]]) -> None:
        """C = totals, or C += totals where it holds a partial sum."""
        vectors, fn = range(len(self.row)), self.fn
        more, first = fn.label("more"), fn.label("first")
        self.do(f"br i1 %continue, label %{more}, label %{first}")
        fn.start(more)  # every row is read before one is written, since surplus rows are the last one again
        before = [[self.load_vector(row, v) for v in vectors] for row in self.c]
        for row, old, new in zip(self.c, before, totals, strict=True):
            for v in vectors:
                total = self.op(f"fadd {self.row[v].text} {old[v]}, {new[v]}")
                self.store_vector(total, row, v)
        self.do("ret void")
        fn.start(first)
        for row, new in zip(self.c, totals, strict=True):
            for v in vectors:
                self.store_vector(new[v], row, v)
