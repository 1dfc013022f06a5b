"""`custom_jvp`, `custom_vjp`, `stop_gradient`: values, both modes, orders, batches, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import DerivativeError

RNG = np.random.default_rng(13)
X = RNG.normal(size=(5, 3))


@graphjit.custom_jvp
def log1pexp(x: Any) -> Any:
    return np.log(1.0 + np.exp(x))


@log1pexp.defjvp
def _log1pexp_rule(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return log1pexp(x), dx / (1.0 + np.exp(-x))


@graphjit.custom_vjp
def twice_sine(x: Any) -> Any:
    """Its rule says twice the derivative of the sine, so that one sees who was asked."""
    return np.sin(x)


twice_sine.defvjp(lambda x: (twice_sine(x), {"x": x}), lambda kept, ct: (2.0 * ct * np.cos(kept["x"]),))


def logistic(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def test_values_are_the_functions_own_compiled_or_not() -> None:
    np.testing.assert_allclose(graphjit.jit(log1pexp)(X), log1pexp(X), rtol=1e-15)
    assert isinstance(log1pexp(1.0), float | np.floating)
    with graphjit.disable_jit():
        assert graphjit.grad(log1pexp)(100.0) == 1.0
        assert graphjit.grad(twice_sine)(0.0) == 2.0


def test_forward_rule_in_both_modes_and_all_orders() -> None:
    assert graphjit.grad(log1pexp)(1000.0) == 1.0  # NaN without the rule
    with np.errstate(over="ignore"):
        x = np.linspace(-3, 3, 7)
    for made in (
        graphjit.vmap(graphjit.grad(log1pexp))(x),
        graphjit.grad(lambda x: np.sum(graphjit.vmap(log1pexp)(x)))(x),
        graphjit.jvp(log1pexp, (x,), (np.ones(7),))[1],
        np.diag(graphjit.jacrev(log1pexp)(x)),
        np.diag(graphjit.jacfwd(log1pexp)(x)),
        graphjit.vjp(log1pexp, x)[1](np.ones(7))[0],
    ):
        np.testing.assert_allclose(made, logistic(x), rtol=1e-14)
    slope = logistic(x) * (1 - logistic(x))
    np.testing.assert_allclose(graphjit.vmap(graphjit.hessian(log1pexp))(x), slope, rtol=1e-12)
    np.testing.assert_allclose(graphjit.vmap(graphjit.grad(graphjit.grad(log1pexp)))(x), slope, rtol=1e-12)


def test_backward_rule_in_both_modes_and_all_orders() -> None:
    x = np.linspace(-2, 2, 5)
    first = 2 * np.cos(x)
    for made in (
        graphjit.vmap(graphjit.grad(twice_sine))(x),
        graphjit.jvp(twice_sine, (x,), (np.ones(5),))[1],
        np.diag(graphjit.jacfwd(twice_sine)(x)),
        np.diag(graphjit.jacrev(twice_sine)(x)),
        graphjit.linearize(twice_sine, x)[1](np.ones(5)),
    ):
        np.testing.assert_allclose(made, first, rtol=1e-14)
    np.testing.assert_allclose(graphjit.vmap(graphjit.hessian(twice_sine))(x), -2 * np.sin(x), rtol=1e-13)
    third = graphjit.vmap(graphjit.grad(graphjit.hessian(twice_sine)))(x)
    np.testing.assert_allclose(third, -2 * np.cos(x), rtol=1e-13)


def test_trees_in_and_out() -> None:
    @graphjit.custom_vjp
    def model(p: Any, x: Any) -> Any:
        return {"y": p["w"] * x, "sum": np.sum(x)}

    def forward(p: Any, x: Any) -> Any:
        return model(p, x), (p, x)

    def backward(kept: Any, ct: Any) -> Any:
        p, x = kept
        return {"w": 10.0 * ct["y"] * x}, ct["y"] * p["w"] + ct["sum"]

    model.defvjp(forward, backward)
    p, x = {"w": np.array([1.0, 2.0])}, np.array([3.0, 4.0])

    def loss(p: Any, x: Any) -> Any:
        out = model(p, x)
        return np.sum(out["y"]) + 3.0 * out["sum"]

    gp, gx = graphjit.grad(loss, argnums=(0, 1))(p, x)
    np.testing.assert_allclose(gp["w"], 10.0 * x)
    np.testing.assert_allclose(gx, p["w"] + 3.0)
    only = graphjit.grad(lambda p: np.sum(model(p, x)["y"]))(p)  # nobody asks for the cotangent of x
    np.testing.assert_allclose(only["w"], 10.0 * x)


def test_arguments_that_are_not_differentiated() -> None:
    @graphjit.custom_jvp
    def plain(f: Any, x: Any) -> Any:
        return f(x)

    def apply(f: Any, x: Any, n: int) -> Any:
        return f(x) * n

    forward = graphjit.custom_jvp(apply, nondiff_argnums=(0, 2))
    forward.defjvp(lambda f, n, primals, tangents: (forward(f, primals[0], n), 7.0 * n * tangents[0]))
    assert graphjit.grad(lambda x: forward(np.sin, x, 3))(1.0) == 21.0
    backward = graphjit.custom_vjp(apply, nondiff_argnums=(0, 2))
    backward.defvjp(lambda f, x, n: (f(x) * n, x), lambda f, n, x, ct: (n * x * ct,))
    assert graphjit.grad(lambda x: backward(np.sin, x, 3))(2.0) == 6.0
    assert graphjit.grad(lambda x: backward(f=np.sin, n=3, x=x))(2.0) == 6.0
    plain.defjvps(None, lambda t, out, f, x: t * out)
    assert math.isclose(graphjit.grad(lambda x: plain(np.exp, x))(2.0), math.exp(2.0))


def test_one_rule_for_each_argument() -> None:
    @graphjit.custom_jvp
    def product(x: Any, y: Any) -> Any:
        return x * y

    product.defjvps(lambda t, out, x, y: 2.0 * t * y, lambda t, out, x, y: 3.0 * t * x)
    assert graphjit.grad(product, argnums=(0, 1))(5.0, 7.0) == (14.0, 15.0)
    assert graphjit.jvp(product, (5.0, 7.0), (1.0, 1.0))[1] == 29.0


@pytest.mark.parametrize("function", [log1pexp, twice_sine])
@pytest.mark.parametrize("axes", [0, 1])
def test_batches(function: Callable[[Any], Any], axes: int) -> None:
    """A rule is that of one element: it may look at shapes."""

    def number(x: Any) -> Any:
        return np.sum(function(x) ** 2)

    rows = X if axes == 0 else X.T
    for transform in (graphjit.grad, graphjit.hessian):
        got = graphjit.vmap(transform(number), axes)(X)
        np.testing.assert_allclose(got, np.stack([transform(number)(row) for row in rows]), rtol=1e-12)
    outer = graphjit.grad(lambda x: np.sum(np.sin(graphjit.vmap(number, axes)(x))))(X)
    wanted = graphjit.grad(
        lambda x: sum(np.sin(number(x[i] if axes == 0 else x[:, i])) for i in range(len(rows)))
    )(X)
    np.testing.assert_allclose(outer, wanted, rtol=1e-12)


def test_the_rule_of_a_batch_is_that_of_each_element() -> None:
    @graphjit.custom_vjp
    def normed(x: Any) -> Any:
        return x

    normed.defvjp(lambda x: (x, None), lambda _, ct: (ct / np.sqrt(np.sum(ct * ct)),))
    cts = RNG.normal(size=(4, 3))
    got = graphjit.vmap(lambda x, ct: graphjit.vjp(normed, x)[1](ct)[0])(cts, cts)
    np.testing.assert_allclose(got, cts / np.linalg.norm(cts, axis=1, keepdims=True), rtol=1e-14)


def test_an_argument_that_does_not_vary_gets_the_sum() -> None:
    @graphjit.custom_vjp
    def scaled(w: Any, x: Any) -> Any:
        return w * np.sum(x)

    scaled.defvjp(
        lambda w, x: (scaled(w, x), (w, x)), lambda r, ct: (5.0 * ct * np.sum(r[1]), ct * r[0] + 0.0 * r[1])
    )

    def total(w: Any) -> Any:
        return np.sum(graphjit.vmap(scaled, (None, 0))(w, X))

    np.testing.assert_allclose(graphjit.grad(total)(2.0), 5.0 * X.sum(), rtol=1e-13)
    _, tangent = graphjit.jvp(total, (2.0,), (1.0,))
    np.testing.assert_allclose(tangent, 5.0 * X.sum(), rtol=1e-13)


def test_rules_may_use_transformed_functions() -> None:
    inner = graphjit.jit(lambda x: graphjit.vmap(np.sin)(x))

    @graphjit.custom_jvp
    def f(x: Any) -> Any:
        return inner(x)

    f.defjvp(lambda p, t: (f(p[0]), t[0] * graphjit.jvp(inner, p, (np.ones(3),))[1]))
    np.testing.assert_allclose(graphjit.jacfwd(f)(X[0]), np.diag(np.cos(X[0])), rtol=1e-14)


def test_stop_gradient() -> None:
    assert graphjit.grad(lambda x: x * graphjit.stop_gradient(x))(3.0) == 3.0
    assert graphjit.jvp(lambda x: x * graphjit.stop_gradient(x * x), (3.0,), (1.0,))[1] == 9.0
    assert graphjit.stop_gradient(3.0) == 3.0
    tree = graphjit.jit(lambda x: graphjit.stop_gradient({"x": x, "name": "kept", "n": None}))(X)
    np.testing.assert_array_equal(tree["x"], X)
    assert (tree["name"], tree["n"]) == ("kept", None)
    got = graphjit.grad(lambda x: np.sum(graphjit.vmap(lambda r: r @ graphjit.stop_gradient(r))(x)))(X)
    np.testing.assert_allclose(got, X)
    straight = graphjit.grad(lambda x: x + graphjit.stop_gradient(np.round(x) - x))
    assert straight(2.7) == 1.0


def unruled(x: Any) -> Any:
    return x


def nonlinear() -> Any:
    f = graphjit.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, None), lambda _, ct: (np.clip(ct, -1, 1),))
    return f


def reads_outside(x: Any) -> Any:
    f = graphjit.custom_jvp(lambda y: y * x)
    f.defjvp(lambda p, t: (f(*p), t[0]))
    return f(2.0)


def ruled(rule: Callable[..., Any]) -> Any:
    f = graphjit.custom_jvp(lambda x: 2.0 * x)
    f.defjvp(rule)
    return f


def pulled(backward: Callable[..., Any], forward: Callable[..., Any] = lambda x: (x, x)) -> Any:
    f = graphjit.custom_vjp(lambda x: 2.0 * x)
    f.defvjp(forward, backward)
    return f


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: graphjit.grad(graphjit.custom_jvp(unruled))(1.0), "unruled is a custom_jvp without a rule"),
        (lambda: graphjit.grad(graphjit.custom_vjp(unruled))(1.0), "unruled is a custom_vjp without rules"),
        (lambda: graphjit.jvp(nonlinear(), (1.0,), (1.0,)), "not linear in its cotangent"),
        (lambda: graphjit.grad(reads_outside)(1.0), "reads a differentiated value from outside"),
        (lambda: graphjit.jvp(reads_outside, (1.0,), (1.0,)), "reads a differentiated value from outside"),
        (lambda: graphjit.grad(ruled(lambda p, t: t[0]))(1.0), r"must return a pair \(out, tangent\)"),
        (lambda: graphjit.grad(ruled(lambda p, t: (p, t)))(1.0), "has structure"),
        (lambda: graphjit.grad(ruled(lambda p, t: (p[0], np.ones(2))))(1.0), r"has shape \(2,\), not \(\)"),
        (lambda: graphjit.grad(ruled(lambda p, t: (p[0], "one")))(1.0), "no array"),
        (lambda: graphjit.grad(pulled(lambda r, ct: ct))(1.0), "must return a tuple"),
        (lambda: graphjit.grad(pulled(lambda r, ct: (ct, ct)))(1.0), "each of 1 arguments, not 2 values"),
        (lambda: graphjit.grad(pulled(lambda r, ct: (ct,), lambda x: x))(1.0), "a pair"),
        (lambda: graphjit.grad(pulled(lambda r, ct: ([ct],)))(1.0), "cotangent of argument 0"),
    ],
)
def test_what_a_rule_may_not_do(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(DerivativeError, match=message):
        call()


def test_misuse_is_told_at_once() -> None:
    with pytest.raises(TypeError, match="custom_jvp takes a function"):
        graphjit.custom_jvp(3)
    with pytest.raises(TypeError, match="defvjp takes a function"):
        graphjit.custom_vjp(np.sin).defvjp(np.sin, None)
    keyword = graphjit.custom_jvp(lambda x, *, k: x * k)
    keyword.defjvp(lambda p, t: (p[0], t[0]))
    with pytest.raises(TypeError, match="only be passed by keyword"):
        graphjit.jit(lambda x: keyword(x, k=2.0))(1.0)
