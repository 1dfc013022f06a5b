"""Loops in converted code: ``while``, and what ``for`` shares with it (`for_loops`).

Job: run the loop in Python as long as all that decides how it goes on is known; then make one node.
Input: the test, the body and the variables as functions. Output: variables and arrays as they are afterwards.
Invariants: carries of the node are the variables that the body changes, and all arrays from outside that it
writes. Which these are is found by recording the body until nothing new turns up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from graphjit.errors import GraphjitError, TraceError
from graphjit.ir.node import Node
from graphjit.ir.types import I64
from graphjit.trace.arrays.storage import Owned
from graphjit.trace.converted.containers import Contents, Place, here_before, places
from graphjit.trace.converted.journals import array_of, become, journal, outside, owners, undo, written
from graphjit.trace.converted.loops.growing import Growing, Items, LastItem, same_nodes
from graphjit.trace.converted.loops.whole import NotWhole
from graphjit.trace.converted.values import (
    Maybe,
    Undefined,
    blank,
    frozen,
    held,
    is_exit,
    ld,
    same,
    trace_node,
    truth,
)
from graphjit.trace.pytree import tree_map
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.recorder import Journal
from graphjit.trace.recording.tracer import Number, Scalar, Trace, Tracer, is_python_number, kind_of
from graphjit.trace.transformed.control import scan, while_loop
from graphjit.trace.transformed.control_bodies import stands_for
from graphjit.transforms.control.integers import check_integers

Thunk = Callable[[], Any]
Getter = Callable[[], tuple[Any, ...]]
Setter = Callable[[Sequence[Any]], None]

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
    places: list[Place | LastItem] = field(default_factory=list)
    """Attributes and items that the body changes: variables too, behind the others."""
    lists: list[Growing] = field(default_factory=list)
    """Lists to which each step of a loop that is recorded as a whole appends."""
    length: int | None = None
    """The number of steps, of a loop that is recorded as a whole (`whole`)."""
    begin: Callable[[Any], None] = lambda number: None
    """Called with the number of each step of such a loop."""

    def __contains__(self, thing: Any) -> bool:
        """Whether it is one of those lists."""
        return any(each.thing is thing for each in self.lists)

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
        answer = step_of(loop)
    if answer is not False:
        recorded(loop, answer._trace)


def step_of(loop: Loop) -> bool | Scalar:
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
        recorded(loop, trace)
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
    lost: dict[int, Undefined] = field(default_factory=dict)
    """Those that have no value afterwards, and why."""
    left: int | None = None
    """The one whose truth alone ends the loop."""
    arrays: list[Owned] = field(default_factory=list)
    """Arrays from outside that the body writes."""
    spoilt: set[int] = field(default_factory=set)
    """The carried variables that begin as arrays into which some step writes."""


class _Again(Exception):
    """Control flow of this module: the plan was changed."""


def recorded(loop: Loop, trace: Trace) -> None:
    """The loop as one node."""
    plan = _Plan(loop.get())
    for i, value in enumerate(plan.before):
        if is_python_number(value) or isinstance(value, bool | Number | Scalar):
            plan.carried[i] = value
    for _ in range(ROUNDS):
        recording = _Recording(loop, trace, plan)
        try:
            found = recording.node()
        except _Again:
            continue
        except Exception:  # a `NotWhole`, or what a library makes of it
            if not _more_last_items(loop, plan):
                raise
            continue
        _spoil(loop, plan)
        now = dict(enumerate(_variables(loop, plan, found))) | plan.lost
        if plan.left is not None:
            now[plan.left] = True
        if loop.length is not None:
            now |= recording.items.extend(trace, recording.stacks, loop.length, plan.before)
        loop.set([*now.values()])
        for storage, value in zip(plan.arrays, found[len(plan.carried) :], strict=True):
            become(trace, storage, value._node)
        return
    raise TraceError(
        f"{loop.what} at {user_location()}: what its body changes is not the same in any two steps"
    )


@dataclass
class _Recording:
    """One attempt to make the node, with the carries that are known so far: variables, then arrays."""

    loop: Loop
    trace: Trace
    plan: _Plan
    items: Items = field(default_factory=Items)
    """What a step appends to lists."""
    stacks: Sequence[Any] = ()
    """All of that after the loop."""
    more: int = 0
    """How many items more than before the loop these lists seem to have."""

    def node(self) -> Sequence[Any]:
        """The carries after the loop.

        Raises:
            _Again: there have to be more of them, or others.
        """
        loop, plan = self.loop, self.plan

        def step(values: Any) -> Any:
            return self.step(values)

        def test(values: Any) -> Any:
            return self.test(values)

        stands_for(step, loop.body)
        stands_for(test, loop.test)
        init = (*plan.carried.values(), *map(array_of, plan.arrays))
        names = (*(loop.names[i] for i in plan.carried), *("an array from outside" for _ in plan.arrays))
        if loop.length is not None:
            return self.of_known_length(step, init, names)
        found: Sequence[Any] = while_loop(self.trace, test, step, init, loop.what, names, opened=True)
        return found

    def of_known_length(
        self, step: Callable[[Any], Any], init: Sequence[Any], names: tuple[str, ...]
    ) -> Sequence[Any]:
        """The carries after a loop of known length.

        Raises:
            NotWhole: the body is another one where a list has another length.
        """
        trace, told, length = self.trace, self.trace.builder.told, self.loop.length
        assert length is not None
        known: list[tuple[Items, list[Node]]] = []
        for more in (3 * length + 7, 1, 0) if self.loop.lists else (0,):
            self.more = more
            with told.silence() if more else nullcontext():
                found, self.stacks = counted(
                    trace, step, lambda: self.items.stacked(), init, length, self.loop.begin, names
                )
            known.append(
                (self.items, [trace_node(x) for x in (*found, *self.stacks) if isinstance(x, Tracer)])
            )
        if not all(items.equals(self.items) and same_nodes(nodes, known[-1][1]) for items, nodes in known):
            raise NotWhole("what a step does depends on how long a list is")
        return found

    @contextmanager
    def begun(self, values: Sequence[Any], inside: bool) -> Iterator[Journal]:
        """Variables and arrays as a step finds them; afterwards they are as before the loop. ``inside``: the
        loop was not left, nor the function.
        """
        loop, plan = self.loop, self.plan
        with journal(self.trace) as notes:
            try:
                for each in loop.lists:
                    each.show(self.more)
                now = _variables(loop, plan, values)
                if inside:
                    now = [False if is_exit(name) else x for name, x in zip(loop.names, now, strict=True)]
                loop.set(now)
                for storage, value in zip(plan.arrays, values[len(plan.carried) :], strict=True):
                    become(self.trace, storage, value._node)
                yield notes
            finally:
                undo(notes)
                for each in loop.lists:
                    each.shown = []
                loop.set_state(plan.before[: len(plan.before) - len(loop.places)])

    def test(self, values: Sequence[Any]) -> Any:
        """The answer of the test."""
        with self.begun(values, False) as notes:
            answer = truth(self.loop.test())
            _, broken = places(notes)
        for each in here_before(self.loop.test, [], broken)[1]:
            raise each.refused(self.loop.what)
        self.plan.left = None
        if not isinstance(answer, bool) and answer._node.op.name == "not":
            pairs = zip(self.plan.carried, values, strict=False)
            nodes = {value._node: i for i, value in pairs if isinstance(value, Tracer)}
            self.plan.left = nodes.get(answer._node.args[0])
        return answer

    def step(self, values: Sequence[Any]) -> Any:
        """The carries after a step."""
        loop, plan = self.loop, self.plan
        mine = tree_map(
            lambda x: kind_of(x)(self.trace, x._node) if isinstance(x, Tracer) else x, tuple(values)
        )
        with self.begun(mine, True) as notes:
            start = loop.get()
            loop.body()
            after = loop.get()
            found, broken = places(notes)
            again = _more_variables(loop, self.trace, plan, start, after)
            new = [each for each in written(notes, self.trace.within) if each not in plan.arrays]
            if not again and not new:
                plan.spoilt = self.overwritten(mine, after, notes)
                self.appended(mine, after)
            ends = self.ends(after)
            longer = [*map(Growing.of, broken)]
        there, grown = here_before(loop.body, found, [each for each in broken if each.thing not in loop])
        grew = self.more_lists(grown, longer)
        if loop.length is not None:
            _only_arrays(there)
        more = _more_places(loop, plan, [place for place, _ in there])
        # A variable that turns out to be carried may be the only one that was written.
        plan.arrays = [] if again or more else plan.arrays + new
        if again or more or new or grew:
            raise _Again
        return tuple(ends)

    def ends(self, after: Sequence[Any]) -> list[Any]:
        """What the step hands on, where the variables hold ``after``."""
        arrays = [Tracer(self.trace, storage.node()) for storage in self.plan.arrays]
        return [*(held(frozen(after[i])) for i in self.plan.carried), *arrays]

    def more_lists(self, grown: Sequence[Contents], longer: Sequence[Growing | None]) -> bool:
        """Whether some lists were not known to grow; now they are.

        Raises:
            TraceError: an object whose structure is another one after the step, and that is no such list.
            NotWhole: a list that outlives the trace.
        """
        trace, lists = self.trace, {id(each.thing): each for each in longer if each is not None}
        for each in grown:
            if self.loop.length is None or id(each.thing) not in lists:
                raise each.refused(self.loop.what)
            if trace.whole is None or trace.whole.is_from_outside(each.thing):
                raise NotWhole("a list from outside gets items")
            self.loop.lists.append(lists[id(each.thing)])
        return bool(grown)

    def appended(self, mine: Sequence[Any], after: Sequence[Any]) -> None:
        """Find what the step appended to lists.

        Raises:
            NotWhole: something that is not the same each time, or that later writes could change.
        """
        carried, around = self.plan.carried, outside(self.trace.within)
        start, end = dict(zip(carried, mine, strict=False)), {i: after[i] for i in carried}
        self.items = Items()
        for each in self.loop.lists:
            self.items.add(each, start, end, around)
        spoilt = self.plan.spoilt
        self.items.refuse_written([x for i in spoilt for x in (start[i], end[i])])

    def overwritten(self, mine: Sequence[Any], after: Sequence[Any], notes: Journal) -> set[int]:
        """The carried variables whose arrays some step writes into, at once or when another variable holds
        them.

        Raises:
            TraceError: what such a write shows in differs from step to step.
        """
        carried = self.plan.carried
        begins = {i: owners(value) for i, value in zip(carried, mine, strict=False)}
        spoilt = {i for i in carried if any(id(each) in notes for each in begins[i])}
        if not spoilt:
            return spoilt
        ends = {i: owners(after[i]) for i in carried}
        own = {id(each) for each in chain.from_iterable(begins.values())}
        self.refuse_aliases([*chain.from_iterable(ends.values())], own)
        while more := {i for i in carried if i not in spoilt and _meet(begins[i], ends, spoilt)}:
            spoilt |= more
        return spoilt

    def refuse_aliases(self, held: Sequence[Owned], own: set[int]) -> None:
        """Refuse that the arrays that variables hold after a step are one, or arrays from outside but for
        those that the step began with, its ``own``.
        """
        around = outside(self.trace.within)
        twice = len(set(map(id, held))) < len(held)
        if twice or any(each.within in around and id(each) not in own for each in held):
            raise _aliased(self.loop, self.plan)


def _meet(begins: Sequence[Owned], ends: Mapping[int, Sequence[Owned]], among: set[int]) -> bool:
    """Whether one of these arrays is held by one of these variables after a step."""
    return any(each in ends[j] for j in among for each in begins)


def _only_arrays(changed: Sequence[tuple[Place, Any]]) -> None:
    """Refuse items and attributes that do not hold arrays before and after a step."""
    for place, value in changed:
        if not _holds_arrays(value) or not _holds_arrays(place.get()):
            raise NotWhole(f"{place.name} is changed")


def _holds_arrays(value: Any) -> bool:
    """Whether a value is an array, or a tuple of them: after the loop it is what it was before, with other
    elements. (A number of Python's would be traced then.)
    """
    if isinstance(value, tuple):
        return all(map(_holds_arrays, value))
    return isinstance(value, Tracer | np.ndarray | np.generic)


def _more_variables(
    loop: Loop, trace: Trace, plan: _Plan, start: Sequence[Any], after: Sequence[Any]
) -> bool:
    """Whether some variables were not known to change, or to be arrays; now they are."""
    known = dict(plan.carried)
    for i, (value, was) in enumerate(zip(after, start, strict=True)):
        if i in known:
            if isinstance(held(value), Undefined):
                raise TraceError(
                    f"{loop.what}: {loop.names[i]} has no value after some steps of the loop at {user_location()}: {value.message}"
                )
            plan.carried[i] = _wider(trace, known[i], held(value))
        elif type(value) is Maybe and isinstance(was, Undefined):
            plan.maybe[i] = value
            plan.carried[i] = blank(value.value)
        elif isinstance(value, Undefined):
            plan.lost[i] = value
        elif not same(value, was):
            plan.carried[i] = blank(value) if isinstance(was, Undefined) else was
    return len(known) < len(plan.carried) or any(plan.carried[i] is not known[i] for i in known)


def _more_places(loop: Loop, plan: _Plan, found: Sequence[Place]) -> bool:
    """Whether some attributes and items were not known to be variables; now they are."""
    known = {(id(place.thing), place.key) for place in loop.places}
    new = [place for place in found if (id(place.thing), place.key) not in known]
    for place in new:
        _add_place(loop, plan, place)
    return bool(new)


def _more_last_items(loop: Loop, plan: _Plan) -> bool:
    """Whether the last items of some lists that grow were not known to be variables; now they are."""
    known = {id(place.thing) for place in loop.places if isinstance(place, LastItem)}
    new = [each for each in loop.lists if each.last_is_read and each.before and id(each.thing) not in known]
    for each in new:
        _add_place(loop, plan, LastItem(each))
    return bool(new)


def _add_place(loop: Loop, plan: _Plan, place: Place | LastItem) -> None:
    """Let an attribute or an item be a variable."""
    plan.carried[len(plan.before)] = place.get()
    plan.before = (*plan.before, place.get())
    loop.places.append(place)
    loop.names.append(place.name)


def _variables(loop: Loop, plan: _Plan, values: Sequence[Any]) -> list[Any]:
    """All variables, where those that are carried have these values."""
    now = dict(zip(plan.carried, values, strict=False))
    for i, maybe in plan.maybe.items():
        present = dict(zip(loop.names, [now.get(k) for k in range(len(plan.before))], strict=True))
        now[i] = Maybe(maybe.name, maybe.message, now[i], maybe.when).now(present)
    return [now.get(i, value) for i, value in enumerate(plan.before)]


def _spoil(loop: Loop, plan: _Plan) -> None:
    """Refuse to read the arrays with which some variables began: steps write into them.

    Raises:
        TraceError: two of them are one array.
    """
    begins = [(i, each) for i in plan.spoilt for each in owners(plan.before[i])]
    if len({id(each) for _, each in begins}) < len(begins):
        raise _aliased(loop, plan)
    for i, storage in begins:
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


def _wider(trace: Trace, begin: Any, value: Any) -> Any:
    """What a variable begins with: a number of Python in the shape of the array that a step makes of it."""
    if not is_python_number(begin) or not isinstance(value, Tracer) or not value._node.shape:
        return begin
    node = trace.broadcast(trace.node(begin), value._node.shape)
    return Tracer(trace, trace.narrow(node, value._node.dtype))


def counted(
    trace: Trace,
    step: Callable[[Any], Any],
    kept: Thunk,
    init: Any,
    length: int,
    begin: Callable[[Any], None],
    names: tuple[str, ...],
) -> tuple[Sequence[Any], Sequence[Any]]:
    """The carries after a loop of known length; what each step leaves in ``kept()``, stacked."""
    numbers = Tracer(trace, trace.emit("iota", dtype=I64, shape=(length,), axis=0))

    def numbered(values: Any, number: Any) -> Any:
        begin(number)
        return step(values), kept()

    stands_for(numbered, step)
    found: Sequence[Any]
    found, stacks = scan(trace, numbered, init, numbers, length, False, 1, "for", names, Number, opened=True)
    for value in found:
        if isinstance(value, Tracer) and value._node.op.name == "item":
            check_integers(value._node.args[0])
            break
    return found, stacks
