"""Compiled functions on chunks of dask arrays: dtype, shape and chunks are known before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit

da = pytest.importorskip("dask.array", reason="the dask extra brings it")

X = np.arange(42.0, dtype=np.float32).reshape(7, 6)


def chunked(chunks: Any = (3, 4)) -> Any:
    return da.from_array(X, chunks=chunks)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = {
    "same shape": (lambda x: np.sqrt(x) * 2, (), {}, lambda: np.sqrt(X) * np.float32(2)),
    "another dtype": (lambda x: x > 3, (), {}, lambda: X > 3),
    "promoted": (lambda x: x + np.float64(0.5), (), {}, lambda: X + np.float64(0.5)),
    "a value passed whole": (lambda x, s: x * s, (2.0,), {}, lambda: X * 2),
    "keywords": (lambda x, *, s: x * s, (), {"s": np.float32(3)}, lambda: X * 3),
    "a row": (lambda x, r: x + r, (da.arange(6.0, chunks=6),), {}, lambda: X + np.arange(6.0)),
    "a column": (lambda x, c: x + c, (da.ones((7, 1), chunks=2),), {}, lambda: X + np.ones((7, 1))),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_the_whole_array(name: str) -> None:
    function, more, options, expected = CASES[name]
    made = graphjit.dask.map_blocks(function, chunked(), *more, **options)
    check(made, expected())


def check(made: Any, expected: np.ndarray) -> None:
    """Dtype, shape and chunks are those of what comes out."""
    assert (made.dtype, made.shape) == (expected.dtype, expected.shape)
    assert (made._meta.dtype, made._meta.ndim) == (expected.dtype, expected.ndim)
    result = made.compute(scheduler="synchronous")
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == expected.dtype
    for index in np.ndindex(*made.numblocks) if made.ndim else ():
        size = tuple(sizes[i] for sizes, i in zip(made.chunks, index))
        assert made.blocks[index].compute(scheduler="synchronous").shape == size


def test_chunks_that_get_smaller_or_larger() -> None:
    made = graphjit.dask.map_blocks(lambda x: x[1:, ::2], chunked())
    assert made.chunks == ((2, 2, 0), (2, 1))
    check(made, np.concatenate([X[1:3, ::2], X[4:6, ::2]]))
    twice = graphjit.dask.map_blocks(lambda x: np.concatenate([x, x]), chunked((4, 6)))
    assert twice.chunks == ((8, 6), (6,))


def test_axes_that_go_and_come() -> None:
    check(graphjit.dask.map_blocks(lambda x: np.sum(x, axis=1), chunked(), drop_axis=1), X.sum(axis=1))
    check(
        graphjit.dask.map_blocks(lambda x: x[:, None] * np.ones((2, 1), np.float32), chunked(), new_axis=1),
        np.stack([X, X], axis=1),
    )
    check(graphjit.dask.map_blocks(lambda x: np.sum(x), chunked(), drop_axis=(0, -1)), np.asarray(X.sum()))


def test_results_with_columns_first() -> None:
    made = graphjit.dask.map_blocks(lambda x: np.sqrt(x.T).T[:, :2], chunked((3, 6)))
    assert made.chunks == ((3, 3, 1), (2,))
    check(made, np.sqrt(X)[:, :2])


def test_compiled_functions_and_gradients() -> None:
    each = graphjit.vmap(graphjit.grad(lambda row: np.sum(row**3)))
    check(graphjit.dask.map_blocks(each, chunked((3, 6))), 3 * X**2)


def test_nothing_runs_and_chunks_are_traced_once_a_shape() -> None:
    traces = []

    def counted(x: Any) -> Any:
        traces.append(x.shape)
        return x * 2

    made = graphjit.dask.map_blocks(counted, da.ones(10**9, chunks=10**7))
    assert made.shape == (10**9,)
    assert traces == [(10**7,)]


def test_errors() -> None:
    unknown = chunked()[chunked()[:, 0] > 0]

    def writes(x: Any) -> Any:
        x[0] = 1.0
        return x * 2

    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: graphjit.dask.map_blocks(np.sin, X), TypeError, "without a dask array"),
        (lambda: graphjit.dask.map_blocks(3, X), TypeError, "takes a function"),
        (lambda: graphjit.dask.map_blocks(np.sin, unknown), graphjit.ShapeError, "compute_chunk_sizes"),
        (lambda: graphjit.dask.map_blocks(lambda x: (x, x), chunked()), TypeError, "one array"),
        (lambda: graphjit.dask.map_blocks(lambda x: None, chunked()), TypeError, "one array"),
        (lambda: graphjit.dask.map_blocks(writes, chunked()), graphjit.DerivativeError, "in place"),
        (lambda: graphjit.dask.map_blocks(lambda x: x[0], chunked()), graphjit.ShapeError, "drop_axis"),
        (lambda: graphjit.dask.map_blocks(np.sin, chunked(), drop_axis=2), graphjit.ShapeError, "2 axes"),
        (lambda: graphjit.dask.map_blocks(np.sin, chunked(), new_axis=4), graphjit.ShapeError, "3 axes"),
        (
            lambda: graphjit.dask.map_blocks(lambda x: x @ x.T, chunked((3, 6))),
            graphjit.ShapeError,
            "one array",
        ),
    ]
    for call, error, text in cases:
        with pytest.raises(error, match=text):
            call()
