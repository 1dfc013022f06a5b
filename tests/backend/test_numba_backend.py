"""The loop IR as Python: against the interpreter over every op, over random graphs, and compiled by Numba."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from op_matrix import NO_SAMPLES, op_graph, samples_for, special_samples_for
from random_graphs import random_graph, random_inputs, rng_for

import graphjit
from graphjit import pipeline
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, with_bodies
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.types import F64, I64, Type
from graphjit.loops.verify import verify_kernel
from graphjit.transforms.reverse import cotangents

OPS = sorted(name for name in REGISTRY if name not in NO_SAMPLES)


def build(graph: Graph, python: bool = True) -> NumbaExecutable:
    """The graph's Python program; its loop kernels are verified on the way."""
    _, program = pipeline.schedule(pipeline.optimize(graph))
    kernels = pipeline.lower(program)
    for kernel in kernels.values():
        verify_kernel(kernel, len(program.errors))
    return NumbaExecutable(program, kernels, python)


def merged(cases: list[tuple[Graph, list[np.ndarray]]]) -> tuple[Graph, list[np.ndarray]]:
    graph = Graph("merged", [n for g, _ in cases for n in g.inputs], [n for g, _ in cases for n in g.outputs])
    return graph, [np.require(a, requirements="C") for _, arrays in cases for a in arrays]


def check(graph: Graph, args: list[np.ndarray], what: str, python: bool = True, factor: float = 1.0) -> None:
    """Results agree with the interpreter's in dtype, shape and value."""
    wanted = interpret(graph, *args)
    single = any(
        type.dtype == np.float32 for node in with_bodies(graph) for type in node.parts
    )  # what is float64 at the end may come from float32
    for found, want in zip(build(graph, python).run(args), wanted, strict=True):
        assert (found.dtype, found.shape) == (want.dtype, want.shape), what
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(found, want, err_msg=what)
            continue
        tolerance = factor * (1e-12 if want.dtype.itemsize == 8 else 3e-6)
        if single and want.dtype.itemsize == 8:
            tolerance = max(tolerance, 3e-6)
        scale = min(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0.0)))
        np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance * scale, err_msg=what)


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", OPS)
def test_every_op(name):
    """All dtypes, shapes and special values of the op's declaration, as plain Python."""
    op = REGISTRY[name]
    for samples in (samples_for(op), special_samples_for(op)):
        groups: dict[str, list[tuple[Graph, list[np.ndarray]]]] = {}
        for dtype, arrays, attrs in samples:
            groups.setdefault(dtype, []).append((op_graph(op, arrays, attrs), arrays))
        for dtype, cases in groups.items():
            graph, args = merged(cases)
            try:
                interpret(graph, *args)
            except (ArithmeticError, ValueError, LookupError):
                continue  # special values that are run-time errors have a test of their own
            check(graph, args, f"{name} {dtype}", factor=20)


@pytest.mark.parametrize("chunk", range(4))
def test_random_graphs(chunk):
    for seed in range(10 * chunk, 10 * chunk + 10):
        graph = random_graph(seed)
        check(graph, random_inputs(graph, rng_for(seed)), f"seed {seed}", factor=1e4)


def gradient_graph() -> tuple[Graph, list[np.ndarray]]:
    """Products, a softmax row, reductions and their reverse mode in one program."""
    b = Builder()
    x, w = b.input(Type(F64, (12, 16)), "x"), b.input(Type(F64, (16, 8)), "w")
    h = b.tanh(b.contract(x, w, contract=((1,), (0,)), batch=((), ())))
    top = b.broadcast_to(b.reshape(b.max(h, axes=(1,)), shape=(12, 1)), shape=(12, 8))
    e = b.exp(b.sub(h, top))
    total = b.log(b.sum(e, axes=(1,)))
    loss = b.sum(total, axes=(0,))
    found = cotangents(b, {loss: b.const(1.0, F64)}, [x, w])
    rng = np.random.default_rng(3)
    return Graph("loss", [x, w], [loss, *found]), [rng.normal(size=(12, 16)), rng.normal(size=(16, 8))]


