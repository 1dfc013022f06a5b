"""The two halves of a `vjp`: a forward program that also returns what the way back needs, and the pullback.

One traced graph of value and gradient is cut where the cotangent enters it.

Input: a function and its primals. Output: result, residuals, and a `Pullback` that takes both residuals and
cotangents.
Invariant: what does not depend on the cotangent is computed in the forward half, once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphjit.dispatch import Dispatcher, compiled_function, executable
from graphjit.errors import DerivativeError
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node, reachable
from graphjit.trace import differentiate
from graphjit.trace.pytree import flatten, unflatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.concrete import jit_disabled
from graphjit.trace.recording.tracer import Trace, Tracer
from graphjit.trace.tracebacks import hides_frames


def current_trace() -> Trace:
    """The trace under which a transformed function runs."""
    trace = active_trace()
    assert trace is not None, "transformed functions run under a trace"
    return trace


class Rebuild:
    """Gradients of a `vjp` in the structure of its primals.

    ``fixed`` has an entry for each leaf: None for a gradient, else a tuple with the leaf, which is no number.
    """

    def __init__(self, spec: Any, fixed: Sequence[tuple[Any] | None]) -> None:
        self.spec = spec
        self.fixed = fixed

    def __call__(self, values: Iterable[Any]) -> tuple[Any, ...]:
        """The tree."""
        rest = iter(values)
        return unflatten(self.spec, [next(rest) if fixed is None else fixed[0] for fixed in self.fixed])  # type: ignore[no-any-return]


class Pullback:
    """The backward half of a `vjp`: a graph from residuals and cotangents to gradients."""

    def __init__(self, graph: Graph, result: Any, outputs: list[Any], primals: Rebuild) -> None:
        self.graph = graph
        self.result = result
        self.outputs = outputs
        self.primals = primals

    @hides_frames
    def __call__(self, residuals: Sequence[Any], cotangent: Any) -> tuple[Any, ...]:
        """Gradients of the primals."""
        if active_trace() is not None:
            return self._traced(residuals, cotangent)
        leaves = self._leaves(cotangent)
        for leaf in leaves:
            differentiate.check_cotangent(leaf)
        arrays = [np.asarray(ct, dtype=type.dtype) for ct, type in zip(leaves, self.outputs, strict=True)]
        for array, type in zip(arrays, self.outputs, strict=True):
            if array.shape != type.shape:
                raise DerivativeError(
                    f"pullback: a cotangent of shape {array.shape} was given for a result of shape {type.shape}"
                )
        given = [np.require(a, requirements=("C", "A")) for a in (*map(np.asarray, residuals), *arrays)]
        values = interpret(self.graph, *given) if jit_disabled() else executable(self.graph).run(given)
        return self.primals([v if v.shape else v[()] for v in values])

    def _leaves(self, cotangent: Any) -> list[Any]:
        leaves, spec = flatten(cotangent)
        if spec != self.result:
            raise DerivativeError(f"pullback: the cotangent has structure {spec}, the result {self.result}")
        return leaves

    def _traced(self, residuals: Sequence[Any], cotangent: Any) -> tuple[Any, ...]:
        trace = current_trace()
        nodes = [trace.node(r) for r in residuals]
        for leaf, type in zip(self._leaves(cotangent), self.outputs, strict=True):
            nodes.append(trace.convert(trace.node(leaf), type.dtype))
        found = trace.builder.inline(self.graph, tuple(nodes))
        return self.primals([Tracer(trace, node) for node in found])


def compiled_forward(fun: Callable[..., Any], has_aux: bool) -> Any:
    """The compiled forward half of ``vjp(fun, ...)``: from the primals to the result, the residuals, the
    `Pullback` that takes them, and what ``fun`` returns besides (None unless ``has_aux``).
    """

    def run(*primals: Any) -> Any:
        trace = current_trace()
        out, pullback, aux = differentiate.vjp(trace, fun, primals, has_aux)
        leaves, spec = flatten(out)
        outs = [leaf._node for leaf in leaves]
        seeds = [trace.input(node.type, "ct") for node in outs]
        gradients, primal_spec = flatten(pullback(unflatten(spec, seeds)))
        roots = [leaf._node for leaf in gradients if isinstance(leaf, Tracer)]
        residuals, graph = split(roots, [seed._node for seed in seeds], trace)
        primals_back = Rebuild(
            primal_spec, [None if isinstance(leaf, Tracer) else (leaf,) for leaf in gradients]
        )
        backward = Pullback(graph, spec, [node.type for node in outs], primals_back)
        return out, [Tracer(trace, node) for node in residuals], backward, aux

    return compiled_function(Dispatcher(run, fun), fun, (functools.partial(compiled_forward), (fun, has_aux)))


def split(roots: Sequence[Node], seeds: Sequence[Node], trace: Trace) -> tuple[list[Node], Graph]:
    """The part of ``roots`` that depends on ``seeds`` as a graph of its own, and the values it needs from the
    rest.
    """
    late = set(seeds)
    order = sorted(reachable(roots), key=lambda node: node.serial)
    for node in order:
        if any(arg in late for arg in node.args):
            late.add(node)
    border = [node for node in order if node not in late and not _is_constant(node)]
    used = {arg for node in late for arg in node.args} | set(roots)
    residuals = [node for node in border if node in used]
    b = trace.builder
    stand_ins = [b.input(node.type, f"residual{i}") for i, node in enumerate(residuals)]
    whole = Graph("pullback", [*residuals, *seeds], roots)
    replaced: dict[Node, Node] = dict(zip(residuals, stand_ins, strict=True))
    for node in order:
        if node in late and node not in seeds:
            replaced[node] = b.copy(node, tuple(replaced.get(arg, arg) for arg in node.args))
    return residuals, Graph(whole.name, [*stand_ins, *seeds], [replaced.get(root, root) for root in roots])


def _is_constant(node: Node) -> bool:
    return all(part.op.name != "input" for part in reachable([node])) if not node.args else False
