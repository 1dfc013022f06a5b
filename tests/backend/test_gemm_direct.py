"""Matrix products written out for their shape: every path, order of summation, nothing touched outside,
threads.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import graphjit
from graphjit.backend.llvm.objects import jit, symbols
from graphjit.backend.llvm.products.choose_tiles import choose_tiles
from graphjit.backend.llvm.products.direct import call_direct, emit_direct
from graphjit.backend.llvm.products.plan import Matrices, Packing, Plan, Way, plan
from graphjit.backend.llvm.products.tile import Tile, host_tile
from graphjit.backend.llvm.threads import pool
from graphjit.backend.llvm.writing.text import Function, Module
from graphjit.backend.llvm.writing.writer import Writer
from graphjit.limits import Limits
from graphjit.machine import CACHES, machine
from graphjit.pipeline import compile_graph

LIMITS = Limits.of(replace(machine(), caches=CACHES))
"""Those of a machine with usual caches, so that every shape takes the path that its test is about."""
ALL_STREAM = LIMITS.changed(products={"far_bytes": 0, "in_place_bytes": 0}, streams={"wide": 1, "sums": 48})
"""A few rows times any matrix of some columns stream it."""
DTYPE = {"f64": np.float64, "f32": np.float32}
WIDER = {"f64": np.longdouble, "f32": np.float64}
KINDS = ["f64", "f32"]
TILES = {
    "host": host_tile,
    "avx2": lambda kind: Tile(kind, 6, 2, 32 // DTYPE[kind]().itemsize, True),
    "sse2": lambda kind: Tile(kind, 4, 2, 16 // DTYPE[kind]().itemsize, False),
    "neon": lambda kind: Tile(kind, 6, 4, 16 // DTYPE[kind]().itemsize, True),
}
SMALL = [
    (1, 1, 1),
    (2, 3, 1),
    (3, 5, 7),
    (7, 9, 5),
    (8, 8, 8),
    (1, 70, 9),
    (13, 1, 11),
    (17, 33, 20),
    (6, 12, 300),
    (50, 50, 50),
    (9, 20, 31),
]


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = pool.num_threads()
    yield
    pool.configure(before)


def planned(a: np.ndarray, b: np.ndarray, tile: str = "host", limits: Limits = LIMITS) -> Plan | None:
    """The plan for operands that lie evenly in memory; leading axes are the batch."""
    kind, size = ("f64", 8) if a.dtype == np.float64 else ("f32", 4)
    steps = [tuple(step // size for step in x.strides) for x in (a, b)]
    batch = a.shape[0] if a.ndim == 3 else 1
    apart = (steps[0][0], steps[1][0]) if a.ndim == 3 else (0, 0)
    product = Matrices(a.shape[-2], b.shape[-1], a.shape[-1], steps[0][-2:], steps[1][-2:], batch, apart)  # type: ignore[arg-type]
    return plan(product, TILES[tile](kind), limits)


def multiply(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None = None,
    tile: str = "host",
    counts: tuple[int, ...] = (1,),
    limits: Limits = LIMITS,
    memory: bool = True,
) -> np.ndarray:
    """The product by generated code, which must be the same for each number of threads; with or without
    workspace for what blocks may pack.
    """
    chosen = planned(a, b, tile, limits)
    assert chosen is not None
    module = Module("direct", limits)
    emit_direct(module, "product", chosen)
    fn = Function(module, "run", "void", [("ptr", "%a"), ("ptr", "%b"), ("ptr", "%c")])
    bases = ["%a", "%b", "%c"]
    call_direct(Writer.within(fn), "product", chosen, [bases[i] for i in chosen.order])
    fn.do("ret void")
    module.add_function(fn)
    symbols.provide(module)
    text = module.render()
    if not memory:
        needed = "declare ptr @gj_take_room(i64)"
        assert needed in text
        text = text.replace(needed, "define internal ptr @gj_take_room(i64 %must) { ret ptr null }")
    native = jit.NativeModule(text)
    shape = (*a.shape[:-2], a.shape[-2], b.shape[-1])
    results = []
    for count in counts:
        pool.configure(count)
        c = np.full(shape, 7, a.dtype) if out is None else out
        ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(native.address("run"))(
            a.ctypes.data, b.ctypes.data, c.ctypes.data
        )
        results.append(c)
    native.close()
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    return results[0]


def check(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    kind = "f64" if a.dtype == np.float64 else "f32"
    wide = WIDER[kind]
    error = np.abs(c - a.astype(wide) @ b.astype(wide))
    bound = a.shape[-1] * np.finfo(a.dtype).eps * (np.abs(a).astype(wide) @ np.abs(b).astype(wide))
    assert (error <= bound).all(), float((error / bound).max())


def operands(
    kind: str, m: int, n: int, k: int, left: bool = False, right: bool = False, batch: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Random operands, stored transposed on request; NaN stands between the rows of A and B."""
    rng = np.random.default_rng([m, n, k, batch])
    lead = (batch,) if batch else ()
    pair = []
    for rows, columns, turned in ((m, k, left), (k, n, right)):
        stored = (columns, rows) if turned else (rows, columns)
        base = np.full((*lead, stored[0], stored[1] + 3), np.nan, DTYPE[kind])
        view = base[..., : stored[1]]
        view[...] = rng.standard_normal((*lead, *stored))
        pair.append(view.swapaxes(-1, -2) if turned else view)
    return pair[0], pair[1]


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_small_shape_and_storage_order(kind: str, tile: str) -> None:
    for (m, n, k), left, right in itertools.product(SMALL, (False, True), (False, True)):
        a, b = operands(kind, m, n, k, left, right)
        room = np.full(m * n + 5, 7, DTYPE[kind])
        multiply(a, b, room[: m * n].reshape(m, n), tile)
        check(a, b, room[: m * n].reshape(m, n))
        assert (room[m * n :] == 7).all()


