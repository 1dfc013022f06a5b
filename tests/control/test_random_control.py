"""Random programs with loops and choices: derivatives are those of the program without control flow, batches
are stacks of calls, through the interpreter.

A failure shrinks and prints the IR of what is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from control.straight_line import straight_line
from op_matrix import batch_graph, jvp_graph, stack_of_calls, stacked, vjp_graph
from random_graphs import random_graph, random_inputs, rng_for
from shrinking import shrink

from graphjit.interpret import interpret
from graphjit.ir.node import Graph
from graphjit.ir.parser import parse_graph
from graphjit.ir.printer import print_graph
from graphjit.ir.verify import verify
from graphjit.running.instruments import first_difference, rounding

SIZE = 3
ORDERS = [(), (jvp_graph,), (vjp_graph,), *itertools.product((jvp_graph, vjp_graph), repeat=2)]


def differs(graph: Graph, got: list[np.ndarray], want: list[np.ndarray], factor: float = 100.0) -> bool:
    """Whether values are not the same up to rounding, as the largest of them rounds."""
    size = max((float(np.abs(w).max(initial=0.0)) for w in want if w.dtype.kind == "f"), default=0.0)
    rtol = factor * rounding(graph)
    for g, w in zip(got, want, strict=True):
        if first_difference(g, w, rtol) is not None and not np.allclose(
            g, w, rtol=rtol, atol=rtol * (1 + size)
        ):
            return True
    return False


def derivative_differs(graph: Graph, seed: int) -> bool:
    """Whether a derivative of any order up to two is another than without control flow."""
    args, rng = random_inputs(graph, rng_for(seed)), np.random.default_rng([seed, 7])
    straight = straight_line(graph, args)
    for order in ORDERS:
        made, wanted = graph, straight
        for derive in order:
            made, wanted = derive(made), derive(wanted)
        verify(made)
        if parse_graph(print_graph(made, locations=False)).key() != made.key():
            return True
        rest = made.inputs[len(args) :]
        given = [*args, *(np.asarray(rng.normal(size=x.shape)).astype(x.dtype) for x in rest)]
        if differs(straight, interpret(made, *given), interpret(wanted, *given)):
            return True
    return False


def batch_differs(graph: Graph, seed: int) -> bool:
    """Whether a batch, of the program or of a derivative, is not the stack of its elements."""
    rng = np.random.default_rng([seed, 5])
    derive = ORDERS[int(rng.integers(3))]
    made = derive[0](graph) if derive else graph
    args = random_inputs(graph, rng_for(seed))
    given = [*args, *(np.asarray(rng.normal(size=x.shape)).astype(x.dtype) for x in made.inputs[len(args) :])]
    flags = [bool(rng.random() < 0.6) for _ in given]
    flags[int(rng.integers(len(flags)))] = True
    wide = [
        np.stack([x * x.dtype.type(1 + 0.1 * i) for i in range(SIZE)])
        if flag and x.dtype.kind == "f"
        else stacked(x, SIZE)
        if flag
        else x
        for x, flag in zip(given, flags, strict=True)
    ]
    over = batch_graph(made, flags, SIZE)
    verify(over)
    return differs(graph, interpret(over, *wide), stack_of_calls(made, wide, flags, SIZE))


def examine(seed: int, graph: Graph, fails: Callable[[Graph, int], bool]) -> None:
    if not fails(graph, seed):
        return

    def guarded(candidate: Graph) -> bool:
        try:
            return fails(candidate, seed)
        except Exception:  # a cut graph may leave the domain of its ops
            return False

    small = shrink(graph, guarded, 300)
    pytest.fail(f"{fails.__name__} (seed {seed})\n{print_graph(small)}")


@pytest.mark.parametrize("chunk", range(8))
def test_random_derivatives(chunk: int) -> None:
    for seed in range(5 * chunk, 5 * chunk + 5):
        graph = random_graph(30_000 + seed, 12, differentiable=True, control=True)
        examine(30_000 + seed, graph, derivative_differs)


@pytest.mark.parametrize("chunk", range(8))
def test_random_batches(chunk: int) -> None:
    for seed in range(5 * chunk, 5 * chunk + 5):
        graph = random_graph(40_000 + seed, 12, differentiable=True, control=True)
        examine(40_000 + seed, graph, batch_differs)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(40))
def test_a_thousand_programs(chunk: int) -> None:
    """Derivatives of half of them, batches of the other half."""
    for seed in range(50_000 + 25 * chunk, 50_000 + 25 * (chunk + 1)):
        graph = random_graph(seed, 14, differentiable=True, control=True)
        examine(seed, graph, derivative_differs if seed % 2 else batch_differs)
