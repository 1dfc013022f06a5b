"""Facts about the running CPython and NumPy that native code relies on.

Native code calls C functions and reads fields of objects at fixed offsets. This module names the functions
and types, knows the offsets, and checks each of them against real objects. `layout` gives offsets and type
numbers; after its first call every symbol of `externals` resolves in modules compiled later.

No offset is used that was not seen to be right in this very process: an interpreter or a NumPy that differs
is refused with a `GraphjitError` instead of being read wrongly.

Sources: CPython's and NumPy's public headers (object.h, ndarraytypes.h, NumPy's C API table).
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.writing.fields import GLOBAL, WORD, Fields
from graphjit.errors import GraphjitError

FUNCTIONS = {
    "PyContextVar_Get": "i32 (object, object, object[])",
    "PyDict_Copy": "object (object)",
    "PyDict_GetItemWithError": "object (object, object)",
    "PyDict_Next": "i32 (object, i64[], object[], object[])",
    "PyDict_SetItem": "i32 (object, object, object)",
    "PyDict_Size": "i64 (object)",
    "PyErr_NoMemory": "object ()",
    "PyErr_SetObject": "void (object, object)",
    "PyErr_SetString": "void (object, ptr)",
    "PyEval_RestoreThread": "void (ptr)",
    "PyEval_SaveThread": "ptr ()",
    "PyList_New": "object (i64)",
    "PyLong_AsLongLongAndOverflow": "i64 (object, i32[])",
    "PyLong_FromLongLong": "object (i64)",
    "PyMem_RawFree": "void (ptr)",
    "PyMem_RawMalloc": "ptr (i64)",
    "PyMethod_New": "object (object, object)",
    "PyObject_CallFinalizerFromDealloc": "i32 (object)",
    "PyObject_CallOneArg": "object (object, object)",
    "PyObject_ClearWeakRefs": "void (object)",
    "PyObject_GC_Del": "void (object)",
    "PyObject_GC_UnTrack": "void (object)",
    "PyObject_RichCompareBool": "i32 (object, object, i32)",
    "PyObject_Vectorcall": "object (object, object[], i64, object)",
    "PyTuple_New": "object (i64)",
    "PyType_GenericAlloc": "object (object, i64)",
    "PyType_IsSubtype": "i32 (object, object)",
    "PyUnicode_Compare": "i32 (object, object)",
    "Py_DecRef": "void (object)",
    "Py_IncRef": "void (object)",
    "memcmp": "i32 (ptr, ptr, i64)",
}
"""Functions of CPython and C that native code calls, with the signatures that `Source` reads."""

TYPES: dict[str, type] = {
    "PyBytes_Type": bytes,
    "PyComplex_Type": complex,
    "PyDict_Type": dict,
    "PyFloat_Type": float,
    "PyList_Type": list,
    "PyLong_Type": int,
    "PyTuple_Type": tuple,
    "PyUnicode_Type": str,
    "gj_BaseException": BaseException,
    "gj_TypeError": TypeError,
}

NUMPY = {
    "gj_np_ndarray": (2, GLOBAL),
    "gj_np_new_from_descr": (94, "object (object, object, i32, i64[], i64[], ptr, i32, object)"),
    "gj_np_set_handler": (304, "object (object)"),
}
"""Symbol -> index in NumPy's C API table (NumPy 2 ABI), and its signature."""

_OBJECTS = ("gj_np_default_handler", "gj_np_true", "gj_np_false", "gj_py_none")

_PY_TP_ALLOC = 47  # slot number of tp_alloc in CPython's typeslots.h (stable ABI)
_NUMPY_DEFAULT_HANDLER = 306  # index of PyDataMem_DefaultHandler in NumPy's C API table
_C_CONTIGUOUS = 0x1
_F_CONTIGUOUS = 0x2
_ALIGNED = 0x100
_OWNS_DATA = 0x4
_WRITEABLE = 0x400


class TypeSlot(ctypes.Structure):
    """CPython's ``PyType_Slot``: what one slot of a new type does."""

    _fields_ = [("slot", ctypes.c_int), ("pfunc", ctypes.c_void_p)]


class TypeSpec(ctypes.Structure):
    """CPython's ``PyType_Spec``: a new type."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(TypeSlot)),
    ]


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets in bytes from the start of an object, and NumPy's flag bits; ``dict_version``: 0 where this
    Python gives dicts no versions.
    """

    references: int
    type: int
    size: int
    float_value: int
    scalar_value: int
    cell_contents: int
    tuple_items: int
    list_items: int
    bytes_data: int
    dict_version: int
    array_data: int
    array_nd: int
    array_dims: int
    array_descr: int
    array_flags: int
    array_weakrefs: int
    descr_byteorder: int
    descr_number: int
    array_flag_mask: int
    array_own_mask: int
    array_fresh_flags: int
    swapped: int


@dataclass(frozen=True, slots=True)
class DtypeFacts:
    """Addresses and numbers of one dtype: the descriptor, the scalar types and the type numbers that
    mean it.
    """

    descr: int
    scalar: int
    scalar_twin: int
    number: int
    number_twin: int
    allocate: int


