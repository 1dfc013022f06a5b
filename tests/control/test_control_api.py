"""`scan`, `fori_loop`, `while_loop`, `cond`, `switch`, `map`, `associative_scan`: traced, they compute what
Python's loops and conditions compute, values and dtypes.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
from control_harness import graph_of, nodes_named, run

import graphjit
from graphjit.ir.node import with_bodies
from graphjit.trace.pytree import flatten

pytestmark = pytest.mark.usefixtures("both_ways")

X = np.arange(1.0, 7.0).reshape(3, 2)
Pair = namedtuple("Pair", "a b")


@dataclasses.dataclass
class State:
    position: Any
    steps: Any


def same(f: Any, *args: Any) -> Any:
    """The traced result of ``f``, which has to be that of Python."""
    expected, found = f(*args), run(f, *args)
    (a, spec), (b, other) = flatten(expected), flatten(found)
    assert spec == other
    for one, two in zip(a, b, strict=True):
        if one is None:
            assert two is None
            continue
        assert np.asarray(one).dtype == np.asarray(two).dtype
        np.testing.assert_allclose(one, two, rtol=1e-14)  # elementary functions differ in the last place
    return found


# ------------------------------------------------------------------------------------------------- scan


def test_carries_and_stacked_results():
    def step(carry, x):
        carry = np.tanh(carry + x)
        return carry, (carry[0], {"all": carry, "none": None})

    same(lambda x: graphjit.scan(step, np.zeros(2), x), X)
    same(lambda x: graphjit.scan(step, np.zeros(2), x, reverse=True), X)


@pytest.mark.parametrize("unroll", [2, 3, 5, 7, 100, True, False])
@pytest.mark.parametrize("reverse", [False, True])
def test_unrolling_changes_nothing(unroll, reverse):
    x = np.arange(7.0)

    def f(w, x):
        def step(carry, each):
            carry = np.sin(w * carry) + each[0] * each[1]
            return carry, (carry, each[0])

        return graphjit.scan(step, 0.0, (x, x * 2.0), reverse=reverse, unroll=unroll)

    same(f, 0.5, x)
    steps = 7 if unroll is True else max(unroll, 1)
    loops = nodes_named(graph_of(f, 0.5, x), "scan")
    assert [node.attrs["length"] for node in loops] == ([7 // steps] if steps < 7 else [])


def test_a_number_of_steps_without_arrays():
    same(lambda x: graphjit.scan(lambda c, none: (c * x, c if none is None else 0.0), x, length=4), 2.0)


def test_containers():
    def step(state, x):
        return State(state.position + x.a * x.b[0], state.steps + 1), Pair(state.position, [state.steps])

    def f(x):
        return graphjit.scan(step, State(0.0, 0), Pair(x[:, 0], [x[:, 1]]))

    same(f, X)


def test_elements_are_numpys():
    """Of a vector the body gets NumPy's scalars, of a matrix rows."""
    seen = []

    def step(carry, x):
        seen.append((np.isscalar(x[0]), isinstance(x[1], np.ndarray), x[1].shape))
        return carry, None

    same(lambda x: graphjit.scan(step, 0.0, (x[:, 0], x))[0], X)
    assert set(seen) == {(True, True, (2,))}


def test_no_steps():
    def f(x):
        return graphjit.scan(lambda c, x: (c + x[0], (x, c > 1.0)), 0, x[:0])

    last, (rows, flags) = same(f, X)
    assert (last, rows.shape, flags.shape, flags.dtype) == (0.0, (0, 2), (0,), bool)
    assert isinstance(last, np.float64)
    with graphjit.disable_jit():
        assert graphjit.grad(lambda x: f(x)[0] + np.sum(x))(X).tolist() == np.ones((3, 2)).tolist()


def test_a_body_may_use_other_loops():
    def f(a):
        def outer(carry, row):
            inner = graphjit.scan(lambda c, x: (c + x * carry, c), 0.0, row)[1]
            return carry + graphjit.fori_loop(0, 2, lambda i, v: v + inner[i], 0.0), inner

        return graphjit.scan(outer, 1.0, a)

    same(f, X)