@pytest.mark.parametrize("tile", ["host", "avx2", "neon"])
@pytest.mark.parametrize("kind", KINDS)
def test_few_columns_as_dot_products(kind: str, tile: str) -> None:
    """Lengths that end inside a vector and between vectors, rows that end inside a group, both storage orders
    of B, a batch.
    """
    used = 0
    for m, n, k, right, batch in itertools.product(
        (9, 64, 101), (2, 3, 5), (64, 127, 300), (False, True), (0, 3)
    ):
        a, b = operands(kind, m, n, k, False, right, batch)
        chosen = planned(a, b, tile)
        assert chosen is not None
        used += chosen.way is Way.DOTS
        if chosen.way is Way.DOTS:
            check(a, b, multiply(a, b, tile=tile, counts=(1, 3)))
    assert bool(used) == (TILES[tile](kind).lanes >= 8)


@pytest.mark.sample(4)
@pytest.mark.parametrize("tile", ["host", "avx2", "neon"])
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_times_a_matrix_that_streams(kind: str, tile: str) -> None:
    """Columns that end inside vectors, between pairs of them and between chunks; terms that end inside a
    group; a batch.
    """
    lanes, rows = TILES[tile](kind).lanes, LIMITS.streams.rows
    sizes = (lanes, 2 * lanes + 1, 3 * lanes, 7 * lanes - 1, 40 * lanes + 3)
    for m, n, k, left, batch in itertools.product((2, 7, rows), sizes, (1, 8, 21), (False, True), (0, 3)):
        a, b = operands(kind, m, n, k, left, False, batch)
        chosen = planned(a, b, tile, ALL_STREAM)
        assert chosen is not None
        assert chosen.way is Way.STREAMED
        check(a, b, multiply(a, b, tile=tile, counts=(1, 3), limits=ALL_STREAM))
    narrow = planned(*operands(kind, rows + 1, 40 * lanes, 21), tile, ALL_STREAM)
    assert narrow is None or narrow.way is not Way.STREAMED


