"""Stored tracers behave like the ndarrays that they are as long as their values are known.

Job: operators, conversions, NumPy calls, methods, in-place operators and views for `Stored`; in-place operators for every tracer.
Input: importing this module.  Output: methods on `Stored` and `Tracer`, entries in METHODS and FUNCTIONS.
Invariant: with known values alone the result is computed at once and is known again; as soon as something traced, or an array from outside, takes part,
the same call is recorded instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.ir.types import Type
from graphjit.trace import methods
from graphjit.trace.assignment import write_mask
from graphjit.trace.buffers import Lens, Stored, Unknown, assign, getitem, known_array, known_values, local, make, setitem, storage, stored
from graphjit.trace.functions import diagonals, joining, shapes
from graphjit.trace.functions.arguments import as_bool, axes_tuple, node_of, tracing, wrap
from graphjit.trace.location import user_location
from graphjit.trace.tracer import FUNCTIONS, METHODS, Trace, Tracer, active_trace, implements

# --------------------------------------------------------------------------------------- operators, conversions

OPERATORS = (
    "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __floordiv__ __rfloordiv__ __mod__ __rmod__ __pow__ __rpow__ "
    "__and__ __rand__ __or__ __ror__ __xor__ __rxor__ __lshift__ __rlshift__ __rshift__ __rrshift__ __lt__ __le__ __gt__ __ge__ __eq__ __ne__ "
    "__neg__ __abs__ __invert__ __pos__ __divmod__ __matmul__ __rmatmul__"
).split()
CONVERSIONS = "__bool__ __float__ __int__ __index__ __complex__ __contains__ __round__ __reduce__ item tolist".split()


def _known_first(name: str, wrapped: Callable[[Any], Any]) -> Callable[..., Any]:
    """The ndarray's method on known values, the tracer's otherwise."""
    traced = getattr(Tracer, name)

    def method(self: Stored, *others: Any) -> Any:
        known = self.known()
        if known is None:
            return traced(self, *others)
        try:
            plain = known_values(others)
        except Unknown:
            return traced(self, *others)
        found = getattr(known, name)(*plain)
        return found if found is NotImplemented else wrapped(found)

    method.__name__ = name
    return method


for _name in OPERATORS:
    setattr(Stored, _name, _known_first(_name, local))
for _name in CONVERSIONS:
    setattr(Stored, _name, _known_first(_name, lambda found: found))


def _array(self: Stored) -> Any:
    """``__array__``: the known values themselves."""
    if self.known() is None:
        return Tracer.__array__.fget(self)  # type: ignore[attr-defined]

    def convert(dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.known(), dtype=dtype, copy=copy)

    return convert


def _copied(self: Stored, *memo: Any) -> Any:
    """copy.copy and copy.deepcopy."""
    return METHODS["copy"](self) if self.known() is None else local(np.array(self.known()))


def _array_ufunc(self: Stored, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
    """``__array_ufunc__``: known arguments are computed at once, ``out=`` in place."""
    try:
        plain, options = known_values(args), known_values(kwargs)
    except Unknown:
        return METHODS["__array_ufunc__"](self, ufunc, method, *args, **kwargs)
    found = getattr(ufunc, method)(*plain, **options)
    out = kwargs.get("out")
    if out is None:
        return local(found)
    return out[0] if isinstance(out, tuple) and len(out) == 1 else out


def _array_function(self: Stored, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
    """``__array_function__``: known arguments are computed at once."""
    if function in VIEWS:
        return VIEWS[function](*args, **kwargs)
    try:
        plain, options = known_values(args), known_values(kwargs)
    except Unknown:
        return Tracer.__array_function__(self, function, types, args, kwargs)
    return _fresh(function(*plain, **options), plain, function.__name__)


def _fresh(found: Any, operands: Any, name: str) -> Any:
    """Results that share memory with an operand are copies which refuse to be written."""
    arrays = [a for a in (operands if isinstance(operands, tuple) else ()) if isinstance(a, np.ndarray)]
    parts = found if isinstance(found, tuple | list) else [found]
    if any(isinstance(part, np.ndarray) and np.may_share_memory(part, a) for part in parts for a in arrays):
        copies = [np.array(part) for part in parts]
        return local(type(found)(copies) if isinstance(found, tuple | list) else copies[0], shared=name)
    return local(found)


def _attribute(self: Stored, name: str) -> Any:
    """Other attributes and methods."""
    known = self.known()
    if known is None or name in VIEW_METHODS or name.startswith("__"):
        return Tracer.__getattr__(self, name)
    found = getattr(known, name)
    if not callable(found):
        return local(found)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            plain, options = known_values(args), known_values(kwargs)
        except Unknown:
            return Tracer.__getattr__(self, name)(*args, **kwargs)
        return _fresh(found(*plain, **options), (known,), name)

    return call


for _name, _behaviour in {
    "__array__": property(_array),
    "__copy__": _copied,
    "__deepcopy__": _copied,
    "__array_ufunc__": _array_ufunc,
    "__array_function__": _array_function,
    "__getattr__": _attribute,
}.items():
    setattr(Stored, _name, _behaviour)

# -------------------------------------------------------------------------------------------- in-place operators


def _in_place(name: str, ufunc: np.ufunc) -> Callable[[Tracer, Any], Any]:
    """``x += y`` and kin: the object stays, dtype and shape stay; NumPy scalars (0-d results) are rebound as in NumPy."""

    def method(self: Tracer, other: Any) -> Any:
        known = known_array(self)
        if known is not None:
            try:
                getattr(known, name)(known_values(other))
            except Unknown:
                pass
            else:
                return self
        if not self.shape and not isinstance(self, Stored):
            return NotImplemented
        if isinstance(other, list | tuple):
            other = wrap(tracing(), node_of(tracing(), other))
        if not isinstance(other, Tracer | int | float | np.ndarray | np.generic):
            return NotImplemented
        value = ufunc(self, other)
        if not np.can_cast(value.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"Cannot cast ufunc '{ufunc.__name__}' output from {value.dtype!r} to {self.dtype!r} with casting rule 'same_kind' "
                f"(at {user_location()})"
            )
        if value.shape != self.shape:
            raise ValueError(
                f"non-broadcastable output operand with shape {self.shape} doesn't match the broadcast shape {value.shape} (at {user_location()})"
            )
        assign(self, value)
        return self

    return method


for _name, _ufunc in {
    "__iadd__": np.add,
    "__isub__": np.subtract,
    "__imul__": np.multiply,
    "__itruediv__": np.true_divide,
    "__ifloordiv__": np.floor_divide,
    "__imod__": np.remainder,
    "__ipow__": np.power,
    "__iand__": np.bitwise_and,
    "__ior__": np.bitwise_or,
    "__ixor__": np.bitwise_xor,
    "__ilshift__": np.left_shift,
    "__irshift__": np.right_shift,
    "__imatmul__": np.matmul,
}.items():
    setattr(Tracer, _name, _in_place(_name, _ufunc))


def fill(x: Tracer, value: Any) -> None:
    """x.fill."""
    setitem(x, ..., value)


METHODS["fill"] = fill


@implements(np.copyto)
def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    """np.copyto."""
    value = src if isinstance(src, Tracer) else np.asarray(src)
    if not np.can_cast(value.dtype, dst.dtype, casting):
        raise TypeError(f"Cannot cast array data from {value.dtype!r} to {dst.dtype!r} according to the rule '{casting}'")
    setitem(dst, ..., src if where is True else np.where(where, src, dst))


@implements(np.putmask)
def putmask(a: Any, mask: Any, values: Any) -> None:
    """np.putmask with values of one element or of a's shape."""
    if np.ndim(values) and np.size(values) > 1:
        setitem(a, ..., np.where(mask, values, a))
    else:
        trace = tracing()
        held = stored(a)
        held.replace(write_mask(trace, held.node(), as_bool(trace, node_of(trace, mask)), np.reshape(values, ())))


