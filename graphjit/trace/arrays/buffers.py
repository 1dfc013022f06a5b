"""Traced arrays that can be written: which object stands for an array once it is assigned to, and what is
computed at once because its values are known.

Job: NumPy's meaning of assignment: a view sees the writes of its base and writes through to it.
Input: tracers, and ndarrays that the traced function makes (np.zeros, np.array). Output: `Stored` tracers,
whose node is always the present value.

A `Stored` tracer keeps a storage in place of its node: `Owned` (see `storage`) where it has elements of its
own, `Lens` where it is a view. A plain tracer that is written becomes `Stored` in place, so every name for it
sees the write.

While all its values are known, a stored tracer behaves like the ndarray that it is: a call is computed at
once as long as its arguments are known too, and recorded as soon as something traced, or an array from
outside, takes part.

Example: ``x = np.zeros(3)`` is `Stored` with known values; ``x[0] = 2.0`` is done at once and ``if x[0] > 1``
has an answer; ``x[1] = a`` with a traced ``a`` makes nodes of it, for which no answer exists.

Invariants: no array of the caller is written while tracing (``results`` makes a changed argument an output,
which the call writes); known arrays enter the graph by value when they are read; nothing is computed at once
with arrays from outside, which can change between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from graphjit.errors import TraceError, UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.types import Type
from graphjit.trace.arrays.assignment import write
from graphjit.trace.arrays.indexing import Plan, item, plan, read
from graphjit.trace.arrays.layout import in_order, model
from graphjit.trace.arrays.storage import Owned, constant, within
from graphjit.trace.numpy.arguments import static_array, tracing, wrap
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.answers import from_outside, written_within
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.recorder import Within, current
from graphjit.trace.recording.tables import FUNCTIONS, METHODS, SHARING_FUNCTIONS, SHARING_METHODS
from graphjit.trace.recording.tracer import Array, Outside, Trace, Tracer

_NODE: Any = Tracer.__dict__["_node"]
_TRACE: Any = Tracer.__dict__["_trace"]
_MODEL: Any = Tracer.__dict__["_model"]

# ----------------------------------------------------------------------------------------------- known values


class Unknown(Exception):
    """Control flow of this package: an argument is traced, or an array from outside that may change."""


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
        return from_storage(Owned(Type(value.dtype, value.shape), value, None, None, shared))
    if type(value) in (tuple, list):
        return type(value)(local(item, shared) for item in value)
    return value


def _unshared(result: Any, operands: Any, name: str) -> Any:
    """Results that share memory with an operand are copies which refuse to be written."""
    arrays = [a for a in (operands if isinstance(operands, tuple) else ()) if isinstance(a, np.ndarray)]
    parts = result if isinstance(result, tuple | list) else [result]
    if any(isinstance(part, np.ndarray) and np.may_share_memory(part, a) for part in parts for a in arrays):
        copies = [np.array(part) for part in parts]
        return local(type(result)(copies) if isinstance(result, tuple | list) else copies[0], shared=name)
    return local(result)


# ------------------------------------------------------------------------------------------ views and tracers


class Lens:
    """The storage of a view of another traced array: the base, how the view is read from it, and how the base
    looks after a write to the view.
    """

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

    @property
    def within(self) -> Within | None:
        """Where the base was made."""
        return storage_of(self.base).within if isinstance(self.base, Stored) else self.base._within

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
        storage = storage_of(self.base) if type(self.base) is Stored else None
        return (
            storage.read(trace, self.plan)
            if isinstance(storage, Owned)
            else read(trace, self.base._node, self.plan)
        )

    def scattered(self) -> bool:
        """Whether the value has to be put together of parts of the base that were written one by one."""
        base = storage_of(self.base) if type(self.base) is Stored else None
        return type(base) is Owned and self.plan is not None and base.parts(self.plan) > 1

    def _position(self, at: tuple[int, ...]) -> tuple[int, ...] | None:
        """Where an element of the view stands in a base that is written too; None where that is no fixed
        place, or the base is not written.
        """
        p = self.plan
        if p is None or not p.basic or type(self.base) is not Stored or len(at) != len(self.type.shape):
            return None
        if len(at) + len(p.dropped) != len(p.shape):  # a new axis
            return None
        inside, found = iter(at), []
        for axis, (start, count, step) in enumerate(zip(p.starts, p.counts, p.steps, strict=True)):
            i = 0 if axis in p.dropped else next(inside)
            found.append(start + (count - 1 - i if axis in p.flipped else i) * step)
        return tuple(found)

    def item(self, trace: Trace, at: tuple[int, ...]) -> Node:
        """What stands at a position, an element of the base where that is known."""
        inside = self._position(at)
        if inside is None:
            return item(trace, self.node(), at)
        return storage_of(self.base).item(trace, inside)  # type: ignore[arg-type]

    def put(self, trace: Trace, at: tuple[int, ...], value: Any) -> None:
        """Assign to what stands at a position, an element of the base where that is known."""
        inside = self._position(at)
        if inside is None:
            self.write(trace, plan(trace, self.type.shape, at), value)
        else:
            writable_storage(self.base).put(trace, inside, value)

    def replace(self, node: Node) -> None:
        """Write through."""
        trace = tracing()
        if self.plan is not None:
            writable_storage(self.base).write(trace, self.plan, wrap(trace, node))
        else:
            assert self.inverse is not None
            base = writable_storage(self.base)
            base.replace(self.inverse(trace, base.node(), node))

    def write(self, trace: Trace, p: Plan, value: Any) -> None:
        """Assign to a part of the view."""
        self.replace(write(trace, self.node(), p, value))

    def read(self, trace: Trace, p: Plan) -> Node:
        """A part of the view."""
        return read(trace, self.node(), p)


def known_first(name: str) -> Callable[..., Any]:
    """An operator: ndarray's where all operands are known, else the tracer's."""
    recorded = getattr(Array, name)

    def method(self: Stored, *others: Any) -> Any:
        known = self.known()
        if known is None:
            return recorded(self, *others)
        try:
            plain = known_values(others)
        except Unknown:
            return recorded(self, *others)
        result = getattr(known, name)(*plain)
        return result if result is NotImplemented else local(result)

    method.__name__ = name
    return method


def known_answer(name: str) -> Callable[..., Any]:
    """A conversion to a Python number, which known values can give."""
    refuse = getattr(Array, name)

    def method(self: Stored, *others: Any) -> Any:
        known = self.known()
        if known is None:
            return refuse(self, *others)
        try:
            plain = known_values(others)
        except Unknown:
            return refuse(self, *others)
        return getattr(known, name)(*plain)

    method.__name__ = name
    return method


def known_in_place(name: str) -> Callable[[Stored, Any], Any]:
    """``x += y`` and kin: done at once where all values are known, else recorded."""
    recorded = getattr(Array, name)

    def method(self: Stored, other: Any) -> Any:
        known = None if self.known() is None else writable_storage(self).known()
        if known is not None:
            try:
                getattr(known, name)(known_values(other))
            except Unknown:
                pass
            else:
                return self
        return recorded(self, other)

    return method


WRITING = frozenset({np.copyto, np.put, np.place, np.putmask, np.fill_diagonal, np.put_along_axis})
"""Functions that write into their first argument."""
WRITING_METHODS = frozenset({"fill", "put", "sort", "partition", "flat"})


def _announce(targets: Sequence[Any], options: dict[str, Any]) -> None:
    """Say which arrays a call will write, where somebody has to know it beforehand (`Recorder.journals`)."""
    trace = current.recorder
    if trace is None or not trace.journals:
        return
    out = options.get("out")
    for target in (*targets, *(out if isinstance(out, tuple) else (out,))):
        if isinstance(target, Stored):
            writable_storage(target)


class Stored(Array):
    """A tracer whose value lives in a storage and can be written."""

    __slots__ = ()

    @property
    def _node(self) -> Node:  # type: ignore[override]
        return storage_of(self).node()

    @_node.setter
    def _node(self, node: Node) -> None:
        storage_of(self).replace(node)

    @property
    def _trace(self) -> Trace:  # type: ignore[override]
        return storage_of(self).trace or tracing()

    def _layout(self) -> np.ndarray:
        return storage_of(self).layout()

    def _plain(self) -> bool:
        storage = storage_of(self)
        return isinstance(storage, Owned) and storage.array is None and storage.model is None

    def _alive(self) -> None:
        """Known values outlive their trace."""
        if storage_of(self).known() is None:
            super()._alive()

    def known(self) -> np.ndarray | None:
        """The values, while they are known."""
        return storage_of(self).known()

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        return storage_of(self).type.shape

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype."""
        return storage_of(self).type.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(storage_of(self).type.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return storage_of(self).type.size

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return storage_of(self).type.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return storage_of(self).type.nbytes

    def __repr__(self) -> str:
        known = self.known()
        return super().__repr__() if known is None else repr(known)

    def __str__(self) -> str:
        known = self.known()
        return super().__str__() if known is None else str(known)

    # Operators and conversions: NumPy's own on known values.
    __add__, __radd__ = known_first("__add__"), known_first("__radd__")
    __sub__, __rsub__ = known_first("__sub__"), known_first("__rsub__")
    __mul__, __rmul__ = known_first("__mul__"), known_first("__rmul__")
    __truediv__, __rtruediv__ = known_first("__truediv__"), known_first("__rtruediv__")
    __floordiv__, __rfloordiv__ = known_first("__floordiv__"), known_first("__rfloordiv__")
    __mod__, __rmod__ = known_first("__mod__"), known_first("__rmod__")
    __pow__, __rpow__ = known_first("__pow__"), known_first("__rpow__")
    __and__, __rand__ = known_first("__and__"), known_first("__rand__")
    __or__, __ror__ = known_first("__or__"), known_first("__ror__")
    __xor__, __rxor__ = known_first("__xor__"), known_first("__rxor__")
    __lshift__, __rlshift__ = known_first("__lshift__"), known_first("__rlshift__")
    __rshift__, __rrshift__ = known_first("__rshift__"), known_first("__rrshift__")
    __matmul__, __rmatmul__ = known_first("__matmul__"), known_first("__rmatmul__")
    __lt__, __le__ = known_first("__lt__"), known_first("__le__")
    __gt__, __ge__ = known_first("__gt__"), known_first("__ge__")
    __eq__, __ne__ = known_first("__eq__"), known_first("__ne__")  # type: ignore[assignment]
    __neg__, __pos__ = known_first("__neg__"), known_first("__pos__")
    __abs__, __invert__ = known_first("__abs__"), known_first("__invert__")
    __divmod__ = known_first("__divmod__")
    __bool__, __index__ = known_answer("__bool__"), known_answer("__index__")
    __float__, __int__ = known_answer("__float__"), known_answer("__int__")
    __complex__, __round__ = known_answer("__complex__"), known_answer("__round__")
    __reduce__, __contains__ = known_answer("__reduce__"), known_answer("__contains__")
    item, tolist = known_answer("item"), known_answer("tolist")
    __iadd__, __isub__ = known_in_place("__iadd__"), known_in_place("__isub__")
    __imul__, __itruediv__ = known_in_place("__imul__"), known_in_place("__itruediv__")
    __ifloordiv__, __imod__ = known_in_place("__ifloordiv__"), known_in_place("__imod__")
    __ipow__, __iand__ = known_in_place("__ipow__"), known_in_place("__iand__")
    __ior__, __ixor__ = known_in_place("__ior__"), known_in_place("__ixor__")
    __ilshift__, __irshift__ = known_in_place("__ilshift__"), known_in_place("__irshift__")
    __imatmul__ = known_in_place("__imatmul__")

    @property
    def __array__(self) -> Any:
        """The known values themselves."""
        if self.known() is None:
            return super().__array__

        def convert(dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            return np.array(self.known(), dtype=dtype, copy=copy)

        return convert

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        """Known arguments are computed at once, ``out=`` in place."""
        _announce(args[:1] if method == "at" else (), kwargs)
        try:
            plain, options = known_values(args), known_values(kwargs)
        except Unknown:
            return METHODS["__array_ufunc__"](self, ufunc, method, *args, **kwargs)
        result = getattr(ufunc, method)(*plain, **options)
        out = kwargs.get("out")
        if out is None:
            return local(result)
        return out[0] if isinstance(out, tuple) and len(out) == 1 else out

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        """Known arguments are computed at once."""
        _announce(args[:1] if function in WRITING else (), kwargs)
        if function in SHARING_FUNCTIONS:
            return in_order(FUNCTIONS[function](*args, **kwargs), function, args, kwargs)
        try:
            plain, options = known_values(args), known_values(kwargs)
        except Unknown:
            return super().__array_function__(function, types, args, kwargs)
        return _unshared(function(*plain, **options), plain, function.__name__)

    def __getattr__(self, name: str) -> Any:
        """Methods and attributes of known values are NumPy's own, but for those that speak of memory."""
        _announce((self,) if name in WRITING_METHODS else (), {})
        known = self.known()
        if known is None or name in SHARING_METHODS or name.startswith("__"):
            return Tracer.__getattr__(self, name)
        attribute = getattr(known, name)
        if not callable(attribute):
            return local(attribute)

        def call(*args: Any, **kwargs: Any) -> Any:
            _announce((), kwargs)
            try:
                plain, options = known_values(args), known_values(kwargs)
            except Unknown:
                return Tracer.__getattr__(self, name)(*args, **kwargs)
            return _unshared(attribute(*plain, **options), (known,), name)

        return call


Stored.__name__ = Stored.__qualname__ = "traced array"


def storage_of(value: Tracer) -> Owned | Lens:
    """The storage of a stored tracer."""
    storage: Owned | Lens = _NODE.__get__(value)
    return storage


def from_storage(storage: Owned | Lens) -> Stored:
    """A stored tracer."""
    result: Stored = object.__new__(Stored)
    _NODE.__set__(result, storage)
    _TRACE.__set__(result, None)
    _MODEL.__set__(result, None)
    return result


def writable_storage(value: Tracer) -> Owned | Lens:
    """The storage of a tracer that is about to be written; a plain tracer gets one."""
    if type(value) is not Stored and (not isinstance(value, Tracer) or isinstance(value, Outside)):
        raise from_outside("this assignment")
    here, made = within(), None
    if here is not None and isinstance(value, Array):
        made = storage_of(value).within if isinstance(value, Stored) else value._within
        refused = here.refuses(made)
        if refused is not None:
            raise written_within(refused.what, refused.name)
    if type(value) is not Stored:
        if not isinstance(value, Array):
            raise TypeError(
                f"{value._class.__name__!r} object does not support item assignment (at {user_location()})"
            )
        if value._model is not None and not value._model.flags.writeable:
            raise read_only()
        stored(value)
    storage = storage_of(value)
    if isinstance(storage, Lens) and not storage.layout().flags.writeable:
        raise read_only()
    if storage.shared:
        raise UnsupportedError(
            f"writing into the result of np.{storage.shared} at {user_location()} is not compiled: NumPy would write through to the original "
            "array. Index the original array instead, or take a .copy() first"
        )
    _about_to_write(storage, here if here is not made else None)
    return storage


def stored(value: Tracer) -> Stored:
    """A plain tracer, which becomes a stored one in place."""
    if type(value) is not Stored:
        owned = Owned(value._node.type, None, value._trace, value._node)
        owned.model = value._model
        owned.within = value._within
        value.__class__ = Stored  # type: ignore[assignment]
        _NODE.__set__(value, owned)
    return cast(Stored, value)


def _about_to_write(storage: Owned | Lens, inside: Within | None) -> None:
    """Let the array that is about to be written be restored. ``inside``: the body of converted code, if it
    was not made there.

    Raises:
        TraceError: it is one of several arrays, and nobody knows which (`Owned.frozen`).
    """
    while isinstance(storage, Lens):
        if not isinstance(storage.base, Stored):
            return  # it becomes one when the view is written
        storage = storage_of(storage.base)
    if storage.frozen:
        raise TraceError(f"a write at {user_location()}: {storage.frozen}")
    trace = current.recorder
    if trace is not None and trace.journals:
        storage.note(trace)
        if inside is not None:
            storage.become_traced(tracing())


def ultimate_base(value: Stored) -> Any:
    """The array that owns the elements of a view; None of an array that owns its own."""
    storage, owner = storage_of(value), None
    while isinstance(storage, Lens):
        owner = storage.base
        storage = storage_of(owner) if isinstance(owner, Stored) else None  # type: ignore[assignment]
    return owner


def read_only() -> ValueError:
    """NumPy's error, with the user's line."""
    return ValueError(f"assignment destination is read-only (at {user_location()})")


def token_of(value: Tracer) -> object:
    """An object that changes whenever the value is written."""
    return storage_of(value).token if type(value) is Stored else value._node


def known_array(value: Any) -> np.ndarray | None:
    """The values of a stored tracer, while they are known."""
    return storage_of(value).known() if type(value) is Stored else None
