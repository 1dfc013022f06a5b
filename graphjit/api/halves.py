"""The two halves of a `vjp` or `linearize`: a program for the value and what the other half needs, and that
other half.

One traced graph of value and derivative is cut where the cotangent (or the tangent) enters it.

Input: a function and its primals. Output: result, residuals, and a `SecondHalf` that takes both residuals and
cotangents (or tangents).
Invariant: what does not depend on the cotangent is computed in the first half, once. But tapes end with the
program that wrote them: a loop that writes some runs in the second half.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphjit.api.options import current_trace
from graphjit.dispatch import Dispatcher, compiled_function, executable
from graphjit.errors import DerivativeError
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, reachable
from graphjit.ir.types import Type
from graphjit.trace import nonfinite
from graphjit.trace.effects import Told, tellable
from graphjit.trace.prepared import arguments
from graphjit.trace.pytree import flatten, unflatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.concrete import jit_disabled
from graphjit.trace.recording.tracer import Trace, Tracer, is_number
from graphjit.trace.tracebacks import hides_frames
from graphjit.trace.transformed import derivatives


class Tree(NamedTuple):
    """The structure of a tree of traced values, some leaves of which are no numbers.

    ``fixed`` has an entry for each leaf: None for a number, else a tuple with the leaf.
    """

    spec: Any
    fixed: tuple[tuple[Any] | None, ...]
    types: tuple[Type, ...]

    @classmethod
    def of(cls, tree: Any) -> Tree:
        """That of traced values."""
        leaves, spec = flatten(tree)
        fixed = tuple(None if isinstance(leaf, Tracer) else (leaf,) for leaf in leaves)
        return cls(spec, fixed, tuple(leaf._node.type for leaf in leaves if isinstance(leaf, Tracer)))

    def filled(self, values: Iterable[Any]) -> Any:
        """The tree with these numbers."""
        rest = iter(values)
        return unflatten(self.spec, [next(rest) if fixed is None else fixed[0] for fixed in self.fixed])


class Words(NamedTuple):
    """What messages call the function, what it takes, and what that belongs to."""

    name: str
    given: str
    like: str


PULLBACK = Words("pullback", "cotangent", "result")
PUSHFORWARD = Words("linearize", "tangent", "primal")


class SecondHalf:
    """A graph from residuals and cotangents (or tangents) to derivatives."""

    def __init__(self, graph: Graph, words: Words, given: Tree, made: Tree, told: Told) -> None:
        self.graph = graph
        self.told = told
        """What happens when it runs; its values are the last outputs of the graph."""
        self.words = words
        self.given = given
        self.made = made

    @hides_frames
    def __call__(self, residuals: Sequence[Any], given: Any, first: First | None = None) -> Any:
        """The derivatives, in the structure of what they belong to. ``first`` is the call of the first half,
        for who looks for NaNs.
        """
        if active_trace() is not None:
            return self._traced(residuals, given)
        leaves = self._leaves(given)
        for leaf in leaves:
            derivatives.check_derivative(leaf, self.words.name, self.words.given, self.words.like)
        arrays = [
            np.asarray(leaf, dtype=type.dtype) for leaf, type in zip(leaves, self.given.types, strict=True)
        ]
        for array, type in zip(arrays, self.given.types, strict=True):
            if array.shape != type.shape:
                name, what, like = self.words
                raise DerivativeError(
                    f"{name}: a {what} of shape {array.shape} was given for a {like} of shape {type.shape}"
                )
        ready = [np.require(a, requirements=("C", "A")) for a in (*map(np.asarray, residuals), *arrays)]
        values = interpret(self.graph, *ready) if jit_disabled() else executable(self.graph).run(ready)
        count = len(self.made.types)
        self.told.happen(values[count:])
        if nonfinite.watched():
            self._watch(ready, values[:count], first)
        return self.made.filled([v if v.shape else v[()] for v in values[:count]])

    def _leaves(self, given: Any) -> list[Any]:
        leaves, spec = flatten(given)
        name, what, like = self.words
        if spec != self.given.spec:
            raise DerivativeError(f"{name}: the {what} has structure {spec}, the {like} {self.given.spec}")
        for leaf, fixed in zip(leaves, self.given.fixed, strict=True):
            if fixed is not None and not (leaf is None or leaf == fixed[0]):
                raise DerivativeError(f"{name}: the {what} of {fixed[0]!r}, which is no number, must be None")
        return [leaf for leaf, fixed in zip(leaves, self.given.fixed, strict=True) if fixed is None]

    def _watch(self, ready: Sequence[np.ndarray], values: Sequence[np.ndarray], first: First | None) -> None:
        """Look for NaNs, in the first half too where that is known."""
        name = self.words.name
        if first is None:
            nonfinite.check(ready, values, name, lambda: (self.graph, ready))
            return
        given = ready[len(ready) - len(self.given.types) :]
        nonfinite.check([*first.arrays(), *given], values, name, lambda: first.with_second(given))

    def _traced(self, residuals: Sequence[Any], given: Any) -> Any:
        trace = current_trace()
        nodes = [trace.node(r) for r in residuals]
        for leaf, type in zip(self._leaves(given), self.given.types, strict=True):
            nodes.append(trace.convert(trace.node(leaf), type.dtype))
        found = trace.builder.inline(self.graph, tuple(nodes))
        count = len(self.made.types)
        self.told.again(trace, found[count:])
        return self.made.filled([Tracer(trace, node) for node in found[:count]])


class First:
    """One call of a first half, while NaNs are looked for: that half returns residuals besides its result,
    and what is wrong with them matters only where it reaches the derivatives.
    """

    def __init__(self, compiled: Any, primals: tuple[Any, ...]) -> None:
        self.dispatcher: Dispatcher = compiled.dispatcher
        self.primals = primals

    def arrays(self) -> list[np.ndarray]:
        """The primals, where they are numbers."""
        return [np.asarray(leaf) for leaf in flatten(self.primals)[0] if is_number(leaf)]

    @classmethod
    def watched(cls, compiled: Any, primals: tuple[Any, ...], out: Any, aux: Any) -> First | None:
        """The call, whose result is looked at; None where nobody looks.

        Raises:
            FloatingPointError: the result holds a NaN or an infinity that the primals did not.
        """
        if not nonfinite.watched():
            return None
        first = cls(compiled, primals)
        values = [np.asarray(leaf) for leaf in flatten((out, aux))[0] if is_number(leaf)]

        def program() -> tuple[Graph, list[np.ndarray]]:
            graph, arrays, (made, _, _, more) = first._traced()
            nodes = [leaf for leaf in flatten((made, more))[0] if isinstance(leaf, Node)]
            return Graph(graph.name, graph.inputs, nodes), arrays

        nonfinite.check(first.arrays(), values, first.dispatcher.name, program)
        return first

    def with_second(self, given: Sequence[np.ndarray]) -> tuple[Graph, list[np.ndarray]]:
        """Both halves as one graph, and its inputs for a cotangent (or tangent)."""
        graph, arrays, (_, residuals, second, _) = self._traced()
        seeds = second.graph.inputs[len(residuals) :]
        outputs = Builder().inline(second.graph, (*residuals, *seeds))
        return Graph(graph.name, [*graph.inputs, *seeds], outputs), [*arrays, *given]

    def _traced(self) -> tuple[Graph, list[np.ndarray], Any]:
        """The graph, its inputs, and the result with nodes for its values."""
        leaves, kinds, spec = self.dispatcher.signature(self.primals, {})
        staged = self.dispatcher.stage(kinds, spec)
        results, outputs = staged.results, staged.graph.outputs
        found = [outputs[item] if kind == "value" else item for kind, item in results.leaves]
        return staged.graph, arguments(staged, leaves, kinds)[1], unflatten(results.spec, found)


def compiled_forward(fun: Callable[..., Any], has_aux: bool) -> Any:
    """The compiled first half of ``vjp(fun, ...)``: from the primals to the result, the residuals, the
    `SecondHalf` that takes them, and what ``fun`` returns besides (None unless ``has_aux``).
    """

    def run(*primals: Any) -> Any:
        trace = current_trace()
        out, pullback, aux = derivatives.vjp(trace, fun, primals, has_aux)
        given = Tree.of(out)
        seeds = [trace.input(type, "ct") for type in given.types]
        start = len(trace.builder.told)
        residuals, backward = _cut(trace, PULLBACK, given, seeds, pullback(given.filled(seeds)), start)
        return out, residuals, backward, aux

    return _first_half(run, fun, compiled_forward, has_aux)


def compiled_linearization(fun: Callable[..., Any], has_aux: bool) -> Any:
    """The compiled first half of ``linearize(fun, ...)``, as `compiled_forward`."""

    def run(*primals: Any) -> Any:
        trace = current_trace()
        out, pushforward, aux, given = derivatives.linearize(trace, fun, primals, has_aux)
        tree = Tree.of(tuple(given))
        seeds = [trace.input(type, "tangent") for type in tree.types]
        start = len(trace.builder.told)
        residuals, rest = _cut(trace, PUSHFORWARD, tree, seeds, pushforward(*tree.filled(seeds)), start)
        return out, residuals, rest, aux

    return _first_half(run, fun, compiled_linearization, has_aux)


def _first_half(
    run: Callable[..., Any], fun: Callable[..., Any], make: Callable[..., Any], has_aux: bool
) -> Any:
    """What ``make(fun, has_aux)`` returns: ``run`` compiled."""
    dispatcher = Dispatcher(run, fun)
    dispatcher.whole = False
    return compiled_function(dispatcher, fun, (functools.partial(make), (fun, has_aux)))


def _cut(
    trace: Trace, words: Words, given: Tree, seeds: Sequence[Tracer], made: Any, start: int
) -> tuple[list[Tracer], SecondHalf]:
    """Residuals, and the half that depends on ``seeds``; effects from number ``start`` on happen there."""
    roots = [leaf._node for leaf in flatten(made)[0] if isinstance(leaf, Tracer)]
    inputs = [x._node for x in trace.arguments] + [node for _, node in trace.captured.values()]
    told = Told.of(tellable(trace.builder.told.take(start), inputs))
    residuals, graph = split([*roots, *told.nodes], [seed._node for seed in seeds], trace, words.name)
    return [Tracer(trace, node) for node in residuals], SecondHalf(graph, words, given, Tree.of(made), told)


def split(roots: Sequence[Node], seeds: Sequence[Node], trace: Trace, name: str) -> tuple[list[Node], Graph]:
    """The part of ``roots`` that depends on ``seeds`` as a graph of its own, and the values it needs from the
    rest.
    """
    order = sorted(reachable(roots), key=lambda node: node.serial)
    late = _late(order, seeds)
    border = [node for node in order if node not in late and not _is_constant(node)]
    used = {arg for node in late for arg in node.args} | set(roots)
    residuals = [node for node in border if node in used]
    b = trace.builder
    stand_ins = [b.input(node.type, f"residual{i}") for i, node in enumerate(residuals)]
    whole = Graph(name, [*residuals, *seeds], roots)
    replaced: dict[Node, Node] = dict(zip(residuals, stand_ins, strict=True))
    for node in order:
        if node in late and node not in seeds:
            replaced[node] = b.copy(node, tuple(replaced.get(arg, arg) for arg in node.args))
    return residuals, Graph(whole.name, [*stand_ins, *seeds], [replaced.get(root, root) for root in roots])


def _late(order: Sequence[Node], seeds: Sequence[Node]) -> set[Node]:
    """The nodes that need one of ``seeds``, or a tape."""
    late = set(seeds)
    for node in order:
        if any(arg in late for arg in node.args) or any(part.record is not None for part in node.parts):
            late.add(node)
    return late


def _is_constant(node: Node) -> bool:
    return all(part.op.name != "input" for part in reachable([node])) if not node.args else False
