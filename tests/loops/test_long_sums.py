"""Long sums: as accurate as NumPy's pairwise sums wherever they are taken, right at every length, the same
bits on any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from threads_harness import same_bits

import graphjit
from graphjit import pipeline
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph
from graphjit.ir.types import F32, F64, Type
from graphjit.limits import host_limits
from graphjit.loops.ir import For, walk

DTYPES = (np.float32, np.float64)
KINDS = ("equal", "random", "alternating")
LENGTHS = (1_000, 4_097, 10_000, 100_003, 1_000_000)


def terms(kind: str, n: int, dtype: Any) -> np.ndarray:
    if kind == "equal":
        return np.full(n, 0.1, dtype)
    found = np.random.default_rng(n).random(n).astype(dtype)
    return found * np.where(np.arange(n) % 2, -1, 1).astype(dtype) if kind == "alternating" else found


def error(got: Any, x: np.ndarray) -> float:
    """In units of the rounding error of the sum of the magnitudes."""
    wide = x.astype(np.float64)
    return abs(float(got) - math.fsum(wide)) / (math.fsum(np.abs(wide)) * float(np.finfo(x.dtype).eps))


def fits(got: Any, numpy: Any, x: np.ndarray) -> None:
    """Within the bound of pairwise sums; of long ones, about as good as NumPy's."""
    mine, theirs = error(got, x), error(numpy, x)
    assert mine <= math.log2(x.size) + 1, (mine, theirs)
    if x.size > 4096:
        assert mine <= max(2 * theirs, 6), (mine, theirs)


@pytest.mark.sample(5)
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_as_accurate_as_pairwise_sums(dtype: Any, kind: str, n: int) -> None:
    x = terms(kind, n, dtype)
    whole = np.sum(x)
    fits(graphjit.jit(np.sum)(x), whole, x)
    fits(graphjit.jit(lambda x: np.mean(x) * x.dtype.type(n))(x), np.mean(x) * dtype(n), x)
    fits(graphjit.jit(lambda x: x @ np.ones_like(x))(x), whole, x)
    fits(graphjit.jit(lambda x: np.sum(x + x - x))(x), whole, x)
    rows = np.stack([x, x, x])
    fits(graphjit.jit(lambda x: np.sum(x, axis=1))(rows)[1], whole, x)
    fits(graphjit.jit(lambda x: np.sum(x, axis=(1, 2)))(rows.reshape(3, 1, n))[2], whole, x)
    fits(graphjit.grad(lambda y, x: np.sum(y * x))(dtype(1), x), whole, x)


