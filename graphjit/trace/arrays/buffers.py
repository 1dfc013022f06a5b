"""Arrays that are written while tracing: ``x[i] = v``, ``x += y``, ``out=``, np.zeros / np.empty filled
element by element.

Job: give traced values NumPy's meaning of assignment: a view sees the writes of its base and writes through
to it.
Input: tracers, keys, values.  Output: `Stored` tracers, whose node is always the present value.

A `Stored` tracer keeps a storage in place of its node:

* `Owned`: an array of its own. While everything in it is known it is a real ndarray (and can serve as a
  static index, a size or a mask); the
  first traced write turns it into nodes. Writes of single elements or rows are collected and joined at the
  next read of the whole, so a loop that fills a buffer costs one node per write, and reading back what was
  just written costs none.
* `Lens`: a view of another tracer: an index, or any function that NumPy makes a view with (``sharing``).

A plain tracer that is written becomes `Stored` in place, so every name for it sees the write.

Invariants: no array of the caller is written while tracing (``results`` makes a changed argument an output,
which the call writes); known arrays enter the graph by value when they are read; computation on known arrays
alone happens at once, but never with arrays from outside, which can change between calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from graphjit.errors import UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.types import Type
from graphjit.trace.arrays.assignment import fitted, write, write_mask
from graphjit.trace.arrays.indexing import Plan, plan, read
from graphjit.trace.arrays.layout import copied, in_memory_of, model
from graphjit.trace.numpy.arguments import as_bool, node_of, static_array, tracing, wrap, wrap_array
from graphjit.trace.numpy.shapes import sliced
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.answers import from_outside
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import METHODS, Array, Outside, Trace, Tracer, any_tracer, check_dtype

_NODE: Any = Tracer.__dict__["_node"]
_TRACE: Any = Tracer.__dict__["_trace"]
_MODEL: Any = Tracer.__dict__["_model"]


class Unknown(Exception):
    """Control flow of this package: an argument is traced, or an array from outside that may change."""


def constant(trace: Trace, array: np.ndarray) -> Node:
    """A known array by value; one number everywhere becomes a broadcast."""
    check_dtype(array.dtype)
    if array.size > 1:
        text = array.tobytes()
        if text == text[: array.itemsize] * array.size:
            return trace.builder.full(array.reshape(-1)[0], Type(array.dtype, array.shape))
    return trace.builder.const(array, array.dtype)


# --------------------------------------------------------------------------------------------------- storages


class Owned:
    """An array of its own: known values, or a node with collected writes."""

    __slots__ = ("array", "base", "cells", "grain", "model", "shared", "token", "trace", "type")

    def __init__(
        self, type: Type, array: np.ndarray | None, trace: Trace | None, node: Node | None, shared: str = ""
    ) -> None:
        self.type = type
        self.array = array
        self.trace = trace
        self.base = node
        self.cells: dict[int, Node] = {}
        self.grain = 0  # leading axes that address one cell
        self.shared = (
            shared  # the function that made it, where NumPy would have returned a view that we do not follow
        )
        self.model: np.ndarray | None = None
        self.token: object = node if node is not None else self

    def known(self) -> np.ndarray | None:
        """The values, while they are known."""
        return self.array

    def layout(self) -> np.ndarray:
        """The model; the known values are their own."""
        if self.array is not None:
            return self.array
        if self.model is None:
            self.model = np.empty(self.type.shape, bool)
        return self.model

    def node(self) -> Node:
        """The present value."""
        if self.array is not None:
            return constant(tracing(), self.array)
        assert self.base is not None
        if self.cells:
            self._join()
        return self.base

    def _become_traced(self, trace: Trace) -> None:
        if self.array is not None:
            self.base = constant(trace, self.array)
            self.model = copied(self.array, "K")
            self.array, self.trace = None, trace

    def replace(self, node: Node) -> None:
        """A new value of the whole."""
        if self.array is not None:
            self.model = copied(self.array, "K")
            self.array = None
        self.trace, self.base = tracing(), node
        self.cells, self.token = {}, object()

    def address(self, p: Plan) -> tuple[int, int] | None:
        """(grain, number) of the one cell that a key names, or None."""
        grain = len(p.dropped)
        if (
            not p.basic
            or not grain
            or p.flipped
            or p.dropped != set(range(grain))
            or p.final != p.shape[grain:]
        ):
            return None
        if any(count != size for count, size in zip(p.counts[grain:], p.shape[grain:], strict=True)):
            return None
        return grain, self._number(p, grain)

    def _number(self, p: Plan, grain: int) -> int:
        number = 0
        for start, size in zip(p.starts[:grain], p.shape[:grain], strict=True):
            number = number * size + start
        return number

    def write(self, trace: Trace, p: Plan, value: Any) -> None:
        """Assign to a part."""
        self._become_traced(trace)
        place = self.address(p)
        if place is None:
            self.replace(write(trace, self.node(), p, value))
            return
        grain, number = place
        if self.cells and grain != self.grain:
            self._join()
        self.grain = grain
        self.cells[number] = fitted(trace, value, self.type.dtype, self.type.shape[grain:])
        self.token = object()

    def read(self, trace: Trace, p: Plan) -> Node:
        """A part, without joining collected writes where one cell or none of them is touched."""
        grain = self.grain
        if self.cells and p.basic and p.dropped.issuperset(range(grain)):
            cell = self.cells.get(self._number(p, grain))
            assert self.base is not None
            if cell is None:
                return read(trace, self.base, p)
            inner = Plan(
                starts=p.starts[grain:],
                counts=p.counts[grain:],
                steps=p.steps[grain:],
                flipped=[axis - grain for axis in p.flipped],
                shape=p.shape[grain:],
                final=p.final,
            )
            return read(trace, cell, inner)
        return read(trace, self.node(), p)

    def _join(self) -> None:
        """One concatenation of written cells and untouched runs."""
        trace, base = tracing(), self.base
        assert base is not None
        shape, inner = self.type.shape, self.type.shape[self.grain :]
        total = 1
        for size in shape[: self.grain]:
            total *= size
        flat = trace.emit("reshape", base, shape=(total, *inner))
        pieces, reached = [], 0
        for number in sorted(self.cells):
            if number > reached:
                pieces.append(sliced(trace, flat, 0, reached, number))
            pieces.append(trace.emit("reshape", self.cells[number], shape=(1, *inner)))
            reached = number + 1
        if reached < total:
            pieces.append(sliced(trace, flat, 0, reached, total))
        self.base = trace.emit("reshape", trace.emit("concatenate", *pieces, axis=0), shape=shape)
        self.cells = {}


class Lens:
    """A view of another tracer."""

    __slots__ = ("base", "inverse", "of_array", "of_node", "plan", "seen", "type", "value")

    def __init__(
        self,
        base: Tracer,
        type: Type,
        of_array: Callable[[np.ndarray], np.ndarray],
        of_node: Callable[[Trace, Node], Node] | None = None,
        inverse: Callable[[Trace, Node, Node], Node] | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.base = base
        self.type = type
        self.of_array = of_array
        self.of_node = of_node
        self.inverse = inverse
        self.plan = plan
        self.seen: object = None
        self.value: Node | None = None

    shared = ""

    def layout(self) -> np.ndarray:
        """The model: a view of the base's."""
        return self.of_array(model(cast(Array, self.base)))

    @property
    def trace(self) -> Trace | None:
        """The trace of the base."""
        return self.base._trace

    @property
    def token(self) -> object:
        """Changes when the base is written."""
        return token_of(self.base)

    def known(self) -> np.ndarray | None:
        """The values, while they are known; shares memory with the base."""
        if self.plan is not None and not self.plan.basic:
            return None  # at a position that is only known at run time
        known = known_array(self.base)
        return None if known is None else self.of_array(known)

    def node(self) -> Node:
        """The present value."""
        known = self.known()
        if known is not None:
            return constant(tracing(), known)
        if self.value is None or self.seen is not self.token:
            self.value = self._read(tracing())
            self.seen = self.token
        return self.value

    def _read(self, trace: Trace) -> Node:
        if self.plan is None:
            assert self.of_node is not None
            return self.of_node(trace, self.base._node)
        held = storage(self.base) if isinstance(self.base, Stored) else None
        return (
            held.read(trace, self.plan)
            if isinstance(held, Owned)
            else read(trace, self.base._node, self.plan)
        )

    def replace(self, node: Node) -> None:
        """Write through."""
        trace = tracing()
        if self.plan is not None:
            stored(self.base).write(trace, self.plan, wrap(trace, node))
        else:
            assert self.inverse is not None
            base = stored(self.base)
            base.replace(self.inverse(trace, base.node(), node))

    def write(self, trace: Trace, p: Plan, value: Any) -> None:
        """Assign to a part of the view."""
        self.replace(write(trace, self.node(), p, value))

    def read(self, trace: Trace, p: Plan) -> Node:
        """A part of the view."""
        return read(trace, self.node(), p)


