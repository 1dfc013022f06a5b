"""Our matrix product: every shape and layout, exact order of summation, nothing touched outside, whoever
calls.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache

import blas
import numpy as np
import pytest

from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.products import parts
from graphjit.backend.llvm.products.tile import Tile, host_tile
from graphjit.backend.llvm.threads import pool

DTYPE = {"f64": np.float64, "f32": np.float32}
WIDER = {"f64": np.longdouble, "f32": np.float64}
KINDS = ["f64", "f32"]
# Tiles of narrower machines: their code must be right on wider ones too.
TILES = {
    "avx2": lambda kind: Tile(kind, 6, 2, 32 // DTYPE[kind]().itemsize, True),
    "sse2": lambda kind: Tile(kind, 4, 2, 16 // DTYPE[kind]().itemsize, False),
    "neon": lambda kind: Tile(kind, 6, 4, 16 // DTYPE[kind]().itemsize, True),
}
LAYOUTS = ["rows", "columns", "sparse"]
SHAPES = [
    (1, 1, 1),
    (2, 3, 1),
    (3, 5, 7),
    (6, 32, 16),
    (7, 33, 17),
    (8, 8, 8),
    (1, 70, 9),
    (13, 1, 11),
    (19, 41, 300),
    (64, 10, 129),
    (61, 131, 383),
    (101, 67, 385),
]


@cache
def native(kind: str, tile: str = "") -> Callable[..., None]:
    """The product as a Python callable on addresses."""
    if tile:
        module = parts.build_product(TILES[tile](kind))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))
        address = module.address(parts.SYMBOL[kind])
    else:
        address = parts.product_address(kind)
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    return ctypes.CFUNCTYPE(None, *[word] * 3, pointer, word, word, pointer, word, word, pointer, word, word)(
        address
    )


def product(
    a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None, accumulate: bool = False, tile: str = ""
) -> np.ndarray:
    kind, size = ("f64", 8) if a.dtype == np.float64 else ("f32", 4)
    c = np.full((len(a), b.shape[1]), 7, a.dtype) if out is None else out
    arguments: list[int] = [*c.shape, a.shape[1]]
    for x in (a, b):
        arguments += [x.ctypes.data, x.strides[0] // size, x.strides[1] // size]
    native(kind, tile)(*arguments, c.ctypes.data, c.strides[0] // size, accumulate)
    return c


def matrix(rng: np.random.Generator, rows: int, columns: int, kind: str, layout: str = "rows") -> np.ndarray:
    """A random matrix; what lies between its elements in memory is NaN."""
    values = rng.standard_normal((rows, columns)).astype(DTYPE[kind])
    if layout == "rows":
        base = np.full((rows, columns + 2), np.nan, DTYPE[kind])
        view = base[:, :columns]
    elif layout == "columns":
        base = np.full((columns, rows + 3), np.nan, DTYPE[kind])
        view = base[:, :rows].T
    else:
        base = np.full((2 * rows, 3 * columns), np.nan, DTYPE[kind])
        view = base[::-2, ::3]
    view[...] = values
    return view


def check(a: np.ndarray, b: np.ndarray, c: np.ndarray, kind: str) -> None:
    wide = WIDER[kind]
    error = np.abs(c - a.astype(wide) @ b.astype(wide))
    bound = a.shape[1] * np.finfo(DTYPE[kind]).eps * (np.abs(a).astype(wide) @ np.abs(b).astype(wide))
    assert (error <= bound).all(), float((error / bound).max())


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = pool.num_threads()
    yield
    pool.configure(before)


@pytest.mark.sample(2)
@pytest.mark.parametrize("tile", ["", *TILES])
@pytest.mark.parametrize("kind", KINDS)
def test_every_shape_and_layout(kind: str, tile: str) -> None:
    rng = np.random.default_rng(1)
    for (m, n, k), left, right in itertools.product(SHAPES, LAYOUTS, LAYOUTS):
        a, b = matrix(rng, m, k, kind, left), matrix(rng, k, n, kind, right)
        room = np.full((m + 1, n + 3), 7, DTYPE[kind])
        check(a, b, product(a, b, room[:m, :n], tile=tile), kind)
        assert (room[m] == 7).all()
        assert (room[:, n:] == 7).all()


@pytest.mark.parametrize("kind", KINDS)
def test_random_shapes(kind: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(150):
        m, n, k = (int(2 ** rng.uniform(0, 7.5)) for _ in range(3))
        a, b = matrix(rng, m, k, kind, rng.choice(LAYOUTS)), matrix(rng, k, n, kind, rng.choice(LAYOUTS))
        check(a, b, product(a, b), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_one_packing_buffer(kind: str) -> None:
    rng = np.random.default_rng(3)
    for m, n, k in [(25, 1100, 1100), (300, 5, 3000)]:
        for layout in ("rows", "columns"):
            a, b = rng.standard_normal((m, k)).astype(DTYPE[kind]), matrix(rng, k, n, kind, layout)
            np.testing.assert_allclose(product(a, b), a @ b, rtol=0, atol=k * np.finfo(DTYPE[kind]).eps * 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_small_result_of_many_terms(kind: str, layout: str) -> None:
    """k is cut into segments; their number and the order of their sums depend on the shape alone."""
    rng = np.random.default_rng(12)
    for m, n, k in [(5, 3, 20_000), (60, 50, 4_100), (1, 1, 33_000), (8, 8, 4_095)]:
        a, b, start = (
            matrix(rng, m, k, kind, layout),
            matrix(rng, k, n, kind, layout),
            matrix(rng, m, n, kind),
        )
        room = np.full((m + 1, n + 3), 7, DTYPE[kind])
        pool.configure(1)
        one = product(a, b, room[:m, :n]).copy()
        check(a, b, one, kind)
        assert (room[m] == 7).all()
        assert (room[:, n:] == 7).all()
        np.testing.assert_allclose(
            product(a, b, start.copy(), accumulate=True), one + start, rtol=1e-3, atol=1e-3
        )
        for count in (2, 3, 8):
            pool.configure(count)
            np.testing.assert_array_equal(product(a, b), one)


@pytest.mark.parametrize("kind", KINDS)
def test_each_element_is_a_sum_of_short_chains_of_fused_multiply_adds(kind: str) -> None:
    """So a result depends on the number of terms alone: the reference rounds once per term, and once per
    block of terms.
    """
    if not host_tile(kind).fused:
        pytest.skip("this machine has no fused multiply-add")
    rng = np.random.default_rng(4)
    m, n, k, block = 3, 4, 600, 300
    a, b = matrix(rng, m, k, kind), matrix(rng, k, n, kind)
    start = matrix(rng, m, n, kind)
    expected = start.copy()
    for i, j, first in itertools.product(range(m), range(n), range(0, k, block)):
        chain = 0.0
        for term in range(first, first + block):
            chain = _rounded(
                Fraction(float(a[i, term])) * Fraction(float(b[term, j])) + Fraction(chain), kind
            )
        expected[i, j] = _rounded(Fraction(float(expected[i, j])) + Fraction(chain), kind)
    np.testing.assert_array_equal(product(a, b, start.copy(), accumulate=True), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_long_chains_do_not_lose_digits(kind: str) -> None:
    k = 50_000
    a, b = (np.full(shape, 0.1, DTYPE[kind]) for shape in [(40, k), (k, 40)])
    exact = k * float(a[0, 0]) ** 2
    assert (
        np.abs(product(a, b) - exact).max() <= 100 * np.finfo(DTYPE[kind]).eps * exact
    )  # one chain: some thousands


def _rounded(exact: Fraction, kind: str) -> float:
    if kind == "f64":
        return float(exact)
    # Correct rounding to float32 by comparison: going through float64 would round twice.
    near = np.float32(float(exact))
    candidates = [np.nextafter(near, np.float32(side)) for side in (-np.inf, np.inf)] + [near]
    return float(min(candidates, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.int32)) & 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_threads_layout_or_surroundings(kind: str) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.standard_normal(shape).astype(DTYPE[kind]) for shape in [(203, 517), (517, 149)])
    pool.configure(1)
    one = product(a, b)
    for count in (2, 3, 8):
        pool.configure(count)
        np.testing.assert_array_equal(product(a, b), one)
    np.testing.assert_array_equal(product(np.asfortranarray(a), np.asfortranarray(b)), one)
    np.testing.assert_array_equal(product(a[31:42], b[:, 7:20]), one[31:42, 7:20])
    half = product(a[:, :259], b[:259])  # a block of terms
    np.testing.assert_array_equal(product(a[:, 259:], b[259:], half, accumulate=True), one)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_do(kind: str) -> None:
    def empty(m: int, n: int, k: int, accumulate: bool) -> np.ndarray:
        out = np.full((5, 6), 7, DTYPE[kind])
        product(np.zeros((m, k), DTYPE[kind]), np.zeros((k, n), DTYPE[kind]), out[:m, :n], accumulate)
        return out

    assert (empty(0, 4, 3, False) == 7).all()
    assert (empty(4, 0, 3, False) == 7).all()
    assert (empty(3, 4, 0, True) == 7).all()
    no_terms = empty(3, 4, 0, False)
    assert (no_terms[:3, :4] == 0).all()
    assert (no_terms[3:] == 7).all()
    assert (no_terms[:, 4:] == 7).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_and_infinity_stay_in_their_rows_and_columns(kind: str, layout: str) -> None:
    rng = np.random.default_rng(6)
    a, b = matrix(rng, 40, 50, kind, layout), matrix(rng, 50, 45, kind, layout)
    a[3, 4], a[39, 49], a[7, 0] = np.nan, np.inf, np.inf
    b[0, :], b[:, 44] = 1, 1
    b[49, 2], b[9, 44] = 0, -np.inf
    c = product(a, b)
    assert np.isnan(c[3]).all()
    assert np.isnan(c[39, [2, 44]]).all()
    assert (np.abs(np.delete(c[39], [2, 44])) == np.inf).all()
    assert (c[7, :44] == np.inf).all()
    finite = np.isfinite(np.delete(np.delete(c, [3, 39, 7], 0), 44, 1))
    assert finite.all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_behind_the_end(kind: str) -> None:
    """Operands end where a page without any rights begins, so one element too far would end the process."""
    page = mmap.PAGESIZE
    room = mmap.mmap(-1, 64 * page)
    whole = np.frombuffer(room, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    fences = [whole.ctypes.data + i * page for i in (20, 41, 63)]
    for fence in fences:
        assert libc.mprotect(fence, page, 0) == 0
    try:
        rng = np.random.default_rng(7)
        dtype = DTYPE[kind]
        for m, n, k, left, right in itertools.product(
            (1, 5, 24, 50), (1, 9, 23, 70), (1, 7, 40), (False, True), (False, True)
        ):
            views = []
            for (rows, columns), transposed, fence in zip(
                [(m, k), (k, n), (m, n)], [left, right, False], fences, strict=True
            ):
                size = rows * columns * dtype().itemsize
                flat = np.frombuffer(room, dtype, rows * columns, fence - whole.ctypes.data - size)
                views.append(flat.reshape(columns, rows).T if transposed else flat.reshape(rows, columns))
            a, b, c = views
            a[...], b[...], c[...] = rng.standard_normal((m, k)), rng.standard_normal((k, n)), 0
            check(a, b, product(a, b, c), kind)
    finally:
        for fence in fences:
            libc.mprotect(fence, page, mmap.PROT_READ | mmap.PROT_WRITE)


def test_calls_from_several_python_threads() -> None:
    rng = np.random.default_rng(8)
    pool.configure(2)
    pairs = [
        (matrix(rng, 90, 120, "f64", layout), matrix(rng, 120, 80, "f64", "columns")) for layout in LAYOUTS
    ]
    expected = [product(a, b) for a, b in pairs]
    wrong: list[int] = []

    def work(slot: int) -> None:
        for _ in range(60):
            if not np.array_equal(product(*pairs[slot]), expected[slot]):
                wrong.append(slot)

    callers = [threading.Thread(target=work, args=(slot,)) for slot in range(len(pairs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_product_inside_a_parallel_block() -> None:
    parts.ensure_product("f64")
    pool.configure(3)
    m, n, k, blocks = 60, 50, 70, 12
    module = jit.NativeModule(
        f"""
