"""Matrix products through SciPy's BLAS.

Job: give generated modules the BLAS that SciPy was built with, one BLAS thread per call, our own split of the
rows.
Input: an element kind. Output: native symbols ``gj_blas_dgemm`` / ``gj_blas_sgemm`` (Fortran interface) and
``gj_gemm_blas_f64`` / ``gj_gemm_blas_f32``: ``void (i64 M, i64 N, i64 K, ptr A, i64 lda, i64 transA, ptr B,
i64 ldb, i64 transB, ptr C, i64 ldc, i64 accumulate)`` with C row-major M x N, A row-major M x K (or, if
``transA``, stored as its transpose K x M), B row-major K x N (or stored as N x K).
Invariants: SciPy is imported on first need only; the number of BLAS threads that the user chose is the same
again when our last running call returns; row blocks depend on the shape alone. Every length and leading
dimension must be below 2**31.
"""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache

from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.threads import pool
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import Writer

SYMBOL = {"f64": "gj_gemm_blas_f64", "f32": "gj_gemm_blas_f32"}
"""Native name of the row-major product per element kind."""

_ROUTINE = {"f64": "dgemm", "f32": "sgemm"}
_PREFIXES = ("scipy_openblas_", "openblas_")
ROW_WORK = 1 << 20
"""Multiply-adds per block of rows at the least."""
MAX_BLOCKS = 16

_CONTEXT = ["m", "n", "k", "a", "lda", "trans_a", "b", "ldb", "trans_b", "c", "ldc", "accumulate", "blocks"]
_modules: dict[str, jit.NativeModule] = {}
_lock = threading.Lock()


@cache
def routine(name: str) -> int:
    """Address of a BLAS routine (``"dgemm"``) with the Fortran interface."""
    # SciPy's import costs more than ours, and most programs never need its BLAS.
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__[name]
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, get_name(capsule)))


@cache
def thread_control() -> tuple[int, int] | None:
    """Addresses of ``int get()`` and ``void set(int)`` of the number of BLAS threads, or None when this BLAS
    has none that we know.
    """
    # Same reason as above.
    from scipy.linalg import cython_blas

    library = ctypes.CDLL(
        cython_blas.__file__
    )  # a symbol is looked up in the BLAS library that it depends on as well
    for prefix in _PREFIXES:
        names = (f"{prefix}get_num_threads", f"{prefix}set_num_threads")
        if all(hasattr(library, name) for name in names):
            get, put = (ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in names)
            assert get
            assert put
            return get, put
    return None


def control_source(control: tuple[int, int] | None) -> str:
    """``gj_blas_limit`` and ``gj_blas_restore``: the first call in sets one BLAS thread, the last one out
    sets what was there before; ``gj_blas_forget``: after fork no call is running.
    """
    module = Module("blas_threads")
    module.add_global("guard", "@guard = internal global i32 0")
    module.add_global("inside", "@inside = internal global i64 0")
    module.add_global("chosen", "@chosen = internal global i32 0")
    for name, change in (("gj_blas_limit", 1), ("gj_blas_restore", -1)):
        w = Writer(module, name, [])
        if control is not None:
            spin, locked = w.fn.label("spin"), w.fn.label("locked")
            w.do(f"br label %{spin}")
            w.fn.start(spin)
            held = w.op("atomicrmw xchg ptr @guard, i32 1 acquire")
            w.do(f"br i1 {w.op(f'icmp eq i32 {held}, 0')}, label %{locked}, label %{spin}")
            w.fn.start(locked)
            before = w.load("i64", "@inside")
            after = w.add(before, change)
            w.store("i64", after, "@inside")
            with w.when(w.test("eq", before if change == 1 else after, 0)):
                if change == 1:
                    w.store("i32", w.op(f"call i32 inttoptr (i64 {control[0]} to ptr)()"), "@chosen", 4)
                _set_threads(w, control, "1" if change == 1 else w.load("i32", "@chosen", 4))
            w.do("store atomic i32 0, ptr @guard release, align 4")
        w.finish()
    w = Writer(module, "gj_blas_forget", [])
    if control is not None:
        with w.when(w.test("ne", w.load("i64", "@inside"), 0)):
            _set_threads(w, control, w.load("i32", "@chosen", 4))
        w.store("i64", 0, "@inside")
        w.store("i32", 0, "@guard", 4)
    w.finish()
    return module.render()


def _set_threads(w: Writer, control: tuple[int, int], count: str) -> None:
    w.do(f"call void inttoptr (i64 {control[1]} to ptr)(i32 {count})")


def source(kind: str) -> str:
    """LLVM text of the row-major product."""
    module = Module(f"blas_{kind}")
    module.declare("gj_parallel_for", "declare void @gj_parallel_for(ptr, ptr, i64, i64)")
    gemm = f"gj_blas_{_ROUTINE[kind]}"
    module.declare(gemm, f"declare void @{gemm}({', '.join(['ptr'] * 13)})")
    module.declare("gj_blas_limit", "declare void @gj_blas_limit()")
    module.declare("gj_blas_restore", "declare void @gj_blas_restore()")
    module.declare("memset", "declare ptr @memset(ptr, i32, i64)")
    _emit_rows(module, kind)
    _emit_product(module, kind)
    return module.render()


