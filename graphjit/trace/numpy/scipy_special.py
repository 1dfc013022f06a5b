"""scipy.special on tracers, without importing SciPy.

Two things are bound. SciPy's ufuncs (``scipy.special.erf``) are looked up by name when one meets a tracer and
entered into the table ``UFUNCS`` (`bind`). The functions logsumexp, softmax and log_softmax are plain Python
functions, which user code often imported by name, so that replacing an attribute of the module would miss
them.

`install` therefore swaps the ``__code__`` of these three function objects, once per process and at the first
trace (or when SciPy is imported later), for a trampoline of the same signature. Outside of a trace it calls a
copy of the original (about 0.05 us); in a thread that traces it hands calls with tracers to us. Name,
defaults, documentation, source lines and results for everybody else stay what they were.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

import graphjit.ops  # noqa: F401 (fills the registry)
from graphjit.errors import UnsupportedError
from graphjit.ir.opdef import REGISTRY
from graphjit.trace.arrays.layout import in_memory_of
from graphjit.trace.numpy.arguments import aligned, inexact, node_of, reduced_axes, tracing, wrap
from graphjit.trace.numpy.import_hooks import when_imported
from graphjit.trace.numpy.reductions import finish, max_, sum_
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.calls import public_name
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import UFUNCS, Trace, Tracer, any_tracer

# ----------------------------------------------------------------------------------------------------- ufuncs

_PREFIX = "scipy.special."
OPS: dict[str, str] = {
    function.removeprefix(_PREFIX): op.name
    for op in REGISTRY.values()
    for function in op.numpy
    if isinstance(function, str) and function.startswith(_PREFIX)
} | {name: name for name in ("cbrt", "exp2", "expm1", "log1p")}
"""SciPy ufunc -> op that computes it."""


def _direct(op: str) -> Callable[[np.ufunc], Callable[..., Tracer]]:
    """SciPy's dtypes, our op."""

    def make(ufunc: np.ufunc) -> Callable[..., Tracer]:
        def apply(trace: Trace, *args: Any) -> Tracer:
            nodes, _ = trace.promoted(ufunc, args)
            return wrap(trace, trace.emit(op, *nodes))

        return apply

    return make


def _composed(compose: Callable[..., Any]) -> Callable[[np.ufunc], Callable[..., Tracer]]:
    """SciPy's dtypes, then NumPy calls on tracers."""

    def make(ufunc: np.ufunc) -> Callable[..., Tracer]:
        def apply(trace: Trace, *args: Any) -> Tracer:
            nodes, _ = trace.promoted(ufunc, args)
            return compose(*[wrap(trace, node) for node in nodes])  # type: ignore[no-any-return]

        return apply

    return make


def _xlogy(x: Any, y: Any) -> Tracer:
    trace = tracing()
    return wrap(trace, trace.emit("xlogy", x._node, y._node))


def _entr(x: Any) -> Any:
    return np.where(x < 0, -np.inf, 0 - _xlogy(x, x))


def _rel_entr(x: Any, y: Any) -> Any:
    edge = np.where((x == 0) & (y >= 0), 0.0, np.inf)
    inside = (x > 0) & (y > 0)
    value = np.where(inside, _xlogy(x, x / np.where(inside, y, 1.0)), edge)
    return np.where(np.isnan(x) | np.isnan(y), np.nan, value)


def _kl_div(x: Any, y: Any) -> Any:
    edge = np.where((x == 0) & (y >= 0), y, np.inf)
    inside = (x > 0) & (y > 0)
    value = np.where(inside, _xlogy(x, x / np.where(inside, y, 1.0)) - x + y, edge)
    return np.where(np.isnan(x) | np.isnan(y), np.nan, value)


def _exprel(x: Any) -> Any:
    small = x == 0
    return np.where(small, 1.0, np.expm1(x) / np.where(small, 1.0, x))


def _exp10(x: Any) -> Any:
    return np.power(x.dtype.type(10), x)


def _huber(delta: Any, r: Any) -> Any:
    size = np.abs(r)
    value = np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta))
    return np.where(delta < 0, np.inf, value)


def _pseudo_huber(delta: Any, r: Any) -> Any:
    safe = np.where((delta == 0) | (r == 0), 1.0, delta)
    ratio = r / safe
    # delta^2 (sqrt(1 + u^2) - 1), written without the cancellation
    value = delta * delta * (ratio * ratio / (np.sqrt(1 + ratio * ratio) + 1))
    return np.where(delta < 0, np.inf, np.where((delta == 0) | (r == 0), 0.0, value))


def _boxcox(x: Any, power: Any) -> Any:
    logarithm = np.log(x)
    zero = np.abs(power) < 1e-19
    return np.where(zero, logarithm, np.expm1(power * logarithm) / np.where(zero, 1.0, power))


BINDINGS: dict[str, Callable[[np.ufunc], Callable[..., Tracer]]] = {
    **{name: _direct(op) for name, op in OPS.items()},
    "entr": _composed(_entr),
    "rel_entr": _composed(_rel_entr),
    "kl_div": _composed(_kl_div),
    "exprel": _composed(_exprel),
    "exp10": _composed(_exp10),
    "huber": _composed(_huber),
    "pseudo_huber": _composed(_pseudo_huber),
    "boxcox": _composed(_boxcox),
}


