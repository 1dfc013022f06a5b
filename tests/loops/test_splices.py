"""Rolls, shifts and periodic padding: read where values lie, in one kernel, without tests in the lanes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiled_harness import compiled
from expressions.joined import random_segments

import graphjit
from graphjit import pipeline
from graphjit.interpret import interpret
from graphjit.ir.affine import Affine, axis_index, divided
from graphjit.ir.builder import Builder
from graphjit.ir.parser import parse_graph
from graphjit.ir.types import I64, Type
from graphjit.loops.cost import costs
from graphjit.loops.ir import Axis, For, Let, Scalar, loads, walk
from graphjit.loops.lowering.conditions import Side, contradicts, span
from graphjit.loops.lowering.kernels import lower_kernel
from graphjit.loops.lowering.positions import whole
from graphjit.loops.verify import verify_kernel
from graphjit.ops.splicing import runs
from graphjit.schedule.program import Kernel

SHAPE = (40, 50)
RNG = np.random.default_rng(5)
U, C = RNG.normal(size=SHAPE), RNG.uniform(0.05, 0.2, SHAPE)


def sweep(u: Any, c: Any) -> Any:
    around = np.roll(u, 1, 0) + np.roll(u, -1, 0) + np.roll(u, 1, 1) + np.roll(u, -1, 1)
    return u + c * (around - 4.0 * u)


def rolled(u: Any, c: Any) -> Any:
    for _ in range(3):
        u = sweep(u, c)
    return np.sum(u * u)


def looped(u: Any, c: Any) -> Any:
    u = graphjit.fori_loop(0, 3, lambda _, u: sweep(u, c), u)
    return np.sum(u * u)


def padded(u: Any, c: Any) -> Any:
    for _ in range(3):
        p = np.pad(u, 1, mode="wrap")
        around = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
        u = u + c * (around - 4.0 * u)
    return np.sum(u * u)


def joined(u: Any, c: Any) -> Any:
    for _ in range(3):
        around = np.concatenate([u[-1:], u[:-1]]) + np.concatenate([u[1:], u[:1]])
        around = around + np.concatenate([u[:, -1:], u[:, :-1]], 1) + np.concatenate([u[:, 1:], u[:, :1]], 1)
        u = u + c * (around - 4.0 * u)
    return np.sum(u * u)


# --------------------------------------------------------------------------------------- kernels and traffic


@pytest.mark.parametrize("function", [rolled, joined, padded])
def test_a_sweep_of_a_periodic_stencil_is_one_kernel(function: Callable[..., Any]) -> None:
    made = compiled(function, U, C)
    steps = made.program.steps
    assert len(steps) == 3
    assert all(isinstance(step, Kernel) for step in steps)
    # Each sweep reads the grid and the conductivity, and all but the last write a grid.
    moved = sum(cost.nbytes for cost in costs(made.program, made.kernels).values())
    assert moved == (3 * 2 + 2) * U.nbytes + 8


@pytest.mark.parametrize("function", [rolled, joined])
def test_its_gradient_too(function: Callable[..., Any]) -> None:
    made = compiled(graphjit.value_and_grad(function, argnums=(0, 1)), U, C)
    assert len(made.program.steps) <= 6
    assert not any(node.op.name == "concatenate" for node in made.optimized.nodes())


def test_a_loop_has_one_kernel_inside() -> None:
    made = compiled(looped, U, C)
    (inner,) = (program for step in made.program.steps for program in getattr(step, "inner", {}).values())
    assert [type(step) for step in inner.steps] == [Kernel]


def test_what_runs_in_lanes_has_no_tests() -> None:
    made = compiled(graphjit.value_and_grad(rolled, argnums=(0, 1)), U, C)
    lanes = [
        s for k in made.kernels.values() for s in walk(k.body) if isinstance(s, For) and s.kind == "simd"
    ]
    assert lanes
    for loop in lanes:
        assert all(load.guard is None and load.address[loop.axis] == 1 for load in loads(loop.body))
        operations = [s.value.op for s in loop.body if isinstance(s, Let) and isinstance(s.value, Scalar)]
        assert not {"select", "lt", "ge", "and"} & set(operations)


def test_rolls_of_rolls_are_one() -> None:
    def found(function: Callable[..., Any]) -> list[str]:
        return [node.op.name for node in compiled(function, U).optimized.nodes()]

    assert found(lambda x: np.roll(np.roll(x, 3, 0), -5, 0) * x).count("splice") == 1
    assert "splice" not in found(lambda x: np.roll(np.roll(x, 3, 1), -3, 1) * x)
    assert "splice" not in found(lambda x: np.roll(x, (3, 2, -3, -2), (0, 1, 0, 1)) * x)


def test_a_roll_that_somebody_needs_in_memory_is_stored_once() -> None:
    made = compiled(lambda x, w: (np.roll(x, 1, 0) @ w, np.roll(x, 1, 0) * 2), U, RNG.normal(size=(50, 30)))
    names = [node.op.name for node in made.optimized.nodes()]
    assert names.count("concatenate") == 1
    assert "splice" not in names


def test_pieces_that_kernels_compute_are_written_where_they_belong() -> None:
    made = compiled(lambda x: np.concatenate([np.exp(x), np.sin(x)]) ** 2 + 1, U)
    assert "splice" not in [node.op.name for node in made.optimized.nodes()]


# --------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("function", [rolled, looped, padded, joined])
def test_values_and_gradients(function: Callable[..., Any], dtype: type) -> None:
    u, c = U.astype(dtype), C.astype(dtype)
    value, (by_u, by_c) = graphjit.value_and_grad(function, argnums=(0, 1))(u, c)
    tolerance = 1e-12 if dtype is np.float64 else 2e-5
    np.testing.assert_allclose(value, rolled(u, c), rtol=tolerance)
    right, (of_u, of_c) = graphjit.value_and_grad(unrolled_by_index, argnums=(0, 1))(u, c)
    np.testing.assert_allclose(value, right, rtol=tolerance)
    np.testing.assert_allclose(by_u, of_u, rtol=10 * tolerance, atol=10 * tolerance)
    np.testing.assert_allclose(by_c, of_c, rtol=10 * tolerance, atol=100 * tolerance)


def unrolled_by_index(u: Any, c: Any) -> Any:
    """The same by gathered rows and columns, which are no splices."""
    (rows, columns), one = (np.arange(n) for n in SHAPE), 1
    for _ in range(3):
        around = u[(rows - one) % SHAPE[0]] + u[(rows + one) % SHAPE[0]]
        around = around + u[:, (columns - one) % SHAPE[1]] + u[:, (columns + one) % SHAPE[1]]
        u = u + c * (around - 4.0 * u)
    return np.sum(u * u)


def chain(rng: np.random.Generator, ndim: int) -> list[tuple[str, int, Any]]:
    kinds = ("roll", "roll", "flat", "cut", "shift", "wrap", "reflect", "symmetric", "edge", "constant")
    return [
        (str(rng.choice(kinds)), int(rng.integers(max(ndim, 1))), int(rng.integers(-70, 70)))
        for _ in range(rng.integers(1, 4))
    ]


def moved(x: Any, steps: list[tuple[str, int, Any]]) -> Any:
    for kind, axis, amount in steps:
        x = moved_once(x, kind, axis, amount)
    return x


def moved_once(x: Any, kind: str, axis: int, amount: int) -> Any:
    if not x.ndim or kind == "flat":
        return np.roll(x, amount)
    if kind == "roll":
        return np.roll(x, (amount, 3, amount // 2), (axis, 0, axis))
    n = x.shape[axis]
    before = (slice(None),) * axis

    if kind == "cut":
        k = amount % (n + 1)
        return np.concatenate([x[(*before, slice(k, None))], x[(*before, slice(None, k))]], axis)
    if n < 2:
        return x
    if kind == "shift":
        first = np.zeros_like(x[(*before, slice(0, 1))])
        return np.concatenate([first, x[(*before, slice(0, n - 1))]], axis)
    frame = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
    return np.pad(x, frame, mode=kind)[(*before, slice(0, n))]  # type: ignore[call-overload]


@pytest.mark.sample(12)
@pytest.mark.parametrize("seed", range(24))
def test_random_shifts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.choice((0, 1, 2, 3, 5, 16, 17, 33, 48), size=rng.integers(4)))
    x = rng.normal(size=shape)
    chains = [chain(rng, len(shape)) for _ in range(3)]

    def function(x: Any) -> Any:
        y = x * x
        return sum(moved(y if i else x, steps) * x for i, steps in enumerate(chains))

    right = function(x)
    np.testing.assert_allclose(graphjit.jit(function)(x), right, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(graphjit.jit(function, backend="numba")(x), right, rtol=1e-12, atol=1e-12)
    stack = np.stack([x, 2 * x, x - 1])
    batch = graphjit.jit(graphjit.vmap(function))(stack)
    np.testing.assert_allclose(batch, np.stack([function(each) for each in stack]), rtol=1e-12, atol=1e-12)
    made = compiled(function, x)
    np.testing.assert_allclose(interpret(made.optimized, x)[0], right, rtol=1e-12, atol=1e-12)
    for kernel in pipeline.lower(made.program).values():
        verify_kernel(kernel)
    graphjit.check_grads(lambda x: np.sum(np.sin(function(x))), (x,), order=2)


def test_in_registers_and_in_a_carry() -> None:
    x = np.arange(5.0)

    def function(x: Any) -> Any:
        return graphjit.fori_loop(0, 7, lambda i, x: np.roll(x, 2) * 0.9 + np.roll(x, -1), x)

    right = x
    for _ in range(7):
        right = np.roll(right, 2) * 0.9 + np.roll(right, -1)
    np.testing.assert_allclose(graphjit.jit(function)(x), right, rtol=1e-13)
    assert "in registers" in graphjit.jit(function).lower(x).as_text("loops")
    graphjit.check_grads(lambda x: np.sum(function(x) ** 2), (x,), order=2)


def test_a_donated_grid_is_not_overwritten_before_it_is_read() -> None:
    step = graphjit.jit(lambda u: u + np.roll(u, 1, 0) + np.roll(u, 1, 1), donate_argnums=0)
    right = U + np.roll(U, 1, 0) + np.roll(U, 1, 1)
    np.testing.assert_allclose(step(U.copy()), right, rtol=1e-14)


def test_what_may_fail_is_not_computed_outside_of_its_segment() -> None:
    x = np.array([4, 0, 2] * 8)
    y = np.array([0, 3, 0] * 8)

    def function(x: Any, y: Any) -> Any:
        return np.concatenate([(12 // x)[:1], (12 // y)[1:2]]) + 1

    np.testing.assert_array_equal(graphjit.jit(function)(x, y), [4, 5])


# ------------------------------------------------------------------------------------------------ positions


@pytest.mark.parametrize("seed", range(40))
def test_positions_through_splices(seed: int) -> None:
    """A position is what NumPy finds when it takes the elements of the numbers from 0 on."""
    rng = np.random.default_rng(seed)
    b, axis = Builder(), Axis("i0")
    nodes = [b.input(Type(I64, (30,)), "x")]
    for _ in range(3):
        segments = random_segments(rng, nodes[-1].shape)
        nodes.append(b.splice(nodes[-1], axis=0, segments=segments))
    position = whole(axis_index(axis), {axis: nodes[-1].shape[0]})
    right = np.arange(30)
    for node in nodes[1:]:
        right = node.op.impl(right, **node.attrs)
    for node in reversed(nodes[1:]):
        position = position.through(runs(node))
    found = [p.step * i + p.offset for p in position.pieces for i in range(p.begin, p.end)]
    assert found == right.tolist()


# --------------------------------------------------------------- conditions around an index, taken together

ROW, COLUMN = Axis("i0"), Axis("i1")


def place(offset: int, i: int = 0, j: int = 0) -> Affine[Axis]:
    return Affine(offset, {ROW: i, COLUMN: j})


@pytest.mark.parametrize("factor", [-3, -2, -1, 1, 2, 5])
def test_a_multiple_between_two_numbers(factor: int) -> None:
    for low, high in itertools.product(range(-7, 8), repeat=2):
        inside = [x for x in range(-20, 21) if low <= factor * x <= high]
        least, most = divided(low, high, factor)
        assert inside == list(range(least, most + 1))


@pytest.mark.parametrize("factor", [-3, -1, 2])
@pytest.mark.parametrize("other", [-2, 1, 3])
def test_conditions_of_one_direction_count_together(factor: int, other: int) -> None:
    extents = {ROW: 9, COLUMN: 4}
    for low, high in itertools.product(range(-8, 9, 2), range(-8, 9, 3)):
        where = (Side(place(1, factor), low, None), Side(place(-2, other), None, high))
        points = [i for i in range(9) if factor * i + 1 >= low and other * i - 2 < high]
        assert not (points and contradicts(where))
        if not points:
            continue
        for a in (-2, 1, 4):
            values = [a * i + 3 for i in points]
            least, most = span(place(3, a), where, extents)
            assert least <= min(values)
            assert most >= max(values)
            assert (least, most) == (min(values), max(values))
    assert contradicts((Side(place(0, 1), None, 2), Side(place(6, -2), None, 1)))
    assert not contradicts((Side(place(0, 1), None, 2), Side(place(6, -2, 1), None, 1)))


UNREACHED = [
    """graph f
  %0 = input name='a' : f64[1]
  %1 = input name='b' : f64[4]
  %2 = splice %0 %1 axis=0 segments=((0, 0, 1, 1), (1, 0, 1, 4), (1, 0, 1, 4), (1, 0, 1, 4)) : f64[13]
  %3 = splice %2 axis=0 segments=((0, 6, -2, 2), (0, 12, 1, 1), (0, 0, 1, 4)) : f64[7]
  return %3
