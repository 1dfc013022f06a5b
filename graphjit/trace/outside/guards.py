"""What a traced function looked up outside of its arguments, to be compared at each call.

Job: find everything that the function's code can reach by name, so that rebinding any of it makes a new
trace.
Input: the user's function, its static arguments. Output: `Found`: guards, compared by identity, and the
arrays and random generators on the way.
Invariants: nothing is called and nothing is written: guards come from bytecode, dicts and slots. Arrays
written in place need no guard here: they are read at each call (`captured.py`).

Reached are: cells, globals and defaults of the function and of the user's functions that it names; of static
arguments, captured objects, classes and modules of the user the attributes whose names occur in that code
(all of them where the code reads attributes without naming them); the items of containers, whatever their
size and depth. Libraries are taken as they are.
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
from graphjit.trace.outside import places
from graphjit.trace.outside.holding import SMALL, content
from graphjit.trace.outside.inside import (
    UNSEEN_BUILTINS,
    UNSEEN_MODULES,
    bases,
    by_user,
    compiled,
    entries,
    functions_in,
    keeps,
    module_of,
    names,
    own_dict,
    top_of,
    unseen,
)
from graphjit.trace.outside.lent import is_array

MOST = 100_000
"""Objects that one walk looks at."""

MOST_NAMED = 10_000
"""Among them objects with attributes, of which each is looked at for every name in the code."""

HARMLESS = frozenset({*CREATORS, "ndarray", "errstate", "finfo", "iinfo", "dtype", "random"})
"""Attributes of numpy that we replace for the time of a trace, or that look at no numbers."""

PLAIN = (np.generic, int, float, complex, str, bytes, type(None), type(...), np.dtype, np.ufunc, range, slice)
_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_MAKING = frozenset(
    {"__init__", "__new__", "__init_subclass__", "__class_getitem__", "__set_name__", "__del__"}
)
_CONTAINERS = frozenset(
    {
        list,
        tuple,
        dict,
        set,
        frozenset,
        collections.OrderedDict,
        collections.defaultdict,
        collections.deque,
        bytearray,
        memoryview,
    }
)
"""Containers without attributes of the user's."""
_VIEWS = frozenset(
    {types.MappingProxyType, *(type(getattr({}, name)()) for name in ("keys", "values", "items"))}
)
_BUFFERS = (bytearray, array.array, memoryview)


@dataclass(frozen=True)
class Found:
    """What the walk found; ``stores``: dicts of attributes, items and globals that the function might write,
    with their owners' names; ``opaque``: the function names code that takes numbers out of arrays unseen
    (compiled functions of libraries); ``exact``: it may compare the class of an array with np.ndarray
    (``type(w) is np.ndarray``), so that arrays must stay what they are.
    """

    guards: tuple[Guard, ...]
    arrays: list[np.ndarray]
    generators: list[Any]
    stores: list[tuple[str, dict[Any, Any]]]
    opaque: bool
    exact: bool


def find_guards(function: Callable[..., Any], roots: Iterable[Any] = ()) -> Found:
    """What ``function`` reaches; ``roots`` are its static arguments."""
    reach = _Reach()
    reach.function(function)
    for root in roots:
        reach.value(root)
    known = None
    while reach.known() != known:
        known = reach.known()
        reach.run()
        reach.pending.extend(reach.named)
    return reach.found()


