"""Attributes of objects and items of containers that a body of converted code changes.

Job: keep what they were, put it back after a body was recorded, tell which of them were changed.
Input: the object in front of each assignment ``o.name = v`` or ``o[k] = v``, and each method that changes a
list, a dict, a set or a deque. Output: `Place`s, which are read and written like variables.
Invariant: a value that an object gets in a body is a variable of the body. What gets or loses items,
attributes or keys is refused.
"""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from graphjit.errors import TraceError
from graphjit.trace.marks import name_of
from graphjit.trace.outside.code_names import names_in
from graphjit.trace.outside.inspection import (
    by_user,
    class_dict,
    instance_dict,
    module_dict,
    mro_of,
    package_of,
)
from graphjit.trace.outside.states import SHARED, UNKNOWN, is_stateful, put_back, state_of
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.recorder import Journal, Recorder, current
from graphjit.trace.recording.tracer import Tracer

CONTAINERS = (list, dict, set, collections.deque)
CHANGING = frozenset(
    "append extend insert pop remove clear sort reverse update setdefault popitem add discard appendleft extendleft popleft rotate "
    "intersection_update difference_update symmetric_difference_update move_to_end subtract __setitem__ __delitem__".split()
)
"""Methods that change a container."""
MOST = 1_000_000
"""Objects that are looked at to find out whether one of them was there before."""


class Contents:
    """What an object held before it was changed; called, it puts that back."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.where = user_location()
        self.before: Any = None if isinstance(thing, CONTAINERS) else dict(_attributes(thing))
        if isinstance(thing, CONTAINERS):
            self.before = thing.copy()

    def __call__(self) -> None:
        thing, before = self.thing, self.before
        if isinstance(thing, list):
            thing[:] = before
            return
        target: Any = thing if isinstance(thing, CONTAINERS) else _attributes(thing)
        if isinstance(target, dict):
            _refill(target, before)
            return
        target.clear()
        (target.extend if isinstance(target, collections.deque) else target.update)(before)

    def changed(self) -> list[Any] | None:
        """The keys whose values were changed; None: there are more of them, or less."""
        now: Any = self.thing if isinstance(self.thing, CONTAINERS) else _attributes(self.thing)
        if isinstance(now, list) and len(now) == len(self.before):
            return [i for i, value in enumerate(now) if value is not self.before[i]]
        if isinstance(now, dict) and list(now) == list(self.before):
            return [key for key, value in now.items() if value is not self.before[key]]
        return [] if not isinstance(now, list | dict) and now == self.before else None

    def held(self) -> dict[Any, Any] | None:
        """What the object holds now, by key; None: it has no keys."""
        if isinstance(self.thing, list):
            return dict(enumerate(self.thing))
        if isinstance(self.thing, CONTAINERS) and not isinstance(self.thing, dict):
            return None
        return dict(self.thing if isinstance(self.thing, dict) else _attributes(self.thing))

    def fill(self, values: dict[Any, Any]) -> None:
        """Let the object hold these values."""
        changed(self.thing)
        if isinstance(self.thing, list):
            self.thing[:] = values.values()
        else:
            _refill(self.thing if isinstance(self.thing, dict) else _attributes(self.thing), values)

    def refused(self, what: str) -> TraceError:
        """The error for a change that a body of ``what`` cannot make."""
        kind = type(self.thing).__name__
        parts = "items" if isinstance(self.thing, CONTAINERS) else "attributes"
        return TraceError(
            f"{what}: the {kind} that is changed at {self.where} gets or loses {parts} in a body that runs only where the values ask for it, or as often as they "
            f"do: its structure would not be known. Give it all {parts} before, or fill an array: out[i] = value"
        )


def _refill(target: dict[Any, Any], values: dict[Any, Any]) -> None:
    """Let a dict hold these values, in this order; the ``update`` of a counter would add them."""
    kind: Any = collections.OrderedDict if isinstance(target, collections.OrderedDict) else dict
    if list(target) != list(values):
        kind.clear(target)
    for key, value in values.items():
        kind.__setitem__(target, key, value)


class State(Contents):
    """What an object would say next (`states.py`)."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.where = user_location()
        self.before = state_of(thing)

    def __call__(self) -> None:
        if not put_back(self.thing, self.before):
            raise self.refused("a branch or a loop")

    def changed(self) -> list[Any] | None:
        """Nothing; None: it would say something else, or does not tell."""
        return [] if self.before is not UNKNOWN and state_of(self.thing) == self.before else None

    def held(self) -> None:
        """It has no keys."""

    def refused(self, what: str) -> TraceError:
        """The error for what a body of ``what`` takes from it."""
        return TraceError(
            f"{what}: the {type(self.thing).__name__} at {self.where} says another thing each time, and how often it is asked depends on values that are "
            "only known when the compiled code runs. Take what it says before, as an array"
        )


