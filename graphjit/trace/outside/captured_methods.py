"""What a captured array does while a function is traced: the methods of `captured_class.Captured`.

A captured array is one that the function reaches without getting it as an argument, such as a global ``W``.
Its numbers may change between two calls, so they must not be compiled in. What happens depends on the use:

- The user's code computes with it (``W * x``): the operation is recorded, with the array as an input that is
  read at each call.
- A number is needed now (``if W[0] > 0``, ``float(W.sum())``), or library code gets the array: the present
  values are used, and a `ContentGuard` compares the array's contents at each later call. Arrays of more than
  `SMALL` bytes raise instead. `concretise` does this for traced values that depend on captured arrays alone.
- It is written (``W[0] = 1``, ``out=W``): that raises.

Only the thread that traces records; in all others a captured array is a plain ndarray.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from graphjit.backend.signature import ContentGuard
from graphjit.errors import TraceError, UnsupportedError
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import SHORT
from graphjit.trace.arrays.buffers import local
from graphjit.trace.arrays.layout import canonical_strides, standing_for
from graphjit.trace.numpy.arguments import is_frozen
from graphjit.trace.outside.captured_class import Captured, is_captured, plain
from graphjit.trace.outside.check_guards import SMALL, content
from graphjit.trace.outside.inspection import by_user
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.answers import from_outside
from graphjit.trace.recording.location import asked_by_user, user_location
from graphjit.trace.recording.tracer import METHODS, Outside, Trace, Tracer

LARGE = 1 << 20
"""Bytes of an array up to which its contents are compared at each call where the function names code that
could read it unseen.
"""

_WRITERS = "__setitem__ __delitem__ sort fill put partition resize setfield".split()
WRITING = frozenset(
    {
        np.copyto,
        np.put,
        np.place,
        np.putmask,
        np.fill_diagonal,
        np.put_along_axis,
        *(getattr(np.ndarray, name) for name in _WRITERS),
    }
)
"""Functions and methods that write into their first argument."""

# ------------------------------------------------------------------------------------------- values taken out


def use_values(trace: Trace, array: np.ndarray, what: str) -> None:
    """The present values of a captured array are used: a call that finds others in it makes a new trace.
    ``what`` uses them, for the error.

    Raises:
        TraceError: the array is too large to be compared at each call.
    """
    if id(array) in trace.contents or is_frozen(array):
        return
    if array.nbytes > SMALL:
        raise TraceError(
            f"{what} at {user_location()} needs the values of a captured array, {array.dtype}{list(array.shape)}, while the function is traced: "
            f"they would be compiled in, and {array.nbytes} bytes are too many to be compared at each call. Pass the array (or what is computed "
            "from it) as an argument, or freeze it if it never changes: array.flags.writeable = False"
        )
    watch(trace, array)


def watch(trace: Trace, array: np.ndarray) -> None:
    """Compare the contents of an array at each call."""
    kept = plain(array).copy() if array.dtype.hasobject else None
    trace.contents[id(array)] = ContentGuard(array, array.dtype, array.shape, content(array), kept)


def watch_all(trace: Trace, arrays: list[np.ndarray]) -> None:
    """The function names code that reads arrays unseen, so that each of them could be read."""
    for array in arrays:
        if array.nbytes <= LARGE:
            watch(trace, array)
        else:
            _say_too_large()


@functools.cache
def _say_too_large() -> None:
    print(
        f"graphjit: a compiled function names compiled code of a library and captures an array of more than {LARGE} bytes; if that code reads "
        "the array while the function is traced, later changes of it go unnoticed. Pass such arrays as arguments.",
        file=sys.stderr,
    )


def _from_captured_alone(trace: Trace, node: Node) -> bool:
    """Whether a node depends on captured arrays and constants alone; each node is asked once in a trace."""
    answers = trace.free
    pending = [node]
    while pending:
        top = pending[-1]
        unanswered = [arg for arg in top.args if arg not in answers]
        if top in answers or not unanswered:
            answers.setdefault(top, top.op.name != "input" and all(answers[arg] for arg in top.args))
            pending.pop()
        else:
            pending.extend(unanswered)
    return answers[node]


def _text(write: Callable[[Any], str]) -> Callable[[np.ndarray], str]:
    """What is written of an array is guarded like a number taken out of it; of large arrays (which are shown
    in part) only where code is the user's.
    """

    def text(self: np.ndarray) -> str:
        trace = active_trace()
        if trace is not None and self.nbytes <= SMALL and asked_by_user():
            watch(trace, self)
        return write(plain(self))

    return text


def concretise(value: Tracer, what: str, only_small: bool = False) -> np.ndarray | None:
    """The present values of a traced value that depends on captured arrays and constants alone, which are
    guarded; else None.

    ``only_small``: None instead of an error where one of the arrays is too large to be compared at each call.
    """
    trace = active_trace()
    if trace is None or value._trace is not trace or not _from_captured_alone(trace, value._node):
        return None
    arrays = {node: array for array, node in trace.captured.values()}
    inputs = [node for node in Graph("captured", (), [value._node]).nodes() if node.op.name == "input"]
    if only_small and any(arrays[node].nbytes > SMALL for node in inputs):
        return None
    for node in inputs:
        use_values(trace, arrays[node], what)
    return interpret(Graph("captured", inputs, [value._node]), *[plain(arrays[node]) for node in inputs])[0]


class _Traced(Exception):
    """An argument depends on traced arguments of the function."""


def _values(value: Any, what: str) -> Any:
    """Arguments of a NumPy call with traced values replaced by their present values."""
    if isinstance(value, Tracer):
        array = getattr(type(value), "known", lambda _: None)(value)
        if array is None:
            array = concretise(value, what)
        if array is None:
            raise _Traced
        return array if array.ndim else array[()]
    if type(value) in (list, tuple):
        return type(value)(_values(item, what) for item in value)
    if type(value) is dict:
        return {key: _values(item, what) for key, item in value.items()}
    if is_captured(value):
        trace = active_trace()
        assert trace is not None
        use_values(trace, value, what)
        return plain(value)
    return value


def recorded_or_computed(
    what: str, record: Callable[..., Any], compute: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """``record(*args)``; a call that is not compiled is computed by NumPy where it depends on captured arrays
    and constants alone.
    """
    try:
        return record(*args, **kwargs)
    except (UnsupportedError, TraceError) as error:
        if (
            getattr(error, "final", False)
            or active_trace() is None
            or compute in WRITING
            or getattr(compute, "__name__", "") == "at"
        ):
            raise
        targets = kwargs.get("out")
        if _first_tracer(targets) is not None or any(
            map(is_captured, targets if type(targets) is tuple else (targets,))
        ):
            raise
        try:
            plain_args, options = _values(args, what), _values(kwargs, what)
        except _Traced:
            raise error from None
    result = compute(*plain_args, **options)
    return result if isinstance(result, np.ndarray) and result.dtype.name not in SHORT else local(result)


METHODS["__concretise__"] = concretise
METHODS["__or_computed__"] = recorded_or_computed

# ------------------------------------------------------------------------------- who asks, and what they get


def traced_value(trace: Trace, array: np.ndarray) -> Tracer:
    """The traced value of a captured array; it cannot be written."""
    value = trace.outsides.get(id(array))
    if value is None:
        value = trace.outsides[id(array)] = Outside(trace, trace.capture(array))
        if not array.flags.c_contiguous:
            value._model = standing_for(np.ndarray.shape.__get__(array), canonical_strides(plain(array)))
    return value


def _by_library(frame: FrameType) -> bool:
    """Whether a library, Python's own or a finalizer asks, which get plain arrays."""
    name = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] != "graphjit" and (not by_user(name) or frame.f_code.co_name == "__del__")


