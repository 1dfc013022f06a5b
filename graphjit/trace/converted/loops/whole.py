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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphjit.errors import TraceError
from graphjit.passes.reroll.recording import STEPS
from graphjit.trace.converted.containers import ATOMS, has_hooks, parts_of, reaches
from graphjit.trace.converted.loops.iteration import Steps
from graphjit.trace.outside.inspection import function_of_compiled
from graphjit.trace.outside.states import is_stateful
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Tracer

PURE = frozenset(
    "abs all any bool complex dict divmod enumerate filter float frozenset getattr hasattr int isinstance issubclass len list map max min pow "
    "range reversed round set slice sorted sum tuple zip".split()
)
"""Built-in functions and classes that change nothing, and do with a traced number what they do with Python's.
"""
LIBRARIES = frozenset(("numpy", "scipy", "math", "cmath", "operator", "_operator", "graphjit"))
"""Packages whose functions change nothing but arrays, which the trace sees."""
CONTAINERS = (list, tuple, dict, set, frozenset, str, int, float, bool, np.ndarray, np.generic, Tracer)
"""What has methods that change nothing else than it."""


MOST = 10_000
"""Objects that are looked at."""


class NotWhole(TraceError):
    """Why a loop is recorded step by step."""


class Whole:
    """The loops of one trace that become nodes."""

    def __init__(self, function: Any) -> None:
        self.function = function
        """What is traced."""
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
            and steps.length >= STEPS
            and body.__code__ not in self.failed
            and not acts_unseen(_reached(body))
        )

    def is_from_outside(self, thing: Any) -> bool:
        """Whether something was there before the trace, and will be after it."""
        return bool(reaches(self.function, [thing]))

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


def acts_unseen(values: list[Any]) -> bool:
    """Whether one of some values, or something in them, says another thing each time, or has methods that
    statements call unseen; whether there is too much to look at.
    """
    seen: dict[int, Any] = {}
    pending = list(values)
    while pending:
        value = pending.pop()
        if id(value) in seen or isinstance(value, ATOMS):
            continue
        if is_stateful(value) or has_hooks(value if isinstance(value, type) else type(value)):
            return True
        if len(seen) > MOST:
            return True
        seen[id(value)] = value
        pending += parts_of(value)
    return False


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
