"""SciPy's minimisers for functions of containers.

Job: SciPy sees one float64 vector. A compiled function takes it apart into the container, computes value and
gradient, and puts the gradient together, so that no Python runs between the vector and the kernels.
"""

from __future__ import annotations

import functools
import math
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
    leaves, start = [], 0
    for shape, dtype in shapes:
        end = start + math.prod(shape)
        leaves.append(vector[start:end].reshape(shape).astype(dtype))
        start = end
    return unflatten(spec, leaves)


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
        Further arguments. What is no tuple is the only one.
    method : str, optional
        One of SciPy's methods that use a gradient and no Hessian.
    bounds : tuple of two pytrees, optional
        The smallest and the largest values, containers like ``x0`` or outer parts of it: ``(0.0, None)`` says
        that no number may be negative.
    tol : float, optional
        As in SciPy.
    callback : callable, optional
        ``callback(intermediate_result)`` is called after each iteration with an ``OptimizeResult`` that has
        ``x``, a container, and ``fun``. It may raise ``StopIteration``. Not for TNC, which has no such
        result.
    options : mapping, optional
        As in SciPy: ``{"maxiter": 100}``.

    Returns
    -------
    scipy.optimize.OptimizeResult
        SciPy's, with ``x`` and the gradient, ``jac`` (of trust-constr ``grad``), as containers like ``x0``.

    Raises
    ------
    TypeError
        A leaf of ``x0`` is no number of floating point.
    ValueError
        ``bounds`` do not fit ``x0``; a callback is given to TNC.

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
    if callback is not None and str(method).lower() == "tnc":
        raise ValueError("minimize: TNC has no intermediate results for a callback; L-BFGS-B has them")
    leaves, spec = flatten(x0)
    arrays = [np.asarray(leaf) for leaf in leaves]
    for leaf, array in zip(leaves, arrays, strict=True):
        if array.dtype.kind != "f":
            raise TypeError(f"minimize: x0 must consist of numbers of floating point, not {leaf!r}")
    shapes = tuple((array.shape, array.dtype) for array in arrays)
    evaluate = _compiled(fun, spec, shapes)
    more = args if isinstance(args, tuple) else (args,)
    as_tree = functools.partial(_tree, spec=spec, shapes=shapes)

    def told(intermediate_result: Any) -> None:
        assert callback is not None
        callback(OptimizeResult(x=as_tree(intermediate_result.x), fun=intermediate_result.fun))

    found = minimize_vector(
        lambda vector: evaluate(vector, more),
        np.concatenate([array.ravel() for array in arrays], dtype=np.float64),
        method=method,
        jac=True,
        bounds=None if bounds is None else _vectors(bounds, x0, arrays),
        tol=tol,
        callback=None if callback is None else told,
        options=None if options is None else dict(options),
    )
    gradient = "grad" if "grad" in found else "jac"  # jac of trust-constr are those of constraints
    for name in {"x", gradient} & found.keys():  # Nelder and Mead have no gradient
        found[name] = as_tree(found[name])
    return found


def _vectors(bounds: tuple[Tree, Tree], x0: Tree, arrays: Sequence[np.ndarray[Any, Any]]) -> Any:
    """SciPy's bounds; None is no bound."""
    from scipy.optimize import Bounds

    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"minimize: bounds are a pair, smallest and largest values, not {bounds!r}")
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
