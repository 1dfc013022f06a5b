"""Calls of Python in the middle of a traced function: recorded in its trace, made after each run.

Job: note a call and the traced values among its arguments; make these values further outputs of the graph;
after a run, put the values into the arguments and make the calls, in the order of the program.
Input: a function and its arguments. Output: `Effect`s in the trace's builder; `Told`, which a traced call
keeps.
Invariants: no passes know of it, and code without effects runs as before. What a call gets is what NumPy
would have given it there: arrays, scalars, Python numbers. An array from outside is passed as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from graphjit.effects import Effect
from graphjit.ir.node import Graph, Node, reachable
from graphjit.trace.marks import attribute
from graphjit.trace.outside.untraced_code import suspended
from graphjit.trace.pytree import TreeSpec, flatten, unflatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.concrete import Values
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Number, Scalar, Trace, Tracer, any_tracer, kind_of


def tell(
    function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], own: bool = True
) -> None:
    """Call ``function(*args, **kwargs)`` now, or note that each run of the traced function has to; ``name``
    tells calls at one line apart, ``own`` is whether the function is the user's own.
    """
    trace = active_trace()
    if trace is None:
        function(*args, **kwargs)
        return
    told = trace.builder.told
    if told.quiet:
        return
    leaves, spec = flatten((args, kwargs))
    traced = [i for i, leaf in enumerate(leaves) if any_tracer(leaf)]
    nodes = tuple(trace.node(leaves[i]) for i in traced)
    call = _call_on(function, leaves, spec, traced)
    others = tuple(leaf if isinstance(leaf, str | int | float) else id(leaf) for leaf in leaves)
    effect = Effect(call, (user_location(), name, others), nodes, since=told.since)
    if own:
        told.functions.append(function)
    told.tell(_happened(trace, effect))


def _happened(trace: Trace, effect: Effect) -> Effect:
    """The effect, which happens here and now where nothing is compiled and its values are known."""
    if trace.values is None or effect.since is not None:
        return effect
    known = [trace.values.of(node) for node in effect.nodes]
    if any(value is None for value in known):
        return effect
    with suspended():
        effect.happen(known)
    return replace(effect, done=True)


def _call_on(
    function: Callable[..., Any], leaves: list[Any], spec: TreeSpec, traced: Sequence[int]
) -> Callable[[Sequence[Any]], None]:
    """``function`` as a call with the values of its ``traced`` arguments, which are taken out."""
    kinds = [kind_of(leaves[i]) for i in traced]
    for i in traced:
        leaves[i] = None

    def call(values: Sequence[Any]) -> None:
        given = list(leaves)
        for i, kind, value in zip(traced, kinds, values, strict=True):
            given[i] = _shown(kind, value)
        args, kwargs = unflatten(spec, given)
        function(*args, **kwargs)

    return call


def _shown(kind: type[Tracer], value: np.ndarray) -> Any:
    """A value as NumPy would have it there."""
    return value.item() if kind is Number else value[()] if kind is Scalar else value


def tellable(effects: Iterable[Effect], inputs: Iterable[Node]) -> list[Effect]:
    """The effects whose values come from these inputs alone, and which did not happen yet.

    Others speak of something that has no value: a tangent in reverse mode, or an argument of a function that
    raised an exception.
    """
    known = set(inputs)
    return [
        effect
        for effect in effects
        if not effect.done
        and all(node in known or node.op.name != "input" for node in reachable(effect.nodes))
    ]


def codes_called(functions: Iterable[Any], graph: Graph) -> frozenset[CodeType]:
    """The code of functions that are called after a run, but for those that took part in the graph itself."""
    codes = {code for code in map(code_of, functions) if code is not None}
    if not codes:
        return frozenset()
    recorded = {node.loc for node in graph.nodes() if node.loc is not None}

    def took_part(code: CodeType) -> bool:
        last = max(line or 0 for _, _, line in code.co_lines())
        return any(
            loc.file == code.co_filename
            and loc.function == code.co_qualname
            and code.co_firstlineno <= loc.line <= last
            for loc in recorded
        )

    return frozenset(code for code in codes if not took_part(code))


def code_of(function: Any) -> CodeType | None:
    """The code of a function, a method or an object that can be called; None of what is no Python."""
    while isinstance(function, functools.partial | MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    if not isinstance(function, FunctionType):
        function = attribute(type(function), "__call__")
    return function.__code__ if isinstance(function, FunctionType) else None


@dataclass(frozen=True)
class Told:
    """The effects of a graph, whose values are its last outputs."""

    effects: tuple[Effect, ...] = ()
    nodes: tuple[Node, ...] = ()
    """The values, each once."""

    @classmethod
    def of(cls, effects: Sequence[Effect]) -> Told:
        """Those of a trace."""
        return cls(tuple(effects), tuple(dict.fromkeys(node for effect in effects for node in effect.nodes)))

    def __bool__(self) -> bool:
        return bool(self.effects)

    def happen(self, values: Sequence[np.ndarray]) -> None:
        """Make the calls after a run that computed ``values``."""
        known = dict(zip(self.nodes, values, strict=True))
        for effect in self.effects:
            effect.happen([known[node] for node in effect.nodes])

    def happen_before_error(self, graph: Graph, arrays: Sequence[np.ndarray]) -> None:
        """Make the calls of a run that raised an exception, up to the first that needs what failed: their
        values are computed once more, node by node.
        """
        values = Values()
        values.arrays.update(zip(graph.inputs, arrays, strict=True))
        outputs = dict(zip(self.nodes, graph.outputs[len(graph.outputs) - len(self.nodes) :], strict=True))
        for effect in self.effects:
            try:
                known = [values.of(outputs[node]) for node in effect.nodes]
            except Exception:  # that of the run, which goes to the caller
                return
            effect.happen(known)

    def again(self, trace: Trace, values: Sequence[Node]) -> None:
        """Note the same effects in a trace that has these ``values`` instead."""
        known, told = dict(zip(self.nodes, values, strict=True)), trace.builder.told
        for effect in self.effects:
            told.tell(replace(effect, nodes=tuple(known[node] for node in effect.nodes), since=told.since))