class Stored(Array):
    """A tracer whose value lives in a storage and can be written."""

    __slots__ = ()

    @property
    def _node(self) -> Node:  # type: ignore[override]
        return storage(self).node()

    @_node.setter
    def _node(self, node: Node) -> None:
        storage(self).replace(node)

    @property
    def _trace(self) -> Trace:  # type: ignore[override]
        return storage(self).trace or tracing()

    def _layout(self) -> np.ndarray:
        return storage(self).layout()

    def _plain(self) -> bool:
        held = storage(self)
        return isinstance(held, Owned) and held.array is None and held.model is None

    def _alive(self) -> None:
        """Known values outlive their trace."""
        if storage(self).known() is None:
            super()._alive()

    def known(self) -> np.ndarray | None:
        """The values, while they are known."""
        return storage(self).known()

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        return storage(self).type.shape

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype."""
        return storage(self).type.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(storage(self).type.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return storage(self).type.size

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return storage(self).type.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return storage(self).type.nbytes

    def __repr__(self) -> str:
        known = self.known()
        return super().__repr__() if known is None else repr(known)

    def __str__(self) -> str:
        known = self.known()
        return super().__str__() if known is None else str(known)


Stored.__name__ = Stored.__qualname__ = Tracer.__name__


Stored.__name__ = Stored.__qualname__ = "traced array"


def storage(value: Stored) -> Owned | Lens:
    """The storage of a stored tracer."""
    found: Owned | Lens = _NODE.__get__(value)
    return found


def make(held: Owned | Lens) -> Stored:
    """A stored tracer."""
    result: Stored = object.__new__(Stored)
    _NODE.__set__(result, held)
    _TRACE.__set__(result, None)
    _MODEL.__set__(result, None)
    return result


def stored(value: Tracer) -> Owned | Lens:
    """The storage of a tracer that is about to be written; a plain tracer gets one."""
    if not isinstance(value, Tracer) or isinstance(value, Outside):
        raise from_outside("this assignment")
    if not isinstance(value, Stored):
        if not isinstance(value, Array):
            raise TypeError(
                f"{value._class.__name__!r} object does not support item assignment (at {user_location()})"
            )
        if value._model is not None and not value._model.flags.writeable:
            raise read_only()
        own = Owned(value._node.type, None, value._trace, value._node)
        own.model = value._model
        value.__class__ = Stored  # type: ignore[assignment]
        _NODE.__set__(value, own)
    held = storage(value)  # type: ignore[arg-type]
    if isinstance(held, Lens) and not held.layout().flags.writeable:
        raise read_only()
    if held.shared:
        raise UnsupportedError(
            f"writing into the result of np.{held.shared} at {user_location()} is not compiled: NumPy would write through to the original "
            "array. Index the original array instead, or take a .copy() first"
        )
    return held


def ultimate_base(value: Stored) -> Any:
    """The array that owns the elements of a view; None of an array that owns its own."""
    held, owner = storage(value), None
    while isinstance(held, Lens):
        owner = held.base
        held = storage(owner) if isinstance(owner, Stored) else None  # type: ignore[assignment]
    return owner


def read_only() -> ValueError:
    """NumPy's error, with the user's line."""
    return ValueError(f"assignment destination is read-only (at {user_location()})")


def token_of(value: Tracer) -> object:
    """An object that changes whenever the value is written."""
    return storage(value).token if isinstance(value, Stored) else value._node


def known_array(value: Any) -> np.ndarray | None:
    """The values of a stored tracer, while they are known."""
    return value.known() if isinstance(value, Stored) else None


# ----------------------------------------------------------------------------------------------- known values


def known_values(value: Any) -> Any:
    """Arguments with stored tracers replaced by their arrays.

    Raises:
        Unknown: something in there is traced, or an array from outside.
    """
    if isinstance(value, Stored):
        known = value.known()
        if known is None:
            raise Unknown
        return known
    if isinstance(value, Tracer):
        raise Unknown
    if isinstance(value, np.ndarray):
        if static_array(value) is None:
            raise Unknown
        return value
    if isinstance(value, list | tuple):
        if type(value) in (list, tuple) and any(
            isinstance(item, Tracer | np.ndarray | list | tuple | slice) for item in value
        ):
            return type(value)(known_values(item) for item in value)
        return value
    if isinstance(value, dict):
        return {key: known_values(item) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(known_values(value.start), known_values(value.stop), known_values(value.step))
    return value


def local(value: Any, shared: str = "") -> Any:
    """Arrays computed from known ones, as stored tracers again (outside of a trace: as they are)."""
    if active_trace() is None:
        return value
    if type(value) is np.ndarray and value.dtype != object:
        return make(Owned(Type(value.dtype, value.shape), value, None, None, shared))
    if type(value) in (tuple, list):
        return type(value)(local(item, shared) for item in value)
    return value


# ------------------------------------------------------------------------------------------- reading, writing


def getitem(target: Tracer, key: Any) -> Any:
    """``x[key]``: a view for basic keys, a copy otherwise."""
    target, key = without_truths(target, key)
    known = known_array(target)
    if known is not None:
        try:
            found = known[known_values(key)]
        except Unknown:
            pass
        else:
            if (
                not isinstance(found, np.ndarray)
                or not np.may_share_memory(found, known)
                or active_trace() is None
            ):
                return local(found)
    trace = tracing()
    p = plan(trace, target.shape, key)
    if p.view and isinstance(target, Array) and (p.final or _with_ellipsis(key)):
        return index_lens(target, p, key)
    node = storage(target).read(trace, p) if isinstance(target, Stored) else read(trace, target._node, p)
    if not p.final and _with_ellipsis(key):
        return wrap_array(trace, node)
    result = wrap(trace, node)
    if len(p.final) > 1 and isinstance(target, Array):
        in_memory_of(result, model(target)[stand_ins(key)], "K")
    return result


def without_truths(target: Tracer, key: Any) -> tuple[Tracer, Any]:
    """A key without Python's or NumPy's True and False: each stands for a new axis of which it takes the one
    element or none.
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
    """A key with zeros for what is only known at run time: for models, whose strides do not depend on
    positions.
    """
    if isinstance(key, tuple | list):
        return type(key)(map(stand_ins, key))
    if isinstance(key, Tracer):
        known = known_array(key)
        return np.zeros(key._node.shape, np.int64)[()] if known is None else known
    return key