@implements(np.fill_diagonal)
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """np.fill_diagonal."""
    if a.ndim < 2:
        raise ValueError("array must be at least 2-d")
    if a.ndim > 2 and len(set(a.shape)) != 1:
        raise ValueError("All dimensions of input must be of equal length")
    columns = a.shape[1]
    step = columns + 1 if a.ndim == 2 else 1 + sum(columns**power for power in range(1, a.ndim))
    end = columns * columns if a.ndim == 2 and not wrap else None
    setitem(a.flat, slice(None, end, step), val)


# ------------------------------------------------------------------------------------------------------- views


def _reshaped(trace: Trace, base: tuple[int, ...], numpy: Callable[[Any], Any], order: str) -> Callable[[Any], Any]:
    return lambda node: shapes.reshape_node(trace, node, base, order)


def _transposed(trace: Trace, base: tuple[int, ...], numpy: Callable[[Any], Any], order: str) -> Callable[[Any], Any]:
    """The inverse permutation, found by sending distinct sizes through the function."""
    moved = numpy(np.broadcast_to(False, tuple(range(2, len(base) + 2)))).shape
    return lambda node: trace.emit("transpose", node, perm=tuple(moved.index(axis + 2) for axis in range(len(base))))


def _model(value: Tracer) -> np.ndarray:
    """An array with the memory layout that NumPy would have."""
    if isinstance(value, Stored) and isinstance(held := storage(value), Lens):
        return held.of_array(_model(held.base))
    return np.empty(value.shape, bool)


