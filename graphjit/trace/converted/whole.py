"""A ``for`` over a known number of steps as one node: recorded once, not step by step.

Recording a hundred thousand steps takes a second before anything is compiled. So a trace that becomes long is
begun again with the functions converted, and there a ``for`` over a range or an array records its body once,
with a traced number of the step. A loop whose body needs more than that, or does what one recording could not
repeat, stays Python's, and is recorded step by step as always.

Input: a loop, what its body calls. Output: yes or no; `NotWhole` where a body turns out to be none of these.
Invariants: values are those of the single steps. A number that Python would compute without limits does not
overflow: what the steps make of the number of the step alone stays within 64 bits.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphjit.errors import TraceError
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.types import I64
from graphjit.trace.converted.iteration import Steps
from graphjit.trace.outside.inspection import function_of_compiled
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Tracer

SHORTEST = 16
"""Steps from which on a loop becomes a node."""

PURE = frozenset(
    "abs all any bool complex dict divmod enumerate filter float frozenset getattr hasattr int isinstance issubclass len list map max min pow "
    "range reversed round set slice sorted str sum tuple type zip".split()
)
"""Built-in functions and classes that change nothing."""
LIBRARIES = frozenset(("numpy", "scipy", "math", "cmath", "operator", "_operator", "graphjit"))
"""Packages whose functions change nothing but arrays, which the trace sees."""
CONTAINERS = (list, tuple, dict, set, frozenset, str, int, float, bool, np.ndarray, np.generic, Tracer)
"""What has methods that change nothing else than it."""


class NotWhole(TraceError):
    """Why a loop is recorded step by step."""


class Whole:
    """The loops of one trace that become nodes."""

    def __init__(self) -> None:
        self.made = 0
        """How many did."""
        self.failed: dict[types.CodeType, str] = {}
        """The bodies of those that cannot, and why."""
        self.depth = 0
        """How many are being recorded."""

    def wants(self, steps: Steps | None, body: Callable[..., Any]) -> bool:
        """Whether a loop is worth it, and nothing is known against it."""
        return (
            steps is not None
            and steps.known
            and steps.length >= SHORTEST
            and body.__code__ not in self.failed
            and not any(map(_moves, _reached(body)))
        )

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the body of one."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def refuse(self, what: str) -> None:
        """What only Python can do once in each step: in a body it is an error."""
        if self.depth:
            raise NotWhole(f"{what} at {user_location()}")


def _reached(function: Any) -> list[Any]:
    """The values that a function has from outside."""
    found = [function.__globals__.get(name) for name in function.__code__.co_names]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    return found


def _moves(value: Any) -> bool:
    """Whether a value is another one after each look at it."""
    return isinstance(value, Iterator | np.random.Generator | np.random.RandomState)


def is_pure(function: Any) -> bool:
    """Whether a call changes nothing that a trace does not see; functions of the user's are looked at when
    they are converted.
    """
    if isinstance(function, types.BuiltinFunctionType | types.BuiltinMethodType):
        owner = function.__self__
        if owner is builtins:
            return function.__name__ in PURE
        if owner is not None and not isinstance(owner, types.ModuleType):
            return isinstance(owner, CONTAINERS)
    if isinstance(function, type) and function.__module__ == "builtins":
        return function.__name__ in PURE
    if isinstance(function, types.MethodType | types.MethodWrapperType):
        return (
            isinstance(function.__self__, CONTAINERS) or function_of_compiled(function.__self__) is not None
        )
    if isinstance(function, np.ufunc) or function_of_compiled(function) is not None:
        return True
    module = getattr(function, "__module__", None) or ""
    return module.partition(".")[0] in LIBRARIES and not module.startswith("numpy.random")


# ------------------------------------------------------------------------------------ integers without limits

Range = tuple[int, int]
"""The least and the greatest value of an integer."""
TRIPS = 1 << 31
"""Steps that a loop inside is taken to have at most."""
_SAME = ("copy", "reshape", "broadcast_to", "transpose", "squeeze")
_PAIRS: Mapping[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "maximum": max,
    "minimum": min,
}


def check_integers(scan: Node) -> None:
    """Refuse a loop in which a number that depends on the number of the step alone could leave 64 bits: there
    Python's integers have no limits, and those of the node wrap around.

    Raises:
        NotWhole: it could, or nobody knows.
    """
    _loop(scan, [_constant(arg) for arg in scan.args])


def _constant(node: Node) -> Range | None:
    """The values of a known integer."""
    if node.dtype != I64:
        return None
    if node.op.name in (*_SAME, "convert") and node.args[0].dtype == I64:
        return _constant(node.args[0])
    if not node.is_const:
        return None
    array: np.ndarray = node.attrs["value"].array  # type: ignore[attr-defined]
    return (int(array.min()), int(array.max())) if array.size == 1 else None


def _loop(node: Node, args: list[Range | None]) -> None:
    """Look at the body of a loop. An integer that is carried may only be counted up or down."""
    attrs: Any = node.attrs
    body: Body = attrs["body"]
    graph, carried = body.graph, attrs["carried"]
    sliced = attrs.get("sliced", 0)
    first, trips = len(node.args) - sliced - carried, attrs.get("length", TRIPS)
    known: dict[Node, Range | None] = dict(zip(graph.inputs, args, strict=False))
    for x, arg in zip(graph.inputs[first + carried :], node.args[first + carried :], strict=True):
        known[x] = (0, trips) if arg.op.name == "iota" else None
    for k in range(carried):
        x, out = graph.inputs[first + k], graph.outputs[k]
        start = known[x]
        if start is not None and out is not x:
            step = _counts(x, out)
            if step is None and _depends_on_numbers(graph, out, known):
                raise NotWhole("an integer that each step makes of the one before: it may outgrow 64 bits")
            ends = (start[0] + trips * (step or 0), start[1] + trips * (step or 0))
            known[x] = None if step is None else (min(*start, *ends), max(*start, *ends))
    _graph(graph, known)


def _counts(x: Node, out: Node) -> int | None:
    """The number that each step adds to a carry."""
    if out.op.name in ("add", "sub") and out.args[0] is x:
        step = _constant(out.args[1])
    elif out.op.name == "add" and out.args[1] is x:
        step = _constant(out.args[0])
    else:
        return None
    return None if step is None else -step[0] if out.op.name == "sub" else step[0]


def _depends_on_numbers(graph: Graph, out: Node, known: Mapping[Node, Range | None]) -> bool:
    """Whether nothing but numbers of Python's goes into a value."""
    seen, stack = {out}, [out]
    while stack:
        node = stack.pop()
        if (not node.args and not node.is_const) and known.get(node) is None:
            return False
        if node.dtype.kind not in "iub":
            return False
        stack += [arg for arg in node.args if arg not in seen]
        seen.update(node.args)
    return True