METHODS["__outside__"] = traced_value


def _with_captured(value: Any, change: Callable[[np.ndarray], Any]) -> Any:
    """Arguments with every captured array changed."""
    if is_captured(value):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_with_captured(item, change) for item in value)
    if type(value) is dict:
        return {key: _with_captured(item, change) for key, item in value.items()}
    return value


def _first_tracer(value: Any) -> Tracer | None:
    """A tracer among nested arguments."""
    if isinstance(value, Tracer):
        return value
    parts = value if type(value) in (list, tuple) else value.values() if type(value) is dict else ()
    return next((tracer for part in parts if (tracer := _first_tracer(part)) is not None), None)


def hand_to_library(args: Any, what: str) -> None:
    """Library code gets these arguments, whose values it may use: captured arrays among them are guarded."""
    trace = active_trace()
    if trace is not None:
        _with_captured(args, lambda array: use_values(trace, array, what))


METHODS["__taken__"] = hand_to_library

# -------------------------------------------------------------------------------------------------- protocols


def _array_ufunc(self: Any, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
    """``__array_ufunc__``, which operators reach too."""
    trace = active_trace()
    out = kwargs.get("out") or ()
    if trace is not None:
        if any(is_captured(target) for target in out) or (method == "at" and is_captured(args[0])):
            raise from_outside(f"np.{ufunc.__name__} (out=, .at or an in-place operator such as +=)")
        tracer = _first_tracer([args, kwargs])
        if tracer is not None or not _by_library(sys._getframe(1)):
            args, kwargs = _with_captured((args, kwargs), lambda array: traced_value(trace, array))
            tracer = tracer if tracer is not None else _first_tracer([args, kwargs])
            return tracer.__array_ufunc__(ufunc, method, *args, **kwargs)  # type: ignore[union-attr]
        hand_to_library((args, kwargs), f"np.{ufunc.__name__}")
    originals: dict[int, Any] = {}  # by the id of the view that NumPy gets; ``out=`` is returned itself

    def view_of(array: np.ndarray) -> np.ndarray:
        view = plain(array)
        originals[id(view)] = array
        return view

    args, kwargs = _with_captured((args, kwargs), view_of)
    result = getattr(ufunc, method)(*args, **kwargs)
    if type(result) is tuple:
        return tuple(originals.get(id(part), part) for part in result)
    return originals.get(id(result), result)


_STATIC = frozenset(
    {
        np.shape,
        np.ndim,
        np.size,
        np.result_type,
        np.can_cast,
        np.min_scalar_type,
        np.shares_memory,
        np.may_share_memory,
    }
)
_SHOWING = frozenset({np.array_str, np.array_repr, np.array2string})


def _array_function(self: Any, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
    """``__array_function__``."""
    trace = active_trace()
    if trace is not None:
        target = args[0] if args and function in WRITING else kwargs.get("out")
        if is_captured(target) or (type(target) is tuple and any(map(is_captured, target))):
            raise from_outside(f"np.{function.__name__}")
        tracer = _first_tracer([args, kwargs])
        quiet = function in _SHOWING or (function in _STATIC and tracer is None)
        if not quiet and (tracer is not None or not _by_library(sys._getframe(1))):
            args, kwargs = _with_captured((args, kwargs), lambda array: traced_value(trace, array))
            tracer = tracer if tracer is not None else _first_tracer([args, kwargs])
            return tracer.__array_function__(function, types, args, kwargs)  # type: ignore[union-attr]
        if not quiet:
            hand_to_library((args, kwargs), f"np.{function.__name__}")
        else:
            frame = sys._getframe(1)
            _with_captured((args, kwargs), lambda array: _shape_is_used(array, frame))
    return np.ndarray.__array_function__(self, function, types, args, kwargs)


# ---------------------------------------------------------------------------------------------------- methods

_QUIET = frozenset(
    "__class__ __new__ __init__ __init_subclass__ __subclasshook__ __getattribute__ __setattr__ __delattr__ __dir__ __doc__ __hash__ __sizeof__ "
    "__repr__ __str__ __format__ __reduce__ __reduce_ex__ __array_finalize__ __array_ufunc__ __array_function__ __array_wrap__ __array_priority__ "
    "__class_getitem__ __len__ __setstate__ __array_namespace__ __dlpack_device__ __getstate__ "
    "shape dtype ndim size itemsize nbytes strides flags base device setflags to_device".split()
)
"""What says nothing about the contents of an array, or has a method of its own."""


def _method(name: str, original: Any) -> Callable[..., Any]:
    """A method: recorded for user code, ndarray's own for everybody else."""
    what = f"ndarray.{name}"

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        trace = active_trace()
        if trace is None:
            return original(self, *args, **kwargs)
        traced = name in METHODS or hasattr(Tracer, name)
        if not traced or (_by_library(sys._getframe(1)) and _first_tracer([args, kwargs]) is None):
            use_values(trace, self, what)
            return original(self, *args, **kwargs)
        value = traced_value(trace, self)
        if name.startswith("__") and hasattr(Tracer, name):
            return getattr(value, name)(*args, **kwargs)
        return recorded_or_computed(
            what, lambda x, *a, **k: getattr(x, name)(*a, **k), original, (value, *args), kwargs
        )

    method.__name__ = name
    return method


def _writer(name: str, original: Any) -> Callable[..., Any]:
    """A method that writes."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if active_trace() is not None and sys._getframe(1).f_code.co_name != "__del__":
            raise from_outside("an assignment to its items" if name == "__setitem__" else f"ndarray.{name}")
        return original(self, *args, **kwargs)

    method.__name__ = name
    return method


def _attribute(name: str, original: Any) -> property:
    """An attribute that depends on the contents."""

    def read(self: Any) -> Any:
        trace = active_trace()
        if trace is None:
            return original.__get__(self)
        if name in METHODS and not _by_library(sys._getframe(1)):
            value = traced_value(trace, self)
            return recorded_or_computed(
                f"ndarray.{name}", lambda x: getattr(x, name), original.__get__, (value,), {}
            )
        use_values(trace, self, f"ndarray.{name}")
        return original.__get__(self)

    def write(self: Any, value: Any) -> None:
        if active_trace() is not None:
            raise from_outside(f"ndarray.{name}")
        original.__set__(self, value)

    return property(read, write)


def _layout(name: str, original: Any) -> property:
    """The shape and what follows from it: the array becomes an input, whose shape is compared at each
    call.
    """

    def read(self: Any) -> Any:
        _shape_is_used(self, sys._getframe(1))
        return original.__get__(self)

    def write(self: Any, value: Any) -> None:
        if active_trace() is not None:
            raise from_outside(f"ndarray.{name}")
        original.__set__(self, value)

    return property(read, write)


def _length(self: Any) -> int:
    _shape_is_used(self, sys._getframe(1))
    return np.ndarray.__len__(self)


def _shape_is_used(array: Any, frame: FrameType) -> None:
    """The array becomes an input where the user's code (``frame``) asks for its shape: shapes of inputs are
    compared at each call.
    """
    trace = active_trace()
    name = frame.f_globals.get("__name__", "")
    # functions of `list_arguments` stand in for NumPy's, which the user calls
    asked = by_user(name) or name == "graphjit.trace.numpy.list_arguments"
    if trace is not None and asked and array.dtype.name in SHORT:
        trace.capture(array)


def _pickling(name: str) -> Callable[..., Any]:
    """What pickle and copy ask for."""

    def method(self: Any, *args: Any) -> Any:
        hand_to_library(self, "pickling")
        return getattr(plain(self), name)(*args)

    return method


def _copying(name: str, original: Any) -> Callable[..., Any]:
    """What copy.copy and copy.deepcopy ask for: for user code a traced copy, which may be written."""

    def method(self: Any, *args: Any) -> Any:
        trace = active_trace()
        if trace is None:
            return original(self, *args)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__") == "copy":
            frame = frame.f_back
        if frame is None or _by_library(frame):
            use_values(trace, self, "copying")
            return original(self, *args)
        return METHODS["copy"](traced_value(trace, self))

    return method


def _install() -> None:
    """Give `Captured` its methods; operators lead to ``__array_ufunc__`` by themselves."""
    operators = {f"__{kind}{name}__" for name in _OPERATORS for kind in ("", "r", "i")}
    for name in dir(np.ndarray):
        if name in _QUIET or name in operators:
            continue
        original = getattr(np.ndarray, name)
        if name in _WRITERS:
            setattr(Captured, name, _writer(name, original))
        elif callable(original):
            setattr(Captured, name, _method(name, original))
        else:
            setattr(Captured, name, _attribute(name, original))
    for name in ("shape", "size", "ndim", "nbytes", "strides"):
        setattr(Captured, name, _layout(name, getattr(np.ndarray, name)))
    Captured.__repr__, Captured.__str__ = _text(repr), _text(str)
    Captured.__len__ = _length
    for name in ("__copy__", "__deepcopy__"):
        setattr(Captured, name, _copying(name, getattr(np.ndarray, name)))
    for name in ("__reduce__", "__reduce_ex__"):
        setattr(Captured, name, _pickling(name))
    Captured.__array_ufunc__ = _array_ufunc
    Captured.__array_function__ = _array_function


_OPERATORS = "add sub mul truediv floordiv mod divmod pow matmul and or xor lshift rshift neg pos abs invert lt le gt ge eq ne".split()
_install()