@pytest.mark.parametrize("kind", KINDS)
def test_bits_of_rows_that_stream_are_those_of_a_tile(kind: str) -> None:
    if not host_tile(kind).fused:
        pytest.skip("this machine has no fused multiply-add")
    a, b = operands(kind, 11, 1003, 77)
    in_place = LIMITS.changed(products={"in_place_bytes": 1 << 30}, streams={"rows": 0})
    tiles = planned(a, b, limits=in_place)
    assert tiles is not None
    assert tiles.way is Way.TILES
    np.testing.assert_array_equal(multiply(a, b, limits=in_place), multiply(a, b, limits=ALL_STREAM))


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_columns_and_rows(kind: str) -> None:
    for n in range(1, 40):
        a, b = operands(kind, 5, n, 6)
        check(a, b, multiply(a, b))
    for m in range(1, 30):
        a, b = operands(kind, m, 11, 6)
        check(a, b, multiply(a, b))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 4, 5), (16, 16, 16), (33, 7, 18), (1, 20, 9), (20, 1, 9)])
def test_batches(kind: str, shape: tuple[int, int, int]) -> None:
    for batch, left, right in itertools.product((1, 2, 300), (False, True), (False, True)):
        a, b = operands(kind, *shape, left, right, batch)
        check(a, b, multiply(a, b, counts=(1, 2, 3, 8)))
    a, b = operands(kind, *shape, batch=50)
    shared = np.broadcast_to(b[0], b.shape)
    check(a, shared, multiply(a, shared))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "path"),
    [
        ((8, 1000, 300), "rows"),
        ((130, 60, 129), "in place"),
        ((90, 13, 70), "packed"),
        ((3, 5, 9000), "segments"),
        ((1, 30, 20_000), "segments"),
        ((30, 1, 20_000), "swapped"),
        ((1, 1700, 201), "streams"),
        ((1, 40_001, 20), "streams"),
        ((1, 9001, 5), "streams"),
        ((600, 1, 515), "streams"),
        ((3, 2051, 1030), "streams"),
        ((24, 4100, 300), "streams"),
        ((130, 2, 300), "dots"),
        ((1003, 3, 517), "dots"),
        ((64, 128, 1000), "panels"),
        ((33, 100, 1001), "panels"),
        ((30, 31, 9000), "panels of segments"),
    ],
)
def test_larger_shapes_on_each_path(kind: str, shape: tuple[int, int, int], path: str) -> None:
    m, n, k = shape
    if path == "dots" and n >= host_tile(kind).lanes // 2:
        pytest.skip("vectors of this machine are too short for dot products to pay")
    a, b = operands(kind, m, n, k, left=n == 1 or path.startswith("panels"), right=path == "packed")
    chosen = planned(a, b)
    assert chosen is not None
    packing = {"packed": Packing.BLOCK, "dots": Packing.BLOCK, "panels": Packing.PANEL}
    assert chosen.packing is packing.get(path.split()[0], Packing.NONE)
    assert (chosen.way is Way.STREAMED) == (path == "streams")
    assert (chosen.way is Way.DOTS) == (path == "dots")
    if path in ("segments", "swapped", "panels of segments"):
        assert chosen.cuts.segments > 1
    check(a, b, multiply(a, b, counts=(1, 2, 3, 8)))


@pytest.mark.parametrize("kind", KINDS)
def test_without_memory_panels_are_read_where_they_lie(kind: str) -> None:
    a, b = operands(kind, 33, 100, 1001, left=True)
    np.testing.assert_array_equal(multiply(a, b, memory=False), multiply(a, b))


