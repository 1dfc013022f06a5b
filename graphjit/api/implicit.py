"""Derivatives of solutions: `custom_root`, `custom_linear_solve`, `fixed_point`.

A solver is called as it is. Its derivative does not go through its steps: it is that of the equation which
the solution satisfies (the implicit function theorem).

Input: an equation, and functions that solve it. Output: the solution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.api.control import fori_loop, while_loop
from graphjit.api.options import require_callable
from graphjit.trace.pytree import flatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.tracebacks import hides_frames
from graphjit.trace.transformed import implicit
from graphjit.trace.transformed.control_bodies import stands_for


@hides_frames
def custom_root(
    f: Callable[[Any], Any],
    initial_guess: Any,
    solve: Callable[[Callable[[Any], Any], Any], Any],
    tangent_solve: Callable[[Callable[[Any], Any], Any], Any] | None = None,
    has_aux: bool = False,
) -> Any:
    """Solve ``f(x) = 0``, with the derivative of the solution in all that ``f`` reads from outside.

    Parameters
    ----------
    f : callable
        ``f(x)`` has the containers and shapes of ``x``. Parameters are read from outside.
    initial_guess : array, number, or container of them
        Where ``solve`` begins. The solution does not depend on it, as far as derivatives are concerned.
    solve : callable
        ``solve(f, initial_guess)`` returns the solution.
    tangent_solve : callable, optional
        ``tangent_solve(g, y)`` solves ``g(x) = y`` for a linear function ``g``. By default the matrix of
        ``g`` is made and solved directly, for up to 8 unknowns.
    has_aux : bool, optional
        Whether ``solve`` returns a pair, of which only the first is differentiated.

    Returns
    -------
    x
        The solution; with `has_aux` the pair that ``solve`` returned.

    Raises
    ------
    DerivativeError
        When a derivative is taken: ``f(x)`` is built otherwise than ``x``, or there are more than 8 unknowns
        and no ``tangent_solve``.

    Examples
    --------
    >>> import graphjit
    >>> def newton(f, x):
    ...     for _ in range(20):
    ...         x = x - f(x) / graphjit.grad(f)(x)
    ...     return x
    >>> def root(a):
    ...     return graphjit.custom_root(lambda x: x * x - a, 1.0, newton)
    >>> graphjit.grad(root)(4.0)
    np.float64(0.25)
    """
    require_callable(f, "custom_root")
    trace = active_trace()
    if trace is None:
        return solve(f, initial_guess)
    return implicit.root(trace, f, initial_guess, solve, tangent_solve, has_aux)


@hides_frames
def custom_linear_solve(
    matvec: Callable[[Any], Any],
    b: Any,
    solve: Callable[[Callable[[Any], Any], Any], Any],
    transpose_solve: Callable[[Callable[[Any], Any], Any], Any] | None = None,
    symmetric: bool = False,
    has_aux: bool = False,
) -> Any:
    """Solve a linear system, with the derivative of the solution in both sides.

    The system is ``matvec(x) = b``; what ``matvec`` reads from outside has derivatives too.

    Parameters
    ----------
    matvec : callable
        A linear function: the product of the matrix with a vector.
    b : array, number, or container of them
        The right-hand side.
    solve : callable
        ``solve(matvec, b)`` returns the solution.
    transpose_solve : callable, optional
        ``transpose_solve(vecmat, ct)`` solves the transposed system; needed for reverse mode unless the
        matrix is symmetric.
    symmetric : bool, optional
        Whether the matrix is symmetric, so that ``solve`` serves both.
    has_aux : bool, optional
        Whether ``solve`` returns a pair, of which only the first is differentiated.

    Returns
    -------
    x
        The solution; with `has_aux` the pair that ``solve`` returned.

    Raises
    ------
    DerivativeError
        Reverse mode is asked for and there is no ``transpose_solve``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> def solution(d, b):
    ...     invert = lambda f, b: b / f(np.ones(2))
    ...     return graphjit.custom_linear_solve(lambda x: d * x, b, invert, symmetric=True)
    >>> graphjit.grad(lambda d: np.sum(solution(d, np.ones(2))))(np.array([1.0, 2.0]))
    array([-1.  , -0.25])
    """
    require_callable(matvec, "custom_linear_solve")
    trace = active_trace()
    if trace is None:
        return solve(matvec, b)
    return implicit.linear_solve(trace, matvec, b, solve, solve if symmetric else transpose_solve, has_aux)


@hides_frames
def fixed_point(
    f: Callable[[Any], Any],
    initial_guess: Any,
    *,
    num_steps: int = 50,
    tol: Any = None,
    tangent_solve: Callable[[Callable[[Any], Any], Any], Any] | None = None,
) -> Any:
    """Iterate ``x = f(x)``, with the derivative of the fixed point in all that ``f`` reads from outside.

    Parameters
    ----------
    f : callable
        ``f(x)`` has the containers and shapes of ``x``. Parameters are read from outside.
    initial_guess : array, number, or container of them
        Where the iteration begins.
    num_steps : int, optional
        How many steps are made; with `tol` at most.
    tol : float, optional
        Stop as soon as no number changes by more than this. Steps are a `while_loop` then, else a
        `fori_loop`.
    tangent_solve : callable, optional
        As in `custom_root`.

    Returns
    -------
    x
        The value after the last step.

    Raises
    ------
    DerivativeError
        As `custom_root`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> def kepler(e, m):
    ...     return graphjit.fixed_point(lambda x: m + e * np.sin(x), m, num_steps=60)
    >>> graphjit.grad(kepler)(0.1, 1.0).round(6)
    np.float64(0.929061)
    """
    require_callable(f, "fixed_point")

    def iterate(_: Any, x: Any) -> Any:
        if active_trace() is None:  # a guess of integers may become floats
            return _iterated(f, x, num_steps, tol)
        if tol is None:
            return fori_loop(0, num_steps, step, x)
        if num_steps < 1:
            return x
        return while_loop(goes_on, following, (x, f(x), 1))[1]

    def step(_: Any, x: Any) -> Any:
        return f(x)

    def following(state: Any) -> Any:
        _, x, count = state
        return x, f(x), count + 1

    def goes_on(state: Any) -> Any:
        before, x, count = state
        return np.logical_and(count < num_steps, _distance(before, x) > tol)

    for own in (step, following):
        stands_for(own, f)
    return custom_root(implicit.residual(f), initial_guess, iterate, tangent_solve)


def _iterated(f: Callable[[Any], Any], x: Any, num_steps: int, tol: Any) -> Any:
    """What is iterated where nothing is recorded."""
    for _ in range(num_steps):
        before, x = x, f(x)
        if tol is not None and not _distance(before, x) > tol:
            break
    return x


def _distance(x: Any, y: Any) -> Any:
    """The largest difference of two trees of numbers; NaN where one is NaN."""
    pairs = zip(flatten(x)[0], flatten(y)[0], strict=True)
    parts = [np.max(np.abs(b - a)) for a, b in pairs if np.size(a)]
    return functools.reduce(np.maximum, parts) if parts else 0.0