class Lost:
    """An object that was changed and cannot be put back."""

    def __init__(self, thing: Any) -> None:
        self.what = name_of(thing) if isinstance(thing, type) else type(thing).__name__
        self.where = user_location()

    def __call__(self) -> None:
        raise TraceError(
            f"{self.what} is changed at {self.where} in a branch or a loop that depends on values which are only known when the compiled code runs. What it was "
            "cannot be put back: it is a class, or keeps its values elsewhere than in attributes, a list, a dict or a set. Return the value instead"
        )


class Place(NamedTuple):
    """An attribute of an object, or an item of a container."""

    thing: Any
    key: Any

    @property
    def name(self) -> str:
        """It, for people."""
        kind = type(self.thing).__name__
        if isinstance(self.thing, CONTAINERS):
            return f"item {self.key!r} of a {kind}"
        return f"the attribute {self.key} of a {kind}"

    def get(self) -> Any:
        """What is there now."""
        return self._holder()[self.key]

    def set(self, value: Any) -> None:
        """Put a value there."""
        changed(self.thing)
        self._holder()[self.key] = value

    def _holder(self) -> Any:
        return self.thing if isinstance(self.thing, CONTAINERS) else _attributes(self.thing)


def _attributes(thing: Any) -> dict[str, Any]:
    """The attributes of an object."""
    found = instance_dict(thing)
    return {} if found is None else found


def changed(thing: Any) -> Any:
    """An object that is about to be changed.

    Raises:
        TraceError: it is one of two, which values decide.
    """
    trace = current.recorder
    if trace is not None and id(thing) in trace.doubtful:
        raise TraceError(f"{trace.doubtful[id(thing)][1]} (written at {user_location()})")
    if trace is not None and trace.journals:
        _note(trace, thing)
    return thing


def _note(trace: Recorder, thing: Any, whole: bool = False) -> None:
    """Keep what an object is; ``whole``: and all that it consists of, which its methods may change unseen."""
    if issubclass(type(thing), Tracer | np.ndarray) or type(thing).__module__.startswith("graphjit."):
        return  # arrays, and what stands for their parts, note themselves
    for journal in reversed(trace.journals):
        if id(thing) in journal:
            return
        journal[id(thing)] = thing, _kept(thing)
    if whole or has_hooks(type(thing)):
        for part in parts_of(thing):
            _note(trace, part, whole=True)


def _kept(thing: Any) -> Contents | Lost:
    """What an object is now."""
    if is_stateful(thing):
        return State(thing)
    restores = isinstance(thing, CONTAINERS) or instance_dict(thing) is not None
    return Contents(thing) if restores else Lost(thing)


HOOKS = frozenset(
    "__getitem__ __setitem__ __delitem__ __getattr__ __getattribute__ __setattr__ __delattr__ __len__ __contains__ __iter__ __next__ __enter__ __exit__ "
    "__bool__ __iadd__ __isub__ __imul__ __itruediv__ __ifloordiv__ __imod__ __ipow__ __iand__ __ior__ __ixor__ __imatmul__ __ilshift__ __irshift__".split()
)
"""Methods that statements and keywords call, which are not converted, and may change an object."""


def has_hooks(kind: type) -> bool:
    """Whether a class of the user's has such methods, or properties."""
    return any(
        name in HOOKS or isinstance(entry, property)
        for base in mro_of(kind)
        if by_user(base.__module__)
        for name, entry in class_dict(base).items()
    )


def parts_of(thing: Any) -> list[Any]:
    """The containers and objects of the user's classes that an object consists of.

    By their types: items of a list that grows (`loops.growing`) refuse to be asked what they are.
    """
    found, pending = [], list(_inside(thing))
    while pending:
        part = pending.pop()
        if issubclass(type(part), tuple):
            pending += part
        elif issubclass(type(part), CONTAINERS) or is_stateful(part) or _is_users(part):
            found.append(part)
    return found


def _is_users(thing: Any) -> bool:
    """Whether an object of a class of the user's keeps attributes."""
    return (
        not issubclass(type(thing), type)
        and by_user(type(thing).__module__)
        and instance_dict(thing) is not None
    )


def asked(thing: Any) -> Any:
    """An object that a statement calls methods of, which may change it."""
    return changed(thing) if is_stateful(thing) or has_hooks(type(thing)) else thing


