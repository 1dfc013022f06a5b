"""What tracing changes in the modules of NumPy and SciPy: calls that would never reach a tracer.

NumPy's protocols do not see a call without a traced argument. While a function is traced (`recording`),

- np.zeros, np.empty, np.array and kin, called by user code, return arrays that may be written with traced
  values (``x = np.zeros(3); x[0] = traced``),
- np.sum, np.mean, np.max and kin, called by user code, take lists of traced values, and so does everything
  else that is compiled (`list_arguments`),
- np.asarray and kin keep traced values, whoever calls them (`conversion_hooks`),
- functions of np.random raise: one draw would be baked into the compiled code (a Generator made inside the
  function with a seed is fine),
- scipy.special's log-sum-exp family sees tracers (`scipy_special`).

Attributes of modules are replaced while at least one thread traces and are put back afterwards. Every other
thread, and library code called by the traced function, gets the results of the original functions through the
replacements. Code that imported a function by name keeps the original.
"""

from __future__ import annotations

import dis
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from graphjit.errors import TraceError
from graphjit.ir.types import SHORT
from graphjit.trace.arrays.buffers import Unknown, known_array, known_values, local
from graphjit.trace.arrays.copies import CONVERSIONS, converted, copied
from graphjit.trace.numpy import conversion_hooks, scipy_special
from graphjit.trace.numpy.arguments import checked_dtype, frozen, given, node_of, shape_of, tracing, wrap
from graphjit.trace.numpy.import_hooks import when_imported
from graphjit.trace.numpy.list_arguments import list_patches
from graphjit.trace.outside.captured_class import is_captured
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import METHODS, Tracer, any_tracer, assemble

Replacement = tuple[ModuleType, str, Any, Any]
"""Module, name, original, and what stands there while a thread traces."""

LIBRARIES = frozenset(
    {
        "graphjit",
        "numpy",
        "scipy",
        "pandas",
        "sklearn",
        "matplotlib",
        "numba",
        "llvmlite",
        "optree",
        "pytest",
        "_pytest",
    }
)
"""Packages whose own calls of np.zeros and kin always make plain arrays."""


def _numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.name in SHORT


def _created(original: Callable[..., Any]) -> Callable[..., Any]:
    """np.zeros and kin: an array that may be written with traced values. Where an argument depends on traced
    values, NumPy is asked, which leads to our function or to an error.
    """

    def create(*args: Any, **kwargs: Any) -> Any:
        try:
            result = original(*known_values(args), **known_values(kwargs))
        except Unknown:
            return original(*args, **kwargs)
        return local(result) if _numeric(result) else result

    return create


