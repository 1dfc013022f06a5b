"""What stands behind the keywords in converted code: the names of ``ag__``.

Job: do what Python does where everything is known while the function is traced, else make nodes.
Input: tests, bodies and variables as functions. Output: the same variables.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from graphjit.trace.converted import calls
from graphjit.trace.converted.choices import assumed, both, choose
from graphjit.trace.converted.containers import added_to, asked, changed
from graphjit.trace.converted.conversion import OPERATORS
from graphjit.trace.converted.errors import raised
from graphjit.trace.converted.loops.for_loops import for_stmt
from graphjit.trace.converted.loops.loop import while_stmt
from graphjit.trace.converted.scopes import FunctionScope, with_function_scope
from graphjit.trace.converted.values import Undefined, UndefinedReturnValue, is_traced, ld, truth
from graphjit.trace.recording.tracer import Scalar, Tracer
from graphjit.trace.transformed.control_bodies import stands_for

Thunk = Callable[[], Any]
Getter = Callable[[], tuple[Any, ...]]
Setter = Callable[[Sequence[Any]], None]


def if_stmt(
    test: Any, body: Thunk, orelse: Thunk, get_state: Getter, set_state: Setter, names: Any, count: int
) -> None:
    """``if test: body() else: orelse()``; the first ``count`` variables are read afterwards."""
    answer = truth(test)
    if isinstance(answer, bool):
        (body if answer else orelse)()
        return
    before = get_state()

    def way(branch: Thunk, holds: bool) -> Thunk:
        def run() -> Any:
            set_state(assumed(names, before, answer, holds))
            try:
                branch()
                return get_state()[:count]
            finally:
                set_state(before)

        stands_for(run, branch)
        return run

    after = choose(answer._trace, answer, "if", (way(orelse, False), way(body, True)), names[:count])
    set_state((*after, *before[count:]))


def if_exp(test: Any, yes: Thunk, no: Thunk, text: str) -> Any:
    """``yes() if test else no()``."""
    answer = truth(test)
    if isinstance(answer, bool):
        return yes() if answer else no()
    return _one_of(answer, yes, no, "conditional expression")


def _one_of(answer: Scalar, yes: Thunk, no: Thunk, what: str) -> Any:
    """The value of one of two expressions."""

    def way(branch: Thunk) -> Thunk:
        def run() -> Any:
            return (branch(),)

        stands_for(run, branch)
        return run

    (found,) = choose(answer._trace, answer, what, (way(no), way(yes)), ["the value"])
    return ld(found)


def and_(one: Thunk, other: Thunk) -> Any:
    """``one() and other()``."""
    first = one()
    if not is_traced(first):
        return first and other()
    if _is_number(first):
        return _one_of(truth(first), other, lambda: first, "and")  # type: ignore[arg-type]
    found = both(truth(first), other, "and")  # type: ignore[arg-type]
    return _one_of(truth(first), other, lambda: False, "and") if found is None else found  # type: ignore[arg-type]


def or_(one: Thunk, other: Thunk) -> Any:
    """``one() or other()``."""
    first = one()
    if not is_traced(first):
        return first or other()
    if _is_number(first):
        return _one_of(truth(first), lambda: first, other, "or")  # type: ignore[arg-type]
    found = both(truth(first), other, "or")  # type: ignore[arg-type]
    return _one_of(truth(first), lambda: True, other, "or") if found is None else found  # type: ignore[arg-type]


def _is_number(value: Tracer) -> bool:
    """Whether a value is more than its truth value."""
    return value._node.dtype.kind != "b"


def not_(value: Any) -> Any:
    """``not value``."""
    answer = truth(value)
    if isinstance(answer, bool):
        return not answer
    return Scalar(answer._trace, answer._trace.emit("not", answer._node))


COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "is": operator.is_,
    "is not": operator.is_not,
    "in": lambda a, b: a in b,
    "not in": lambda a, b: a not in b,
}


def chain(left: Any, signs: Sequence[str], rest: Sequence[Thunk]) -> Any:
    """``left < rest[0]() < rest[1]()``."""
    right = rest[0]()
    answer = COMPARE[signs[0]](left, right)
    if len(signs) == 1:
        return answer
    return and_(lambda: answer, lambda: chain(right, signs[1:], rest[1:]))


def artifact(function: Any) -> Any:
    """A function inside of a converted one: it is converted already."""
    with suppress(AttributeError):  # what a decorator made
        setattr(function, calls.CONVERTED, True)
    return function


class Shown:
    """A value in a message that is written before the value is known: its text in the program."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __format__(self, how: str) -> str:
        return f"{{{self.text}}}"

    def __repr__(self) -> str:
        return format(self)


def shown(value: Any, text: str) -> Any:
    """A value in the message of an error that values decide on."""
    return Shown(text) if is_traced(value) else value


vars(OPERATORS).update(
    if_stmt=if_stmt,
    while_stmt=while_stmt,
    for_stmt=for_stmt,
    if_exp=if_exp,
    and_=and_,
    or_=or_,
    not_=not_,
    chain=chain,
    ld=ld,
    raised=raised,
    shown=shown,
    changed=changed,
    asked=asked,
    added_to=added_to,
    converted=calls.converted,
    autograph_artifact=artifact,
    FunctionScope=FunctionScope,
    with_function_scope=with_function_scope,
    Undefined=Undefined,
    UndefinedReturnValue=UndefinedReturnValue,
)