def added_to(thing: Any, value: Any) -> Any:
    """The right-hand side of ``thing += value`` and its kin, which may change the object on the left."""
    if isinstance(thing, CONTAINERS):
        changed(thing)
    asked(thing)
    return value


def changing(method: Any) -> Any:
    """A method that is about to be called: of a container, or of what says another thing each time."""
    owner = method.__self__
    if is_stateful(owner) or (method.__name__ in CHANGING and isinstance(owner, CONTAINERS)):
        changed(owner)
    return method


def lists_in(value: Any) -> list[Any]:
    """The lists, dicts, sets and deques in a variable."""
    if isinstance(value, tuple):
        return [each for part in value for each in lists_in(part)]
    if not isinstance(value, CONTAINERS):
        return []
    parts = value.values() if isinstance(value, dict) else value
    return [value, *(each for part in parts for each in lists_in(part))]


def contents(notes: Journal) -> Iterator[Contents]:
    """The objects that were changed."""
    return (restore for _, restore in notes.values() if isinstance(restore, Contents))


def reaches(function: Callable[..., Any], things: list[Any]) -> set[int]:
    """The ids of those ``things`` that a function reaches by its variables: they were there before it ran.
    Where there is too much to look at, all of them may have been.
    """
    wanted = set(map(id, things))
    seen: dict[int, Any] = {}
    pending: list[Any] = [function, *SHARED]
    while pending and wanted - seen.keys():
        if len(seen) > MOST:
            return wanted
        value = pending.pop()
        if id(value) not in seen and not issubclass(type(value), ATOMS):
            seen[id(value)] = value
            pending += _inside(value)
    return wanted & seen.keys()


ATOMS = (int, float, complex, str, bytes, type(None), Tracer, np.ndarray, np.generic)
"""What leads to nothing that could be changed."""


def _inside(value: Any) -> list[Any]:
    """What an object leads to."""
    kind = type(value)
    if kind is types.FunctionType:
        return [
            *map(_cell, value.__closure__ or ()),
            *(_named(value) if by_user(package_of(value.__module__)) else ()),
            *value.__dict__.values(),
            *(value.__defaults__ or ()),
        ]
    if kind is types.MethodType or kind is types.BuiltinMethodType:
        return [value.__self__, getattr(value, "__func__", None)]
    if kind is functools.partial:
        return [value.func, value.args, value.keywords]
    if issubclass(kind, dict):
        return [*dict.values(value), *_attributes(value).values()]
    if issubclass(kind, list | tuple | set | collections.deque):
        return [*value, *_attributes(value).values()]
    if issubclass(kind, types.ModuleType):
        return list(module_dict(value).values()) if by_user(value.__name__) else []
    if issubclass(kind, type):
        return list(class_dict(value).values()) if by_user(value.__module__) else []
    return [kind, *_attributes(value).values(), *_slots(value)]


def _named(function: types.FunctionType) -> Iterator[Any]:
    """The globals that a function names, and what it names of the modules among them: not all that a module
    of a large library holds.
    """
    names = names_in(function.__code__)
    pending = [(function.__globals__, names.globals)]
    seen: set[int] = set()
    while pending:
        space, wanted = pending.pop()
        for name in wanted & space.keys():
            value = space[name]
            if names.any_attribute or not isinstance(value, types.ModuleType):
                yield value
            elif by_user(value.__name__) and id(value) not in seen:
                seen.add(id(value))
                pending.append((module_dict(value), names.attributes))


def _slots(value: Any) -> list[Any]:
    """What stands in the slots of an object of a class of the user's."""
    descriptors = [
        entry
        for base in mro_of(type(value))
        if by_user(base.__module__)
        for entry in class_dict(base).values()
        if type(entry) is types.MemberDescriptorType
    ]
    found = []
    for descriptor in descriptors:
        with suppress(AttributeError):
            found.append(descriptor.__get__(value))
    return found


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def places(notes: Journal) -> tuple[list[tuple[Place, Any]], list[Contents]]:
    """Places that were changed, with what is there now; objects whose structure was changed."""
    found, broken = [], []
    for each in contents(notes):
        keys = each.changed()
        if keys is None:
            broken.append(each)
        else:
            found += [(place, place.get()) for place in (Place(each.thing, key) for key in keys)]
    return found, broken


def here_before(
    function: Callable[..., Any], found: list[tuple[Place, Any]], broken: list[Contents]
) -> tuple[list[tuple[Place, Any]], list[Contents]]:
    """Those of them whose objects were there before ``function`` ran, as they are again now."""
    there = reaches(function, [place.thing for place, _ in found] + [each.thing for each in broken])
    return (
        [(place, value) for place, value in found if id(place.thing) in there],
        [each for each in broken if id(each.thing) in there],
    )
