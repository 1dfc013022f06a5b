"""`jacfwd`, `jacrev`, `jacobian` and `hessian`: all first or second derivatives of a function.

Input: a Python function written with NumPy. Output: a compiled callable.
Invariant: called inside a traced function, it becomes part of that trace.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.api.options import (
    Names,
    Positions,
    current_trace,
    inner_statics,
    numbered,
    positions,
    require_callable,
)
from graphjit.dispatch import Dispatcher, compiled_function
from graphjit.trace.tracebacks import hides_frames
from graphjit.trace.transformed import jacobians
from graphjit.trace.transformed.jacobians import Mode


@hides_frames
def jacfwd(
    fun: Callable[..., Any] | None = None,
    argnums: Positions = 0,
    has_aux: bool = False,
    *,
    chunk_size: int | None = None,
    static_argnums: Positions = (),
    static_argnames: Names = (),
    backend: str = "llvm",
    python_control_flow: bool = True,
    reroll: bool = True,
) -> Any:
    """Make the compiled Jacobian of a function, column by column (forward mode).

    It costs about one evaluation of the function for each number that goes in: the mode for functions that
    return more numbers than they take.

    Parameters
    ----------
    fun : callable, optional
        A function written with NumPy that returns arrays, numbers or containers of them. Without it the
        result is a decorator.
    argnums : int or sequence of int, optional
        Positions of the arguments to differentiate.
    has_aux : bool, optional
        Whether the function returns a pair, of which only the first is differentiated.
    chunk_size : int, optional
        How many directions are computed at a time. Fewer need less memory. By default all of them, or as many
        as fit a share of the machine's memory.
    static_argnums, static_argnames, backend, python_control_flow, reroll : optional
        As in `jit`.

    Returns
    -------
    callable
        A function of the same arguments. In the containers of the result stands, for each leaf, a tree like
        the argument, whose leaves have the shape of the result followed by that of the argument. If several
        arguments are asked for, each such tree is a tuple of trees. With `has_aux` it returns
        ``(jacobian, aux)``.

    Raises
    ------
    DerivativeError
        At a call: an argument to differentiate is not floating point, a result is no array, or an operation
        has no derivative.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> def polar(p):
    ...     return np.array([p[0] * np.cos(p[1]), p[0] * np.sin(p[1])])
    >>> graphjit.jacfwd(polar)(np.array([2.0, np.pi / 2])).round(6)
    array([[ 0., -2.],
           [ 1.,  0.]])
    """
    return _made(
        jacfwd,
        fun,
        argnums,
        has_aux,
        chunk_size,
        static_argnums,
        static_argnames,
        backend,
        python_control_flow,
        reroll,
    )


@hides_frames
def jacrev(
    fun: Callable[..., Any] | None = None,
    argnums: Positions = 0,
    has_aux: bool = False,
    *,
    chunk_size: int | None = None,
    static_argnums: Positions = (),
    static_argnames: Names = (),
    backend: str = "llvm",
    python_control_flow: bool = True,
    reroll: bool = True,
) -> Any:
    """Make the compiled Jacobian of a function, row by row (reverse mode).

    It costs about two evaluations of the function for each number that it returns: the mode for functions
    that take more numbers than they return.

    Parameters
    ----------
    fun, argnums, has_aux, chunk_size, static_argnums, static_argnames, backend, python_control_flow, reroll
        As in `jacfwd`; `chunk_size` counts elements of the result.

    Returns
    -------
    callable
        As `jacfwd`.

    Raises
    ------
    DerivativeError
        As `jacfwd`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.jacrev(lambda w, x: w @ x)(np.ones((2, 3)), np.array([1.0, 2.0, 3.0])).shape
    (2, 2, 3)
    """
    return _made(
        jacrev,
        fun,
        argnums,
        has_aux,
        chunk_size,
        static_argnums,
        static_argnames,
        backend,
        python_control_flow,
        reroll,
    )


@hides_frames
def jacobian(
    fun: Callable[..., Any] | None = None,
    argnums: Positions = 0,
    has_aux: bool = False,
    *,
    chunk_size: int | None = None,
    static_argnums: Positions = (),
    static_argnames: Names = (),
    backend: str = "llvm",
    python_control_flow: bool = True,
    reroll: bool = True,
) -> Any:
    """Make the compiled Jacobian of a function, by the mode that costs less.

    That is forward mode (`jacfwd`) unless more than twice as many numbers go in as come out; then it is
    reverse mode (`jacrev`). ``GRAPHJIT_LOG=jacobian`` says which is taken, and why.

    Parameters
    ----------
    fun, argnums, has_aux, chunk_size, static_argnums, static_argnames, backend, python_control_flow, reroll
        As in `jacfwd`.

    Returns
    -------
    callable
        As `jacfwd`.

    Raises
    ------
    DerivativeError
        As `jacfwd`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.jacobian(np.cumsum)(np.array([1.0, 2.0]))
    array([[1., 0.],
           [1., 1.]])
    """
    return _made(
        jacobian,
        fun,
        argnums,
        has_aux,
        chunk_size,
        static_argnums,
        static_argnames,
        backend,
        python_control_flow,
        reroll,
    )


@hides_frames
def hessian(
    fun: Callable[..., Any] | None = None,
    argnums: Positions = 0,
    has_aux: bool = False,
    *,
    chunk_size: int | None = None,
    static_argnums: Positions = (),
    static_argnames: Names = (),
    backend: str = "llvm",
    python_control_flow: bool = True,
    reroll: bool = True,
) -> Any:
    """Make the compiled Hessian of a function (forward over reverse mode).

    Parameters
    ----------
    fun : callable, optional
        A function written with NumPy; usually it returns one number. Without it the result is a decorator.
    argnums, has_aux, chunk_size, static_argnums, static_argnames : optional
        As in `jacfwd`.
    backend, python_control_flow, reroll : optional
        As in `jacfwd`.

    Returns
    -------
    callable
        A function of the same arguments. For an argument of shape ``s`` and a result of shape ``r`` it
        returns an array of shape ``(*r, *s, *s)``; containers stand as in ``jacfwd(jacrev(fun))``. With
        `has_aux` it returns ``(hessian, aux)``.

    Raises
    ------
    DerivativeError
        As `jacfwd`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 3.0]))
    array([[6., 2.],
           [2., 0.]])
    """
    return _made(
        hessian,
        fun,
        argnums,
        has_aux,
        chunk_size,
        static_argnums,
        static_argnames,
        backend,
        python_control_flow,
        reroll,
    )


def _made(
    make: Callable[..., Any],
    fun: Any,
    argnums: Positions,
    has_aux: bool,
    chunk_size: int | None,
    static_argnums: Positions,
    static_argnames: Names,
    backend: str,
    python_control_flow: bool,
    reroll: bool,
) -> Any:
    """What ``make``, one of the functions above, returns."""
    recipe = functools.partial(
        make,
        argnums=argnums,
        has_aux=has_aux,
        chunk_size=chunk_size,
        static_argnums=static_argnums,
        static_argnames=static_argnames,
        backend=backend,
        python_control_flow=python_control_flow,
        reroll=reroll,
    )
    if fun is None:
        return recipe
    name = make.__name__
    require_callable(fun, name)
    whole = isinstance(chunk_size, int | np.integer) and not isinstance(chunk_size, bool)
    if chunk_size is not None and (not whole or chunk_size < 1):
        raise ValueError(f"{name}: chunk_size is a positive number of directions, not {chunk_size!r}")
    function, statics = inner_statics(fun, static_argnums, static_argnames)
    if name == "hessian":
        run = _Jacobian(
            _Jacobian(fun, argnums, has_aux, "jacrev", None), argnums, has_aux, "jacfwd", chunk_size
        )
    else:
        run = _Jacobian(fun, argnums, has_aux, name, chunk_size)  # type: ignore[arg-type]
    return compiled_function(
        Dispatcher(run, function, *statics, backend, python_control_flow=python_control_flow, reroll=reroll),
        fun,
        (recipe, (fun,)),
    )


class _Jacobian:
    """The Jacobian of a function, to be called on traced values."""

    def __init__(
        self, fun: Callable[..., Any], argnums: Positions, has_aux: bool, mode: Mode, chunk: int | None
    ) -> None:
        self.fun = fun
        self.__name__ = getattr(fun, "__name__", type(fun).__name__)
        self.argnums = positions(argnums)
        self.single = isinstance(argnums, int | np.integer)
        self.has_aux = has_aux
        self.mode = mode
        self.chunk = chunk

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        wanted = numbered(self.argnums, args, self.fun)
        tree, aux = jacobians.jacobian(
            current_trace(), self.fun, args, kwargs, wanted, self.single, self.has_aux, self.mode, self.chunk
        )
        return (tree, aux) if self.has_aux else tree
