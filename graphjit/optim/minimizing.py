"""SciPy's minimisers for functions of containers.

Job: SciPy sees one float64 vector. A compiled function takes it apart into the container, computes value and
gradient, and puts the gradient together, so that no Python runs between the vector and the kernels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphjit.api.derivatives import value_and_grad
from graphjit.api.options import require_callable
from graphjit.optim.base import Tree
from graphjit.trace.pytree import flatten, prefix_leaves, unflatten
from graphjit.trace.tracebacks import hides_frames

Shapes = tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]

MOST_KEPT = 16
"""Functions whose compiled form is kept from call to call."""


def _tree(vector: Any, spec: Any, shapes: Shapes) -> Tree:
    """The container whose numbers are those of a vector."""
    sizes = [int(np.prod(shape)) for shape, _ in shapes]
    ends = list(itertools.accumulate(sizes))
    return unflatten(
        spec,
        [
            vector[end - size : end].reshape(shape).astype(dtype)
            for (shape, dtype), size, end in zip(shapes, sizes, ends, strict=True)
        ],
    )


@functools.lru_cache(MOST_KEPT)
def _compiled(fun: Callable[..., Any], spec: Any, shapes: Shapes) -> Callable[..., Any]:
    """Value and gradient of ``fun`` as a function of a vector."""
    return value_and_grad(lambda vector, args: fun(_tree(vector, spec, shapes), *args))


@hides_frames
def minimize(
    fun: Callable[..., Any],
    x0: Tree,
    args: tuple[Any, ...] = (),
    *,
    method: str = "L-BFGS-B",
    bounds: tuple[Tree, Tree] | None = None,
    tol: float | None = None,
    callback: Callable[[Any], Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Minimise a function of a container by SciPy, with a compiled gradient.

    As `scipy.optimize.minimize`, but ``x0`` may be any container of arrays and numbers, and the gradient is
    compiled. SciPy computes in float64; the function gets the dtypes of ``x0``.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` returns a number. It is compiled once for each structure of ``x``.
    x0 : pytree
        Where to start: arrays and numbers of floating point.
    args : tuple, optional
        Further arguments.
    method : str, optional
        One of SciPy's methods that use a gradient and no Hessian.
    bounds : tuple of two pytrees, optional
        The smallest and the largest values, containers like ``x0`` or outer parts of it: ``(0.0, None)`` says
        that no number may be negative.
    tol : float, optional
        As in SciPy.
    callback : callable, optional
        ``callback(intermediate_result)`` is called after each iteration with an ``OptimizeResult`` that has
        ``x``, a container, and ``fun``. It may raise ``StopIteration``.
    options : mapping, optional
        As in SciPy: ``{"maxiter": 100}``.

    Returns
    -------
    scipy.optimize.OptimizeResult
        SciPy's, with ``x`` and ``jac`` as containers like ``x0``.

    Raises
    ------
    TypeError
        A leaf of ``x0`` is no number of floating point.
    ValueError
        ``bounds`` do not fit ``x0``.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> def distance(p, target):
    ...     return np.sum((p["x"] - target) ** 2) + (p["y"] - 1.0) ** 4
    >>> found = optim.minimize(distance, {"x": np.zeros(2), "y": 0.5}, (np.array([3.0, -2.0]),))
    >>> found.success, found.x["x"].round(3)
    (True, array([ 3., -2.]))
    """
    from scipy.optimize import OptimizeResult
    from scipy.optimize import minimize as minimize_vector

    require_callable(fun, "minimize")
    leaves, spec = flatten(x0)
    arrays = [np.asarray(leaf) for leaf in leaves]
    for leaf, array in zip(leaves, arrays, strict=True):
        if array.dtype.kind != "f":
            raise TypeError(f"minimize: x0 must consist of numbers of floating point, not {leaf!r}")
    shapes = tuple((array.shape, array.dtype) for array in arrays)
    evaluate = _compiled(fun, spec, shapes)

    def as_tree(vector: Any) -> Tree:
        return _tree(np.array(vector, np.float64), spec, shapes)

    def told(intermediate_result: Any) -> None:
        assert callback is not None
        callback(OptimizeResult(x=as_tree(intermediate_result.x), fun=intermediate_result.fun))

    found = minimize_vector(
        lambda vector: evaluate(vector, args),
        np.concatenate([array.ravel() for array in arrays], dtype=np.float64),
        method=method,
        jac=True,
        bounds=None if bounds is None else _vectors(bounds, x0, arrays),
        tol=tol,
        callback=None if callback is None else told,
        options=None if options is None else dict(options),
    )
    found.x, found.jac = as_tree(found.x), as_tree(found.jac)
    return found


def _vectors(bounds: tuple[Tree, Tree], x0: Tree, arrays: Sequence[np.ndarray[Any, Any]]) -> Any:
    """SciPy's bounds; None is no bound."""
    from scipy.optimize import Bounds

    sides = []
    for tree, default in zip(bounds, (-np.inf, np.inf), strict=True):
        ends = prefix_leaves(tree, x0, "bounds")
        sides.append(
            np.concatenate(
                [
                    np.broadcast_to(default if end is None else end, array.shape).ravel()
                    for end, array in zip(ends, arrays, strict=True)
                ]
            )
        )
    return Bounds(*sides)
