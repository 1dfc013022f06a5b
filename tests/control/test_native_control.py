"""Loops and choices as native code, and as Python for Numba, beside the interpreter."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from compiled_harness import with_gradient
from random_graphs import random_graph, random_inputs, rng_for

import graphjit
from graphjit import compilation, pipeline
from graphjit.backend.executable import Executable
from graphjit.backend.llvm.kernels import quotients
from graphjit.interpret import evaluate, interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.parser import parse_graph
from graphjit.ir.types import BOOL, F64, I64, Type
from graphjit.limits import Limits, host_limits
from graphjit.loops.ir import Repeat, walk
from graphjit.running.instruments import Compare
from graphjit.running.runner import Runner

Fill = Callable[..., Sequence[Node]]


def f64(*shape: int) -> Type:
    return Type(F64, shape)


def body(b: Builder, types: Sequence[Type], fill: Fill) -> Body:
    inputs = [b.input(type, f"x{i}") for i, type in enumerate(types)]
    return Body(Graph("body", inputs, list(fill(*inputs))))


def items(b: Builder, node: Node) -> list[Node]:
    return [b.item(node, index=k) for k in range(len(node.parts))]


def scan(
    b: Builder,
    constants: Sequence[Node],
    carries: Sequence[Node],
    arrays: Sequence[Node],
    fill: Fill,
    length: int,
    reverse: bool = False,
) -> list[Node]:
    slices = [x.type.with_shape(x.shape[1:]) for x in arrays]
    inner = body(b, [*(x.type for x in (*constants, *carries)), *slices], fill)
    attrs: dict[str, Any] = {"carried": len(carries), "sliced": len(arrays), "length": length}
    return items(b, b.scan(*constants, *carries, *arrays, body=inner, reverse=reverse, **attrs))


def while_(
    b: Builder, constants: Sequence[Node], carries: Sequence[Node], test: Fill, fill: Fill
) -> list[Node]:
    types = [x.type for x in (*constants, *carries)]
    node = b.emit(
        "while",
        *constants,
        *carries,
        test=body(b, types, test),
        body=body(b, types, fill),
        carried=len(carries),
        taped=0,
    )
    return items(b, node)


def cond(b: Builder, which: Node, operands: Sequence[Node], *fills: Fill) -> list[Node]:
    types = [x.type for x in operands]
    return items(b, b.cond(which, *operands, branches=tuple(body(b, types, fill) for fill in fills)))


def check(graph: Graph, *inputs: Any) -> list[np.ndarray]:
    """Both back ends, and every pass, compute what the interpreter does; its results."""
    arrays = [np.asarray(x, node.dtype) for x, node in zip(inputs, graph.inputs, strict=True)]
    wanted = interpret(graph, *arrays)
    for backend in ("llvm", "numba"):
        found = compilation.executable(graph, backend).run([np.ascontiguousarray(x) for x in arrays])
        for got, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13, err_msg=backend)
    pipeline.compile_graph(graph, runner=Runner([Compare()]))
    return wanted


@pytest.mark.sample(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_carries_and_stacked_results(length: int, reverse: bool) -> None:
    b = Builder()
    w, h, k, x = (
        b.input(t, n) for t, n in ((f64(3), "w"), (f64(3), "h"), (Type(I64, ()), "k"), (f64(length, 3), "x"))
    )
    one = b.const(1, I64)

    def step(w: Node, h: Node, k: Node, x: Node) -> list[Node]:
        new = b.tanh(b.add(b.mul(w, h), x))
        return [new, b.add(k, one), b.sum(new, axes=(0,)), x, b.lt(k, b.const(2, I64))]

    rng = np.random.default_rng(0)
    graph = Graph("f", [w, h, k, x], scan(b, [w], [h, k], [x], step, length, reverse))
    found = check(graph, rng.normal(size=3), rng.normal(size=3), 5, rng.normal(size=(length, 3)))
    assert found[1] == 5 + length


def test_swapped_carries_and_results_that_nobody_reads() -> None:
    b = Builder()
    p, q = b.input(f64(), "p"), b.input(f64(), "q")
    made = scan(b, [], [p, q], [], lambda p, q: [q, b.add(p, q), b.mul(p, p)], 10)
    assert check(Graph("fibonacci", [p, q], made[:1]), 0.0, 1.0)[0] == 55
    check(Graph("squares", [p, q], made[2:]), 0.0, 1.0)
    check(Graph("twice", [p, q], [made[0], made[0], b.add(made[0], made[1])]), 0.0, 1.0)


@pytest.mark.parametrize("n", [4, 64, 300])
def test_products_in_loops(n: int) -> None:
    b = Builder()
    w, h, x = b.input(f64(n, n), "w"), b.input(f64(n), "h"), b.input(f64(5, n), "x")

    def step(w: Node, h: Node, x: Node) -> list[Node]:
        new = b.tanh(b.add(b.contract(w, h, contract=((1,), (0,)), batch=((), ())), x))
        return [new, new]

    rng = np.random.default_rng(1)
    check(
        Graph("rnn", [w, h, x], scan(b, [w], [h], [x], step, 5)),
        rng.normal(size=(n, n)) / n,
        rng.normal(size=n),
        rng.normal(size=(5, n)),
    )


@pytest.mark.slow
def test_large_carries_and_arenas() -> None:
    b = Builder()
    x = b.input(f64(300, 200), "x")

    def step(x: Node) -> list[Node]:
        y = b.contract(x, x, contract=((1,), (1,)), batch=((), ()))
        z = b.contract(b.tanh(y), x, contract=((1,), (0,)), batch=((), ()))
        return [b.mul(z, b.full(1e-2, z.type))]

    graph = Graph("powers", [x], scan(b, [], [x], [], step, 4))
    check(graph, np.random.default_rng(2).normal(size=(300, 200)) / 20)


def test_while_runs_until_its_test_fails() -> None:
    b = Builder()
    a, x = b.input(f64(), "a"), b.input(f64(), "x")

    def goes_on(a: Node, x: Node, n: Node) -> list[Node]:
        far = b.gt(b.abs(b.sub(b.mul(x, x), a)), b.const(1e-12, F64))
        return [b.emit("and", far, b.lt(n, b.const(50, I64)))]

    def step(a: Node, x: Node, n: Node) -> list[Node]:
        half = b.const(0.5, F64)
        return [b.mul(half, b.add(x, b.div(a, x))), b.add(n, b.const(1, I64))]

    graph = Graph("sqrt", [a, x], while_(b, [a], [x, b.const(0, I64)], goes_on, step))
    for start in (1.0, 2.0**0.5, 1e9):
        found = check(graph, 2.0, start)
        assert found[0] == pytest.approx(2.0**0.5, rel=1e-12)
    assert check(graph, 2.0, 2.0**0.5)[1] == 0


@pytest.mark.parametrize("which", [-5, 0, 1, 2, 9])
def test_choices(which: int) -> None:
    b = Builder()
    k, x, y = b.input(Type(I64, ()), "k"), b.input(f64(6), "x"), b.input(f64(6), "y")
    made = cond(
        b,
        k,
        [x, y],
        lambda x, y: [x, y],
        lambda x, y: [b.mul(x, y), b.mul(x, y)],
        lambda x, y: [b.full(3.0, x.type), b.sin(y)],
    )
    check(Graph("f", [k, x, y], [*made, b.add(*made)]), which, np.arange(6.0), np.ones(6))


def test_loops_inside_of_loops_and_choices() -> None:
    b = Builder()
    x, limit = b.input(f64(4, 3), "x"), b.input(f64(), "limit")

    def grown(row: Node, limit: Node) -> list[Node]:
        return while_(
            b,
            [limit],
            [row],
            lambda limit, row: [b.lt(b.sum(row, axes=(0,)), limit)],
            lambda limit, row: [b.add(row, row)],
        )

    def step(limit: Node, total: Node, row: Node) -> list[Node]:
        small = b.convert(b.lt(b.sum(row, axes=(0,)), limit), dtype=I64)
        (new,) = cond(b, small, [row, limit], lambda row, limit: [b.neg(row)], grown)
        (powers,) = scan(b, [new], [new], [], lambda w, h: [b.mul(w, h)], 2)
        return [b.add(total, b.sum(new, axes=(0,))), powers]

    graph = Graph("f", [x, limit], scan(b, [limit], [b.const(0.0, F64)], [x], step, 4))
    check(graph, np.random.default_rng(3).uniform(0.1, 4.0, (4, 3)), 5.0)


def test_errors_inside_of_loops() -> None:
    b = Builder()
    k, n = b.input(Type(I64, ()), "k"), b.input(Type(I64, (4,)), "n")
    graph = Graph("f", [k, n], scan(b, [], [k], [n], lambda k, n: [b.floor_divide(k, n)], 4))
    for backend in ("llvm", "numba"):
        code = compilation.executable(graph, backend)
        assert code.run([np.array(64), np.array([2, 2, 2, 2])])[0] == 4
        with pytest.raises(ZeroDivisionError):
            code.run([np.array(64), np.array([2, 0, 2, 2])])


def test_ctrl_c_ends_a_loop_that_never_ends() -> None:
    b = Builder()
    x = b.input(f64(), "x")
    graph = Graph(
        "f", [x], while_(b, [], [x], lambda x: [b.ge(x, x)], lambda x: [b.add(x, b.const(1.0, F64))])
    )
    code = compilation.executable(graph, "llvm")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            code.run([np.array(1.0)])
        assert time.monotonic() - start < 5.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_does_not_change_the_loop_is_not_copied() -> None:
    b = Builder()
    x, h = b.input(f64(100, 50), "x"), b.input(f64(50), "h")
    made = scan(b, [], [h], [x], lambda h, x: [b.add(b.flip(h, axes=(0,)), x)], 100)
    compiled = pipeline.compile_graph(Graph("f", [x, h], made))
    assert [step.name for step in compiled.program.steps] == ["k0"]
    assert list(compiled.kernels) == ["k0_body_k0"]
    # The other place of the carry, and nothing else.
    assert compiled.program.arena <= 512


def test_a_bool_carry() -> None:
    b = Builder()
    p, x = b.input(Type(BOOL, (3,)), "p"), b.input(f64(5, 3), "x")
    made = scan(
        b, [], [p], [x], lambda p, x: [b.emit("or", p, b.gt(x, b.full(0.9, x.type))), b.mul(x, 0.0)], 5
    )
    check(Graph("any", [p, x], made), np.zeros(3, bool), np.random.default_rng(4).uniform(size=(5, 3)))


NEWTON = """graph newton
  %0 = input name='a' : f64[]
  %1 = input name='x' : f64[]
  %2 = while %0 %1 test={
    graph far
      %0 = input name='a' : f64[]
      %1 = input name='x' : f64[]
      %2 = mul %1 %1 : f64[]
      %3 = sub %2 %0 : f64[]
      %4 = abs %3 : f64[]
      %5 = const value=1e-12 : f64[]
      %6 = gt %4 %5 : bool[]
      return %6
  } body={
    graph step
      %0 = input name='a' : f64[]
      %1 = input name='x' : f64[]
      %2 = div %0 %1 : f64[]
      %3 = add %1 %2 : f64[]
      %4 = const value=0.5 : f64[]
      %5 = mul %4 %3 : f64[]
      return %5 %1
  } carried=1 taped=1 : (f64[], tape(f64[])[])
  %3 = item %2 index=0 : f64[]
  %4 = item %2 index=1 : tape(f64[])[]
  %5 = const value=0.0 : f64[]
  %6 = unwind %5 %4 body={
    graph sum
      %0 = input name='total' : f64[]
      %1 = input name='x' : f64[]
      %2 = add %0 %1 : f64[]
      return %2
  } carried=1 tapes=1 : (f64[])
  %7 = item %6 index=0 : f64[]
  return %3 %7
