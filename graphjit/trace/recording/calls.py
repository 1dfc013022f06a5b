"""How a call of NumPy reaches our implementation: arguments that do not fit its signature, ``out=``, and the
name that messages show.

Job: call the implementation; turn the TypeError of a keyword that it does not take into one that a user
understands; write the result into ``out``.
Input: an implementation, the function it stands for, the user's arguments. Output: its result.
Invariant: no message names an internal function. A keyword that NumPy does not know either is a TypeError in
NumPy's words; one that NumPy knows is an `UnsupportedError` with the function, the keyword and the user's
line.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from graphjit.errors import UnsupportedError
from graphjit.trace.recording.location import PACKAGE, user_location
from graphjit.trace.recording.tables import METHODS

_MISFIT = re.compile(
    r"^(?P<name>[\w.<>]+)\(\) (got an unexpected keyword argument '(?P<keyword>\w+)'|got multiple values for|takes |missing \d+ required|got some positional-only)"
)
"""What Python says when arguments do not fit a signature."""


@cache
def public_name(function: Any) -> str:
    """``np.linalg.norm``, ``scipy.special.zeta``, ``ndarray.sum``: a function as users write it."""
    name = function.__name__
    if isinstance(function, np.ufunc):
        if getattr(np, name, None) == function:  # while a function is traced, an equal object stands there
            return f"np.{name}"
        module = sys.modules.get("scipy.special")  # where there is a ufunc of SciPy, this is loaded
        words = name.split(
            "_"
        )  # a public function may call a ufunc with a private name: _lambertw, _riemann_zeta
        public = next(
            (
                each
                for each in ("_".join(words[i:]) for i in range(len(words)))
                if each[:1] != "_" and hasattr(module, each)
            ),
            None,
        )
        return f"scipy.special.{public}" if public else name
    module_name = (getattr(function, "__module__", None) or "numpy").split("._")[0]
    return f"{'np' + module_name[5:] if module_name.split('.')[0] == 'numpy' else module_name}.{name}"


def called(
    implementation: Callable[..., Any],
    function: Any,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """``implementation(*args, **kwargs)``, which stands for ``function``, called ``name`` by users.

    Raises:
        UnsupportedError: an argument that NumPy takes and we do not.
        TypeError: arguments that NumPy does not take either.
    """
    try:
        return implementation(*args, **kwargs)
    except TypeError as error:
        misfit = _MISFIT.match(str(error))
        if misfit is None or not _ours(error, misfit["name"], (*args, *kwargs.values())):
            raise
        problem = _problem(function, name, misfit["keyword"], args, kwargs)
    raise problem


def called_with_out(
    implementation: Callable[..., Any],
    function: Any,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """`called`; where ``out`` is given, the result is written there, and ``out`` is returned."""
    position = _position_of_out(function)
    if position is None:
        return called(implementation, function, name, args, kwargs)
    target = kwargs.get("out")
    if target is not None:
        kwargs = {key: item for key, item in kwargs.items() if key != "out"}
    elif 0 <= position < len(args) and args[position] is not None:
        target = args[position]
        args = (*args[:position], None, *args[position + 1 :])
    if target is None:
        return called(implementation, function, name, args, kwargs)
    short = name.rpartition(".")[2]
    if (
        short in _SUMS
        and len(args) < 3
        and kwargs.get("dtype") is None
        and getattr(target, "dtype", np.dtype(bool)).kind == "f"
    ):
        kwargs["dtype"] = np.result_type(
            args[0].dtype if hasattr(args[0], "dtype") else target.dtype, target.dtype
        )
    casting = kwargs.get("casting", "unsafe" if short in _ANY_DTYPE else "same_kind")
    if short == "clip":  # elsewhere it also says how arguments are joined
        kwargs.pop("casting", None)
    return METHODS["__store__"](name, target, called(implementation, function, name, args, kwargs), casting)


_ANY_DTYPE = frozenset(
    "sum prod max min amax amin any all cumsum cumprod mean var std take trace "
    "nansum nanprod nanmax nanmin nancumsum nancumprod nanmean nanvar nanstd".split()
)
"""Functions that convert their result to the dtype of ``out`` by any means."""

_SUMS = frozenset("sum prod cumsum cumprod mean nansum nanprod nancumsum nancumprod nanmean".split())
"""Functions that add up in the dtype of ``out`` where it is the wider one."""


@cache
def _position_of_out(function: Any) -> int | None:
    """Position of the parameter ``out`` of a NumPy function, -1 where it is taken by name only, None where
    there is none.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    for i, parameter in enumerate(parameters):
        if parameter.name == "out":
            return i if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else -1
    return None


def _ours(error: TypeError, name: str, values: tuple[Any, ...]) -> bool:
    """Whether the call that failed is one of graphjit, and of no function that the user passed."""
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    inside = entry is not None and entry.tb_frame.f_code.co_filename.startswith(PACKAGE)
    return inside and not any(getattr(value, "__qualname__", None) == name for value in values)


def _problem(
    function: Any, name: str, keyword: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Exception:
    """What is wrong with a call that does not fit."""
    short = name.rpartition(".")[2]
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return TypeError(f"{short}() {error} (at {user_location()})")
    except ValueError:  # a function without a signature
        pass
    if (
        keyword is not None
        and isinstance(function, type(np.ndarray.sum))
        and keyword not in _parameters(getattr(np, short, function))
    ):
        return TypeError(f"{short}() got an unexpected keyword argument '{keyword}' (at {user_location()})")
    what = f"{name}(..., {keyword}=...)" if keyword else f"{name} with these arguments"
    return UnsupportedError(
        f"{what} is not compiled (at {user_location()}): leave it out, or compute this outside the compiled function"
    )


def _parameters(function: Any) -> frozenset[str]:
    """Names of a function's parameters."""
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return frozenset()
