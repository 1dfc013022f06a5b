"""Derivatives and batches of loops and choices, through the interpreter.

The oracle of derivatives is the same program without control flow (`straight_line`), whose own derivatives
are checked by complex steps; that of batches is one call for each element.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from control.programs import PROGRAMS
from control.straight_line import straight_line
from op_matrix import batch_graph, check_derivative, jvp_graph, random_like, stack_of_calls, vjp_graph

from graphjit.interpret import interpret
from graphjit.ir.node import Graph, with_bodies
from graphjit.ir.parser import parse_graph
from graphjit.ir.printer import print_graph
from graphjit.ir.verify import verify

SIZE = 3
NAMES = sorted(PROGRAMS)


def close(graph: Graph, got: list[np.ndarray], want: list[np.ndarray]) -> None:
    """``got`` are values of ``graph``, which may be rounded in another order than what is wanted."""
    single = any(node.dtype == np.float32 for node in with_bodies(graph) if not node.is_bundle)
    rtol = 1e-4 if single else 1e-11
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol)


def checked(graph: Graph) -> Graph:
    """``graph``, which is well formed and reads back."""
    verify(graph)
    assert parse_graph(print_graph(graph)).key() == graph.key()
    return graph


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_computes_the_same(name: str) -> None:
    graph, args = PROGRAMS[name]()
    straight = straight_line(checked(graph), args)
    close(graph, interpret(graph, *args), interpret(straight, *args))
    check_derivative(straight, args, np.random.default_rng(1))


@pytest.mark.parametrize("name", NAMES)
def test_first_order(name: str) -> None:
    graph, args = PROGRAMS[name]()
    straight, rng = straight_line(graph, args), np.random.default_rng(2)
    for derive in (jvp_graph, vjp_graph):
        made, wanted = checked(derive(graph)), derive(straight)
        given = [*args, *random_like(rng, list(made.inputs[len(args) :]))]
        close(made, interpret(made, *given), interpret(wanted, *given))


ORDERS = list(itertools.product((jvp_graph, vjp_graph), repeat=2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "_".join(f.__name__[:3] for f in order))
def test_second_order(name: str, order: tuple) -> None:
    graph, args = PROGRAMS[name]()
    straight, rng = straight_line(graph, args), np.random.default_rng(3)
    first, second = order
    made, wanted = checked(second(first(graph))), second(first(straight))
    given = [*args, *random_like(rng, list(made.inputs[len(args) :]))]
    close(made, interpret(made, *given), interpret(wanted, *given))


def flags_of(graph: Graph, seed: int) -> list[list[bool]]:
    """All inputs of floats vary, or integers too, or some of them."""
    rng = np.random.default_rng(seed)
    some = [bool(rng.random() < 0.5) for _ in graph.inputs]
    some[int(rng.integers(len(some)))] = True
    return [[x.dtype.kind == "f" for x in graph.inputs], [True for _ in graph.inputs], some]


def batch_of(args: list[np.ndarray], flags: list[bool]) -> list[np.ndarray]:
    return [
        np.stack([x + i if x.dtype.kind in "iu" else x * (1 + 0.1 * i) for i in range(SIZE)]) if flag else x
        for x, flag in zip(args, flags, strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_stacks_of_calls(name: str) -> None:
    """Of the program, of both derivatives, and of a batch; derivatives of a batch too."""
    graph, args = PROGRAMS[name]()
    for derive in (lambda graph: graph, jvp_graph, vjp_graph, lambda graph: jvp_graph(vjp_graph(graph))):
        made, rng = derive(graph), np.random.default_rng(4)
        given = [*args, *random_like(rng, list(made.inputs[len(args) :]))]
        for flags in flags_of(made, 5):
            wide = checked(batch_graph(made, flags, SIZE))
            values = batch_of(given, flags)
            close(wide, interpret(wide, *values), stack_of_calls(made, values, flags, SIZE))


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_batches(name: str) -> None:
    graph, args = PROGRAMS[name]()
    for outer, inner in itertools.product(flags_of(graph, 6), repeat=2):
        wide = batch_graph(graph, inner, SIZE)
        twice = checked(batch_graph(wide, outer, SIZE))
        values = batch_of(batch_of(args, inner), outer)
        close(twice, interpret(twice, *values), stack_of_calls(wide, values, outer, SIZE))


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_batches(name: str) -> None:
    """Those of a batch are batches of those."""
    graph, args = PROGRAMS[name]()
    flags = [True for _ in args]
    wide = batch_graph(graph, flags, SIZE)
    for derive in (jvp_graph, vjp_graph):
        made, one = checked(derive(wide)), derive(graph)
        given = [
            *batch_of(args, flags),
            *random_like(np.random.default_rng(7), list(made.inputs[len(args) :])),
        ]
        wanted = stack_of_calls(one, given, [True for _ in given], SIZE)
        close(made, interpret(made, *given), wanted)
        twice = checked(vjp_graph(made))
        more = [*given, *random_like(np.random.default_rng(8), list(twice.inputs[len(given) :]))]
        wanted = stack_of_calls(vjp_graph(one), more, [True for _ in more], SIZE)
        close(twice, interpret(twice, *more), wanted)
