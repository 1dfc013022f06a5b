"""What a traced function depends on besides its arguments: the search for guards.

A compiled function is only right as long as the names that its code reads lead to the same things. For
``lambda x: x * model.weights + bias`` these are the global ``bias``, the global ``model`` and its attribute
``weights``. Before a trace `find_guards` walks everything that the code can reach by such names and returns a
guard for every binding that can be changed. Guards are compared by identity at each call; one that fails
means a new trace.

The walk follows cells, globals and defaults of the function and of the user's functions that it names; of
static arguments, captured objects, classes and modules of the user the attributes whose names occur in that
code (all of them where the code reads attributes without naming them); the items of containers, whatever
their size and depth. Libraries are taken as they are.

Nothing of the user's is called and nothing is written: what the walk sees stands in bytecode, dicts and slots
(`code_names`, `inspection`). Arrays on the way need no guard here. They are returned, and answer for
themselves while the function is traced (`captured_methods`).
"""

from __future__ import annotations

import array
import builtins
import collections
import contextvars
import functools
import gc
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.backend.signature import (
    MISSING,
    CellGuard,
    ClassGuard,
    ContentGuard,
    ContextGuard,
    ForeignGuard,
    GlobalGuard,
    Guard,
    MappingGuard,
    SequenceGuard,
)
from graphjit.trace.numpy.patches import CREATORS, LIBRARIES
from graphjit.trace.outside import memory_guards
from graphjit.trace.outside.captured_class import is_array
from graphjit.trace.outside.check_guards import SMALL, content
from graphjit.trace.outside.code_names import CodeNames, names_in
from graphjit.trace.outside.inspection import (
    UNSEEN_BUILTINS,
    UNSEEN_MODULES,
    by_user,
    class_dict,
    dict_behind_class,
    function_of_compiled,
    functions_of,
    instance_dict,
    keeps_attributes,
    keeps_values,
    module_dict,
    module_of,
    mro_of,
    package_of,
    reads_unseen,
)

MOST = 100_000
"""Objects that one walk looks at."""

MOST_NAMED = 10_000
"""Among them objects with attributes, of which each is looked at for every name in the code."""

_HARMLESS = frozenset({*CREATORS, "ndarray", "errstate", "finfo", "iinfo", "dtype", "random"})
"""Attributes of numpy that we replace for the time of a trace, or that look at no numbers."""

_ATOMS: frozenset[type] = frozenset({int, float, complex, bool, str, bytes, type(None)})
_PLAIN: tuple[type, ...] = (*_ATOMS, np.generic, np.dtype, np.ufunc, range, slice, type(...))
"""Classes whose objects lead to nothing else."""
_CONSTRUCTION = frozenset(
    {"__init__", "__new__", "__init_subclass__", "__class_getitem__", "__set_name__", "__del__"}
)
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset, bytearray, memoryview}) | frozenset(
    {collections.OrderedDict, collections.defaultdict, collections.deque}
)
"""Containers without attributes of the user's."""
_VIEWS = frozenset(
    {types.MappingProxyType, *(type(getattr({}, name)()) for name in ("keys", "values", "items"))}
)
_BUFFERS = (bytearray, array.array, memoryview)


@dataclass(frozen=True)
class Reach:
    """What a function reaches by name."""

    guards: tuple[Guard, ...]
    arrays: list[np.ndarray]
    generators: list[Any]
    """Random generators."""
    stores: list[tuple[str, dict[Any, Any]]]
    """Dicts of attributes, items and globals that the function might write, each with words for its owner."""
    opaque: bool
    """Whether the function names code that takes numbers out of arrays unseen (compiled functions of
    libraries).
    """
    exact: bool
    """Whether it may compare the class of an array with np.ndarray (``type(w) is np.ndarray``), so that
    arrays must keep their class.
    """


def find_guards(
    function: Callable[..., Any],
    static: Iterable[Any] = (),
    without: frozenset[types.CodeType] = frozenset(),
) -> Reach:
    """What ``function`` reaches by name; ``static`` are its static arguments. The code in ``without`` is no
    part of it: what is called after each run may change what it likes.
    """
    walk = _Walk(without)
    walk.function(function)
    for argument in static:
        walk.reach(argument)
    before = None
    while walk.count_names() != before:
        before = walk.count_names()
        walk.run()
        walk.pending.extend(walk.named)
    return walk.result()


