"""The compiled program against the interpreter, over the op matrix and over graphs chosen for their loops."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from compiled_harness import Make, check, run, same
from op_matrix import (
    NO_SAMPLES,
    batch_graph,
    choices,
    op_graph,
    samples_for,
    special_samples_for,
    stacked,
    vjp_graph,
)

import graphjit
from graphjit import pipeline
from graphjit.errors import GraphjitError
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import REGISTRY, ZeroDerivative
from graphjit.ir.types import F32, F64, I64


def merged(graphs: Iterable[tuple[Graph, list[np.ndarray]]]) -> tuple[Graph, list[np.ndarray]]:
    """Many small graphs as one: a single compilation, and a test of how neighbours fuse."""
    inputs: list[Node] = []
    outputs: list[Node] = []
    values: list[np.ndarray] = []
    for graph, arrays in graphs:
        inputs += graph.inputs
        outputs += graph.outputs
        values += arrays
    return Graph("merged", inputs, outputs), values


def by_dtype(samples):
    groups: dict[str, list] = {}
    for name, arrays, attrs in samples:
        groups.setdefault(name, []).append((arrays, attrs))
    return groups


OPS = sorted(name for name in REGISTRY if name not in NO_SAMPLES)


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", OPS)
def test_every_op_forward(name):
    op = REGISTRY[name]
    for dtype, cases in by_dtype(samples_for(op)).items():
        graph, values = merged((op_graph(op, arrays, attrs), arrays) for arrays, attrs in cases)
        wanted = interpret(graph, *values)
        for found, want, case in zip(run(graph, values), wanted, cases, strict=True):
            same(
                found,
                want,
                f"{name} {dtype} {[a.shape for a in case[0]]} {case[1]}",
                20 if "lgamma" in name or "gamma" in name else 1,
            )


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", [name for name in OPS if REGISTRY[name].arity != 0])
def test_every_op_in_batches(name):
    """One program of every choice of arguments that vary, over a batch that fills vectors and one that does
    not.
    """
    op = REGISTRY[name]
    for dtype, cases in by_dtype(samples_for(op)).items():
        if dtype not in ("f64", "f32", "i64", "bool"):
            continue
        made = []
        for arrays, attrs in cases:
            graph = op_graph(op, arrays, attrs)
            for number, flags in enumerate(choices(len(arrays))):
                size = (9, 2)[number % 2]
                given = [stacked(x, size, name) if flag else x for x, flag in zip(arrays, flags, strict=True)]
                made.append((batch_graph(graph, flags, size), given))
        graph, values = merged(made)
        wanted = interpret(graph, *values)
        for found, want in zip(run(graph, values), wanted, strict=True):
            same(found, want, f"{name} {dtype}", 20 if "gamma" in name else 4)


@pytest.mark.parametrize("name", OPS)
def test_every_op_special_values(name):
    op = REGISTRY[name]
    for dtype, cases in by_dtype(special_samples_for(op)).items():
        graph, values = merged((op_graph(op, arrays, attrs), arrays) for arrays, attrs in cases)
        try:
            wanted = interpret(graph, *values)
        except (ArithmeticError, ValueError, LookupError):
            continue
        for found, want in zip(run(graph, values), wanted, strict=True):
            same(found, want, f"{name} {dtype} special", 20)
            if want.dtype.kind == "f" and REGISTRY[name].name in (
                "neg",
                "copysign",
                "abs",
                "sqrt",
                "trunc",
                "floor",
                "ceil",
                "rint",
            ):
                np.testing.assert_array_equal(
                    np.signbit(found[want == 0]), np.signbit(want[want == 0]), err_msg=name
                )


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", [n for n in OPS if not isinstance(REGISTRY[n].derivative, ZeroDerivative)])
def test_every_op_reverse(name):
    op = REGISTRY[name]
    for dtype, cases in by_dtype(samples_for(op)).items():
        if not dtype.startswith("f"):
            continue
        graphs = []
        for arrays, attrs in cases:
            try:
                graph = vjp_graph(op_graph(op, arrays, attrs))
            except GraphjitError:
                continue
            extra = [
                np.random.default_rng(1).normal(size=n.shape).astype(n.dtype)
                for n in graph.inputs[len(arrays) :]
            ]
            graphs.append((graph, [*arrays, *extra]))
        if not graphs:
            continue
        graph, values = merged(graphs)
        for found, want in zip(run(graph, values), interpret(graph, *values), strict=True):
            same(found, want, f"{name} {dtype} vjp", 50)


# ------------------------------------------------------------------------------------------------ loop shapes


SIZES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 37, 64, 100, 1000)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("n", SIZES)
def test_chains_and_sums_of_every_length(n, dtype):
    make = Make()
    x = make.input(n, dtype=dtype)
    b = make.b
    check(make, b.mul(b.exp(x), b.tanh(b.mul(x, 0.5))))
    make = Make()
    x = make.input(n, dtype=dtype)
    check(make, make.b.sum(make.b.exp(x), axes=(0,)), 100)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 9), (9, 1), (3, 5), (6, 37), (37, 6), (16, 16), (5, 0), (0, 5), (130, 70)]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_row_and_column_softmax(shape, axis):
    if shape[axis] == 0:
        return
    make = Make()
    b = make.b
    x = make.input(*shape)
    e = b.exp(b.sub(x, make.spread(b.max(x, axes=(axis,)), shape, (axis,))))
    check(make, b.div(e, make.spread(b.sum(e, axes=(axis,)), shape, (axis,))), 100)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 1, 17), (2, 33, 3)])
def test_reductions_over_any_axes(axes, shape):
    make = Make()
    x = make.input(*shape)
    check(make, make.b.sum(make.b.mul(x, x), axes=axes), 100)
    make = Make()
    x = make.input(*shape)
    check(make, make.b.max(x, axes=axes))


@pytest.mark.parametrize("perm", [(1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0)])
def test_transposed_reads(perm):
    make = Make()
    b = make.b
    x, y = make.input(3, 4, 17), make.input(*[(3, 4, 17)[p] for p in perm])
    check(make, b.mul(b.transpose(x, perm=perm), b.exp(y)))


@pytest.mark.parametrize("n", [100_003, 65_536])
def test_blocks_of_large_loops(n):
    make = Make()
    b = make.b
    x = make.input(n)
    t = b.tanh(x)
    check(make, b.mul(t, b.exp(x)), 10)
    make = Make()
    x = make.input(n)
    check(make, make.b.sum(make.b.tanh(x), axes=(0,)), 1000)


def test_values_kept_in_place_are_not_overwritten_too_early():
    make = Make()
    b = make.b
    x = make.input(50)
    a = b.exp(x)
    c = b.tanh(a)
    d = b.log(b.add(b.mul(c, c), 1.0))
    s = b.sum(d, axes=(0,))
    out = b.add(b.mul(a, make.spread(s, (50,), (0,))), b.mul(c, d))
    check(make, out, 100)


def test_pieces():
    make = Make()
    b = make.b
    x, y = make.input(4, 9), make.input(4, 3)
    joined = b.concatenate(b.exp(x), y, b.mul(y, y), axis=1)
    check(make, b.flip(joined, axes=(1,)))
    make = Make()
    b = make.b
    x = make.input(6, 40)
    part = b.slice(b.exp(x), starts=(1, 2), limits=(6, 39), steps=(2, 3))
    check(make, b.embed(part, shape=(10, 30), starts=(2, 1), steps=(3, 2)))


def test_gather_from_a_single_number():
    make = Make()
    i = make.input(4, dtype=np.dtype(np.int64))
    graph = make.graph(make.b.gather(make.b.const(np.array([2.5]), F64), i, axes=(0,)))
    np.testing.assert_array_equal(run(graph, [np.array([0, -1, 0, 0])])[0], np.full(4, 2.5))
    with pytest.raises(IndexError):
        run(graph, [np.array([0, 1, 0, 0])])


def test_gather_and_scatter():
    make = Make()
    b = make.b
    x = make.input(7, 12)
    i = b.const(np.array([3, -1, 3, 0, 6]), I64)
    j = b.const(np.array([11, 0, -12, 5, 3]), I64)
    check(make, b.gather(b.exp(x), i, axes=(0,)))
    check(make, b.gather(x, i, j, axes=(0, 1)))


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 1, 1),
        (2, 3, 1),
        (5, 7, 3),
        (32, 16, 32),
        (33, 17, 65),
        (100, 10, 128),
        (64, 200, 40),
        (1, 50, 30),
        (40, 1, 9),
    ],
)
def test_products(m, n, k, dtype):
    make = Make()
    b = make.b
    x, y = make.input(m, k, dtype=dtype), make.input(k, n, dtype=dtype)
    check(make, b.contract(b.tanh(x), y, contract=((1,), (0,)), batch=((), ())), 100)


def test_batched_and_permuted_products():
    make = Make()
    b = make.b
    x, y = make.input(3, 12, 20), make.input(3, 20, 15)
    check(make, b.contract(x, y, contract=((2,), (1,)), batch=((0,), (0,))), 100)
    make = Make()
    b = make.b
    x, y = make.input(12, 3, 20), make.input(20, 15, 3)
    check(make, b.contract(x, y, contract=((2,), (0,)), batch=((1,), (2,))), 100)
    make = Make()
    b = make.b
    x, y = make.input(12, 6, 5), make.input(5, 14, 6)
    check(make, b.contract(x, y, contract=((1, 2), (2, 0)), batch=((), ())), 100)


@pytest.mark.slow
def test_scalar_program_splits_into_kernels():
    make = Make()
    b = make.b
    x = make.input()
    y = x
    for i in range(3000):
        y = b.add(b.mul(y, 0.999 + i * 1e-7), b.tanh(b.mul(x, 1e-3)))
    check(make, y, 1000)


def test_results_do_not_depend_on_threads():
    import subprocess
    import sys

    code = """