def _graph(graph: Graph, known: dict[Node, Range | None]) -> None:
    """Follow integers through a graph."""
    for node in graph.nodes():
        if node in known:
            continue
        args = [known.get(arg) for arg in node.args]
        name = node.op.name
        if node.is_bundle:
            known[node] = None
            if name in ("scan", "while"):
                _loop(node, args)
            for branch in node.attrs.get("branches", ()):  # type: ignore[attr-defined]
                _graph(branch.graph, dict(zip(branch.graph.inputs, args[1:], strict=True)))
            continue
        known[node] = _result(node, name, args)


def _result(node: Node, name: str, args: list[Range | None]) -> Range | None:
    """The values of one operation."""
    if node.is_const:
        return _constant(node)
    present = [arg for arg in args if arg is not None]
    if not args or len(present) < len(args) or node.dtype != I64:
        return None
    found: Range
    if name in _SAME or name == "convert":
        found = present[0]
    elif name in ("neg", "abs", "square"):
        ends = [-x if name == "neg" else abs(x) if name == "abs" else x * x for x in present[0]]
        found = min(0, *ends), max(0, *ends)
    elif name in _PAIRS:
        ends = [_PAIRS[name](a, b) for a in present[0] for b in present[1]]
        found = min(ends), max(ends)
    elif name in ("floor_divide", "remainder"):
        most = max(map(abs, (*present[0], *present[1])))
        found = -most, most
    else:
        raise NotWhole(f"{name} of integers of Python's (at {node.loc}), which have no limits")
    if found[0] < -(1 << 63) or found[1] >= 1 << 63:
        raise NotWhole(f"{name} of integers of Python's (at {node.loc}) may outgrow 64 bits")
    return found