def index_lens(target: Tracer, p: Plan, key: Any) -> Stored:
    """A basic index as a view."""
    held = Lens(target, Type(target.dtype, p.final), lambda array: array[stand_ins(key)], plan=p)
    if held.known() is None:
        held.node()  # now, so that the node carries the line of the index
    return make(held)


def setitem(target: Tracer, key: Any, value: Any) -> None:
    """``x[key] = value``."""
    target, key = without_truths(target, key)
    held = stored(target)
    known = held.known()
    if known is not None:
        try:
            known[known_values(key)] = known_values(value)
        except Unknown:
            pass
        else:
            return
    write_key(held, key, value)


def write_key(held: Owned | Lens, key: Any, value: Any) -> None:
    """Record ``x[key] = value``."""
    trace = tracing()
    mask = _one_mask(key)
    if mask is not None and len(mask.shape) == len(held.type.shape) and np.ndim(value) > 1:
        text = f"NumPy boolean array indexing assignment requires a 0 or 1-dimensional input, input has {np.ndim(value)} dimensions"
        raise TypeError(f"{text} (at {user_location()})")
    if mask is not None and static_array(mask) is None:
        ones = np.shape(value)[: max(0, np.ndim(value) - len(held.type.shape) + len(mask.shape))]
        node = as_bool(trace, node_of(trace, mask))
        known = (
            METHODS["__concretise__"](wrap(trace, node), "assigning with a mask")
            if any(n != 1 for n in ones)
            else None
        )
        if known is None:
            held.replace(write_mask(trace, held.node(), node, value))
            return
        key = known
    p = plan(trace, held.type.shape, key)
    truth = held.type.dtype.kind == "b" and np.size(value) == 1  # any array of one element has a truth value
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
    held.write(trace, p, value)


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
    held = stored(target)
    held.replace(fitted(trace, value, held.type.dtype, held.type.shape))


METHODS["__getitem__"] = getitem
METHODS["__setitem__"] = setitem
