"""One recording of a function as nodes, and which recording is under way in this thread.

Job: emit nodes that carry the user's line, with the conversions and broadcasts that NumPy would make on the
way.
Input: op names and nodes (what user code passes becomes nodes in `tracer.Trace`, the one subclass). Output:
nodes of one Builder.
Invariant: a trace that computes (`concrete.Values`) computes each node when it is emitted, so that errors of
the computation come at the user's line.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from graphjit.errors import GraphjitError, TraceError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Location, Node
from graphjit.ir.types import F64, I64, Type
from graphjit.trace.recording.concrete import Values
from graphjit.trace.recording.location import LIBRARIES, PACKAGE, user_location
from graphjit.trace.recording.promotion import PYTHON_KINDS

Journal = dict[Hashable, tuple[Any, Callable[[], None]]]
"""By what was written first: what it is, and how it becomes again what it was."""


def as_it_is(function: Any) -> Any:
    """The function itself."""
    return function


@dataclass(frozen=True, eq=False)
class Within:
    """The body of a loop, or a branch, that is being recorded. Arrays from outside of it are only read."""

    what: str
    """The function of control flow: ``scan``."""
    name: str
    """The user's function."""
    outer: Within | None = None
    """The body around it."""
    open: bool = False
    """Whether it may write into arrays from outside: `trace.converted` hands on what they become."""

    def refuses(self, made: Within | None) -> Within | None:
        """The body around a write that must not write into arrays that were made in ``made``."""
        here: Within | None = self
        while here is not None and here is not made:
            if not here.open:
                return here
            here = here.outer
        return None


class LongTrace(BaseException):
    """A trace became long. No `Exception`, so that the user's code does not take it for one of its own."""


class Recorder:
    """A builder that knows where in the user's code it is."""

    def __init__(self, values: Values | None = None) -> None:
        """``values`` makes a recording that computes on the way."""
        self.builder = Builder()
        self.values = values
        self.over = False
        self.leaks: dict[int, str] = {}
        """After the recording: names of what still holds a traced value, by the value's id."""
        self.refused: tuple[TraceError, Location | None] | None = None
        """What a traced value last raised instead of giving its value, and the user's line."""
        self.within: Within | None = None
        """The innermost body of control flow that is being recorded; None outside of all."""
        self.stand_ins: dict[Node, Within] = {}
        """Inputs of bodies of control flow, which have no value outside of them."""
        self.journals: list[Journal] = []
        """What was as it was before, for each body of converted Python code that is being recorded."""
        self.doubtful: dict[int, tuple[Any, str]] = {}
        """Lists and the like that a variable may name or not, as values decide; why they cannot change."""
        self.user: Callable[[Any], Any] = as_it_is
        """What is called in place of a function of the user's: in a trace of converted code, its
        conversion.
        """
        self.patience = math.inf
        """The serial number of a node from which on the trace is long; then `LongTrace` is raised."""
        self.whole: Any = None
        """Where Python's loops are recorded as a whole: the `Whole` of `trace.converted.whole`."""
        self._outer: Recorder | None = None
        self._numbers: dict[Hashable, Node] = {}
        """Constants of Python numbers by value, type and dtype, of NumPy's by dtype and bytes."""
        self._broadcasts: dict[tuple[Node, tuple[int, ...]], Node] = {}
        """What `broadcast` has made."""
        self.items: dict[tuple[Node, tuple[int, ...]], Node] = {}
        """What was read at a position of a value (`trace.arrays.indexing.item`)."""

    def __enter__(self) -> Self:
        self._outer, current.recorder = current.recorder, self
        return self

    def __exit__(self, kind: object, error: BaseException | None, entry: TracebackType | None) -> None:
        current.recorder = self._outer
        self.over = True
        if (
            self.refused is None
            or not isinstance(error, TypeError | ValueError)
            or isinstance(error, GraphjitError)
        ):
            return
        # NumPy asks for an index, swallows our answer and complains of something else at the same line: ours
        # says what to do.
        refusal, where = self.refused
        last: tuple[str, int] | None = None
        while entry is not None:
            code = entry.tb_frame.f_code
            if not code.co_filename.startswith((PACKAGE, *LIBRARIES)):
                last = code.co_filename, entry.tb_lineno
            entry = entry.tb_next
        if where is not None and last == where[:2]:
            raise refusal.with_traceback(error.__traceback__) from None

    def latest(self) -> int:
        """A serial number beyond those of all nodes."""
        return self.builder.input(Type(I64, ()), "now").serial

    def emit(self, op: str, *args: Node | float, **attrs: Any) -> Node:
        """A node at the user's present line."""
        self.builder.loc = user_location()
        self.builder.origin = self.builder.asked
        node = self.builder.emit(op, *args, **attrs)
        if node.serial > self.patience:
            raise LongTrace
        if self.values is not None:
            self.values.computed(node)  # now, so that its errors come at the user's line
        return node

    def convert(self, node: Node, dtype: np.dtype) -> Node:
        """``node`` as ``dtype``."""
        return node if node.dtype == dtype else self.emit("convert", node, dtype=dtype)

    def narrow(self, node: Node, dtype: np.dtype) -> Node:
        """A Python number as ``dtype``: an integer that does not fit is an error when the code runs."""
        if node.dtype.kind == "i" and dtype.kind in "iu" and dtype != node.dtype:
            return self.emit("narrow", node, dtype=dtype)
        return self.convert(node, dtype)

    def broadcast(self, node: Node, shape: tuple[int, ...]) -> Node:
        """``node`` in ``shape`` by NumPy's rule."""
        if node.type.shape == shape:
            return node
        made = self._broadcasts.get((node, shape))
        if made is None:
            made = self._broadcasts[node, shape] = self.emit("broadcast_to", node, shape=shape)
        return made

    def number(self, value: Any, dtype: np.dtype, wraps: bool = False) -> Node:
        """A number as a constant of ``dtype``; one that does not fit is NumPy's OverflowError, or ``wraps``
        around, as that of an array does.
        """
        key: Hashable = None
        if type(value) in PYTHON_KINDS:  # those of the user's classes need not have a hash
            # By its text where it is zero: 0.0 equals -0.0.
            key = (value or str(value), type(value), dtype, wraps)
            if key in self._numbers:
                return self._numbers[key]
        if not (type(value) is float and dtype == F64):  # which is as it should be
            value = np.asarray(value).astype(dtype) if wraps else dtype.type(value)
        made = self.builder.const(value, dtype)
        if key is not None:
            self._numbers[key] = made
        return made

    def scalar(self, value: np.generic) -> Node:
        """A NumPy scalar as a constant."""
        key = (value.dtype, value.tobytes())
        node = self._numbers.get(key)
        if node is None:
            node = self._numbers[key] = self.builder.const(value, value.dtype)
        return node


class _Current(threading.local):
    recorder: Recorder | None = None


current = _Current()
"""The recording under way in this thread; `active.active_trace` for everybody above the traced values."""
