"""`vmap`: a function of one element becomes a function of a batch.

Input: a Python function written with NumPy. Output: a compiled callable.
Invariant: called inside a traced function, it becomes part of that trace.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from graphjit.api.options import Names, Positions, current_trace, inner_statics, require_callable
from graphjit.dispatch import Dispatcher, compiled_function
from graphjit.trace.tracebacks import hides_frames
from graphjit.trace.transformed import batches


@hides_frames
def vmap(
    fun: Callable[..., Any] | None = None,
    in_axes: Any = 0,
    out_axes: Any = 0,
    *,
    axis_size: int | None = None,
    static_argnums: Positions = (),
    static_argnames: Names = (),
    backend: str = "llvm",
    python_control_flow: bool = True,
    reroll: bool = True,
) -> Any:
    """Make a compiled function that maps a function over an axis of its arguments.

    Write the function for one element. The result is the stack of its results for each element, computed by
    one program over whole arrays. What does not vary is computed once.

    Parameters
    ----------
    fun : callable, optional
        A function of one element, written with NumPy. Without it the result is a decorator.
    in_axes : int, None, or tuple or list of them, optional
        For each positional argument the axis to map over, or None for an argument that is passed whole. One
        entry stands for all arguments; instead of an entry there may be a tree of them, built like the outer
        part of the argument: ``in_axes=({"w": None, "x": 0},)``. Keyword arguments are mapped over axis 0.
        Texts and other objects that are no numbers are passed as they are.
    out_axes : int, None or tree of them, optional
        Where each result gets the axis. None returns a result that does not vary as it is.
    axis_size : int, optional
        The number of elements; needed only if no argument is mapped.
    static_argnums, static_argnames, backend, python_control_flow, reroll : optional
        As in `jit`.

    Returns
    -------
    callable
        A function of the same arguments, with one more axis in those that are mapped.

    Raises
    ------
    ValueError
        At a call: an argument has no such axis, sizes of the batch differ, or axes do not fit arguments or
        results.
    TraceError
        At a call: the function changes an argument in place, or returns something that is no array.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> def distance(p, q):
    ...     return np.sqrt(np.sum((p - q) ** 2))
    >>> points = np.array([[3.0, 4.0], [6.0, 8.0]])
    >>> graphjit.vmap(distance, in_axes=(0, None))(points, np.zeros(2))
    array([ 5., 10.])

    Gradients of a loss for each example alone:

    >>> def loss(w, x, y):
    ...     return (np.dot(w, x) - y) ** 2
    >>> each = graphjit.vmap(graphjit.grad(loss), in_axes=(None, 0, 0))
    >>> each(np.zeros(2), np.ones((2, 2)), np.array([1.0, 2.0]))
    array([[-2., -2.],
           [-4., -4.]])
    """
    recipe = functools.partial(
        vmap,
        in_axes=in_axes,
        out_axes=out_axes,
        axis_size=axis_size,
        static_argnums=static_argnums,
        static_argnames=static_argnames,
        backend=backend,
        python_control_flow=python_control_flow,
        reroll=reroll,
    )
    if fun is None:
        return recipe
    require_callable(fun, "vmap")
    function, statics = inner_statics(fun, static_argnums, static_argnames)

    def run(*args: Any, **kwargs: Any) -> Any:
        return batches.vmap(current_trace(), fun, args, kwargs, in_axes, out_axes, axis_size)

    return compiled_function(
        Dispatcher(run, function, *statics, backend, python_control_flow=python_control_flow, reroll=reroll),
        fun,
        (recipe, (fun,)),
    )