# --------------------------------------------------------------------------------------- weak numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_python_numbers_take_the_dtype_of_the_body(dtype):
    x = np.arange(4).astype(dtype)
    last = run(lambda x: graphjit.scan(lambda c, x: (c + x, None), 0, x)[0], x)
    assert (last, last.dtype) == (6, dtype)


def test_promotion_goes_on_until_it_is_stable():
    def f(x):
        return graphjit.scan(lambda c, x: ((c[1], c[2], c[2] + x), None), (0, 0, 0), x)[0]

    found = run(f, np.arange(4.0))
    assert [(x, x.dtype) for x in found] == [(1.0, np.float64), (3.0, np.float64), (6.0, np.float64)]


def test_numbers_of_a_body_take_the_dtype_of_the_carry():
    def f(x):
        return graphjit.scan(lambda c, x: (0.5, c), x[0], x)

    last, all_of_them = run(f, np.arange(1, 4).astype(np.float32))
    assert last.dtype == all_of_them.dtype == np.float32
    assert all_of_them.tolist() == [1.0, 0.5, 0.5]


def test_a_python_number_stays_weak_behind_the_loop():
    same(lambda x: x * graphjit.fori_loop(0, 3, lambda i, n: n + 1, 0), np.ones(2, np.float32))
    same(lambda x: graphjit.fori_loop(0, 3, lambda i, v: v + i * x, x), np.float32(2.0))


def test_bools():
    def f(x):
        return graphjit.while_loop(lambda s: s[1], lambda s: (s[0] * 2.0, s[0] < 10.0), (x, True))

    same(f, 1.0)


# --------------------------------------------------------------------------------- fori_loop, while_loop


def test_fixed_bounds_make_a_scan_and_others_a_while():
    def total(lower, upper, x):
        return graphjit.fori_loop(lower, upper, lambda i, v: v + i * x[i], 0.0)

    x = np.arange(5.0)
    fixed = lambda x: total(1, np.int32(4), x)
    same(fixed, x)
    assert not nodes_named(graph_of(fixed, x), "while")
    for n in (0, 1, 4):
        same(lambda n, x: total(1, n, x), n, x)
    assert not nodes_named(graph_of(lambda n, x: total(1, n, x), 3, x), "scan")


@pytest.mark.parametrize("unroll", [1, 2, 3, True])
def test_unrolled_counting(unroll):
    same(lambda x: graphjit.fori_loop(2, 7, lambda i, v: v * x + i, 1.0, unroll=unroll), 0.5)
    with pytest.raises(ValueError, match="unroll needs bounds that are known"):
        run(lambda n: graphjit.fori_loop(0, n, lambda i, v: v, 1.0, unroll=unroll), 3)


def test_bounds_the_wrong_way_round():
    same(lambda x: graphjit.fori_loop(3, 1, lambda i, v: v + x, x), 1.5)
    same(lambda x, n: graphjit.fori_loop(3, n, lambda i, v: v + x, x), 1.5, 1)


def test_while_loop():
    def root(a):
        return graphjit.while_loop(
            lambda s: np.abs(s["x"] ** 2 - a) > 1e-10 * a,
            lambda s: {"x": 0.5 * (s["x"] + a / s["x"]), "n": s["n"] + 1},
            {"x": a, "n": 0},
        )

    for a in (1.0, 2.0, 1e6):
        same(root, a)


# ---------------------------------------------------------------------------------------- cond, switch


@pytest.mark.parametrize("pred", [True, False, 0, 2, 0.0, -1.5])
def test_cond(pred):
    def f(p, x):
        return graphjit.cond(p, lambda x: (x * 2.0, {"n": 1}), lambda x: (x - 1.0, {"n": 2}), x)

    same(lambda x: f(pred, x), X)  # known
    same(f, np.array(pred), X)
    same(f, pred, X)


