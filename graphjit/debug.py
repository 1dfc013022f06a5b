"""`graphjit.debug.print` and `graphjit.debug.callback`: look at values while compiled code runs.

Input: traced values. Output: none.
Invariant: outside of a traced function they are called at once; inside, after each run, in the order of the
program.
"""

from __future__ import annotations

import builtins
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphjit.api.options import require_callable
from graphjit.trace.effects import tell
from graphjit.trace.marks import name_of
from graphjit.trace.tracebacks import hides_frames

__all__ = ["callback", "print"]


@hides_frames
def print(fmt: str, *args: Any, **kwargs: Any) -> None:
    """Print values of compiled code each time it runs.

    Python's own ``print`` in a traced function runs once, while the function is recorded, and shows no
    numbers. This one is recorded too, and happens after each run, before the call returns.

    Under `grad`, `jvp` ... a value is printed once, with its own value and not with its derivative. Under
    `vmap` it is printed for each element, in order. In a function with a rule of its own and in a
    `checkpoint` it is printed once, however often it is computed again.

    Parameters
    ----------
    fmt : str
        A text with places for values, as for `str.format`: ``"loss {}"``, ``"{x:.3f}"``.
    *args, **kwargs
        The values: arrays, numbers, containers of them, anything else. They are NumPy's when they are
        printed.

    Returns
    -------
    None
        Nothing.

    Raises
    ------
    ValueError
        A value stands nowhere in the text.
    IndexError, KeyError
        The text has a place for which there is no value.

    Notes
    -----
    The call is made after the whole program has run. If the program raises an exception, what was printed
    before it is still printed, unless an argument was donated. Calls of functions that print take the slow
    way: some microseconds more.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> @graphjit.grad
    ... def slope(x):
    ...     y = np.sin(x)
    ...     graphjit.debug.print("y = {y:.3f}", y=y)
    ...     return y * y
    >>> slope(0.5).round(3)
    y = 0.479
    np.float64(0.841)
    """
    if not isinstance(fmt, str):
        raise TypeError(
            f"debug.print takes a text and values for its places, such as ('x = {{}}', x), not {type(fmt).__name__}"
        )
    _Places().vformat(fmt, [_Any()] * len(args), dict.fromkeys(kwargs, _Any()))

    def show(*values: Any, **named: Any) -> None:
        builtins.print(fmt.format(*values, **named))

    tell(show, fmt, args, kwargs, own=False)


@hides_frames
def callback(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Call a Python function with values of compiled code each time it runs.

    As `debug.print`, for everything else that can be done with values: log, plot, check. What the function
    returns is ignored. An exception that it raises goes to the caller of the compiled function.

    Parameters
    ----------
    function : callable
        It gets the values as NumPy's arrays and numbers. It may call compiled functions. What it reads from
        outside is not watched.
    *args, **kwargs
        Its arguments: arrays, numbers, containers of them, anything else.

    Returns
    -------
    None
        Nothing.

    Examples
    --------
    >>> import graphjit
    >>> losses = []
    >>> @graphjit.grad
    ... def slope(x):
    ...     loss = (x - 1.0) ** 2
    ...     graphjit.debug.callback(losses.append, loss)
    ...     return loss
    >>> x = 3.0
    >>> for _ in range(3):
    ...     x = float(x - 0.25 * slope(x))
    >>> losses
    [4.0, 1.0, 0.25]
    """
    require_callable(function, "debug.callback")
    tell(function, name_of(function), args, kwargs)


class _Any:
    """Stands for a value whose places in a text are looked at."""

    def __getattr__(self, name: str) -> _Any:
        return self

    def __getitem__(self, key: Any) -> _Any:
        return self

    def __format__(self, spec: str) -> str:
        return ""


class _Places(string.Formatter):
    """`str.format` that refuses values which stand nowhere in the text."""

    def check_unused_args(
        self, used_args: set[int | str], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """Called with the numbers and names in the text.

        Raises:
            ValueError: there are more values.
        """
        unused = [f"value {i}" for i in range(len(args)) if i not in used_args]
        unused += [f"{name}=" for name in kwargs if name not in used_args]
        if unused:
            raise ValueError(
                f"debug.print: the text has no place for {', '.join(unused)}; write {{}} or {{name}} where a value belongs"
            )
