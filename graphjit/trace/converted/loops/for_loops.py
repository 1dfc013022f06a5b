"""``for`` in converted code.

Job: go over what is known element by element, as Python does; make one node where how often the body runs is
only known at run time, or where the trace would be long (`whole`).
Input: what is gone over, the body and the variables as functions. Output: variables and arrays as they are
afterwards.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphjit import config
from graphjit.errors import GraphjitError
from graphjit.trace.converted.choices import choose
from graphjit.trace.converted.containers import asked
from graphjit.trace.converted.loops.iteration import Steps, steps_of
from graphjit.trace.converted.loops.loop import Getter, Loop, Setter, Thunk, recorded, step_of
from graphjit.trace.converted.values import truth
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Scalar
from graphjit.trace.transformed.control_bodies import stands_for

SHORT = 32
"""Steps of a loop over something that is no array, or that a node cannot do, which are written out."""


def for_stmt(
    iterated: Any,
    extra_test: Thunk | None,
    body: Callable[[Any], None],
    get_state: Getter,
    set_state: Setter,
    names: Sequence[str],
    options: Any,
) -> None:
    """``for x in iterated: body(x)``, as long as ``extra_test()`` holds."""
    steps = steps_of(asked(iterated))
    if extra_test is None and as_a_whole(steps, body, get_state, set_state, names):
        return
    if steps is not None and (extra_test is not None or not steps.known):
        _for_steps(steps, extra_test or (lambda: True), body, get_state, set_state, names)
        return
    if extra_test is not None:
        _written_out(iterated, extra_test, body, get_state, set_state, names)
        return
    for x in iterated:
        body(x)


def as_a_whole(
    steps: Steps | None,
    body: Callable[[Any], None],
    get_state: Getter,
    set_state: Setter,
    names: Sequence[str],
) -> bool:
    """Record a loop of known length as one node, in a trace that would be long. False: it cannot be done."""
    trace = active_trace()
    whole = None if trace is None else trace.whole
    if trace is None or whole is None or steps is None or not whole.wants(steps, body):
        return False
    number: list[Any] = [0]

    def step() -> None:
        body(steps.element(number[0]))

    def begin(k: Any) -> None:
        number[0] = k

    stands_for(step, body)
    loop = Loop("for", step, step, get_state, set_state, list(names), length=steps.length, begin=begin)
    before = get_state()
    # Only what is recorded step by step makes a trace long.
    rest, trace.patience = trace.patience - trace.latest(), math.inf
    try:
        with whole.recording():
            recorded(loop, trace)
    except Exception as error:  # whatever it is, the steps will meet it too, or do without
        set_state(before)
        trace.patience = trace.latest() + rest
        whole.failed[body.__code__] = str(error)
        if "reroll" in config.log_topics:
            print(f"graphjit: for at {user_location()} is recorded step by step: {error}", file=sys.stderr)
        return False
    whole.made += 1
    return True


def _written_out(
    iterated: Iterable[Any],
    extra_test: Thunk,
    body: Callable[[Any], None],
    get_state: Getter,
    set_state: Setter,
    names: Sequence[str],
) -> None:
    """All steps one after the other, each under the condition that the loop was not left before."""
    for x in iterated:
        answer = truth(extra_test())
        if answer is False:
            break
        if answer is True:
            body(x)
        else:
            _maybe(answer, functools.partial(body, x), get_state, set_state, names)


def _maybe(answer: Scalar, body: Thunk, get_state: Getter, set_state: Setter, names: Sequence[str]) -> None:
    """A step that happens only if the loop was not left."""
    before = get_state()

    def run() -> Any:
        try:
            body()
            return get_state()
        finally:
            set_state(before)

    stands_for(run, getattr(body, "func", body))
    set_state(choose(answer._trace, answer, "for", (lambda: before, run), names))


def _for_steps(
    steps: Steps,
    extra_test: Thunk,
    body: Callable[[Any], None],
    get_state: Getter,
    set_state: Setter,
    names: Sequence[str],
) -> None:
    """A loop over something that has an element for each number."""
    number: list[Any] = [steps.first]

    def get() -> tuple[Any, ...]:
        return (number[0], *get_state())

    def set_(values: Sequence[Any]) -> None:
        number[0] = values[0]
        set_state(tuple(values[1:]))

    def step() -> None:
        k = number[0]
        number[0] = k + 1
        body(steps.element(k))

    def test() -> Any:
        more = number[0] < steps.end
        if more is False:
            return False
        on = truth(extra_test())
        if isinstance(on, bool) or more is True:
            return more if on is True else on
        return more & on

    stands_for(step, body)
    loop = Loop("for", test, step, get, set_, ["the number of steps", *names])
    try:
        answer = truth(test())
        while answer is True:
            answer = step_of(loop)
        if answer is not False:
            recorded(loop, answer._trace)
    except (GraphjitError, TypeError, IndexError, UnboundLocalError):
        if not steps.known or steps.end - number[0] > SHORT:
            raise
        rest = (steps.element(k) for k in range(number[0], steps.end))
        _written_out(rest, extra_test, body, get_state, set_state, names)