def _word(address: int) -> int:
    return int(ctypes.c_uint64.from_address(address).value)


def _int(address: int) -> int:
    return int(ctypes.c_int32.from_address(address).value)


def _check(fact: str, holds: bool) -> None:
    if not holds:
        raise GraphjitError(
            f"this Python ({sys.version.split()[0]}) or NumPy ({np.__version__}) keeps its objects differently from "
            f"what graphjit's native entry points expect: {fact}; please report it with both versions"
        )


def numpy_api() -> ctypes.Array[ctypes.c_void_p]:
    """NumPy's table of C functions."""
    # A prototype of our own: `ctypes.pythonapi.X.restype = ...` would change it for the whole process.
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    table = pointer(np._core._multiarray_umath._ARRAY_API, None)  # type: ignore[attr-defined]
    return (ctypes.c_void_p * 307).from_address(table)


def _verify_python(at: Layout) -> None:
    floating, items, pair, text = 1.0625, [object(), object()], (object(), object()), b"abcdefgh"
    shared = [items] * 3
    _check(
        "reference count",
        _int(id(shared) + at.references) == 1 and _int(id(items) + at.references) == 1 + len(shared),
    )
    cell = (lambda: floating).__closure__[0]  # type: ignore[index]
    _check("ob_type", _word(id(items) + at.type) == id(list) and _word(id(floating) + at.type) == id(float))
    _check("ob_size", _word(id(pair) + at.size) == 2 and _word(id(items) + at.size) == 2)
    _check("float value", ctypes.c_double.from_address(id(floating) + at.float_value).value == floating)
    _check("cell contents", _word(id(cell) + at.cell_contents) == id(floating))
    _check("tuple items", [_word(id(pair) + at.tuple_items + WORD * i) for i in (0, 1)] == [*map(id, pair)])
    stored = _word(id(items) + at.list_items)
    _check("list items", [_word(stored), _word(stored + WORD)] == [*map(id, items)])
    _check("bytes data", ctypes.string_at(id(text) + at.bytes_data, 8) == text)


class _Object:
    """Something with attributes."""


def _dict_version(offset: int) -> int:
    """``offset`` if every way to change a dict changes the word there, also through specialised bytecode;
    else 0.
    """
    owner = _Object()
    namespace = vars(owner)
    code: dict[str, Any] = {}
    exec("def store(owner, value): owner.a = value\ndef publish(value):\n global b\n b = value", code)

    def store(value: int) -> None:
        code["store"](owner, value)

    changes: list[tuple[dict[str, Any], Callable[[int], object]]] = [
        (namespace, store),
        (code, code["publish"]),
        (namespace, lambda value: setattr(owner, "c", value)),
        (namespace, lambda value: delattr(owner, "c")),
        (namespace, lambda value: namespace.__setitem__("a", -value)),
        (namespace, lambda value: namespace.update(a=str(value))),
        (namespace, lambda value: namespace.setdefault(f"d{value}", value)),
        (namespace, lambda value: namespace.pop(f"d{value}")),
        (namespace, lambda value: namespace.clear()),
    ]
    seen = {0}
    for value in range(1, 100):
        for changed, change in changes:
            change(value)
            version = _word(id(changed) + offset)
            if version in seen:
                return 0
            seen.add(version)
    before = _word(id(namespace) + offset)
    _ = namespace.get("a"), [*namespace.items()], len(namespace), getattr(owner, "a", None)
    return offset if _word(id(namespace) + offset) == before else 0


def _verify_numpy(at: Layout, api: ctypes.Array[ctypes.c_void_p]) -> None:
    version = ctypes.CFUNCTYPE(ctypes.c_uint)(api[0] or 0)()
    _check(f"NumPy C ABI {version:#x} instead of 2.x", version >> 24 == 2)
    _check("ndarray type in the C API", api[2] == id(np.ndarray))
    plain, turned = np.zeros((3, 5), np.float32), np.zeros((2, 3, 4)).T
    shifted, swapped = (
        np.zeros(33, np.uint8)[1:].view(np.float64),
        np.zeros(3, ">f8" if at.swapped == 62 else "<f8"),
    )
    fixed = np.zeros(3)
    fixed.flags.writeable = False
    for shape in ((3, 5), (7,), ()):
        fresh = np.empty(shape)
        flags = _int(id(fresh) + at.array_flags)
        _check("flags of a fresh array", flags & ~_F_CONTIGUOUS == at.array_fresh_flags)
        _check("no weak references", _word(id(fresh) + at.array_weakrefs) == 0)
        reference = weakref.ref(fresh)
        _check("weak references", _word(id(fresh) + at.array_weakrefs) == id(reference))
    for array in (plain, turned, shifted, swapped, fixed, np.zeros(()), np.zeros((0, 2), np.bool_)):
        here = id(array)
        dims = _word(here + at.array_dims)
        flags = _int(here + at.array_flags)
        descr = _word(here + at.array_descr)
        _check("array data", _word(here + at.array_data) == array.ctypes.data)
        _check("array ndim", _int(here + at.array_nd) == array.ndim)
        _check("array shape", tuple(_word(dims + WORD * i) for i in range(array.ndim)) == array.shape)
        _check("array dtype", descr == id(array.dtype) and _int(descr + at.descr_number) == array.dtype.num)
        _check("array flags", bool(flags & _C_CONTIGUOUS) == array.flags.c_contiguous)
        _check("array alignment flag", bool(flags & _ALIGNED) == array.flags.aligned)
        _check("array ownership flag", bool(flags & _OWNS_DATA) == array.flags.owndata)
        _check("array writing flag", bool(flags & _WRITEABLE) == array.flags.writeable)
        order = ctypes.string_at(descr + at.descr_byteorder, 1)
        _check("dtype byte order", order.decode() == array.dtype.byteorder)