"""


@pytest.mark.parametrize("in_registers", [True, False])
def test_tapes(in_registers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_registers:
        monkeypatch.setattr("graphjit.schedule.loops.control.runs_in_registers", lambda *_: False)
    graph = parse_graph(NEWTON)
    for start in (1.0, 2.0**0.5, 1e200):
        xs = [start]
        while abs(xs[-1] * xs[-1] - 2.0) > 1e-12:
            xs.append(0.5 * (xs[-1] + 2.0 / xs[-1]))
        _, total = check(graph, 2.0, start)
        assert total == pytest.approx(sum(xs[:-1]), rel=1e-12)
    lowered = pipeline.compile_graph(graph)
    assert (
        any(step.name.endswith("body_k0") for inner in lowered.program.with_inner() for step in inner.steps)
        is not in_registers
    )


def test_long_tapes_take_several_blocks_and_are_used_again() -> None:
    b = Builder()
    x = b.input(f64(50), "x")
    n = b.input(Type(I64, ()), "n")
    types = [n.type, n.type, x.type]
    test = body(b, types, lambda n, i, x: [b.lt(i, n)])
    step = body(b, types, lambda n, i, x: [b.add(i, b.const(1, I64)), b.add(x, 1.0), x])
    node = b.emit("while", n, b.const(0, I64), x, test=test, body=step, carried=2, taped=1)
    tape = b.item(node, index=2)
    add = body(b, [x.type, x.type], lambda total, x: [b.add(total, x)])
    total = b.item(b.unwind(b.full(0.0, x.type), tape, body=add, carried=1, tapes=1), index=0)
    code = compilation.executable(Graph("f", [n, x], [total]), "llvm")
    start = np.arange(50.0)
    for count in (0, 1, 3_000, 20, 10_000, 5):
        (found,) = code.run([np.array(count), start])
        np.testing.assert_allclose(found, count * start + count * (count - 1) / 2, rtol=1e-12)


def test_elements_of_a_batch_take_their_own_numbers_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(x: Any) -> Any:
        return graphjit.while_loop(lambda s: s[0] > 1.0, lambda s: (s[0] * 0.5, s[1] + 1), (x, 0))[1]

    x = np.repeat(2.0 ** np.arange(1, 101), 3)
    trips = np.repeat(np.arange(1, 101), 3)
    counted = graphjit.vmap(halved)
    np.testing.assert_array_equal(counted(x), trips)
    graph = pipeline.optimize(graphjit.make_graph(counted)(x))
    steps = 0

    def counting(node: Node, args: Any) -> Any:
        nonlocal steps
        steps += node.op.name == "mul"
        return evaluate(node, args)

    monkeypatch.setattr("graphjit.interpret.evaluate", counting)
    interpret(graph, x)
    assert steps == trips.sum()
    # Each element has a loop of its own in one kernel, and the elements run on threads.
    (kernel,) = [k for k in pipeline.compile_graph(graph).kernels.values() if "scan" in k.comment]
    assert any(isinstance(s, Repeat) for s in walk(kernel.body))


@pytest.mark.parametrize("in_registers", [True, False])
def test_a_loop_in_which_something_fails_ends(in_registers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_registers:
        monkeypatch.setattr("graphjit.schedule.loops.control.runs_in_registers", lambda *_: False)
    b = Builder()
    k, n = b.input(Type(I64, ()), "k"), b.input(Type(I64, ()), "n")

    def step(k: Node, n: Node) -> list[Node]:
        return [b.floor_divide(n, k)]

    graph = Graph(
        f"f{in_registers}", [k, n], while_(b, [k], [n], lambda k, n: [b.gt(n, b.const(1, I64))], step)
    )
    for backend in ("llvm", "numba"):
        code = compilation.executable(graph, backend)
        assert code.run([np.array(2), np.array(64)])[0] == 1
        with pytest.raises(ZeroDivisionError):
            code.run([np.array(0), np.array(64)])


def test_many_small_loops_over_arrays_of_their_own() -> None:
    rng = np.random.default_rng(8)
    starts, xs, shift = rng.normal(size=20_000), rng.normal(size=(20_000, 6)), 0.25

    def filtered(start: Any, row: Any, shift: Any) -> Any:
        def step(s: Any) -> Any:
            i, level = s
            return i + 1, 0.5 * level + row.sum() + shift

        return graphjit.while_loop(lambda s: s[0] < 3, step, (0, start))[1]

    def all_of_them(starts: Any, xs: Any, shift: Any) -> Any:
        return graphjit.map(lambda one: filtered(*one, shift), (starts, xs))

    compiled = pipeline.compile_graph(graphjit.make_graph(all_of_them)(starts, xs, shift))
    loops = [s for k in compiled.kernels.values() for s in k.body if getattr(s, "kind", "") == "parallel"]
    assert any(isinstance(s, Repeat) for s in walk(tuple(loops)))
    wanted = starts
    for _ in range(3):
        wanted = 0.5 * wanted + xs.sum(axis=1) + shift
    np.testing.assert_allclose(graphjit.jit(all_of_them)(starts, xs, shift), wanted, rtol=1e-12)


DIVISORS = (3.0, -7.0, 0.1, 1e-9, 6.02e23, np.pi, 2.0**90 * 1.1, 5e-324, 1e300, -np.nextafter(2.0, 1.0))


def refused_divisor() -> float:
    """One whose product is not the quotient for some number."""
    candidates = np.random.default_rng(0).uniform(1.0, 2.0, 3000)
    return float(next(y for y in candidates if quotients.halves(float(y)) is None))


def test_quotients_by_numbers_are_exact() -> None:
    """Steps multiply where they may; every bit is that of the division, at the hardest numbers as well."""
    divisors = (*DIVISORS, refused_divisor())
    assert [quotients.halves(y) is not None for y in divisors] == [True] * 7 + [False] * 2 + [True, False]
    rng = np.random.default_rng(1)
    plain = rng.normal(size=2000) * 2.0 ** rng.integers(-1074, 1020, 2000)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -(2.0**-1022), 2.0**-969, 1e-290, 1.7e308]
    numbers = np.array([*special, *plain, *hard_dividends(divisors)])
    assert len(numbers) > 2020

    def step(largest: Any, x: Any) -> Any:
        return np.maximum(largest, x), tuple(x / y for y in divisors)

    compiled = graphjit.jit(lambda xs: graphjit.scan(step, 0.0, xs))
    assert any("llvm.fma" in line for line in compiled.lower(numbers).as_text("llvm").splitlines())
    with np.errstate(all="ignore"):
        for y, found in zip(divisors, compiled(numbers)[1], strict=True):
            np.testing.assert_array_equal(found.view(np.int64), (numbers / y).view(np.int64), str(y))


def hard_dividends(divisors: Sequence[float]) -> list[float]:
    """Numbers whose quotients lie next to the middle between two numbers, at several scales."""
    found = []
    for y in divisors:
        whole = int(np.ldexp(np.frexp(abs(y))[0], quotients.DIGITS))
        hard = quotients.doubtful(whole, Fraction(1, 2**156))  # a wider net than the proof needs
        found += [np.ldexp(float(x), scale) for x in hard for scale in (-900, -53, 0, 700)]
    return found


def small_systems(n: int, dtype: str) -> Graph:
    """A loop over matrices of n rows: products, a transpose, an inverse, sums along both axes."""

    def step(carry: Any, x: Any) -> Any:
        mean, spread = carry
        spread = spread @ x @ spread.T + np.eye(n, dtype=dtype)
        inverse = np.linalg.inv(spread[:2, :2])
        mean = np.tanh(x @ mean) - spread[0] / np.sum(np.abs(spread), axis=0)
        return (mean, spread / np.max(np.abs(spread))), (inverse @ mean[:2], mean[::-1], mean > 0)

    def f(mean: Any, xs: Any) -> Any:
        return graphjit.scan(step, (mean, np.eye(n, dtype=dtype)), xs)

    return graphjit.make_graph(f)(np.ones(n, dtype), np.ones((5, n, n), dtype))


@pytest.mark.sample(5)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [3, 4, 5, 6, 8])
def test_steps_on_small_matrices(n: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of a step are written out and joined, and elements stay in registers: no bit is another."""
    monkeypatch.setattr("graphjit.schedule.loops.control.runs_in_registers", lambda *_: False)
    graph = small_systems(n, dtype)
    rng = np.random.default_rng(n)
    inputs = [np.asarray(rng.normal(size=x.shape), x.dtype) for x in graph.inputs]
    wanted = interpret(graph, *inputs)
    plain = host_limits().changed(code={"written_out": 0})
    assert kernels_of_steps(graph, plain) > kernels_of_steps(graph, host_limits())
    few = results(graph, inputs, host_limits().changed(code={"joined": 100}))
    for limits in (host_limits(), host_limits().changed(vectors={"vector_bytes": 64})):
        with np.errstate(all="ignore"):
            made = results(graph, inputs, limits)
            apart = results(graph, inputs, limits.changed(code={"written_out": 0}))
        for got, same, want, other in zip(made, apart, wanted, few, strict=True):
            np.testing.assert_array_equal(got, same)
            np.testing.assert_allclose(other, want, rtol=1e-3 if dtype == "float32" else 1e-9)


