"""reduce, accumulate, reduceat, outer and at of every bound ufunc, with all options, beside NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_harness import check, record, same
from numpy_harness import run as traced

import graphjit
from graphjit.errors import TraceError, UnsupportedError
from graphjit.trace.recording.tracer import BOUND, UFUNCS

BINARY = sorted(
    (
        f
        for f in {*BOUND, *UFUNCS}
        if f.nin == 2 and f.nout == 1 and f.signature is None and getattr(np, f.__name__, None) is f
    ),
    key=lambda f: f.__name__,
)
DTYPES = ("f8", "f4", "i8", "i4", "u1", "?")
rng = np.random.default_rng(3)


def operand(dtype: str, *shape: int) -> np.ndarray:
    kind = np.dtype(dtype).kind
    if kind == "f":
        return rng.uniform(-2, 2, shape).astype(dtype)
    return (
        (rng.random(shape) < 0.5)
        if kind == "b"
        else rng.integers(0 if kind == "u" else -3, 5, shape).astype(dtype)
    )


def outcome(function: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """NumPy's result, or the kind of its refusal."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*[a.copy() for a in arrays])
        except (TypeError, ValueError, IndexError) as error:
            return error


def agree(function: Callable[..., Any], *arrays: np.ndarray) -> bool:
    """Same value, or both refuse; False where the dtype is not compiled."""
    wanted = outcome(function, *arrays)
    found: Any
    try:
        (found,) = traced(function, *arrays)
    except (UnsupportedError, ZeroDivisionError, TypeError, ValueError, IndexError) as error:
        found = error
    if isinstance(found, ZeroDivisionError):  # where NumPy warns and gives 0
        return False
    if isinstance(found, UnsupportedError) and ("float16" in str(found) or "ldexp" in str(found)):
        return False
    assert isinstance(found, Exception) == isinstance(wanted, Exception), (
        f"NumPy gives {wanted!r}, traced {found!r}"
    )
    if isinstance(wanted, Exception):
        return False
    same(found, wanted)
    return True


METHODS: dict[str, Callable[[np.ufunc], Callable[..., Any]]] = {
    "reduce": lambda f: lambda x: f.reduce(x),
    "reduce-1": lambda f: lambda x: f.reduce(x, axis=-1, keepdims=True),
    "reduce None": lambda f: lambda x: f.reduce(x, axis=None),
    "reduce 0,1": lambda f: lambda x: f.reduce(x, axis=(0, 1)),
    "reduce ()": lambda f: lambda x: f.reduce(x, axis=()),
    "reduce initial": lambda f: lambda x: f.reduce(x, axis=0, initial=2),
    "reduce initial None": lambda f: lambda x: f.reduce(x, axis=0, initial=None),
    "reduce where": lambda f: lambda x: f.reduce(x, axis=0, where=x > 0),
    "reduce where initial": lambda f: lambda x: f.reduce(x, axis=1, where=x > 0, initial=1),
    "reduce dtype": lambda f: lambda x: f.reduce(x, axis=0, dtype=np.float64),
    "accumulate": lambda f: lambda x: f.accumulate(x),
    "accumulate 1": lambda f: lambda x: f.accumulate(x, axis=1),
    "reduceat": lambda f: lambda x: f.reduceat(x, [0, 2, 1, 1], axis=1),
    "outer": lambda f: lambda x: f.outer(x, x[:, 0]),
}


@pytest.mark.sample(7)
@pytest.mark.parametrize("ufunc", BINARY, ids=lambda f: f.__name__)
def test_methods_give_what_numpy_gives(ufunc: np.ufunc) -> None:
    compared = 0
    # NumPy 2.4 gives f(first, last) for contiguous floats on machines with AVX-512; ours is the definition.
    numpys_are_wrong = ufunc in (np.arctan2, np.power)
    for name, make in METHODS.items():
        for dtype in DTYPES:
            for shape in ((3, 4), (1, 3), (3, 1), (0, 3)):
                if numpys_are_wrong and (
                    shape == (3, 1) or name in ("reduce-1", "reduce where initial", "reduceat")
                ):
                    continue
                x = operand(dtype, *shape)
                try:
                    compared += agree(make(ufunc), x)
                except AssertionError as error:
                    raise AssertionError(f"{ufunc.__name__} {name} {dtype}{shape}: {error}") from error
    assert compared > 5


def test_the_matrix_is_large() -> None:
    assert len(BINARY) >= 30


@pytest.mark.parametrize(
    "ufunc", [np.add, np.multiply, np.maximum, np.subtract, np.logaddexp, np.hypot], ids=lambda f: f.__name__
)
def test_out_is_written_and_returned(ufunc: np.ufunc) -> None:
    for dtype in ("f8", "f4", "i4"):
        x = operand(dtype, 3, 4)

        def reduced(x: Any) -> Any:
            y = np.zeros(4)
            assert ufunc.reduce(x, axis=0, out=y) is y
            return y

        def accumulated(x: Any) -> Any:
            y = np.zeros((3, 4))
            ufunc.accumulate(x, axis=1, out=(y,))
            return y

        agree(reduced, x)
        agree(accumulated, x)


