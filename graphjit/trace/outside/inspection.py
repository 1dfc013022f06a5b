"""Looking into objects without running their code: classes, attributes, and whose code something is.

Nothing here calls a method, a property or ``__getattr__`` of the user's. What is read stands in dicts and
slots, so that looking at an object changes nothing and prints nothing.

This is also where it is decided what counts as the user's code (`by_user`) and what code of libraries could
read an array without our noticing (`reads_unseen`).
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from graphjit.backend.llvm.entry.callable import native_type
from graphjit.trace.numpy.patches import LIBRARIES

_MRO = cast(Any, type.__dict__["__mro__"])
_CLASS_DICT = cast(Any, type.__dict__["__dict__"])
_DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)
_DISPATCHER = type(np.sum)

UNSEEN_BUILTINS = frozenset({"memoryview", "bytes", "bytearray"})
UNSEEN_MODULES = frozenset({"array", "binascii", "ctypes", "hashlib", "hmac", "io", "mmap", "struct", "zlib"})
"""What reads the memory of an array without asking it."""

KEEPING = frozenset({"collections", "weakref", "configparser", "string", "functools", "numpy", "scipy"})
"""Libraries whose objects keep what they were given in attributes that only their own code reads (UserDict,
Polynomial).
"""


# ------------------------------------------------------------------------------------------------- whose code


@functools.cache
def by_user(module: str | None) -> bool:
    """Whether a module is the user's: neither a library that we know nor Python's own."""
    package = (module or "").partition(".")[0]
    return package == "__main__" or (
        package not in LIBRARIES and package not in sys.stdlib_module_names and package != "builtins"
    )


_KEEPERS = frozenset({"data", "nn", "optim", "random"})
"""Parts of graphjit whose functions hold on to values of the user's: an optimiser has a schedule."""


def keeps_values(module: str | None) -> bool:
    """Whether functions made in a module of graphjit's are looked into for values of the user's."""
    package, _, rest = (module or "").partition(".")
    return package == "graphjit" and rest.partition(".")[0] in _KEEPERS


def package_of(module: Any) -> str:
    """The package of a module, by its name."""
    return module.partition(".")[0] if type(module) is str else ""


def reads_unseen(value: Any) -> bool:
    """Whether a value is code of a library that could read a captured array without our noticing: neither a
    ufunc nor a function with NumPy's protocol.
    """
    kind = type(value)
    if kind in (_DISPATCHER, np.ufunc, types.ModuleType) or issubclass(
        kind, np.ndarray | np.generic | np.dtype | BaseException
    ):
        return False
    if kind is types.FunctionType:
        return package_of(value.__module__) in LIBRARIES - {"graphjit"}
    if kind is types.BuiltinFunctionType:
        package = package_of(value.__module__)
        return bool(package) and package != "builtins" and package not in sys.stdlib_module_names
    if issubclass(kind, type):
        return package_of(module_of(value)) in LIBRARIES - {"graphjit"} and not issubclass(
            value, np.generic | np.dtype | BaseException | np.ndarray
        )
    return package_of(module_of(kind)) in LIBRARIES - {"graphjit"} and not issubclass(
        kind, np.random.Generator | np.random.RandomState
    )


def keeps_attributes(kind: type) -> bool:
    """Whether code of a library in `KEEPING` reads attributes of an object of this class. The abstract
    classes of ``collections.abc`` read none.
    """
    modules = {module_of(base) for base in mro_of(kind)} - {"collections.abc"}
    return any(package_of(module) in KEEPING for module in modules)


# ------------------------------------------------------------------------------------- classes and attributes


def mro_of(kind: type) -> tuple[type, ...]:
    """The class and what it inherits from, in the order of a look-up."""
    classes: tuple[type, ...] = _MRO.__get__(kind)
    return classes


def class_dict(kind: type) -> types.MappingProxyType[str, Any]:
    """What stands in the class itself."""
    entries: types.MappingProxyType[str, Any] = _CLASS_DICT.__get__(kind)
    return entries


def dict_behind_class(kind: type) -> dict[str, Any]:
    """The dict behind the read-only view that a class shows."""
    entries: dict[str, Any] = gc.get_referents(class_dict(kind))[0]
    return entries


def module_of(kind: type) -> str | None:
    """The name of the module that made a class."""
    name = class_dict(kind).get("__module__")
    return name if type(name) is str else "builtins"


def instance_dict(value: Any) -> dict[str, Any] | None:
    """The dict of an object's attributes, if it has one."""
    for base in mro_of(type(value)):
        descriptor = class_dict(base).get("__dict__")
        if type(descriptor) in _DESCRIPTORS:
            attributes = cast(Any, descriptor).__get__(value, type(value))
            return attributes if type(attributes) is dict else None
    return None


def module_dict(module: types.ModuleType) -> dict[str, Any]:
    """The globals of a module, whatever its class makes of attributes."""
    return instance_dict(module) or {}


def function_of_compiled(value: Any) -> Any:
    """The user's function behind one that graphjit compiles, else None."""
    if type(value) is native_type():
        return getattr((instance_dict(value) or {}).get("dispatcher"), "function", None)
    return None


def functions_of(entry: Any) -> Iterator[Any]:
    """The Python functions behind an entry of a class: a method, a property, a static method."""
    if isinstance(entry, property):
        yield from (function for function in (entry.fget,) if function is not None)
    elif isinstance(entry, staticmethod | classmethod):
        yield entry.__func__
    elif isinstance(entry, functools.cached_property):
        yield entry.func
    elif isinstance(entry, types.FunctionType) or function_of_compiled(entry) is not None:
        yield entry
