"""Products inside sweeps: a block of rows by a small matrix, or the columns of a block by each other.

Job: the loops around the register tiles, where one extent, the rows of the block, is known at run time only.
Input: a `Multiply` of the loop IR. Output: the name of a function ``(x, y, out, rows)`` in the module, made
once for each shape and strides.
Invariant: each element is the sum, in the order of k, of chains of fused multiply-adds of 256 terms each.
"""

from __future__ import annotations

from functools import partial

from graphjit.backend.llvm.products.direct import K_BLOCK
from graphjit.backend.llvm.products.tile import TILE_PARAMETERS, Tile, declare
from graphjit.backend.llvm.products.tiling import tiling
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import Writer
from graphjit.loops.ir import Multiply


def block_function(module: Module, tile: Tile, product: Multiply) -> str:
    """The function for ``product``, added to ``module`` when it is the first of its kind."""
    strides = (product.x.row, product.x.column, product.y.row, product.out.row)
    name = "_".join(map(str, ("adds" if product.adds else "rows", tile.kind, *product.shape, *strides)))
    module.ensure(name, partial(_text, name, tile, product))
    return name


def _text(name: str, tile: Tile, product: Multiply, module: Module) -> str:
    (m, n, k), size = product.shape, tile.size
    shape = tiling(tile, m, n, min(k, K_BLOCK))
    w = Writer(module, name, [("ptr", "x"), ("ptr", "y"), ("ptr", "out"), ("i64", "rows")])
    height, terms = (str(m), "%rows") if product.adds else ("%rows", str(k))
    with w.loop(0, terms, K_BLOCK) as k0:
        kn = w.min(K_BLOCK, w.sub(terms, k0))
        x = w.at("%x", w.mul(k0, product.x.column * size))
        y = w.at("%y", w.mul(k0, product.y.row * size))
        goes_on = "1" if product.adds else w.test("ne", k0, 0)
        for kind in shape.kinds():
            function = declare(module, tile, shape.rows, kind.width, kind.half)
            with w.loop(kind.first, kind.last) as panel:
                vector = w.add(w.mul(w.sub(panel, kind.first), kind.width), kind.vector)
                columns = w.sub(n - (kind.width - 1) * tile.lanes, w.mul(vector, tile.lanes))
                place = w.mul(vector, tile.lanes * size)
                right, target = w.at(y, place), w.at("%out", place)
                with w.loop(0, height, shape.rows) as row:
                    values = [
                        *(w.min(shape.rows, w.sub(height, row)), columns, kn),
                        *(
                            w.at(x, w.mul(row, product.x.row * size)),
                            product.x.row * size,
                            product.x.column * size,
                        ),
                        *(
                            right,
                            product.y.row * size,
                            w.at(target, w.mul(row, product.out.row * size)),
                            product.out.row * size,
                        ),
                        goes_on,
                    ]
                    w.call(
                        function,
                        [f"{of} {value}" for (of, _), value in zip(TILE_PARAMETERS, values, strict=True)],
                    )
    w.do("ret void")
    return w.fn.render()