_Entries = dict[tuple[int, str], GlobalGuard]
"""What a class must have in itself and its bases, by the base and the name."""


class _Walk:
    """One walk over everything that the code seen so far can name.

    New code brings new names, and these may be attributes of objects that were looked at already. So objects
    with attributes are looked at again until no new name turns up.
    """

    def __init__(self, without: frozenset[types.CodeType]) -> None:
        self.without = without
        # Names in all code seen so far, as in `CodeNames`.
        self.attribute_names: set[str] = set()
        self.optional: set[str] = set()
        self.used: set[str] = set()
        self.any_attribute = False
        # What the walk has collected.
        self.guards: dict[Any, Guard] = {}
        self.classes: dict[type, _Entries] = {}
        self.arrays: list[np.ndarray] = []
        self.generators: list[Any] = []
        self.stores: dict[int, tuple[str, dict[Any, Any]]] = {}
        self.opaque = False
        self.exact = False
        # Objects that were reached, those that wait to be looked at, those that have attributes.
        self.seen: dict[int, Any] = {}
        self.pending: list[Any] = []
        self.named: list[Any] = []

    def count_names(self) -> tuple[int, int, int, bool]:
        """Changes with every new name."""
        return len(self.attribute_names), len(self.optional), len(self.used), self.any_attribute

    def result(self) -> Reach:
        """What was collected."""
        class_guards = [
            ClassGuard(kind, memory_guards.version(kind), tuple(entries.values()))
            for kind, entries in self.classes.items()
            if entries
        ]
        return Reach(
            (*self.guards.values(), *class_guards),
            self.arrays,
            self.generators,
            [*self.stores.values()],
            self.opaque,
            self.exact,
        )

    def run(self) -> None:
        """Look at everything that waits."""
        while self.pending:
            if len(self.seen) > MOST or len(self.named) > MOST_NAMED:
                _say_too_many()
                return
            self.look(self.pending.pop())

    def reach(self, value: Any) -> None:
        """Something that the code can name: it is looked at later, once."""
        if id(value) in self.seen or (
            issubclass(type(value), _PLAIN) and not by_user(module_of(type(value)))
        ):
            return
        self.seen[id(value)] = value
        self.pending.append(value)
        if type(value) in _CONTAINERS:
            return
        self.opaque |= reads_unseen(value)
        if not issubclass(type(value), np.ndarray | types.MethodType | weakref.ref | contextvars.ContextVar):
            self.named.append(value)

    def reach_all(self, values: Iterable[Any]) -> None:
        """Several of them."""
        several = tuple(values)
        if not _ATOMS.issuperset(map(type, several)):  # a long list of numbers is not looked at one by one
            for value in several:
                self.reach(value)

    def look(self, value: Any) -> None:
        """What one object leads to."""
        kind = type(value)
        if kind in _CONTAINERS:
            self.container(value)
        elif issubclass(kind, np.ndarray):
            self.array(value)
        elif kind is types.FunctionType:
            self.function(value)
        elif issubclass(kind, types.ModuleType):
            self.module(value)
        elif issubclass(kind, types.MethodType):
            self.reach_all((value.__func__, value.__self__))
        elif kind is functools.partial:
            self.reach_all((value.func, *value.args, value.keywords))
        elif (inner := function_of_compiled(value)) is not None:
            self.reach(inner)
        elif issubclass(kind, np.random.Generator | np.random.RandomState):
            if not any(value is generator for generator in self.generators):
                self.generators.append(value)
        elif issubclass(kind, weakref.ref):
            guards = memory_guards.referent(value)
            self.watch_memory(value, "referent", guards, lambda reference: (weakref.ref.__call__(reference),))
            self.reach(weakref.ref.__call__(value))
        elif issubclass(kind, contextvars.ContextVar):
            self.guards[id(value), "context"] = ContextGuard(value, value.get(MISSING))
            with suppress(LookupError):
                self.reach(value.get())  # its default too, which is always the same object
        elif kind in _VIEWS:
            self.reach_all(item for item in gc.get_referents(value) if type(item) is dict)
        elif issubclass(kind, type):
            self.class_entries(value, _user_classes(value))
        else:
            self.container(value)
            self.instance(value)

    def module(self, value: types.ModuleType) -> None:
        """A module: the user's is watched, of a library what could take numbers out of arrays."""
        namespace = module_dict(value)
        name = namespace.get("__name__")
        if by_user(name):
            self.attributes(value, namespace)
        elif package_of(name) in LIBRARIES and name != "graphjit":
            for attribute in self.attribute_names & namespace.keys():
                member = namespace[attribute]
                if not (value is np and attribute in _HARMLESS) and (
                    type(member) is types.ModuleType or reads_unseen(member)
                ):
                    self.reach(member)
        else:
            self.opaque |= name in UNSEEN_MODULES

    def array(self, value: np.ndarray) -> None:
        """An array: its contents are read at each call, except where they are objects or its class is not
        NumPy's.
        """
        if is_array(value) and not value.dtype.hasobject:
            if value.flags.writeable or value.base is not None:
                self.arrays.append(value)
            return
        if value.dtype == object:
            self.reach_all(np.ndarray.reshape(value, -1).tolist())
        if value.nbytes <= SMALL:
            plain = np.ndarray.view(value, np.ndarray)
            kept = plain.copy() if value.dtype.hasobject else None
            self.guards[id(value), "content"] = ContentGuard(
                value, value.dtype, value.shape, content(plain), kept
            )

    # --------------------------------------------------------------------------------------------------- code

    def function(self, function: Any) -> None:
        """A function: one of the user's has cells, defaults, globals and attributes, and code with names."""
        if type(function) is not types.FunctionType:
            self.reach(function)
            return
        if keeps_values(function.__module__):
            self.cells(function, names_in(function.__code__, self.without))
        if not by_user(function.__module__) or function.__code__ in self.without:
            return
        self.seen.setdefault(id(function), function)
        guards = memory_guards.function_fields(function)
        self.watch_memory(
            function, "function", guards, lambda f: (f.__code__, f.__defaults__, f.__kwdefaults__)
        )
        names = names_in(function.__code__, self.without)
        self.cells(function, names)
        self.reach_all(function.__defaults__ or ())
        self.reach(function.__kwdefaults__)
        self.add_names(names)
        self.globals(function.__globals__, names)
        if attributes := instance_dict(function):
            self.attributes(function, attributes)

    def add_names(self, names: CodeNames) -> None:
        """The names in the code of one more function."""
        self.attribute_names |= names.attributes
        self.optional |= names.optional
        self.used |= names.used
        self.any_attribute |= names.any_attribute
        self.exact |= {"type", "ndarray"} <= names.used

    def cells(self, function: types.FunctionType, names: CodeNames) -> None:
        """Variables of enclosing functions."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                contents = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            if contents is not MISSING:
                self.guards[id(cell)] = CellGuard(cell, contents)
                if name in names.used:
                    self.reach(contents)

    def globals(self, namespace: dict[str, Any], names: CodeNames) -> None:
        """Global variables that the code reads, and modules that it imports."""
        self.opaque |= any(name not in namespace for name in names.globals & UNSEEN_BUILTINS)
        for name in names.globals:
            value = namespace.get(name, MISSING)
            if not _is_library(value) and (
                value is not MISSING or name in names.optional or name in _builtin_names()
            ):
                self.watch_name(namespace, name, value)
            if value is not MISSING and name in names.used:
                self.reach(value)
        self.reach_all(sys.modules[name] for name in names.modules if name in sys.modules)
        self.stores[id(namespace)] = "the global variable", namespace

    def watch_name(self, namespace: dict[Any, Any], name: Any, value: Any) -> None:
        """``namespace[name]`` must stay this value (`MISSING`: absent)."""
        self.guards[id(namespace), name] = GlobalGuard(namespace, name, value)

    def watch_memory(
        self,
        owner: Any,
        what: str,
        guards: memory_guards.Guards | None,
        read: Callable[[Any], tuple[Any, ...]],
    ) -> None:
        """``read(owner)`` must give the same objects. ``guards`` of memory watch that; without them (None)
        it is called each time.
        """
        for i, guard in enumerate(guards or [ForeignGuard(owner, read, read(owner))]):
            self.guards[id(owner), what, i] = guard

    # --------------------------------------------------------------------------------------------- containers

    def container(self, value: Any) -> None:
        """Items of a list, tuple, dict, set ..., of a subclass too."""
        kind = type(value)
        if issubclass(kind, tuple):
            self.reach_all(tuple.__iter__(value))
        elif issubclass(kind, list):
            items = tuple(list.__iter__(value))
            self.guards[id(value), SequenceGuard] = SequenceGuard(value, items)
            self.reach_all(items)
        elif issubclass(kind, dict):
            keys, values = tuple(dict.keys(value)), tuple(dict.values(value))
            self.guards[id(value), MappingGuard] = MappingGuard(value, keys, values)
            self.stores[id(value)] = "the item", value
            if issubclass(kind, collections.OrderedDict):
                guards = memory_guards.dict_order(value)
                self.watch_memory(
                    value, "order", guards, lambda items: tuple(collections.OrderedDict.__iter__(items))
                )
            self.reach_all(keys)
            self.reach_all(values)
        elif issubclass(kind, frozenset):
            self.reach_all(frozenset.__iter__(value))
        elif issubclass(kind, set):
            guards = memory_guards.set_items(value)
            self.watch_memory(value, "members", guards, lambda items: tuple(set.__iter__(items)))
            self.reach_all(set.__iter__(value))
        elif issubclass(kind, collections.deque):
            guards = memory_guards.deque_items(value)
            self.watch_memory(value, "queued", guards, lambda items: tuple(collections.deque.__iter__(items)))
            self.reach_all(collections.deque.__iter__(value))
        elif issubclass(kind, _BUFFERS):
            self.guards[id(value), "bytes"] = _buffer_guard(value)
        elif issubclass(kind, threading.local):
            self.watch_memory(value, "local", None, _items_of_local)
            self.reach_all(_items_of_local(value))

    # ------------------------------------------------------------------------------------------------ objects

    def attributes(self, owner: Any, namespace: dict[str, Any], everything: bool = False) -> None:
        """Attributes of a module, a function or an object that the code names, or all of them."""
        is_module = issubclass(type(owner), types.ModuleType)
        what = f"the attribute of {'a module' if is_module else type(owner).__name__}"
        self.stores[id(namespace)] = what, namespace
        if everything or (self.any_attribute and not is_module):
            self.all_items(namespace)
            return
        for name in self.attribute_names & namespace.keys():
            self.watch_name(namespace, name, namespace[name])
            if name in self.used:
                self.reach(namespace[name])
        for name in self.optional - namespace.keys():
            self.watch_name(namespace, name, MISSING)

    def all_items(self, attributes: dict[str, Any]) -> None:
        """All attributes of an object, since code may read any of them.

        No name that is watched in the same dict can be the key of this guard: names are strings.
        """
        self.guards[id(attributes), MappingGuard] = MappingGuard(
            attributes, tuple(attributes.keys()), tuple(attributes.values())
        )
        self.reach_all(attributes.values())

    def instance(self, value: Any) -> None:
        """An object: its attributes, its slots, its class."""
        kind = type(value)
        attributes = instance_dict(value)
        user_classes = _user_classes(kind)
        if attributes is not None:
            # Methods of a library's class may read any of them.
            self.attributes(value, attributes, everything=keeps_attributes(kind))
        if not user_classes:
            return
        if attributes is not None:
            guards = memory_guards.dict_of(value, attributes)
            self.watch_memory(value, "dict", guards, lambda owner: (instance_dict(owner),))
            if any("__getattr__" in class_dict(base) for base in mro_of(kind)):
                for name in self.attribute_names - attributes.keys():
                    self.watch_name(attributes, name, MISSING)  # an attribute of the object would come first
        self.watch_memory(value, "class", memory_guards.class_of(value), lambda owner: (type(owner),))
        self.class_entries(kind, user_classes, value, attributes)

    def class_entries(
        self,
        kind: type,
        user_classes: list[type],
        value: Any = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """What an object, or a class itself where ``value`` is None, finds in the user's classes among its
        bases by the names that the code uses.
        """
        names = self.names_in_classes(user_classes, value)
        metaclass = type(kind)
        user_metaclasses = _user_classes(metaclass)
        if user_metaclasses and metaclass is not kind:
            self.class_entries(metaclass, user_metaclasses)
        if user_classes:
            self.watch_memory(kind, "mro", memory_guards.mro(kind), lambda owner: (mro_of(owner),))
        entries = self.classes.setdefault(kind, {})
        of_metaclass = {name for base in user_metaclasses for name in class_dict(base)}
        of_instance = attributes or {}
        has_getattr = any("__getattr__" in class_dict(base) for base in user_classes)
        for name in names:
            holder = _first_with(name, user_classes)
            if holder is not None:
                entry = self.class_entry(entries, user_classes, holder, name)
                self.value_of_entry(value, attributes, name, entry)
            elif has_getattr or name in self.optional or name in of_instance or name in of_metaclass:
                for base in user_classes:  # what a class gets later would come first
                    self.absent(entries, base, name)

    def names_in_classes(self, user_classes: list[type], value: Any) -> set[str]:
        """Names that the code looks up in the user's classes, special methods among them: operators and
        built-in functions call these without naming them.
        """
        special = {
            name
            for base in user_classes
            for name, entry in class_dict(base).items()
            if _is_special_method(name, entry)
        }
        # No number comes from it, and that of a dataclass holds a set, which native code cannot look into.
        special.discard("__repr__")
        if value is not None and not self.used & {"type", "__class__"}:
            special -= _CONSTRUCTION
        names = self.attribute_names | special
        if self.any_attribute:
            names |= {name for base in user_classes for name in class_dict(base) if not name.startswith("__")}
        return names

    def class_entry(self, entries: _Entries, classes: list[type], holder: type, name: str) -> Any:
        """Guards that ``name`` is found in ``holder`` and in none of the classes before it; returns what
        stands there.
        """
        for base in classes:
            if base is holder:
                break
            self.absent(entries, base, name)
        entry = class_dict(holder)[name]
        entries[id(holder), name] = GlobalGuard(dict_behind_class(holder), name, entry)
        return entry

    @staticmethod
    def absent(entries: _Entries, base: type, name: str) -> None:
        """A guard that ``base`` itself has no entry ``name``."""
        entries[id(base), name] = GlobalGuard(dict_behind_class(base), name, MISSING)

    def value_of_entry(self, value: Any, attributes: dict[str, Any] | None, name: str, entry: Any) -> None:
        """What an entry of a class leads to, for an object with these attributes."""
        if type(entry) is types.MemberDescriptorType:
            if value is not None:
                self.slot(value, entry)
            return
        functions = list(functions_of(entry))
        if functions:
            self.reach_all(functions)
        else:
            self.reach(entry)
        if (
            attributes is not None
            and name not in attributes
            and not isinstance(entry, property)
            and not name.startswith("__")
        ):
            self.watch_name(attributes, name, MISSING)  # an attribute of the object would come first

    def slot(self, value: Any, descriptor: Any) -> None:
        """An attribute that stands in a slot."""

        def read(owner: Any) -> tuple[Any, ...]:
            try:
                return (descriptor.__get__(owner, type(owner)),)
            except AttributeError:
                return ()

        contents = read(value)
        guards = memory_guards.slot(value, descriptor, contents)
        self.watch_memory(value, f"slot {descriptor.__name__}", guards, read)
        self.reach_all(contents)


def _user_classes(kind: type) -> list[type]:
    """The user's classes among a class and its bases, in the order of a look-up."""
    return [base for base in mro_of(kind) if by_user(module_of(base))]


