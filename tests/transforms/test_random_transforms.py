"""Random programs with bodies, rules and batches: compiled = interpreter, vmap = stack of calls, forward mode
= reverse mode = differences.

A failure shrinks and prints the IR of what is left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from compiled_harness import run
from op_matrix import batch_graph, jvp_graph, stacked, vjp_graph
from random_graphs import random_graph, random_inputs, rng_for
from shrinking import shrink

from graphjit.interpret import interpret
from graphjit.ir.node import Graph
from graphjit.ir.printer import print_graph
from graphjit.ir.types import F64
from graphjit.running.instruments import first_difference, rounding

SIZE = 3


def varies(graph: Graph, seed: int) -> list[bool]:
    """Which inputs vary; one at least."""
    rng = np.random.default_rng([seed, 5])
    flags = [bool(rng.random() < 0.6) for _ in graph.inputs]
    flags[int(rng.integers(len(flags)))] = True
    return flags


def batch_inputs(graph: Graph, seed: int, flags: list[bool]) -> list[np.ndarray]:
    """Arguments of a batch whose elements are all tame: the same numbers, a little further each time."""
    given = random_inputs(graph, rng_for(seed))
    moved = []
    for x, flag in zip(given, flags, strict=True):
        if not flag:
            moved.append(x)
        elif x.dtype.kind == "f":
            moved.append(np.stack([x * x.dtype.type(1 + 1e-4 * i) for i in range(SIZE)]))
        else:
            moved.append(stacked(x, 1).repeat(SIZE, 0))
    return moved


def batch_differs(graph: Graph, seed: int) -> bool:
    """Whether a batch is not the stack of its elements, compiled or interpreted."""
    flags = varies(graph, seed)
    given = batch_inputs(graph, seed, flags)
    wide = batch_graph(graph, flags, SIZE)
    calls = [
        interpret(graph, *[x[i] if flag else x for x, flag in zip(given, flags, strict=True)])
        for i in range(SIZE)
    ]
    want = [np.stack(parts) for parts in zip(*calls, strict=True)]
    rtol = 10 * rounding(graph)
    for found in (interpret(wide, *given), run(wide, given)):
        if any(first_difference(g, w, rtol) is not None for g, w in zip(found, want, strict=True)):
            return True
    return False


def derivatives_differ(graph: Graph, seed: int) -> bool:
    """Whether modes, differences, or compiled derivatives disagree."""
    rng = np.random.default_rng([seed, 6])
    args = random_inputs(graph, rng_for(seed))
    forward, reverse = jvp_graph(graph), vjp_graph(graph)
    v = [np.asarray(rng.normal(size=n.shape)).astype(n.dtype) for n in forward.inputs[len(args) :]]
    u = [np.asarray(rng.normal(size=n.shape)).astype(n.dtype) for n in reverse.inputs[len(args) :]]
    pushed, pulled = interpret(forward, *args, *v), interpret(reverse, *args, *u)
    scale = sum(float(np.abs(x).sum(dtype=F64)) for x in (*pushed, *pulled, *u, *v))
    left = sum(float(np.sum(a.astype(F64) * b)) for a, b in zip(u, pushed, strict=True))
    right = sum(float(np.sum(a.astype(F64) * b)) for a, b in zip(v, pulled, strict=True))
    rtol = 100 * rounding(graph)
    if abs(left - right) > rtol * scale:
        return True
    for made, given, want in ((forward, [*args, *v], pushed), (reverse, [*args, *u], pulled)):
        found = run(made, given)
        if any(first_difference(g, w, rtol) is not None for g, w in zip(found, want, strict=True)):
            return True
    return differs_from_differences(graph, args, v, pushed)


def differs_from_differences(
    graph: Graph, args: list[np.ndarray], v: list[np.ndarray], pushed: list[np.ndarray]
) -> bool:
    """Whether tangents are not those of central differences, as far as two step sizes agree with each
    other.
    """
    if rounding(graph) > 1e-6:
        return False

    def moved(h: float) -> list[np.ndarray]:
        rest = iter(v)
        return interpret(graph, *[x + h * next(rest) if x.dtype.kind == "f" else x for x in args])

    def difference(h: float) -> list[np.ndarray]:
        pairs = zip(moved(h), moved(-h), strict=True)
        return [(a - b) / (2 * h) for a, b in pairs if a.dtype.kind == "f"]

    for got, coarse, fine in zip(pushed, difference(1e-5), difference(5e-6), strict=True):
        size = 1.0 + float(np.abs(fine).max(initial=0.0))
        trusted = np.abs(coarse - fine) < 1e-6 * size
        if np.any(np.abs(got - fine)[trusted] > 1e-4 * size):
            return True
    return False


def examine(seed: int, graph: Graph, fails: Callable[[Graph, int], bool]) -> None:
    if not fails(graph, seed):
        return

    def guarded(candidate: Graph) -> bool:
        try:
            return fails(candidate, seed)
        except Exception:  # a cut graph may leave the domain of its ops
            return False

    small = shrink(graph, guarded) if guarded(graph) else graph
    pytest.fail(f"{fails.__name__} (seed {seed})\n{print_graph(small)}")


@pytest.mark.sample(2)
@pytest.mark.parametrize("chunk", range(10))
def test_random_batches(chunk: int) -> None:
    for seed in range(10 * chunk, 10 * chunk + 8):
        examine(seed, random_graph(seed, 20), batch_differs)


@pytest.mark.sample(3)
@pytest.mark.parametrize("chunk", range(10))
def test_random_derivatives(chunk: int) -> None:
    for seed in range(10 * chunk, 10 * chunk + 8):
        examine(seed, random_graph(seed, 16, differentiable=True), derivatives_differ)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(40))
def test_two_thousand_programs(chunk: int) -> None:
    """Batches of half of them, derivatives of the other half."""
    for seed in range(10_000 + 50 * chunk, 10_000 + 50 * (chunk + 1)):
        if seed % 2:
            examine(seed, random_graph(seed, 20), batch_differs)
        else:
            examine(seed, random_graph(seed, 16, differentiable=True), derivatives_differ)
