"""Compiled programs against the interpreter: on given graphs, and on random ones, of which a failure shrinks
to IR text. Every function here takes `Limits`, so that a test can have decisions go the other way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from random_graphs import random_inputs, rng_for
from shrinking import shrink

import graphjit
from graphjit import dispatch, pipeline
from graphjit.backend.executable import Executable
from graphjit.compilation import Code
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, with_bodies
from graphjit.ir.printer import print_graph
from graphjit.ir.types import F64, Type
from graphjit.limits import Limits
from graphjit.loops.ir import LoopKernel
from graphjit.trace.pytree import flatten
from graphjit.transforms.reverse import cotangents

TOLERANCE = {"f": {8: 2e-13, 4: 5e-6}}


def traced(function: Callable[..., Any], *args: Any, reroll: bool = True) -> Graph:
    """The graph of a call."""
    return graphjit.jit(function, reroll=reroll).dispatcher.staged(*args).graph


def executable(graph: Graph, limits: Limits | None = None) -> Code | Executable:
    """Code of a graph; with other limits it is made for the test alone."""
    return dispatch.executable(graph) if limits is None else _made(graph, limits)


@functools.lru_cache(maxsize=16)
def _made(graph: Graph, limits: Limits) -> Executable:
    made = pipeline.compile_graph(graph, limits=limits)
    return Executable(made.program, made.module, made.nanoseconds)


def kernels(graph: Graph, limits: Limits | None = None) -> list[LoopKernel]:
    """Its loops."""
    return list(pipeline.compile_graph(graph, limits=limits).kernels.values())


def run(graph: Graph, inputs: list[np.ndarray], limits: Limits | None = None) -> list[np.ndarray]:
    return executable(graph, limits).run([np.ascontiguousarray(x) for x in inputs])


def compiled(function: Callable[..., Any], *args: Any, limits: Limits | None = None) -> pipeline.Compiled:
    """Every stage of a call."""
    return pipeline.compile_graph(traced(function, *args), limits=limits)


def run_function(function: Callable[..., Any], *args: Any, limits: Limits | None = None) -> list[np.ndarray]:
    """The results of a call, one after another."""
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
    single = any(type.dtype == np.float32 for node in with_bodies(graph) for type in node.parts)
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
