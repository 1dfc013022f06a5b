"""`vmap`: the stack of calls, for every kind of function, axis and container; alone and with derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import DerivativeError, TraceError

RNG = np.random.default_rng(11)
W = RNG.normal(size=(5, 4))
X = RNG.normal(size=(6, 4))


def softmax_loss(w: Any, x: Any) -> Any:
    z = w @ x
    return np.log(np.sum(np.exp(z - np.max(z)))) - z[0]


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "product": (lambda w, x: w @ x, (W, X[0])),
    "outer": (lambda x, y: np.outer(x, y), (X[0], X[1])),
    "where": (lambda x, y: np.where(x > 0, np.sqrt(np.abs(x)), y), (X[0], X[1])),
    "indexing": (lambda x, i: x[i] * 2, (X[0], np.array([0, 3, -1]))),
    "writing": (lambda x, y: _written(x, y), (X[0], X[1])),
    "sorting parts": (lambda x, y: np.concatenate([x[::-1], y[1:3], [1.0, x[0]]]), (X[0], X[1])),
    "statistics": (lambda x, y: (np.mean(x), np.std(y), np.max(x) - np.min(y)), (X[0], X[1])),
    "sums": (lambda x, y: np.cumsum(x) + np.cumprod(y), (X[0], X[1])),
    "einsum": (lambda w, x: np.einsum("ij,j->i", w, x), (W, X[0])),
    "convolution": (lambda x, y: np.convolve(x, y), (X[0], X[1])),
    "matrix product": (lambda a, b: a @ b.T, (W, W)),
    "loss": (softmax_loss, (W, X[0])),
    "argmax": (lambda x, y: (np.argmax(x), y[np.argmax(x)]), (X[0], X[1])),
    "bools and ints": (lambda x, y: (x > y, np.sum(x > 0), 3), (X[0], X[1])),
    "stack": (lambda x, y: np.array([[x[0], 0.0], [y[1], x @ y]]), (X[0], X[1])),
}


def _written(x: Any, y: Any) -> Any:
    out = np.zeros(6)
    out[1:5] = x
    out[::2] += y[:3]
    return out


def rolled(value: np.ndarray, size: int) -> np.ndarray:
    return np.stack([np.roll(value, i) for i in range(size)])


def stack_of_calls(function: Callable[..., Any], args: tuple[Any, ...], varies: tuple[bool, ...]) -> Any:
    size = next(len(x) for x, flag in zip(args, varies, strict=True) if flag)
    calls = [
        function(*[x[i] if flag else x for x, flag in zip(args, varies, strict=True)]) for i in range(size)
    ]
    if isinstance(calls[0], tuple):
        return tuple(np.stack(parts) for parts in zip(*calls, strict=True))
    return np.stack(calls)


def check(got: Any, want: Any) -> None:
    if isinstance(want, tuple):
        assert isinstance(got, tuple)
        for a, b in zip(got, want, strict=True):
            check(a, b)
        return
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("varies", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_batch_is_the_stack_of_calls(name: str, varies: tuple[bool, ...]) -> None:
    function, args = FUNCTIONS[name]
    given = tuple(rolled(x, 7) if flag else x for x, flag in zip(args, varies, strict=True))
    axes = tuple(0 if flag else None for flag in varies)
    check(graphjit.vmap(function, axes)(*given), stack_of_calls(function, given, varies))


@pytest.mark.parametrize("name", ["loss", "where", "einsum", "writing", "stack", "convolution"])
def test_nested_twice(name: str) -> None:
    function, args = FUNCTIONS[name]
    given = tuple(rolled(rolled(x, 3).reshape(-1), 2).reshape(2, 3, *x.shape) for x in args)
    got = graphjit.vmap(graphjit.vmap(function))(*given)
    want = np.stack([stack_of_calls(function, pair, (True, True)) for pair in zip(*given, strict=True)])
    check(got, want)
    crossed = graphjit.vmap(graphjit.vmap(function, (None, 0)), (0, None))(given[0][0], given[1][1])
    want = np.stack([[function(a, b) for b in given[1][1]] for a in given[0][0]])
    check(crossed, want)


@pytest.mark.parametrize("in_axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("out_axis", [0, 1, -1])
def test_axes(in_axis: int, out_axis: int) -> None:
    x = RNG.normal(size=(3, 3, 3))
    got = graphjit.vmap(np.transpose, in_axis, out_axis)(x)
    rows = [np.transpose(np.take(x, i, in_axis)) for i in range(3)]
    np.testing.assert_array_equal(got, np.stack(rows, out_axis))


def test_trees_of_axes_and_keywords() -> None:
    parameters = {"w": W, "b": RNG.normal(size=(5, 6))}

    def layer(p: Any, x: Any, *, scale: Any) -> Any:
        return {"z": scale * (p["w"] @ x + p["b"]), "n": p["w"].shape[0]}

    got = graphjit.vmap(layer, in_axes=({"w": None, "b": 1}, 0), out_axes={"z": 1, "n": None})(
        parameters, X, scale=np.arange(6.0)
    )
    want = np.stack([np.arange(6.0)[i] * (W @ X[i] + parameters["b"][:, i]) for i in range(6)], axis=1)
    np.testing.assert_allclose(got["z"], want, rtol=1e-13)
    assert got["n"] == 5


def test_axis_size_and_values_that_do_not_vary() -> None:
    np.testing.assert_array_equal(graphjit.vmap(lambda: np.arange(2.0), axis_size=3)(), [[0, 1]] * 3)
    np.testing.assert_array_equal(graphjit.vmap(lambda x: 7)(X[0]), [7, 7, 7, 7])
    assert graphjit.vmap(lambda x: None)(X[0]) is None
    assert graphjit.vmap(lambda x: x, out_axes=0, axis_size=4)(X[0]).shape == (4,)
    assert graphjit.vmap(np.sum)(np.zeros((0, 3))).shape == (0,)
    text = graphjit.vmap(lambda x, how: np.sum(x) if how == "sum" else x[0], static_argnames="how")
    np.testing.assert_allclose(text(X, how="sum"), X.sum(1))


def test_gradients_per_example() -> None:
    got = graphjit.vmap(graphjit.grad(softmax_loss), in_axes=(None, 0))(W, X)
    want = np.stack([graphjit.grad(softmax_loss)(W, x) for x in X])
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    total = graphjit.grad(lambda w: np.sum(graphjit.vmap(softmax_loss, (None, 0))(w, X)))(W)
    np.testing.assert_allclose(total, want.sum(0), rtol=1e-12, atol=1e-14)


TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "grad": lambda f: graphjit.grad(f, argnums=1),
    "jvp": lambda f: lambda w, x: graphjit.jvp(f, (w, x), (w, x))[1],
    "vjp": lambda f: lambda w, x: graphjit.vjp(f, w, x)[1](1.0)[1],
    "linearize": lambda f: lambda w, x: graphjit.linearize(f, w, x)[1](w, x),
    "hessian": lambda f: graphjit.hessian(f, argnums=1),
    "jit": graphjit.jit,
}


@pytest.mark.sample(8)
@pytest.mark.parametrize("names", list(itertools.product(TRANSFORMS, repeat=2)), ids="-".join)
def test_over_and_under_every_transform(names: tuple[str, str]) -> None:
    """The inner derivative is summed to a number, so that every pair makes sense."""
    inner, outer = (TRANSFORMS[name] for name in names)

    def number(w: Any, x: Any) -> Any:
        return np.sum(np.sin(inner(softmax_loss)(w, x)))

    made = outer(number)
    got = graphjit.vmap(made, in_axes=(None, 0))(W, X[:2])
    want = np.stack([made(W, x) for x in X[:2]])
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)

    def mapped(w: Any, x: Any) -> Any:
        return np.sum(graphjit.vmap(number, in_axes=(None, 0))(w, x))

    def looped(w: Any, x: Any) -> Any:
        return sum(number(w, row) for row in x)

    np.testing.assert_allclose(outer(mapped)(W, X[:2]), outer(looped)(W, X[:2]), rtol=1e-10, atol=1e-12)


def test_without_compilation_each_element_is_called() -> None:
    seen: list[float] = []

    def function(x: Any) -> Any:
        seen.append(float(x[0]))
        return x * 2 if x[0] > 0 else x - 1

    with graphjit.disable_jit():
        got = graphjit.vmap(function)(X)
        gradient = graphjit.grad(lambda x: np.sum(graphjit.vmap(np.sin)(x)))(X)
    assert seen == list(X[:, 0])
    np.testing.assert_allclose(got, np.stack([function(x) for x in X]))
    np.testing.assert_allclose(gradient, np.cos(X))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: graphjit.vmap(np.sum)(1.0), ValueError, r"argument 0 has shape \(\), which has no axis 0"),
        (lambda: graphjit.vmap(np.sum, 2)(X), ValueError, "no axis 2"),
        (lambda: graphjit.vmap(np.add)(X, X[:2]), ValueError, "argument 0 has 6, argument 1 has 2"),
        (lambda: graphjit.vmap(np.add, (0,))(X, X), ValueError, "in_axes has 1 entries"),
        (lambda: graphjit.vmap(np.add, ({"a": 0}, 0))(X, X), ValueError, "does not fit"),
        (lambda: graphjit.vmap(np.add, "ab")(X, X), TypeError, "integers and None"),
        (lambda: graphjit.vmap(lambda: 1.0)(), ValueError, "axis_size is not given"),
        (lambda: graphjit.vmap(np.sin, axis_size=5)(X), ValueError, "axis_size has 5"),
        (lambda: graphjit.vmap(np.sin, out_axes=None)(X), ValueError, "varies from element to element"),
        (lambda: graphjit.vmap(np.sin, out_axes=3)(X), ValueError, "cannot be 3"),
        (lambda: graphjit.vmap(lambda x: "text")(X), TraceError, "returned 'text'"),
        (lambda: graphjit.vmap(lambda x: x.fill(0))(X), TraceError, "changes an argument"),
        (lambda: graphjit.vmap(lambda d: d["x"])({"x": X, "y": 1.0}), ValueError, r"argument 0\['y'\]"),
        (lambda: graphjit.vmap(3), TypeError, "vmap takes a function"),
        (lambda: graphjit.grad(graphjit.vmap(np.sin))(X), DerivativeError, "one floating-point number"),
    ],
)
def test_what_means_nothing_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_what_does_not_vary_is_computed_once() -> None:
    """The product of two matrices that do not vary stays one product of that size."""
    graph = (
        graphjit.jit(lambda a, x: graphjit.vmap(lambda x: np.tanh(a @ a) @ x)(x))
        .dispatcher.staged(W @ W.T, RNG.normal(size=(9, 5)))
        .graph
    )
    shapes = [node.shape for node in graph.nodes() if node.op.name == "contract"]
    assert shapes == [(5, 5), (9, 5)]
    assert [node.shape for node in graph.nodes() if node.op.name == "tanh"] == [(5, 5)]