def view(
    implementation: Callable[..., Tracer], numpy: Callable[..., Any], inverse: Callable[..., Any], always: bool = False
) -> Callable[..., Any]:
    """A function whose result is a view of its first argument wherever NumPy's is."""

    def function(a: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(a, Tracer) or active_trace() is None:
            known = known_array(a)
            return implementation(a, *args, **kwargs) if known is None else numpy(known, *args, **kwargs)

        def of_array(array: np.ndarray) -> Any:
            return numpy(array, *known_values(args), **known_values(kwargs))

        known = known_array(a)
        result: Any = None
        if known is not None:
            try:
                result = of_array(known)
            except Unknown:
                result = None
        if result is None:
            result = implementation(a, *args, **kwargs)
        lens_base = isinstance(a, Stored) and isinstance(storage(a), Lens)
        order = "F" if kwargs.get("order") == "F" or "F" in args else "C"
        if not always and (lens_base or order == "F"):
            model = _model(a)
            if not np.may_share_memory(of_array(model), model):
                return local(result) if isinstance(result, np.ndarray) else result
        base = a.shape
        held = Lens(
            a,
            Type(a.dtype, result.shape),
            of_array,
            lambda trace, node: implementation(wrap(trace, node), *args, **kwargs)._node,
            lambda trace, node: inverse(trace, base, of_array, order)(node),
        )
        if isinstance(result, Tracer):
            held.value, held.seen = result._node, held.token
        return make(held)

    return function


def shared(implementation: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function whose results are views in NumPy but copies here; they refuse to be written."""

    def mark(value: Any) -> Any:
        if type(value) in (list, tuple):
            return type(value)(mark(item) for item in value)
        if type(value) is Tracer and value.shape:
            stored(value)
            storage(value).shared = name  # type: ignore[arg-type, misc]
        return value

    def function(*args: Any, **kwargs: Any) -> Any:
        return mark(implementation(*args, **kwargs))

    return function


def _method(name: str) -> Callable[..., Any]:
    """ndarray's own method, as a function."""
    return lambda array, *args, **kwargs: getattr(array, name)(*args, **kwargs)


VIEWS: dict[Callable[..., Any], Callable[..., Any]] = {
    function: view(FUNCTIONS[function], function, inverse)
    for functions, inverse in (
        ((np.reshape, np.ravel, np.squeeze, np.expand_dims), _reshaped),
        ((np.transpose, np.permute_dims, np.matrix_transpose, np.swapaxes, np.moveaxis, np.rollaxis), _transposed),
    )
    for function in functions
}
VIEW_METHODS: dict[str, Callable[..., Any]] = {
    "reshape": view(methods.reshape, _method("reshape"), _reshaped),
    "ravel": view(shapes.ravel, _method("ravel"), _reshaped),
    "squeeze": view(shapes.squeeze, _method("squeeze"), _reshaped),
    "transpose": view(methods.transpose, _method("transpose"), _transposed),
    "swapaxes": view(shapes.swapaxes, _method("swapaxes"), _transposed),
    "T": view(methods.transposed, lambda array: array.T, _transposed),
    "mT": view(methods.matrix_transposed, lambda array: array.mT, _transposed),
    "flat": view(methods.flat, lambda array: array.reshape(-1), _reshaped, always=True),
    "real": methods.real,
}
for _name in ("T", "mT", "flat"):
    VIEW_METHODS[_name].is_property = True  # type: ignore[attr-defined]
METHODS.update(VIEW_METHODS)


def _at_least(name: str) -> Callable[..., Any]:
    """np.atleast_1d and kin: reshapes."""
    implementation, numpy = FUNCTIONS[getattr(np, name)], getattr(np, name)
    one = view(implementation, numpy, _reshaped)

    def function(*arys: Any) -> Any:
        found = [one(a) if isinstance(a, Tracer) else implementation(a) for a in arys]
        return found[0] if len(found) == 1 else tuple(found)

    return function


def _flipped(implementation: Callable[..., Tracer], axis: Any) -> Callable[..., Any]:
    """np.flip and kin: an index with negative steps."""

    def function(m: Any, axis: Any = axis) -> Any:
        if not isinstance(m, Tracer) or not m.ndim:
            return implementation(m, axis) if axis is None else implementation(m)
        axes = axes_tuple(axis, m.ndim)
        if implementation is not shapes.flip:
            implementation(m)  # its errors
        return getitem(m, tuple(slice(None, None, -1 if i in axes else None) for i in range(m.ndim)))

    return function


_SHARED: dict[Any, Callable[..., Any]] = {
    np.rot90: shapes.rot90,
    np.broadcast_to: shapes.broadcast_to,
    np.broadcast_arrays: shapes.broadcast_arrays,
    np.split: joining.split,
    np.array_split: joining.array_split,
    np.hsplit: joining.hsplit,
    np.vsplit: joining.vsplit,
    np.dsplit: joining.dsplit,
    np.unstack: joining.unstack,
    np.diagonal: diagonals.diagonal,
}
VIEWS.update({getattr(np, name): _at_least(name) for name in ("atleast_1d", "atleast_2d", "atleast_3d")})
VIEWS.update({np.flip: _flipped(shapes.flip, None), np.fliplr: _flipped(shapes.fliplr, 1), np.flipud: _flipped(shapes.flipud, 0)})
FUNCTIONS.update(VIEWS)
for _function, _implementation in _SHARED.items():
    FUNCTIONS[_function] = shared(_implementation, _function.__name__)
METHODS["diagonal"] = shared(diagonals.diagonal, "diagonal")
