"""Looking into objects without running their code: classes, attributes, names in bytecode.

Invariant: nothing here calls a method, a property or ``__getattr__`` of the user's; what is read is what
stands in dicts and slots.
"""

from __future__ import annotations

import dis
import functools
import itertools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from graphjit.backend.llvm.entry.callable import native_type
from graphjit.trace.numpy.patches import LIBRARIES

_MRO = cast(Any, type.__dict__["__mro__"])
_OWN = cast(Any, type.__dict__["__dict__"])
_FIELDS = (types.GetSetDescriptorType, types.MemberDescriptorType)

REFLECTION = frozenset(
    {
        "vars",
        "dir",
        "asdict",
        "astuple",
        "getmembers",
        "attrgetter",
        "eval",
        "exec",
        "locals",
        "__dict__",
        "deepcopy",
    }
)
"""Names by which code reads attributes that it does not name."""

APPENDING = frozenset({"append", "extend", "appendleft", "add"})


@functools.cache
def by_user(module: str | None) -> bool:
    """Whether a module is the user's: neither a library that we know nor Python's own."""
    top = (module or "").partition(".")[0]
    return top == "__main__" or (
        top not in LIBRARIES and top not in sys.stdlib_module_names and top != "builtins"
    )


UNSEEN_BUILTINS = frozenset({"memoryview", "bytes", "bytearray"})
UNSEEN_MODULES = frozenset({"array", "binascii", "ctypes", "hashlib", "hmac", "io", "mmap", "struct", "zlib"})
"""What reads the memory of an array without asking it."""

_DISPATCHER = type(np.sum)


def top_of(module: Any) -> str:
    """The package of a module."""
    return module.partition(".")[0] if type(module) is str else ""


def unseen(value: Any) -> bool:
    """Whether a value is code of a library that could read a captured array without our noticing: neither a
    ufunc nor a function with NumPy's protocol.
    """
    kind = type(value)
    if kind in (_DISPATCHER, np.ufunc, types.ModuleType) or issubclass(
        kind, np.ndarray | np.generic | np.dtype | BaseException
    ):
        return False
    if kind is types.FunctionType:
        return top_of(value.__module__) in LIBRARIES - {"graphjit"}
    if kind is types.BuiltinFunctionType:
        top = top_of(value.__module__)
        return bool(top) and top != "builtins" and top not in sys.stdlib_module_names
    if issubclass(kind, type):
        return top_of(module_of(value)) in LIBRARIES - {"graphjit"} and not issubclass(
            value, np.generic | np.dtype | BaseException | np.ndarray
        )
    return top_of(module_of(kind)) in LIBRARIES - {"graphjit"} and not issubclass(
        kind, np.random.Generator | np.random.RandomState
    )


def bases(kind: type) -> tuple[type, ...]:
    """The class and what it inherits from, in order."""
    found: tuple[type, ...] = _MRO.__get__(kind)
    return found


def entries(kind: type) -> types.MappingProxyType[str, Any]:
    """What stands in the class itself."""
    found: types.MappingProxyType[str, Any] = _OWN.__get__(kind)
    return found


def module_of(kind: type) -> str | None:
    """The name of the module that made a class."""
    found = entries(kind).get("__module__")
    return found if type(found) is str else "builtins"


KEEPING = frozenset({"collections", "weakref", "configparser", "string", "functools", "numpy", "scipy"})
"""Libraries whose objects keep what they were given in attributes that only their own code reads (UserDict,
Polynomial).
"""


def keeps(kind: type) -> bool:
    """Whether code of such a library reads attributes of an object; the abstract classes of
    ``collections.abc`` read none.
    """
    modules = {module_of(base) for base in bases(kind)} - {"collections.abc"}
    return any(top_of(module) in KEEPING for module in modules)


def own_dict(value: Any) -> dict[str, Any] | None:
    """The dict of an object's attributes, if it has one."""
    for base in bases(type(value)):
        field = entries(base).get("__dict__")
        if type(field) in _FIELDS:
            found = cast(Any, field).__get__(value, type(value))
            return found if type(found) is dict else None
    return None