declare void @gj_parallel_for(ptr, ptr, i64, i64)
declare void @gj_gemm_f64(i64, i64, i64, ptr, i64, i64, ptr, i64, i64, ptr, i64, i64)
define void @one(ptr %context, i64 %block) {{
  %a = load ptr, ptr %context
  %p1 = getelementptr ptr, ptr %context, i64 1
  %b = load ptr, ptr %p1
  %p2 = getelementptr ptr, ptr %context, i64 2
  %c = load ptr, ptr %p2
  %offset = mul i64 %block, {m * n}
  %mine = getelementptr double, ptr %c, i64 %offset
  call void @gj_gemm_f64(i64 {m}, i64 {n}, i64 {k}, ptr %a, i64 {k}, i64 1, ptr %b, i64 {n}, i64 1, ptr %mine, i64 {n}, i64 0)
  ret void
}}
define void @all(ptr %context) {{
  call void @gj_parallel_for(ptr @one, ptr %context, i64 {blocks}, i64 1000000)
  ret void
}}
"""
    )
    rng = np.random.default_rng(9)
    a, b, c = rng.standard_normal((m, k)), rng.standard_normal((k, n)), np.zeros((blocks, m, n))
    context = (ctypes.c_void_p * 3)(a.ctypes.data, b.ctypes.data, c.ctypes.data)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(module.address("all"))(ctypes.addressof(context))
    expected = product(a, b)
    for block in c:
        np.testing.assert_array_equal(block, expected)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_child_after_fork() -> None:
    rng = np.random.default_rng(10)
    pool.configure(2)
    a, b = matrix(rng, 150, 200, "f64"), matrix(rng, 200, 160, "f64")
    expected = product(a, b)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(product(a, b), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_many_calls_leave_nothing_behind() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1])

    rng = np.random.default_rng(11)
    a, b, c = matrix(rng, 30, 20, "f64", "columns"), matrix(rng, 20, 30, "f64", "columns"), np.zeros((30, 30))
    for _ in range(100):
        product(a, b, c)
    before = resident()
    for _ in range(5000):
        product(a, b, c)
    assert resident() - before < 64  # pages


def test_blas_gives_the_same_and_keeps_the_number_of_its_threads() -> None:
    control = blas.thread_control()
    get = ctypes.CFUNCTYPE(ctypes.c_int)(control[0]) if control else lambda: 0
    before = get()
    rng = np.random.default_rng(13)
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    for kind, left, right in itertools.product(KINDS, (False, True), (False, True)):
        call = ctypes.CFUNCTYPE(
            None, *[word] * 3, pointer, word, word, pointer, word, word, pointer, word, word
        )(blas.address(kind))
        for m, n, k in [(3, 4, 5), (1, 1, 1), (200, 130, 160), (7, 5, 0), (0, 3, 2)]:
            a = matrix(rng, m, k, kind, "columns" if left else "rows")
            b = matrix(rng, k, n, kind, "columns" if right else "rows")
            start = matrix(rng, m, n, kind)
            lda, ldb = a.strides[left] // a.itemsize, b.strides[right] // b.itemsize
            for accumulate in (False, True):
                results = []
                for count in (1, 2, 3):
                    pool.configure(count)
                    c = np.array(start)
                    call(
                        m,
                        n,
                        k,
                        a.ctypes.data,
                        lda,
                        left,
                        b.ctypes.data,
                        ldb,
                        right,
                        c.ctypes.data,
                        n,
                        accumulate,
                    )
                    assert get() == before
                    results.append(c)
                np.testing.assert_allclose(
                    results[0] - start * accumulate, a @ b, rtol=0, atol=1e-3 if kind == "f32" else 1e-11
                )
                for result in results[1:]:
                    np.testing.assert_array_equal(result, results[0])


def test_blas_runs_one_thread_per_call() -> None:
    """The native code around a call of BLAS: the first in sets one thread, the last out restores what the
    user chose.
    """
    chosen = [5]
    get = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: chosen[-1])
    put = ctypes.CFUNCTYPE(None, ctypes.c_int)(chosen.append)
    control = tuple(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in (get, put))
    module = jit.NativeModule(blas.control_source((control[0], control[1])))
    limit, restore, forget = (
        ctypes.CFUNCTYPE(None)(module.address(f"gj_blas_{name}")) for name in ("limit", "restore", "forget")
    )
    limit()
    limit()
    restore()
    assert chosen == [5, 1]
    restore()
    assert chosen == [5, 1, 5]
    limit()
    forget()
    limit()
    assert chosen == [5, 1, 5, 1, 5, 1]


def test_one_compile_per_kind() -> None:
    assert parts.product_address("f64") == parts.product_address("f64")
    assert parts.product_address("f64") != parts.product_address("f32")
