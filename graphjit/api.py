"""The public transformations: `jit`, `grad`, `value_and_grad`, `jvp`, `vjp`, and the number of threads.

Names, argument order and results are as in JAX; values are NumPy's.

Input: a Python function written with NumPy. Output: a compiled callable (or, for `jvp` and `vjp`, results).
Invariant: every transformation, called inside a traced function, becomes part of that trace.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar, overload

import numpy as np

from graphjit.backend.llvm.threads import pool as thread_pool
from graphjit.dispatch import Dispatcher, compiled_function
from graphjit.errors import DerivativeError
from graphjit.gradient import Gradient, Names, Positions, names, positions
from graphjit.pullback import compiled_forward, current_trace
from graphjit.trace import differentiate
from graphjit.trace.marks import dispatcher_of
from graphjit.trace.recording.active import active_trace
from graphjit.trace.tracebacks import hides_frames

P = ParamSpec("P")
R = TypeVar("R")
Aux = TypeVar("Aux")


@overload
def jit(
    fun: Callable[P, R],
    *,
    static_argnums: Positions = ...,
    static_argnames: Names = ...,
    donate_argnums: Positions = ...,
    donate_argnames: Names = ...,
    backend: str = ...,
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
    )
    return recipe if fun is None else _jitted(fun, recipe)


def _jitted(fun: Callable[..., Any], recipe: functools.partial[Any]) -> Any:
    """The compiled function that ``recipe``, a `jit` with all of its options, makes of ``fun``."""
    _require_callable(fun, "jit")
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
    )
    return compiled_function(dispatcher, fun, (recipe, (fun,)))


@overload
def grad(
    fun: Callable[P, Any],
    argnums: Positions | None = ...,
    has_aux: bool = ...,
    *,
    argnames: Names = ...,
    static_argnums: Positions = ...,
    static_argnames: Names = ...,
    backend: str = ...,
) -> Callable[P, Any]: ...


@overload
def grad(
    fun: None = None,
    argnums: Positions | None = ...,
    has_aux: bool = ...,
    *,
    argnames: Names = ...,
    static_argnums: Positions = ...,
    static_argnames: Names = ...,
    backend: str = ...,
) -> Callable[[Callable[P, Any]], Callable[P, Any]]: ...


@hides_frames
def grad(
    fun: Callable[..., Any] | None = None,
    argnums: Positions | None = None,
    has_aux: bool = False,
    *,
    argnames: Names = (),
    static_argnums: Positions = (),
    static_argnames: Names = (),
    backend: str = "llvm",
) -> Any:
    """Make the compiled gradient of a function that returns one floating-point number.

    Parameters
    ----------
    fun : callable, optional
        The function, written with NumPy. It returns a number (a value of shape ``()``), or ``(number, aux)``
        with `has_aux`. Without it the result is a decorator.
    argnums : int or sequence of int, optional
        Positions of the arguments to differentiate; the first argument if neither this nor `argnames` is
        given.
    has_aux : bool, optional
        Whether the function returns a pair, of which only the first is differentiated.
    argnames : str or sequence of str, optional
        Names of arguments to differentiate, alone or besides `argnums`.
    static_argnums, static_argnames, backend : optional
        As in `jit`.

    Returns
    -------
    callable
        A function of the same arguments that returns the gradient, which has the containers, shapes and
        dtypes of the argument. Where several arguments are asked for, it returns a tuple of gradients; with
        `has_aux` it returns ``(gradient, aux)``.

    Raises
    ------
    DerivativeError
        At a call: the result is not one floating-point number, an argument to differentiate is not floating
        point, or an operation has no derivative.
    TraceError, UnsupportedError
        As in `jit`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> def loss(w, x, y):
    ...     return np.mean((x @ w - y) ** 2)
    >>> graphjit.grad(loss)(np.zeros(2), np.eye(2), np.array([1.0, 2.0]))
    array([-1., -2.])
    """
    return _gradient(fun, argnums, has_aux, argnames, static_argnums, static_argnames, backend, False)


@overload
def value_and_grad(
    fun: Callable[P, R],
    argnums: Positions | None = ...,
    has_aux: bool = ...,
    *,
    argnames: Names = ...,
    static_argnums: Positions = ...,
    static_argnames: Names = ...,
    backend: str = ...,
) -> Callable[P, tuple[R, Any]]: ...


@overload
def value_and_grad(
    fun: None = None,
    argnums: Positions | None = ...,
    has_aux: bool = ...,
    *,
    argnames: Names = ...,
    static_argnums: Positions = ...,
    static_argnames: Names = ...,
    backend: str = ...,
) -> Callable[[Callable[P, R]], Callable[P, tuple[R, Any]]]: ...


@hides_frames
def value_and_grad(
    fun: Callable[..., Any] | None = None,
    argnums: Positions | None = None,
    has_aux: bool = False,
    *,
    argnames: Names = (),
    static_argnums: Positions = (),
    static_argnames: Names = (),
    backend: str = "llvm",
) -> Any:
    """Make a compiled function that returns a value together with its gradient.

    Both come from one program, which computes only once what they share.

    Parameters
    ----------
    fun : callable, optional
        The function, as for `grad`.
    argnums, has_aux, argnames, static_argnums, static_argnames, backend : optional
        As in `grad`.

    Returns
    -------
    callable
        A function of the same arguments that returns ``(value, gradient)``, or ``((value, aux), gradient)``
        with `has_aux`.

    Raises
    ------
    DerivativeError, TraceError, UnsupportedError
        At a call, as in `grad`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> @graphjit.value_and_grad
    ... def loss(w, x, y):
    ...     return np.mean((x @ w - y) ** 2)
    >>> loss(np.zeros(2), np.eye(2), np.array([1.0, 2.0]))
    (np.float64(2.5), array([-1., -2.]))
    """
    return _gradient(fun, argnums, has_aux, argnames, static_argnums, static_argnames, backend, True)


def _gradient(
    fun: Any,
    argnums: Any,
    has_aux: bool,
    argnames: Any,
    static_argnums: Positions,
    static_argnames: Names,
    backend: str,
    with_value: bool,
) -> Any:
    """What `grad` and, ``with_value``, `value_and_grad` return."""
    recipe = functools.partial(
        value_and_grad if with_value else grad,
        argnums=argnums,
        has_aux=has_aux,
        argnames=argnames,
        static_argnums=static_argnums,
        static_argnames=static_argnames,
        backend=backend,
    )
    if fun is None:
        return recipe
    _require_callable(fun, "value_and_grad" if with_value else "grad")
    inner = dispatcher_of(fun)
    statics = (positions(static_argnums), names(static_argnames))
    if inner is not None:
        statics = (statics[0] or inner.static_nums, statics[1] or tuple(inner.static_names))
    function = fun if inner is None else inner.function
    run = Gradient(fun, argnums, argnames, has_aux, with_value)
    return compiled_function(Dispatcher(run, function, *statics, backend), fun, (recipe, (fun,)))


@hides_frames
def jvp(fun: Callable[..., R], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[R, R]:
    """Compute a value and its directional derivative (forward mode).

    Parameters
    ----------
    fun : callable
        A function of floating-point arguments, written with NumPy.
    primals : tuple or list
        The arguments of `fun`.
    tangents : tuple or list
        The direction: for each primal a value with its containers and shapes.

    Returns
    -------
    value
        ``fun(*primals)``.
    tangent
        The derivative of the value in that direction, with the containers, shapes and dtypes of the value.

    Raises
    ------
    DerivativeError
        Containers, shapes or dtypes do not fit, or an operation has no derivative.

    Examples
    --------
    >>> import graphjit
    >>> graphjit.jvp(lambda x: x**3, (2.0,), (1.0,))
    (np.float64(8.0), np.float64(12.0))
    """
    _require_callable(fun, "jvp")
    if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
        raise DerivativeError(
            "jvp takes the primals and the tangents as tuples or lists: jvp(f, (x,), (dx,))"
        )
    if len(primals) != len(tangents):
        raise DerivativeError(f"jvp: {len(primals)} primals and {len(tangents)} tangents")
    if active_trace() is not None:
        return differentiate.jvp(current_trace(), fun, primals, tangents)
    return _kept((fun, "jvp"), lambda: _compiled_jvp(fun))(tuple(primals), tuple(tangents))  # type: ignore[no-any-return]


def _compiled_jvp(fun: Callable[..., Any]) -> Any:
    def run(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        return differentiate.jvp(current_trace(), fun, primals, tangents)

    dispatcher = Dispatcher(run, fun)
    dispatcher.named_by = run
    return compiled_function(dispatcher, fun, (functools.partial(_compiled_jvp), (fun,)))


Pulls = Callable[[Any], tuple[Any, ...]]
"""What `vjp` returns to be called with a cotangent."""


@overload
def vjp(fun: Callable[..., R], *primals: Any, has_aux: Literal[False] = False) -> tuple[R, Pulls]: ...


@overload
def vjp(fun: Callable[..., tuple[R, Aux]], *primals: Any, has_aux: Literal[True]) -> tuple[R, Pulls, Aux]: ...


@overload
def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool) -> tuple[Any, ...]: ...


@hides_frames
def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Compute a value, and make the function that pulls cotangents back to the arguments (reverse mode).

    The forward program runs once. The pullback reuses what it saved, as often as it is called.

    Parameters
    ----------
    fun : callable
        A function of floating-point arguments, written with NumPy.
    *primals
        The arguments of `fun`.
    has_aux : bool, optional
        Whether the function returns a pair, of which only the first is differentiated.

    Returns
    -------
    out
        ``fun(*primals)``; with `has_aux` the first of the pair.
    pullback : callable
        ``pullback(ct)`` takes a cotangent with the containers and shapes of `out`. It returns a tuple with
        one cotangent for each primal, which has the containers, shapes and dtypes of that primal.
    aux
        The second of the pair; only with `has_aux`.

    Raises
    ------
    DerivativeError
        A primal is not floating point, or an operation has no derivative; in the pullback: a cotangent does
        not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> out, pullback = graphjit.vjp(np.cumsum, np.array([1.0, 2.0, 3.0]))
    >>> out
    array([1., 3., 6.])
    >>> pullback(np.array([0.0, 1.0, 1.0]))
    (array([2., 2., 1.]),)
    """
    _require_callable(fun, "vjp")
    if active_trace() is not None:
        out, pullback, aux = differentiate.vjp(current_trace(), fun, primals, has_aux)
    else:
        forward = _kept((fun, "vjp", has_aux), lambda: compiled_forward(fun, has_aux))
        out, residuals, backward, aux = forward(*primals)
        pullback = functools.partial(backward, residuals)
    return (out, pullback, aux) if has_aux else (out, pullback)


_COMPANIONS = "__graphjit_companions__"


def _kept(key: Any, make: Callable[[], Any]) -> Any:
    """The compiled companion of a function, kept in the function's own ``__dict__`` so that both die
    together.

    Other callables (methods, partials) have none: they are traced again, and the structural cache still holds
    their code.
    """
    fun, *rest = key
    if not isinstance(fun, types.FunctionType):
        return make()
    row = fun.__dict__.setdefault(_COMPANIONS, {})
    kind = tuple(rest)
    if kind not in row:
        row[kind] = make()
    return row[kind]


def _require_callable(fun: Any, what: str) -> None:
    if not callable(fun):
        raise TypeError(f"{what} takes a function, not {type(fun).__name__}")


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
