"""``if``, ``a if c else b``, ``and``, ``or`` on traced values: both ways are recorded, one is taken.

Input: the test, functions for both ways, what reads and writes the variables. Output: variables and arrays as
they are after the statement.
Invariants: what is written in one way does not show in the other. Numbers of Python take the dtype and the
shape that the other way gives. What cannot be both is an error where it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from graphjit.errors import TraceError
from graphjit.ir.node import Node, bodies
from graphjit.ir.types import I64
from graphjit.ops.failing import may_fail
from graphjit.trace.arrays.storage import Owned
from graphjit.trace.converted.containers import Contents, Place, here_before, lists_in, places, reaches
from graphjit.trace.converted.errors import Raising
from graphjit.trace.converted.journals import become, journal, outside, owners, undo, written
from graphjit.trace.converted.values import Maybe, Undefined, blank, frozen, is_control, is_result, ld, same
from graphjit.trace.pytree import flatten
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.recorder import Within
from graphjit.trace.recording.tracer import Array, Number, Outside, Scalar, Trace, Tracer, any_tracer, kind_of
from graphjit.trace.transformed.bodies import Leaves
from graphjit.trace.transformed.carries import Kind, converted, joined, kind_of_leaf, leaves_of, shown
from graphjit.trace.transformed.control import cond_node
from graphjit.trace.transformed.control_bodies import Recorded, recording

Way = Callable[[], Any]


@dataclass
class Outcome:
    """What one way leads to."""

    body: Recorded
    values: list[Any] | None
    """Of the variables; None: it raises."""
    frozen: list[Any]
    """The same, as they were at the end of it."""
    arrays: dict[int, tuple[Owned, Node]]
    """Arrays from outside that it writes, and what they become."""
    places: dict[tuple[int, Any], tuple[Place, Any, Any]]
    """Attributes and items from outside that it writes, what they become, and that as it was at the end."""
    grown: dict[int, tuple[Contents, dict[Any, Any], dict[Any, Any]]]
    """Objects from outside whose structure it changes: what they hold at the end, and that as it is then."""
    around: list[Within | None]
    """The bodies around it."""

    def give(self, places: Mapping[Any, Place]) -> None:
        """Add the values of these places to those of the variables."""
        if self.values is None:
            return
        for key, place in places.items():
            _, value, end = self.places.get(key) or (place, place.get(), frozen(place.get()))
            self.values.append(value)
            self.frozen.append(end)


def choose(trace: Trace, test: Scalar, what: str, ways: Sequence[Way], names: Sequence[str]) -> list[Any]:
    """The values of some variables after one of two ``ways`` was taken, that where the test does not hold or
    that where it does. Each of them returns the values that it leads to. Attributes, items and arrays are
    written here.
    """
    outcomes = [record(trace, what, way) for way in reversed(ways)][::-1]
    if all(each.values is None for each in outcomes):
        raise TraceError(f"both ways of the {what} at {user_location()} raise an error")
    changed, grown = _places(outcomes), _grown(outcomes, what)
    names = [
        *names,
        *(place.name for place in changed.values()),
        *(f"item {key!r}" for _, keys in grown for key in keys),
    ]
    flags = _flags(names, outcomes)
    merged = [_variable(trace, name, what, i, outcomes, flags) for i, name in enumerate(names)]
    stored = _close(outcomes, merged)
    which = trace.convert(test._node, I64)
    found = iter(cond_node(trace, which, [each.body for each in outcomes]))
    for storage in stored.values():
        become(trace, storage, next(found))
    _freeze(what, names, outcomes, merged)
    values = [_filled(trace, value, found) for value in merged]
    _doubt(trace, what, names, merged, values, outcomes, ways)
    after = dict(zip(names, values, strict=True))
    count = len(values) - len(changed) - sum(len(keys) for _, keys in grown)
    rest = map(ld, values[count:])
    for place, value in zip(changed.values(), rest, strict=False):
        place.set(value)
    for each, keys in grown:
        each.fill(dict(zip(keys, rest, strict=False)))
    return [value.now(after) if type(value) is Maybe else value for value in values[:count]]


def _places(outcomes: Sequence[Outcome]) -> dict[Any, Place]:
    """The attributes and items that one of the ways writes. They become variables of both."""
    found = {key: place for each in outcomes for key, (place, _, _) in each.places.items()}
    for each in outcomes:
        each.give(found)
    return found


def _grown(outcomes: Sequence[Outcome], what: str) -> list[tuple[Contents, list[Any]]]:
    """The objects that both ways give the same new structure, and their keys. What they hold is variables.

    Raises:
        TraceError: the ways give an object different structures.
    """
    goes_on = [each for each in outcomes if each.values is not None]
    found: dict[int, tuple[Contents, list[Any]]] = {}
    for one in goes_on:
        for key, (contents, held, _) in one.grown.items():
            found[key] = contents, list(held)
            if any(list(other.grown.get(key, (0, {}))[1]) != list(held) or not held for other in goes_on):
                raise contents.refused(what)
    for each in goes_on:
        for key, (_, keys) in found.items():
            _, held, end = each.grown[key]
            each.values += [held[k] for k in keys]  # type: ignore[operator]
            each.frozen += [end[k] for k in keys]
    return [*found.values()]


def _close(outcomes: Sequence[Outcome], merged: Sequence[Any]) -> dict[int, Owned]:
    """Give both bodies their outputs: the arrays that one of them writes (returned), then variables."""
    stored = {key: storage for each in outcomes for key, (storage, _) in each.arrays.items()}
    for each in outcomes:
        for key, storage in stored.items():
            each.body.outputs.append(each.arrays[key][1] if key in each.arrays else storage.node())
    for value in map(_inner, merged):
        if isinstance(value, Merged):
            for each, nodes in zip(outcomes, value.nodes, strict=True):
                each.body.outputs += nodes
    for each in outcomes:
        made = set(each.body.made)
        each.body.kept = [node for node in each.body.made if not node.is_const]
        each.body.kept += [node for node in set(each.body.outputs) - made if may_fail(node)]
    return stored


def _inner(value: Any) -> Any:
    """A variable, or what it holds if it holds something."""
    return value.value if type(value) is Maybe else value


def _freeze(what: str, names: Sequence[str], outcomes: Sequence[Outcome], merged: Sequence[Any]) -> None:
    """Refuse to write into arrays from outside that a variable may name after the statement, and note in the
    variable that it may be one of them.
    """
    for i, value in enumerate(map(_inner, merged)):
        if not isinstance(value, Merged):
            continue
        message = (
            f"{names[i]} may be this array or not, which the {what} at {user_location()} decides when the compiled code runs. Give {names[i]} a copy "
            f"there, {names[i]} = x.copy()"
        )
        for each in outcomes:
            held = None if each.values is None else _inner(each.values[i])
            if isinstance(held, Undefined):
                continue
            outer = [storage for storage in owners(held) if storage.within in each.around]
            for storage in outer:
                storage.frozen = message
            if outer or any(isinstance(leaf, Outside | np.ndarray) for leaf in flatten(held)[0]):
                value.frozen = message


def _doubt(
    trace: Trace,
    what: str,
    names: Sequence[str],
    merged: Sequence[Any],
    values: Sequence[Any],
    outcomes: Sequence[Outcome],
    ways: Sequence[Way],
) -> None:
    """Refuse to change lists and the like that a variable may name after the statement, and those that it
    does: which of them would change is not known.
    """
    for i, name in enumerate(names):
        if not isinstance(_inner(merged[i]), Merged) or is_result(name):
            continue
        there = []
        for outcome, way in zip(outcomes, ways, strict=True):
            found = [] if outcome.values is None else lists_in(_inner(outcome.values[i]))
            before = reaches(way, found) if found else set()
            there += [each for each in found if id(each) in before]
        if there:
            message = (
                f"{name} may be this {type(there[0]).__name__} or another one, which the {what} at {user_location()} decides when the compiled code runs: "
                f"neither can be changed afterwards. Give {name} a copy there"
            )
            trace.doubtful.update(
                (id(each), (each, message)) for each in [*there, *lists_in(_inner(values[i]))]
            )


def _filled(trace: Trace, value: Any, found: Iterator[Node]) -> Any:
    """A variable after the statement, with the nodes of its results."""
    if type(value) is Maybe:
        return Maybe(value.name, value.message, _filled(trace, value.value, found), value.when)
    return value.filled(trace, found) if isinstance(value, Merged) else value


CHEAP = 16
"""Operations of the second operand of ``and`` and ``or`` up to which it is computed in any case."""


def both(first: Scalar, other: Way, what: str) -> Any:
    """``first and other()``, or with ``or``, of truth values that are both computed. None: the second one
    costs much, or can fail where it is not asked for.
    """
    trace = first._trace
    told = len(trace.builder.told)
    outcome = record(trace, what, lambda: (other(),))
    made, value = outcome.body.made, outcome.values and outcome.values[0]
    trace.builder.told.take(told)
    simple = not (outcome.arrays or outcome.places or outcome.body.effects) and len(made) <= CHEAP
    if not simple or any(may_fail(node) or bodies(node) for node in made):
        return None
    if isinstance(value, bool):
        return value if value is (what == "or") else first
    if not isinstance(value, Tracer) or value._node.type != first._node.type:
        return None
    for node in reversed(made):
        trace.builder.adopt(node)
    return Scalar(trace, trace.emit(what, first._node, value._node))


def record(trace: Trace, what: str, way: Way) -> Outcome:
    """Record one way; afterwards everything is as it was."""
    with journal(trace) as notes:
        try:
            with recording(trace, what, way, apart=True, opened=True) as body:
                try:
                    values: list[Any] | None = list(way())
                except Raising as raising:
                    values = None
                    raising.tell()
                arrays = {
                    id(storage): (storage, storage.node())
                    for storage in (written(notes, trace.within) if values is not None else ())
                }
                found = list(map(frozen, values or ()))
                made, broken = places(notes) if values is not None else ([], [])
                ends = [(place, value, frozen(value)) for place, value in made]
                held = {id(each.thing): each.held() or {} for each in broken}
                fixed = {key: {k: frozen(v) for k, v in now.items()} for key, now in held.items()}
        finally:
            undo(notes)
    around = outside(body.within)
    here, outer = here_before(way, made, broken)
    there = {(id(place.thing), place.key) for place, _ in here}
    kept = {(id(each[0].thing), each[0].key): each for each in ends}
    grown = {id(each.thing): (each, held[id(each.thing)], fixed[id(each.thing)]) for each in outer}
    return Outcome(
        body, values, found, arrays, {key: kept[key] for key in kept if key in there}, grown, around
    )


@dataclass
class Merged:
    """A variable whose value depends on the way: its tree, and nodes for each way."""

    tree: Leaves
    kinds: list[type]
    nodes: list[list[Node]]
    frozen: str = ""
    """Why its arrays cannot be written."""

    def filled(self, trace: Trace, found: Any) -> Any:
        """The variable, with these nodes."""
        made = self.tree.filled([kind(trace, next(found)) for kind in self.kinds])
        if self.frozen:
            for storage in owners(made):
                storage.frozen = self.frozen
        return made


def _variable(trace: Trace, name: str, what: str, i: int, outcomes: Sequence[Outcome], flags: Flags) -> Any:
    """What variable i is after the statement."""
    given = [each for each in outcomes if each.values is not None]
    if len(given) == len(outcomes):
        no, yes = (each.values[i] for each in given if each.values is not None)
        return yes if same(no, yes) else _merged(trace, name, what, [each.frozen[i] for each in given], flags)
    value = given[0].frozen[i]
    if isinstance(value, Undefined) or not any_tracer(flatten(value)[0]):
        return value
    pair = [blank(value) if each.values is None else value for each in outcomes]
    return _joined(trace, [leaves_of(each) for each in pair])


Flags = dict[str, list[Any]]
"""The variables that say how a loop or a function goes on: their values after each way."""


def _flags(names: Sequence[str], outcomes: Sequence[Outcome]) -> Flags:
    return {
        name: [each.values[i] for each in outcomes if each.values is not None]
        for i, name in enumerate(names)
        if is_control(name)
    }


def _merged(trace: Trace, name: str, what: str, pair: list[Any], flags: Flags) -> Any:
    """What a variable is after the statement, to which the ways give different values: one that depends on
    the way, or `Undefined`.
    """
    if any(isinstance(value, Undefined) for value in pair):
        return _merged_with_nothing(trace, name, what, pair, flags)
    trees = [leaves_of(value) for value in pair]
    reason = _differ(trees, name)
    if reason is None:
        return pair[1] if same(*pair) else _joined(trace, trees)
    title = "what the function returns" if is_result(name) else name
    return Undefined(name, f"{title} is no one thing after the {what} at {user_location()}: {reason}")


def _merged_with_nothing(trace: Trace, name: str, what: str, pair: list[Any], flags: Flags) -> Any:
    """`_merged` of a variable that has no value after one way, or has one only if a flag holds."""
    messages = [each.message for each in pair if isinstance(each, Undefined) and each.message]
    way = "where its test holds" if isinstance(pair[0], Undefined) else "where its test does not hold"
    message = (*messages, f"{name} has a value after the {what} at {user_location()} only {way}")[0]
    when = frozenset(flag for flag in flags if all(map(_told_by, repeat(flag), pair, flags[flag])))
    given = [each for each in map(_inner, pair) if not isinstance(each, Undefined)]
    if not given or not (when or is_result(name)):
        return Undefined(name, message)
    filled = [blank(given[-1]) if isinstance(each, Undefined) else each for each in map(_inner, pair)]
    merged = _merged(trace, name, what, filled, flags)
    return merged if is_result(name) or isinstance(merged, Undefined) else Maybe(name, message, merged, when)


def _told_by(flag: str, value: Any, state: Any) -> bool:
    """Whether a variable has a value after a way exactly if the flag, which is ``state`` then, holds."""
    if type(value) is Maybe:
        return flag in value.when
    return state is not isinstance(value, Undefined) and isinstance(state, bool)


def _differ(trees: Sequence[Leaves], name: str) -> str | None:
    """Why two values cannot be one, for people."""
    no, yes = trees
    rule = "both ways must give the same structure, shapes and dtypes"
    if no.spec != yes.spec:
        one, other = (_brief(tree) for tree in (yes, no))
        return f"it is {one} where the test holds and {other} where not; {rule}"
    for i, (a, b) in enumerate(zip(no.leaves, yes.leaves, strict=True)):
        numbers = i in no.numbers, i in yes.numbers
        if (all(numbers) and _kind(a, b) is None) or (not all(numbers) and not same(a, b)):
            part = f"part {i} of it" if len(no.leaves) > 1 else "it"
            return f"{part} is {shown(b)} where the test holds and {shown(a)} where not; {rule}"
    return None


def _brief(tree: Leaves) -> str:
    return shown(tree.leaves[0]) if tree.spec.is_leaf() else f"a container of {len(tree.leaves)} parts"


def _kind(a: Any, b: Any) -> Kind | None:
    """The kind of a value that is one of two: a number of Python spreads over the shape of an array."""
    one, other = kind_of_leaf(a), kind_of_leaf(b)
    if one.weak and not other.weak:
        one = Kind(one.type.with_shape(other.type.shape), True)
    if other.weak and not one.weak:
        other = Kind(other.type.with_shape(one.type.shape), True)
    return joined(one, other)


_ORDER: list[type] = [Number, Scalar, Array]
"""Kinds of traced values, those first that others make to their own."""


def _joined(trace: Trace, trees: Sequence[Leaves]) -> Merged:
    """Two values that may be one."""
    no, yes = trees
    kinds: list[type] = []
    nodes: list[list[Node]] = [[], []]
    for i in yes.numbers:
        kind = _kind(no.leaves[i], yes.leaves[i])
        assert kind is not None
        kinds.append(max((kind_of(tree.leaves[i]) for tree in trees), key=_ORDER.index))
        for tree, found in zip(trees, nodes, strict=True):
            node = converted(trace, trace.node(tree.leaves[i]), kind.type.dtype)
            found.append(trace.broadcast(node, kind.type.shape))
    return Merged(yes, kinds, nodes)


def pick(test: Any, yes: Any, no: Any) -> Any:
    """One of two numbers, both of which are computed."""
    if isinstance(test, bool):
        return yes if test else no
    trace = test._trace
    merged = _joined(trace, [leaves_of(no), leaves_of(yes)])
    (low,), (high,) = merged.nodes
    return merged.filled(
        trace, iter([trace.emit("select", trace.broadcast(test._node, high.shape), high, low)])
    )


def assumed(names: Sequence[str], values: Sequence[Any], test: Scalar, holds: bool) -> tuple[Any, ...]:
    """The values of variables where a test holds, or does not. It may be one of those that say how a loop or
    a function goes on, which is known then.
    """
    node = test._node
    other = node.args[0] if node.op.name == "not" else None
    found = dict(zip(names, values, strict=True))
    for name, value in found.items():
        if is_control(name) and isinstance(value, Tracer):
            found[name] = holds if value._node is node else not holds if value._node is other else value
    for name, value in found.items():
        if type(value) is Maybe and (node if holds else other) in value.nodes:
            found[name] = value.value
    return tuple(found.values())
