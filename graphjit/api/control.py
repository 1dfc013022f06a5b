"""Loops and conditions: `scan`, `fori_loop`, `while_loop`, `cond`, `switch`, `map`.

Input: Python functions and values. Output: what the loop or the branch computes.
Invariants: outside of a traced function, and where nothing is compiled, these are the loops and conditions of
Python; inside, one node of the trace each. Both give the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphjit.api import plain_control as plain
from graphjit.api.options import require_callable
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace
from graphjit.trace.tracebacks import hides_frames
from graphjit.trace.transformed import control
from graphjit.trace.transformed.checked import length_of, steps_in_one, steps_kept
from graphjit.trace.transformed.mapped import map_each


def _records(trace: Trace | None) -> bool:
    """Whether there is a trace that does not compute while it records."""
    return trace is not None and trace.values is None


@hides_frames
def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    *,
    checkpoint_every: int | None = None,
) -> tuple[Any, Any]:
    """Go through arrays step by step, hand a carry on, and stack what the steps return.

    As this, in one native loop::

        def scan(f, init, xs):
            carry, ys = init, []
            for x in xs:
                carry, y = f(carry, x)
                ys.append(y)
            return carry, np.stack(ys)

    Parameters
    ----------
    f : callable
        ``f(carry, x)`` returns ``(carry, y)``. It is recorded once, not run for each step. The carry keeps
        its structure, shapes and dtypes; a Python number in `init` takes the dtype that ``f`` makes of it.
    init : array, number, or container of them
        The first carry.
    xs : array or container of arrays, optional
        ``f`` gets element t along the first axis of each, an array of shape ``x.shape[1:]``. None: it gets
        None.
    length : int, optional
        The number of steps; needed without `xs`.
    reverse : bool, optional
        Whether the last element comes first. What is stacked stays in the order of `xs`.
    unroll : int or bool, optional
        How many steps one round of the loop has; True: all of them, without a loop. Results stay the same.
    checkpoint_every : int, optional
        With k, reverse mode keeps the carry of every k-th step alone, and runs k steps again just before
        their way back: memory for n / k + k steps instead of n, and about one evaluation more.

    Returns
    -------
    carry
        The last carry.
    ys
        What the steps returned besides: each array has one more axis in front, of the number of steps.

    Raises
    ------
    ShapeError
        The carry changes its structure, shape or dtype, lengths differ, or ``f`` returns no pair.
    TraceError
        ``f`` writes into an array from outside, or into its arguments.

    Notes
    -----
    What ``f`` reads from outside is not copied; what it computes of that alone is computed once. Forward mode
    carries tangents along. Reverse mode keeps what it needs of each step, and goes through the steps once
    more, backwards: memory grows with their number. `checkpoint_every` bounds it.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> def step(balance, change):
    ...     balance = 1.1 * balance + change
    ...     return balance, balance
    >>> last, all_of_them = graphjit.scan(step, 0.0, np.array([100.0, 10.0, 1.0]))
    >>> all_of_them.round(2)
    array([100., 120., 133.])
    """
    require_callable(f, "scan")
    count = length_of(xs, length, "scan")
    steps, every = steps_in_one(unroll, count, "scan"), steps_kept(checkpoint_every, "scan")
    trace = active_trace()
    if count and not _records(trace):
        return plain.scan(f, init, xs, count, reverse)
    if trace is None:
        return plain.without_steps(lambda init, xs: scan(f, init, xs, 0), init, xs)  # type: ignore[no-any-return]
    return control.scan(trace, f, init, xs, count, reverse, steps, every=every)


@hides_frames
def fori_loop(
    lower: Any,
    upper: Any,
    body_fun: Callable[[Any, Any], Any],
    init_val: Any,
    *,
    unroll: int | bool | None = None,
    checkpoint_every: int | None = None,
) -> Any:
    """Go from one integer to another, and hand a value on.

    As this, in one native loop::

        def fori_loop(lower, upper, body_fun, init_val):
            val = init_val
            for i in range(lower, upper):
                val = body_fun(i, val)
            return val

    Parameters
    ----------
    lower, upper : int
        The first integer, and the one behind the last. They may be traced values.
    body_fun : callable
        ``body_fun(i, val)`` returns the next value, of the same structure, shapes and dtypes. It is recorded
        once; ``i`` is a Python integer in promotion.
    init_val : array, number, or container of them
        The first value. A Python number takes the dtype that the body makes of it.
    unroll : int or bool, optional
        As in `scan`; for bounds that are known when the function is traced.
    checkpoint_every : int, optional
        As in `scan`.

    Returns
    -------
    val
        The last value.

    Raises
    ------
    ShapeError
        A bound is no integer, or the value changes its structure, shape or dtype.
    TraceError
        The body writes into an array from outside, or into its argument.
    ValueError
        There is something to unroll, and a bound is known only at run time.

    Notes
    -----
    With bounds that are numbers in the code, this is a `scan`, with its derivatives. With others it is a
    `while_loop`, whose reverse mode keeps what it needs on a tape; `checkpoint_every` bounds both.

    Examples
    --------
    >>> import graphjit
    >>> graphjit.fori_loop(1, 5, lambda i, product: product * i, 1)
    24
    """
    require_callable(body_fun, "fori_loop")
    every = steps_kept(checkpoint_every, "fori_loop")
    trace = active_trace()
    if not _records(trace):
        return plain.fori_loop(lower, upper, body_fun, init_val)
    return control.fori_loop(trace, lower, upper, body_fun, init_val, unroll, every)  # type: ignore[arg-type]


@hides_frames
def while_loop(
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    *,
    checkpoint_every: int | None = None,
) -> Any:
    """Make new values as long as a test holds.

    As this, in one native loop::

        def while_loop(cond_fun, body_fun, init_val):
            val = init_val
            while cond_fun(val):
                val = body_fun(val)
            return val

    Parameters
    ----------
    cond_fun : callable
        ``cond_fun(val)`` returns one bool.
    body_fun : callable
        ``body_fun(val)`` returns the next value, of the same structure, shapes and dtypes. Both functions are
        recorded once.
    init_val : array, number, or container of them
        The first value. A Python number takes the dtype that the body makes of it.
    checkpoint_every : int, optional
        As in `scan`.

    Returns
    -------
    val
        The first value for which the test does not hold.

    Raises
    ------
    ShapeError
        The test returns something else than one bool, or the value changes its structure, shape or dtype.
    TraceError
        A function writes into an array from outside, or into its argument.
    UnsupportedError
        A function calls `debug.print` or `debug.callback`.

    Notes
    -----
    Forward mode carries tangents along. Reverse mode keeps what it needs of each step on a tape, which grows
    while the loop runs, and goes through the steps once more, backwards. `checkpoint_every` bounds it.

    Examples
    --------
    >>> import graphjit
    >>> def root(a):
    ...     def far(x):
    ...         return abs(x * x - a) > 1e-12 * a
    ...     def better(x):
    ...         return 0.5 * (x + a / x)
    ...     return graphjit.while_loop(far, better, a)
    >>> root(9.0)
    3.0
    """
    require_callable(cond_fun, "while_loop")
    require_callable(body_fun, "while_loop")
    every = steps_kept(checkpoint_every, "while_loop")
    trace = active_trace()
    if not _records(trace):
        return plain.while_loop(cond_fun, body_fun, init_val)
    return control.while_loop(trace, cond_fun, body_fun, init_val, every=every)  # type: ignore[arg-type]


@hides_frames
def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """Call one of two functions, and only that one.

    Parameters
    ----------
    pred : bool or number
        Which one; numbers other than zero count as True.
    true_fun, false_fun : callable
        Functions of the operands. Both are recorded. They return the same structure, shapes and dtypes;
        Python numbers take the dtype of the other's.
    *operands
        Their arguments.

    Returns
    -------
    array, number, or container of them
        What the function returns.

    Raises
    ------
    ShapeError
        `pred` is not one number, or the functions return different structures, shapes or dtypes.
    TraceError
        A function writes into an array from outside, or into its argument.

    Notes
    -----
    What is written in a branch runs if it is taken, and so do its derivatives: an integer division by zero in
    the other one is no error. Where both are cheap, `numpy.where` is quicker: it computes both.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> def norm(x):
    ...     return graphjit.cond(np.all(x == 0), lambda x: 0.0, lambda x: np.sqrt(np.sum(x * x)), x)
    >>> norm(np.zeros(2)), norm(np.array([3.0, 4.0]))
    (0.0, np.float64(5.0))
    """
    require_callable(true_fun, "cond")
    require_callable(false_fun, "cond")
    trace = active_trace()
    if not _records(trace):
        return plain.cond(pred, true_fun, false_fun, operands)
    return control.cond(trace, pred, true_fun, false_fun, operands)  # type: ignore[arg-type]


@hides_frames
def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Call one of several functions, and only that one.

    Parameters
    ----------
    index : int
        Its number. One that is too small or too large means the first or the last.
    branches : sequence of callable
        Functions of the operands, which return the same structure, shapes and dtypes, as in `cond`.
    *operands
        Their arguments.

    Returns
    -------
    array, number, or container of them
        What the function returns.

    Raises
    ------
    ShapeError
        `index` is not one integer, or the functions return different structures, shapes or dtypes.
    TraceError
        A function writes into an array from outside, or into its argument.
    ValueError
        There are no functions.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> activations = [np.tanh, np.abs, np.square]
    >>> graphjit.switch(2, activations, 3.0)
    np.float64(9.0)
    """
    functions = tuple(branches)
    for function in functions:
        require_callable(function, "switch")
    if not functions:
        raise ValueError(f"switch: there are no branches (at {user_location()})")
    trace = active_trace()
    if not _records(trace):
        return plain.switch(index, functions, operands)
    return control.switch(trace, index, functions, operands)  # type: ignore[arg-type]


@hides_frames
def map(f: Callable[[Any], Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """Call a function for each element of arrays, one after the other, and stack the results.

    Unlike `vmap` it needs memory for one element at a time, or for `batch_size` of them.

    Parameters
    ----------
    f : callable
        A function of one element.
    xs : array or container of arrays
        It gets element t along the first axis of each.
    batch_size : int, optional
        How many elements are computed at once, as by `vmap`.

    Returns
    -------
    array or container of arrays
        The results, with one more axis in front.

    Raises
    ------
    ShapeError
        Lengths differ, or the function returns something that is no array.
    TraceError
        It writes into an array from outside, or into its argument.

    Notes
    -----
    It is a `scan` without a carry, and is differentiated like one.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.map(np.sum, np.arange(6.0).reshape(3, 2))
    array([1., 5., 9.])
    """
    require_callable(f, "map")
    count = length_of(xs, None, "map")
    if batch_size is not None:
        batch_size = steps_in_one(batch_size, count, "map", "batch_size")
    trace = active_trace()
    if count and not _records(trace):
        return plain.map_each(f, xs, count)
    if trace is None:
        return plain.without_steps(lambda xs: map(f, xs), xs)
    return map_each(trace, f, xs, count, batch_size)
