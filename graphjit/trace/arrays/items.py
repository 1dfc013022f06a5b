"""``x[key]``, ``x[key] = value`` and ``x += y`` on traced values: what is a view, what is computed at once,
what is recorded.

Job: the bodies of ``__getitem__``, ``__setitem__`` and the in-place operators.
Input: tracers, keys as users write them, values. Output: a view (`buffers.Lens`) for a basic key, a copy for
an index array or a mask; after a write the storage holds the new value.
Invariant: where the array, the key and the value are all known, NumPy does it, now; as soon as one of them is
traced or comes from outside, it is recorded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.ir.types import Type
from graphjit.trace.arrays.assignment import fitted, write_mask
from graphjit.trace.arrays.buffers import (
    Lens,
    Stored,
    Unknown,
    from_storage,
    known_array,
    known_values,
    local,
    storage_of,
    writable_storage,
)
from graphjit.trace.arrays.indexing import Plan, item, plan, position, read
from graphjit.trace.arrays.layout import in_memory_of, model
from graphjit.trace.arrays.storage import Owned
from graphjit.trace.numpy.arguments import as_bool, node_of, static_array, tracing, wrap, wrap_array
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.promotion import PYTHON_KINDS, is_python_number
from graphjit.trace.recording.tracer import METHODS, Array, Tracer, any_tracer


def getitem(target: Tracer, key: Any) -> Any:
    """``x[key]``: a view for basic keys, a copy otherwise."""
    shape = target.shape
    at = position(shape, key)
    if at is None:
        target, key = without_truths(target, key)
    known = known_array(target)
    if known is not None:
        try:
            part = known[known_values(key)]
        except Unknown:
            pass
        else:
            if (
                not isinstance(part, np.ndarray)
                or not np.may_share_memory(part, known)
                or active_trace() is None
            ):
                return local(part)
    if at is not None and len(at) == len(shape):
        return _element(target, at)
    return _part(target, key)


def _element(target: Tracer, at: tuple[int, ...]) -> Tracer:
    """The element at a position."""
    trace = tracing()
    stored = type(target) is Stored
    return wrap(trace, storage_of(target).item(trace, at) if stored else item(trace, target._node, at))


def _part(target: Tracer, key: Any) -> Any:
    """``x[key]``, recorded."""
    trace = tracing()
    p = plan(trace, target.shape, key)
    if p.view and isinstance(target, Array) and (p.final or _with_ellipsis(key)):
        return index_lens(target, p, key)
    node = storage_of(target).read(trace, p) if isinstance(target, Stored) else read(trace, target._node, p)
    if not p.final and _with_ellipsis(key):
        return wrap_array(trace, node)
    result = wrap(trace, node)
    if len(p.final) > 1 and isinstance(target, Array):
        in_memory_of(result, model(target)[stand_ins(key)], "K")
    return result


def without_truths(target: Tracer, key: Any) -> tuple[Tracer, Any]:
    """An array and a key that mean the same without Python's or NumPy's True and False.

    ``x[True]`` is ``x[None][[0]]``: a new axis, of which True takes the one element and False none.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if not any(isinstance(part, bool | np.bool_) for part in parts):
        return target, key
    grown: list[Any] = []
    plain: list[Any] = []
    for part in parts:
        truth = isinstance(part, bool | np.bool_)
        plain.append(([0] if part else np.zeros(0, np.int64)) if truth else part)
        if part is None:
            continue
        masks = not truth and getattr(part, "dtype", np.dtype(int)).kind == "b"
        grown += (
            [None]
            if truth
            else [Ellipsis]
            if part is Ellipsis
            else [slice(None)] * (np.ndim(part) if masks else 1)
        )
    return getitem(target, tuple(grown)), tuple(plain)


def _with_ellipsis(key: Any) -> bool:
    """Whether a key has ``...``: then NumPy returns an array where it would return a scalar."""
    return key is Ellipsis or (isinstance(key, tuple) and any(part is Ellipsis for part in key))


def stand_ins(key: Any) -> Any:
    """A key for models: zeros stand for positions that are only known at run time, since strides do not
    depend on them.
    """
    if isinstance(key, tuple | list):
        return type(key)(map(stand_ins, key))
    if isinstance(key, Tracer):
        known = known_array(key)
        return np.zeros(key._node.shape, np.int64)[()] if known is None else known
    return key


