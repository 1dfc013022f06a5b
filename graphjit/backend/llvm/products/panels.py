"""Copies a matrix operand into panels, which the register tile reads forwards and from few cache lines.

Job: copy a block with any strides into rows of a fixed width.
Input: a block of k rows and n columns with any strides.  Output: the native function that `pack_symbol`
names.
Invariant: nothing outside the block is read; columns from n to the width hold nothing that anybody reads.

Transposed operands are only another order of packing: square blocks are transposed in registers, by a part
that is compiled when a program first has such an operand (`declare_transpose`); until then elements are
copied one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphjit.backend.llvm.products.choose_tiles import Strip
from graphjit.backend.llvm.products.extents import minus, times
from graphjit.backend.llvm.products.tile import Tile
from graphjit.backend.llvm.products.vectors import arguments
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import HOT, Value, Writer

PACK_PARAMETERS = [
    ("ptr", "to"),
    ("ptr", "from"),
    ("i64", "rs"),
    ("i64", "cs"),
    ("i64", "k"),
    ("i64", "n"),
    ("i64", "width"),
]
TRANSPOSE_PARAMETERS = [
    ("ptr", "to"),
    ("ptr", "from"),
    ("i64", "step"),
    ("i64", "cs"),
    ("i64", "k"),
    ("i64", "n"),
]


def pack_symbol(tile: Tile) -> str:
    """Native name of the packing of this family of tiles."""
    return f"gj_pack_{tile.family}"


def transpose_symbol(tile: Tile) -> str:
    """Native name of the packing of blocks that are transposed in registers."""
    return f"gj_transpose_{tile.family}"


def transpose_slot(tile: Tile) -> str:
    """Name of the pointer to it, in the module of the packing."""
    return f"{pack_symbol(tile)}_transpose"


def declare_transpose(module: Module, tile: Tile) -> None:
    """Say that ``module`` packs operands whose columns are contiguous."""
    name = transpose_symbol(tile)
    module.declare(name, f"declare void @{name}({', '.join(kind for kind, _ in TRANSPOSE_PARAMETERS)})")


def call_pack(w: Writer, tile: Tile, values: Sequence[Value]) -> None:
    """Declare packing and call it: target, source, row stride, column stride, k, n, width as in
    `emit_pack`.
    """
    name = pack_symbol(tile)
    w.module.declare(name, f"declare void @{name}({', '.join(kind for kind, _ in PACK_PARAMETERS)})")
    w.call(name, arguments(PACK_PARAMETERS, values))


def pack_panel(
    w: Writer,
    tile: Tile,
    n: int,
    rhs: tuple[int, int],
    strip: Strip,
    vector: Value,
    what: tuple[str, str, Value],
) -> None:
    """Copy the panel of a strip that begins at ``vector``; ``what``: the target, where the first column of B
    lies, and how many terms. B has ``n`` columns, and ``rhs`` are its strides in elements.
    """
    if rhs[0] == 1:
        declare_transpose(w.module, tile)
    target, b, terms = what
    row, column = (step * tile.size for step in rhs)
    columns = strip.width * tile.lanes
    rest = minus(w, n, times(w, vector, tile.lanes))
    valid = min(columns, rest) if isinstance(rest, int) else w.min(columns, rest)
    source = w.at(b, times(w, vector, rhs[1] * tile.vector.nbytes))
    call_pack(w, tile, [target, source, row, column, terms, valid, columns])


def emit_pack(module: Module, tile: Tile) -> None:
    """Add packing (target, source, row stride, column stride, k, n, width): strides in bytes, width in
    elements and whole vectors, k and n at least one.
    """
    slot = transpose_slot(tile)
    module.add_global(slot, f"@{slot} = global ptr null")
    w = Writer(module, pack_symbol(tile), PACK_PARAMETERS)
    step = w.mul("%width", tile.size)
    with w.exit_when(w.test("eq", "%cs", tile.size)):
        _copy_rows(w, tile, step)
    # A transposed block of few rows is not worth the shuffles.
    transpose = w.load("ptr", f"@{slot}")
    able = w.both(w.test("eq", "%rs", tile.size), w.op(f"icmp ne ptr {transpose}, null"))
    whole = w.select(able, w.op(f"and i64 %k, {-_side(tile)}"), 0)
    with w.when(w.test("ne", whole, 0)):
        w.do(f"call void {transpose}(ptr %to, ptr %from, i64 {step}, i64 %cs, i64 {whole}, i64 %n)")
    with w.loop(whole, "%k") as k, w.loop(0, "%n") as j:
        source = w.at(w.at("%from", w.mul(k, "%rs")), w.mul(j, "%cs"))
        target = w.at(w.at("%to", w.mul(k, step)), w.mul(j, tile.size))
        w.store(tile.element, w.load(tile.element, source, tile.size), target, tile.size)
    w.finish()


def _copy_rows(w: Writer, tile: Tile, step: str) -> None:
    """Rows that are contiguous in the source: whole vectors, the last one masked."""
    of, size = tile.vector, tile.size
    of.declare_load(w.module)
    last = w.mul(w.div(w.sub("%n", 1), of.lanes), of.lanes)
    mask = of.below(w, of.spread_index(w, w.sub("%n", last)))
    with w.loop(0, "%k") as k:
        source, target = w.at("%from", w.mul(k, "%rs")), w.at("%to", w.mul(k, step))
        with w.loop(0, last, of.lanes) as j:
            place = w.mul(j, size)
            of.store(w, of.load(w, w.at(source, place)), w.at(target, place))
        place = w.mul(last, size)
        of.store(w, of.load(w, w.at(source, place), mask), w.at(target, place))


def _side(tile: Tile) -> int:
    """Rows and columns of a block that is transposed in registers; divides every width."""
    return min(8, tile.lanes)


def emit_transpose(module: Module, tile: Tile) -> None:
    """Add the part of `transpose_symbol`: n columns, each contiguous in the source and ``cs`` bytes apart, of
    k rows, a multiple of ``side``; columns beyond n repeat the last.
    """
    side = _side(tile)
    w = Writer(module, transpose_symbol(tile), TRANSPOSE_PARAMETERS, attributes=HOT)
    vec = f"<{side} x {tile.element}>"
    with w.loop(0, "%n", side) as j:
        columns = []
        for i in range(side):
            column = w.min(w.add(j, i), w.sub("%n", 1))
            columns.append(w.at("%from", w.mul(column, "%cs")))
        corner = w.at("%to", w.mul(j, tile.size))
        with w.loop(0, "%k", side) as k:
            rows = [w.load(vec, w.at(column, w.mul(k, tile.size)), tile.size) for column in columns]
            for distance in (d for d in (1, 2, 4) if d < side):
                low = [i if not i & distance else side + i - distance for i in range(side)]
                high = [i + distance if not i & distance else side + i for i in range(side)]
                for i in range(side):
                    if not i & distance:
                        a, b = rows[i], rows[i + distance]
                        rows[i], rows[i + distance] = (_shuffle(w, vec, a, b, order) for order in (low, high))
            target = w.at(corner, w.mul(k, "%step"))
            for row in rows:
                w.store(vec, row, target, tile.size)
                target = w.at(target, "%step")
    w.finish()


def _shuffle(w: Writer, vec: str, a: str, b: str, order: list[int]) -> str:
    lanes = ", ".join(f"i32 {i}" for i in order)
    return w.op(f"shufflevector {vec} {a}, {vec} {b}, <{len(order)} x i32> <{lanes}>")
