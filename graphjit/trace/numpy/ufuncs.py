"""Calls of ufuncs on tracers: dtypes, the options ``out``, ``where``, ``dtype`` and ``casting``, and ufuncs
composed of several ops.

`array_ufunc` is the body of ``Tracer.__array_ufunc__``. Most ufuncs are one op (the table ``BOUND``, from the
declarations of ops); those that no single op computes, such as ``np.divmod`` or ``np.power`` with its special
exponents, are functions below, in the table ``UFUNCS``. Dtypes are those of the loop that NumPy would run,
and every composition gives NumPy's value, special values included. Methods of ufuncs (``np.add.reduce``) are
in `ufunc_methods`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import graphjit.ops  # noqa: F401 (fills the registry)
from graphjit.errors import UnsupportedError
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.types import BOOL
from graphjit.trace.arrays.layout import in_order
from graphjit.trace.numpy import linear, scipy_special
from graphjit.trace.numpy.arguments import (
    as_bool,
    full,
    given,
    node_of,
    tracing,
    wrap,
)
from graphjit.trace.recording.answers import from_outside
from graphjit.trace.recording.calls import called, public_name
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.promotion import common_shape
from graphjit.trace.recording.tracer import (
    BOUND,
    METHODS,
    UFUNCS,
    Array,
    Trace,
    Tracer,
    is_python_number,
    is_weak,
    python_kind,
)

BOUND.update(
    {function: op.name for op in REGISTRY.values() for function in op.numpy if isinstance(function, np.ufunc)}
)
UFUNC_METHODS: dict[str, Callable[..., Any]] = {}
"""reduce and kin; filled by ``ufunc_methods``."""


def array_ufunc(self: Tracer, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
    """The body of ``Tracer.__array_ufunc__``."""
    trace = tracing()
    if method == "__call__":
        if not kwargs:
            return call(trace, ufunc, args)
        return _laid_out(call_with_options(trace, ufunc, args, **kwargs), ufunc, args, kwargs)
    function = getattr(ufunc, method)
    result = called(
        partial(UFUNC_METHODS[method], trace, ufunc), function, f"{public_name(ufunc)}.{method}", args, kwargs
    )
    return result if kwargs.get("out") is not None else in_order(result, function, args, kwargs)


def _laid_out(result: Any, ufunc: np.ufunc, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a call with options, in the order in memory that ``order=`` asks for."""
    if kwargs.get("out") is not None:
        return result
    for item in result if isinstance(result, tuple) else (result,):
        if isinstance(item, Array):
            item._model = None  # type: ignore[assignment]
    return in_order(result, ufunc, args, kwargs, always="order" in kwargs)


def call(trace: Trace, ufunc: np.ufunc, args: tuple[Any, ...]) -> Any:
    """A plain call."""
    if ufunc not in BOUND and ufunc not in UFUNCS:
        scipy_special.bind(ufunc)
    return trace.ufunc(ufunc, *args)


def call_with_options(
    trace: Trace,
    ufunc: np.ufunc,
    args: tuple[Any, ...],
    *,
    out: Any = None,
    where: Any = True,
    dtype: Any = None,
    casting: Any = "same_kind",
    **options: Any,
) -> Any:
    """A call with ``out``, ``where``, ``dtype`` or ``casting``."""
    for name in ("order", "subok"):  # memory layout and subclasses: nothing to decide for traced arrays
        options.pop(name, None)
    for name, value in options.items():
        if given(value):
            raise UnsupportedError(
                f"{public_name(ufunc)}(..., {name}=...) is not compiled (at {user_location()}): leave the option out"
            )
    if given(dtype):
        args = _in_loop_dtype(trace, ufunc, args, np.dtype(dtype), casting)
    result = call(trace, ufunc, args)
    targets = out if isinstance(out, tuple) else (out,)
    if all(target is None for target in targets):
        if where is not True:
            raise UnsupportedError(
                f"{public_name(ufunc)}(where=...) without out= leaves elements undefined (at {user_location()}): use np.where"
            )
        return result
    results = result if isinstance(result, tuple) else (result,)
    written = tuple(
        value if target is None else write_out(trace, ufunc, target, value, where, casting)
        for target, value in zip(targets, results, strict=True)
    )
    return written if isinstance(result, tuple) else written[0]


def _in_loop_dtype(
    trace: Trace, ufunc: np.ufunc, args: tuple[Any, ...], dtype: np.dtype, casting: Any
) -> tuple[Any, ...]:
    """Arguments in the dtypes of the loop with outputs of ``dtype``."""
    kinds = tuple(
        python_kind(a)
        if is_python_number(a)
        else {"f": float, "i": int}.get(a.dtype.kind, BOOL)
        if is_weak(a)
        else node_of(trace, a).dtype
        for a in args
    )
    loop = ufunc.resolve_dtypes(
        (*kinds, *([None] * ufunc.nout)),
        signature=(None,) * ufunc.nin + (dtype,) * ufunc.nout,
        casting=casting,
    )
    return tuple(
        wrap(trace, trace.convert(node_of(trace, a), wanted)) for a, wanted in zip(args, loop, strict=False)
    )