""",
    """graph f
  %0 = input name='a' : f64[1,6]
  %1 = input name='b' : f64[1,5]
  %2 = splice %1 axis=1 segments=((0, 4, -1, 2), (0, 2, 3, 1), (0, 2, -1, 3)) : f64[1,6]
  %3 = mul %2 %0 : f64[1,6]
  %4 = slice %3 starts=(0, 0) limits=(1, 2) steps=(1, 1) : f64[1,2]
  %5 = flip %4 axes=(1,) : f64[1,2]
  %6 = embed %5 shape=(1, 5) starts=(0, 3) steps=(1, 1) : f64[1,5]
  return %6
""",
    """graph f
  %0 = input name='a' : f64[6,5]
  %1 = splice %0 axis=1 segments=((0, 1, 3, 2), (0, 0, 1, 5)) : f64[6,7]
  %2 = splice %1 %0 axis=1 segments=((0, 4, 1, 3), (0, 2, 3, 1)) : f64[6,4]
  return %2
""",
]


@pytest.mark.parametrize("text", UNREACHED)
def test_what_no_index_reaches_is_not_loaded(text: str) -> None:
    graph = parse_graph(text)
    _, program = pipeline.schedule(pipeline.optimize(graph))
    values = [np.arange(np.prod(x.shape)).reshape(x.shape) * 1.0 for x in graph.inputs]
    kernels = [lower_kernel(program, step) for step in program.steps if isinstance(step, Kernel)]
    for kernel in kernels:
        verify_kernel(kernel, len(program.errors))
    assert sum(len(list(loads(kernel.body))) for kernel in kernels) <= 6
    compiled = pipeline.compile_graph(graph)
    assert compiled.program.steps
    np.testing.assert_array_equal(interpret(compiled.optimized, *values)[0], interpret(graph, *values)[0])
