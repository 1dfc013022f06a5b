"""What kind of object a user's value is, found out without running code of its class.

Job: look into the class, never at the object. ``__getattr__``, properties and ``__class__`` of a user's class
can do anything: attribute dictionaries raise an error of their own, proxies answer every name, and some never
return.
Input: any object. Output: whether its class defines a name, an attribute of a function, the dispatcher of a
compiled function.

Example: ``declares(x, "__array__")`` is true of a pandas Series, and false of an object whose ``__getattr__``
would answer that name too.
"""

from __future__ import annotations

from typing import Any, cast

from graphjit.backend.llvm.entry.callable import native_type

_mro = type.__dict__["__mro__"].__get__
_namespace = type.__dict__["__dict__"].__get__


def declares(value: Any, *names: str) -> bool:
    """Whether the class of ``value`` defines one of ``names``."""
    return any(name in _namespace(base) for base in _mro(type(value)) for name in names)


def asks_itself(value: Any) -> bool:
    """Whether attributes of ``value`` are looked up by code of its own."""
    return any(
        "__getattr__" in _namespace(base) or "__getattribute__" in _namespace(base)
        for base in _mro(type(value))
        if _is_python(base)
    )


def _is_python(kind: type) -> bool:
    return bool(kind.__flags__ & 1 << 9)  # Py_TPFLAGS_HEAPTYPE: made by a class statement


def attribute(value: Any, name: str, default: Any = None) -> Any:
    """An attribute of a function or another callable of the user, such as ``__name__``."""
    try:
        return object.__getattribute__(value, name) if asks_itself(value) else getattr(value, name, default)
    except AttributeError:
        return default


def name_of(function: Any) -> str:
    """What a function of the user is called in messages."""
    return str(attribute(function, "__qualname__", type(function).__name__))


def dispatcher_of(value: Any) -> Any:
    """The dispatcher of a compiled function, None for everything else."""
    return cast(Any, value).__dict__.get("dispatcher") if type(value) is native_type() else None