def _first_with(name: str, classes: list[type]) -> type | None:
    """The first class that has an entry of this name."""
    for kind in classes:
        if name in class_dict(kind):
            return kind
    return None


def _is_library(value: Any) -> bool:
    """Whether a value is a module that is not the user's."""
    return issubclass(type(value), types.ModuleType) and not by_user(module_dict(value).get("__name__"))


def _is_special_method(name: str, entry: Any) -> bool:
    """Whether an entry of a class is a method that operators and built-in functions call."""
    return (
        name.startswith("__")
        and name.endswith("__")
        and type(entry) in (types.FunctionType, property, staticmethod, classmethod)
    )


def _items_of_local(local: threading.local) -> tuple[Any, ...]:
    """Names and values of this thread."""
    items: dict[str, Any] = threading.local.__getattribute__(local, "__dict__")
    return (*items.keys(), *items.values())


def _buffer_guard(value: Any) -> ForeignGuard:
    """The bytes of a buffer that is not an array."""
    before = bytes(value)
    same = (MISSING,)
    return ForeignGuard(value, lambda now: same if bytes(now) == before else (), same)


@functools.cache
def _builtin_names() -> frozenset[str]:
    """Names that are found where a global is absent."""
    return frozenset(vars(builtins))


@functools.cache
def _say_too_many() -> None:
    print(
        f"graphjit: a compiled function reaches more than {MOST} objects from outside, or {MOST_NAMED} with attributes; rebinding one beyond those goes unnoticed. "
        "Pass large structures as arguments.",
        file=sys.stderr,
    )
