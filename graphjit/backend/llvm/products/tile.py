"""The register tile of the matrix product.

Job: one tile of C, ``rows`` rows by up to ``vectors`` vectors of columns, held in registers over a whole
block of k.
Input: strided A, B with contiguous vectors (in place or packed). Output: one function per height and width,
named by `symbol`.
Invariants: what one run adds to an element of C is one chain of fused multiply-adds in the order of k.
Callers cut k by its length alone, so no element depends on tile shape, packing or the number of threads;
chains are short, so rounding errors stay small however many terms there are; nothing outside the matrices is
read or written, only fetched (columns by mask, surplus rows repeat the last one).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import HOT, Writer
from graphjit.machine import machine


@dataclass(frozen=True)
class Tile:
    """Shape of the register tile: what fits this machine's registers."""

    kind: str
    rows: int
    vectors: int
    lanes: int
    fused: bool

    @property
    def element(self) -> str:
        """LLVM's element type."""
        return "double" if self.kind == "f64" else "float"

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return 8 if self.kind == "f64" else 4

    @property
    def vector(self) -> str:
        """LLVM's vector type."""
        return f"<{self.lanes} x {self.element}>"

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


def symbol(tile: Tile, rows: int, vectors: int, half: bool = False) -> str:
    """Native name of the tile of ``rows`` rows and ``vectors`` vectors; ``half``: the last vector is half as
    wide.
    """
    return f"gj_tile_{tile.family}_{rows}x{vectors}{'h' if half else ''}"


def declare(module: Module, tile: Tile, rows: int, vectors: int, half: bool = False) -> str:
    """Declare a tile in ``module``; returns its name."""
    name = symbol(tile, rows, vectors, half)
    module.declare(name, f"declare void @{name}({', '.join(kind for kind, _ in TILE_PARAMETERS)})")
    return name


