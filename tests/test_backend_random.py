"""Random graphs through the whole pipeline: compiled = interpreted, forward and gradient; failures shrink to IR text."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import random_graph, random_inputs, rng_for, shrink

from graphjit.dispatch import executable
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph
from graphjit.ir.printer import print_graph
from graphjit.transforms.reverse import cotangents


def with_gradient(graph: Graph) -> Graph:
    b = Builder()
    inputs = [b.input(n.type, f"x{i}") for i, n in enumerate(graph.inputs)]
    outs = list(b.inline(graph, tuple(inputs)))
    seeds = {o: b.full(1.0, o.type) for o in outs if o.dtype.kind == "f"}
    found = cotangents(b, seeds, [n for n in inputs if n.dtype.kind == "f"]) if seeds else []
    return Graph(graph.name, inputs, [*outs, *[ct for ct in found if ct is not None]])


def differs(graph: Graph, seed: int) -> str:
    """Empty when compiled and interpreted values agree."""
    values = random_inputs(graph, rng_for(seed))
    wanted = interpret(graph, *values)
    try:
        found = executable(graph).run([np.ascontiguousarray(v) for v in values])
    except ArithmeticError as error:
        return f"raised {error}"
    single = any(node.dtype == np.float32 for node in graph.nodes())
    for i, (got, want) in enumerate(zip(found, wanted, strict=True)):
        if want.dtype.kind != "f":
            if not np.array_equal(got, want):
                return f"output {i}: {got} is not {want}"
            continue
        tolerance = 1e-3 if single else 1e-10
        scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0.0)))
        if not np.allclose(got, want, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            return f"output {i}: {got} is not {want}"
    return ""


def examine(graph: Graph, seed: int) -> None:
    if differs(graph, seed):
        small = shrink(graph, lambda g: bool(differs(g, seed)))
        pytest.fail(f"seed {seed}: {differs(small, seed)}\n{print_graph(small)}")


@pytest.mark.parametrize("chunk", range(10))
def test_forward(chunk):
    for seed in range(chunk * 12, chunk * 12 + 12):
        examine(random_graph(seed, 25), seed)


@pytest.mark.parametrize("chunk", range(10))
def test_gradient(chunk):
    for seed in range(1000 + chunk * 8, 1000 + chunk * 8 + 8):
        examine(with_gradient(random_graph(seed, 20, differentiable=True)), seed)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(20))
def test_many(chunk):
    for seed in range(5000 + chunk * 30, 5000 + chunk * 30 + 30):
        examine(random_graph(seed, 40), seed)
        examine(with_gradient(random_graph(seed, 30, differentiable=True)), seed)