def compiled(value: Any) -> Any:
    """The user's function behind one that graphjit compiles, else None."""
    if type(value) is native_type():
        return getattr((own_dict(value) or {}).get("dispatcher"), "function", None)
    return None


def functions_in(found: Any) -> Iterator[Any]:
    """The Python functions behind a class attribute."""
    if isinstance(found, property):
        yield from (part for part in (found.fget,) if part is not None)
    elif isinstance(found, staticmethod | classmethod):
        yield found.__func__
    elif isinstance(found, functools.cached_property):
        yield found.func
    elif isinstance(found, types.FunctionType) or compiled(found) is not None:
        yield found


@dataclass(frozen=True)
class Names:
    """What code reads by name.

    ``asked``: names that it may find absent (``getattr`` with a default, ``hasattr``); ``everything``: it
    reads attributes without naming them; ``read``: names that it does more with than ``name.append(...)``,
    which changes a container but cannot depend on what is in it.
    """

    globals: frozenset[str]
    attributes: frozenset[str]
    asked: frozenset[str]
    modules: frozenset[str]
    read: frozenset[str]
    everything: bool


@functools.lru_cache(maxsize=4096)
def names(code: types.CodeType) -> Names:
    """What a function reads, functions inside of it included."""
    found: set[str] = set()
    attributes: set[str] = set()
    modules: set[str] = set()
    read: set[str] = set()
    instructions = list(dis.get_instructions(code))
    for instruction, following in itertools.zip_longest(instructions, instructions[1:]):
        name, value = instruction.opname, instruction.argval
        appends = (
            following is not None
            and following.opname in ("LOAD_METHOD", "LOAD_ATTR")
            and following.argval in APPENDING
        )
        if name.startswith("LOAD_") and type(value) is str and not appends:
            read.add(value)
        if name in ("LOAD_GLOBAL", "LOAD_NAME"):
            found.add(value)
        elif name in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM", "LOAD_SUPER_ATTR"):
            attributes.add(value)
        elif name == "IMPORT_NAME":
            modules.add(value)
    asked = set(_words(code.co_consts)) if found & {"getattr", "hasattr", "globals"} else set()
    everything = bool(
        REFLECTION & found or REFLECTION & attributes or ("getattr" in found and not _constant(instructions))
    )
    if _handles(instructions):  # what is absent now may be there the next time
        asked |= attributes | found
    if "globals" in found:
        found |= asked
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names(constant)
            found |= inner.globals
            attributes |= inner.attributes
            asked |= inner.asked
            modules |= inner.modules
            read |= inner.read
            everything |= inner.everything
    return Names(
        frozenset(found),
        frozenset(attributes | asked),
        frozenset(asked),
        frozenset(modules),
        frozenset(read),
        everything,
    )


def _handles(instructions: list[dis.Instruction]) -> bool:
    """Whether code catches exceptions: ``except``, or a ``with`` that may (contextlib.suppress)."""
    return any(instruction.opname == "PUSH_EXC_INFO" for instruction in instructions)


def _words(constants: Any) -> Iterator[str]:
    """Strings among the constants that could be names."""
    for constant in constants:
        if type(constant) is str and constant.isidentifier():
            yield constant
        elif type(constant) in (tuple, frozenset):
            yield from _words(constant)


def _constant(instructions: list[dis.Instruction]) -> bool:
    """Whether each ``getattr`` is called with a name that is written out: after it comes a string before any
    call is made.
    """
    for i, instruction in enumerate(instructions):
        if instruction.opname == "LOAD_GLOBAL" and instruction.argval == "getattr":
            for later in instructions[i + 1 :]:
                if later.opname == "LOAD_CONST" and type(later.argval) is str:
                    break
                if (
                    later.opname.startswith(("CALL", "LOAD_FAST", "LOAD_DEREF", "LOAD_GLOBAL"))
                    and later is not instructions[i + 1]
                ):
                    return False
    return True
