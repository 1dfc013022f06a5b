"""What people tried in their first hour and got wrong numbers from: the right number or an error now."""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np
import pytest

import graphjit
from graphjit import grad, jit, jvp, vjp

X = np.array([0.5, -1.2, 2.0])
ONE = np.ones(3)
INDEX = np.array([2, 1])

CAPTURING = {
    "an item": lambda a: vjp(lambda b: b * a[0], a)[1](ONE)[0],
    "the argument": lambda a: jvp(lambda b: b * a, (a,), (ONE,))[1],
    "a default": lambda a: jvp(lambda b, k=a: b * k, (a,), (ONE,))[1],
    "a sum": lambda a: (lambda c: vjp(lambda b: b * c, a)[1](ONE)[0])(np.sum(a)),
    "a frozen target": lambda a: (lambda c: jvp(lambda v: np.sum((v - c) ** 2), (a,), (ONE,))[1])(np.tanh(a)),
    "one array twice": lambda a: vjp(lambda b, c: b * c, a, a)[1](ONE)[0],
    "a dict": lambda a: (lambda p: vjp(lambda b: b * p["w"], a)[1](ONE)[0])({"w": a}),
    "grad": lambda a: grad(lambda b: np.sum(b * a))(a),
}


@pytest.mark.parametrize("name", CAPTURING)
def test_derivatives_inside_jit_hold_what_was_captured(name: str) -> None:
    function = CAPTURING[name]
    np.testing.assert_allclose(jit(function)(X), function(X), rtol=1e-14)
    with graphjit.disable_jit():
        np.testing.assert_allclose(jit(function)(X), function(X), rtol=1e-14)


def test_derivatives_inside_grad_go_through_what_was_captured() -> None:
    found = grad(lambda a: np.sum(jvp(lambda b: b * a, (a,), (ONE,))[1]))(X)
    np.testing.assert_array_equal(found, ONE)


SIZES = {
    "zeros": lambda n: np.zeros(n),
    "full": lambda n: np.full(n, 2.0),
    "broadcast_to": lambda n: np.broadcast_to(3.0, n),
    "ndarray": lambda n: np.ndarray(n) * 0,
    "stack": lambda n: np.stack([ONE] * n),
    "tuple": lambda n: np.array((1.0,) * n),
    "reflected": lambda n: np.array(n * [1.0]),
    "text": lambda n: len("ab" * n) * ONE,
    "eye": lambda n: np.eye(n),
    "diag": lambda n: np.diag(ONE, n),
    "list": lambda n: np.array(list(n)),
}


@pytest.mark.parametrize("name", SIZES)
def test_numpy_integers_as_sizes(name: str) -> None:
    """Of an argument the size is not known; of a captured array it is, and it is guarded."""
    function = SIZES[name]
    with pytest.raises((graphjit.TraceError, TypeError)):
        jit(lambda n: function(n))(np.int64(3))
    captured = np.array([2, 1])
    compiled = jit(lambda x: function(captured[0]) + x)
    if name == "list":
        with pytest.raises(TypeError):
            compiled(1.0)
        return
    for size in (2, 3):
        captured[0] = size
        np.testing.assert_array_equal(compiled(1.0), function(np.int64(size)) + 1.0)


def test_static_values_are_told_apart_by_type() -> None:
    times = jit(lambda a, n: a * n, static_argnums=1)
    assert [times(np.arange(3), n).dtype for n in (2, 2.0, True, 2)] == [
        np.int64,
        np.float64,
        np.int64,
        np.int64,
    ]
    over = jit(lambda a, n: a / n[0], static_argnames="n")
    assert [over(1.0, n=n) for n in ((0.0,), (-0.0,), (0.0,))] == [math.inf, -math.inf, math.inf]
    first = jit(lambda d: next(d[k] * k for k in d))
    assert [first({k: np.arange(3)}).dtype for k in (1, 1.0, True)] == [np.int64, np.float64, np.int64]

    @dataclasses.dataclass
    class Model:
        w: np.ndarray
        n: object = dataclasses.field(metadata={"static": True})

    scaled = jit(lambda m: m.w * m.n)
    assert [scaled(Model(np.arange(3), n)).dtype for n in (2, 2.0, 2)] == [np.int64, np.float64, np.int64]


def test_numbers_that_leave_numpy_have_no_silent_zero_gradient() -> None:
    with graphjit.disable_jit():
        for function in (
            lambda v: math.sin(v[0]),
            lambda v: v[0] * float(v[1]),
            lambda v: v[0] * v[1].item(),
            lambda v: v[0] * v.tolist()[1],
        ):
            with pytest.raises(graphjit.DerivativeError, match="takes a number out"):
                grad(function)(X)
            with pytest.raises(graphjit.DerivativeError, match="takes a number out"):
                jvp(function, (X,), (X,))
        assert grad(lambda v: v[0] * int(v[2]) if v[0] > 0 else v[1])(X).tolist() == [2, 0, 0]
        assert jit(lambda v: v * float(v[0]))(X).tolist() == (X * 0.5).tolist()