def write_out(trace: Trace, ufunc: np.ufunc, target: Any, value: Any, where: Any, casting: Any) -> Any:
    """Store the result of a ufunc into ``out=``; returns the target.

    Raises:
        TraceError: the target is an array from outside, which compiled code never writes.
    """
    if (
        isinstance(target, Tracer)
        and value.shape != target.shape
        and np.broadcast_shapes(value.shape, target.shape) != target.shape
    ):
        raise ValueError(
            f"non-broadcastable output operand with shape {target.shape} doesn't match the broadcast shape {value.shape}"
        )
    return _stored(
        f"{public_name(ufunc)} (out=, or an in-place operator such as +=)",
        f"ufunc '{ufunc.__name__}'",
        target,
        value,
        where,
        casting,
    )


def store(name: str, target: Any, value: Any, casting: Any) -> Any:
    """Store the result of the function ``name`` into ``out=``; returns the target."""
    if isinstance(target, Tracer) and isinstance(value, Tracer) and target.shape != value.shape:
        raise ValueError(
            f"{name}: out has shape {target.shape}, the result {value.shape} (at {user_location()})"
        )
    return _stored(f"{name} (out=)", name, target, value, True, casting)


METHODS["__store__"] = store


def _stored(writer: str, name: str, target: Any, value: Any, where: Any, casting: Any) -> Any:
    """``target[...] = value`` where ``where`` is true, after NumPy's check of the cast."""
    if not isinstance(target, Tracer):
        raise from_outside(writer)
    if not np.can_cast(value.dtype, target.dtype, casting):
        raise TypeError(
            f"Cannot cast {name} output from {value.dtype!r} to {target.dtype!r} with casting rule '{casting}'"
        )
    target[...] = value if where is True else np.where(where, value, target)
    return target


# -------------------------------------------------------------------------------------------- composed ufuncs


def _bools(op: str) -> Callable[..., Any]:
    """A logical ufunc: the op, applied to truth values."""

    def logical(trace: Trace, *args: Any) -> Tracer:
        nodes = [as_bool(trace, node_of(trace, a)) for a in args]
        shape = common_shape(*nodes)
        return wrap(trace, trace.emit(op, *[trace.broadcast(node, shape) for node in nodes]))

    return logical


def _scaled(ufunc: np.ufunc, factor: Callable[[Any], Any]) -> Callable[..., Any]:
    """A ufunc that multiplies by a constant, such as np.deg2rad."""

    def scaled(trace: Trace, x: Any) -> Tracer:
        (node,), dtype = trace.promoted(ufunc, (x,))
        return wrap(trace, trace.emit("mul", node, full(trace, factor(dtype.type), dtype, node.shape)))

    return scaled


def _identity(ufunc: np.ufunc) -> Callable[..., Any]:
    """A ufunc that gives its argument, in NumPy's dtype."""

    def identity(trace: Trace, x: Any) -> Tracer:
        return wrap(trace, trace.promoted(ufunc, (x,))[0][0])

    return identity


def _power(trace: Trace, x: Any, y: Any) -> Tracer:
    """np.power with the scalar exponents that NumPy computes in another way (2, 1, 0.5, -1)."""
    exponent = y if is_python_number(y) or isinstance(y, np.generic) else None
    (base, raised), dtype = trace.promoted(np.power, (x, y))
    if exponent is not None and not isinstance(exponent, bool | np.bool_):
        if dtype.kind in "iu" and exponent < 0:
            raise ValueError(f"Integers to negative integer powers are not allowed. (at {user_location()})")
        if exponent == 2:
            return wrap(trace, trace.emit("mul", base, base))
        if exponent == 1:
            return wrap(trace, base)
        if exponent == 0.5 and dtype.kind == "f":
            return wrap(trace, trace.emit("sqrt", base))
        if exponent == -1 and dtype.kind == "f":
            return wrap(trace, trace.emit("div", full(trace, 1, dtype, base.shape), base))
    return wrap(trace, trace.emit("pow", base, raised))


def _float_power(trace: Trace, x: Any, y: Any) -> Tracer:
    nodes, _ = trace.promoted(np.float_power, (x, y))
    return wrap(trace, trace.emit("pow", *nodes))


def _reciprocal(trace: Trace, x: Any) -> Tracer:
    """1 / x; of integers truncated: only 1 and -1 have one."""
    (node,), dtype = trace.promoted(np.reciprocal, (x,))
    if dtype.kind == "f":
        return wrap(trace, trace.emit("div", full(trace, 1, dtype, node.shape), node))
    value: Any = wrap(trace, node)
    unit = value == 1 if dtype.kind == "u" else (value == 1) | (value == -1)
    return value * unit  # type: ignore[no-any-return]


