"""Bodies of loops and branches of conditions inside a trace: recorded, closed, and what they tell.

Job: call a function of the user's with stand-ins for what changes from step to step, and make graphs of what
several such functions returned, which read the same values from outside.
Input: the active trace, functions, stand-ins. Output: graphs; the nodes that they read from outside.
Invariants: what needs no stand-in is computed outside, once, unless it was recorded inside and has to stay
there; equal nodes that are recorded later are nodes of their own then. An array from outside is only read.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from graphjit.effects import Effect
from graphjit.errors import TraceError
from graphjit.ir.names import one_line
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import Type
from graphjit.trace.effects import code_of
from graphjit.trace.marks import name_of
from graphjit.trace.outside.inspection import function_of_compiled
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.recorder import Within
from graphjit.trace.recording.tracer import Trace, Tracer
from graphjit.trace.rolling import rolled
from graphjit.trace.transformed.bodies import Leaves, border
from graphjit.transforms.substitute import substitute


@dataclass
class Recorded:
    """A function of the user's that was recorded as a body."""

    name: str
    placeholders: list[Node]
    """What stands for what changes from step to step."""
    outputs: list[Node] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    made: list[Node] = field(default_factory=list)
    """The nodes that were made meanwhile, if it was recorded `apart`."""
    kept: list[Node] = field(default_factory=list)
    """Those of them that must not be computed outside."""
    within: Within | None = None
    """Itself, as arrays that were made in it know it."""

    def values_told(self) -> list[Node]:
        """The values of its effects, each once."""
        return list(dict.fromkeys(node for effect in self.effects for node in effect.nodes))


@contextmanager
def recording(
    trace: Trace,
    what: str,
    function: Callable[..., Any],
    placeholders: Sequence[Node] = (),
    apart: bool = False,
    opened: bool = False,
) -> Iterator[Recorded]:
    """Record a function as a body. With ``apart`` later requests do not find its nodes (`Builder.apart`);
    ``opened``: it may write into arrays from outside (`Within.open`).
    """
    body = Recorded(name_of(function), list(placeholders))
    told, start = trace.builder.told, len(trace.builder.told)
    outer, trace.within = trace.within, Within(what, body.name, trace.within, opened)
    body.within = trace.within
    trace.stand_ins |= dict.fromkeys(placeholders, trace.within)
    trace.fresh = False
    try:
        if apart:
            with trace.builder.apart() as body.made:
                yield body
        else:
            yield body
    finally:
        trace.within = outer
        body.effects = told.take(start)


def placeholders_for(trace: Trace, types: Sequence[Type], name: str) -> list[Node]:
    """Fresh inputs of these types."""
    return [trace.builder.input(type, f"{name}{i}") for i, type in enumerate(types)]


def nodes_of(trace: Trace, leaves: Leaves, name: str) -> list[Node]:
    """The nodes of what a body returned.

    Raises:
        TraceError: a traced value of another call is among them.
    """
    for leaf in leaves.leaves:
        if isinstance(leaf, Tracer) and leaf._trace is not trace:
            raise TraceError(f"{name} returned a traced value of another call")
    return leaves.nodes(trace)


def enclosed(trace: Trace, bodies: Sequence[Recorded]) -> tuple[list[Graph], list[Node], set[Node]]:
    """A graph for each body, the nodes outside that one of them reads (the first inputs of each graph), and
    the nodes inside.
    """
    b = trace.builder
    placeholders = [node for body in bodies for node in body.placeholders]
    outputs = [node for body in bodies for node in body.outputs]
    kept = [node for body in bodies for node in body.kept]
    outside, inside = border(placeholders, outputs, kept)
    graphs = []
    for body in bodies:
        inner = placeholders_for(trace, [node.type for node in outside], "outside")
        made = substitute(b, body.outputs, dict(zip(outside, inner, strict=True)))
        inputs = [*inner, *body.placeholders]
        graphs.append(Graph(body.name, inputs, rolled(trace, made, inputs, len(b.told))))
        for node in body.made:
            if node not in inside:
                b.adopt(node)
    return graphs, outside, inside


def returned_at(function: Callable[..., Any]) -> str:
    """Where a function of the user's returns, for people: ``file:12``, ``file:12 or 15``."""
    function = inspect.unwrap(function)
    code = code_of(function_of_compiled(function) or function)
    if code is None:
        return str(user_location())
    lines = {
        instruction.positions.lineno
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("RETURN_VALUE", "RETURN_CONST") and instruction.positions is not None
    }
    numbers = " or ".join(str(line) for line in sorted(line for line in lines if line is not None))
    return f"{one_line(code.co_filename)}:{numbers}"


def stands_for(wrapper: Any, function: Callable[..., Any]) -> None:
    """Let messages speak of the user's ``function`` instead of ``wrapper``, a function of ours around it."""
    wrapper.__qualname__ = name_of(function)
    wrapper.__wrapped__ = function
