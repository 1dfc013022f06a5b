"""Compiled programs against the interpreter: on given graphs, and on random ones, of which a failure shrinks
to IR text.  With ``limits``, code is made for them alone, apart from the code that the process keeps:

    short = host_limits().changed(sweeps={"min_rows": 2})
    value, gradient = run_function(graphjit.value_and_grad(f), x, limits=short)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from random_graphs import random_inputs, rng_for, shrink

import graphjit
from graphjit.backend.executable import Executable
from graphjit.dispatch import executable
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.printer import print_graph
from graphjit.ir.types import F64, Type
from graphjit.limits import Limits
from graphjit.pipeline import Compiled, compile_graph
from graphjit.trace.marks import dispatcher_of
from graphjit.trace.pytree import flatten
from graphjit.transforms.reverse import cotangents

TOLERANCE = {"f": {8: 2e-13, 4: 5e-6}}


def run(graph: Graph, inputs: Sequence[np.ndarray], limits: Limits | None = None) -> list[np.ndarray]:
    """The outputs of ``graph``: from the code that the process keeps, or from code with other limits."""
    values = [np.ascontiguousarray(x) for x in inputs]
    if limits is None:
        return executable(graph).run(values)
    made = compile_graph(graph, limits=limits)
    return Executable(made.program, made.module, made.nanoseconds).run(values)


def traced(function: Callable[..., Any], *args: Any) -> Graph:
    """The graph of ``function``, which may be compiled or a derivative, for these arguments."""
    made: Any = function if dispatcher_of(function) is not None else graphjit.jit(function)
    graph: Graph = made.dispatcher.staged(*args).graph
    return graph


def compiled(function: Callable[..., Any], *args: Any, limits: Limits | None = None) -> Compiled:
    """Every stage of ``function`` for these arguments."""
    return compile_graph(traced(function, *args), limits=limits)


def run_function(function: Callable[..., Any], *args: Any, limits: Limits | None = None) -> list[np.ndarray]:
    """The results of ``function``, one after another."""
    leaves, _ = flatten(args)
    return run(traced(function, *args), [np.asarray(leaf) for leaf in leaves], limits)


def same(found: np.ndarray, wanted: np.ndarray, what: str, factor: float = 1.0) -> None:
    assert found.dtype == wanted.dtype, what
    assert found.shape == wanted.shape, what
    if wanted.dtype.kind == "f":
        tolerance = TOLERANCE["f"][wanted.dtype.itemsize] * factor
        finite = np.abs(wanted[np.isfinite(wanted)])
        scale = float(finite.max(initial=0.0))
        np.testing.assert_allclose(
            found, wanted, rtol=tolerance, atol=tolerance * min(scale, 1.0), err_msg=what
        )
    else:
        np.testing.assert_array_equal(found, wanted, err_msg=what)


class Make:
    """Shorthand for graphs written by hand."""

    def __init__(self) -> None:
        self.b = Builder()
        self.inputs: list[Node] = []

    def input(self, *shape: int, dtype: np.dtype = F64) -> Node:
        self.inputs.append(self.b.input(Type(dtype, shape), f"x{len(self.inputs)}"))
        return self.inputs[-1]

    def spread(self, node: Node, shape: tuple[int, ...], axes: tuple[int, ...]) -> Node:
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        return self.b.broadcast_to(self.b.reshape(node, shape=kept), shape=shape)

    def graph(self, *outputs: Node) -> Graph:
        return Graph("f", self.inputs, outputs)

    def with_gradient(self, output: Node) -> Graph:
        """The sum of squares of ``output`` and its gradient."""
        b = self.b
        total = b.sum(b.mul(output, output), axes=tuple(range(len(output.shape))))
        wrt = [node for node in self.inputs if node.dtype.kind == "f"]
        found = cotangents(b, {total: b.full(1.0, total.type)}, wrt)
        return Graph("f", self.inputs, [output, total, *[ct for ct in found if ct is not None]])


def check(make: Make, output: Node, factor: float = 10.0, limits: Limits | None = None) -> None:
    rng = np.random.default_rng(7)
    for graph in (
        (make.graph(output), make.with_gradient(output))
        if output.dtype.kind == "f"
        else (make.graph(output),)
    ):
        values = [
            np.asarray(rng.normal(size=n.shape), n.dtype)
            if n.dtype.kind == "f"
            else rng.integers(0, 3, size=n.shape)
            for n in graph.inputs
        ]
        for found, want in zip(run(graph, values, limits), interpret(graph, *values), strict=True):
            same(found, want, "gradient", factor * max(1.0, np.sqrt(want.size)))


def with_gradient(graph: Graph) -> Graph:
    b = Builder()
    inputs = [b.input(n.type, f"x{i}") for i, n in enumerate(graph.inputs)]
    outs = list(b.inline(graph, tuple(inputs)))
    seeds = {o: b.full(1.0, o.type) for o in outs if o.dtype.kind == "f"}
    found = cotangents(b, seeds, [n for n in inputs if n.dtype.kind == "f"]) if seeds else []
    return Graph(graph.name, inputs, [*outs, *[ct for ct in found if ct is not None]])


def differs(graph: Graph, seed: int, limits: Limits | None = None) -> str:
    """Empty when compiled and interpreted values agree."""
    values = random_inputs(graph, rng_for(seed))
    wanted = interpret(graph, *values)
    try:
        found = run(graph, values, limits)
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


def examine(graph: Graph, seed: int, limits: Limits | None = None) -> None:
    if differs(graph, seed, limits):
        small = shrink(graph, lambda g: bool(differs(g, seed, limits)))
        pytest.fail(f"seed {seed}: {differs(small, seed, limits)}\n{print_graph(small)}")