def emit_tile(module: Module, tile: Tile, rows: int, vectors: int, half: bool = False) -> None:
    """Add a tile: C[m, n] (+)= A[m, k] B[k, n] for 1 <= m <= rows and n in the last of ``vectors`` vectors;
    strides in bytes.
    """
    elem, size = tile.element, tile.size
    widths = [tile.lanes] * (vectors - 1) + [tile.lanes // 2 if half else tile.lanes]
    types = [f"<{lanes} x {elem}>" for lanes in widths]
    shorts = [f"v{lanes}{tile.kind}" for lanes in widths]
    for vec, short in zip(types, shorts, strict=True):
        module.declare(f"fma.{short}", f"declare {vec} @llvm.fma.{short}({vec}, {vec}, {vec})")
    last, vec, short = widths[-1], types[-1], shorts[-1]
    module.declare(
        f"load.{short}", f"declare {vec} @llvm.masked.load.{short}.p0(ptr, i32, <{last} x i1>, {vec})"
    )
    module.declare(
        f"store.{short}", f"declare void @llvm.masked.store.{short}.p0({vec}, ptr, i32, <{last} x i1>)"
    )
    w = Writer(module, symbol(tile, rows, vectors, half), TILE_PARAMETERS, attributes=HOT)
    fn = w.fn
    ids = ", ".join(f"i64 {i}" for i in range(last))
    one = w.op(f"insertelement <{last} x i64> poison, i64 %n, i32 0")
    all_n = w.op(f"shufflevector <{last} x i64> {one}, <{last} x i64> poison, <{last} x i32> zeroinitializer")
    mask = f"<{last} x i1> " + w.op(f"icmp ult <{last} x i64> <{ids}>, {all_n}")

    def load(pointer: str, v: int) -> str:
        place = w.at(pointer, v * tile.lanes * size)
        if v == vectors - 1:
            return w.op(
                f"call {vec} @llvm.masked.load.{short}.p0(ptr {place}, i32 {size}, {mask}, {vec} zeroinitializer)"
            )
        return w.load(types[v], place, size)

    def store(value: str, pointer: str, v: int) -> None:
        place = w.at(pointer, v * tile.lanes * size)
        if v == vectors - 1:
            w.do(f"call void @llvm.masked.store.{short}.p0({vec} {value}, ptr {place}, i32 {size}, {mask})")
        else:
            w.store(types[v], value, place, size)

    # Steps are read from memory in each turn: strength reduction then finds nothing to ponder, which saves a
    # quarter of the time to compile.
    steps = [fn.alloca("i64") for _ in range(3)]
    w.store("i64", "%cs", steps[0])
    w.store("i64", "%ldb", steps[1])
    w.store("i64", w.mul("%cs", AHEAD), steps[2])
    a, c = ["%a"], ["%c"]
    for i in range(1, rows):
        inside = w.test("slt", i, "%m")
        a.append(w.at(a[-1], w.select(inside, "%rs", 0)))
        c.append(w.at(c[-1], w.select(inside, "%ldc", 0)))
    begin, head, done = fn.current, fn.label("k"), fn.label("done")
    w.do(f"br label %{head}")
    fn.start(head)
    left, offset, b = fn.phi("i64"), fn.phi("i64"), fn.phi("ptr")
    phis = [[fn.phi(kind) for kind in types] for _ in range(rows)]
    left.add("%k", begin)
    offset.add("0", begin)
    b.add("%b", begin)
    for phi in itertools.chain.from_iterable(phis):
        phi.add("zeroinitializer", begin)
    module.declare("llvm.prefetch.p0", "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    ahead = w.add(offset.name, w.load("i64", steps[2]))
    for row in sorted({0, rows - 1}):
        w.do(f"call void @llvm.prefetch.p0(ptr {w.at(a[row], ahead)}, i32 0, i32 3, i32 1)")
    right = [load(b.name, v) for v in range(vectors)]
    totals: list[list[str]] = []
    for i in range(rows):
        value = w.load(elem, w.at(a[i], offset.name), size)
        many_of = {lanes: spread(w, value, lanes, elem) for lanes in dict.fromkeys(widths)}
        totals.append([])
        for v, kind in enumerate(types):
            many = many_of[widths[v]]
            if tile.fused:
                total = w.op(
                    f"call {kind} @llvm.fma.{shorts[v]}({kind} {many}, {kind} {right[v]}, {kind} {phis[i][v].name})"
                )
            else:
                total = w.op(f"fadd {kind} {w.op(f'fmul {kind} {many}, {right[v]}')}, {phis[i][v].name}")
            phis[i][v].add(total, head)
            totals[i].append(total)
    left.add(w.sub(left.name, 1), head)
    offset.add(w.add(offset.name, w.load("i64", steps[0])), head)
    b.add(w.at(b.name, w.load("i64", steps[1])), head)
    w.do(f"br i1 {w.test('sgt', left.name, 1)}, label %{head}, label %{done}")
    fn.start(done)
    more, first = fn.label("more"), fn.label("first")
    w.do(f"br i1 %continue, label %{more}, label %{first}")
    fn.start(more)  # every row is read before one is written, since surplus rows are the last one again
    before = [[load(c[i], v) for v in range(vectors)] for i in range(rows)]
    for i in range(rows):
        for v, kind in enumerate(types):
            store(w.op(f"fadd {kind} {before[i][v]}, {totals[i][v]}"), c[i], v)
    w.do("ret void")
    fn.start(first)
    for i in range(rows):
        for v in range(vectors):
            store(totals[i][v], c[i], v)
    w.finish()


def spread(w: Writer, value: str, lanes: int, element: str) -> str:
    """``value`` in every lane."""
    one = w.op(f"insertelement <{lanes} x {element}> poison, {element} {value}, i32 0")
    return w.op(
        f"shufflevector <{lanes} x {element}> {one}, <{lanes} x {element}> poison, <{lanes} x i32> zeroinitializer"
    )


AHEAD = 16
"""Terms of k before they are needed at which A is fetched: its columns may lie a page apart, where no
processor sees what comes next.
"""

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
