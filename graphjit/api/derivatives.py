"""The public derivatives: `grad`, `value_and_grad`, `jvp`, `vjp`, `linearize`, `hvp`.

Names, argument order and results are as in JAX; values are NumPy's.

Input: a Python function written with NumPy. Output: a compiled callable (or, for `jvp` and `vjp`, results).
Invariant: every transformation, called inside a traced function, becomes part of that trace.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar, overload

from graphjit.api.gradient import Gradient
from graphjit.api.halves import First, SecondHalf, compiled_forward, compiled_linearization
from graphjit.api.options import Names, Positions, current_trace, inner_statics, kept, require_callable
from graphjit.dispatch import Dispatcher, compiled_function
from graphjit.errors import DerivativeError
from graphjit.trace.recording.active import active_trace
from graphjit.trace.tracebacks import hides_frames
from graphjit.trace.transformed import derivatives

P = ParamSpec("P")
R = TypeVar("R")
Aux = TypeVar("Aux")


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
    python_control_flow: bool = ...,
    reroll: bool = ...,
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
    python_control_flow: bool = ...,
    reroll: bool = ...,
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
    python_control_flow: bool = True,
    reroll: bool = True,
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
    static_argnums, static_argnames, backend, python_control_flow, reroll : optional
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
    return _gradient(
        fun,
        argnums,
        has_aux,
        argnames,
        static_argnums,
        static_argnames,
        backend,
        python_control_flow,
        reroll,
        False,
    )


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
    python_control_flow: bool = ...,
    reroll: bool = ...,
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
    python_control_flow: bool = ...,
    reroll: bool = ...,
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
    python_control_flow: bool = True,
    reroll: bool = True,
) -> Any:
    """Make a compiled function that returns a value together with its gradient.

    Both come from one program, which computes only once what they share.

    Parameters
    ----------
    fun : callable, optional
        The function, as for `grad`.
    argnums, has_aux, argnames, static_argnums, static_argnames : optional
        As in `grad`.
    backend, python_control_flow, reroll : optional
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
    return _gradient(
        fun,
        argnums,
        has_aux,
        argnames,
        static_argnums,
        static_argnames,
        backend,
        python_control_flow,
        reroll,
        True,
    )


def _gradient(
    fun: Any,
    argnums: Any,
    has_aux: bool,
    argnames: Any,
    static_argnums: Positions,
    static_argnames: Names,
    backend: str,
    python_control_flow: bool,
    reroll: bool,
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
        python_control_flow=python_control_flow,
        reroll=reroll,
    )
    if fun is None:
        return recipe
    require_callable(fun, "value_and_grad" if with_value else "grad")
    function, statics = inner_statics(fun, static_argnums, static_argnames)
    run = Gradient(fun, argnums, argnames, has_aux, with_value)
    return compiled_function(
        Dispatcher(run, function, *statics, backend, python_control_flow=python_control_flow, reroll=reroll),
        fun,
        (recipe, (fun,)),
    )


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
    require_callable(fun, "jvp")
    _check_pairs("jvp", primals, tangents)
    if active_trace() is not None:
        return derivatives.jvp(current_trace(), fun, primals, tangents)
    return kept((fun, "jvp"), lambda: _compiled_jvp(fun))(tuple(primals), tuple(tangents))  # type: ignore[no-any-return]