@dataclasses.dataclass
class Pair:
    a: object
    b: object


def _item(p: dict) -> None:
    p["w"] = p["w"] - 1


def _number(p: dict) -> None:
    p["n"] += 1


def _field(p: Pair) -> None:
    p.a = p.a + p.b


def _append(items: list) -> object:
    items.append(items[0])
    return items[0]


def _pop(p: dict) -> object:
    return p.pop("w")


def _renamed(p: dict) -> object:
    p["v"] = p.pop("w")
    return p["v"]


def _empty(p: dict) -> object:
    p["new"] = []
    return p["w"]


@pytest.mark.parametrize(
    ("function", "argument", "what"),
    [
        (_item, {"w": ONE, "n": 1}, r"assigns to p\['w'\]"),
        (_number, {"w": ONE, "n": 1}, r"assigns to p\['n'\]"),
        (_field, Pair(1.0, 2.0), r"assigns to p\.a"),
        (_append, [ONE], "adds or removes"),
        (_pop, {"w": ONE, "n": 1}, "adds or removes"),
        (_renamed, {"w": ONE, "n": 1}, "adds or removes"),
        (_empty, {"w": ONE}, "adds or removes"),
    ],
)
def test_containers_of_the_caller_are_not_silently_left_alone(function, argument, what) -> None:
    with pytest.raises(graphjit.TraceError, match=what):
        jit(function)(argument)


def test_arrays_in_containers_are_changed_in_place() -> None:
    def step(p: dict) -> None:
        p["w"] -= 1
        p["v"][...] = 0

    params = {"w": np.ones(2), "v": np.ones(1)}
    jit(step)(params)
    assert [params["w"].tolist(), params["v"].tolist()] == [[0, 0], [0]]


def test_powers_of_bools_have_numpys_dtypes() -> None:
    for value in (np.bool_(True), np.array([True]), np.array(True)):
        for power in (
            lambda v: v**2,
            lambda v: v**3,
            lambda v: v**2.0,
            lambda v: np.power(v, 2),
            lambda v: v ** np.int8(2),
        ):
            assert jit(power)(value).dtype == power(value).dtype


def test_numbers_are_not_iterable() -> None:
    for value in (np.int64(2), np.float64(2.0), 2.0, np.array(2.0), np.ones(2)):
        assert bool(jit(lambda v: np.float64(np.iterable(v)))(value)) == np.iterable(value)


class Computing:
    """A class that is taken apart into something new each time."""

    def __init__(self, a: object) -> None:
        self.a = a


graphjit.register_pytree_node(
    Computing, lambda held: ([held.a * 1.0], None), lambda _, children: Computing(children[0])
)


def test_containers_that_only_look_changed_are_taken() -> None:
    assert jit(lambda held: held.a * 2)(Computing(np.ones(2))).tolist() == [2, 2]
    assert jit(lambda d: d["a"] + sum(d["absent"]))(
        collections.defaultdict(list, {"a": np.ones(2)})
    ).tolist() == [1, 1]
    assert jit(lambda p: p.__setitem__("w", p["w"]) or p["w"] * 2)({"w": np.ones(2)}).tolist() == [2, 2]
    assert jit(lambda *a, **k: k.pop("s") + a[0])(1.0, s=2.0) == 3.0


def test_what_a_review_found_in_static_values() -> None:
    over = jit(lambda x, k: x / k, static_argnums=1)
    assert [over(1.0, np.float64(k)) for k in (0.0, -0.0)] == [math.inf, -math.inf]
    stop = jit(lambda x, r: x * r.stop, static_argnums=1)
    assert [stop(1, range(0, 3, 2)), stop(1, range(0, 4, 2))] == [3, 4]
    silent = jit(lambda x, k: x * k, static_argnums=1)
    assert [silent(1.0, Silent(k)) for k in (2.0, 3.0)] == [2, 3]
    scaled = jit(lambda held: held.a * held.k)
    assert [scaled(Scaled(np.arange(3), k)).dtype for k in (2, 2.0, 2)] == [np.int64, np.float64, np.int64]


class Silent(float):
    """A number whose text says nothing."""

    def __repr__(self) -> str:
        return "a number"


class Scaled:
    def __init__(self, a: object, k: object) -> None:
        self.a, self.k = a, k


graphjit.register_pytree_node(
    Scaled, lambda held: ([held.a], held.k), lambda k, children: Scaled(children[0], k)
)


def test_containers_changed_by_a_nested_compiled_function_are_refused() -> None:
    inner = jit(lambda p: p.__setitem__("w", p["w"] * 2))

    def outer(x: np.ndarray) -> np.ndarray:
        held = {"w": x * 1.0}
        inner(held)
        return held["w"]

    with pytest.raises(graphjit.TraceError, match="assigns to"):
        jit(outer)(X)
