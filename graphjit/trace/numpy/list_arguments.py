"""Lists of traced values as arguments of NumPy's functions, such as ``np.logical_and([a, b], c)``.

NumPy makes an object array of such a list, so its protocols never see the traced values inside; what follows
are comparisons of single elements, errors without sense, or another value. So while a function is traced,
NumPy's functions and ufuncs are replaced (`list_patches`, put in place by `patches`) by ones that turn such
lists into the arrays they mean.

For all other arguments the replacements give the results of the originals. A replaced ufunc equals the
original, also as a key of a dict.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from graphjit.errors import UnsupportedError
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.calls import public_name
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import BOUND, FUNCTIONS, UFUNCS, Tracer, any_tracer, assemble, bound

_REDUCING = frozenset({"reduce", "accumulate", "reduceat", "outer"})


def _holds_traced(values: tuple[Any, ...]) -> bool:
    """Whether a function is traced, and a list or tuple among ``values`` holds traced values."""
    return (
        any(isinstance(value, list | tuple) and any_tracer(value) for value in values)
        and active_trace() is not None
    )


def _named(replacement: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """``replacement`` under the name of the original. Attributes are not copied: there are hundreds of
    functions, and first calls wait for them.
    """
    return functools.update_wrapper(
        replacement, original, ("__module__", "__name__", "__qualname__", "__doc__"), ()
    )


def _joined(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` with arrays in place of lists of traced values."""

    def joined(*args: Any, **kwargs: Any) -> Any:
        trace = active_trace()
        if trace is not None and _holds_traced(args):
            args = tuple(
                assemble(trace, arg) if isinstance(arg, list | tuple) and any_tracer(arg) else arg
                for arg in args
            )
        return call(*args, **kwargs)

    return _named(joined, call)


class UfuncOfLists:
    # A ufunc that takes lists of traced values; its docstring is the ufunc's.

    __slots__ = ("_ufunc",)
    __module__ = "numpy"  # where pickle finds it

    def __init__(self, ufunc: np.ufunc) -> None:
        self._ufunc = ufunc

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for arg in args:
            if type(arg) is list or type(arg) is tuple:
                return _joined(self._ufunc)(*args, **kwargs)
        return self._ufunc(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._ufunc, name)
        return _joined(attribute) if name in _REDUCING else attribute

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self._ufunc.__doc__

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return np.ufunc

    def __eq__(self, other: object) -> bool:
        return self._ufunc is (other._ufunc if type(other) is UfuncOfLists else other)

    def __hash__(self) -> int:
        return hash(self._ufunc)

    def __repr__(self) -> str:
        return repr(self._ufunc)

    def __reduce__(self) -> str:
        return self._ufunc.__name__


def _of_lists(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls our implementation for lists of traced values."""

    def function(*args: Any, **kwargs: Any) -> Any:
        if _holds_traced((*args, *kwargs.values())):
            return bound(original, args, kwargs)
        return original(*args, **kwargs)

    return _named(function, original)


def _iterable(original: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """np.iterable, for which Python would answer yes, since a traced number has items (``x[()]``)."""

    def iterable(y: Any) -> bool:
        return bool(y._node.shape) if isinstance(y, Tracer) else original(y)

    return _named(iterable, original)


def _needs_memory(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that reads the memory of its arguments, without asking them."""

    def function(*args: Any, **kwargs: Any) -> Any:
        if active_trace() is not None and any_tracer(args):
            raise UnsupportedError(
                f"{public_name(original)} of a traced value is not compiled (at {user_location()}): it reads memory, and values are only known "
                "when the compiled code runs. Use whole-array functions, or loop over x.ravel()"
            )
        return original(*args, **kwargs)

    return _named(function, original)


def list_patches(elsewhere: frozenset[str]) -> Iterator[tuple[ModuleType, str, Any, Any]]:
    """(module, name, original, replacement) of everything in NumPy that takes traced values; the names
    ``elsewhere`` in its main module are replaced by others.
    """
    for module in (np, np.linalg):
        # What is there already: asking np for the submodules that it names would import them.
        for name, original in [(name, vars(module)[name]) for name in module.__all__ if name in vars(module)]:
            if module is np and name in elsewhere:
                continue
            if isinstance(original, np.ufunc):
                if original in BOUND or original in UFUNCS:
                    yield module, name, original, UfuncOfLists(original)
            elif isinstance(original, type) or not callable(original):
                continue
            elif original in FUNCTIONS:
                yield module, name, original, _of_lists(original)
            elif hasattr(original, "_implementation"):  # it asks its arguments, so its refusal names it
                yield module, name, original, _joined(original)
    yield np, "iterable", np.iterable, _iterable(np.iterable)
    for name in ("nditer", "frombuffer"):
        yield np, name, getattr(np, name), _needs_memory(getattr(np, name))
