"""Programs that once gave a wrong number or raised although they are plain NumPy; each test says what it
guards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import graphjit
from graphjit.errors import TraceError


def same(function: Callable[..., Any], *args: Any) -> None:
    """Value, dtype and shape are NumPy's."""
    expected, found = function(*args), graphjit.jit(function)(*args)
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


LISTS: list[Callable[[Any], Any]] = [
    lambda x: np.sum([x[0, 0], 2.0, x[1, 1]]),
    lambda x: np.sum([x[0], x[1]], axis=0),
    lambda x: np.mean([v**2 for v in x[0]]),
    lambda x: np.mean(list(x), axis=0),
    lambda x: np.max([x[0, 0], 2.0, x[1, 1]]),
    lambda x: np.min((np.sum(x), np.prod(x))),
    lambda x: np.std([x[0, 0], 2.0, x[1, 1]]),
    lambda x: np.var([x[0], np.ones(3)], axis=0, ddof=1),
    lambda x: np.argmax([x[0, 0], x[1, 1]]),
    lambda x: np.any([x[0, 0] > 5, x[1, 1] > 1]),
    lambda x: np.average([x[0], x[1]], axis=0, weights=[1, 2]),
]


@pytest.mark.parametrize("function", LISTS)
def test_reductions_take_lists_of_traced_values(function: Callable[[Any], Any]) -> None:
    """NumPy's protocols do not see a list's elements: np.mean raised "setting an array element with a
    sequence", np.max a TraceError.
    """
    same(function, np.arange(6.0).reshape(2, 3) / 3)


def test_gradient_through_the_mean_of_a_list() -> None:
    """The list keeps the derivative of each of its values."""
    gradient = graphjit.grad(lambda x: np.mean([v**2 for v in x]))(np.array([1.0, -2.0, 4.0]))
    np.testing.assert_allclose(gradient, np.array([2.0, -4.0, 8.0]) / 3, rtol=1e-15)


COMPARISONS = [np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal]


@pytest.mark.parametrize("ufunc", COMPARISONS)
def test_int64_beside_uint64_is_compared_exactly(ufunc: np.ufunc) -> None:
    """NumPy has loops of their own for the two; they share no dtype, so graphjit raised a ShapeError."""
    signed = np.array([-1, 0, 5, 2**63 - 1, -(2**63), 7], dtype=np.int64)
    unsigned = np.array([2**64 - 1, 0, 5, 2**63, 2**63, 3], dtype=np.uint64)
    for x, y in (
        (signed, unsigned),
        (unsigned, signed),
        (signed[:, None], unsigned),
        (signed.astype(np.int8), unsigned),
    ):
        same(lambda a, b: ufunc(a, b), x, y)


def test_derivatives_of_sinc_near_zero() -> None:
    """The quotient's derivative is a difference of two terms of size 1/x: at 1e-8 it was 30 % off, at 5e-324
    NaN.
    """
    points = np.array([0.0, 5e-324, 1e-8, 1e-4, 0.1, 0.3, 0.31, 0.318, 0.319, 0.5, -0.2, 1.0, 7.3])
    first = graphjit.grad(lambda x: np.sum(np.sinc(x)))
    second = graphjit.grad(lambda x: np.sum(first(x)))
    expected: list[list[float]] = [[], []]
    with mpmath.workdps(80):
        for x in map(mpmath.mpf, points):
            if abs(x) < 1e-300:
                slope, bend = -(mpmath.pi**2) / 3 * x, -(mpmath.pi**2) / 3
            else:
                s, c = mpmath.sinpi(x), mpmath.cospi(x)
                slope = c / x - s / (mpmath.pi * x**2)
                bend = -mpmath.pi * s / x - 2 * c / x**2 + 2 * s / (mpmath.pi * x**3)
            expected[0].append(float(slope))
            expected[1].append(float(bend))
    np.testing.assert_allclose(first(points), expected[0], rtol=1e-14, atol=2e-323)
    np.testing.assert_allclose(second(points), expected[1], rtol=1e-14)
    np.testing.assert_allclose(graphjit.jit(np.sinc)(points), np.sinc(points), rtol=1e-15, atol=1e-16)


def test_numpys_own_error_does_not_hide_ours() -> None:
    """A NumPy scalar type, or a plain array from outside, asked for the value: "setting an array element with
    a sequence" said nothing.
    """
    outside = np.zeros(2)

    def write(x: Any) -> Any:
        outside[0] = x[0]
        return outside.sum()

    for function in (write, lambda x: np.zeros(2, np.complex128).__setitem__(0, x[0])):
        with pytest.raises(TraceError, match=r"test_regressions_numerics\.py:\d+"):
            graphjit.jit(function)(np.ones(2))
    with pytest.raises(ValueError, match="could not be broadcast"):
        graphjit.jit(lambda x: x + np.ones(3))(np.ones(2))


def test_python_integers_outside_a_frame_are_not_checked() -> None:
    """Where a pad puts zeros nothing is computed, so nothing is out of bounds there; inside it still is."""
    padded = graphjit.jit(lambda x, n: np.pad(x + n * 300, 1))
    np.testing.assert_array_equal(padded(np.arange(5, dtype=np.uint8), 0), [0, 0, 1, 2, 3, 4, 0])
    with pytest.raises(OverflowError):
        padded(np.arange(5, dtype=np.uint8), 1)


def test_nothing_can_be_taken_from_an_empty_axis() -> None:
    """It gave zeros."""
    index = np.array([0, 1])
    for function in (lambda x, i: x[i], lambda x, i: np.pad(x[i], 2), lambda x, i: x[i] * 2.0):
        taken = graphjit.jit(function)
        with pytest.raises(IndexError):
            taken(np.zeros(0), index)
        assert taken(np.zeros(0), index[:0]).shape == function(np.zeros(0), index[:0]).shape


@pytest.mark.parametrize(
    "function",
    [
        lambda i: np.zeros(1)[i] + 1,
        lambda i: np.arange(1)[i] * 2.0,
        lambda i: np.pad(np.array([3.0])[i], 1),
        lambda i: np.array([[[3.0]]])[:, i],
    ],
)
def test_gathers_from_a_constant_of_one_element(function: Callable[..., Any]) -> None:
    """Such a constant is a number in the code and lies nowhere in memory."""
    same(function, np.array([0, -1, 0, 0, -1]))
    with pytest.raises(IndexError):
        graphjit.jit(function)(np.array([0, 1]))


def test_nothing_can_be_put_on_an_empty_axis() -> None:
    """It was ignored."""

    def put(i: Any, v: Any) -> Any:
        b = np.zeros((0, 3))
        b[i] = v
        return b

    assert graphjit.jit(put)(np.zeros(0, int), 1.5).shape == (0, 3)
    with pytest.raises(IndexError):
        graphjit.jit(put)(np.array([0]), 1.5)