def _compiled_jvp(fun: Callable[..., Any]) -> Any:
    def run(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        return derivatives.jvp(current_trace(), fun, primals, tangents)

    return _on_pairs(run, fun, _compiled_jvp)


def _on_pairs(run: Callable[..., Any], fun: Callable[..., Any], make: Callable[..., Any]) -> Any:
    """What ``make(fun)`` returns: ``run`` compiled, a function of primals and tangents."""
    dispatcher = Dispatcher(run, fun)
    dispatcher.named_by = run
    return compiled_function(dispatcher, fun, (functools.partial(make), (fun,)))


def _check_pairs(what: str, primals: Any, tangents: Any) -> None:
    """Refuse what is no primal and tangent for each argument.

    Raises:
        DerivativeError: they are no tuples or lists, or not as many.
    """
    if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
        raise DerivativeError(
            f"{what} takes the primals and the tangents as tuples or lists: {what}(f, (x,), (dx,))"
        )
    if len(primals) != len(tangents):
        raise DerivativeError(f"{what}: {len(primals)} primals and {len(tangents)} tangents")


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
    require_callable(fun, "vjp")
    if active_trace() is not None:
        out, pullback, aux = derivatives.vjp(current_trace(), fun, primals, has_aux)
    else:
        forward = kept((fun, "vjp", has_aux), lambda: compiled_forward(fun, has_aux))
        out, residuals, backward, aux = forward(*primals)
        pullback = functools.partial(backward, residuals, first=First.watched(forward, primals, out, aux))
    return (out, pullback, aux) if has_aux else (out, pullback)


@hides_frames
def linearize(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Compute a value, and make the function that pushes tangents to the results (forward mode).

    What does not depend on the tangent is computed once. Use it where one point has many directions; for one
    direction `jvp` needs less memory.

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
    pushforward : callable
        ``pushforward(*tangents)`` takes for each primal a tangent with its containers and shapes. It returns
        the tangent of `out`.
    aux
        The second of the pair; only with `has_aux`.

    Raises
    ------
    DerivativeError
        A primal is not floating point, or an operation has no derivative; in the pushforward: a tangent does
        not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> out, pushforward = graphjit.linearize(np.cumprod, np.array([1.0, 2.0, 3.0]))
    >>> out
    array([1., 2., 6.])
    >>> pushforward(np.array([0.0, 1.0, 0.0]))
    array([0., 1., 3.])
    """
    require_callable(fun, "linearize")
    if active_trace() is not None:
        out, pushforward, aux, _ = derivatives.linearize(current_trace(), fun, primals, has_aux)
    else:
        first = kept((fun, "linearize", has_aux), lambda: compiled_linearization(fun, has_aux))
        out, residuals, second, aux = first(*primals)
        pushforward = functools.partial(_push, second, residuals, First.watched(first, primals, out, aux))
    return (out, pushforward, aux) if has_aux else (out, pushforward)


@hides_frames
def _push(second: SecondHalf, residuals: Sequence[Any], first: First | None, *tangents: Any) -> Any:
    return second(residuals, tangents, first)


@hides_frames
def hvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """Multiply the Hessian of a function by a vector, without the Hessian (forward over reverse mode).

    It costs a few evaluations of the function, however many numbers go in.

    Parameters
    ----------
    fun : callable
        A function of floating-point arguments that returns one floating-point number.
    primals : tuple or list
        The arguments of `fun`.
    tangents : tuple or list
        The vector: for each primal a value with its containers and shapes.

    Returns
    -------
    tuple
        The product: for each primal a value with its containers, shapes and dtypes.

    Raises
    ------
    DerivativeError
        Containers, shapes or dtypes do not fit, the result is not one number, or an operation has no
        derivative.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.hvp(lambda x: np.sum(x**3), (np.array([1.0, 2.0]),), (np.array([1.0, 0.0]),))
    (array([6., 0.]),)
    """
    require_callable(fun, "hvp")
    _check_pairs("hvp", primals, tangents)
    if active_trace() is not None:
        return derivatives.hvp(current_trace(), fun, primals, tangents)
    return kept((fun, "hvp"), lambda: _compiled_hvp(fun))(tuple(primals), tuple(tangents))  # type: ignore[no-any-return]


def _compiled_hvp(fun: Callable[..., Any]) -> Any:
    def run(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, ...]:
        return derivatives.hvp(current_trace(), fun, primals, tangents)

    return _on_pairs(run, fun, _compiled_hvp)