class _Reach:
    """One walk over everything that the code seen so far can name; what has attributes is looked at again
    until no new name turns up.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.asked: set[str] = set()
        self.read: set[str] = set()
        self.everything = False
        self.guards: dict[Any, Guard] = {}
        self.classes: dict[type, dict[tuple[int, str], GlobalGuard]] = {}
        self.seen: dict[int, Any] = {}
        self.pending: list[Any] = []
        self.named: list[Any] = []  # what has attributes
        self.arrays: list[np.ndarray] = []
        self.generators: list[Any] = []
        self.stores: dict[int, tuple[str, dict[Any, Any]]] = {}
        self.opaque = False
        self.exact = False

    def known(self) -> tuple[int, int, int, bool]:
        """Grows with every name."""
        return len(self.names), len(self.asked), len(self.read), self.everything

    def found(self) -> Found:
        """The result."""
        kinds = [
            ClassGuard(kind, places.version(kind), tuple(guards.values()))
            for kind, guards in self.classes.items()
            if guards
        ]
        return Found(
            (*self.guards.values(), *kinds),
            self.arrays,
            self.generators,
            [*self.stores.values()],
            self.opaque,
            self.exact,
        )

    def run(self) -> None:
        """Look into everything that was reached."""
        while self.pending:
            if len(self.seen) > MOST or len(self.named) > MOST_NAMED:
                _say_too_many()
                return
            self.look(self.pending.pop())

    def value(self, value: Any) -> None:
        """Something the code can name."""
        if id(value) in self.seen or (issubclass(type(value), PLAIN) and not by_user(module_of(type(value)))):
            return
        self.seen[id(value)] = value
        self.pending.append(value)
        if type(value) in _CONTAINERS:
            return
        self.opaque |= unseen(value)
        if not issubclass(type(value), np.ndarray | types.MethodType | weakref.ref | contextvars.ContextVar):
            self.named.append(value)

    def values(self, values: Iterable[Any]) -> None:
        """Several of them."""
        several = tuple(values)
        if not _ATOMS.issuperset(map(type, several)):  # a long list of numbers is not looked at one by one
            for value in several:
                self.value(value)

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
            self.module(value, entries_of_module(value))
        elif issubclass(kind, types.MethodType):
            self.values((value.__func__, value.__self__))
        elif kind is functools.partial:
            self.values((value.func, *value.args, value.keywords))
        elif (inner := compiled(value)) is not None:
            self.value(inner)
        elif issubclass(kind, np.random.Generator | np.random.RandomState):
            if not any(value is known for known in self.generators):
                self.generators.append(value)
        elif issubclass(kind, weakref.ref):
            self.watch(
                value,
                "referent",
                places.referent(value),
                lambda reference: (weakref.ref.__call__(reference),),
            )
            self.value(weakref.ref.__call__(value))
        elif issubclass(kind, contextvars.ContextVar):
            self.guards[id(value), "context"] = ContextGuard(value, value.get(MISSING))
            with suppress(LookupError):
                self.value(value.get())  # its default too, which is always the same object
        elif kind in _VIEWS:
            self.values(item for item in gc.get_referents(value) if type(item) is dict)
        elif issubclass(kind, type):
            self.of_class(value, None)
        else:
            self.container(value)
            self.instance(value)

    def module(self, value: types.ModuleType, namespace: dict[str, Any]) -> None:
        """A module: the user's is watched; of a library only what could take numbers out of arrays is of
        interest.
        """
        name = namespace.get("__name__")
        if by_user(name):
            self.attributes(value, namespace)
        elif top_of(name) in LIBRARIES and name != "graphjit":
            for attribute in self.names & namespace.keys():
                found = namespace[attribute]
                if not (value is np and attribute in HARMLESS) and (
                    type(found) is types.ModuleType or unseen(found)
                ):
                    self.value(found)
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
            self.values(np.ndarray.reshape(value, -1).tolist())
        if value.nbytes <= SMALL:
            plain = np.ndarray.view(value, np.ndarray)
            kept = plain.copy() if value.dtype.hasobject else None
            self.guards[id(value), "content"] = ContentGuard(
                value, value.dtype, value.shape, content(plain), kept
            )

    # --------------------------------------------------------------------------------------------------- code

    def function(self, function: Any) -> None:
        """Cells, globals and defaults."""
        if type(function) is not types.FunctionType:
            self.value(function)
            return
        if not by_user(function.__module__):
            return
        self.seen.setdefault(id(function), function)
        self.watch(
            function,
            "function",
            places.function_fields(function),
            lambda f: (f.__code__, f.__defaults__, f.__kwdefaults__),
        )
        read = names(function.__code__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:
                held = MISSING
            if held is not MISSING:
                self.guards[id(cell)] = CellGuard(cell, held)
                if name in read.read:
                    self.value(held)
        self.values(function.__defaults__ or ())
        self.value(function.__kwdefaults__)
        self.names |= read.attributes
        self.read |= read.read
        self.exact |= {"type", "ndarray"} <= read.read
        self.asked |= read.asked
        self.everything |= read.everything
        namespace = function.__globals__
        self.opaque |= any(name not in namespace for name in read.globals & UNSEEN_BUILTINS)
        for name in read.globals:
            value = namespace.get(name, MISSING)
            library = issubclass(type(value), types.ModuleType) and not by_user(
                entries_of_module(value).get("__name__")
            )
            if not library and (value is not MISSING or name in read.asked or name in dir_of_builtins()):
                self.entry(namespace, name, value)
            if value is not MISSING and name in read.read:
                self.value(value)
        self.values(sys.modules[name] for name in read.modules if name in sys.modules)
        self.stores[id(namespace)] = "the global variable", namespace
        if attributes := own_dict(function):
            self.attributes(function, attributes)

    def entry(self, namespace: dict[Any, Any], name: Any, value: Any) -> None:
        """``namespace[name]`` is this value now."""
        self.guards[id(namespace), name] = GlobalGuard(namespace, name, value)

    def watch(
        self, owner: Any, what: str, guards: places.Guards | None, read: Callable[[Any], tuple[Any, ...]]
    ) -> None:
        """``read(owner)`` must give the same objects: by ``guards`` of memory or, where its place was not
        found (None), by Python at each call.
        """
        for i, guard in enumerate(guards or [ForeignGuard(owner, read, read(owner))]):
            self.guards[id(owner), what, i] = guard

    # --------------------------------------------------------------------------------------------- containers

    def container(self, value: Any) -> None:
        """Items of a list, tuple, dict, set ..., of a subclass too."""
        kind = type(value)
        if issubclass(kind, tuple):
            self.values(tuple.__iter__(value))
        elif issubclass(kind, list):
            items = tuple(list.__iter__(value))
            self.guards[id(value), "items"] = SequenceGuard(value, items)
            self.values(items)
        elif issubclass(kind, dict):
            keys, values = tuple(dict.keys(value)), tuple(dict.values(value))
            self.guards[id(value), "items"] = MappingGuard(value, keys, values)
            self.stores[id(value)] = "the item", value
            if issubclass(kind, collections.OrderedDict):
                self.watch(
                    value,
                    "order",
                    places.order(value),
                    lambda items: tuple(collections.OrderedDict.__iter__(items)),
                )
            self.values(keys)
            self.values(values)
        elif issubclass(kind, frozenset):
            self.values(frozenset.__iter__(value))
        elif issubclass(kind, set):
            self.watch(value, "members", places.members(value), lambda items: tuple(set.__iter__(items)))
            self.values(set.__iter__(value))
        elif issubclass(kind, collections.deque):
            self.watch(
                value, "queued", places.queued(value), lambda items: tuple(collections.deque.__iter__(items))
            )
            self.values(collections.deque.__iter__(value))
        elif issubclass(kind, _BUFFERS):
            self.guards[id(value), "bytes"] = _buffer(value)
        elif issubclass(kind, threading.local):
            self.watch(value, "local", None, _items_of_local)
            self.values(_items_of_local(value))

    # ------------------------------------------------------------------------------------------------ objects

    def attributes(self, owner: Any, namespace: dict[str, Any]) -> None:
        """Attributes of a module, a function or an object that the code names."""
        what = f"the attribute of {'a module' if issubclass(type(owner), types.ModuleType) else type(owner).__name__}"
        self.stores[id(namespace)] = what, namespace
        if self.everything and not issubclass(type(owner), types.ModuleType):
            self.guards[id(namespace), "items"] = MappingGuard(
                namespace, tuple(namespace.keys()), tuple(namespace.values())
            )
            self.values(namespace.values())
            return
        for name in self.names & namespace.keys():
            self.entry(namespace, name, namespace[name])
            if name in self.read:
                self.value(namespace[name])
        for name in self.asked - namespace.keys():
            self.entry(namespace, name, MISSING)

    def instance(self, value: Any) -> None:
        """An object: its attributes, its slots, its class."""
        kind = type(value)
        own = own_dict(value)
        users = any(by_user(module_of(base)) for base in bases(kind))
        if own is not None:
            self.attributes(value, own)
            if keeps(kind):  # methods of the library's class may read any of them
                self.guards[id(own), "items"] = MappingGuard(own, tuple(own.keys()), tuple(own.values()))
                self.values(own.values())
        if not users:
            return
        if own is not None:
            self.watch(value, "dict", places.dict_of(value, own), lambda owner: (own_dict(owner),))
            if any(
                "__getattr__" in entries(base) for base in bases(kind)
            ):  # an attribute of the object would come first
                for name in self.names - own.keys():
                    self.entry(own, name, MISSING)
        self.watch(value, "class", places.kind_of(value), lambda owner: (type(owner),))
        self.of_class(kind, value, own)

    def of_class(self, kind: type, value: Any, own: dict[str, Any] | None = None) -> None:
        """What an object, or a class itself where ``value`` is None, finds in the class by the names that the
        code uses.
        """
        above = [base for base in bases(kind) if by_user(module_of(base))]
        special = {name for base in above for name, found in entries(base).items() if _special(name, found)}
        special.discard(
            "__repr__"
        )  # no number comes from it, and that of a dataclass holds a set, which native code cannot look into
        if value is not None and not self.read & {"type", "__class__"}:
            special -= _MAKING
        wanted = self.names | special
        if self.everything:
            wanted |= {name for base in above for name in entries(base) if not name.startswith("__")}
        supplied = any(
            "__getattr__" in entries(base) for base in above
        )  # what a class gets later comes first
        metaclasses = [base for base in bases(type(kind)) if by_user(module_of(base))]
        of_metaclass = {name for base in metaclasses for name in entries(base)}
        if metaclasses and type(kind) is not kind:
            self.of_class(type(kind), None)
        if above:
            self.watch(kind, "mro", places.mro(kind), lambda owner: (bases(owner),))
        found_in = self.classes.setdefault(kind, {})
        for name in wanted:
            before: list[type] = []
            for base in above:
                if name in entries(base):
                    self.class_entry(found_in, before, base, name)
                    self.found_in_class(value, own, name, entries(base)[name])
                    break
                before.append(base)
            else:
                if (
                    name in self.asked
                    or (own is not None and name in own)
                    or supplied
                    or name in of_metaclass
                ):
                    for base in above:
                        self.absent(found_in, base, name)

    def class_entry(
        self, found_in: dict[tuple[int, str], GlobalGuard], before: list[type], base: type, name: str
    ) -> None:
        """``name`` stands in ``base`` and in no class before it."""
        for other in before:
            self.absent(found_in, other, name)
        found_in[id(base), name] = GlobalGuard(_dict_behind(base), name, entries(base)[name])

    @staticmethod
    def absent(found_in: dict[tuple[int, str], GlobalGuard], base: type, name: str) -> None:
        """``name`` does not stand in ``base``."""
        found_in[id(base), name] = GlobalGuard(_dict_behind(base), name, MISSING)

    def found_in_class(self, value: Any, own: dict[str, Any] | None, name: str, found: Any) -> None:
        """One entry of a class, seen from an object of it."""
        if type(found) is types.MemberDescriptorType:
            if value is not None:
                self.slot(value, found)
            return
        functions = list(functions_in(found))
        if functions:
            self.values(functions)
        else:
            self.value(found)
        if (
            own is not None
            and name not in own
            and not isinstance(found, property)
            and not name.startswith("__")
        ):
            self.entry(own, name, MISSING)  # an attribute of the object would come first

    def slot(self, value: Any, field: Any) -> None:
        """An attribute that stands in a slot."""

        def read(owner: Any) -> tuple[Any, ...]:
            try:
                return (field.__get__(owner, type(owner)),)
            except AttributeError:
                return ()

        held = read(value)
        self.watch(value, f"slot {field.__name__}", places.slot(value, field, held), read)
        self.values(held)


def _special(name: str, found: Any) -> bool:
    """Methods that operators and built-in functions call."""
    return (
        name.startswith("__")
        and name.endswith("__")
        and type(found) in (types.FunctionType, property, staticmethod, classmethod)
    )


def _items_of_local(local: threading.local) -> tuple[Any, ...]:
    """Names and values of this thread."""
    own: dict[str, Any] = threading.local.__getattribute__(local, "__dict__")
    return (*own.keys(), *own.values())


def _buffer(value: Any) -> ForeignGuard:
    """Bytes that are not an array."""
    before = bytes(value)
    same = (MISSING,)
    return ForeignGuard(value, lambda now: same if bytes(now) == before else (), same)


def _dict_behind(kind: type) -> dict[str, Any]:
    """The dict behind the read-only view that a class shows."""
    found: dict[str, Any] = gc.get_referents(entries(kind))[0]
    return found


def entries_of_module(module: types.ModuleType) -> dict[str, Any]:
    """The globals of a module, whatever its class makes of attributes."""
    return own_dict(module) or {}


@functools.cache
def dir_of_builtins() -> frozenset[str]:
    """Names that are found where a global is absent."""
    return frozenset(vars(builtins))


@functools.cache
def _say_too_many() -> None:
    print(
        f"graphjit: a compiled function reaches more than {MOST} objects from outside, or {MOST_NAMED} with attributes; rebinding one beyond those goes unnoticed. "
        "Pass large structures as arguments.",
        file=sys.stderr,
    )
