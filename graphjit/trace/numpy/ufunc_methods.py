"""reduce, accumulate, reduceat, outer and at of every ufunc.

Job: the methods of binary ufuncs on traced arrays, with all of their options.
Input: a ufunc, the arguments of its method.  Output: a tracer; ``out`` and the target of ``at`` are written.
Invariants: dtype of the result, and every refusal, come from NumPy itself, which is asked with a few ones of
the same dtype; the order of operations is NumPy's wherever it can show (exactly associative ufuncs, and those
that nearly are, go by halves).
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
from graphjit.trace.numpy.shapes import sliced
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


def small(node: Node) -> np.ndarray:
    """A few ones with the dtype and the kind of shape of ``node``, to ask NumPy with."""
    return np.ones(tuple(min(n, 2) for n in node.shape), node.dtype)


def asked(ufunc: np.ufunc, method: str, *args: Any, **options: Any) -> Any:
    """What NumPy answers.

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
    found: np.dtype = np.asarray(asked(ufunc, method, *args, **options)).dtype
    check_dtype(found)
    if not {"?" * 3, found.char * 3} & {kinds.replace("->", "") for kinds in ufunc.types}:
        raise UnsupportedError(
            f"{public_name(ufunc)}.{method} in {found} is not compiled (at {user_location()}): write it as a loop"
        )
    return found


def _converted(trace: Trace, node: Node, dtype: np.dtype) -> Node:
    return as_bool(trace, node) if dtype.kind == "b" else trace.convert(node, dtype)


def _loop(ufunc: np.ufunc, dtype: np.dtype) -> np.ufunc:
    """Sums and products of bools are "or" and "and"."""
    if dtype.kind == "b" and ufunc in (np.add, np.multiply):
        return np.logical_or if ufunc == np.add else np.logical_and
    return ufunc


