"""Packing of matrix operands.

Job: copy a strided block into rows of a fixed width, so that the register tile reads it forwards and from few cache lines.
Input: a block of k rows and n columns with any strides.  Output: the function ``pack`` in a module.
Invariant: nothing outside the block is read; columns from n to the width hold nothing that anybody reads.

Transposed operands are only another order of packing: blocks of 8 by 8 are transposed in registers.
"""

from __future__ import annotations

from graphjit.backend.llvm.gemm_kernel import Tile
from graphjit.backend.llvm.gemm_text import HOT, Writer
from graphjit.backend.llvm.text import Module

SIDE = 8
"""Rows and columns of a block that is transposed in registers."""


def emit_pack(module: Module, tile: Tile) -> None:
    """Add ``pack(target, source, row stride, column stride, k, n, width)``: strides in bytes, width in elements and whole vectors, k and n at least one."""
    w = Writer(
        module,
        "pack",
        [("ptr", "to"), ("ptr", "from"), ("i64", "rs"), ("i64", "cs"), ("i64", "k"), ("i64", "n"), ("i64", "width")],
        attributes=HOT,
    )
    step = w.mul("%width", tile.size)
    with w.exit_when(w.test("eq", "%cs", tile.size)):
        _copy_rows(w, tile, step)
    # A transposed block of few rows is not worth the shuffles.
    with w.exit_when(w.both(w.test("eq", "%rs", tile.size), w.test("sge", "%k", SIDE))):
        whole = w.op(f"and i64 %k, {-SIDE}")
        with w.loop(0, "%n", SIDE) as j:
            _transpose_columns(w, tile, step, j, whole)
        with w.loop(whole, "%k") as k, w.loop(0, "%n") as j:
            _copy_element(w, tile, step, k, j)
    with w.loop(0, "%k") as k, w.loop(0, "%n") as j:
        _copy_element(w, tile, step, k, j)
    w.finish()


def _copy_rows(w: Writer, tile: Tile, step: str) -> None:
    """Rows that are contiguous in the source: whole vectors, the last one masked."""
    vec, lanes = tile.vector, tile.lanes
    name = f"v{lanes}{tile.kind}"
    w.module.declare(f"load.{name}", f"declare {vec} @llvm.masked.load.{name}.p0(ptr, i32, <{lanes} x i1>, {vec})")
    last = w.mul(w.div(w.sub("%n", 1), lanes), lanes)
    left = w.op(f"insertelement <{lanes} x i64> poison, i64 {w.sub('%n', last)}, i32 0")
    left = w.op(f"shufflevector <{lanes} x i64> {left}, <{lanes} x i64> poison, <{lanes} x i32> zeroinitializer")
    ids = ", ".join(f"i64 {i}" for i in range(lanes))
    mask = w.op(f"icmp ult <{lanes} x i64> <{ids}>, {left}")
    with w.loop(0, "%k") as k:
        source, target = w.at("%from", w.mul(k, "%rs")), w.at("%to", w.mul(k, step))
        with w.loop(0, last, lanes) as j:
            place = w.mul(j, tile.size)
            w.store(vec, w.load(vec, w.at(source, place), tile.size), w.at(target, place), tile.size)
        place = w.mul(last, tile.size)
        tail = w.op(
            f"call {vec} @llvm.masked.load.{name}.p0(ptr {w.at(source, place)}, i32 {tile.size}, <{lanes} x i1> {mask}, {vec} zeroinitializer)"
        )
        w.store(vec, tail, w.at(target, place), tile.size)


def _transpose_columns(w: Writer, tile: Tile, step: str, j: str, whole: str) -> None:
    """Columns j to j + 7, each contiguous in the source, over ``whole`` rows; columns beyond n repeat the last."""
    vec = f"<{SIDE} x {tile.element}>"
    columns = []
    for i in range(SIDE):
        column = w.min(w.add(j, i), w.sub("%n", 1))
        columns.append(w.at("%from", w.mul(column, "%cs")))
    target = w.at("%to", w.mul(j, tile.size))
    with w.loop(0, whole, SIDE) as k:
        place = w.mul(k, tile.size)
        rows = [w.load(vec, w.at(column, place), tile.size) for column in columns]
        for distance in (1, 2, 4):
            low = [i if not i & distance else SIDE + i - distance for i in range(SIDE)]
            high = [i + distance if not i & distance else SIDE + i for i in range(SIDE)]
            for i in range(SIDE):
                if not i & distance:
                    a, b = rows[i], rows[i + distance]
                    rows[i], rows[i + distance] = (_shuffle(w, vec, a, b, order) for order in (low, high))
        for i in range(SIDE):
            w.store(vec, rows[i], w.at(target, w.mul(w.add(k, i), step)), tile.size)


def _shuffle(w: Writer, vec: str, a: str, b: str, order: list[int]) -> str:
    lanes = ", ".join(f"i32 {i}" for i in order)
    return w.op(f"shufflevector {vec} {a}, {vec} {b}, <{len(order)} x i32> <{lanes}>")


def _copy_element(w: Writer, tile: Tile, step: str, k: str, j: str) -> None:
    source = w.at(w.at("%from", w.mul(k, "%rs")), w.mul(j, "%cs"))
    target = w.at(w.at("%to", w.mul(k, step)), w.mul(j, tile.size))
    w.store(tile.element, w.load(tile.element, source, tile.size), target, tile.size)