import hashlib, numpy as np, graphjit
rng = np.random.default_rng(0)
w, x = rng.normal(size=(300, 200)), rng.normal(size=(400, 300))
f = graphjit.value_and_grad(lambda w, x: np.sum(np.tanh(x @ w)) + np.mean(np.exp(x)), argnums=(0, 1))
value, (dw, dx) = f(w, x)
print(hashlib.sha256(value.tobytes() + dw.tobytes() + dx.tobytes()).hexdigest())
"""
    import os

    seen = set()
    for threads in "1238":
        env = os.environ | {"GRAPHJIT_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [63, 64, 1000, 4099])
def test_chains_of_elementary_functions_run_side_by_side(dtype, size):
    x, y = np.random.default_rng(size).normal(size=(2, size)).astype(dtype)

    def chain(x, y):
        t = x
        for _ in range(4):
            t = np.hypot(np.tanh(t * y), np.logaddexp(t, y)) - 0.3
        return np.cos(t)

    graph = graphjit.jit(chain).dispatcher.staged(x, y).graph
    made = pipeline.compile_graph(graph)
    assert ("x4(" in made.module.render()) == (size >= 64)
    single = graphjit.jit(chain)
    alone = np.array([single(*(v[i : i + 1] for v in (x, y)))[0] for i in range(size)])
    np.testing.assert_array_equal(graphjit.jit(chain)(x, y), alone)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_of_64_bits_become_the_nearest_float64(dtype):
    info = np.iinfo(dtype)
    powers = [base + step for base in (2**31, 2**32, 2**52, 2**53, 2**54, 2**62) for step in range(-3, 4)]
    numbers = [info.min, info.max, info.max - 511, info.max - 512, info.max - 513, *powers]
    numbers += [2**63 + step for step in (0, 1, 1023, 1024, 1025)] if info.min == 0 else [-n for n in powers]
    drawn = np.random.default_rng(0).integers(info.min, info.max, 1000, dtype)
    x = np.concatenate([np.array(numbers, dtype), drawn])
    np.testing.assert_array_equal(graphjit.jit(lambda x: x.astype(np.float64))(x), x.astype(np.float64))
