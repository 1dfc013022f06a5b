"""What converted code calls: the user's functions are converted too, and some built-in functions are ours.

Input: what stands before the parentheses. Output: what is called instead.
Invariant: a function that is not converted is called as it is, and why not is remembered for messages.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import os
import sys
import types
from typing import Any

from graphjit import config
from graphjit.trace.converted import conversion
from graphjit.trace.converted.builtin_functions import REPLACED
from graphjit.trace.converted.containers import changing, has_hooks
from graphjit.trace.converted.loops.whole import is_pure
from graphjit.trace.converted.sources import Refused
from graphjit.trace.marks import name_of
from graphjit.trace.outside.inspection import by_user, function_of_compiled, package_of
from graphjit.trace.recording.location import LIBRARIES, PACKAGE, PLUMBING
from graphjit.trace.recording.recorder import current

INSTALLED = f"{os.sep}site-packages{os.sep}"
TYPES = [function for function in REPLACED if isinstance(function, type)]
CONVERTED = "__graphjit_converted__"
"""Marks functions that are conversions."""

packages: set[str] = set()
"""Packages whose functions graphjit was given."""

reasons: dict[types.CodeType, str] = {}
"""Why functions are not converted."""


def converted(function: Any) -> Any:
    """What is called in place of ``function``."""
    kind = type(function)
    if kind is types.FunctionType:
        return _function(function)
    _refuse_unknown(function)
    if kind is types.MethodType:
        changing(function)
        inner = converted(function.__func__)
        return function if inner is function.__func__ else types.MethodType(inner, function.__self__)
    if kind is types.BuiltinFunctionType and function.__self__ is not builtins:
        return changing(function)
    if kind is types.BuiltinFunctionType or any(function is each for each in TYPES):
        return REPLACED.get(function, function)
    if kind is functools.partial:
        return functools.partial(converted(function.func), *function.args, **function.keywords)
    if isinstance(function, type):
        return _constructor(function)
    if function_of_compiled(function) is not None:
        return function
    call = inspect.getattr_static(kind, "__call__", None)
    if type(call) is types.FunctionType and by_user(kind.__module__):
        inner = converted(call)
        return function if inner is call else types.MethodType(inner, function)
    return function


def _refuse_unknown(function: Any) -> None:
    """In a loop that is recorded as a whole, refuse what could do another thing in each step."""
    whole = None if current.recorder is None else current.recorder.whole
    if whole is not None and whole.depth and not _is_known(function):
        whole.refuse(f"{name_of(function)} is called")


def _is_known(function: Any) -> bool:
    """Whether nothing but a trace sees what a call does. The user's code is looked at when it is called."""
    if isinstance(function, type) and function.__module__ != "builtins":
        return _constructor(function) is not function or is_pure(function)
    if isinstance(function, types.MethodType) and isinstance(function.__func__, types.FunctionType):
        return is_pure(function) or _is_users(function.__func__)
    if isinstance(function, functools.partial):
        return True  # what is inside is looked at
    call = inspect.getattr_static(type(function), "__call__", None)
    return is_pure(function) or (type(call) is types.FunctionType and by_user(type(function).__module__))


def entered(function: Any) -> Any:
    """What is called in place of a function that graphjit was given: it counts as the user's wherever it
    stands, and so does its package.
    """
    packages.add(package_of(getattr(function, "__module__", "")))
    return converted(function)


def _constructor(kind: type) -> Any:
    """What makes an object of a class: by the conversion of its ``__init__``, where that is all there is."""
    whole = None if current.recorder is None else current.recorder.whole
    if whole is not None and whole.depth and has_hooks(kind):
        whole.refuse(f"a {name_of(kind)} is made, whose methods are called unseen,")
    init = inspect.getattr_static(kind, "__init__", None)
    if type(kind) is not type or kind.__new__ is not object.__new__ or type(init) is not types.FunctionType:
        return kind
    inner = _function(init)
    if inner is init:
        return kind

    def make(*args: Any, **kwargs: Any) -> Any:
        made: Any = object.__new__(kind)
        inner(made, *args, **kwargs)
        return made

    return make


def _function(function: types.FunctionType) -> Any:
    """The conversion of a Python function of the user's."""
    if getattr(function, CONVERTED, False):
        return function
    whole = None if current.recorder is None else current.recorder.whole
    if not _is_users(function):
        if whole is not None and whole.depth and not is_pure(function):
            whole.refuse(f"{name_of(function)} is called")
        return function
    known = id(function.__code__) in conversion.known
    try:
        made = conversion.instantiate(function)
    except Refused as reason:
        reasons[function.__code__] = str(reason)
        if whole is not None:
            whole.refuse(f"{name_of(function)} is called, which is not converted: {reason},")
        _say(function, known, f"is not converted: {reason}")
        return function
    setattr(made, CONVERTED, True)
    _say(function, known, "is converted")
    return made


def _is_users(function: types.FunctionType) -> bool:
    """Whether a function is the user's own code, and no library's."""
    file = function.__code__.co_filename
    if not by_user(function.__module__) or file.startswith((PACKAGE, *LIBRARIES, *PLUMBING)):
        return False
    return INSTALLED not in file or package_of(function.__module__) in packages


def _say(function: types.FunctionType, known: bool, what: str) -> None:
    if "control" in config.log_topics and not known:
        code = function.__code__
        print(
            f"graphjit: control: {name_of(function)} ({code.co_filename}:{code.co_firstlineno}) {what}",
            file=sys.stderr,
        )