def bind(ufunc: np.ufunc) -> None:
    """Enter a ufunc of scipy.special into the table.

    Raises:
        UnsupportedError: a ufunc that is not compiled.
    """
    special = sys.modules.get("scipy.special")
    name = ufunc.__name__
    make = BINDINGS.get(name) if getattr(special, name, None) is ufunc else None
    if make is None:
        raise UnsupportedError(
            f"{public_name(ufunc)} is not compiled (at {user_location()}); `graphjit ops` lists what is"
        )
    UFUNCS[ufunc] = make(ufunc)


# --------------------------------------------------------------------------------------- log-sum-exp, softmax


def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: Any = False, return_sign: Any = False
) -> Any:
    """scipy.special.logsumexp."""
    trace = tracing()
    if b is None and not return_sign:
        x = inexact(trace, node_of(trace, a))
        axes = reduced_axes(axis, len(x.shape))
        return finish(trace, trace.emit("logsumexp", x, axes=axes), x.shape, axes, keepdims)
    value, weight = (wrap(trace, inexact(trace, node)) for node in aligned(trace, a, 1 if b is None else b))
    axes = reduced_axes(axis, value.ndim)
    seen = np.where(weight == 0, -np.inf, value)
    top = np.max(seen, axis=axes, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.sum(weight * np.exp(np.where(weight == 0, 0.0, value) - top), axis=axes, keepdims=True)
    size = np.abs(total) if return_sign else total
    result = np.log(size) + top
    shape = value.shape
    out, sign = (
        each
        if keepdims
        else wrap(
            trace,
            trace.emit("reshape", each._node, shape=tuple(n for i, n in enumerate(shape) if i not in axes)),
        )
        for each in (result, np.sign(total))
    )
    return (out, sign) if return_sign else out


def _rows(op: str, x: Any, axis: Any) -> Tracer:
    """softmax or log_softmax along ``axis``."""
    trace = tracing()
    node = node_of(trace, x)
    axes = reduced_axes(axis, len(node.shape))
    if (
        node.dtype.kind != "f"
    ):  # SciPy subtracts the greatest element in the dtype of the integers, and exp decides the dtype of the result
        off: Any = wrap(trace, node) - max_(x, axes, keepdims=True)
        powers: Any = np.exp(off)
        total = sum_(powers, axes, keepdims=True)
        result = powers / total if op == "softmax" else off - np.log(total)
        return in_memory_of(result, x, "K")  # type: ignore[no-any-return]
    return in_memory_of(wrap(trace, trace.emit(op, node, axes=axes)), x, "K")  # type: ignore[no-any-return]


def softmax(x: Any, axis: Any = None) -> Tracer:
    """scipy.special.softmax."""
    return _rows("softmax", x, axis)


def log_softmax(x: Any, axis: Any = None) -> Tracer:
    """scipy.special.log_softmax."""
    return _rows("log_softmax", x, axis)


# --------------------------------------------------------------------------------------------------- the hook

_MODULE = "scipy.special._logsumexp"
_IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "logsumexp": logsumexp,
    "softmax": softmax,
    "log_softmax": log_softmax,
}
_swapped: set[str] = set()
_installed = False


def _dispatch(ours: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """What the trampoline calls."""

    def choose(*args: Any) -> Any:
        if active_trace() is not None and any_tracer(args):
            return ours(*args)
        return original(*args)

    return choose


def _trampoline(code: CodeType, target: Callable[..., Any]) -> CodeType:
    """A code object with the signature of ``code`` that passes every argument to ``target`` (held as a
    constant: no global is touched).
    """
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional = ", ".join(names[: code.co_argcount])
    keywords = ", ".join(names[code.co_argcount :])
    signature = positional + (f", *, {keywords}" if keywords else "")
    space: dict[str, Any] = {}
    exec(f"def f({signature}): target = 0.5; return target({', '.join(names)})", space)
    made: CodeType = space["f"].__code__
    return made.replace(
        co_consts=tuple(target if const == 0.5 else const for const in made.co_consts),
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        co_filename=code.co_filename,
        co_firstlineno=code.co_firstlineno,
    )


def _swap(module: ModuleType) -> None:
    """Put the trampolines into SciPy's functions, once."""
    for name, ours in _IMPLEMENTATIONS.items():
        function = getattr(module, name, None)
        if name in _swapped or not isinstance(function, FunctionType) or function.__code__.co_freevars:
            continue
        original = FunctionType(function.__code__, function.__globals__, name, function.__defaults__)
        original.__kwdefaults__ = function.__kwdefaults__
        function.__code__ = _trampoline(function.__code__, _dispatch(ours, original))
        _swapped.add(name)


def install() -> None:
    """Make the three functions see tracers; called at the start of every trace, works once.

    SciPy is never imported here: when it is not loaded yet, the swap waits for its import.
    """
    global _installed
    if not _installed:
        _installed = True
        when_imported(_MODULE, _swap)