def _written(trace: Trace, ufunc: np.ufunc, out: Any, value: Tracer) -> Any:
    """The result in ``out``, where one was given."""
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
    return asked(ufunc, "resolve_dtypes", (target.dtype, x.dtype, None), casting="unsafe", reduction=True)[0]


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
    masking = where is not True
    options: dict[str, Any] = {"axis": axis, "keepdims": keepdims}
    if initial is not ABSENT:
        options["initial"] = (
            None
            if initial is None
            else np.ones((), node_of(trace, initial).dtype)[()]
            if isinstance(initial, Tracer)
            else initial
        )
    if masking:
        options["where"] = small(node_of(trace, where)).astype(bool)
    found = _dtype_of(ufunc, "reduce", small(x), dtype=_out_dtype(ufunc, x, out, dtype), **options)
    axes = axes_tuple(axis, len(x.shape)) if x.shape else ()
    kept = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    full_shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    count = int(np.prod([x.shape[i] for i in axes]))
    identity: Tracer | None = None
    if ufunc.identity is not None:
        identity = wrap(
            trace, trace.builder.const(asked(ufunc, "reduce", np.empty(0, found), dtype=found), found)
        )
    start = (
        wrap(trace, _converted(trace, node_of(trace, initial), found))
        if given(initial)
        else identity
        if initial is ABSENT
        else None
    )
    if count == 0 and start is not None:
        value = wrap(trace, trace.broadcast(start._node, kept))
    else:
        mask = trace.broadcast(as_bool(trace, node_of(trace, where)), x.shape) if masking else None
        value = _folded(
            trace,
            _loop(ufunc, found),
            _converted(trace, x, found),
            axes,
            start,
            mask,
            start if identity is None else identity,
        )
        if start is not None and (given(initial) or count == 1) and ufunc in ASSOCIATIVE:
            value = call(trace, _loop(ufunc, found), (start, value))
    return _written(
        trace,
        ufunc,
        out,
        wrap(trace, trace.emit("reshape", value._node, shape=full_shape if keepdims else kept)),
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
    known = REDUCTIONS.get(ufunc)
    if known is not None and axes:
        return known(value, axes, dtype=x.dtype) if ufunc in (np.add, np.multiply) else known(value, axes)
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
    shape = tuple(1 if i == number else n for i, n in enumerate(x.shape))
    value = (
        wrap(trace, trace.broadcast(start._node, shape))
        if start is not None
        else wrap(trace, sliced(trace, x, number, 0, 1))
    )
    for i in range(first, size):
        later = call(trace, ufunc, (value, wrap(trace, sliced(trace, x, number, i, i + 1))))
        value = (
            later
            if mask is None
            else wrap(
                trace, trace.emit("select", sliced(trace, mask, number, i, i + 1), later._node, value._node)
            )
        )
    return value


def _short_enough(ufunc: np.ufunc, method: str, size: int) -> None:
    if size > LONGEST:
        raise UnsupportedError(
            f"{public_name(ufunc)}.{method} of {size} elements is not compiled (at {user_location()}): each of them would be an operation of its "
            f"own, and more than {LONGEST} take too long to compile. Write it with sums, products or whole-array functions."
        )


def accumulate(
    trace: Trace, ufunc: np.ufunc, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None
) -> Any:
    """ufunc.accumulate: running sums and products have an op, others go by doubling shifts (Hillis and Steele
    1986) or in order.
    """
    x = node_of(trace, array)
    found = _dtype_of(ufunc, "accumulate", small(x), axis=axis, dtype=_out_dtype(ufunc, x, out, dtype))
    number = axis_number(axis, len(x.shape))
    x, ufunc = _converted(trace, x, found), _loop(ufunc, found)
    if ufunc in (np.add, np.multiply):
        running = reductions.cumsum if ufunc == np.add else reductions.cumprod
        return _written(trace, ufunc, out, running(wrap(trace, x), number, found))
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
    dtype = _out_dtype(ufunc, x, out, dtype)
    found = _dtype_of(ufunc, "reduceat", row, np.array(starts, dtype=np.intp), dtype=dtype)
    loop, x = _loop(ufunc, found), _converted(trace, x, found)
    pieces = []
    for begin, end in zip(starts, (*starts[1:], size), strict=True):
        part = sliced(trace, x, number, begin, max(end, begin + 1))
        # A piece begins with its first element, where a reduction begins with the identity.
        piece = _folded(trace, loop, part, (number,)) if end > begin + 1 else wrap(trace, part)
        shape = tuple(1 if i == number else n for i, n in enumerate(x.shape))
        pieces.append(wrap(trace, trace.emit("reshape", piece._node, shape=shape)))
    empty = tuple(0 if i == number else n for i, n in enumerate(x.shape))
    value = concatenate(pieces, number) if pieces else wrap(trace, full(trace, 0, found, empty))
    return _written(trace, ufunc, out, value)


def outer(trace: Trace, ufunc: np.ufunc, a: Any, b: Any, **kwargs: Any) -> Any:
    """ufunc.outer."""
    x, y = node_of(trace, a), node_of(trace, b)
    asked(ufunc, "outer", np.ones(0, x.dtype), np.ones(0, y.dtype))
    tall = wrap(trace, trace.emit("reshape", x, shape=x.shape + (1,) * len(y.shape)))
    return call_with_options(trace, ufunc, (tall, wrap(trace, y)), **kwargs)


def at(trace: Trace, ufunc: np.ufunc, target: Any, key: Any, value: Any = ABSENT) -> None:
    """ufunc.at: sums and differences at any positions, others where the positions are known."""
    held = writable_storage(target)
    if isinstance(value, list | tuple):
        value = wrap(trace, node_of(trace, value))
    operands: list[Any] = [np.ones(1, target.dtype)]
    if value is not ABSENT:
        plain = isinstance(value, int | float) and not isinstance(value, np.generic | bool)
        operands.append(type(value)(1) if plain else np.ones((), node_of(trace, value).dtype)[()])
    asked(ufunc, "at", operands[0], [0], *operands[1:])
    if ufunc in (np.add, np.subtract) and ufunc(*operands).dtype == target.dtype:
        signed = value if ufunc == np.add else np.negative(value)
        held.replace(add_at(trace, held.node(), plan(trace, target.shape, key), signed))
        return
    places = np.arange(target.size).reshape(target.shape)[_known_key(ufunc, key)]
    order = np.argsort(places, axis=None, kind="stable")
    flat = places.reshape(-1)[order]
    spread = None if value is ABSENT else np.broadcast_to(value, places.shape).reshape(-1)
    while len(order):
        # The first of each place; those that meet a place again come in the next round.
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
    known = static_array(key) if not isinstance(key, list) or not any_tracer(key) else None
    if known is None:
        raise TraceError(
            f"{public_name(ufunc)}.at needs the values of its positions at {user_location()}, which are only known when the compiled code runs: "
            "one position may occur several times. np.add.at and np.subtract.at take any positions; for others make the positions in the function, "
            "or mark them read-only (index.flags.writeable = False)."
        )
    return known


UFUNC_METHODS.update(
    {"reduce": reduce, "accumulate": accumulate, "reduceat": reduceat, "outer": outer, "at": at}
)
