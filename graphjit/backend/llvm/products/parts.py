"""The native parts of products: compiles each on first need, once per process, and registers it.

Job: make register tiles, packing, products by rows or dots, and the product of any shape (``gj_gemm_f64``,
``gj_gemm_f32``) known to the modules of programs that call them.
Input: an element kind, or names of parts.  Output: those parts, and the native function

    void gj_gemm_f64(i64 M, i64 N, i64 K, ptr A, i64 rsA, i64 csA, ptr B, i64 rsB, i64 csB,
                     ptr C, i64 ldc, i64 accumulate)

which sets C = A B, or adds A B to C where ``accumulate`` is not 0. C is M x N with contiguous rows ``ldc``
elements apart; A is M x K and B is K x N with any strides, in elements.
Invariants: all programs share these parts, so they are made with the limits of this machine even where a test
gives a program others; each element of C is the sum of chains of fused multiply-adds in the order of k, of
some 256 terms each, cut by k alone, so results do not depend on threads, packing or strides (of a small C
with 4096 terms or more, segments are summed apart, cut by shape alone); C overlaps neither A nor B.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterable

from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.products.dots import emit_dots
from graphjit.backend.llvm.products.packed import block_symbol, emit_block, emit_gemm
from graphjit.backend.llvm.products.panels import (
    emit_pack,
    emit_transpose,
    pack_symbol,
    transpose_slot,
    transpose_symbol,
)
from graphjit.backend.llvm.products.streamed import emit_rows
from graphjit.backend.llvm.products.tile import Tile, emit_tile, host_tile, tile_symbol
from graphjit.backend.llvm.products.workspace import GIVE, TAKE, emit_workspace
from graphjit.backend.llvm.threads import pool
from graphjit.backend.llvm.writing.text import Module

SYMBOL = {"f64": "gj_gemm_f64", "f32": "gj_gemm_f32"}
"""Native names of the product of any shape, by kind of element."""

# What a part is, and its shape: gj_tile_f64x8_6x4h is a tile of 6 rows by 4 vectors, the last one half as
# wide.
_PART = re.compile(
    r"gj_(pack|transpose|rows|dots|tile|turns|block)_(f64|f32)x(\d+)(m?)(?:_(\d+)(?:x(\d+)(h?))?)?"
)
_modules: dict[str, jit.NativeModule] = {}
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A lock held while another thread compiles a part would stay taken in the child; this one is taken before
    # that of `jit`.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def is_part(name: str) -> bool:
    """Whether ``name`` is that of a register tile, packing, transposing, products by rows or dots, or the
    function of a block.
    """
    return _PART.fullmatch(name) is not None


def parts_for(name: str) -> tuple[str, ...]:
    """The parts to compile before a module that declares ``name`` is linked: a part itself, or what the
    product of any shape calls.
    """
    kinds = {symbol: kind for kind, symbol in SYMBOL.items()}
    if name in kinds:
        tile = host_tile(kinds[name])
        return (block_symbol(tile), pack_symbol(tile)) if kinds[name] not in _modules else ()
    return (name,) if is_part(name) else ()


def _emit_part(module: Module, name: str) -> None:
    match = _PART.fullmatch(name)
    assert match is not None, name
    what, kind, lanes, separate, rows, vectors, half = match.groups()
    tile = Tile(kind, int(rows or 0), int(vectors or 0), int(lanes), not separate)
    if what in ("tile", "turns"):
        emit_tile(module, tile, tile.rows, tile.vectors, bool(half), what == "turns")
    elif what == "block":
        emit_block(module, tile)
    elif what == "rows":
        emit_rows(module, tile, tile.rows, several=tile.vectors > 0)
    elif what == "dots":
        emit_dots(module, tile, tile.rows)
    elif what == "transpose":
        emit_transpose(module, tile)
    else:
        emit_pack(module, tile)


def ensure_parts(names: Iterable[str]) -> None:
    """Compile the parts of these names that are missing, and those that they call, as one module; a name says
    all of a part's shape.
    """
    with _lock:
        missing = [name for name in dict.fromkeys(names) if name not in _modules]
        if not missing:
            return
        module = Module("gemm_parts")
        for name in missing:  # grows on the way
            _emit_part(module, name)
            missing += [
                other
                for other in module.declared_names
                if is_part(other) and other not in _modules and other not in missing
            ]
        if TAKE in module.declared_names:
            ensure_workspace()
        native = jit.NativeModule(module.render(), library=True)
        for name in missing:
            jit.add_symbol(name, native.address(name))
            _modules[name] = native
        for kind in SYMBOL:
            _connect(host_tile(kind))


def _connect(tile: Tile) -> None:
    """Tell blocks and packing where the parts are that they call through pointers."""

    def put(owner: str, table: str, slot: int, part: str) -> None:
        if owner in _modules and part in _modules:
            entry = ctypes.c_void_p.from_address(_modules[owner].address(table) + 8 * slot)
            entry.value = _modules[part].address(part)

    block = block_symbol(tile)
    for vectors in range(1, tile.vectors + 1):
        put(block, f"{block}_tiles", vectors - 1, tile_symbol(tile, tile.rows, vectors))
    put(pack_symbol(tile), transpose_slot(tile), 0, transpose_symbol(tile))


def ensure_product(kind: str) -> None:
    """Compile the product of any shape for ``kind`` ("f64" or "f32") and register its symbol; only the first
    call costs anything.

    Its callers see to it that the tiles for their columns are there (`packed.declare_tiles`).

    Raises MemoryError when there is no memory for the packing buffer (4 MB).
    """
    if kind in _modules:
        return
    with _lock:
        if kind not in _modules:
            native = _product(host_tile(kind))
            jit.add_symbol(SYMBOL[kind], native.address(SYMBOL[kind]))
            _modules[kind] = native


def ensure_workspace() -> None:
    """Compile what lends memory to products; raises MemoryError when there is none for the first piece."""
    with _lock:
        if TAKE in _modules:
            return
        module = Module("gemm_room")
        emit_workspace(module)
        native = _prepared(module)
        for name in (TAKE, GIVE):
            jit.add_symbol(name, native.address(name))
            _modules[name] = native


def _prepared(module: Module) -> jit.NativeModule:
    """Native code of a module whose function ``prepare`` returns 0 for lack of memory."""
    # It decides and calls, so better code would be no faster; what loops over tiles is a part.
    native = jit.NativeModule(module.render(), opt=0, library=True)
    if not ctypes.CFUNCTYPE(ctypes.c_int64)(native.address("prepare"))():
        raise MemoryError("no memory for the buffers of matrix products")
    return native


def build_product(tile: Tile) -> jit.NativeModule:
    """The product for one tile shape as native code, ready to be called for any shape.

    Raises MemoryError when there is no memory for its buffers.
    """
    native = _product(tile)
    _complete(tile)
    return native


def _complete(tile: Tile) -> None:
    """See to it that the product has the parts for any shape."""
    ensure_parts(
        [
            *(tile_symbol(tile, tile.rows, vectors) for vectors in range(1, tile.vectors + 1)),
            transpose_symbol(tile),
        ]
    )
    _connect(tile)


def _product(tile: Tile) -> jit.NativeModule:
    """The product with the parts that it calls by name, without tiles."""
    pool.ensure()
    ensure_workspace()
    module = Module(f"gemm_{tile.kind}")
    emit_gemm(module, tile)
    ensure_parts(name for name in module.declared_names if is_part(name))
    return _prepared(module)


def product_address(kind: str) -> int:
    """Address of the native product, ready for any shape."""
    ensure_product(kind)
    _complete(host_tile(kind))
    return _modules[kind].address(SYMBOL[kind])
