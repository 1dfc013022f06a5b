"""Concatenations that nobody copies: each piece is written where it belongs in the joined array."""

from __future__ import annotations

import numpy as np
from compiled_harness import Make, check, run

from graphjit import pipeline
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node
from graphjit.schedule.program import Kernel


def steps(graph: Graph) -> list:
    return pipeline.schedule(pipeline.optimize(graph))[1].steps


def split_columns(make: Make, x: Node) -> list[Node]:
    n, k = x.shape
    return [make.b.slice(x, starts=(0, c), limits=(n, c + 1), steps=(1, 1)) for c in range(k)]


def test_pieces_of_a_result_are_written_in_place_by_one_kernel():
    make = Make()
    b = make.b
    x, y, z = split_columns(make, make.input(50, 3))
    out = b.concatenate(b.mul(y, z), b.sub(x, y), b.exp(z), axis=1)
    found = steps(make.graph(out))
    assert len(found) == 1
    assert isinstance(found[0], Kernel)
    program = pipeline.schedule(pipeline.optimize(make.graph(out)))[1]
    assert program.arena == 0
    check(make, out)


def test_nested_pieces_go_to_the_outermost():
    make = Make()
    b = make.b
    x, y = split_columns(make, make.input(20, 2))
    rows = [
        b.reshape(b.concatenate(b.mul(x, f), b.add(y, f), axis=1), shape=(20, 1, 2)) for f in (2.0, 3.0, 4.0)
    ]
    out = b.concatenate(*rows, axis=1)
    assert len(steps(make.graph(out))) == 1
    check(make, out)


def test_arguments_constants_products_and_repeated_pieces():
    make = Make()
    b = make.b
    x = make.input(40, 40)
    product = b.contract(x, x, contract=((1,), (0,)), batch=((), ()))
    e = b.exp(x)
    first = b.concatenate(
        x, e, product, e, b.full(2.5, e.type), b.broadcast_to(b.sum(x, axes=(0,)), shape=(3, 40)), axis=0
    )
    check(make, first, 100)
    # Read by a kernel, by a product, and as a result; its pieces are used elsewhere as well.
    second = b.concatenate(e, b.mul(e, 2.0), axis=1)
    out = b.add(
        b.contract(second, second, contract=((1,), (1,)), batch=((), ())),
        b.mul(e, make.spread(b.sum(second, axes=(0, 1)), (40, 40), (0, 1))),
    )
    values = [np.random.default_rng(3).normal(size=(40, 40))]
    graph = make.graph(out, second, first)
    for got, want in zip(run(graph, values), interpret(graph, *values), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11)


def test_a_value_joined_in_a_kernel_is_not_read_in_it():
    make = Make()
    b = make.b
    x = make.input(64)
    joined = b.concatenate(b.exp(x), b.sin(x), axis=0)
    even = b.slice(joined, starts=(0,), limits=(127,), steps=(2,))
    out = b.add(b.mul(even, x), b.slice(joined, starts=(32,), limits=(96,), steps=(1,)))
    graph = make.graph(out, joined)
    values = [np.random.default_rng(3).normal(size=64)]
    for got, want in zip(run(graph, values), interpret(graph, *values), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
