"""Shape, joining, selection, creation, padding, calculus and product functions and ndarray methods on tracers
against NumPy.
"""

from __future__ import annotations

import numpy as np
import pytest
from expressions.shapes import ALL
from numpy_harness import OPERANDS, check_expression, function_of, lines, record, run

import graphjit
from graphjit.errors import TraceError, UnsupportedError


@pytest.mark.parametrize("expression", ALL)
def test_function(expression: str) -> None:
    check_expression(expression)


ERRORS = lines(
    """
    np.reshape(m, (5, 5))
    np.reshape(m, (-1, -1))
    np.transpose(m, (0, 0))
    np.transpose(m, (0,))
    np.squeeze(m, 0)
    np.broadcast_to(m, (4, 3))
    np.concatenate([m, v])
    np.concatenate([m, k])
    np.concatenate([s, s])
    np.stack([m, v])
    np.split(v, 3)
    np.repeat(v, [1, 2])
    np.repeat(v, -1)
    np.take(v, 9)
    np.expand_dims(m, 5)
    np.swapaxes(m, 0, 3)
    np.moveaxis(m, 0, (0, 1))
    np.diag(t)
    np.trace(v)
    np.pad(v, -1)
    np.pad(m, 1, mode='edge', constant_values=1)
    np.convolve(m, v)
    np.searchsorted(m, v)
    np.searchsorted(v, m, side='middle')
    np.interp(v, m, m)
    np.interp(v, w, v)
    np.interp(v, v[:0], v[:0])
    np.where(b, m)
    np.choose([5, 0], [v[:2], v[2:]])
    np.atleast_3d(m)[9]
    m.astype(int, casting='safe')
    np.subtract(b, c)
    """
)


@pytest.mark.parametrize("expression", ERRORS)
def test_errors_are_numpys(expression: str) -> None:
    function, names = function_of(expression)
    arrays = [OPERANDS[name] for name in names]
    with pytest.raises(Exception) as wanted:
        function(*arrays)
    with pytest.raises(wanted.type):
        record(function, arrays)


@pytest.mark.parametrize(
    ("expression", "kind", "words"),
    [
        ("np.nonzero(m)", TraceError, "np.where"),
        ("np.where(m > 0)", TraceError, "depends on values"),
        ("m.nonzero()", TraceError, "np.where"),
        ("np.sort(m)", UnsupportedError, "outside"),
        ("m.sort()", UnsupportedError, "outside"),
        ("np.unique(m)", TraceError, "outside"),
        ("np.linalg.svd(m)", UnsupportedError, "np.linalg.svd"),
        ("np.linalg.norm(m, 2)", UnsupportedError, "singular"),
        ("np.pad(v, 1, mode='median')", UnsupportedError, "edge"),
        ("np.reshape(m, (s, 3))", TraceError, "shape"),
        ("np.tile(v, j)", TraceError, "reps"),
        ("np.fft.fft(v)", UnsupportedError, "fft"),
        ("m.tobytes()", UnsupportedError, "memory"),
        ("m.ctypes", TraceError, "memory"),
        ("m.nothing", AttributeError, "nothing"),
        ("np.maximum.at(m, [0], 1)", UnsupportedError, "at"),
        ("np.frexp(m)", UnsupportedError, "frexp"),
        ("np.add(m, 1, where=b)", UnsupportedError, "np.where"),
    ],
)
def test_what_is_not_compiled_says_so(expression: str, kind: type[Exception], words: str) -> None:
    function, names = function_of(expression)
    with pytest.raises(kind, match=words):
        record(function, [OPERANDS[name] for name in names])


def test_static_questions_have_python_answers() -> None:
    def ask(m: np.ndarray, f: np.ndarray) -> np.ndarray:
        assert np.shape(m) == (3, 4)
        assert np.ndim(m) == 2
        assert np.size(m) == 12
        assert np.size(m, 0) == 3
        assert np.result_type(m, f) == np.float64
        assert np.result_type(f, 1.0) == np.float32
        assert np.can_cast(f, np.float64)
        assert not np.iscomplexobj(m)
        assert np.isrealobj(m)
        assert np.common_type(f) is np.float32
        assert not np.shares_memory(m, f + 1)
        assert np.shares_memory(m, m.T[1:])
        assert not np.shares_memory(m[0], m[1])
        assert len(m) == 3
        assert m.shape == (3, 4)
        assert m.dtype == np.float64
        assert np.einsum_path("ij,jk->ik", m, m.T)[0][0] == "einsum_path"
        return m

    run(ask, OPERANDS["m"], OPERANDS["f"])


def test_lists_of_tracers_become_arrays() -> None:
    s = OPERANDS["s"]
    for function in (
        lambda s: np.array([s, s * 2]) * np.ones(2) + s,
        lambda s: np.sin(np.array([s, s + 1])) + s,
        lambda s: np.stack([[s, 1.0], [0.0, s]]),
        lambda s: np.concatenate([[s], [2.0, 3.0]]),
        lambda s: np.dot(np.array([[s, 1.0], [2.0, s]]), np.stack([s, s])),
        lambda s: np.sum(np.array([s, s])) + np.array([s, 2 * s])[1],
        lambda s: np.mean(np.stack([s, s, 1.0])),
        lambda s: np.where(s > 0, [s, 1.0], [1.0, 2.0]),
    ):
        (found,) = run(function, s)
        wanted = np.asarray(function(float(s)), dtype=np.float64)
        np.testing.assert_allclose(found, wanted, rtol=1e-13)


def test_straight_lines_between_knots_have_derivatives() -> None:
    rng = np.random.default_rng(3)
    knots, heights = np.cumsum(rng.uniform(0.1, 1.0, 9)), rng.normal(size=9)
    x = np.concatenate([rng.uniform(knots[0], knots[-1], 20), [knots[0] - 1.0, knots[-1] + 1.0]])
    lines = graphjit.jit(lambda x, knots, heights: np.sum(np.interp(x, knots, heights) ** 2))
    graphjit.check_grads(lines, (x, knots, heights), order=2)
    slopes = np.diff(heights) / np.diff(knots)
    at_knots = graphjit.vmap(graphjit.grad(np.interp), in_axes=(0, None, None))(knots, knots, heights)
    np.testing.assert_allclose(at_knots, [*slopes, slopes[-1]], rtol=1e-12)


def test_places_are_found_in_a_loop() -> None:
    """A walk whose steps depend on where it is, in a table of which each place is read."""
    table = np.linspace(0.0, 10.0, 1000) ** 2

    @graphjit.jit
    def walk(x: float, table: np.ndarray) -> float:
        for _ in range(60):
            x = x + 0.01 * np.searchsorted(table, x)
        return x

    x = 3.0
    for _ in range(60):
        x = x + 0.01 * np.searchsorted(table, x)
    assert walk(3.0, table) == x


def test_sorted_tables_say_what_they_lack() -> None:
    with pytest.raises(UnsupportedError, match=r"pass a\[sorter\]"):
        graphjit.jit(lambda x: np.searchsorted(x, 1.0, sorter=np.array([1, 0])))(np.ones(2))
    with pytest.raises(UnsupportedError, match="x % period"):
        graphjit.jit(lambda x: np.interp(x, [0.0, 1.0], [1.0, 2.0], period=1.0))(0.5)
