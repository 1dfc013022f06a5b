"""Windows, short axes in registers, sums brought into line: what lets a program run in few
sweeps over memory.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from compiled_harness import Make, check, examine, run, with_gradient
from random_graphs import random_graph, random_inputs, rng_for
from threads_harness import same_bits

import graphjit
from graphjit import pipeline
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.interpret import interpret
from graphjit.ir.node import Graph
from graphjit.ir.parser import parse_graph
from graphjit.ir.types import F32, F64
from graphjit.limits import Limits, host_limits
from graphjit.loops.ir import For, Let, Load, Store, loads, walk
from graphjit.schedule.program import Assembly, Sweep
from graphjit.schedule.rewrite.unstack import unstack


def steps(graph: Graph, limits: Limits | None = None) -> list:
    return pipeline.schedule(pipeline.optimize(graph, limits=limits), limits=limits)[1].steps


EVERYWHERE = host_limits().changed(
    unstack={"points": 1},
    align={"rows": 1},
    sweeps={"min_rows": 2, "shared_bytes": 0, "block_bytes": 100, "whole_rows": 3, "tasks": 4},
)
"""No size is too small for the mechanisms."""


# ---------------------------------------------------------------------------------------------- random graphs


@pytest.mark.sample(2)
@pytest.mark.parametrize("chunk", range(6))
def test_random_graphs_with_every_threshold_off(chunk):
    for seed in range(20_000 + chunk * 12, 20_000 + chunk * 12 + 12):
        examine(random_graph(seed, 25), seed, EVERYWHERE)
    for seed in range(30_000 + chunk * 8, 30_000 + chunk * 8 + 8):
        examine(with_gradient(random_graph(seed, 20, differentiable=True)), seed, EVERYWHERE)


@pytest.mark.parametrize("chunk", range(4))
def test_random_graphs_as_python(chunk):
    for seed in range(40_000 + chunk * 6, 40_000 + chunk * 6 + 6):
        graph = with_gradient(random_graph(seed, 20, differentiable=True))
        values = random_inputs(graph, rng_for(seed))
        _, program = pipeline.schedule(pipeline.optimize(graph, limits=EVERYWHERE), limits=EVERYWHERE)
        found = NumbaExecutable(program, pipeline.lower(program, limits=EVERYWHERE), python=True).run(
            [np.ascontiguousarray(v) for v in values]
        )
        for got, want in zip(found, interpret(graph, *values), strict=True):
            scale = (
                max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0.0)))
                if want.dtype.kind == "f"
                else 1.0
            )
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3 * scale, err_msg=str(seed))


# ---------------------------------------------------------------------------------------------------- strides


@pytest.mark.sample(2)
@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("step", [2, 3, 4, 5, 9, 17])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 31, 64, 100])
def test_components_of_records(n, step, dtype):
    make = Make()
    b = make.b
    x = make.input(n, step, dtype=dtype)
    columns = [
        b.reshape(b.slice(x, starts=(0, c), limits=(n, c + 1), steps=(1, 1)), shape=(n,)) for c in range(step)
    ]
    total = columns[0]
    for column in columns[1:]:
        total = b.add(b.mul(total, 0.5), b.mul(column, column))
    check(make, total, 100)


@pytest.mark.parametrize("n", [1, 5, 8, 16, 37, 100])
def test_backwards(n):
    make = Make()
    b = make.b
    x, y = make.input(n), make.input(n)
    check(make, b.exp(b.mul(b.flip(x, axes=(0,)), b.flip(b.tanh(y), axes=(0,)))))


# ---------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (5, 9), (16, 16), (30, 33)])
@pytest.mark.parametrize("margins", [((0, 0), (1, 2)), ((1, 1), (1, 1)), ((3, 0), (0, 5)), ((2, 2), (40, 0))])
def test_a_frame_of_zeros_is_read_where_it_is_used(shape, margins):
    make = Make()
    b = make.b
    x, y = make.input(*shape), make.input(*shape)
    full = tuple(n + before + after for n, (before, after) in zip(shape, margins, strict=True))
    starts = tuple(before for before, _ in margins)
    framed = b.embed(b.mul(x, b.exp(y)), shape=full, starts=starts, steps=(1, 1))
    other = make.input(*full)
    check(make, b.add(b.mul(framed, other), 1.0), 100)


def test_windows_take_no_step_of_their_own():
    make = Make()
    b = make.b
    u = make.input(40, 40)
    framed = b.embed(u, shape=(42, 42), starts=(1, 1), steps=(1, 1))
    parts = [
        b.slice(framed, starts=s, limits=(s[0] + 40, s[1] + 40), steps=(1, 1))
        for s in ((0, 1), (2, 1), (1, 0), (1, 2))
    ]
    out = b.add(b.add(parts[0], parts[1]), b.add(parts[2], parts[3]))
    found = steps(make.graph(out))
    assert len(found) == 1
    kernel = pipeline.lower(pipeline.schedule(pipeline.optimize(make.graph(out)))[1])["k0"]
    (middle,) = (s for s in walk(kernel.body) if isinstance(s, For) and s.kind == "simd")
    guarded = [load for load in loads(middle.body) if load.guard is not None]
    assert len(guarded) == 2  # those above and below; at the sides the loop has seams
    check(make, out)


def test_a_window_on_nothing_is_zero():
    make = Make()
    b = make.b
    x, y = make.input(8), make.input(3)
    nothing = b.slice(b.exp(x), starts=(1,), limits=(1,), steps=(2,))
    check(make, b.add(b.embed(nothing, shape=(3,), starts=(2,), steps=(1,)), y))


def test_what_is_outside_a_window_cannot_fail():
    make = Make()
    b = make.b
    x, y, i = (
        make.input(5, dtype=np.dtype("int64")),
        make.input(5, dtype=np.dtype("int64")),
        make.input(5, dtype=np.dtype("int64")),
    )
    quotient = b.floor_divide(x, y)
    picked = b.gather(x, i, axes=(0,))
    out = b.embed(b.add(quotient, picked), shape=(9,), starts=(2,), steps=(1,))
    values = [np.arange(5) + 10, np.full(5, 3), np.array([4, 3, 2, 1, 0])]
    (found,) = run(make.graph(out), values)
    np.testing.assert_array_equal(found, [0, 0, 17, 16, 16, 15, 14, 0, 0])
    values[1][2] = 0
    with pytest.raises(ZeroDivisionError):
        run(make.graph(out), values)


# ------------------------------------------------------------------------------------------------- short axes


def test_a_norm_over_three_components_is_one_loop_in_lanes():
    make = Make()
    b = make.b
    x = make.input(1000, 3)
    out = b.sqrt(b.sum(b.mul(x, x), axes=(1,)))
    program = pipeline.schedule(pipeline.optimize(make.graph(out)))[1]
    assert [step.space for step in program.steps] == [(1000,)]
    loops = [s for s in walk(pipeline.lower(program)["k0"].body) if isinstance(s, For)]
    assert [loop.kind for loop in loops] == ["simd"]
    check(make, out, 100)


def test_few_rows_stay_as_they_are():
    make = Make()
    x = make.input(5, 3)
    out = make.b.sum(make.b.mul(x, x), axes=(1,))
    graph = pipeline.optimize(make.graph(out))
    assert unstack(graph, host_limits()) is graph


@pytest.mark.parametrize("combine", ["sum", "prod", "max", "min"])
def test_every_reduction_over_a_short_axis(combine):
    make = Make()
    b = make.b
    x = make.input(600, 4, 2)
    y = b.emit(combine, b.mul(x, 1.5), axes=(1,))
    check(make, b.mul(y, b.sum(x, axes=(1,))), 100)


def test_batches_of_small_matrix_products():
    rng = np.random.default_rng(0)

    def f(r, s, v):
        turned = np.einsum("nij,njk->nik", r, s)
        return np.sum(np.tanh(np.einsum("nij,nj->ni", turned, v)))

    r, s, v = rng.normal(size=(300, 3, 3)), rng.normal(size=(300, 3, 3)), rng.normal(size=(300, 3))
    value, found = graphjit.value_and_grad(f, argnums=(0, 1, 2))(r, s, v)
    np.testing.assert_allclose(value, f(r, s, v), rtol=1e-12)
    step = 1e-6
    for which, gradient in enumerate(found):
        direction = rng.normal(size=gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = [r, s, v]
            moved[which] = moved[which] + sign * step * direction
            ends.append(f(*moved))
        assert np.sum(gradient * direction) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


# --------------------------------------------------------------------------------------------- symmetric sums


def pairwise(p, q):
    between = p[:, None, :] - p[None, :, :]
    return np.sum(q[:, None] * q[None, :] * np.exp(-np.sum(between * between, axis=2)))


def test_a_pairwise_energy_and_its_gradient_are_one_sweep_without_a_matrix():
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=(300, 3)), rng.normal(size=300)
    f = graphjit.value_and_grad(pairwise, argnums=(0, 1))
    graph = f.dispatcher.staged(p, q).graph
    program = pipeline.schedule(pipeline.optimize(graph))[1]
    assert len(program.steps) == 2
    assert program.arena < 8 * 300 * 2
    value, (d_p, d_q) = f(p, q)
    reference = interpret(graph, p, q)
    np.testing.assert_allclose(value, reference[0], rtol=1e-12)
    for got, want in zip((d_p, d_q), reference[1:], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_sums_of_what_is_not_symmetric_keep_their_axis():
    make = Make()
    b = make.b
    x, y = make.input(64), make.input(64)
    left = b.broadcast_to(b.reshape(x, shape=(64, 1)), shape=(64, 64))
    right = b.broadcast_to(y, shape=(64, 64))
    e = b.exp(b.sub(left, right))
    out = b.add(b.sum(e, axes=(0,)), b.sum(b.mul(e, right), axes=(1,)))
    graph = pipeline.optimize(make.graph(out))
    assert {node.attrs["axes"] for node in graph.nodes() if node.op.name == "sum"} == {(0,), (1,)}
    check(make, out, 100)


def test_antisymmetric_sums_change_their_sign():
    make = Make()
    b = make.b
    x = make.input(64)
    left = b.broadcast_to(b.reshape(x, shape=(64, 1)), shape=(64, 64))
    e = b.sub(left, b.broadcast_to(x, shape=(64, 64)))
    cube = b.mul(e, b.mul(e, e))
    out = b.add(b.sum(cube, axes=(0,)), b.mul(b.sum(b.tanh(b.abs(cube)), axes=(1,)), b.sum(cube, axes=(1,))))
    graph = pipeline.optimize(make.graph(out))
    assert {node.attrs["axes"] for node in graph.nodes() if node.op.name == "sum"} == {(1,)}
    check(make, out, 1000)


def neighbours(x):
    d = x[:, None] - x
    near = d * d < 1.0
    return np.sum(near * d * d, axis=0), np.sum(near * np.abs(d), axis=1), np.sum(near, axis=0)


def unsigned(x):
    d = x[:, None] - x
    return (
        np.sum(np.abs(d), axis=0),
        np.sum(np.abs(d), axis=1),
        np.sum(d.astype(np.uint64), axis=0),
        np.sum(d, axis=1),
    )


def nearly_symmetric(x):
    d = x[:, None] - x
    e = np.where(d > 0, d, 0.5 * d)
    f = np.maximum(x[:, None], 2 * x) * d
    results = [
        np.sum(a, axis=k)
        for a in (e, np.exp(d), f, d * d * d, np.arctan2(d, 1 + d * d), d / (2 + np.abs(d)), -d - d * d)
        for k in (0, 1)
    ]
    return (*results, np.max(d, axis=0), np.max(d, axis=1))


SYMMETRIC = {
    neighbours: ("f8", "f4", "i8", "u1", "u8"),
    unsigned: ("i8", "u1", "u8"),
    nearly_symmetric: ("f8", "f4", "i8"),
}


@pytest.mark.parametrize(
    ("function", "dtype"), [(function, dtype) for function, dtypes in SYMMETRIC.items() for dtype in dtypes]
)
def test_what_is_symmetric_up_to_a_sign(function, dtype):
    """Conditions have no sign; unsigned differences wrap."""
    x = (
        (np.random.default_rng(13).normal(size=70) * 3)
        .astype("i8" if dtype[0] in "iu" else dtype)
        .astype(dtype)
    )
    for got, want in zip(graphjit.jit(function)(x), function(x), strict=True):
        assert got.dtype == want.dtype
        tolerance = 1e-11 if want.dtype == F64 else 1e-3
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(1.0, np.abs(want).max()))


def test_no_assembly_is_left_but_for_gaps_and_scatters():
    make = Make()
    b = make.b
    x = make.input(12)
    dense = b.embed(x, shape=(20,), starts=(3,), steps=(1,))
    gaps = b.embed(x, shape=(40,), starts=(3,), steps=(3,))
    kinds = [
        step.node.op.name
        for step in steps(make.graph(dense, gaps, b.cumsum(x, axis=0, reverse=False)))
        if isinstance(step, Assembly)
    ]
    assert kinds == ["embed"]
    stores = [
        s
        for s in walk(pipeline.lower(pipeline.schedule(pipeline.optimize(make.graph(dense)))[1])["k0"].body)
        if isinstance(s, Store)
    ]
    assert len(stores) == 1


# ----------------------------------------------------------------------------------------------------- sweeps


def layer_norm(gamma, beta, x, g):
    mean = np.mean(x, axis=1, keepdims=True)
    centred = x - mean
    return np.sum((centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + 1e-5) * gamma + beta) * g)


def logistic(w, b, x, y):
    z = x @ w + b
    return np.mean(np.logaddexp(0.0, z) - y * z)


def extremes(x, w):
    z = np.tanh(x * w)
    return np.sum(np.max(z, axis=0) - np.min(z * w, axis=0)) + np.sum(np.max(z, axis=1)) * np.prod(
        np.mean(z, axis=0)
    )


CASES = {
    "layer_norm": (layer_norm, [(40,), (40,), (1000, 40), (1000, 40)], (0, 1, 2)),
    "layer_norm_wide": (layer_norm, [(700,), (700,), (333, 700), (333, 700)], (0, 1, 2)),
    "logistic": (logistic, [(5,), (), (5001, 5), (5001,)], (0, 1)),
    "logistic_wide": (logistic, [(37,), (), (1009, 37), (1009,)], (0, 1)),
    "extremes": (extremes, [(2000, 24), (24,)], (0, 1)),
}


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("name", CASES)
def test_rows_are_swept_once(name, dtype):
    f, shapes, argnums = CASES[name]
    rng = np.random.default_rng(5)
    args = [np.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    compiled = graphjit.value_and_grad(f, argnums)
    graph = compiled.dispatcher.staged(*args).graph
    program = pipeline.schedule(pipeline.optimize(graph))[1]
    # Ties share the gradient of an extremum, so that what follows needs it whole.
    assert any(isinstance(step, Sweep) for step in program.steps) or f is extremes
    value, gradients = compiled(*args)
    wanted = interpret(graph, *args)
    tolerance = 1e-11 if dtype == F64 else 3e-4
    for got, want in zip((value, *gradients), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(1.0, np.abs(want).max()))


def test_the_data_of_a_regression_is_read_by_one_step():
    args = [np.ones(shape) for shape in CASES["logistic_wide"][1]]
    graph = graphjit.value_and_grad(logistic, (0, 1)).dispatcher.staged(*args).graph
    fusion, program = pipeline.schedule(pipeline.optimize(graph))
    readers = [i for i, found in enumerate(fusion.loads) if any(node.shape == (1009, 37) for node in found)]
    assert len(readers) == 1
    assert program.arena < 1009 * 8  # what lies between the kernels is kept for a block of rows only


@pytest.mark.parametrize("name", CASES)
def test_a_sweep_gives_the_same_bits_for_every_number_of_threads(name):
    f, shapes, argnums = CASES[name]
    rng = np.random.default_rng(6)
    args = [np.asarray(rng.normal(size=shape)) for shape in shapes]
    compiled = graphjit.value_and_grad(f, argnums)
    same_bits(compiled, *args)


def test_sums_over_rows_end_a_sweep():
    """What needs a finished sum runs after it."""

    def standardised(x):
        z = (x - np.mean(x, axis=0)) / np.std(x, axis=0)
        return np.sum(np.exp(-z * z))

    x = np.random.default_rng(8).normal(size=(3000, 11))
    value, gradient = graphjit.value_and_grad(standardised)(x)
    np.testing.assert_allclose(value, standardised(x), rtol=1e-12)
    direction = np.random.default_rng(9).normal(size=x.shape)
    step = 1e-6
    slope = (standardised(x + step * direction) - standardised(x - step * direction)) / (2 * step)
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-6)


def test_an_empty_kernel_is_in_no_sweep():
    """Nothing is computed for the rows of a (3000, 0) array: it has no loop to cut into blocks."""

    def f(x, y):
        z = np.tanh(x)
        scaled = z * np.sum(z, axis=1, keepdims=True) / np.max(z, axis=1, keepdims=True)
        return scaled[:, ::-1] * z, y * 2, np.sum(y, axis=0), np.sum(y, axis=1)

    x, y = np.random.default_rng(10).uniform(0.5, 1, size=(3000, 50)), np.zeros((3000, 0))
    for got, want in zip(graphjit.jit(f)(x, y), f(x, y), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_frame_around_nothing_is_zeros():
    make = Make()
    b = make.b
    x, y = make.input(3, 2), make.input(4, 2)
    nothing = b.slice(b.exp(x), starts=(0, 2), limits=(3, 2), steps=(1, 1))
    check(make, b.add(y, b.embed(nothing, shape=(4, 2), starts=(1, 1), steps=(1, 1))))


ONE_PARTIAL_SUM = """graph small_blocks
  %0 = input name='x0' : f64[5]
  %1 = input name='x1' : f64[5]
  %2 = sum %1 axes=(0,) : f64[]
  %3 = mul %0 %1 : f64[5]
  %4 = polygamma %3 n=3 : f64[5]
  %5 = floor %2 : f64[]
  %6 = broadcast_to %5 shape=(5,) : f64[5]
  %7 = logaddexp2 %4 %6 : f64[5]
  return %7 %2