def _divmod(trace: Trace, x: Any, y: Any) -> tuple[Tracer, Tracer]:
    return trace.ufunc(np.floor_divide, x, y), trace.ufunc(np.remainder, x, y)


def _modf(trace: Trace, x: Any) -> tuple[Tracer, Tracer]:
    """Fraction with the sign of x, and the integral part."""
    (node,), _ = trace.promoted(np.modf, (x,))
    whole = trace.emit("trunc", node)
    zero = full(trace, 0, node.dtype, node.shape)
    fraction = trace.emit("select", trace.emit("isinf", node), zero, trace.emit("sub", node, whole))
    return wrap(trace, trace.emit("copysign", fraction, node)), wrap(trace, whole)


def _clip(trace: Trace, x: Any, low: Any, high: Any) -> Any:
    return trace.ufunc(np.minimum, trace.ufunc(np.maximum, x, low), high)


def _ldexp(trace: Trace, x: Any, exponent: Any) -> Any:
    (node, power), dtype = trace.promoted(np.ldexp, (x, exponent))
    scale = trace.ufunc(np.exp2, wrap(trace, trace.convert(power, dtype)))
    return trace.ufunc(np.multiply, wrap(trace, node), scale)


def _compare(ufunc: np.ufunc, below: bool, above: bool) -> Callable[..., Any]:
    """A comparison; a Python int outside the integer dtype's range has a known answer (NEP 50).

    ``below`` / ``above``: the answer for x (ufunc) n where n lies below / above every value of x's dtype.
    """

    def compare(trace: Trace, x: Any, y: Any) -> Tracer:
        for value, other, swapped in ((y, x, False), (x, y, True)):
            if (
                isinstance(value, int)
                and not isinstance(value, bool | np.bool_)
                and isinstance(other, Tracer)
                and not is_weak(other)
            ):
                dtype = other.dtype
                if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
                    low = value < 0
                    answer = (
                        (above if low else below)
                        if swapped and ufunc not in (np.equal, np.not_equal)
                        else below
                        if low
                        else above
                    )
                    return wrap(trace, full(trace, answer, BOOL, other.shape))
        (first, second), _ = trace.promoted(ufunc, (x, y))
        if first.dtype == second.dtype:
            return wrap(trace, trace.emit(BOUND[ufunc], first, second))
        # int64 beside uint64, compared exactly as in NumPy: a negative number has a known answer, the others
        # fit into uint64
        signed = first if first.dtype.kind == "i" else second
        negative = trace.emit("lt", signed, full(trace, 0, signed.dtype, signed.shape))
        answer = ufunc in (
            {np.less, np.less_equal, np.not_equal}
            if signed is first
            else {np.greater, np.greater_equal, np.not_equal}
        )
        fitting = trace.emit(
            BOUND[ufunc], *(trace.convert(node, np.dtype(np.uint64)) for node in (first, second))
        )
        return wrap(trace, trace.emit("select", negative, full(trace, answer, BOOL, signed.shape), fitting))

    return compare


def _refused(advice: str) -> Callable[..., Any]:
    """A ufunc that raises with advice."""

    def refused(trace: Trace, *args: Any) -> Any:
        raise UnsupportedError(f"this function is not compiled (at {user_location()}): {advice}")

    return refused


UFUNCS.update(
    {
        np.logical_and: _bools("and"),
        np.logical_or: _bools("or"),
        np.logical_xor: _bools("xor"),
        np.logical_not: _bools("not"),
        np.positive: _identity(np.positive),
        np.conjugate: _identity(np.conjugate),
        np.deg2rad: _scaled(np.deg2rad, lambda number: number(np.pi) / number(180)),
        np.radians: _scaled(np.radians, lambda number: number(np.pi) / number(180)),
        np.rad2deg: _scaled(np.rad2deg, lambda number: number(180) / number(np.pi)),
        np.degrees: _scaled(np.degrees, lambda number: number(180) / number(np.pi)),
        np.power: _power,
        np.float_power: _float_power,
        np.reciprocal: _reciprocal,
        np.divmod: _divmod,
        np.modf: _modf,
        np.ldexp: _ldexp,
        np._core.umath.clip: _clip,  # type: ignore[attr-defined]
        np.matmul: linear.matmul,
        np.vecdot: linear.vecdot,
        np.matvec: linear.matvec,
        np.vecmat: linear.vecmat,
        np.less: _compare(np.less, False, True),
        np.less_equal: _compare(np.less_equal, False, True),
        np.greater: _compare(np.greater, True, False),
        np.greater_equal: _compare(np.greater_equal, True, False),
        np.equal: _compare(np.equal, False, False),
        np.not_equal: _compare(np.not_equal, True, True),
        np.isnat: _refused("dates are not compiled"),
    }
)
METHODS["__array_ufunc__"] = array_ufunc
