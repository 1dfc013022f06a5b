"""The methods of ufuncs on traced arrays: reduce, accumulate, reduceat, outer and at, with all their options.

Three things are decided here.

Which dtype the result has, and what is refused: NumPy says it. The method is run on a stand-in, a few ones of
the same dtype.

In which order the operations run: `REDUCTIONS` names the ufuncs with a reduction of their own (``np.add`` is
``sum``). Other ufuncs that may be grouped in any way (`ASSOCIATIVE`) combine one half of the array with the
other half again and again. All others go one element after the other, as in NumPy, up to `LONGEST` elements.

Where the result goes: ``out`` and the target of ``at`` are written. ``np.add.at`` and ``np.subtract.at`` take
any positions; other ufuncs need to know them, because several uses of one position have to follow each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.errors import TraceError, UnsupportedError
from graphjit.ir.node import Node
from graphjit.trace.arrays.assignment import add_at
from graphjit.trace.arrays.buffers import writable_storage
from graphjit.trace.arrays.indexing import plan
from graphjit.trace.arrays.items import setitem
from graphjit.trace.numpy import reductions
from graphjit.trace.numpy.arguments import (
    ABSENT,
    as_bool,
    axes_tuple,
    axis_number,
    frozen,
    full,
    given,
    integers,
    node_of,
    static_array,
    wrap,
)
from graphjit.trace.numpy.joining import concatenate
from graphjit.trace.numpy.shapes import sliced, with_size
from graphjit.trace.numpy.ufuncs import UFUNC_METHODS, call, call_with_options, write_out
from graphjit.trace.recording.calls import public_name
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, any_tracer, check_dtype

REDUCTIONS: dict[np.ufunc, Callable[..., Tracer]] = {
    np.add: reductions.sum_,
    np.multiply: reductions.prod,
    np.maximum: reductions.max_,
    np.minimum: reductions.min_,
    np.logical_and: reductions.all_,
    np.logical_or: reductions.any_,
}
"""ufuncs that have a reduction of their own."""

ASSOCIATIVE = {
    *REDUCTIONS,
    np.fmax,
    np.fmin,
    np.logical_xor,
    np.logaddexp,
    np.logaddexp2,
    np.bitwise_and,
    np.bitwise_or,
    np.bitwise_xor,
    np.hypot,
    np.gcd,
    np.lcm,
}
"""ufuncs whose operations may be grouped in any way."""

LONGEST = 4096
"""Elements up to which other ufuncs are applied one after the other: each of them is an operation of the
compiled program.
"""


def stand_in(node: Node) -> np.ndarray:
    """A few ones with the dtype of ``node`` and its shape cut to at most two along each axis."""
    return np.ones(tuple(min(n, 2) for n in node.shape), node.dtype)


def ask_numpy(ufunc: np.ufunc, method: str, *args: Any, **options: Any) -> Any:
    """What a method of a ufunc gives for stand-ins: NumPy itself decides about dtypes and refusals.

    Raises:
        the exception that NumPy raises, with the user's line.
    """
    try:
        with np.errstate(all="ignore"):
            return getattr(ufunc, method)(*args, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        if type(error) in (TypeError, ValueError, RuntimeError):
            raise type(error)(f"{error} (at {user_location()})") from None
        raise


def _dtype_of(ufunc: np.ufunc, method: str, *args: Any, **options: Any) -> np.dtype:
    """The dtype of the result of a method; refused where the ufunc has no loop that stays in it."""
    dtype: np.dtype = np.asarray(ask_numpy(ufunc, method, *args, **options)).dtype
    check_dtype(dtype)
    if not {"?" * 3, dtype.char * 3} & {kinds.replace("->", "") for kinds in ufunc.types}:
        raise UnsupportedError(
            f"{public_name(ufunc)}.{method} in {dtype} is not compiled (at {user_location()}): write it as a loop"
        )
    return dtype


def _converted(trace: Trace, node: Node, dtype: np.dtype) -> Node:
    return as_bool(trace, node) if dtype.kind == "b" else trace.convert(node, dtype)


def _loop(ufunc: np.ufunc, dtype: np.dtype) -> np.ufunc:
    """Sums and products of bools are "or" and "and"."""
    if dtype.kind == "b" and ufunc in (np.add, np.multiply):
        return np.logical_or if ufunc == np.add else np.logical_and
    return ufunc


def _written(trace: Trace, ufunc: np.ufunc, out: Any, value: Tracer) -> Any:
    """The result, stored into ``out`` where there is one."""
    target = out[0] if isinstance(out, tuple) else out
    if target is None:
        return value
    if isinstance(target, Tracer) and target.shape != value.shape:
        raise ValueError(
            f"output parameter of {ufunc.__name__} has shape {target.shape}, the result {value.shape} (at {user_location()})"
        )
    return write_out(trace, ufunc, target, value, True, "unsafe")


def _out_dtype(ufunc: np.ufunc, x: Node, out: Any, dtype: Any) -> Any:
    """The dtype of ``out`` takes part in the choice of a loop where no other was asked for."""
    target = out[0] if isinstance(out, tuple) else out
    if dtype is not None or not isinstance(target, Tracer):
        return dtype
    return ask_numpy(
        ufunc, "resolve_dtypes", (target.dtype, x.dtype, None), casting="unsafe", reduction=True
    )[0]


def reduce(
    trace: Trace,
    ufunc: np.ufunc,
    array: Any,
    axis: Any = 0,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = ABSENT,
    where: Any = True,
) -> Any:
    """ufunc.reduce."""
    x = node_of(trace, array)
    options = _stand_in_options(trace, axis, keepdims, initial, where)
    dtype = _dtype_of(ufunc, "reduce", stand_in(x), dtype=_out_dtype(ufunc, x, out, dtype), **options)
    axes = axes_tuple(axis, len(x.shape)) if x.shape else ()
    reduced_shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    count = int(np.prod([x.shape[i] for i in axes]))
    identity = _identity(trace, ufunc, dtype)
    start = _start(trace, initial, identity, dtype)
    if start is not None and count == 0:
        value = wrap(trace, trace.broadcast(start._node, reduced_shape))
    else:
        loop = _loop(ufunc, dtype)
        mask = None if where is True else trace.broadcast(as_bool(trace, node_of(trace, where)), x.shape)
        fill = start if identity is None else identity
        value = _folded(trace, loop, _converted(trace, x, dtype), axes, start, mask, fill)
        if start is not None and (given(initial) or count == 1) and ufunc in ASSOCIATIVE:
            value = call(trace, loop, (start, value))
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape)) if keepdims else reduced_shape
    return _written(trace, ufunc, out, wrap(trace, trace.emit("reshape", value._node, shape=shape)))


def _stand_in_options(trace: Trace, axis: Any, keepdims: bool, initial: Any, where: Any) -> dict[str, Any]:
    """The options of a reduction with ones in place of traced values, to ask NumPy with."""
    options: dict[str, Any] = {"axis": axis, "keepdims": keepdims}
    if isinstance(initial, Tracer):
        options["initial"] = np.ones((), node_of(trace, initial).dtype)[()]
    elif initial is not ABSENT:
        options["initial"] = initial
    if where is not True:
        options["where"] = stand_in(node_of(trace, where)).astype(bool)
    return options


def _start(trace: Trace, initial: Any, identity: Tracer | None, dtype: np.dtype) -> Tracer | None:
    """The value before the first element: ``initial`` or, where it is not given, the identity. None: the
    first element is the start.
    """
    if given(initial):
        return wrap(trace, _converted(trace, node_of(trace, initial), dtype))
    return identity if initial is ABSENT else None


def _identity(trace: Trace, ufunc: np.ufunc, dtype: np.dtype) -> Tracer | None:
    """What NumPy begins a reduction with, which is the result of reducing nothing; None where it has none."""
    if ufunc.identity is None:
        return None
    return wrap(
        trace, trace.builder.const(ask_numpy(ufunc, "reduce", np.empty(0, dtype), dtype=dtype), dtype)
    )


def _folded(
    trace: Trace,
    ufunc: np.ufunc,
    x: Node,
    axes: tuple[int, ...],
    start: Tracer | None = None,
    mask: Node | None = None,
    fill: Tracer | None = None,
) -> Tracer:
    """``x`` reduced over ``axes``; ``fill`` stands where the mask is False, ``start`` begins what is done one
    after the other.
    """
    if ufunc not in ASSOCIATIVE:
        return _in_order(trace, ufunc, x, axes, start, mask)
    if mask is not None and fill is not None:
        x = trace.emit("select", mask, x, trace.broadcast(fill._node, x.shape))
    value = wrap(trace, x)
    reduction = REDUCTIONS.get(ufunc)
    if reduction is not None and axes:
        options = {"dtype": x.dtype} if ufunc in (np.add, np.multiply) else {}
        return reduction(value, axes, **options)
    for number in axes:
        while value.shape[number] > 1:
            half = value.shape[number] // 2
            low = wrap(trace, sliced(trace, value._node, number, 0, half))
            high = wrap(trace, sliced(trace, value._node, number, half, 2 * half))
            joined = call(trace, ufunc, (low, high))
            if value.shape[number] % 2:
                rest = wrap(trace, sliced(trace, value._node, number, 2 * half, 2 * half + 1))
                joined = concatenate([joined, rest], number)
            value = joined
    return value


def _in_order(
    trace: Trace, ufunc: np.ufunc, x: Node, axes: tuple[int, ...], start: Tracer | None, mask: Node | None
) -> Tracer:
    """One element after the other (NumPy allows one axis for these)."""
    if not axes:
        return wrap(trace, x) if start is None else call(trace, ufunc, (start, wrap(trace, x)))
    (number,) = axes
    size = x.shape[number]
    _short_enough(ufunc, "reduce", size)
    first = 0 if start is not None else 1
    if start is None:
        value = wrap(trace, sliced(trace, x, number, 0, 1))
    else:
        value = wrap(trace, trace.broadcast(start._node, with_size(x.shape, number, 1)))
    for i in range(first, size):
        later = call(trace, ufunc, (value, wrap(trace, sliced(trace, x, number, i, i + 1))))
        if mask is not None:
            element = sliced(trace, mask, number, i, i + 1)
            later = wrap(trace, trace.emit("select", element, later._node, value._node))
        value = later
    return value


def _short_enough(ufunc: np.ufunc, method: str, size: int) -> None:
    """Refuse more than `LONGEST` elements one after the other."""
    if size > LONGEST:
        raise UnsupportedError(
            f"{public_name(ufunc)}.{method} of {size} elements is not compiled (at {user_location()}): each of them would be an operation of its "
            f"own, and more than {LONGEST} take too long to compile. Write it with sums, products or whole-array functions."
        )


def accumulate(
    trace: Trace, ufunc: np.ufunc, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None
) -> Any:
    """ufunc.accumulate. Running sums and products have an op. Other ufuncs of `ASSOCIATIVE` combine the array
    with itself shifted by 1, 2, 4 ... elements (Hillis and Steele 1986); the rest go in order.
    """
    x = node_of(trace, array)
    dtype = _dtype_of(ufunc, "accumulate", stand_in(x), axis=axis, dtype=_out_dtype(ufunc, x, out, dtype))
    number = axis_number(axis, len(x.shape))
    x, ufunc = _converted(trace, x, dtype), _loop(ufunc, dtype)
    if ufunc in (np.add, np.multiply):
        running = reductions.cumsum if ufunc == np.add else reductions.cumprod
        return _written(trace, ufunc, out, running(wrap(trace, x), number, dtype))
    value, size = wrap(trace, x), x.shape[number]
    if ufunc in ASSOCIATIVE:
        shift = 1
        while shift < size:
            start = wrap(trace, sliced(trace, value._node, number, 0, shift))
            later = wrap(trace, sliced(trace, value._node, number, shift, size))
            earlier = wrap(trace, sliced(trace, value._node, number, 0, size - shift))
            value = concatenate([start, call(trace, ufunc, (earlier, later))], number)
            shift *= 2
    elif size > 1:
        _short_enough(ufunc, "accumulate", size)
        pieces = [wrap(trace, sliced(trace, x, number, 0, 1))]
        for i in range(1, size):
            pieces.append(call(trace, ufunc, (pieces[-1], wrap(trace, sliced(trace, x, number, i, i + 1)))))
        value = concatenate(pieces, number)
    return _written(trace, ufunc, out, value)


def reduceat(
    trace: Trace, ufunc: np.ufunc, array: Any, indices: Any, axis: Any = 0, dtype: Any = None, out: Any = None
) -> Any:
    """ufunc.reduceat of known positions: one reduction for each."""
    x = node_of(trace, array)
    number = axis_number(axis, len(x.shape))
    size = x.shape[number]
    starts = integers(indices, "the positions of reduceat")
    row = np.ones(size, x.dtype)
    asked = _out_dtype(ufunc, x, out, dtype)
    dtype = _dtype_of(ufunc, "reduceat", row, np.array(starts, dtype=np.intp), dtype=asked)
    loop, x = _loop(ufunc, dtype), _converted(trace, x, dtype)
    thin = with_size(x.shape, number, 1)
    pieces = []
    for begin, end in zip(starts, (*starts[1:], size), strict=True):
        part = sliced(trace, x, number, begin, max(end, begin + 1))
        # A piece begins with its first element, where a reduction begins with the identity.
        piece = _folded(trace, loop, part, (number,)) if end > begin + 1 else wrap(trace, part)
        pieces.append(wrap(trace, trace.emit("reshape", piece._node, shape=thin)))
    empty = with_size(x.shape, number, 0)
    value = concatenate(pieces, number) if pieces else wrap(trace, full(trace, 0, dtype, empty))
    return _written(trace, ufunc, out, value)


def outer(trace: Trace, ufunc: np.ufunc, a: Any, b: Any, **kwargs: Any) -> Any:
    """ufunc.outer."""
    x, y = node_of(trace, a), node_of(trace, b)
    ask_numpy(ufunc, "outer", np.ones(0, x.dtype), np.ones(0, y.dtype))
    tall = wrap(trace, trace.emit("reshape", x, shape=x.shape + (1,) * len(y.shape)))
    return call_with_options(trace, ufunc, (tall, wrap(trace, y)), **kwargs)


def at(trace: Trace, ufunc: np.ufunc, target: Any, key: Any, value: Any = ABSENT) -> None:
    """ufunc.at: sums and differences at any positions, others where the positions are known."""
    array = writable_storage(target)
    if isinstance(value, list | tuple):
        value = wrap(trace, node_of(trace, value))
    operands: list[Any] = [np.ones(1, target.dtype)]
    if value is not ABSENT:
        plain = isinstance(value, int | float) and not isinstance(value, np.generic | bool)
        operands.append(type(value)(1) if plain else np.ones((), node_of(trace, value).dtype)[()])
    ask_numpy(ufunc, "at", operands[0], [0], *operands[1:])
    if ufunc in (np.add, np.subtract) and ufunc(*operands).dtype == target.dtype:
        signed = value if ufunc == np.add else np.negative(value)
        array.replace(add_at(trace, array.node(), plan(trace, target.shape, key), signed))
        return
    positions = np.arange(target.size).reshape(target.shape)[_known_key(ufunc, key)]
    order = np.argsort(positions, axis=None, kind="stable")
    flat = positions.reshape(-1)[order]
    spread = None if value is ABSENT else np.broadcast_to(value, positions.shape).reshape(-1)
    while len(order):
        # The first use of each position; those that meet a position again come in the next round.
        first = np.concatenate([[True], flat[1:] != flat[:-1]])
        where = (
            tuple(frozen(index) for index in np.unravel_index(flat[first], target.shape))
            if target.shape
            else ()
        )
        others = () if spread is None else (spread[frozen(order[first])] if target.shape else spread[0],)
        setitem(target, where, call(trace, ufunc, (target[where], *others)).astype(target.dtype))
        order, flat = order[~first], flat[~first]


def _known_key(ufunc: np.ufunc, key: Any) -> Any:
    """An index with plain arrays in it."""
    if isinstance(key, tuple):
        return tuple(_known_key(ufunc, part) for part in key)
    if key is None or key is Ellipsis or isinstance(key, slice | int | np.integer):
        return key
    index = static_array(key) if not isinstance(key, list) or not any_tracer(key) else None
    if index is None:
        raise TraceError(
            f"{public_name(ufunc)}.at needs the values of its positions at {user_location()}, which are only known when the compiled code runs: "
            "one position may occur several times. np.add.at and np.subtract.at take any positions; for others make the positions in the function, "
            "or mark them read-only (index.flags.writeable = False)."
        )
    return index


UFUNC_METHODS.update(
    {"reduce": reduce, "accumulate": accumulate, "reduceat": reduceat, "outer": outer, "at": at}
)