"""


def test_frames_side_by_side_have_nothing_in_common():
    """A load where both hold never happens; its address lay outside all the same."""
    make = Make()
    b = make.b
    x, y = make.input(2), make.input(5)
    left = b.embed(x, shape=(5,), starts=(0,), steps=(1,))
    tail = b.slice(b.add(left, y), starts=(2,), limits=(5,), steps=(1,))
    graph = make.graph(b.exp(b.embed(tail, shape=(5,), starts=(2,), steps=(1,))))
    kernels = pipeline.lower(pipeline.schedule(graph)[1])  # unsimplified: rules would see it
    loads = [
        s.value.buffer.name
        for k in kernels.values()
        for s in walk(k.body)
        if isinstance(s, Let) and isinstance(s.value, Load)
    ]
    assert loads == ["in1"]
    check(make, graph.outputs[0])


def test_blocks_of_one_row_keep_their_sums_apart():
    """The loop over blocks looked fit for lanes when blocks are a row; all lanes would have written one
    partial sum.
    """
    limits = EVERYWHERE.changed(
        sweeps={"block_bytes": 1, "whole_rows": 1, "min_block": 1, "tasks": 3}, fusion={"inline": 0}
    )
    graph = parse_graph(ONE_PARTIAL_SUM)
    values = list(np.random.default_rng(12).uniform(0.5, 2, size=(2, 5)))
    assert any(isinstance(step, Sweep) for step in steps(graph, limits))
    for got, want in zip(run(graph, values, limits), interpret(graph, *values), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10)


def test_wide_rows_need_no_deep_stack():
    """Scratch of a block and partial sums were on the stack: rows of 320 KB, or a thread with little stack,
    killed the process.
    """

    def f(x, g):
        z = np.tanh(x * g)
        return z[:, :-1] * z[:, 1:], z[:, ::-1] * np.sum(z, axis=1, keepdims=True)

    rng = np.random.default_rng(11)
    cases = [
        (graphjit.jit(f), args)
        for args in (rng.normal(size=(2, 1000, 100)), rng.normal(size=(2, 256, 40_000)))
    ]
    wide = [rng.normal(size=shape) for shape in CASES["layer_norm"][1]]
    cases.append((graphjit.value_and_grad(layer_norm, (0, 1, 2)), wide))
    for compiled, args in cases:
        graph = compiled.dispatcher.staged(*args).graph
        program = pipeline.schedule(pipeline.optimize(graph))[1]
        assert any(isinstance(step, Sweep) for step in program.steps)
        wanted = compiled(*args)
        found: list = []
        before = threading.stack_size(128 << 10)
        try:
            thread = threading.Thread(
                target=lambda compiled=compiled, args=args, found=found: found.append(compiled(*args))
            )
            thread.start()
            thread.join()
        finally:
            threading.stack_size(before)
        for got, want in zip(found[0], wanted, strict=True):
            for a, b in zip(
                got if isinstance(got, tuple) else [got],
                want if isinstance(want, tuple) else [want],
                strict=True,
            ):
                assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


# ---------------------------------------------------------------------------------------------- equal kernels


def chained(n: int, factors: list[float]) -> Graph:
    """Each stage is read at two points, so that it is a step of its own."""
    make = Make()
    b = make.b
    x = make.input(n, n)
    for factor in factors:
        y = b.mul(b.tanh(x), factor)
        x = b.add(y, b.transpose(y, perm=(1, 0)))
    return make.graph(x)


def functions(graph: Graph) -> int:
    return pipeline.compile_graph(graph).module.render().count("define void @k")


def test_equal_kernels_are_compiled_once():
    once, thrice = functions(chained(50, [0.5, 0.5])), functions(chained(50, [0.5] * 6))
    assert once == thrice
    assert functions(chained(50, [0.5, 0.5, 0.25])) > once
    graph = chained(50, [0.5, 0.5, 0.25, 0.5])
    values = [np.random.default_rng(2).normal(size=(50, 50))]
    np.testing.assert_allclose(run(graph, values)[0], interpret(graph, *values)[0], rtol=1e-12)


def test_equal_kernels_with_different_errors_are_not_equal():
    make = Make()
    b = make.b
    i, j = make.input(40, dtype=np.dtype("int64")), make.input(40, dtype=np.dtype("int64"))
    first = b.cumsum(b.floor_divide(i, j), axis=0, reverse=False)
    second = b.cumsum(b.remainder(first, j), axis=0, reverse=False)
    with pytest.raises(ZeroDivisionError, match="division"):
        run(make.graph(second), [np.ones(40, np.int64), np.zeros(40, np.int64)])


@pytest.mark.parametrize("columns", [1, 3, 33, 64, 130])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "?"])
def test_every_reduction_down_the_columns_of_a_tall_matrix(dtype, columns):
    rows = 4099
    x = (np.random.default_rng(4).normal(size=(rows, columns)) * 3).astype(dtype)
    x[5, columns // 2] = False

    def f(x):
        if dtype == "?":
            return np.any(x, axis=0), np.all(x, axis=0), np.sum(x, axis=0)
        scaled = x * 2 if dtype == "i8" else np.tanh(x)
        factors = x % 2 + 1 if dtype == "i8" else 1 + scaled * 1e-4
        return np.sum(scaled, axis=0), np.max(scaled, axis=0), np.min(x, axis=0), np.prod(factors, axis=0)

    graph = graphjit.jit(f).dispatcher.staged(x).graph
    assert (
        columns == 1
        or any(isinstance(step, Sweep) for step in steps(graph))
        or x.nbytes < host_limits().sweeps.shared_bytes
    )
    for got, want in zip(graphjit.jit(f)(x), f(x), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(
            got, want, rtol=1e-4 if dtype == "f4" else 1e-10, atol=1e-3 if dtype == "f4" else 0
        )
