"""Products inside sweeps: a block of rows by a small matrix, or the columns of a block by each other.

Job: the loops around the register tiles, where one extent, the rows of the block, is known at run time only.
Which products join a sweep is decided in `schedule/sweep.py`.
Input: a `Multiply` of the loop IR.  Output: the name of a function ``(x, y, out, rows)`` in the module, made
once for each shape and strides.
Invariant: each element is the sum, in the order of k, of chains of fused multiply-adds of 256 terms each.
"""

from __future__ import annotations

from functools import partial

from graphjit.backend.llvm.products.choose_tiles import choose_tiles
from graphjit.backend.llvm.products.tile import TILE_PARAMETERS, Tile, declare_tile
from graphjit.backend.llvm.products.vectors import arguments
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import Value, Writer
from graphjit.loops.ir import Multiply


def block_function(module: Module, tile: Tile, product: Multiply) -> str:
    """The function for ``product``, added to ``module`` when it is the first of its kind."""
    strides = (product.x.row, product.x.column, product.y.row, product.out.row)
    name = "_".join(map(str, ("adds" if product.adds else "rows", tile.kind, *product.shape, *strides)))
    module.ensure(name, partial(_text, name, tile, product))
    return name


def _text(name: str, tile: Tile, product: Multiply, module: Module) -> str:
    """Blocks of k, in them panels of y, in them tiles of rows."""
    (m, n, k), size, k_block = product.shape, tile.size, module.limits.products.k_block
    tiling = choose_tiles(tile, m, n, min(k, k_block), module.limits.tiles)
    row_of_x, column_of_x = product.x.row * size, product.x.column * size
    row_of_y, row_of_out = product.y.row * size, product.out.row * size
    w = Writer(module, name, [("ptr", "x"), ("ptr", "y"), ("ptr", "out"), ("i64", "rows")])
    height, terms = (str(m), "%rows") if product.adds else ("%rows", str(k))
    with w.loop(0, terms, k_block) as k0:
        count = w.min(k_block, w.sub(terms, k0))
        x = w.at("%x", w.mul(k0, column_of_x))
        y = w.at("%y", w.mul(k0, row_of_y))
        continues = "1" if product.adds else w.test("ne", k0, 0)
        for strip in tiling.strips():
            function = declare_tile(module, tile, tiling.rows, strip.width, strip.half)
            with w.loop(strip.first, strip.last) as panel:
                vector = w.add(w.mul(w.sub(panel, strip.first), strip.width), strip.vector)
                columns = w.sub(n - (strip.width - 1) * tile.lanes, w.mul(vector, tile.lanes))
                place = w.mul(vector, tile.lanes * size)
                right, target = w.at(y, place), w.at("%out", place)
                with w.loop(0, height, tiling.rows) as row:
                    rows = w.min(tiling.rows, w.sub(height, row))
                    left = w.at(x, w.mul(row, row_of_x))
                    out = w.at(target, w.mul(row, row_of_out))
                    values: list[Value] = [rows, columns, count, left, row_of_x, column_of_x]
                    values += [right, row_of_y, out, row_of_out, continues]
                    w.call(function, arguments(TILE_PARAMETERS, values))
    w.do("ret void")
    return w.fn.render()
