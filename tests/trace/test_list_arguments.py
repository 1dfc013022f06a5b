"""Lists of traced numbers wherever NumPy takes a list."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.errors import UnsupportedError
from graphjit.trace.numpy.list_arguments import UfuncOfLists
from graphjit.trace.recording.tracer import BOUND, UFUNCS

UNARY = sorted(
    {
        f.__name__
        for f in {*BOUND, *UFUNCS}
        if f.nin == 1 and f.signature is None and getattr(np, f.__name__, None) is f and f is not np.isnat
    }
)
BINARY = sorted(
    {
        f.__name__
        for f in {*BOUND, *UFUNCS}
        if f.nin == 2 and f.signature is None and getattr(np, f.__name__, None) is f
    }
)

EXPRESSIONS = [
    *(f"np.{name}(L)" for name in UNARY),
    *(f"np.{name}({args})" for name in BINARY for args in ("L, 0.7", "0.7, L", "L, L")),
    *"""np.dot(L, L); np.inner(L, L); np.outer(L, L); np.vdot(L, L); np.cross([a, a, b], [a, b, a]); np.kron(L, L); np.convolve(L, L)
np.concatenate([L, L]); np.concatenate([L, [1.0]]); np.stack([L, L]); np.vstack([L, L]); np.hstack([L, L]); np.column_stack([L, L]); np.append(L, a)
np.where([True, False], L, 0.0); np.clip(L, 0, 1); np.cumsum(L); np.cumprod(L); np.diff(L); np.gradient(L); np.trapezoid(L); np.linalg.norm(L)
np.linalg.norm([L, L], axis=1); np.matmul([L, L], L); np.diag(L); np.trace([L, L]); np.reshape(L, (2, 1)); np.ravel([L, L]); np.transpose([L, L])
np.tile(L, 2); np.repeat(L, 2); np.roll(L, 1); np.flip(L); np.take(L, [1, 0]); np.argmax(L); np.max(L); np.mean(L); np.std(L); np.sum([L, L], axis=0)
np.prod(L); np.any(L); np.all(L); np.polyval(L, 2.0); np.polyval([1.0, 2.0], L); np.round(L); np.nan_to_num(L); np.nansum(L); np.nanmean(L)
np.isclose(L, L); np.allclose(L, L); np.array_equal(L, L); np.broadcast_to(L, (2, 2)); np.atleast_2d(L); np.einsum('i,i->', L, L); np.tensordot(L, L, 1)
np.average(L, weights=L); np.cov([L, L]); np.triu([L, L]); np.vander(L); np.zeros_like(L); np.full_like(L, 1.0); np.ptp(L); np.count_nonzero(L)
np.pad(L, 1); np.select([[True, False]], [L], 0.0); np.block([L, L]); np.sinc(L); np.nanmax(L); np.maximum.reduce(L); np.logaddexp.reduce(L)
np.add.reduce(L); np.add.accumulate(L); np.multiply.outer(L, L); np.subtract.reduceat(L, [0]); np.heaviside(L, 0.5)""".replace(
        "\n", ";"
    ).split(";"),
]


@pytest.mark.sample(2)
@pytest.mark.parametrize("expression", [expression.strip() for expression in EXPRESSIONS])
def test_a_list_means_the_array_that_it_makes(expression: str) -> None:
    function = eval(f"lambda a, b: (lambda L: {expression})([a, b])", {"np": np})
    try:
        with np.errstate(all="ignore"):
            wanted = function(0.3, 0.8)
    except TypeError:
        with pytest.raises(TypeError):
            graphjit.jit(function)(0.3, 0.8)
        return
    found = graphjit.jit(function)(0.3, 0.8)
    pairs = zip(found, wanted, strict=True) if isinstance(wanted, tuple) else [(found, wanted)]
    for got, want in pairs:
        assert np.asarray(got).dtype == np.asarray(want).dtype
        np.testing.assert_allclose(got, want, rtol=1e-13)


def test_gradients_go_through_lists() -> None:
    gradient = graphjit.grad(
        lambda a, b: np.sum(np.maximum(0.5, [a, b * b]) * np.logaddexp([a, b], 1.0)), argnums=(0, 1)
    )(0.3, 0.8)
    p = 1 / (1 + np.exp(1.0 - np.array([0.3, 0.8])))
    np.testing.assert_allclose(gradient, [0.5 * p[0], 1.6 * np.logaddexp(0.8, 1.0) + 0.64 * p[1]], rtol=1e-13)


def test_what_is_not_compiled_says_so_for_lists_too() -> None:
    with pytest.raises(UnsupportedError, match=r"np\.linalg\.svd of a traced value"):
        graphjit.jit(lambda a: np.linalg.svd([[a, 1.0], [0.0, a]]))(1.0)
    with pytest.raises(UnsupportedError, match=r"np\.unwrap is not compiled"):
        graphjit.jit(lambda a: np.unwrap([a, a]))(1.0)
    for function in (lambda x: list(np.nditer(x)), lambda x: np.frombuffer(x)):
        with pytest.raises(
            UnsupportedError,
            match=r"np\.(nditer|frombuffer) of a traced value is not compiled \(at .*test_list_arguments",
        ):
            graphjit.jit(function)(np.ones(3))


def test_a_ufunc_is_itself_while_a_function_is_traced() -> None:
    original = np.maximum
    documented = (np.maximum.__doc__, np.dot.__doc__)
    seen: dict[str, Any] = {}

    def look(x: Any) -> Any:
        inside = np.maximum
        seen.update(
            equal=inside == original and original == inside and hash(inside) == hash(original),
            kind=isinstance(inside, np.ufunc),
            key={original: 1}.get(inside),
            name=inside.__name__,
            text=repr(inside),
            doc=(inside.__doc__, np.dot.__doc__) == documented,
            pickled=pickle.loads(pickle.dumps(inside)) == original,
            copied=copy.copy(inside) == original,
            reduced=inside.reduce([1.0, 4.0]),
            plain=inside([1.0, 2.0], 1.5).tolist(),
        )
        return inside(x, 0.0)

    assert graphjit.jit(look)(-1.0) == 0.0
    assert seen == {
        "equal": True,
        "kind": True,
        "key": 1,
        "name": "maximum",
        "text": "<ufunc 'maximum'>",
        "doc": True,
        "pickled": True,
        "copied": True,
        "reduced": 4.0,
        "plain": [1.5, 2.0],
    }
    assert np.maximum is original
    assert type(np.maximum) is np.ufunc


def test_other_threads_compute_with_numpy() -> None:
    found: list[Any] = []

    def traced(x: Any) -> Any:
        thread = threading.Thread(
            target=lambda: found.append(
                (np.maximum([1, 5], [3, 2]).tolist(), np.dot([1, 2], [3, 4]), np.linalg.norm([3.0, 4.0]))
            )
        )
        thread.start()
        thread.join()
        return x

    graphjit.jit(traced)(1.0)
    assert found == [([3, 5], 11, 5.0)]
    assert type(UfuncOfLists(np.add)) is UfuncOfLists
