"""``while`` and ``for`` in converted code.

Job: run the loop in Python as long as all that decides how it goes on is known; then make one node.
Input: the test, the body and the variables as functions. Output: variables and arrays as they are afterwards.
Invariants: carries of the node are the variables that the body changes, and all arrays from outside that it
writes. Which these are is found by recording the body until nothing new turns up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphjit.errors import GraphjitError, TraceError
from graphjit.trace.arrays.buffers import Stored, storage_of
from graphjit.trace.arrays.storage import Owned
from graphjit.trace.converted.choices import choose
from graphjit.trace.converted.containers import Place, here_before, places
from graphjit.trace.converted.iteration import Steps, steps_of
from graphjit.trace.converted.journals import array_of, become, journal, outside, owners, undo, written
from graphjit.trace.converted.values import Maybe, Undefined, blank, frozen, is_exit, ld, same, truth
from graphjit.trace.pytree import flatten, tree_map
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Number, Scalar, Trace, Tracer, is_python_number, kind_of
from graphjit.trace.transformed.control import while_loop
from graphjit.trace.transformed.control_bodies import stands_for

Thunk = Callable[[], Any]
Getter = Callable[[], tuple[Any, ...]]
Setter = Callable[[Sequence[Any]], None]

SHORT = 32
"""Steps of a loop over something that is no array, or that a node cannot do, which are written out."""
ROUNDS = 20
"""How often the body is recorded to find what it changes."""


@dataclass
class Loop:
    """A loop that may become a node."""

    what: str
    """The keyword."""
    test: Thunk
    body: Thunk
    get_state: Getter
    set_state: Setter
    names: list[str]
    places: list[Place] = field(default_factory=list)
    """Attributes and items that the body changes: variables too, behind the others."""

    def get(self) -> tuple[Any, ...]:
        """The values of all variables."""
        return (*self.get_state(), *(place.get() for place in self.places))

    def set(self, values: Sequence[Any]) -> None:
        """Give them values."""
        count = len(values) - len(self.places)
        self.set_state(tuple(values[:count]))
        for place, value in zip(self.places, values[count:], strict=True):
            if place.get() is not value:
                place.set(ld(value))


def while_stmt(
    test: Thunk, body: Thunk, get_state: Getter, set_state: Setter, names: Sequence[str], options: Any
) -> None:
    """``while test(): body()``."""
    loop = Loop("while", test, body, get_state, set_state, list(names))
    answer = truth(test())
    while answer is True:
        answer = _step(loop)
    if answer is not False:
        _recorded(loop, answer._trace)


def _step(loop: Loop) -> bool | Scalar:
    """One step of a loop whose test holds; the answer of the test after it.

    If that is traced then, the step was taken back: all of the loop becomes a node, this step too. If a node
    cannot do the step, it stands before the loop.
    """
    trace = active_trace()
    if trace is None:
        loop.body()
        return truth(loop.test())
    before, told = loop.get(), len(trace.builder.told)
    with journal(trace) as notes:
        loop.body()
        answer = truth(loop.test())
        if isinstance(answer, bool):
            return answer
        undo(notes)
    loop.set(before)
    trace.builder.told.take(told)
    try:
        _recorded(loop, trace)
    except (GraphjitError, TypeError, IndexError, UnboundLocalError):
        loop.body()
        return truth(loop.test())
    return False


@dataclass
class _Plan:
    """What a node hands from step to step."""

    before: tuple[Any, ...]
    """The variables."""
    carried: dict[int, Any] = field(default_factory=dict)
    """Those that the body changes, with what they begin with."""
    maybe: dict[int, Maybe] = field(default_factory=dict)
    """Those of them that have no value before a ``break``."""
    left: int | None = None
    """The one whose truth alone ends the loop."""
    spoilt: bool = False
    """Whether the body writes into an array that a variable holds from step to step."""
    arrays: list[Owned] = field(default_factory=list)
    """Arrays from outside that it writes."""


class _Again(Exception):
    """Control flow of this module: the plan was changed."""


def _recorded(loop: Loop, trace: Trace) -> None:
    """The loop as one node."""
    plan = _Plan(loop.get())
    for i, value in enumerate(plan.before):
        if is_python_number(value) or isinstance(value, bool | Number | Scalar):
            plan.carried[i] = value
    for _ in range(ROUNDS):
        try:
            _attempt(loop, trace, plan)
        except _Again:
            continue
        return
    raise TraceError(
        f"{loop.what} at {user_location()}: what its body changes is not the same in any two steps"
    )


def _attempt(loop: Loop, trace: Trace, plan: _Plan) -> None:
    """Record the node, with the carries that are known so far."""

    def given(values: Any, inside: bool) -> None:
        count = len(plan.carried)
        now = _variables(loop, plan, values[:count])
        if inside:  # the loop was not left, nor the function
            now = [False if is_exit(name) else x for name, x in zip(loop.names, now, strict=True)]
        loop.set(now)
        for storage, value in zip(plan.arrays, values[count:], strict=True):
            become(trace, storage, value)

    def step(values: Any) -> Any:
        with journal(trace) as notes:
            try:
                mine = tree_map(lambda x: kind_of(x)(trace, x._node) if isinstance(x, Tracer) else x, values)
                given(mine, True)
                start = loop.get()
                loop.body()
                plan.spoilt |= any(
                    type(x) is Stored and id(storage_of(x)) in notes
                    for x in flatten(mine[: len(plan.carried)])[0]
                )
                found, broken = places(notes)
                result = _after(loop, trace, plan, notes, start)
            finally:
                undo(notes)
                loop.set_state(plan.before[: len(plan.before) - len(loop.places)])
            new = here_before(loop.body, found, broken, loop.what)
            if _more_places(loop, plan, [place for place, _ in new]) or result is None:
                raise _Again
            return result

    def test(values: Any) -> Any:
        with journal(trace) as notes:
            try:
                given(values, False)
                answer = truth(loop.test())
                plan.left = _left_by(plan, values, answer)
                return answer
            finally:
                undo(notes)
                loop.set_state(plan.before[: len(plan.before) - len(loop.places)])

    stands_for(step, loop.body)
    stands_for(test, loop.test)
    init = (*plan.carried.values(), *map(array_of, plan.arrays))
    names = (*(loop.names[i] for i in plan.carried), *("an array from outside" for _ in plan.arrays))
    found = while_loop(trace, test, step, init, loop.what, names, opened=True)
    if plan.spoilt:
        _spoil(loop, plan)
    now = _variables(loop, plan, found[: len(plan.carried)])
    if plan.left is not None:
        now[plan.left] = True
    loop.set(now)
    for storage, value in zip(plan.arrays, found[len(plan.carried) :], strict=True):
        become(trace, storage, value)


def _left_by(plan: _Plan, values: Sequence[Any], answer: Any) -> int | None:
    """The variable of which the test is the negation."""
    if isinstance(answer, bool) or answer._node.op.name != "not":
        return None
    for i, value in zip(plan.carried, values, strict=False):
        if isinstance(value, Tracer) and value._node is answer._node.args[0]:
            return i
    return None


def _more_places(loop: Loop, plan: _Plan, found: Sequence[Place]) -> bool:
    """Whether some attributes and items were not known to be variables; now they are."""
    known = {(id(place.thing), place.key) for place in loop.places}
    new = [place for place in found if (id(place.thing), place.key) not in known]
    for place in new:
        plan.carried[len(plan.before)] = place.get()
        plan.before = (*plan.before, place.get())
        loop.places.append(place)
        loop.names.append(place.name)
    return bool(new)


def _variables(loop: Loop, plan: _Plan, carried: Sequence[Any]) -> list[Any]:
    """All variables, with these values of those that are carried."""
    now = dict(zip(plan.carried, carried, strict=True))
    for i, maybe in plan.maybe.items():
        present = dict(zip(loop.names, [now.get(k) for k in range(len(plan.before))], strict=True))
        now[i] = Maybe(maybe.name, maybe.message, now[i], maybe.when).now(present)
    return [now.get(i, value) for i, value in enumerate(plan.before)]


def _spoil(loop: Loop, plan: _Plan) -> None:
    """Refuse to read the arrays with which carried variables began: some step writes into one of them.

    Raises:
        TraceError: two of them are one array.
    """
    seen: set[int] = set()
    for i in plan.carried:
        begin = [] if isinstance(plan.before[i], Undefined) else owners(plan.before[i])
        if seen & set(map(id, begin)):
            raise _aliased(loop, plan)
        seen |= set(map(id, begin))
        for storage in begin:
            storage.spoilt = (
                f"the {loop.what} at {user_location()} writes into the array that {loop.names[i]} was before it, and which step does so is not known, since "
                f"{loop.names[i]} is bound to other arrays in it. Work on a copy, {loop.names[i]} = {loop.names[i]}.copy(), before the loop"
            )


def _aliased(loop: Loop, plan: _Plan) -> TraceError:
    names = ", ".join(loop.names[i] for i in plan.carried)
    return TraceError(
        f"{loop.what}: variables that change from step to step ({names}) are views of one array, or name an array from outside, and a step writes into one of "
        f"them (the loop at {user_location()}): which arrays a write shows in differs from step to step. Write copies: x = x.copy()"
    )


def _after(loop: Loop, trace: Trace, plan: _Plan, notes: Any, start: Sequence[Any]) -> Any:
    """The carries after a step; None: there have to be more of them, or others."""
    after, again = loop.get(), False
    for i, (value, was) in enumerate(zip(after, start, strict=True)):
        if i in plan.carried:
            if type(value) is Maybe:
                value = value.value
            elif isinstance(value, Undefined):
                raise TraceError(
                    f"{loop.what}: {loop.names[i]} has no value after some steps of the loop at {user_location()}: {value.message}"
                )
            wider = _wider(trace, plan.carried[i], value)
            if wider is not None:
                plan.carried[i], again = wider, True
        elif type(value) is Maybe and isinstance(was, Undefined):
            plan.maybe[i] = value
            plan.carried[i], again = blank(value.value), True
        elif not same(value, was) and not isinstance(value, Undefined):
            plan.carried[i] = blank(value) if isinstance(was, Undefined) else was
            again = True
    new = [storage for storage in written(notes, trace.within) if storage not in plan.arrays]
    if new or again:
        # A variable that turns out to be carried may be the only one that was written.
        plan.arrays = [] if again else plan.arrays + new
        plan.spoilt = False
        return None
    if plan.spoilt:
        held = [
            each for i in plan.carried if not isinstance(after[i], Undefined) for each in owners(after[i])
        ]
        around = outside(trace.within)
        if len(set(map(id, held))) < len(held) or any(each.within in around for each in held):
            raise _aliased(loop, plan)
    ends = {i: frozen(after[i]) for i in plan.carried}
    variables = tuple(end.value if type(end) is Maybe else end for end in ends.values())
    return (*variables, *(Tracer(trace, storage.node()) for storage in plan.arrays))


def _wider(trace: Trace, begin: Any, value: Any) -> Any:
    """A number of Python that the loop begins with, in the shape of the array that a step makes of it."""
    if not is_python_number(begin) or not isinstance(value, Tracer) or not value._node.shape:
        return None
    node = trace.broadcast(trace.node(begin), value._node.shape)
    return Tracer(trace, trace.narrow(node, value._node.dtype))


# ------------------------------------------------------------------------------------------------------- for


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
    steps = steps_of(iterated)
    if steps is not None and (extra_test is not None or not steps.known):
        _for_steps(steps, extra_test or (lambda: True), body, get_state, set_state, names)
        return
    for x in iterated:
        if extra_test is None:
            body(x)
            continue
        answer = truth(extra_test())
        if answer is False:
            break
        if answer is True:
            body(x)
        else:
            _maybe(answer, lambda x=x: body(x), get_state, set_state, names)  # type: ignore[misc]


def _maybe(answer: Scalar, body: Thunk, get_state: Getter, set_state: Setter, names: Sequence[str]) -> None:
    """A step that happens only if the loop was not left."""
    before = get_state()

    def run() -> Any:
        try:
            body()
            return get_state()
        finally:
            set_state(before)

    stands_for(run, body)
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
    number: list[Any] = [0]

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
        more = number[0] < steps.length
        if more is False:
            return False
        on = truth(extra_test())
        if isinstance(on, bool) or more is True:
            return more if on is True else on
        return more & on

    stands_for(step, body)
    loop = Loop("for", test, step, get, set_, ["the number of steps", *names])
    answer = truth(test())
    while answer is True:
        answer = _step(loop)
    if answer is not False:
        _recorded(loop, answer._trace)
