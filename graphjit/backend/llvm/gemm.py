"""Our own matrix product, a library of native code.

Job: make ``gj_gemm_f64`` and ``gj_gemm_f32`` known to generated modules.
Input: an element kind.  Output: the native function
``void (i64 M, i64 N, i64 K, ptr A, i64 rsA, i64 csA, ptr B, i64 rsB, i64 csB, ptr C, i64 ldc, i64 accumulate)``:
C = A B, or C += A B when ``accumulate`` is not 0; C is M x N with contiguous rows ``ldc`` elements apart; A is M x K and B is K x N with any strides, in elements.
Invariants: compiled once per process and kind, on first need; each element of C is one chain of fused multiply-adds in the order of k, so results do not
depend on threads, blocking or strides (a small C with 4096 terms or more is the sum of such chains, cut by shape alone); C overlaps neither A nor B.
"""

from __future__ import annotations

import ctypes
import threading

from graphjit.backend.llvm import jit, threads
from graphjit.backend.llvm.gemm_blocks import emit_gemm
from graphjit.backend.llvm.gemm_kernel import Tile, emit_tile, host_tile
from graphjit.backend.llvm.gemm_pack import emit_pack
from graphjit.backend.llvm.text import Module

SYMBOL = {"f64": "gj_gemm_f64", "f32": "gj_gemm_f32"}
"""Native name of the product per element kind."""

_modules: dict[str, jit.NativeModule] = {}
_lock = threading.Lock()


def source(tile: Tile) -> str:
    """LLVM text of the library for one tile shape."""
    module = Module(f"gemm_{tile.kind}")
    for vectors in range(1, tile.vectors + 1):
        emit_tile(module, tile, vectors)
    emit_pack(module, tile)
    emit_gemm(module, tile)
    return module.render()


def ensure(kind: str) -> None:
    """Compile the product of ``kind`` ("f64" or "f32") and register its symbol; only the first call costs anything.

    Raises MemoryError when there is no room for the packing buffer (4 MB).
    """
    if kind in _modules:
        return
    with _lock:
        if kind not in _modules:
            _modules[kind] = _build(kind)


def _build(kind: str) -> jit.NativeModule:
    threads.ensure()
    module = jit.NativeModule(source(host_tile(kind)))
    if not ctypes.CFUNCTYPE(ctypes.c_int64)(module.address("prepare"))():
        raise MemoryError("no memory for the buffer of matrix products")
    jit.add_symbol(SYMBOL[kind], module.address(SYMBOL[kind]))
    return module


def address(kind: str) -> int:
    """Address of the native product."""
    ensure(kind)
    return _modules[kind].address(SYMBOL[kind])
