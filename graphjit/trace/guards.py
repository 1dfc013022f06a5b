"""What a traced function looked up outside of its arguments, to be compared at each call.

Job: find the variables, attributes and items that the function's code can reach by name, so that rebinding one of them makes a new trace.
Input: the user's function, its static arguments, what was captured.  Output: guards, each compared by identity.
Invariants: nothing is called and nothing is written: guards come from bytecode and from plain containers.  Arrays written in place need no guard, they
are read at each call.

Reached are: cells and globals of the function and of the user's functions that it names; of static arguments, captured objects and modules of the
user the attributes whose names occur in that code; the items of short lists and dicts.  Libraries are taken as they are.
"""

from __future__ import annotations

import builtins
import dis
import functools
import gc
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from graphjit.backend.signature import MISSING, CellGuard, GlobalGuard, Guard, ItemGuard, SizeGuard
from graphjit.trace.marks import attribute, dispatcher_of
from graphjit.trace.patches import LIBRARIES

LONGEST = 64
"""Items up to which a list, tuple or dict is looked into: each guard costs some nanoseconds per call."""

MOST = 512
"""Guards of one trace beyond those of the function itself."""

PLAIN = (np.ndarray, np.generic, int, float, complex, str, bytes, type(None))


def find_guards(function: Callable[..., Any], roots: Iterable[Any] = ()) -> tuple[Guard, ...]:
    """Guards of ``function``; ``roots`` are its static arguments."""
    reach = _Reach()
    while True:
        known = len(reach.names)
        reach.start()
        reach.function(function, own=True)
        for root in roots:
            reach.value(root)
        reach.run()
        if len(reach.names) == known:
            return tuple(reach.guards.values())


def holds(guard: Guard) -> bool:
    """Whether a guard still finds what it found."""
    if isinstance(guard, CellGuard):
        try:
            return guard.cell.cell_contents is guard.expected
        except ValueError:
            return False
    if isinstance(guard, ItemGuard):
        return len(guard.items) == guard.length and guard.items[guard.index] is guard.expected
    if isinstance(guard, SizeGuard):
        return len(guard.items) == guard.size
    return guard.namespace.get(guard.name, MISSING) is guard.expected


def guard_text(guard: Guard) -> str:
    """What a guard watches, for people."""
    if isinstance(guard, CellGuard):
        return f"a variable of the enclosing function that held {_short(guard.expected)}"
    if isinstance(guard, ItemGuard):
        return f"a captured list of {guard.length}, or its item {guard.index},"
    if isinstance(guard, SizeGuard):
        return f"a captured dict of {guard.size} items"
    return f"{guard.name!r}, which was {'absent' if guard.expected is MISSING else _short(guard.expected)},"


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, int | float | str) and len(repr(value)) < 40 else f"of type {type(value).__name__}"


