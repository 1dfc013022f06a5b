"""A row vector times a matrix that streams from memory.

Job: c (+)= a B for a few neighbouring rows of B at a time, each read from its beginning to its end, while c stays in the first-level cache.
Input: one row a, a matrix B with contiguous rows.  Output: one function per number of rows, named by `symbol`.
Invariants: each element of c is one chain of fused multiply-adds in the order of the rows, as in the register tile; nothing outside is read or written.

The register tile goes down the columns and touches each page of B once per panel, which a large matrix pays for in lost prefetching.
"""

from __future__ import annotations

from graphjit.backend.llvm.gemm_kernel import Tile
from graphjit.backend.llvm.gemm_text import HOT, Writer
from graphjit.backend.llvm.text import Module

ROWS = 8
"""Rows of B at a time: as many streams as processors prefetch with ease."""
PARAMETERS = [("i64", "n"), ("ptr", "a"), ("i64", "cs"), ("ptr", "b"), ("i64", "ldb"), ("ptr", "c"), ("i1", "continue")]


def symbol(tile: Tile, rows: int) -> str:
    """Native name of the product with ``rows`` rows of B."""
    return f"gj_rows_{tile.family}_{rows}"


def declare(module: Module, tile: Tile, rows: int) -> str:
    """Declare it in ``module``; returns its name."""
    name = symbol(tile, rows)
    module.declare(name, f"declare void @{name}({', '.join(kind for kind, _ in PARAMETERS)})")
    return name


def emit_rows(module: Module, tile: Tile, rows: int) -> None:
    """Add c[n] (+)= a[rows] B[rows, n]; a's stride and B's row stride in bytes; continue: c holds a partial sum."""
    vec, size, lanes, elem = tile.vector, tile.size, tile.lanes, tile.element
    w = Writer(module, symbol(tile, rows), PARAMETERS, attributes=HOT)
    short = f"v{lanes}{tile.kind}"
    module.declare(f"fma.{short}", f"declare {vec} @llvm.fma.{short}({vec}, {vec}, {vec})")
    module.declare(f"load.{short}", f"declare {vec} @llvm.masked.load.{short}.p0(ptr, i32, <{lanes} x i1>, {vec})")
    module.declare(f"store.{short}", f"declare void @llvm.masked.store.{short}.p0({vec}, ptr, i32, <{lanes} x i1>)")
    factors, streams = [], ["%b"]
    for row in range(rows):
        value = w.load(elem, w.at("%a", w.mul("%cs", row)), size)
        value = w.op(f"insertelement {vec} poison, {elem} {value}, i32 0")
        factors.append(w.op(f"shufflevector {vec} {value}, {vec} poison, <{lanes} x i32> zeroinitializer"))
        if row:
            streams.append(w.at(streams[-1], "%ldb"))

    def step(place: str, mask: str) -> None:
        def load(pointer: str) -> str:
            if not mask:
                return w.load(vec, pointer, size)
            return w.op(f"call {vec} @llvm.masked.load.{short}.p0(ptr {pointer}, i32 {size}, {mask}, {vec} zeroinitializer)")

        target = w.at("%c", place)
        total = w.op(f"select i1 %continue, {vec} {load(target)}, {vec} zeroinitializer")
        for factor, stream in zip(factors, streams, strict=True):
            right = load(w.at(stream, place))
            if tile.fused:
                total = w.op(f"call {vec} @llvm.fma.{short}({vec} {factor}, {vec} {right}, {vec} {total})")
            else:
                total = w.op(f"fadd {vec} {w.op(f'fmul {vec} {factor}, {right}')}, {total}")
        if mask:
            w.do(f"call void @llvm.masked.store.{short}.p0({vec} {total}, ptr {target}, i32 {size}, {mask})")
        else:
            w.store(vec, total, target, size)

    whole = w.op(f"and i64 %n, {-lanes}")
    with w.loop(0, whole, lanes) as column:
        step(w.mul(column, size), "")
    with w.when(w.test("slt", whole, "%n")):
        ids = ", ".join(f"i64 {i}" for i in range(lanes))
        left = w.op(f"insertelement <{lanes} x i64> poison, i64 {w.sub('%n', whole)}, i32 0")
        left = w.op(f"shufflevector <{lanes} x i64> {left}, <{lanes} x i64> poison, <{lanes} x i32> zeroinitializer")
        step(w.mul(whole, size), f"<{lanes} x i1> {w.op(f'icmp ult <{lanes} x i64> <{ids}>, {left}')}")
    w.finish()