def kernels_of_steps(graph: Graph, limits: Limits) -> int:
    compiled = pipeline.compile_graph(graph, limits=limits)
    _, *inner = compiled.program.with_inner()
    names = [step.name for program in inner for step in program.steps if step.name in compiled.kernels]
    return sum(bool(compiled.kernels[name].body) for name in names)


def results(graph: Graph, inputs: Sequence[np.ndarray], limits: Limits) -> list[np.ndarray]:
    compiled = pipeline.compile_graph(graph, limits=limits)
    return Executable(compiled.program, compiled.module, compiled.nanoseconds).run(list(inputs))


@pytest.mark.sample(3)
@pytest.mark.parametrize("seed", range(24))
def test_steps_of_random_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written out computes the same bits, whatever it is."""
    monkeypatch.setattr("graphjit.schedule.loops.control.runs_in_registers", lambda *_: False)
    graph = random_graph(60_000 + seed, 16, differentiable=True, control=True)
    graph = with_gradient(graph) if seed % 2 else graph
    inputs = random_inputs(graph, rng_for(seed))
    limits = host_limits().changed(vectors={"vector_bytes": 16 << seed % 3})
    made = results(graph, inputs, limits)
    for got, same in zip(made, results(graph, inputs, limits.changed(code={"written_out": 0})), strict=True):
        np.testing.assert_array_equal(got, same)
