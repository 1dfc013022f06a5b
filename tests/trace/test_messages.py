"""What people read when something does not work: public names, their own line, the way out."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.errors import GraphjitError, TraceError, UnsupportedError
from graphjit.trace.recording.calls import public_name
from graphjit.trace.recording.tracer import FUNCTIONS

X = np.ones((3, 4))

SIZES = """
np.ones(n) | np.zeros((n, 2)) | np.zeros(n) | np.zeros([n]) | np.empty(n) | np.full(n, 1.0) | np.full((n, 2), x[0, 0]) | np.zeros(shape=n)
np.arange(n) | np.arange(0, n, 1) | np.arange(n * 2) | np.eye(n) | np.identity(n) | np.tri(n) | np.linspace(0, 1, n) | np.linspace(x[0, 0], 1, n)
np.logspace(0, 1, n) | np.indices((n, 2)) | np.hanning(n) | np.zeros_like(x, shape=(n,)) | np.ndarray(n) | np.ndarray((n, 2)) | range(n) | np.ones(int(n))
np.diag(x[0], n) | np.diag(x, n) | np.diagonal(x, n) | np.trace(x, n) | np.tril(x, n) | np.triu(x, n) | np.vander(x[0], n) | np.rot90(x, n)
np.sum(x, axis=n) | x.sum(axis=n) | x.sum(n) | np.sum(x, axis=(n,)) | np.mean(x, axis=n) | np.max(x, axis=n) | np.argmax(x, axis=n) | np.std(x, axis=n)
np.cumsum(x, axis=n) | np.any(x, axis=n) | np.nansum(x, axis=n) | np.average(x, axis=n) | np.ptp(x, axis=n) | np.count_nonzero(x, axis=n)
np.add.reduce(x, axis=n) | np.add.reduce(x, n) | np.linalg.norm(x, axis=n) | np.cross(x, x, axis=n) | np.gradient(x, axis=n) | np.diff(x, n)
x.reshape(n, 2) | x.reshape((n, -1)) | np.reshape(x, (n, 2)) | np.repeat(x, n) | np.repeat(x, n, axis=0) | np.tile(x, n) | np.tile(x, (n, 2))
np.roll(x, n) | np.roll(x, 1, axis=n) | np.broadcast_to(x[0, 0], (n,)) | np.expand_dims(x, n) | np.squeeze(x, n) | np.swapaxes(x, 0, n)
np.transpose(x, (n, 0)) | np.moveaxis(x, n, 0) | np.concatenate([x, x], axis=n) | np.stack([x, x], axis=n) | np.split(x, n) | np.array_split(x, [n])
np.pad(x, n) | np.pad(x, ((n, 0), (0, 0))) | np.take(x, [0], axis=n) | np.flip(x, n) | np.resize(x, n) | np.delete(x, n, axis=0) | np.unstack(x, axis=n)
np.tensordot(x, x, n) | np.linalg.matrix_power(x[:, :3], n) | np.kron(np.eye(n), x) | np.round(x, n)
"""


@pytest.mark.parametrize(
    "expression", [part.strip() for line in SIZES.strip().splitlines() for part in line.split("|")]
)
def test_a_traced_size_or_axis_says_what_it_needs(expression: str) -> None:
    function = eval(f"lambda x, n: {expression}", {"np": np})
    with pytest.raises(TraceError) as caught:
        graphjit.jit(function)(X, 1)
    said = str(caught.value)
    assert re.search(
        r"needs the value of a traced (i64|bool)\[[\d,]*\] at <string>:1, which is only known when the compiled code runs",
        said,
    ), said
    assert "Mark the argument as static (static_argnums / static_argnames)" in said


def test_a_function_that_wants_a_truth_value_is_named() -> None:
    with pytest.raises(
        TraceError, match=r"an argument of np\.arange needs the value of a traced bool\[\] at .*test_messages"
    ):
        graphjit.jit(lambda n: np.arange(n))(3)
    with pytest.raises(TraceError, match=r"an argument of np\.linspace needs"):
        graphjit.jit(lambda n: np.linspace(0, 1, n))(3)
    with pytest.raises(TraceError, match=r"the truth value \(if, while, and, or, not, assert\) needs"):
        graphjit.jit(lambda n: 1 if n > 2 else n, python_control_flow=False)(3)
    with pytest.raises(TraceError, match=r"the truth value \(if, while, and, or, not, assert\) needs"):
        graphjit.jit(lambda n: bool(n), python_control_flow=False)(3)


@pytest.mark.parametrize("expression", ["x[:n]", "x[n:]", "x[::n]", "x[:, :n]"])
def test_a_traced_bound_of_a_slice_says_what_it_needs(expression: str) -> None:
    with pytest.raises(TraceError, match=r"a slice bound is a traced value at <string>:1: .*static_argnums"):
        graphjit.jit(eval(f"lambda x, n: {expression}", {"np": np}))(X, 1)


def test_the_users_own_type_error_at_another_line_stays() -> None:
    def function(x: Any, n: Any) -> Any:
        with contextlib.suppress(TypeError):
            range(n)
        return x + "text"

    with pytest.raises(TypeError, match="unsupported operand") as caught:
        graphjit.jit(function)(X, 1)
    assert not isinstance(caught.value, TraceError)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("np.histogram2d(x, x)", r"np\.histogram2d is not compiled"),
        ("np.insert(x, 0, 1.0)", r"np\.insert is not compiled"),
        ("np.linalg.svd(x)", r"np\.linalg\.svd of a traced value"),
        ("np.frexp(x)", r"np\.frexp is not compiled"),
        ("sp.zeta(x)", r"scipy\.special\.zeta is not compiled"),
        ("sp.lambertw(x)", r"scipy\.special\.lambertw is not compiled"),
        (
            "np.matmul(x, x.T, axes=[(0, 1), (0, 1), (0, 1)])",
            r"np\.matmul\(\.\.\., axes=\.\.\.\) is not compiled",
        ),
        ("x * 1j", "a traced value meets the complex number 1j"),
        ("1j + x", "complex numbers are not compiled yet"),
        ("np.multiply(x, 1j)", "complex numbers are not compiled yet"),
        ("x * np.complex128(1j)", "complex"),
        ("x == 1j", "complex numbers are not compiled yet"),
    ],
)
def test_what_is_not_compiled_is_called_by_its_public_name(expression: str, words: str) -> None:
    import scipy.special as sp

    function = eval(f"lambda x: {expression}", {"np": np, "sp": sp})
    with pytest.raises(UnsupportedError, match=words) as caught:
        graphjit.jit(function)(X)
    assert "<string>:1" in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("np.sum(x, axi=0)", r"sum\(\) got an unexpected keyword argument 'axi'"),
        ("x.sum(nonsense=0)", r"sum\(\) got an unexpected keyword argument 'nonsense' \(at <string>:1\)"),
        ("x.reshape((4, 3), nonsense=0)", r"reshape\(\) got an unexpected keyword argument 'nonsense'"),
        ("np.add(x, x, nonsense=1)", r"add\(\) got an unexpected keyword argument 'nonsense'"),
        ("np.add.reduce(x, nonsense=1)", "nonsense"),
        ("memoryview(x)", "a bytes-like object is required, not 'traced array'"),
    ],
)
def test_what_numpy_does_not_know_is_a_type_error_in_its_words(expression: str, words: str) -> None:
    function = eval(f"lambda x: {expression}", {"np": np})
    with pytest.raises(TypeError, match=words) as caught:
        graphjit.jit(function)(X)
    assert "Tracer" not in str(caught.value)
    assert "_(" not in str(caught.value)


def test_a_keyword_that_numpy_takes_and_we_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUNCTIONS, np.nanstd, lambda a, axis=None: a)
    with pytest.raises(
        UnsupportedError,
        match=r"np\.nanstd\(\.\.\., correction=\.\.\.\) is not compiled \(at .*test_messages.*\): leave it out",
    ):
        graphjit.jit(lambda x: np.nanstd(x, correction=1))(X)
    with pytest.raises(
        UnsupportedError, match=r"np\.nanstd with these arguments is not compiled \(at .*test_messages"
    ):
        graphjit.jit(lambda x: np.nanstd(x, 0, np.float32, None))(X)


def test_an_error_of_a_function_that_the_user_passed_is_theirs() -> None:
    def two(a: Any, b: Any) -> Any:
        return a + b

    with pytest.raises(TypeError, match="two"):
        graphjit.jit(lambda x: np.fromfunction(two, (3,)) * x)(1.0)
    with pytest.raises(TypeError, match=r"two\(\) missing 1 required positional argument"):
        graphjit.grad(two)(1.0)


OUTSIDE = np.zeros(3)


def _fills(z: Any, key: Any, value: Any) -> Any:
    z[key] = value
    return z


@pytest.mark.parametrize(
    "function",
    [
        lambda x: _fills(OUTSIDE, 0, x[0, 0]),
        lambda x: _fills(OUTSIDE, slice(0, 2), x[0, :2]),
        lambda x: _fills(np.ndarray((2, 3)), 0, x[0, 0]),
        lambda x: np.add(x[0, :3], 1.0, out=OUTSIDE),
    ],
)
def test_an_assignment_into_an_array_from_outside_says_so(function: Any) -> None:
    with pytest.raises(
        TraceError,
        match=r"would write into an array from outside .*at .*test_messages\.py:\d+, .*Make the array",
    ):
        graphjit.jit(function)(X)
    assert OUTSIDE.tolist() == [0.0, 0.0, 0.0]


def test_public_names() -> None:
    import scipy.special

    assert public_name(np.linalg.norm) == "np.linalg.norm"
    assert public_name(np.sum) == "np.sum"
    assert public_name(np.maximum) == "np.maximum"
    assert public_name(scipy.special.erf) == "scipy.special.erf"
    assert public_name(scipy.special.logsumexp) == "scipy.special.logsumexp"


def test_every_message_is_a_graphjit_error_with_a_line() -> None:
    for function in (
        lambda x: x if float(x[0, 0]) > 0 else -x,
        lambda x: float(x[0, 0]),
        lambda x: x.item(0),
        lambda x: x.tolist(),
    ):
        with pytest.raises(GraphjitError, match=r"test_messages\.py:"):
            graphjit.jit(function)(X)