@pytest.mark.parametrize(("rows", "columns"), [(1_000, 40), (4_097, 5), (100_003, 3), (20_000, 100)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_down_columns(dtype: Any, rows: int, columns: int) -> None:
    """NumPy adds row after row here, so its own error is no measure."""
    for kind in KINDS:
        x = terms(kind, rows, dtype)
        got = graphjit.jit(lambda x: np.sum(x, axis=0))(np.stack([x] * columns, axis=1))
        assert (got == got[0]).all()
        assert error(got[-1], x) <= math.log2(rows) + 1


@pytest.mark.sample(3)
@pytest.mark.parametrize("rows", [3_001, 4_096, 8_195])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_down_columns_in_blocks_of_few_rows(dtype: Any, rows: int) -> None:
    """Rows so wide that a sweep takes four at a time: rounds of such blocks, of which the last one of a task,
    and of all, may be cut short.
    """
    rng = np.random.default_rng(rows)
    x, weights = (
        rng.normal(size=(rows, 1000)).astype(dtype),
        np.stack([terms("equal", rows, dtype)] * 1000, axis=1),
    )

    def loss(scale: Any, shift: Any, x: Any, weights: Any) -> Any:
        return np.sum(weights * ((x - np.mean(x, axis=1, keepdims=True)) * scale + shift))

    compiled = graphjit.grad(loss, (0, 1))
    one = np.ones(1000, dtype)
    by_scale, by_shift = compiled(one, one, x, weights)
    assert (by_shift == by_shift[0]).all()
    assert error(by_shift[0], weights[:, 0]) <= math.log2(rows) + 1
    wide = x.astype(np.longdouble)
    right = np.sum(weights * (wide - wide.mean(axis=1, keepdims=True)), axis=0)
    assert np.max(np.abs(by_scale - right)) <= 0.1 * rows * 16 * np.finfo(dtype).eps
    same_bits(lambda: compiled(one, one, x, weights))


@pytest.mark.parametrize("dtype", DTYPES)
def test_variances_and_heavy_terms(dtype: Any) -> None:
    x = terms("random", 300_001, dtype)
    eps = float(np.finfo(dtype).eps)
    want = np.var(x.astype(np.float64))
    assert abs(graphjit.jit(np.var)(x) - want) <= 4 * eps * want
    exact = np.tanh(x.astype(np.float64)).sum()
    assert abs(graphjit.jit(lambda x: np.sum(np.tanh(x)))(x) - exact) <= 4 * eps * exact


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_numba_back_end_is_as_good(dtype: Any) -> None:
    pytest.importorskip("numba")
    x = terms("equal", 100_003, dtype)
    fits(graphjit.jit(np.sum, backend="numba")(x), np.sum(x), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [10_000, 131_072, 1_000_003])
def test_running_sums(dtype: Any, n: int) -> None:
    """Every stage; NumPy's loses thousands of units of equal numbers here."""
    x = terms("equal", n, dtype)
    exact = np.arange(1, n + 1) * float(x[0])
    got = graphjit.jit(np.cumsum)(x)
    units = np.max(np.abs(got - exact) / exact) / np.finfo(dtype).eps
    # Where vectors are shorter, chains are longer.
    assert units <= (60 if n >= 131_072 else 120) * 64 / host_limits().vectors.vector_bytes
    back = graphjit.grad(lambda x: np.sum(np.cumsum(x)))(x)  # a running sum of ones from the end: exact
    np.testing.assert_array_equal(back, np.arange(n, 0, -1))


def counted(n: int, dtype: Any) -> np.ndarray:
    """Small whole numbers: every sum of them is exact, so a term too many or too few shows."""
    return (np.arange(n) * 7 % 11 - 3).astype(dtype)


EDGES = (2047, 2048, 2049, 4095, 4096, 4097, 6144, 8191, 8192, 8193, 12_287, 12_800, 65_537, 131_071, 131_073)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_length(dtype: Any) -> None:
    def light(x: Any) -> Any:
        return np.sum(x), np.max(x), np.sum(x * x)

    def heavy(x: Any) -> Any:
        return np.sum(x * (np.exp(x * 0) + np.tanh(x * 0)))

    for n in EDGES:
        x = counted(n, dtype)
        total, largest, squares = graphjit.jit(light)(x)
        assert (total, largest, squares) == (x.sum(), 7, (x * x).sum())
        assert graphjit.jit(heavy)(x) == x.sum()
        np.testing.assert_array_equal(graphjit.jit(np.cumsum)(x), np.cumsum(x))


@pytest.mark.parametrize(
    "shape", [(3, 4099), (300, 7, 9), (5000, 3), (5000, 80), (40_000, 70), (257, 33, 5), (9_000, 2, 3)]
)
def test_every_axis(shape: tuple[int, ...]) -> None:
    x = counted(math.prod(shape), np.float64).reshape(shape)
    for mask in range(1, 1 << len(shape)):
        axes = tuple(axis for axis in range(len(shape)) if mask >> axis & 1)
        got = graphjit.jit(lambda x, axes=axes: np.sum(x * 2, axis=axes))(x)
        np.testing.assert_array_equal(got, np.sum(x * 2, axis=axes))


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_and_nan(dtype: Any) -> None:
    """What an infinite total has lost is NaN, and must not be added."""
    for n, columns in ((50_000, 1), (50_000, 3), (20_000, 100)):
        for special, want in (
            ([np.inf], np.inf),
            ([-np.inf], -np.inf),
            ([np.inf, -np.inf], np.nan),
            ([np.nan], np.nan),
        ):
            x = np.ones((n, columns), dtype)
            x[17 : 17 + len(special), 0] = special
            got = graphjit.jit(lambda x: (np.sum(x[:, 0]), np.sum(x, axis=0)))(x)
            np.testing.assert_array_equal(got[0], dtype(want))
            np.testing.assert_array_equal(got[1], [want, *[n] * (columns - 1)])
    large = np.full(20_000, np.finfo(dtype).max, dtype)
    assert graphjit.jit(np.sum)(large) == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_on_any_number_of_threads(dtype: Any) -> None:
    rng = np.random.default_rng(7)

    def loss(x: Any, w: Any) -> Any:
        return (
            np.sum(np.tanh(x @ w)) + np.mean(x) + np.sum(np.sum(x, axis=0) ** 2) + np.sum(np.cumsum(x[:, 0]))
        )

    x, w = rng.normal(size=(150_001, 6)).astype(dtype), rng.normal(size=6).astype(dtype)
    same_bits(graphjit.value_and_grad(loss, argnums=(0, 1)), x, w)


def loops_of(
    shape: tuple[int, ...], type: Callable[[tuple[int, ...]], Type], axes: tuple[int, ...]
) -> list[For]:
    b = Builder()
    x = b.input(type(shape), "x")
    program = pipeline.schedule(pipeline.optimize(Graph("sums", [x], [b.sum(x, axes=axes)])))[1]
    return [s for kernel in pipeline.lower(program).values() for s in walk(kernel.body) if isinstance(s, For)]


def test_short_sums_are_one_loop() -> None:
    for dtype in (F32, F64):
        lanes = 4 * host_limits().vectors.vector_bytes // dtype.itemsize
        most = lanes * host_limits().sums.long
        assert [
            loop.extent for loop in loops_of((most,), lambda shape, dtype=dtype: Type(dtype, shape), (0,))
        ] == [most]
        blocks, inner = loops_of(
            (most + lanes * host_limits().sums.long // 2,),
            lambda shape, dtype=dtype: Type(dtype, shape),
            (0,),
        )[:2]
        assert (blocks.kind, blocks.extent, inner.kind, inner.extent) == ("serial", 3, "simd", most // 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["equal", "random"])
def test_fifty_million(kind: str) -> None:
    x = terms(kind, 50_000_000, np.float32)
    whole = np.sum(x)
    fits(graphjit.jit(np.sum)(x), whole, x)
    fits(graphjit.jit(np.mean)(x) * x.size, whole, x)
    fits(graphjit.jit(lambda x: x @ np.ones_like(x))(x), whole, x)
    rows = x.reshape(2, -1)
    fits(graphjit.jit(lambda x: np.sum(x, axis=1))(rows)[1], np.sum(rows[1]), rows[1])
    columns = x.reshape(-1, 10)
    got = graphjit.jit(lambda x: np.sum(x, axis=0))(columns)
    assert (
        max(error(got[i], columns[:, i]) for i in range(10)) <= 12
    )  # blocks of 64 rows; NumPy, row after row: hundreds of thousands
