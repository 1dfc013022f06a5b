"""Lead C functions of NumPy to Python for a time.

While a function is traced, ``np.asarray(x)`` and ``np.float64(x)`` must be able to return a traced value,
whoever calls them and however they were imported. They are C functions, so replacing attributes of modules
does not reach ``from numpy import asarray``. A `Hook` for a built-in function, or for a type, can be put in
and taken out.

Only the one pointer that CPython follows at each call is exchanged (``ml_meth`` of a built-in, ``tp_new`` of
a type); objects, types and identities stay as they are. The function that stands behind it, `Hook.original`,
is NumPy's own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any

from graphjit.ir.types import SHORT

if TYPE_CHECKING:  # writes code, which importing graphjit does not need
    from graphjit.backend.llvm.writing.native import Source

_FASTCALL_KEYWORDS = 0x80 | 0x02
_TP_NEW = 65  # Py_tp_new of CPython's stable ABI
_HEAD = 16  # bytes of PyObject_HEAD
_TYPE_SIZE = 416  # bytes of the PyTypeObject that are searched for the slot


class _Method(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def _add_function(source: Source, name: str) -> None:
    """What stands in for a built-in: hands its arguments on to the handler."""
    parameters = {"self": "object", "args": "object[]", "count": "i64", "names": "object"}
    with source.function(f"gj_hook_{name}", "object", **parameters) as (w, _, args, count, names):
        handler = w.symbol(f"gj_handler_{name}", "object[]")[0]
        w.ret(w.call("PyObject_Vectorcall", handler, args, count, names))


def _add_constructor(source: Source, name: str) -> None:
    """What stands in for a type's constructor: hands on the type, the tuple of positional arguments, and the
    dict of keywords or None.
    """
    parameters = {"type": "object", "args": "object", "keywords": "object"}
    with source.function(f"gj_hook_{name}", "object", **parameters) as (w, type, args, keywords):
        slots = w.local("object", 3)
        slots[0] = type
        slots[1] = args
        slots[2] = w.choose(keywords.is_null(), w.symbol("gj_py_none", "object"), keywords)
        handler = w.symbol(f"gj_handler_{name}", "object[]")[0]
        w.ret(w.call("PyObject_Vectorcall", handler, slots, 3, None))


class Hook:
    """One exchanged pointer."""

    def __init__(self, place: int, ours: int, original: Callable[..., Any], kept: Any) -> None:
        self._word = ctypes.c_size_t.from_address(place)
        self._theirs = self._word.value
        self._ours = ours
        self._kept = kept
        self.original = original

    def put(self, on: bool) -> None:
        """In or out."""
        self._word.value = self._ours if on else self._theirs


FUNCTIONS = ("array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray")
TYPES = tuple(SHORT)


def add(source: Source) -> None:
    """Define the functions that stand in for NumPy's."""
    for name in (*FUNCTIONS, *TYPES):
        source.add_global(f"gj_handler_{name}", "global ptr null")
    for name in FUNCTIONS:
        _add_function(source, name)
    for name in TYPES:
        _add_constructor(source, name)


class Hooks:
    """All hooks of this process."""

    def __init__(
        self,
        address: Callable[[str], int],
        functions: dict[str, tuple[Any, Callable[[Any], Any]]],
        types: dict[str, tuple[type, Callable[[Any], Any]]],
    ) -> None:
        """Prepare them.

        Args:
            address: where a function of the library of entry points lies.
            functions: name -> (built-in, ``make(original)``); what `make` returns is called instead.
            types: name -> (type, ``make(original)``), called with (type, positional arguments, keywords or
                None).
        """
        self._address = address
        self._handlers: list[Any] = []
        self.hooks = [self._function(name, *pair) for name, pair in functions.items()]
        self.hooks += [self._type(name, *pair) for name, pair in types.items()]

    def _point(self, name: str, handler: Any) -> None:
        self._handlers.append(handler)
        ctypes.c_size_t.from_address(self._address(f"gj_handler_{name}")).value = id(handler)

    def _function(self, name: str, function: Any, make: Callable[[Any], Any]) -> Hook:
        if not isinstance(function, BuiltinFunctionType):
            raise RuntimeError(
                f"np.{name} was replaced by {function!r}: graphjit does not know how to follow it"
            )
        theirs = ctypes.c_size_t.from_address(id(function) + _HEAD).value
        method = _Method.from_address(theirs)
        if method.name != name.encode() or method.flags & 0xFF != _FASTCALL_KEYWORDS:
            raise RuntimeError(f"np.{name} of this NumPy is not the built-in function that graphjit knows")
        copy = _Method(method.name, method.function, method.flags, method.doc)
        make_function = ctypes.PYFUNCTYPE(
            ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object
        )(("PyCFunction_NewEx", ctypes.pythonapi))
        original = make_function(ctypes.addressof(copy), function.__self__, function.__module__)
        self._point(name, make(original))
        return Hook(theirs + _Method.function.offset, self._address(f"gj_hook_{name}"), original, copy)

    def _type(self, name: str, kind: type, make: Callable[[Any], Any]) -> Hook:
        slot = ctypes.pythonapi.PyType_GetSlot
        slot.restype, slot.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_int)
        theirs = slot(kind, _TP_NEW)
        places = [
            id(kind) + offset
            for offset in range(0, _TYPE_SIZE, 8)
            if ctypes.c_size_t.from_address(id(kind) + offset).value == theirs
        ]
        if len(places) != 1:
            raise RuntimeError(f"the constructor of np.{name} was not found in its type")
        original = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_void_p)(
            theirs
        )

        def construct(made: type, args: tuple[Any, ...], keywords: dict[str, Any] | None) -> Any:
            return original(made, args, None if keywords is None else id(keywords))

        self._point(name, make(construct))
        return Hook(places[0], self._address(f"gj_hook_{name}"), construct, original)

    def put(self, on: bool) -> None:
        """All of them in or out."""
        for hook in self.hooks:
            hook.put(on)
