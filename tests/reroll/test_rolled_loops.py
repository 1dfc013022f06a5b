"""Python loops rolled up again: the values of the unrolled graph bit by bit, the same derivatives, and graphs
whose size does not depend on the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, with_bodies
from graphjit.ir.verify import verify
from graphjit.trace.pytree import flatten
from tests.harness.control.loop_programs import PROGRAMS, Program, rnn, some


def graph_of(function: Callable[..., Any], args: tuple[Any, ...], **options: Any) -> Graph:
    graph = graphjit.jit(function, **options).dispatcher.staged(*args).graph
    verify(graph)
    return graph


def computed(graph: Graph, args: tuple[Any, ...]) -> list[np.ndarray]:
    return interpret(graph, *map(np.asarray, flatten(args)[0]))


def loops(graph: Graph) -> int:
    return sum(node.op.name == "scan" for node in with_bodies(graph))


def total(function: Callable[..., Any]) -> Callable[..., Any]:
    """The sum of all that a function computes, each element with a weight of its own."""

    def summed(*args: Any) -> Any:
        leaves = flatten(function(*args))[0]
        return sum(np.sum(x * np.cos(np.arange(np.size(x)).reshape(np.shape(x)))) for x in leaves)

    return summed


@pytest.mark.sample(2)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.function.__name__)
def test_values_bit_by_bit(program: Program) -> None:
    function, args, count = program
    plain, rolled = graph_of(function, args, reroll=False), graph_of(function, args)
    assert loops(plain) == 0
    assert loops(rolled) >= count
    assert len(rolled) < max(80, len(plain) / 3)
    for before, after in zip(computed(plain, args), computed(rolled, args), strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


@pytest.mark.sample(10)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.function.__name__)
def test_gradients_and_tangents(program: Program) -> None:
    function, args, _ = program
    everything = tuple(range(len(args)))
    value = total(function)

    def both(*args: Any) -> Any:
        gradient = graphjit.grad(value, everything)
        return gradient(*args), graphjit.jvp(value, args, gradient(*args))[1]

    plain, rolled = (graph_of(both, args, reroll=flag) for flag in (False, True))
    assert loops(rolled) >= 2
    for before, after in zip(computed(plain, args), computed(rolled, args), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-11, atol=1e-12)


@pytest.mark.sample(2)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.function.__name__)
def test_compiled(program: Program) -> None:
    function, args, _ = program
    expected = flatten(function(*args))[0]
    found = flatten(graphjit.jit(function)(*args))[0]
    for x, y in zip(expected, found, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-9, atol=1e-11)


def test_size_does_not_depend_on_the_number_of_steps() -> None:
    def nodes(steps: int) -> list[int]:
        args = (some(4, 3), some(4, 4), some(4), some(steps, 3), some(4))
        gradient = graphjit.value_and_grad(total(rnn), (0, 1, 2, 3, 4))
        return [len(list(with_bodies(graph_of(f, args)))) for f in (rnn, gradient)]

    assert nodes(60) == nodes(300)