def integer_graph() -> tuple[Graph, list[np.ndarray]]:
    """Gather with checks, integer division, comparison, selection, a running sum and a concatenation."""
    b = Builder()
    x, i = b.input(Type(I64, (6,)), "x"), b.input(Type(I64, (4,)), "i")
    taken = b.gather(x, i, axes=(0,))
    parts = [b.floor_divide(taken, i), b.remainder(taken, i), b.pow(taken, b.abs(i))]
    parts.append(b.cumsum(taken, axis=0, reverse=True))
    chosen = b.select(b.gt(taken, i), taken, i)
    joined = b.concatenate(*parts, chosen, axis=0)
    return Graph("ints", [x, i], [joined, b.gt(taken, i)]), [
        np.array([5, -7, 9, -2, 0, 3]),
        np.array([1, -2, 3, -1]),
    ]


@pytest.mark.parametrize("make", [gradient_graph, integer_graph])
def test_python_and_numba_agree_with_the_interpreter(make):
    graph, args = make()
    check(graph, args, "python")
    check(graph, args, "numba", python=False)


def test_special_functions_under_numba():
    b = Builder()
    x = b.input(Type(F64, (9,)), "x")
    names = (
        "bell",
        "half_bell",
        "erf",
        "erfc",
        "erfcx",
        "expit",
        "log_expit",
        "gammaln",
        "digamma",
        "trigamma",
    )
    graph = Graph("special", [x], [b.emit(name, x) for name in names])
    check(
        graph,
        [np.array([-20.3, -3.7, -1e-9, 0.0, 1e-9, 0.4, 2.5, 30.0, 1e10])],
        "special",
        python=False,
        factor=10,
    )


def test_errors_name_the_line_and_the_first_wins():
    @graphjit.jit(backend="numba")
    def pick(x, i):
        return x[i] // i

    x = np.array([10, 20, 30])
    np.testing.assert_array_equal(pick(x, np.array([1, 2])), [20, 15])
    with pytest.raises(
        IndexError, match=r"out of bounds for axis 0 with size 3 \(at .*test_numba_backend\.py:\d+\)"
    ):
        pick(x, np.array([1, 3]))
    with pytest.raises(ZeroDivisionError, match="test_numba_backend"):
        pick(x, np.array([1, 0]))


def test_backend_of_the_transformations():
    def loss(w, x):
        return np.sum(np.sin(x * w)) / x.size

    w, x = np.float64(0.7), np.linspace(0.0, 1.0, 5)
    value, gradient = graphjit.value_and_grad(loss, backend="numba")(w, x)
    wanted, wanted_gradient = graphjit.value_and_grad(loss)(w, x)
    np.testing.assert_allclose((value, gradient), (wanted, wanted_gradient), rtol=1e-14)
    assert type(gradient) is np.float64
    assert graphjit.grad(loss, backend="numba")(w, x) == gradient
    for transformation in (graphjit.jit, graphjit.grad, graphjit.value_and_grad):
        with pytest.raises(ValueError, match="no backend 'gpu'; choose one of 'llvm', 'numba'"):
            transformation(loss, backend="gpu")


def test_the_source_is_a_module_of_its_own():
    graph, args = integer_graph()
    source = build(graph).source
    assert source.startswith("import numpy as np\n")
    namespace: dict[str, object] = {}
    exec(source, namespace)
    out, flags = np.zeros(20, np.int64), np.zeros(4, bool)
    program = namespace["program"]
    program(*args, out, flags, np.empty(4096, np.uint8), np.zeros(1, np.int64))  # type: ignore[operator]
    np.testing.assert_array_equal(out, interpret(graph, *args)[0])


def test_numba_is_imported_only_when_it_compiles():
    code = "import sys, numpy as np, graphjit; graphjit.grad(lambda x: x * x)(2.0); assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
