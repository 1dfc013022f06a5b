"""Loops over batches whose elements never meet: each element takes all its steps in registers, in lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.interpret import interpret
from graphjit.loops.ir import For, LoopKernel, Repeat, walk
from graphjit.machine import machine
from graphjit.schedule.batches.axes import batches_of
from tests.harness.compiled_harness import compiled, run, same, traced
from tests.harness.control_harness import nodes_named
from tests.harness.threads_harness import same_bits

LANES = machine().vector_bytes // 8
RNG = np.random.default_rng(5)


def oscillator(y: Any, p: Any) -> Any:
    return np.stack([y[1], p[0] * y[0] - p[1] * np.sin(y[0]) * y[1]])


def runge_kutta(y: Any, p: Any) -> Any:
    k1 = oscillator(y, p)
    k2 = oscillator(y + 0.05 * k1, p)
    k3 = oscillator(y + 0.05 * k2, p)
    return y + (0.1 / 6) * (k1 + 2 * k2 + 2 * k3 + oscillator(y + 0.1 * k3, p))


def solved(y: Any, p: Any) -> Any:
    """The last state, all first numbers, and the times."""

    def step(carry: Any, x: Any) -> Any:
        t, y = carry
        return (t + 0.1, runge_kutta(y, p) + 0.01 * x), (y[0], t)

    (_, y), (path, times) = graphjit.scan(step, (0.0, y), np.linspace(0, 1, 20).astype(y.dtype))
    return y, path, times


def arguments(size: int, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    return rng.normal(size=(size, 2)).astype(dtype), rng.normal(size=(size, 2)).astype(dtype)


def loops_in_lanes(function: Callable[..., Any], *args: Any) -> list[For]:
    """The loops in lanes that take steps."""
    kernels: list[LoopKernel] = list(compiled(function, *args).kernels.values())
    loops = [s for kernel in kernels for s in walk(kernel.body) if isinstance(s, For) and s.kind == "simd"]
    return [loop for loop in loops if any(isinstance(s, Repeat) for s in walk(loop.body))]


def agrees(function: Callable[..., Any], *args: np.ndarray) -> None:
    """Compiled and interpreted results are the same."""
    graph = traced(function, *args)
    for found, wanted in zip(run(graph, list(args)), interpret(graph, *args), strict=True):
        same(found, wanted, function.__name__, 10.0)


def loss(y: Any, p: Any) -> Any:
    last, path, times = graphjit.vmap(solved)(y, p)
    return np.sum(last**2) + np.mean(path * times.astype(path.dtype))


@pytest.mark.sample(7)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", sorted({1, 3, LANES - 1, LANES, LANES + 1, 4 * LANES + 3, 67, 1000}))
def test_every_size_of_a_batch(size: int, dtype: Any) -> None:
    y, p = arguments(size, dtype)
    agrees(graphjit.vmap(solved), y, p)
    agrees(graphjit.value_and_grad(loss, argnums=(0, 1)), y, p)
    assert bool(loops_in_lanes(graphjit.vmap(solved), y, p)) == (size >= 4)


def test_an_element_is_what_it_is_alone() -> None:
    y, p = arguments(37)
    alone = graphjit.jit(solved)
    for i, found in enumerate(zip(*graphjit.jit(graphjit.vmap(solved))(y, p), strict=True)):
        for part, wanted in zip(found, alone(y[i], p[i]), strict=True):
            np.testing.assert_array_equal(part, wanted)


def test_the_bits_are_the_same_on_any_number_of_threads() -> None:
    y, p = arguments(3000)
    kernels = compiled(graphjit.value_and_grad(loss), y, p).kernels.values()
    assert any(
        s.kind == "parallel" and any(isinstance(t, Repeat) for t in walk(s.body))
        for kernel in kernels
        for s in kernel.body
        if isinstance(s, For)
    )
    same_bits(graphjit.jit(graphjit.value_and_grad(loss, argnums=(0, 1))), y, p)


def by_hand(u: Any, v: Any) -> Any:
    def step(carry: Any, _: Any) -> Any:
        u, v = carry
        return (u + 0.1 * v, v - 0.1 * np.sin(u)), None

    return graphjit.scan(step, (u, v), None, length=30)[0]


def nested(u: Any, v: Any) -> Any:
    def step(u: Any, x: Any) -> Any:
        inner = graphjit.fori_loop(0, 3, lambda i, w: 0.5 * (w + (1 + v * v) / w) + 0.1 * i, 1 + u * u)
        return 0.5 * u + inner, None

    return graphjit.scan(step, u, np.arange(5.0))[0]


def chosen(u: Any, v: Any) -> Any:
    def step(u: Any, x: Any) -> Any:
        u = graphjit.cond(x > 2.0, lambda u: np.cos(u) * v, lambda u: u - v, u)
        return u, np.where(u > 0, u, -v)

    return graphjit.scan(step, u, np.arange(5.0))


def backwards(u: Any, v: Any) -> Any:
    return graphjit.scan(lambda u, x: (u * x + v, u), u, np.linspace(0, 1, 9), reverse=True)


def picking(u: Any, v: Any) -> Any:
    """Constants may be read anywhere."""
    return graphjit.fori_loop(0, 6, lambda i, u: u + v[np.clip(i + (u > 0), -3, 4)] + v[-1], u)


def until(u: Any, v: Any) -> Any:
    return graphjit.while_loop(lambda s: s[0] < 7, lambda s: (s[0] + 2, s[1] * v + s[0]), (0, u))[1]


def grid(u: Any, v: Any) -> Any:
    c = u[:, None] + 0.3 * v[None, :]
    return graphjit.fori_loop(0, 7, lambda i, z: z * z * 0.3 + c, 0 * c)


def rows(u: Any, v: Any) -> Any:
    """Two numbers for each element, along the other axis too."""
    start = np.stack([u, v])
    return graphjit.fori_loop(0, 7, lambda i, z: np.stack([z[1] * 0.5, z[0] + z.sum(axis=0)]), start)


def reshaped(u: Any, v: Any) -> Any:
    def step(z: Any, _: Any) -> Any:
        m = z.reshape(len(u), 2, 2)
        return (0.1 * (m @ m) + 0.5).reshape(len(u), 4).astype(z.dtype), None

    return graphjit.scan(step, np.stack([u, v, u * v, v], axis=1), None, length=6)[0]


def slices_made_in_a_step(u: Any, v: Any) -> Any:
    """Loops inside read arrays that the step makes: of numbers, of a stack, and of parts."""

    def step(z: Any, x: Any) -> Any:
        grown, path = graphjit.scan(lambda w, i: (w * 0.5 + i, w), z, np.arange(3.0) * x)
        parts = np.stack([grown, z, v])
        back, _ = graphjit.scan(lambda w, q: (w + np.sin(q), None), z, 2 * path[::-1] + x)
        more, _ = graphjit.scan(lambda w, q: (w + np.cos(q), None), back, parts)
        return more / 4, None

    return graphjit.scan(step, u, np.linspace(0, 1, 5))[0]


TOGETHER = [by_hand, nested, chosen, backwards, picking, until, grid, rows, reshaped]


@pytest.mark.sample(3)
@pytest.mark.parametrize("function", TOGETHER)
@pytest.mark.parametrize("size", [5, 40])
def test_bodies_that_run_in_lanes(function: Callable[..., Any], size: int) -> None:
    u, v = RNG.normal(size=size), RNG.normal(size=size)
    assert loops_in_lanes(function, u, v)
    agrees(function, u, v)

    def total(u: Any, v: Any) -> Any:
        made = function(u, v)
        return sum(np.sum(np.sin(x)) for x in (made if isinstance(made, tuple) else (made,)))

    agrees(graphjit.value_and_grad(total, argnums=(0, 1)), u, v)


def own_choices(u: Any, v: Any) -> Any:
    def one(u: Any, v: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            return graphjit.cond(
                u > 0, lambda u: np.linalg.solve(np.eye(2) * v, u + np.ones(2))[0], lambda u: -u + v, u
            ), None

        return graphjit.scan(step, u, None, length=4)[0]

    return graphjit.vmap(one)(u, v)


def mean_field(u: Any, v: Any) -> Any:
    return graphjit.fori_loop(0, 5, lambda i, u: u - 0.1 * np.mean(u) + v, u)


def neighbours(u: Any, v: Any) -> Any:
    return graphjit.fori_loop(0, 5, lambda i, u: u + 0.1 * np.roll(u, 1), u)


def turned(u: Any, v: Any) -> Any:
    return graphjit.fori_loop(0, 5, lambda i, u: u[::-1] * v, u)


def crossed(u: Any, v: Any) -> Any:
    """A square whose rows and columns change places."""
    return graphjit.fori_loop(0, 5, lambda i, z: z.T + 0.1 * v, u[:, None] * v)


def own_tests(u: Any, v: Any) -> Any:
    return graphjit.while_loop(lambda u: np.max(u) < 50, lambda u: 1.5 * u + 1, np.abs(u))


def wide(u: Any, v: Any) -> Any:
    w = np.cos(np.arange(40 * 40.0)).reshape(40, 40)
    return graphjit.fori_loop(0, 4, lambda i, h: np.tanh(h @ w + v[:, None]), np.outer(u, np.ones(40)))


@pytest.mark.parametrize("function", [own_choices, mean_field, neighbours, turned, crossed, own_tests, wide])
def test_bodies_whose_elements_meet(function: Callable[..., Any]) -> None:
    u, v = RNG.normal(size=40), 1 + RNG.random(size=40)
    assert not loops_in_lanes(function, u, v)
    agrees(function, u, v)


def test_what_is_the_same_for_all_elements_is_computed_before() -> None:
    y, p = arguments(24)
    (kernel,) = [k for k in compiled(graphjit.vmap(solved), y, p).kernels.values() if "scan" in k.comment]
    alone = [s for s in kernel.body if isinstance(s, Repeat)]
    assert len(alone) == 1
    assert len(alone[0].carried) == 1  # the time


def test_slices_that_a_step_makes() -> None:
    u, v = RNG.normal(size=21), RNG.normal(size=21)
    agrees(slices_made_in_a_step, u, v)
    agrees(graphjit.grad(lambda u, v: np.sum(slices_made_in_a_step(u, v) ** 2)), u, v)


def test_axes_of_a_grid() -> None:
    u, v = RNG.normal(size=5), RNG.normal(size=7)
    (loop,) = nodes_named(compiled(grid, u, v).optimized, "scan")
    assert [batch.extent for batch in batches_of(loop)] == [5, 7]


def test_errors_in_lanes() -> None:
    def divided(n: Any, d: Any) -> Any:
        return graphjit.scan(lambda n, _: (n // d, None), n, None, length=3)[0]

    f = graphjit.jit(divided)
    n, d = np.arange(100) + 1000, np.ones(100, np.int64)
    np.testing.assert_array_equal(f(n, d), n)
    d[57] = 0
    with pytest.raises(ZeroDivisionError, match="test_batches_of_loops"):
        f(n, d)


def final_loss(y: Any, p: Any) -> Any:
    return np.sum(graphjit.vmap(solved)(y, p)[0] ** 2)


def path_loss(y: Any, p: Any) -> Any:
    data = np.outer(p[:, 0], np.cos(np.arange(20)))
    return np.sum(np.abs(graphjit.vmap(solved)(y, p)[1] - data) ** 1.5)


def rare_loss(y: Any, p: Any) -> Any:
    """Every second step, the last one first."""
    return np.sum(graphjit.vmap(solved)(y, p)[1][:, ::-2] ** 3)


def common_loss(y: Any, p: Any) -> Any:
    """The elements meet between the way there and the way back."""
    last, path, _ = graphjit.vmap(solved)(y, p)
    return np.mean(last) ** 2 + np.max(np.sum(path, axis=0))


def long_loops(function: Callable[..., Any], *args: Any) -> int:
    """Loops at the top of a program."""
    return sum(node.op.name == "scan" for node in compiled(function, *args).optimized.nodes())


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("function", "joined"), [(final_loss, True), (path_loss, True), (rare_loss, False), (common_loss, False)]
)
def test_the_way_there_and_back_are_one_loop(function: Callable[..., Any], joined: bool) -> None:
    both = graphjit.value_and_grad(function, argnums=(0, 1))
    y, p = arguments(40)
    assert (long_loops(both, y, p) == 1) == joined
    agrees(both, y, p)


def test_what_the_way_there_stacks_takes_no_memory_of_the_whole_batch() -> None:
    both = graphjit.value_and_grad(final_loss, argnums=(0, 1))
    y, p = arguments(40)
    program = compiled(both, y, p).program
    assert program.arena < 20 * 40 * 8  # one number of each step and element


def test_a_path_that_is_wanted_too_is_written_where_it_belongs() -> None:
    def with_path(y: Any, p: Any) -> Any:
        last, path, times = graphjit.vmap(solved)(y, p)
        return np.sum(last**2) + np.sum(path**2), (path.T, times)

    both = graphjit.value_and_grad(with_path, argnums=(0, 1), has_aux=True)
    y, p = arguments(40)
    (_, (path, times)), _ = graphjit.jit(both)(y, p)
    wanted = graphjit.jit(graphjit.vmap(solved))(y, p)
    np.testing.assert_array_equal(path, wanted[1].T)
    np.testing.assert_array_equal(times, wanted[2])
    agrees(both, y, p)


def test_derivatives_of_derivatives() -> None:
    def curvature(y: Any, p: Any) -> Any:
        gradient = graphjit.grad(lambda y: np.sum(by_hand(y[:, 0], y[:, 1])[0] ** 2 * p[:, 0]))
        return np.sum(gradient(y) ** 2 * p)

    agrees(graphjit.value_and_grad(curvature, argnums=(0, 1)), *arguments(19))


def test_joined_loops_on_any_number_of_threads() -> None:
    y, p = arguments(3001)
    both = graphjit.value_and_grad(final_loss, argnums=(0, 1))
    assert long_loops(both, y, p) == 1
    same_bits(graphjit.jit(both), y, p)


def test_a_table_inside_of_a_step() -> None:
    """What is known in a body has elements of its own along every axis."""

    def step(h: Any, _: Any) -> Any:
        return np.tanh(h * (np.eye(6) + np.arange(6.0))), h.sum()

    def f(h: Any) -> Any:
        return graphjit.scan(step, h, None, length=5)

    h = RNG.normal(size=(6, 6))
    graph = graphjit.make_graph(f)(h)
    for found, wanted in zip(graphjit.jit(f)(h), interpret(graph, h), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-13)
