"""`associative_scan`: all partial results of an associative function, in a tree of few steps.

Input: a function of two values, arrays. Output: arrays of the same shapes.
Invariant: NumPy's functions alone, so that traced values and plain ones are combined in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.api.options import require_callable
from graphjit.errors import ShapeError
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import texts, unflatten
from graphjit.trace.recording.location import user_location
from graphjit.trace.tracebacks import hides_frames
from graphjit.trace.transformed.carries import leaves_of, refuse_structure, shown

Arrays = Sequence[Any]


@hides_frames
def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """Combine elements from the first to each, as `numpy.cumsum` does with sums.

    For a function with ``fn(a, fn(b, c)) == fn(fn(a, b), c)``: products of matrices, the maximum, linear
    recurrences as pairs. Few calls of `fn` on long arrays take the place of one for each element.

    Parameters
    ----------
    fn : callable
        ``fn(a, b)`` combines elements along `axis` of arrays: all operands are slices of `elems`, and the
        results have their structure and shapes.
    elems : array or container of arrays
        The elements lie along `axis`.
    reverse : bool, optional
        Whether to combine from the last element to each.
    axis : int, optional
        The axis.

    Returns
    -------
    array or container of arrays
        Element i along the axis is the combination of the elements 0 to i, in order. With `reverse` it is
        that of the last to i.

    Raises
    ------
    ShapeError
        Numbers of elements differ, a leaf has no such axis, or the function returns another structure or
        other shapes.

    Notes
    -----
    For n elements `fn` is called about ``2 * log2(n)`` times, on about ``2 * n`` elements in all. In floating
    point the results differ from those of a loop in the last digits. It is differentiated like any NumPy
    code.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.associative_scan(np.maximum, np.array([1.0, 3.0, 2.0, 5.0]))
    array([1., 3., 3., 5.])

    The recurrence ``y[i] = a[i] * y[i - 1] + b[i]``:

    >>> def both(one, other):
    ...     return one[0] * other[0], one[1] * other[0] + other[1]
    >>> a, b = np.full(4, 0.5), np.ones(4)
    >>> graphjit.associative_scan(both, (a, b))[1]
    array([1.   , 1.5  , 1.75 , 1.875])
    """
    require_callable(fn, "associative_scan")
    leaves = leaves_of(elems)
    paths = texts(leaves.spec, "elems")
    arrays: list[Any] = []
    for i, (leaf, path) in enumerate(zip(leaves.leaves, paths, strict=True)):
        if i not in leaves.numbers or not -np.ndim(leaf) <= axis < np.ndim(leaf):
            raise ShapeError(
                f"associative_scan: {path} is {shown(leaf)} (at {user_location()}), which has no axis {axis}"
            )
        arrays.append(np.moveaxis(leaf, axis, 0))
    sizes = {path: array.shape[0] for path, array in zip(paths, arrays, strict=True)}
    if len(set(sizes.values())) != 1:
        said = ", ".join(f"{path} has {size} elements" for path, size in sizes.items()) or "there is no array"
        raise ShapeError(f"associative_scan: numbers of elements differ (at {user_location()}): {said}")
    combine = _combining(fn, leaves.spec, axis)
    if reverse:
        arrays = [array[::-1] for array in arrays]
    found = _partial(combine, arrays)
    if reverse:
        found = [array[::-1] for array in found]
    return unflatten(leaves.spec, [np.moveaxis(array, 0, axis) for array in found])


def _combining(fn: Callable[[Any, Any], Any], spec: Any, axis: int) -> Callable[[Arrays, Arrays], Arrays]:
    """``fn`` on lists of arrays whose elements lie along the first axis."""

    def combine(one: Arrays, other: Arrays) -> Arrays:
        a, b = (unflatten(spec, [np.moveaxis(array, 0, axis) for array in arrays]) for arrays in (one, other))
        result = leaves_of(fn(a, b))
        rule = f"what is combined keeps its structure and shapes (at {user_location()})"
        refuse_structure(f"associative_scan: {name_of(fn)} turns", "elems", spec, result.spec, rule)
        for array, path, made in zip(one, texts(spec, "elems"), result.leaves, strict=True):
            before = np.moveaxis(array, 0, axis).shape
            if np.shape(made) != before:
                raise ShapeError(
                    f"associative_scan: {name_of(fn)} turns {path} from shape {before} into {np.shape(made)}: {rule}"
                )
        return [np.moveaxis(array, axis, 0) for array in result.leaves]

    return combine


def _partial(combine: Callable[[Arrays, Arrays], Arrays], arrays: Arrays) -> list[Any]:
    """The combinations of the first elements: pairs are combined first, those of pairs give every second
    result, and one more call the others.
    """
    count = arrays[0].shape[0]
    if count < 2:
        return list(arrays)
    pairs = combine([x[:-1:2] for x in arrays], [x[1::2] for x in arrays])
    odd = _partial(combine, pairs)
    if count == 2:
        even = [x[:1] for x in arrays]
    else:
        before = [x[: (count - 1) // 2] for x in odd]
        rest = combine(before, [x[2::2] for x in arrays])
        even = [np.concatenate([x[:1], y]) for x, y in zip(arrays, rest, strict=True)]
    return [_alternating(x, y) for x, y in zip(even, odd, strict=True)]


def _alternating(even: Any, odd: Any) -> Any:
    """``even[0], odd[0], even[1], odd[1] ...``; there may be one more of the even ones."""
    count = odd.shape[0]
    woven = np.reshape(np.stack([even[:count], odd], axis=1), (2 * count, *odd.shape[1:]))
    return woven if even.shape[0] == count else np.concatenate([woven, even[count:]])
