"""`jit`, and the number of threads that compiled functions use.

Input: a Python function written with NumPy. Output: a compiled callable.
Invariant: called inside a traced function, it becomes part of that trace.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

import numpy as np

import graphjit.api.pickling  # noqa: F401  a method of every compiled function
from graphjit.api.options import Names, Positions, names, positions, require_callable
from graphjit.backend.llvm.threads import pool as thread_pool
from graphjit.dispatch import Dispatcher, compiled_function
from graphjit.trace.marks import dispatcher_of
from graphjit.trace.tracebacks import hides_frames

P = ParamSpec("P")
R = TypeVar("R")


@overload
def jit(
    fun: Callable[P, R],
    *,
    static_argnums: Positions = ...,
    static_argnames: Names = ...,
    donate_argnums: Positions = ...,
    donate_argnames: Names = ...,
    backend: str = ...,
    python_control_flow: bool = ...,
    reroll: bool = ...,
) -> Callable[P, R]: ...


@overload
def jit(
    fun: None = None,
    *,
    static_argnums: Positions = ...,
    static_argnames: Names = ...,
    donate_argnums: Positions = ...,
    donate_argnames: Names = ...,
    backend: str = ...,
    python_control_flow: bool = ...,
    reroll: bool = ...,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


@hides_frames
def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: Positions = (),
    static_argnames: Names = (),
    donate_argnums: Positions = (),
    donate_argnames: Names = (),
    backend: str = "llvm",
    python_control_flow: bool = True,
    reroll: bool = True,
) -> Any:
    """Compile a function.

    The first call with new dtypes, shapes or static values runs ``fun`` once to record what it computes, and
    compiles that. Later calls run native code.

    Parameters
    ----------
    fun : callable, optional
        Written with NumPy. Its arguments and results are arrays, numbers, and containers of them: tuples,
        lists, dicts, dataclasses. Without it the result is a decorator: ``@jit(static_argnums=1)``.
    static_argnums : int or sequence of int, optional
        Positions of arguments that are fixed, hashable Python values; each value compiles code of its own.
    static_argnames : str or sequence of str, optional
        Names of such arguments.
    donate_argnums : int or sequence of int, optional
        Positions of arguments whose contents the caller gives up; see Notes.
    donate_argnames : str or sequence of str, optional
        Names of such arguments.
    backend : {"llvm", "numba"}, optional
        ``"llvm"`` makes native code. ``"numba"`` lets Numba compile the same loops from Python source, which
        is slower and meant for comparison.
    python_control_flow : bool, optional
        Whether ``if``, ``while`` and ``for`` may depend on values that are known only when the compiled code
        runs. Then the function is converted, and so are the user's functions that it calls. With False they
        are an error.
    reroll : bool, optional
        Whether a Python loop of many equal steps is compiled as a loop. Without it, and where steps differ,
        each step is code of its own.

    Returns
    -------
    callable
        A function of the same arguments. Its results are ndarrays and NumPy scalars with the shapes and
        dtypes that NumPy gives them.

    Raises
    ------
    ValueError
        There is no such backend or parameter, or a parameter is both static and donated.
    TraceError
        At a call: Python control flow, or a conversion, needs the value of an array.
    UnsupportedError
        At a call: a NumPy function, dtype or array subclass that is not compiled.

    Notes
    -----
    A result may be a donated array of the same dtype and shape, overwritten. That happens if the array owns
    contiguous, writable memory that no other array of the call touches, and if the program reads each element
    before it writes it. Otherwise the array stays as it was and the result is a new one. Values never differ.
    After the call, and also when it raised, use only the results. Inside another traced function donation
    means nothing.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> @graphjit.jit
    ... def norm(x):
    ...     return np.sqrt(np.sum(x * x))
    >>> norm(np.array([3.0, 4.0]))
    np.float64(5.0)
    """
    recipe = functools.partial(
        jit,
        static_argnums=static_argnums,
        static_argnames=static_argnames,
        donate_argnums=donate_argnums,
        donate_argnames=donate_argnames,
        backend=backend,
        python_control_flow=python_control_flow,
        reroll=reroll,
    )
    return recipe if fun is None else _jitted(fun, recipe)


def _jitted(fun: Callable[..., Any], recipe: functools.partial[Any]) -> Any:
    """The compiled function that ``recipe``, a `jit` with all of its options, makes of ``fun``."""
    require_callable(fun, "jit")
    options = recipe.keywords
    inner = dispatcher_of(fun)
    dispatcher = Dispatcher(
        fun,
        fun if inner is None else inner.function,
        positions(options["static_argnums"]),
        names(options["static_argnames"]),
        options["backend"],
        positions(options["donate_argnums"]),
        names(options["donate_argnames"]),
        options["python_control_flow"],
        options["reroll"],
    )
    return compiled_function(dispatcher, fun, (recipe, (fun,)))


@hides_frames
def set_num_threads(threads: int) -> None:
    """Set how many threads compiled functions use from now on, in the whole process.

    The calling thread counts. Results do not depend on the number, bit for bit. More threads than cores are
    allowed, but seldom faster.

    Parameters
    ----------
    threads : int
        One or more.

    Raises
    ------
    ValueError
        `threads` is less than one.
    TypeError
        `threads` is no integer.

    Examples
    --------
    >>> import graphjit
    >>> before = graphjit.get_num_threads()
    >>> graphjit.set_num_threads(1)
    >>> graphjit.get_num_threads()
    1
    >>> graphjit.set_num_threads(before)
    """
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer):
        raise TypeError(f"the number of threads must be an integer, not {threads!r}")
    thread_pool.configure(int(threads))


def get_num_threads() -> int:
    """Tell how many threads compiled functions use.

    Returns
    -------
    int
        What `set_num_threads` was given last; before that ``GRAPHJIT_NUM_THREADS`` or ``OMP_NUM_THREADS``, or
        else the number of cores of this process.

    Examples
    --------
    >>> import graphjit
    >>> graphjit.get_num_threads() >= 1
    True
    """
    return thread_pool.num_threads()