@cache
def dtype_facts(name: str) -> DtypeFacts:
    """Facts of one of our dtypes; the C type of the same kind and size (``long`` / ``long long``) is its
    twin.
    """
    dtype = np.dtype(name)
    equal = (other for other in map(np.dtype, "bhilqBHILQ") if other == dtype and other.num != dtype.num)
    twin = next(equal, dtype)
    for scalar in (dtype.type(1), twin.type(1)):
        raw = ctypes.string_at(id(scalar) + layout().scalar_value, dtype.itemsize)
        _check(f"value of numpy.{dtype}", raw == scalar.tobytes() and type(scalar).__basicsize__ >= 3 * WORD)
    slot = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_int)(
        ("PyType_GetSlot", ctypes.pythonapi)
    )
    allocate = slot(dtype.type, _PY_TP_ALLOC) or 0
    return DtypeFacts(id(dtype), id(dtype.type), id(twin.type), dtype.num, twin.num, allocate)


@cache
def layout() -> Layout:
    """Offsets of this interpreter and this NumPy, verified; registers every symbol on the first call."""
    _check("CPython on a 64-bit machine", sys.implementation.name == "cpython" and sys.maxsize == 2**63 - 1)
    _check("a build with the GIL", not sysconfig.get_config_var("Py_GIL_DISABLED"))
    head = object.__basicsize__
    at = Layout(
        references=0,
        type=head - WORD,
        size=head,
        float_value=head,
        scalar_value=head,
        cell_contents=head,
        tuple_items=tuple.__basicsize__,
        list_items=head + WORD,
        bytes_data=bytes.__basicsize__ - 1,
        dict_version=_dict_version(head + WORD),
        array_data=head,
        array_nd=head + WORD,
        array_dims=head + 2 * WORD,
        array_descr=head + 5 * WORD,
        array_flags=head + 6 * WORD,
        array_weakrefs=head + 7 * WORD,
        descr_byteorder=head + WORD + 2,
        descr_number=head + WORD + 4,
        array_flag_mask=_C_CONTIGUOUS | _ALIGNED,
        array_own_mask=_OWNS_DATA | _WRITEABLE,
        array_fresh_flags=_C_CONTIGUOUS | _ALIGNED | _OWNS_DATA | _WRITEABLE,
        swapped=ord(">" if sys.byteorder == "little" else "<"),
    )
    api = numpy_api()
    _verify_python(at)
    _verify_numpy(at, api)
    for name in FUNCTIONS:
        jit.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0)
    for name, kind in TYPES.items():
        jit.add_symbol(name, id(kind))
    for name, (index, _) in NUMPY.items():
        jit.add_symbol(name, api[index] or 0)
    jit.add_symbol("gj_np_default_handler", _word(api[_NUMPY_DEFAULT_HANDLER] or 0))
    jit.add_symbol("gj_np_true", id(np.True_))
    jit.add_symbol("gj_np_false", id(np.False_))
    jit.add_symbol("gj_py_none", id(None))
    return at


def externals() -> dict[str, str]:
    """Every symbol that `layout` registers, with its signature."""
    return {
        **FUNCTIONS,
        **dict.fromkeys(TYPES, GLOBAL),
        **{name: signature for name, (_, signature) in NUMPY.items()},
        **dict.fromkeys(_OBJECTS, GLOBAL),
    }


def object_fields() -> Fields:
    """The struct of a Python object of any type: which fields mean something depends on the type."""
    at = layout()
    return {
        "references": ("i32", at.references),
        "type": ("object", at.type),
        "size": ("i64", at.size),
        "float_value": ("i64", at.float_value),
        "imaginary_value": ("i64", at.float_value + WORD),
        "scalar_value": ("i64", at.scalar_value),
        "tuple_items": ("object", at.tuple_items),
        "list_items": ("object[]", at.list_items),
        "bytes_data": ("i8", at.bytes_data),
        "array_data": ("ptr", at.array_data),
        "array_rank": ("i32", at.array_nd),
        "array_shape": ("i64[]", at.array_dims),
        "array_descr": ("object", at.array_descr),
        "array_flags": ("i32", at.array_flags),
        "array_weakrefs": ("object", at.array_weakrefs),
        "descr_byteorder": ("i8", at.descr_byteorder),
        "descr_number": ("i32", at.descr_number),
    }