def test_a_known_condition_leaves_one_branch():
    graph = graph_of(lambda x: graphjit.cond(True, lambda: x + 1.0, lambda: x // 0), X)
    assert not {"cond", "floor_divide"} & {node.op.name for node in with_bodies(graph)}


@pytest.mark.parametrize("index", [-5, 0, 1, 2, 9])
@pytest.mark.parametrize("dtype", [None, np.int8, np.uint64])
def test_switch(index, dtype):
    branches = [np.sin, lambda x: x * 2.0, np.square]
    given = index if dtype is None else np.array(index).astype(dtype)[()]
    same(lambda i, x: graphjit.switch(i, branches, x), given, X)
    same(lambda x: graphjit.switch(given, branches, x), X)


def test_numbers_of_branches_take_the_dtype_of_others():
    x = np.ones(3, np.float32)[0]
    found = run(lambda p, x: graphjit.cond(p, lambda: 0, lambda: x), np.bool_(True), x)
    assert found.dtype == np.float32
    assert run(lambda p: graphjit.cond(p, lambda: 1, lambda: 0.5), np.bool_(True)).dtype == np.float64


def test_what_may_fail_stays_in_its_branch():
    def f(p, a, b, x):
        once = graphjit.cond(p, lambda: a // b, lambda: 0)
        again = graphjit.cond(p, lambda: a // b + x[a], lambda: 1.0)  # an equal node is one of its own
        return once, again

    assert run(f, np.bool_(False), 7, 0, X[0]) == (0, 1.0)
    assert run(f, np.bool_(True), 1, 2, X[0]) == (0, X[0, 1])
    with pytest.raises(ZeroDivisionError):
        run(f, np.bool_(True), 7, 0, X[0])
    assert not [
        node
        for node in graph_of(f, np.bool_(True), 7, 0, X[0]).nodes()
        if node.op.name in ("floor_divide", "gather")
    ]


def test_what_is_computed_before_a_branch_is_read_there():
    def f(p, a, b):
        outside = a // b
        return graphjit.cond(p, lambda: outside, lambda: a // b), outside

    graph = graph_of(f, np.bool_(True), 7, 2)
    assert [node.op.name for node in graph.nodes()].count("floor_divide") == 1
    assert len(nodes_named(graph, "floor_divide")) == 1


def test_everything_recorded_in_a_branch_stays_there():
    def f(p, x):
        return graphjit.cond(p, lambda: np.sum(np.exp(x)), lambda: np.sum(np.exp(x) * 2.0))

    graph = graph_of(f, np.bool_(True), X)
    assert "exp" not in {node.op.name for node in graph.nodes()}
    assert len(nodes_named(graph, "exp")) == 2


# --------------------------------------------------------------------------- what bodies read from outside


def test_what_does_not_change_is_computed_once():
    table = np.arange(4.0)

    def f(w, x):
        return graphjit.scan(lambda c, x: (c * np.exp(w) + np.sum(table) + x, None), 0.0, x)[0]

    same(f, 0.5, np.arange(3.0))
    graph = graph_of(f, 0.5, np.arange(3.0))
    (loop,) = nodes_named(graph, "scan")
    assert [node.op.name for node in loop.args] == ["exp", "sum", "const", "input"]


def test_what_may_fail_stays_in_a_loop_that_may_not_run():
    def f(n, a, b, x):
        def body(i, v):
            return v + a // b + np.exp(x)

        return graphjit.fori_loop(0, n, body, 0.0)

    assert run(f, 0, 1, 0, 2.0) == 0.0
    graph = graph_of(f, 0, 1, 0, 2.0)
    assert {"exp"} == {node.op.name for node in graph.nodes()} & {"exp", "floor_divide"}
    with pytest.raises(ZeroDivisionError):
        run(f, 1, 1, 0, 2.0)

    def twice(n, a, b):
        loop = lambda: graphjit.fori_loop(0, n, lambda i, v: v + a // b, 0)
        return loop() + loop()

    assert run(twice, 0, 1, 0) == 0


def test_an_inner_loop_that_may_never_end_stays_inside():
    def f(n, x):
        def body(i, v):
            return v + graphjit.while_loop(lambda c: c > 0.0, lambda c: c + x, 1.0)

        return graphjit.fori_loop(0, n, body, 0.0)

    assert run(f, 0, 1.0) == 0.0
    assert [node.op.name for node in graph_of(f, 0, 1.0).nodes()].count("while") == 1


def test_views_see_the_values_of_the_moment():
    def f(x):
        y = x * 2.0
        view = y[1:]
        y[1] = 10.0
        inside = graphjit.fori_loop(0, 3, lambda i, v: v + np.sum(view), 0.0)
        y[2] = 20.0
        return inside, graphjit.cond(x[0] > 0.0, lambda: view + 1.0, lambda: view)

    same(f, np.arange(1.0, 4.0))


def test_arrays_of_the_body_are_written():
    def f(x):
        def step(carry, row):
            new = np.zeros(2)
            new[0] = row[0]
            new[1:] += carry[0]
            known = np.arange(3.0)
            known[1] = 7.0
            copy = carry.copy()
            copy *= known[1]
            return new + copy, new

        return graphjit.scan(step, np.ones(2), x)

    same(f, X)


def test_captured_arrays_and_names_are_guarded():
    table = np.arange(3.0)
    factor = 2.0

    def step(carry, x):
        return carry + factor * table[0] + x, None

    def f(x):
        return graphjit.scan(step, 0.0, x)[0]

    staged = graphjit.jit(f).dispatcher.staged(X[0])
    assert [array is table for array in staged.captured] == [True]
    assert staged.holds()
    factor = 3.0
    assert "held 2.0 was changed" in staged.changed()


# ------------------------------------------------------------------------------------- map, associative_scan


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 5, 9])
def test_map(batch_size):
    x = np.arange(10.0).reshape(5, 2)

    def f(w, x):
        return graphjit.map(
            lambda e: {"a": np.sum(e["x"] * w), "b": [e["x"]]}, {"x": x}, batch_size=batch_size
        )

    same(f, 3.0, x)
    same(lambda x: graphjit.map(np.sum, x, batch_size=batch_size), x[:0])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan(count, reverse):
    rng = np.random.default_rng(count)
    a, b = rng.normal(size=(count, 3)), rng.normal(size=(count, 3))

    def both(one, other):
        return {"a": one["a"] * other["a"], "b": one["b"] * other["a"] + other["b"]}

    def f(a, b):
        return graphjit.associative_scan(both, {"a": a, "b": b}, reverse=reverse)

    order = range(count)[::-1] if reverse else range(count)
    expected, state = np.zeros((count, 3)), np.zeros(3)
    for i in order:
        expected[i] = state = a[i] * state + b[i]
    found = same(f, a, b)
    np.testing.assert_allclose(found["b"], expected, rtol=1e-12, atol=1e-12)
    turned = same(lambda a: graphjit.associative_scan(np.add, a, reverse, -1), a.T)
    np.testing.assert_allclose(turned, np.cumsum(a[order], axis=0)[order].T)


# -------------------------------------------------------------------------------------- without compiling


def test_without_compiling_bodies_see_numbers():
    seen = []

    def f(x):
        def step(carry, each):
            seen.append(str(each))
            return (carry * each if each > 1.5 else carry), carry

        return graphjit.scan(step, 1.0, x)[0] + graphjit.while_loop(
            lambda v: v < 5.0, lambda v: v * 2.0, x[0]
        )

    with graphjit.disable_jit():
        slope = graphjit.grad(f)(np.array([1.0, 2.0, 3.0]))
    assert seen == ["1.0", "2.0", "3.0"]
    assert slope.tolist() == [8.0, 3.0, 2.0]


def test_a_loop_of_many_steps_needs_no_array_of_their_numbers() -> None:
    many = 10**12
    stops = lambda i, x: graphjit.cond(i < 5, lambda: x + 1.0, lambda: x)
    f = graphjit.jit(lambda x: graphjit.fori_loop(many, many + 3 * (x < 0), stops, x))
    assert f(1.0) == 1.0
    graph = graphjit.make_graph(lambda x: graphjit.fori_loop(0, many, stops, x))(1.0)
    assert all(node.type.size < 10 for node in graph.nodes() if not node.is_bundle)