def test_sizes_follow_the_second_level_cache() -> None:
    def of(*caches: int) -> tuple[int, ...]:
        sizes = Limits.of(replace(machine(), caches=caches)).products  # type: ignore[arg-type]
        return sizes.in_place_bytes, sizes.group_bytes, sizes.cache_bytes, sizes.far_bytes

    usual = (128 << 10, 512 << 10, 1 << 20, 4 << 20)
    assert of(32 << 10, 1 << 20, 32 << 20) == usual
    assert of(32 << 10, 256 << 10, 8 << 20) == tuple(size // 4 for size in usual)
    for nonsense in (0, -1, 4096):
        assert of(0, nonsense, 0) == usual
    assert of(128 << 10, 1 << 30, 1 << 30)[2] == 4 << 20  # shared by many cores


def test_limits_reach_products_through_the_pipeline() -> None:
    graph = graphjit.jit(lambda a, b: a @ b).dispatcher.staged(np.ones((3, 64)), np.ones((64, 512))).graph
    texts = [compile_graph(graph, limits=limits).module.render() for limits in (LIMITS, ALL_STREAM)]
    assert ["call void @gj_rows_" in text for text in texts] == [False, True]
    assert ["call void @gj_tile_" in text for text in texts] == [True, False]


def test_the_library_takes_what_repays_packing() -> None:
    assert planned(*operands("f64", 300, 300, 300)) is None
    assert planned(*operands("f64", 100, 100, 100, right=True)) is None
    assert plan(Matrices(4, 4, 0, (0, 1), (4, 1)), host_tile("f64"), LIMITS) is None


def test_what_packs_at_once_cuts_no_terms():
    """Both need workspace, and who holds some must not wait for more (panels do without)."""
    for kind in ("f64", "f32"):
        for k in (2048, 4096, 8192):
            for n in (2, 3, 4):
                chosen = plan(Matrices(64, n, k, (1, 64), (1, k)), host_tile(kind), LIMITS)
                assert chosen is None or not (chosen.packed_bytes and chosen.cuts.segments > 1)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_tiles_storage_or_surroundings(kind: str) -> None:
    """Each element of a product of few terms is one chain of fused multiply-adds in the order of k, whatever
    computes it.
    """
    if not host_tile(kind).fused:
        pytest.skip("this machine has no fused multiply-add")
    a, b = operands(kind, 40, 50, 70)
    one = multiply(a, b)
    for tile in ("avx2", "neon"):
        np.testing.assert_array_equal(multiply(a, b, tile=tile), one)
    np.testing.assert_array_equal(multiply(np.asfortranarray(a), np.asfortranarray(b)), one)
    np.testing.assert_array_equal(multiply(a[7:11], b[:, 3:20]), one[7:11, 3:20])
    np.testing.assert_array_equal(multiply(a[7:8], b), one[7:8])
    row, wide = operands(kind, 1, 17_000, 21)
    streamed = planned(row, wide)
    assert streamed is not None
    assert streamed.way is Way.STREAMED
    assert streamed.cuts.segments == 1
    np.testing.assert_array_equal(multiply(row, wide)[:, 40:70], multiply(row, wide[:, 40:70]))


@pytest.mark.parametrize("limits", [LIMITS, ALL_STREAM], ids=["usual", "all_stream"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_behind_the_end(kind: str, limits: Limits) -> None:
    """Operands end where a page without any rights begins, so one element too far would end the process."""
    page = mmap.PAGESIZE
    room = mmap.mmap(-1, 512 * page)
    whole = np.frombuffer(room, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    fences = [whole.ctypes.data + i * page for i in (100, 400, 511)]
    for fence in fences:
        assert libc.mprotect(fence, page, 0) == 0
    try:
        rng = np.random.default_rng(7)
        dtype = DTYPE[kind]
        shapes = [*itertools.product((1, 5, 24), (1, 3, 9, 23), (1, 7)), (1, 1003, 67), (45, 2, 131)]
        for (m, n, k), left, right in itertools.product(shapes, (False, True), (False, True)):
            views = []
            for (rows, columns), turned, fence in zip(
                [(m, k), (k, n), (m, n)], [left, right, False], fences, strict=True
            ):
                size = rows * columns * dtype().itemsize
                flat = np.frombuffer(room, dtype, rows * columns, fence - whole.ctypes.data - size)
                views.append(flat.reshape(columns, rows).T if turned else flat.reshape(rows, columns))
            a, b, c = views
            a[...], b[...], c[...] = rng.standard_normal((m, k)), rng.standard_normal((k, n)), 0
            if planned(a, b, limits=limits) is not None:
                check(a, b, multiply(a, b, c, limits=limits))
    finally:
        for fence in fences:
            libc.mprotect(fence, page, mmap.PROT_READ | mmap.PROT_WRITE)


def test_tilings_cover_the_matrix_and_fit_the_registers() -> None:
    for tile in (make(kind) for make in TILES.values() for kind in KINDS):
        for m, n in itertools.product((1, 2, 5, 8, 13, 64, 100), (1, 3, 8, 10, 17, 100, 513)):
            chosen = choose_tiles(tile, m, n, 64, LIMITS.tiles)
            assert (chosen.tiles - 1) * chosen.rows < m <= chosen.tiles * chosen.rows
            ends = [panel.vector + panel.width for panel in chosen.panels]
            assert [panel.vector for panel in chosen.panels] == [0, *ends[:-1]]
            assert (ends[-1] - 1) * tile.lanes < n <= ends[-1] * tile.lanes
            if chosen.panels[-1].half:
                assert n <= ends[-1] * tile.lanes - tile.lanes // 2
            widest = max(panel.width for panel in chosen.panels)
            assert chosen.rows * widest <= tile.rows * tile.vectors


@pytest.mark.sample(3)
@pytest.mark.parametrize("tile", ["host", "avx2", "sse2"])
@pytest.mark.parametrize("kind", KINDS)
def test_small_products_of_a_batch_are_written_out(kind: str, tile: str) -> None:
    """Every number of columns of one vector; the same bits as one by one; nothing is written behind the
    end.
    """
    lanes, batch = TILES[tile](kind).lanes, LIMITS.products.written_batch
    used = 0
    for n, (m, k), left in itertools.product(
        range(1, lanes + 1), [(1, 1), (2, 3), (4, 4), (7, 2), (3, 8), (8, 8)], (False, True)
    ):
        a, b = operands(kind, m, n, k, left, batch=batch)
        chosen = planned(a, b, tile)
        assert chosen is not None
        used += chosen.way is Way.WRITTEN_OUT
        room = np.full((batch + 1, m, n), 7, DTYPE[kind])
        multiply(a, b, room[:-1], tile, counts=(1, 3))
        assert (room[-1] == 7).all()
        check(a, b, room[:-1])
        if TILES[tile](kind).fused:
            for i in (0, batch - 1):
                np.testing.assert_array_equal(room[i], multiply(a[i], b[i], tile=tile))
    assert used > 8 * lanes
    one_too_many = planned(*operands(kind, LIMITS.products.written_axis + 1, 4, 4, batch=batch), tile)
    assert one_too_many is not None
    assert one_too_many.way is not Way.WRITTEN_OUT


@pytest.mark.parametrize("kind", ["f64", "f32"])
def test_a_written_out_product_beside_an_elementary_function(kind: str) -> None:
    """Both declare the multiply-add of vectors, of the same width where the columns fill one."""
    rng, n, batch = np.random.default_rng(0), host_tile(kind).lanes, LIMITS.products.written_batch
    for columns in (n, max(1, n - 1)):
        a, b = (
            rng.random((batch, 4, 4)).astype(DTYPE[kind]),
            rng.random((batch, 4, columns)).astype(DTYPE[kind]),
        )
        x = rng.random(5000).astype(DTYPE[kind])
        product, powers = graphjit.jit(lambda a, b, x: (a @ b, np.exp(x)))(a, b, x)
        np.testing.assert_allclose(product, a @ b, rtol=1e-5)
        np.testing.assert_allclose(powers, np.exp(x), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_of_every_class_through_the_compiler(dtype: type) -> None:
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    cases = [
        (draw(9, 9), draw(9, 9)),
        (draw(8, 500), draw(500, 600)),
        (draw(40, 6, 6), draw(40, 6, 6)),
        (draw(40, 3, 3), draw(3, 3)),
        (draw(300), draw(300, 700)),
        (draw(700, 300).T, draw(700)),
        (draw(70, 30).T, draw(50, 70).T),
        (draw(300, 300), draw(300, 310)),
    ]
    for a, b in cases:
        np.testing.assert_allclose(
            graphjit.jit(lambda a, b: a @ b)(a, b),
            a @ b,
            rtol=2e-4 if dtype is np.float32 else 1e-10,
            atol=1e-3 if dtype is np.float32 else 1e-11,
        )
    a, b = cases[-2][0].T, cases[-2][1].T
    np.testing.assert_allclose(
        graphjit.jit(lambda a, b: a.T @ b.T)(a, b),
        a.T @ b.T,
        rtol=1e-3 if dtype is np.float32 else 1e-10,
        atol=1e-3,
    )
    columns, vector = draw(700, 300), draw(700)
    np.testing.assert_allclose(
        graphjit.jit(lambda a, v: a.T @ v)(columns, vector),
        columns.T @ vector,
        rtol=1e-3,
        atol=1e-3 if dtype is np.float32 else 1e-11,
    )
