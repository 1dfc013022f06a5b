"""What happens when code asks a traced value for its value: ``if x``, ``float(x)``, ``x.item()``, an index, a
text.

Job: refuse, with the user's line and a way out. The value is given where there is one: in a trace that
computes while it records (`disable_jit`), and where it depends on captured arrays alone, which are guarded.
Input: a traced value, what was asked. Output: an error, or the answer of the NumPy value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.errors import DerivativeError, TraceError, UnsupportedError
from graphjit.ir.node import reachable
from graphjit.ir.types import Type
from graphjit.trace.recording.location import assigns_item, called_function, user_location
from graphjit.trace.recording.recorder import current
from graphjit.trace.recording.tables import METHODS


def complex_needed(value: complex) -> UnsupportedError:
    """The error for a complex number beside a traced value."""
    return UnsupportedError(
        f"a traced value meets the complex number {value!r} at {user_location()}: complex numbers are not compiled yet. Compute with real and "
        "imaginary parts as two arrays (np.cos and np.sin for np.exp(1j * x))"
    )


def value_needed(what: str, type: Type, advice: str, decides: bool = False) -> TraceError:
    """The error for something that needs a traced value. ``decides``: it is control flow of Python, which can
    be converted (`trace.converted`).
    """
    where = user_location()
    error = TraceError(
        f"{what} needs the value of a traced {type} at {where}, which is only known when the compiled code runs. {advice}"
    )
    error.decides = decides  # type: ignore[attr-defined]
    trace = current.recorder
    if trace is not None:
        trace.refused = error, where
    return error


def from_outside(writer: str) -> TraceError:
    """The error for a write into an array that was not made inside the function: compiled code would not
    repeat it.
    """
    error = TraceError(
        f"{writer} would write into an array from outside (or one that NumPy made unseen) at {user_location()}, which the compiled code would never do "
        "again. Make the array inside the function (np.zeros, np.empty, W.copy()), or pass it as an argument and return it: a = a + b"
    )
    error.final = True  # type: ignore[attr-defined]
    return error


def written_within(what: str, name: str) -> TraceError:
    """The error for a write, in the body of a loop or in a branch, into an array that was not made there."""
    return TraceError(
        f"{what}: {name} writes at {user_location()} into an array that was made outside of it, or that it was given. A body reads such arrays and "
        "returns new ones: work on a copy, x = x.copy(), and return it"
    )


def leaked(value: Any) -> TraceError:
    """The error for a traced value that is used after its function was traced."""
    holder = value._trace.leaks.get(id(value), "a global, an attribute or a mutable default")
    try:
        made = value._node.loc
    except TraceError:  # parts that were written one by one were never joined
        made = None
    where = (
        f"made at {made} in {made.function}"
        if made is not None
        else "an argument of the function, or an array that it filled"
    )
    return TraceError(
        f"a traced value was used at {user_location()} after its function had been traced: it leaked out of the function through {holder} "
        f"({where}). It has no value: return it from the function instead"
    )


def computed_value(tracer: Any) -> Any:
    """The NumPy array or scalar behind a tracer of a trace that computes; None in all others."""
    trace = current.recorder
    found = trace.values.of(tracer._node) if trace is not None and trace.values is not None else None
    return found if found is None or found.shape else found.item() if tracer._weak else found[()]


def shown(tracer: Any) -> Any:
    """The value that ``print(x)`` shows, None where there is none yet.

    A value that depends on small captured arrays alone is shown, and those arrays are guarded.
    """
    value = computed_value(tracer)
    if value is not None or tracer._trace.over:
        return value
    found = METHODS["__concretise__"](tracer, "a text", only_small=True)
    return found if found is None or found.shape else found.item() if tracer._weak else found[()]


SEQUENCES = (list, tuple, str, bytes, bytearray)


def repeated(number: Any, sequence: Any) -> Any:
    """``[0.0] * n`` with a traced NumPy number: as NumPy's integers do it, with a number that must be known.

    Raises:
        TypeError: the number is no integer.
    """
    if number._node.dtype.kind not in "iu":
        raise TypeError(
            f"can't multiply sequence by non-int of type 'numpy.{number._class.__name__}' (at {user_location()})"
        )
    return sequence * operator.index(number)


def present(tracer: Any, what: str) -> Any:
    """The value of a traced value where there is one now, else None.

    There is one in a trace that computes, and where it depends on captured arrays alone (which are guarded).

    Raises:
        TraceError: the trace is over.
    """
    tracer._alive()
    value = computed_value(tracer)
    if value is not None:
        return value
    found = METHODS["__concretise__"](tracer, what)
    return found if found is None or found.shape else found.item() if tracer._weak else found[()]


TAKEN_OUT = frozenset({"__float__", "__complex__", "item", "tolist"})
"""Conversions to Python numbers that keep fractions. What is computed from such a number has no derivative,
and nobody would notice.
"""


def depends(tracer: Any) -> bool:
    """Whether a value of a trace that computes depends on what is differentiated."""
    trace = current.recorder
    if trace is None or trace.values is None or tracer._node.dtype.kind != "f":
        return False
    return any(node in trace.values.differentiated for node in reachable([tracer._node]))


def asks_value(name: str, what: str, advice: str, decides: bool = False) -> Callable[..., Any]:
    """A method of ndarrays or numbers that needs the value: of a traced value it refuses, unless there is a
    value now (`present`). ``what``, ``advice`` and ``decides`` are those of the error (`value_needed`).
    """

    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        value = present(self, what)
        if value is not None and name in TAKEN_OUT and depends(self):
            raise DerivativeError(
                f"{what} at {user_location()} takes a number out of a function that is differentiated: nothing computed from it would have a "
                "derivative. Use NumPy's functions on the traced value itself; print(x) and f'{x}' show it"
            )
        if value is None:
            raise (
                from_outside("an assignment to an item")
                if assigns_item()
                else value_needed(what, self._node.type, advice, decides)
            )
        value = value if getattr(value, name, None) is not None else np.asarray(value)
        return getattr(value, name)(*args, **kwargs)

    return refuse


def foreign(value: Any, ufunc: np.ufunc, other: Any) -> Any:
    """An operator beside an object that is neither array nor number: no element equals None or a string.

    Raises:
        UnsupportedError: a complex number.
    """
    if isinstance(other, complex):
        raise complex_needed(other)
    if (
        (other is None or isinstance(other, str))
        and ufunc.__name__ in ("equal", "not_equal")
        and not value._weak
    ):
        return (np.zeros_like if ufunc.__name__ == "equal" else np.ones_like)(value, dtype=bool)
    return NotImplemented


STATIC = "Mark the argument as static (static_argnums / static_argnames) if it is a fixed Python value."

INSTEAD = (
    "Use np.where for a choice between values, graphjit.cond for one between computations, graphjit.while_loop for "
    "a loop."
)


class Unanswered:
    """Base of traced values: the methods that need a value."""

    __slots__ = ()
    _weak = False
    _node: Any

    def __bool__(self) -> bool:
        value = present(self, "a truth value")
        if value is not None:
            return bool(value)
        asker = called_function()
        if asker in (None, "bool"):
            raise value_needed(
                "the truth value (if, while, and, or, not, assert)",
                self._node.type,
                f"{INSTEAD} {STATIC}",
                decides=True,
            )
        raise value_needed(f"an argument of {asker}", self._node.type, STATIC, decides=True)

    def __index__(self) -> int:
        value = present(self, "an index")
        if value is not None:
            return operator.index(value)
        asker = called_function()
        raise value_needed(
            f"an argument of {asker}" if asker else "a Python index, a size or an axis",
            self._node.type,
            f"graphjit.fori_loop counts to a traced number. {STATIC}" if asker == "range" else STATIC,
            decides=asker == "range",
        )

    __float__ = asks_value(
        "__float__",
        "float() or a function of the math module",
        f"Use the NumPy function on the array. {STATIC}",
    )
    __int__ = asks_value("__int__", "int()", f"Use .astype(int) on the array. {STATIC}", decides=True)
    __complex__ = asks_value("__complex__", "complex()", "Complex numbers are not compiled.")
    item = asks_value("item", ".item()", "Return the array and call .item() outside.")
    tolist = asks_value("tolist", ".tolist()", "Return the array and call .tolist() outside.")
    __round__ = asks_value("__round__", "round()", "Use np.round.")

    def __format__(self, spec: str) -> str:
        value = present(self, "formatting")
        if value is not None:
            return format(value, spec)
        advice = "graphjit.debug.print('x = {}', x) prints it each time the code runs; print(x) shows its type now."
        raise value_needed("formatting", self._node.type, advice)

    __reduce__ = asks_value("__reduce__", "pickling", "Return the value and pickle it outside.")