def _emit_rows(module: Module, kind: str) -> None:
    """``rows``: one block of rows of C.  Fortran sees the transposes: C' = B' A'."""
    size, element = (8, "double") if kind == "f64" else (4, "float")
    w = Writer(module, "rows", [("ptr", "context"), ("i64", "block")])
    c = {
        name: w.load("ptr" if name in "abc" else "i64", w.at("%context", 8 * i))
        for i, name in enumerate(_CONTEXT)
    }
    start = w.div(w.mul("%block", c["m"]), c["blocks"])
    stop = w.div(w.mul(w.add("%block", 1), c["m"]), c["blocks"])
    stored_transposed = w.test("ne", c["trans_a"], 0)
    a = w.at(c["a"], w.mul(w.mul(start, w.select(stored_transposed, 1, c["lda"])), size))
    out = w.at(c["c"], w.mul(w.mul(start, c["ldc"]), size))
    pointers = []
    for condition in (w.test("ne", c["trans_b"], 0), stored_transposed):
        letter = w.fn.alloca("i8")
        w.store("i8", w.select(condition, ord("T"), ord("N"), "i8"), letter, 1)
        pointers.append(letter)
    for value in (c["n"], w.sub(stop, start), c["k"]):
        pointers.append(_integer(w, value))
    one, beta = w.fn.alloca(element), w.fn.alloca(element)
    w.store(element, "1.0", one, size)
    w.store(element, w.select(w.test("ne", c["accumulate"], 0), "1.0", "0.0", element), beta, size)
    pointers += [
        one,
        c["b"],
        _integer(w, c["ldb"]),
        a,
        _integer(w, c["lda"]),
        beta,
        out,
        _integer(w, c["ldc"]),
    ]
    w.call(f"gj_blas_{_ROUTINE[kind]}", [f"ptr {pointer}" for pointer in pointers])
    w.finish()


def _integer(w: Writer, value: str) -> str:
    slot = w.fn.alloca("i32")
    w.store("i32", w.op(f"trunc i64 {value} to i32"), slot, 4)
    return slot


def _emit_product(module: Module, kind: str) -> None:
    """The public function."""
    size = 8 if kind == "f64" else 4
    parameters = [("ptr" if name in "abc" else "i64", name) for name in _CONTEXT[:-1]]
    w = Writer(module, SYMBOL[kind], parameters)
    with w.exit_when(w.either(w.test("sle", "%m", 0), w.test("sle", "%n", 0))):
        pass
    with w.exit_when(w.test("sle", "%k", 0)), w.when(w.test("eq", "%accumulate", 0)), w.loop(0, "%m") as row:
        place = w.at("%c", w.mul(w.mul(row, "%ldc"), size))
        w.call("memset", [f"ptr {place}", "i32 0", f"i64 {w.mul('%n', size)}"], "ptr")
    context = w.fn.alloca(f"[{len(_CONTEXT)} x i64]")
    work = w.mul(w.mul("%m", "%n"), "%k")
    blocks = w.max(w.min(w.min(w.div(work, ROW_WORK), MAX_BLOCKS), "%m"), 1)
    for i, name in enumerate(_CONTEXT):
        w.store(
            "ptr" if name in "abc" else "i64",
            blocks if name == "blocks" else f"%{name}",
            w.at(context, 8 * i),
        )
    w.call("gj_blas_limit", [])
    w.call("gj_parallel_for", ["ptr @rows", f"ptr {context}", f"i64 {blocks}", f"i64 {w.div(work, 25)}"])
    w.call("gj_blas_restore", [])
    w.finish()


def ensure(kind: str) -> None:
    """Find SciPy's BLAS and register the symbols of ``kind`` ("f64" or "f32"); only the first call costs
    anything.
    """
    with _lock:
        if kind not in _modules:
            pool.ensure()
            _ensure_control()
            jit.add_symbol(f"gj_blas_{_ROUTINE[kind]}", routine(_ROUTINE[kind]))
            _modules[kind] = jit.NativeModule(source(kind))
            jit.add_symbol(SYMBOL[kind], _modules[kind].address(SYMBOL[kind]))


@cache
def _ensure_control() -> jit.NativeModule:
    module = jit.NativeModule(control_source(thread_control()))
    for name in ("gj_blas_limit", "gj_blas_restore"):
        jit.add_symbol(name, module.address(name))
    forget = ctypes.CFUNCTYPE(None)(module.address("gj_blas_forget"))
    os.register_at_fork(after_in_child=forget)
    return module


def address(kind: str) -> int:
    """Address of the row-major product."""
    ensure(kind)
    return _modules[kind].address(SYMBOL[kind])