def _like(original: Callable[..., Any]) -> Callable[..., Any]:
    """zeros_like and kin of a plain array: only its shape and dtype are used."""

    def create(prototype: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(prototype, Tracer):
            values = known_array(prototype)
            if values is None:
                return original(prototype, *args, **kwargs)
            prototype = values
        if isinstance(prototype, list | tuple) and any_tracer(prototype):
            return original(assemble(tracing(), prototype), *args, **kwargs)
        if isinstance(prototype, np.ndarray):
            prototype = frozen(np.empty(prototype.shape, prototype.dtype))
        return _created(original)(prototype, *args, **kwargs)

    return create


def _full(original: Callable[..., Any]) -> Callable[..., Any]:
    """np.full, whose value may be traced."""

    def create(shape: Any, fill_value: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        try:
            result = original(shape, known_values(fill_value), dtype, *args, **kwargs)
        except Unknown:
            trace = tracing()
            value = node_of(trace, fill_value)
            value = trace.convert(value, checked_dtype(dtype)) if given(dtype) else value
            return wrap(trace, trace.broadcast(value, shape_of(shape)))
        return local(result) if _numeric(result) else result

    return create


def _array(original: Callable[..., Any]) -> Callable[..., Any]:
    """np.array and np.copy: lists of traced values are joined, arrays from outside are read at each call."""

    def create(content: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        try:
            result = original(known_values(content), dtype, *args, **kwargs)
        except Unknown:
            return converted(content, dtype, *args, **kwargs)
        return local(result) if _numeric(result) else result

    return create


def _copy(original: Callable[..., Any]) -> Callable[..., Any]:
    """np.copy."""

    def copy(a: Any, order: Any = "K", subok: bool = False) -> Any:
        try:
            return local(original(known_values(a), order))
        except Unknown:
            return copied(a, order)

    return copy


def _asarray(original: Callable[..., Any]) -> Callable[..., Any]:
    """np.asarray of a list: as np.array; arrays, traced ones too, come back themselves."""
    create = _array(original)

    def asarray(a: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if is_captured(a):
            a = METHODS["__outside__"](tracing(), a)
        if isinstance(a, Tracer):
            return CONVERSIONS["asarray"](a, dtype, *args, **kwargs)
        return (
            create(a, dtype, *args, **kwargs)
            if isinstance(a, list | tuple)
            else original(a, dtype, *args, **kwargs)
        )

    return asarray


def _taking(original: Callable[..., Any]) -> Callable[..., Any]:
    """np.ascontiguousarray and kin: of a captured array as np.asarray, so that it is read at each call."""
    asarray = _asarray(np.asarray)

    @functools.wraps(original)
    def take(a: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        return asarray(a, dtype) if is_captured(a) else original(a, dtype, *args, **kwargs)

    return take


def _reduction(original: Callable[..., Any]) -> Callable[..., Any]:
    """np.mean and kin of a list that holds traced values: of the array that the list makes."""

    @functools.wraps(original)
    def reduce(a: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(a, list | tuple) and any_tracer(a):
            a = assemble(tracing(), a)
        return original(a, *args, **kwargs)

    return reduce


CREATORS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "zeros": _created,
    "empty": lambda original: _created(np.zeros),  # what NumPy leaves undefined is the same in every trace
    "ones": _created,
    "eye": _created,
    "identity": _created,
    "tri": _created,
    "arange": _created,
    "linspace": _created,
    "full": _full,
    "array": _array,
    "copy": _copy,
    "asarray": _asarray,
    **dict.fromkeys(
        ("asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite", "require"), _taking
    ),
    "zeros_like": _like,
    "ones_like": _like,
    "empty_like": lambda original: _like(np.zeros_like),
    **dict.fromkeys(
        "sum prod mean var std max min amax amin ptp any all argmax argmin count_nonzero average".split(),
        _reduction,
    ),
}


_calls: dict[CodeType, dict[int, str]] = {}


def _call_sites(code: CodeType) -> dict[int, str]:
    """Offset of a call -> name of the attribute that is called, for the names that we replace.

    A call and the attribute it calls start at the same place of the source; of several
    (``np.zeros(3).reshape(3)``) the longest belongs to it.
    """
    attributes: dict[tuple[Any, Any], list[tuple[Any, str]]] = {}
    calls = {}
    instructions = list(dis.get_instructions(code))
    ends = [instruction.offset for instruction in instructions[1:]] + [len(code.co_code)]
    for instruction, after in zip(instructions, ends, strict=True):
        where = instruction.positions
        if where is None or where.lineno is None:
            continue
        start, end = (where.lineno, where.col_offset), (where.end_lineno, where.end_col_offset)
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.setdefault(start, []).append((end, str(instruction.argval)))
        elif instruction.opname.startswith("CALL"):
            inner = [called for called in attributes.get(start, ()) if called[0] < end]
            if inner and max(inner)[1] in CREATORS:
                # a frame may point at the call or at one of its inline cache entries
                calls.update(dict.fromkeys(range(instruction.offset, after, 2), max(inner)[1]))
    return calls


def _called_by_user(name: str, depth: int) -> bool:
    """Whether the caller is a line of user code that reads ``np.<name>(...)``.

    Compiled extensions have no frame of their own, look np.empty up by name and use the result as an ndarray
    without asking: they must get one.
    """
    frame = sys._getframe(depth + 1)
    code = frame.f_code
    sites = _calls.get(code)
    if sites is None:
        if len(_calls) > 10_000:
            _calls.clear()
        library = (
            code.co_name == "__del__" or frame.f_globals.get("__name__", "").partition(".")[0] in LIBRARIES
        )
        sites = _calls[code] = {} if library else _call_sites(code)
    return bool(sites) and sites.get(frame.f_lasti) == name


def _switch(name: str, original: Callable[..., Any], traced: Callable[..., Any]) -> Callable[..., Any]:
    """``traced`` for user code in a tracing thread, ``original`` for everybody else."""

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        if active_trace() is None:
            return original(*args, **kwargs)
        if not _called_by_user(name, 1):
            if sys._getframe(1).f_globals.get("__name__", "").partition(".")[0] != "graphjit":
                METHODS["__taken__"]((args, kwargs), f"np.{name}")
            return original(*args, **kwargs)
        return traced(*args, **kwargs)

    return function


# -------------------------------------------------------------------------------------------------- np.random

_NOT_REFUSED = {"get_state", "default_rng", "test"}


def _refused(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """A function of np.random that raises while a function is traced."""

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        if active_trace() is not None:
            raise TraceError(
                f"np.random.{name} while a function is traced at {user_location()}: one draw would be baked into the compiled code and "
                "come back at every call. Draw outside and pass the numbers as an argument."
            )
        return original(*args, **kwargs)

    return function


def _seeded(original: Callable[..., Any]) -> Callable[..., Any]:
    """np.random.default_rng: with a seed it gives the same numbers at each call anyway."""

    @functools.wraps(original)
    def default_rng(seed: Any = None) -> Any:
        if active_trace() is not None and seed is None:
            raise TraceError(
                f"np.random.default_rng() without a seed while a function is traced at {user_location()}: its draws would be baked into the "
                "compiled code. Draw outside and pass the numbers as an argument, or give a fixed seed."
            )
        return original(seed)

    return default_rng


def _random_patches(module: ModuleType) -> Iterator[Replacement]:
    for name in module.__all__:
        original = getattr(module, name)
        if callable(original) and not isinstance(original, type) and name not in _NOT_REFUSED:
            yield module, name, original, _refused(name, original)
    yield module, "default_rng", module.default_rng, _seeded(module.default_rng)


# ------------------------------------------------------------------------------------------------- on and off


class _Depth(threading.local):
    """How many traces are active in this thread."""

    traces = 0


# Signal handlers and finalizers may trace too, in the thread that holds the lock, between any two lines.
_lock = threading.RLock()
_active = {"traces": 0}
_patched = {"now": False}
_depth = _Depth()


_replacements: list[Replacement] = []


def _creator_patches() -> Iterator[Replacement]:
    for name, make in CREATORS.items():
        original = getattr(np, name)
        yield np, name, original, _switch(name, original, make(original))
    yield from list_patches(frozenset(CREATORS))


def _put(replacements: list[Replacement], on: bool) -> None:
    """Put replacements in or take them out; what somebody else put there meanwhile stays."""
    for module, name, original, replacement in replacements:
        namespace = module.__dict__
        if namespace.get(name) is (original if on else replacement):
            namespace[name] = replacement if on else original


def _add_random(module: ModuleType) -> None:
    """numpy.random has been imported, perhaps by the function that is being traced."""
    patches = list(_random_patches(module))
    _replacements.extend(patches)
    if _active["traces"]:
        _put(patches, True)


def _patch(on: bool) -> None:
    """Put all replacements in or take them out.

    A trace that begins in the middle of it, in a signal handler, does all of it and leaves it as it must be.
    """
    if not on:
        _patched["now"] = False
    _put(_replacements, on)
    conversion_hooks.put(on)
    if on:
        _patched["now"] = True


def _begin() -> None:
    """One more trace: the first of all threads puts the replacements in."""
    with _lock:
        if not _replacements:
            _replacements.extend(_creator_patches())
            scipy_special.install()
            when_imported("numpy.random", _add_random)
        _depth.traces += 1
        _active["traces"] += 1
        if not _patched["now"]:
            _patch(True)


def _end() -> None:
    """One trace less: the last of all threads takes the replacements out."""
    with _lock:
        _depth.traces -= 1
        _active["traces"] -= 1
        if _active["traces"] == 0:
            _patch(False)


def _after_fork() -> None:
    """Only the forking thread lives on in the child: a fresh lock, and its traces alone count."""
    global _lock
    _lock = threading.RLock()
    _active["traces"] = _depth.traces
    _patch(_depth.traces > 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def recording() -> Iterator[None]:
    """Around every trace: NumPy's functions are replaced by ours."""
    _begin()
    try:
        yield
    except ValueError as error:
        # NumPy's C code (np.float64(x), W[0] = x for an array W from outside) hides our error, which names
        # the user's line, behind its own
        if isinstance(error.__cause__, TraceError):
            raise TraceError(str(error.__cause__)) from error
        raise
    finally:
        _end()
