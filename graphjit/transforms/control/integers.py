"""Integers that a loop makes of the number of its step: do they stay within 64 bits?

Python's integers have no limits. A loop that is recorded as a whole computes with numbers of 64 bits instead,
which wrap around. So for what depends on the number of the step alone, the least and the greatest value are
followed through the body.

Input: a loop. Output: nothing, or an `Unlimited` error that says which operation may leave 64 bits.
Invariant: what depends on values of arguments is left alone: there 64 bits are what NumPy has, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphjit.errors import GraphjitError
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import I64
from graphjit.transforms.control.loops import kinds_of
from graphjit.transforms.substitute import body_of

Range = tuple[int, int]
"""The least and the greatest value of an integer."""

SAME = ("copy", "reshape", "broadcast_to", "transpose", "convert")
"""Ops that hand integers on."""


def _pairs(of: Callable[[int, int], int]) -> Callable[[Range, Range], list[int]]:
    """What an operation makes of all ends of two ranges."""
    return lambda one, other: [of(a, b) for a in one for b in other]


def _within(*ranges: Range) -> list[int]:
    """No further from zero than what is there."""
    most = max(abs(end) for each in ranges for end in each)
    return [-most, most]


OPERATIONS: Mapping[str, Callable[..., Sequence[int]]] = {
    **dict.fromkeys(SAME, lambda x: x),
    "neg": lambda x: [-x[0], -x[1]],
    "abs": _within,
    "square": lambda x: [0, x[0] ** 2, x[1] ** 2],
    "add": _pairs(lambda a, b: a + b),
    "sub": _pairs(lambda a, b: a - b),
    "mul": _pairs(lambda a, b: a * b),
    "maximum": _pairs(max),
    "minimum": _pairs(min),
    "floor_divide": _within,
    "remainder": lambda x, y: [0, y[1] - 1] if y[0] > 0 else _within(x, y),
}
"""The least and the greatest value, among others, of those of the arguments."""


TRIPS = 1 << 31
"""Steps that a loop inside is taken to have at most."""

Spans = dict[Node, Range | None]
"""What is known of integers; None: they depend on more than numbers of Python's."""


class Unlimited(GraphjitError):
    """An integer may leave 64 bits."""


def check_integers(scan: Node) -> None:
    """Refuse a loop in which a number that depends on the number of the step alone could leave 64 bits: there
    Python's integers have no limits, and those of the node wrap around.

    Raises:
        Unlimited: it could, or nobody knows.
    """
    _loop(scan, [known(arg) for arg in scan.args])


def _loop(node: Node, args: list[Range | None]) -> None:
    """Look at the body of a loop. An integer that is carried may only be counted up or down."""
    graph, (_, carries, slices) = body_of(node), kinds_of(node)
    trips: Any = node.attrs.get("length", TRIPS)
    spans: Spans = dict(zip(graph.inputs, args, strict=False))
    for x, arg in zip(graph.inputs[slices], node.args[slices], strict=True):
        spans[x] = (0, trips) if arg.op.name == "iota" else None
    for x, out in zip(graph.inputs[carries], graph.outputs, strict=False):
        start = spans[x]
        if start is not None and out is not x:
            step = counts(x, out)
            if step is None and _is_pythons(out, spans):
                raise Unlimited("an integer that each step makes of the one before may outgrow 64 bits")
            ends = [end + trips * (step or 0) for end in start]
            spans[x] = None if step is None else (min(*start, *ends), max(*start, *ends))
    _graph(graph, spans)


def counts(x: Node, out: Node) -> int | None:
    """The number that each step adds to a carry; None where it does something else."""
    if out.op.name in ("add", "sub") and out.args[0] is x:
        step = known(out.args[1])
    elif out.op.name == "add" and out.args[1] is x:
        step = known(out.args[0])
    else:
        return None
    return None if step is None else -step[0] if out.op.name == "sub" else step[0]


def _is_pythons(out: Node, spans: Mapping[Node, Range | None]) -> bool:
    """Whether nothing but numbers of Python's goes into a value."""
    seen, stack = {out}, [out]
    while stack:
        node = stack.pop()
        if (not node.args and not node.is_const and spans.get(node) is None) or node.dtype.kind not in "iub":
            return False
        stack += [arg for arg in node.args if arg not in seen]
        seen.update(node.args)
    return True


def _graph(graph: Graph, spans: Spans) -> None:
    """Follow integers through a graph."""
    for node in graph.nodes():
        if node in spans:
            continue
        args = [spans.get(arg) for arg in node.args]
        spans[node] = None if node.is_bundle else _result(node, args)
        if node.op.name in ("scan", "while"):
            _loop(node, args)
        branches: Any = node.attrs.get("branches", ())
        for branch in branches:
            _graph(branch.graph, dict(zip(branch.graph.inputs, args[1:], strict=True)))


def known(node: Node) -> Range | None:
    """The values of an integer that is known."""
    if node.is_bundle or node.dtype != I64:
        return None
    if node.op.name in SAME and node.args[0].dtype == I64:
        return known(node.args[0])
    if not node.is_const:
        return None
    value: Any = node.attrs["value"]
    array = value.array
    return (int(array.min()), int(array.max())) if array.size == 1 else None


def _result(node: Node, args: list[Range | None]) -> Range | None:
    """The values of one operation."""
    if node.is_const:
        return known(node)
    present = [arg for arg in args if arg is not None]
    if not args or len(present) < len(args) or node.dtype != I64:
        return None
    name = node.op.name
    if name not in OPERATIONS:
        raise Unlimited(f"{name} of integers of Python's (at {node.loc}), which have no limits")
    ends = OPERATIONS[name](*present)
    if min(ends) < -(1 << 63) or max(ends) >= 1 << 63:
        raise Unlimited(f"{name} of integers of Python's (at {node.loc}) may outgrow 64 bits")
    return min(ends), max(ends)
