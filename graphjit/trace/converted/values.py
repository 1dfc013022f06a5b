"""What variables hold in converted code: truth values, variables without a value, values that two ways give.

Input: values of the user's variables, traced or not. Output: the same.
Invariant: what is no traced value means what it means in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from graphjit.errors import TraceError
from graphjit.ir.types import BOOL
from graphjit.trace.pytree import flatten, unflatten
from graphjit.trace.recording.answers import present
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Array, Scalar, Tracer, is_python_number, kind_of
from graphjit.trace.transformed.bodies import is_number


def is_traced(value: Any) -> bool:
    """Whether a value is traced, and not known while it is."""
    return issubclass(type(value), Tracer) and present(value, "a truth value") is None


def truth(value: Any) -> bool | Scalar:
    """The truth value of a value: Python's, or a traced one.

    Raises:
        ValueError: the array has several elements.
    """
    if not is_traced(value):
        return bool(value)
    trace, node = value._trace, trace_node(value)
    if node.type.size != 1:
        raise ValueError(
            f"The truth value of an array with more than one element is ambiguous (at {user_location()}). Use a.any() or a.all(), or np.where for "
            "a choice for each element"
        )
    if node.shape:
        node = trace.emit("reshape", node, shape=())
    if node.dtype != BOOL:
        node = trace.emit("ne", node, trace.builder.const(0, node.dtype))
    return Scalar(trace, node)


def trace_node(value: Any) -> Any:
    """The node of a traced value in its trace."""
    return value._trace.node(value)


class Undefined:
    """A variable without a value."""

    __slots__ = ("message", "name")

    def __init__(self, name: str, message: str = "") -> None:
        self.name = name
        self.message = message

    def read(self) -> NoReturn:
        """Raise what reading it means."""
        if self.message:
            raise TraceError(f"{self.message} (read at {user_location()})")
        raise UnboundLocalError(
            f"cannot access local variable {self.name!r} where it is not associated with a value"
        )

    def __repr__(self) -> str:
        return f"<{self.name}, which has no value>"


class Maybe(Undefined):
    """A variable that has a value exactly where some of the variables hold that say how a loop or a function
    goes on: those of ``break`` and ``return``.
    """

    __slots__ = ("nodes", "value", "when")

    def __init__(self, name: str, message: str, value: Any, when: frozenset[str]) -> None:
        super().__init__(name, message)
        self.value = value
        self.when = when
        """The names of those variables."""
        self.nodes: list[Any] = []
        """Their values when it was assigned."""

    def now(self, variables: Mapping[str, Any]) -> Maybe:
        """It, with the present values of those variables."""
        found = [variables[name] for name in self.when if name in variables]
        self.nodes = [value._node for value in found if isinstance(value, Tracer)]
        return self


def held(variable: Any) -> Any:
    """What a variable holds where it holds something."""
    return variable.value if type(variable) is Maybe else variable


class UndefinedReturnValue(Undefined):
    """What a function returns before it returns."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("the result")


UNDEFINED = (Undefined, UndefinedReturnValue, Maybe)


def ld(value: Any) -> Any:
    """A variable that is read.

    Raises:
        UnboundLocalError: it has no value.
        TraceError: it has one only where a test holds.
    """
    return value.read() if type(value) in UNDEFINED else value


CONTROL = {
    "do_return": "ag__return",
    "retval_": "ag__result",
    "break_": "ag__break",
    "continue_": "ag__continue",
}
"""How variables of the conversion are called, by the name that the library gives them."""


def is_control(name: str) -> bool:
    """Whether the conversion made a variable that says how a loop or a function goes on."""
    return name.startswith(("ag__return", "ag__break", "ag__continue"))


def is_exit(name: str) -> bool:
    """Whether it is one that ends the loop."""
    return name.startswith(("ag__return", "ag__break"))


def is_result(name: str) -> bool:
    """Whether the conversion made a variable that holds what a function returns."""
    return name.startswith("ag__result")


def same(one: Any, other: Any) -> bool:
    """Whether two values are one object, or equal numbers of Python."""
    if one is other:
        return True
    if isinstance(one, Undefined) and isinstance(other, Undefined):
        return type(one) is not Maybe and type(other) is not Maybe
    plain = (is_python_number(one) or isinstance(one, bool | str | tuple)) and type(one) is type(other)
    if plain and isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return plain and repr(one) == repr(other)


def blank(value: Any) -> Any:
    """A value like ``value`` that nobody reads: NaN, zero or False in place of its numbers."""
    leaves, spec = flatten(value)
    return unflatten(spec, [_blank_leaf(leaf) for leaf in leaves])


_BLANKS: dict[str, Any] = {"f": float("nan"), "i": 0, "u": 0, "b": False}


def _blank_leaf(leaf: Any) -> Any:
    if isinstance(leaf, bool):
        return False
    if not is_number(leaf):
        return leaf
    if is_python_number(leaf):
        return _BLANKS[np.asarray(leaf).dtype.kind]
    if not isinstance(leaf, Tracer):
        return np.full(np.shape(leaf), _BLANKS[leaf.dtype.kind], leaf.dtype)[()]
    type_ = leaf._node.type
    if leaf._weak:
        return _BLANKS[type_.dtype.kind]
    node = leaf._trace.builder.full(_BLANKS[type_.dtype.kind], type_)
    kind = Array if isinstance(leaf, Array) else Scalar
    return kind(leaf._trace, node)


def frozen(value: Any) -> Any:
    """A value whose arrays stay what they are now."""
    if type(value) is Maybe:
        return Maybe(value.name, value.message, frozen(value.value), value.when)
    if isinstance(value, Undefined):
        return value
    leaves, spec = flatten(value)
    if not any(issubclass(type(leaf), Tracer) for leaf in leaves):
        return value
    return unflatten(
        spec,
        [
            kind_of(leaf)(leaf._trace, trace_node(leaf)) if issubclass(type(leaf), Tracer) else leaf
            for leaf in leaves
        ],
    )