def test_out_of_functions() -> None:
    x = operand("f8", 2, 3)
    check(lambda x: (lambda y: (np.sum(x, axis=0, out=y), y))(np.zeros(3)), x)
    check(lambda x: (lambda y: (np.sum(x, 0, None, y), y))(np.zeros(3)), x)
    check(lambda x: (lambda y: (np.mean(x, axis=0, out=y), y))(np.zeros(3, int)), x)
    check(lambda x: (lambda y: (np.sum(x, axis=0, out=y), y))(np.zeros(3, int)), x)
    check(lambda x: (lambda y: (x.max(0, y), y))(np.zeros(3)), x)
    check(lambda x: (lambda y: (np.cumsum(x, axis=1, out=y), y))(np.zeros((2, 3))), x)
    check(lambda x: (lambda y: (np.concatenate([x, x], out=y), y))(np.zeros((4, 3))), x)
    check(lambda x: (lambda y: (np.sum(x, axis=0, out=y[1]), y))(np.zeros((2, 3)))[1], x)
    check(lambda x: (np.sum(x, axis=0, out=x[0]), x)[1], x)
    check(lambda x: (lambda y: np.sum(x, axis=0, out=y))(np.zeros(3)), np.full((1000, 3), 0.1, np.float32))
    check(lambda x: (lambda y: np.clip(x, 0, 1, out=y, casting="unsafe"))(np.zeros((2, 3), int)), x)
    with pytest.raises(TypeError, match=r"Cannot cast np\.concatenate output"):
        record(lambda x: np.concatenate([x, x], out=np.zeros((4, 3), int)), [x])
    with pytest.raises(ValueError, match=r"np\.sum: out has shape \(4,\), the result \(3,\)"):
        record(lambda x: np.sum(x, axis=0, out=np.zeros(4)), [x])
    outside = np.zeros(3)
    with pytest.raises(TraceError, match=r"np\.sum \(out=\) would write into an array from outside"):
        record(lambda x: np.sum(x, axis=0, out=outside), [x])


def test_gradients_go_through_reductions_in_order() -> None:
    x = np.array([3.0, 0.5, 2.0])
    found = graphjit.grad(lambda x: np.divide.reduce(x))(x)
    np.testing.assert_allclose(found, [1 / (0.5 * 2.0), -3.0 / (0.25 * 2.0), -3.0 / (0.5 * 4.0)], rtol=1e-14)
    found = graphjit.grad(lambda x: np.sum(np.subtract.accumulate(x)))(x)
    np.testing.assert_array_equal(found, [3.0, -2.0, -1.0])
    found = graphjit.grad(lambda x: np.hypot.reduce(x))(np.array([-3.0]))
    np.testing.assert_array_equal(found, [-1.0])


AT = [np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.power, np.fmax, np.logaddexp]


@pytest.mark.parametrize("ufunc", AT, ids=lambda f: f.__name__)
def test_at(ufunc: np.ufunc) -> None:
    x, v = np.abs(operand("f8", 4, 3)) + 0.1, operand("f8", 5)

    def wrote(key: Any, value: Any) -> Callable[..., Any]:
        def function(x: Any, v: Any) -> Any:
            ufunc.at(x, key, value(v))
            return x

        return function

    for key, value in (
        (([0, 1, 0, 3, 0], [2, 1, 2, 0, 2]), lambda v: v),
        (([0, 1, 1],), lambda v: v[:3]),
        ([0, 1, 1], lambda v: 2.0),
        (slice(None, None, 2), lambda v: v[:3]),
        (1, lambda v: v[0]),
        ((Ellipsis, 0), lambda v: v[1]),
    ):
        agree(wrote(key, value), x, v)


def test_at_of_one_argument_and_errors() -> None:
    x = operand("f8", 4)

    def negated(x: Any) -> Any:
        np.negative.at(x, [0, 0, 1])
        return x

    check(negated, x)
    with pytest.raises(
        TraceError, match=r"np\.maximum\.at needs the values of its positions at .*test_ufunc_methods"
    ):
        record(lambda x, i: np.maximum.at(x, i, 1.0), [x, np.array([0, 1])])


def test_at_converts_what_it_computed_as_numpy_does() -> None:
    def halves(i: Any) -> Any:
        np.add.at(i, [0, 0, 1], 1.5)
        return i

    check(halves, np.array([-2, -1, 0]))
    with pytest.raises(TypeError, match="not supported for the input types"):
        record(lambda x: np.bitwise_or.at(x, [0], 1), [np.ones(3)])


def test_long_chains_are_refused() -> None:
    with pytest.raises(
        UnsupportedError,
        match=r"np\.subtract\.reduce of 5000 elements is not compiled \(at .*test_ufunc_methods",
    ):
        record(lambda x: np.subtract.reduce(x), [np.ones(5000)])


def test_positions_that_are_not_known() -> None:
    with pytest.raises(TraceError, match="the positions of reduceat needs the value of a traced"):
        record(lambda x, i: np.add.reduceat(x, i), [np.ones(5), np.array([0, 1])])


def test_refusals_are_numpys() -> None:
    m = np.ones((3, 4))
    for function, kind, words in (
        (lambda x: np.subtract.reduce(x, axis=(0, 1)), ValueError, "not reorderable"),
        (lambda x: np.exp.reduce(x), ValueError, "reduce only supported for binary functions"),
        (lambda x: np.maximum.reduce(x[:0]), ValueError, "no identity"),
        (lambda x: np.bitwise_or.reduce(x), TypeError, "not supported for the input types"),
        (lambda x: np.add.reduceat(x, [9]), IndexError, "out-of-bounds"),
        (lambda x: np.add.reduce(x, nonsense=1), TypeError, "nonsense"),
        (lambda x: np.exp.outer(x, x), ValueError, "binary"),
        (
            lambda x: np.add(x, x, nonsense=1),
            TypeError,
            r"add\(\) got an unexpected keyword argument 'nonsense'",
        ),
    ):
        with pytest.raises(kind, match=words):
            record(function, [m])