def index_lens(target: Tracer, p: Plan, key: Any) -> Stored:
    """A basic index as a view."""
    view = Lens(target, Type(target.dtype, p.final), lambda array: array[stand_ins(key)], plan=p)
    if view.known() is None and not view.scattered():
        view.node()  # now, so that the node carries the line of the index
    return from_storage(view)


def setitem(target: Tracer, key: Any, value: Any) -> None:
    """``x[key] = value``."""
    at = position(target.shape, key) if issubclass(type(target), Tracer) else None
    if at is None:
        target, key = without_truths(target, key)
    storage = writable_storage(target)
    known = storage.known()
    if known is not None:
        try:
            known[known_values(key)] = known_values(value)
        except Unknown:
            pass
        else:
            return
    if at is not None and (len(at) < len(storage.type.shape) or not _dimensions(value)):
        storage.put(tracing(), at, value)
    else:
        write_key(storage, key, value)


def _dimensions(value: Any) -> int:
    """``np.ndim(value)``, without asking what stands in NumPy's module meanwhile about most values."""
    kind = type(value)
    if kind in PYTHON_KINDS:
        return 0
    return len(value._node.shape) if issubclass(kind, Tracer) else np.ndim(value)


def write_key(storage: Owned | Lens, key: Any, value: Any) -> None:
    """Record ``x[key] = value``."""
    trace = tracing()
    mask = _one_mask(key)
    if mask is not None and len(mask.shape) == len(storage.type.shape) and np.ndim(value) > 1:
        text = f"NumPy boolean array indexing assignment requires a 0 or 1-dimensional input, input has {np.ndim(value)} dimensions"
        raise TypeError(f"{text} (at {user_location()})")
    if mask is not None and static_array(mask) is None:
        ones = np.shape(value)[: max(0, np.ndim(value) - len(storage.type.shape) + len(mask.shape))]
        node = as_bool(trace, node_of(trace, mask))
        known = (
            METHODS["__concretise__"](wrap(trace, node), "assigning with a mask")
            if any(n != 1 for n in ones)
            else None
        )
        if known is None:
            storage.replace(write_mask(trace, storage.node(), node, value))
            return
        key = known
    p = plan(trace, storage.type.shape, key)
    truth = (
        storage.type.dtype.kind == "b" and np.size(value) == 1
    )  # any array of one element has a truth value
    if (
        p.view
        and not p.final
        and key is not None
        and not _with_ellipsis(key)
        and np.ndim(value)
        and not truth
    ):
        raise ValueError(
            f"setting an array element with a sequence of shape {np.shape(value)} (at {user_location()})"
        )
    storage.write(trace, p, value)


def _one_mask(key: Any) -> Any:
    """A key that is one mask and nothing else."""
    if isinstance(key, tuple) and len(key) == 1:
        (key,) = key
    if isinstance(key, list) and not any_tracer(key):
        key = np.asarray(key)
    return key if isinstance(key, Tracer | np.ndarray) and key.dtype.kind == "b" and key.ndim else None


def assign(target: Tracer, value: Any) -> None:
    """A new value of the whole, dtype and shape kept."""
    trace = tracing()
    storage = writable_storage(target)
    storage.replace(fitted(trace, value, storage.type.dtype, storage.type.shape))


def in_place(target: Array, ufunc: np.ufunc, other: Any) -> Any:
    """``x += y`` and kin: the object stays, and its dtype and shape do."""
    if isinstance(other, list | tuple):
        other = wrap(tracing(), node_of(tracing(), other))
    if not isinstance(other, Tracer | int | float | np.ndarray | np.generic):
        return NotImplemented
    plain = issubclass(type(other), Tracer) or is_python_number(other)
    # Else NumPy asks whose array it is.
    value = tracing().ufunc(ufunc, target, other) if plain else ufunc(target, other)
    if value.dtype != target.dtype and not np.can_cast(value.dtype, target.dtype, "same_kind"):
        raise TypeError(
            f"Cannot cast ufunc '{ufunc.__name__}' output from {value.dtype!r} to {target.dtype!r} with casting rule 'same_kind' "
            f"(at {user_location()})"
        )
    if value.shape != target.shape:
        raise ValueError(
            f"non-broadcastable output operand with shape {target.shape} doesn't match the broadcast shape {value.shape} (at {user_location()})"
        )
    assign(target, value)
    return target


METHODS["__getitem__"] = getitem
METHODS["__setitem__"] = setitem
METHODS["__in_place__"] = in_place