class _Reach:
    """One walk over everything that the code seen so far can name; repeated until no new attribute name turns up."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.start()

    def start(self) -> None:
        """Forget the walk, keep the names."""
        self.guards: dict[Any, Guard] = {}
        self.seen: dict[int, Any] = {}
        self.pending: list[Any] = []

    def run(self) -> None:
        """Look into everything that was reached."""
        while self.pending and len(self.guards) < MOST:
            value = self.pending.pop()
            if isinstance(value, types.FunctionType):
                self.function(value)
            elif isinstance(value, types.ModuleType):
                self.attributes(value, vars(value))
            elif type(value) in (list, tuple):
                self.sequence(value)
            elif type(value) is dict:
                self.mapping(value)
            else:
                self.instance(value)

    def value(self, value: Any) -> None:
        """Something the code can name."""
        if isinstance(value, PLAIN) or id(value) in self.seen:
            return
        self.seen[id(value)] = value
        self.pending.append(value)

    def function(self, function: Any, own: bool = False) -> None:
        """Cells, globals and defaults; ``own`` marks the traced function itself."""
        if not isinstance(function, types.FunctionType):
            self.value(function)
            return
        if not own and not _by_user(function.__module__):
            return
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:
                continue
            self.guards[id(cell)] = CellGuard(cell, content)
            self.value(content)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.value(default)
        global_names, attributes = _names(function.__code__)
        self.names |= attributes
        namespace = function.__globals__
        for name in global_names:
            value = namespace.get(name, MISSING)
            if isinstance(value, types.ModuleType):
                self.value(value)
            elif value is MISSING:
                if own and hasattr(builtins, name):
                    self.entry(namespace, name, value)
            else:
                # Functions and classes of a module stay what they are, except where people try things out.
                if own or not isinstance(value, types.FunctionType | type) or namespace.get("__name__") == "__main__":
                    self.entry(namespace, name, value)
                self.value(value)

    def entry(self, namespace: dict[Any, Any], name: Any, value: Any) -> None:
        """``namespace[name]`` is this value now."""
        self.guards[id(namespace), name] = GlobalGuard(namespace, name, value)

    def attributes(self, owner: Any, namespace: dict[str, Any]) -> None:
        """Attributes of a module or an object that the code names."""
        if isinstance(owner, types.ModuleType) and not _by_user(owner.__name__):
            return
        for name in self.names & namespace.keys():
            value = namespace[name]
            fixed = isinstance(owner, types.ModuleType) and isinstance(value, types.ModuleType | types.FunctionType | type)
            if not fixed:
                self.entry(namespace, name, value)
            self.value(value)

    def sequence(self, items: list[Any] | tuple[Any, ...]) -> None:
        """Items of a list or tuple."""
        if len(items) > LONGEST:
            return
        for i, item in enumerate(items):
            if type(items) is list:
                self.guards[id(items), i] = ItemGuard(items, len(items), i, item)
            self.value(item)

    def mapping(self, items: dict[Any, Any]) -> None:
        """Items of a dict."""
        if len(items) > LONGEST or not all(type(key) in (str, int) for key in items):
            return
        self.guards[id(items), MISSING] = SizeGuard(items, len(items))
        for key, item in items.items():
            self.entry(items, key, item)
            self.value(item)

    def instance(self, value: Any) -> None:
        """Another object: what it wraps, its attributes, its methods and properties."""
        if isinstance(value, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self.value(part)
            return
        if isinstance(value, types.MethodType):
            self.value(value.__func__)
            self.value(value.__self__)
            return
        inner = dispatcher_of(value)
        if inner is not None:
            self.value(inner.function)
            return
        kind = value if isinstance(value, type) else type(value)
        own = attribute(value, "__dict__")
        namespace: dict[str, Any] = own if type(own) is dict else {}
        self.attributes(value, namespace)
        for name in (*self.names, "__call__"):
            base = next((base for base in kind.__mro__ if name in vars(base)), None)
            if base is None or not _by_user(base.__module__):
                continue
            found = vars(base)[name]
            functions = list(_functions(found))
            for function in functions:
                self.value(function)
            if not functions and not hasattr(type(found), "__get__"):
                # The dict behind the read-only view that a class shows.
                self.entry(gc.get_referents(vars(base))[0], name, found)
                self.value(found)
                if namespace is own and name not in namespace:
                    self.entry(namespace, name, MISSING)


def _functions(found: Any) -> Iterator[Any]:
    """The Python functions behind a class attribute."""
    if isinstance(found, property):
        yield from (part for part in (found.fget,) if part is not None)
    elif isinstance(found, staticmethod | classmethod):
        yield found.__func__
    elif isinstance(found, functools.cached_property):
        yield found.func
    elif isinstance(found, types.FunctionType) or dispatcher_of(found) is not None:
        yield found


@functools.cache
def _by_user(module: str | None) -> bool:
    """Whether a module is the user's: neither a library that we know nor Python's own."""
    top = (module or "").partition(".")[0]
    return top == "__main__" or (top not in LIBRARIES and top not in sys.stdlib_module_names and top != "builtins")


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[tuple[str, ...], frozenset[str]]:
    """Names of globals and of attributes that the code reads, functions inside of it included."""
    found: set[str] = set()
    attributes: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found.add(instruction.argval)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner, more = _names(constant)
            found.update(inner)
            attributes |= more
    return tuple(sorted(found)), frozenset(attributes)
