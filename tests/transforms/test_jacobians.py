"""`jacfwd`, `jacrev`, `jacobian`, `hessian`, `hvp`, `linearize`: against differences and each other, in all
containers; what small Jacobians are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import DerivativeError, pipeline

RNG = np.random.default_rng(12)


def project(p: Any) -> Any:
    """A point in space on the screen of a camera, with distortion."""
    u, v = p[0] / p[2], p[1] / p[2]
    r = u * u + v * v
    return np.array([u, v]) * (1 + 0.1 * r + 0.01 * r * r)


def rosenbrock(x: Any) -> Any:
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "project": (project, RNG.uniform(1, 2, 3)),
    "number to array": (lambda x: x * np.arange(1.0, 5.0), np.array(1.5)),
    "elementwise": (lambda x: np.sin(x) * x, RNG.normal(size=(3, 4))),
    "wide": (lambda x: np.tanh(x)[::2] * np.sum(x), RNG.normal(size=50)),
    "matrix": (lambda x: np.outer(x, x) @ x, RNG.normal(size=4)),
    "reduced": (lambda x: np.max(x, axis=1) + np.prod(x, axis=1), RNG.normal(size=(3, 4))),
    "rows": (lambda x: np.exp(x - x.max(1, keepdims=True)) / np.exp(x).sum(), RNG.normal(size=(7, 11))),
    "written": (lambda x: _accumulated(x), RNG.normal(size=6)),
    "constant part": (lambda x: np.array([x[0], 2.0, 3.0]), RNG.normal(size=2)),
    "rosenbrock": (rosenbrock, RNG.normal(size=40)),
}


def _accumulated(x: Any) -> Any:
    out = np.zeros(4)
    np.add.at(out, np.array([0, 1, 1, 3, 3, 3]), x**2)
    return out


def differences(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    """Five-point differences (Abramowitz & Stegun 25.3.6) along each element."""
    h, columns = 1e-3, []
    for i in range(x.size):
        step = np.zeros(x.size)
        step[i] = h
        step = step.reshape(x.shape)
        far = np.asarray(function(x + 2 * step)) - function(x - 2 * step)
        near = np.asarray(function(x + step)) - function(x - step)
        columns.append((8 * near - far) / (12 * h))
    return np.stack(columns, -1).reshape((*columns[0].shape, *x.shape))


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_modes_and_differences_agree(name: str) -> None:
    function, x = FUNCTIONS[name]
    want = differences(function, x)
    for make in (graphjit.jacfwd, graphjit.jacrev, graphjit.jacobian):
        got = make(function)(x)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-8, err_msg=make.__name__)
        for chunk in (1, 3, 1000):
            part = make(function, chunk_size=chunk)(x)
            np.testing.assert_allclose(part, got, rtol=1e-12, atol=1e-13, err_msg=make.__name__)


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_hessians(name: str) -> None:
    function, x = FUNCTIONS[name]

    def number(x: Any) -> Any:
        return np.sum(np.arctan(0.01 * function(x)))

    want = differences(graphjit.grad(number), x)
    got = graphjit.hessian(number)(x)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
    v = RNG.normal(size=x.shape)
    (product,) = graphjit.hvp(number, (x,), (v,))
    np.testing.assert_allclose(product, np.tensordot(want, v, v.ndim), rtol=1e-6, atol=1e-6)
    third = graphjit.jacfwd(graphjit.hessian(number))(x)
    assert third.shape == x.shape * 3
    np.testing.assert_allclose(third, graphjit.jacrev(graphjit.hessian(number))(x), rtol=1e-9, atol=1e-9)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_batches_of_jacobians(name: str) -> None:
    function, x = FUNCTIONS[name]
    rows = np.stack([np.roll(x, i) for i in range(3)])
    for make in (graphjit.jacfwd, graphjit.jacrev):
        got = graphjit.vmap(make(function))(rows)
        np.testing.assert_allclose(
            got, np.stack([make(function)(row) for row in rows]), rtol=1e-12, atol=1e-13
        )


def test_containers() -> None:
    def function(p: Any, x: Any, *, scale: float) -> Any:
        return {"y": scale * (p["w"] @ x + p["b"]), "n": np.sum(x)}

    p = {"w": RNG.normal(size=(2, 3)), "b": RNG.normal(size=2)}
    x = RNG.normal(size=3)
    forward = graphjit.jacfwd(function)(p, x, scale=2.0)
    assert forward["y"]["w"].shape == (2, 2, 3)
    assert forward["y"]["b"].shape == (2, 2)
    assert forward["n"]["w"].shape == (2, 3)
    np.testing.assert_array_equal(forward["n"]["w"], 0)
    np.testing.assert_allclose(forward["y"]["b"], 2 * np.eye(2))
    both = graphjit.jacrev(function, argnums=(0, 1))(p, x, scale=2.0)
    assert isinstance(both["y"], tuple)
    np.testing.assert_allclose(both["y"][1], 2 * p["w"])
    np.testing.assert_allclose(both["y"][0]["w"], forward["y"]["w"])
    np.testing.assert_allclose(graphjit.jacfwd(function, argnums=-1)(p, x, scale=2.0)["n"], np.ones(3))


def test_auxiliary_results() -> None:
    jac, aux = graphjit.jacfwd(lambda x: (x**2, {"sum": x.sum(), "name": "squares"}), has_aux=True)(
        np.ones(2)
    )
    np.testing.assert_allclose(jac, 2 * np.eye(2))
    assert aux == {"sum": 2.0, "name": "squares"}
    hess, aux = graphjit.hessian(lambda x: (np.sum(x**3), x[0]), has_aux=True)(np.array([2.0, 3.0]))
    np.testing.assert_allclose(hess, np.diag([12.0, 18.0]))
    assert aux == 2.0
    out, push, aux = graphjit.linearize(lambda x: (x**2, "kept"), 3.0, has_aux=True)
    assert (out, push(1.0), aux) == (9.0, 6.0, "kept")


def test_zeros_of_a_jacobian_are_zeros_where_derivatives_are_infinite() -> None:
    for size in (2, 60):
        x = np.linspace(0.0, 1.0, size)
        for make in (graphjit.jacfwd, graphjit.jacrev):
            got = make(np.sqrt)(x)
            assert got[0, 0] == np.inf
            np.testing.assert_array_equal(got[~np.eye(size, dtype=bool)], 0)


def test_linearize_computes_what_does_not_depend_on_the_tangent_once() -> None:
    x = RNG.normal(size=5)
    out, push = graphjit.linearize(lambda x: np.tanh(np.exp(x)), x)
    np.testing.assert_allclose(out, np.tanh(np.exp(x)), rtol=1e-15)
    for _ in range(2):
        v = RNG.normal(size=5)
        np.testing.assert_allclose(push(v), graphjit.jvp(lambda x: np.tanh(np.exp(x)), (x,), (v,))[1])
    second = push.args[0]
    assert not {"exp", "tanh"} & {node.op.name for node in second.graph.nodes()}
    traced = graphjit.jit(lambda x, v: graphjit.linearize(np.sin, x)[1](v))(x, v)
    np.testing.assert_allclose(traced, np.cos(x) * v)
    inside = graphjit.grad(lambda v: np.sum(push(v) ** 2))(v)
    np.testing.assert_allclose(inside, 2 * push(push(v)), rtol=1e-12)


def test_the_mode_is_chosen_by_sizes(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("graphjit.config.log_topics", frozenset({"jacobian"}))
    graphjit.jacobian(lambda x: np.outer(x, x))(np.ones(3))
    graphjit.jacobian(lambda x: np.array([x.sum(), x.prod()]))(np.ones(9))
    forward, reverse = capsys.readouterr().err.splitlines()
    assert "forward mode, 3 numbers go in and 9 come out" in forward
    assert "reverse mode, 9 numbers go in and 2 come out" in reverse


def test_a_small_jacobian_is_straight_line_code_without_zero_columns() -> None:
    """Of a camera: no selection, no constant direction, and of the columns of u only those of x and z."""
    graph = (
        graphjit.jit(graphjit.jacfwd(lambda p: np.array([p[0] / p[2], p[1] / p[2]])))
        .dispatcher.staged(np.ones(3))
        .graph
    )
    ops = [node.op.name for node in graph.nodes()]
    assert "select" not in ops
    assert ops.count("div") == 4 + 1  # u, v, u/z, v/z and 1/z, which both columns of numerators share
    constants = [node for node in graph.nodes() if node.op.name == "const"]
    assert all(node.type.size == 1 for node in constants)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: graphjit.jacfwd(np.sin)(1), "Python int"),
        (lambda: graphjit.jacrev(np.sin)(np.arange(3)), "int64"),
        (lambda: graphjit.jacfwd(lambda x: "text")(1.0), "returned 'text'"),
        (lambda: graphjit.jacfwd(np.sin, argnums=1)(1.0), "argnums=1"),
        (lambda: graphjit.hvp(np.sin, (1.0,), (np.ones(2),)), "tangent"),
        (lambda: graphjit.hvp(np.sin, 1.0, 1.0), "tuples or lists"),
        (lambda: graphjit.hvp(np.sin, (np.ones(2),), (np.ones(2),)), "one floating-point number"),
        (lambda: graphjit.linearize(np.sin, 1.0)[1](np.ones(3)), r"tangent of shape \(3,\)"),
        (lambda: graphjit.linearize(np.sin, 1.0)[1](1.0, 2.0), "structure"),
        (lambda: graphjit.jacfwd(lambda x: (x, x, x), has_aux=True)(1.0), "pair"),
        (lambda: graphjit.vjp(lambda x: (x, x, x), 1.0, has_aux=True), "pair"),
        (lambda: graphjit.linearize(lambda x: x, 1.0, has_aux=True), "pair"),
    ],
)
def test_what_means_nothing_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(DerivativeError, match=message):
        call()
    with pytest.raises(ValueError, match="chunk_size"):
        graphjit.jacfwd(np.sin, chunk_size=0)


def test_directions_are_computed_in_parts_where_memory_would_explode(monkeypatch: Any) -> None:
    """Each part has the temporary values of its own directions only, and the Jacobian is the same."""
    w = RNG.normal(size=(40, 40))

    def function(x: Any) -> Any:
        return np.sum(np.exp(w * x) @ w, axis=0)

    def planned() -> tuple[int, Any]:
        graph = graphjit.jit(graphjit.jacfwd(function)).dispatcher.staged(np.ones(40)).graph
        return pipeline.compile_graph(graph).program.arena, graphjit.jacfwd(function)(np.ones(40) / 9)

    whole, want = planned()
    monkeypatch.setattr("graphjit.trace.transformed.jacobians.MOST_BYTES", whole // 4)
    part, got = planned()
    assert part < 0.7 * whole
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("make", [graphjit.jacfwd, graphjit.jacrev])
def test_many_parts_are_a_loop(make: Any) -> None:
    """Code does not grow with their number; what is left over is a part of its own."""
    rng = np.random.default_rng(3)
    w = rng.normal(size=(40, 40)) / 6

    def f(x: Any) -> Any:
        return {
            "y": np.tanh(w @ np.tanh(w @ x)) * x[0],
            "x": 2.0 * x,
            "one": np.sum(x * x),
            "fixed": np.ones(2),
        }

    x = rng.normal(size=40)
    wanted = make(f)(x)
    for chunk in (1, 3, 7, 10):
        found = make(f, chunk_size=chunk)(x)
        assert found.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12, atol=1e-14)
    few, many = (graphjit.make_graph(make(f, chunk_size=chunk))(x).nodes() for chunk in (8, 2))
    assert len(many) < 1.2 * len(few)
    inner = graphjit.jit(lambda x: make(lambda x: make(f, chunk_size=3)(x)["one"], chunk_size=3)(x))
    np.testing.assert_allclose(inner(x), 2 * np.eye(40))
