"""Changes of shape and order: reshape, ravel, transpose family, squeeze, expand_dims, broadcasting, meshgrid,
atleast_nd, flip, rot90, roll; and the questions shape, ndim, size.

Nothing is computed here: every result has the elements of the argument in NumPy's shape and order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from graphjit.errors import UnsupportedError
from graphjit.ir.node import Node
from graphjit.trace.numpy.arguments import (
    ABSENT,
    axis_number,
    integers,
    node_of,
    reduced_axes,
    shape_of,
    tracer_of,
    tracing,
    wrap,
    wrap_array,
)
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.promotion import common_shape
from graphjit.trace.recording.tracer import Trace, Tracer, implements


def resolved_shape(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """``shape`` with its -1 replaced.

    Raises:
        ValueError: the sizes do not fit.
    """
    if -1 in shape:
        rest = -math.prod(shape)
        if shape.count(-1) == 1 and rest > 0 and size % rest == 0:
            return tuple(size // rest if n == -1 else n for n in shape)
        if shape.count(-1) > 1:
            raise ValueError("can only specify one unknown dimension")
    elif math.prod(shape) == size:
        return shape
    raise ValueError(f"cannot reshape array of size {size} into shape {shape} (at {user_location()})")


def with_size(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    """``shape`` with another size on one axis."""
    return tuple(size if i == axis else n for i, n in enumerate(shape))


def flattened(trace: Trace, x: Node) -> Node:
    """All elements on one axis."""
    return trace.emit("reshape", x, shape=(x.type.size,))


def along_axis(trace: Trace, x: Node, axis: Any) -> tuple[Node, int]:
    """``x`` and the number of an axis, as most of NumPy's functions read an axis: None means the only axis of
    the flat array, and a value without axes counts as an array of one element.
    """
    if axis is None:
        return flattened(trace, x), 0
    if not x.shape:
        x = trace.emit("reshape", x, shape=(1,))
    return x, axis_number(axis, len(x.shape))


def permuted(trace: Trace, x: Node, perm: Sequence[int]) -> Node:
    """Axes in the order ``perm``."""
    return trace.emit("transpose", x, perm=tuple(perm))


def reversed_axes(trace: Trace, x: Node) -> Node:
    """All axes in reverse order."""
    return permuted(trace, x, range(len(x.shape) - 1, -1, -1))


def sliced(trace: Trace, x: Node, axis: int, start: int, stop: int, step: int = 1) -> Node:
    """``x[start:stop:step]`` on one axis, 0 <= start <= stop <= size."""
    starts, limits, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    starts[axis], limits[axis], steps[axis] = start, max(start, stop), step
    return trace.emit("slice", x, starts=tuple(starts), limits=tuple(limits), steps=tuple(steps))


def joined(trace: Trace, nodes: Sequence[Node], axis: int) -> Node:
    """Concatenation of nodes of one dtype; empty ones are dropped."""
    pieces = [node for node in nodes if node.shape[axis]] or list(nodes[:1])
    return trace.emit("concatenate", *pieces, axis=axis)


def _c_order(function: str, order: Any) -> bool:
    """Whether the order is row-major (False: column-major).

    Raises:
        UnsupportedError: orders that depend on memory layout.
    """
    if order in ("C", "A", "K", None):  # traced arrays count as row-major
        return True
    if order == "F":
        return False
    raise UnsupportedError(
        f"np.{function}(order={order!r}) is not compiled (at {user_location()}): use 'C' or 'F'"
    )


def reshape_node(trace: Trace, x: Node, shape: tuple[int, ...], order: Any = "C") -> Node:
    """reshape, -1 allowed, row- or column-major."""
    target = resolved_shape(shape, x.type.size)
    if _c_order("reshape", order):
        return trace.emit("reshape", x, shape=target)
    return reversed_axes(trace, trace.emit("reshape", reversed_axes(trace, x), shape=target[::-1]))


def reshape(a: Any, /, shape: Any, order: Any = "C", *, copy: Any = None) -> Tracer:
    """np.reshape."""
    trace = tracing()
    return wrap(trace, reshape_node(trace, node_of(trace, a), shape_of(shape), order))


def ravel(a: Any, order: Any = "C") -> Tracer:
    """np.ravel."""
    return reshape(a, (-1,), order) if np.size(a) else reshape(a, (0,), order)


def transpose_node(trace: Trace, x: Node, axes: Any) -> Node:
    """np.transpose of a node."""
    if axes is None or axes is ABSENT:
        return reversed_axes(trace, x)
    order = integers(axes, "axes")
    if len(order) != len(x.shape):
        raise ValueError("axes don't match array")
    try:
        return permuted(trace, x, normalize_axis_tuple(order, len(x.shape)))
    except ValueError as error:
        raise (
            error if isinstance(error, np.exceptions.AxisError) else ValueError("repeated axis in transpose")
        ) from None


def transpose(a: Any, axes: Any = None) -> Tracer:
    """np.transpose."""
    trace = tracing()
    return wrap(trace, transpose_node(trace, node_of(trace, a), axes))


def matrix_transpose(x: Any, /) -> Tracer:
    """np.matrix_transpose."""
    if np.ndim(x) < 2:
        raise ValueError(f"Input array must be at least 2-dimensional, but it is {np.ndim(x)}")
    return swapaxes(x, -1, -2)


def swapaxes(a: Any, axis1: Any, axis2: Any) -> Tracer:
    """np.swapaxes."""
    trace = tracing()
    x = node_of(trace, a)
    first, second = axis_number(axis1, len(x.shape)), axis_number(axis2, len(x.shape))
    perm = list(range(len(x.shape)))
    perm[first], perm[second] = second, first
    return wrap(trace, permuted(trace, x, perm))


def moveaxis(a: Any, source: Any, destination: Any) -> Tracer:
    """np.moveaxis."""
    trace = tracing()
    x = node_of(trace, a)
    froms = normalize_axis_tuple(source, len(x.shape), "source")
    tos = normalize_axis_tuple(destination, len(x.shape), "destination")
    if len(froms) != len(tos):
        raise ValueError("`source` and `destination` arguments must have the same number of elements")
    order = [axis for axis in range(len(x.shape)) if axis not in froms]
    for to, source_axis in sorted(zip(tos, froms, strict=True)):
        order.insert(to, source_axis)
    return wrap(trace, permuted(trace, x, order))


def rollaxis(a: Any, axis: Any, start: Any = 0) -> Tracer:
    """np.rollaxis."""
    ndim = np.ndim(a)
    number = axis_number(axis, ndim)
    start = start + ndim if start < 0 else start
    if not 0 <= start <= ndim:
        raise np.exceptions.AxisError(
            f"'start' arg requires {-ndim} <= start < {ndim + 1}, but {start} was passed in"
        )
    return moveaxis(a, number, start - 1 if number < start else start)


def expand_dims(a: Any, axis: Any) -> Tracer:
    """np.expand_dims."""
    trace = tracing()
    x = node_of(trace, a)
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    new = normalize_axis_tuple(axes, len(x.shape) + len(axes))
    rest = iter(x.shape)
    shape = tuple(1 if i in new else next(rest) for i in range(len(x.shape) + len(axes)))
    return wrap(trace, trace.emit("reshape", x, shape=shape))


def squeeze(a: Any, axis: Any = None) -> Tracer:
    """np.squeeze."""
    trace = tracing()
    x = node_of(trace, a)
    if axis is None:
        gone: tuple[int, ...] = tuple(i for i, n in enumerate(x.shape) if n == 1)
    else:
        gone = reduced_axes(axis, len(x.shape))
        if any(x.shape[i] != 1 for i in gone):
            raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
    return wrap(
        trace, trace.emit("reshape", x, shape=tuple(n for i, n in enumerate(x.shape) if i not in gone))
    )


def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Tracer:
    """np.broadcast_to."""
    trace = tracing()
    x = node_of(trace, array)
    target = shape_of(shape)
    if len(target) < len(x.shape) or np.broadcast_shapes(x.shape, target) != target:
        raise ValueError(
            f"cannot broadcast an array of shape {x.shape} to shape {target} (at {user_location()})"
        )
    return wrap(trace, trace.broadcast(x, target))


def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Tracer, ...]:
    """np.broadcast_arrays."""
    trace = tracing()
    nodes = [node_of(trace, arg) for arg in args]
    shape = common_shape(*nodes)
    return tuple(wrap(trace, trace.broadcast(node, shape)) for node in nodes)


def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple[Tracer, ...]:
    """np.meshgrid."""
    if indexing not in ("xy", "ij"):
        raise ValueError("Valid values for `indexing` are 'xy' and 'ij'.")
    trace = tracing()
    vectors = [flattened(trace, node_of(trace, each)) for each in xi]
    count = len(vectors)
    axes = list(range(count))
    if indexing == "xy" and count > 1:
        axes[0], axes[1] = 1, 0
    open_grid = [
        trace.emit("reshape", x, shape=tuple(x.type.size if i == axis else 1 for i in range(count)))
        for x, axis in zip(vectors, axes, strict=True)
    ]
    shape = common_shape(*open_grid) if open_grid and not sparse else None
    return tuple(wrap(trace, x if shape is None else trace.broadcast(x, shape)) for x in open_grid)


def _at_least(ndim: int, arys: tuple[Any, ...], grow: Any) -> Any:
    """Each array with ``ndim`` axes or more; ``grow`` gives the shape of one with fewer."""
    trace = tracing()
    results = []
    for each in arys:
        x = node_of(trace, each)
        results.append(
            wrap(trace, x if len(x.shape) >= ndim else trace.emit("reshape", x, shape=grow(x.shape)))
        )
    return results[0] if len(results) == 1 else tuple(results)


def atleast_1d(*arys: Any) -> Any:
    """np.atleast_1d."""
    return _at_least(1, arys, lambda shape: (1,))


def atleast_2d(*arys: Any) -> Any:
    """np.atleast_2d."""
    return _at_least(2, arys, lambda shape: (1, *shape) if shape else (1, 1))


def atleast_3d(*arys: Any) -> Any:
    """np.atleast_3d."""
    return _at_least(
        3, arys, lambda shape: (1, 1, 1) if not shape else (1, *shape, 1) if len(shape) == 1 else (*shape, 1)
    )


# ------------------------------------------------------------------------------------------- order along axes


def flip(m: Any, axis: Any = None) -> Tracer:
    """np.flip."""
    trace = tracing()
    x = node_of(trace, m)
    axes = (
        tuple(range(len(x.shape)))
        if axis is None
        else tuple(sorted(normalize_axis_tuple(axis, len(x.shape))))
    )
    return wrap(trace, trace.emit("flip", x, axes=axes))


def fliplr(m: Any) -> Tracer:
    """np.fliplr."""
    if np.ndim(m) < 2:
        raise ValueError("Input must be >= 2-d.")
    return flip(m, 1)


def flipud(m: Any) -> Tracer:
    """np.flipud."""
    if np.ndim(m) < 1:
        raise ValueError("Input must be >= 1-d.")
    return flip(m, 0)


def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Tracer:
    """np.rot90."""
    if len(axes) != 2:
        raise ValueError("len(axes) must be 2.")
    ndim = np.ndim(m)
    first, second = (axis_number(axis, ndim) for axis in axes)
    if first == second:
        raise ValueError("Axes must be different.")
    turns = k % 4
    if turns == 0:
        return wrap(tracing(), tracer_of(m)._node)
    if turns == 2:
        return flip(m, (first, second))
    if turns == 1:
        return swapaxes(flip(m, second), first, second)
    return flip(swapaxes(m, first, second), second)


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Tracer:
    """np.roll by static shifts."""
    trace = tracing()
    x = node_of(trace, a)
    if axis is None:
        turned = _rolled(trace, flattened(trace, x), sum(integers(shift, "shift")), 0)
        return wrap_array(trace, trace.emit("reshape", turned, shape=x.shape))
    axes = normalize_axis_tuple(axis, len(x.shape), allow_duplicate=True)
    shifts: dict[int, int] = {}
    for amount, number in np.broadcast(integers(shift, "shift"), axes):
        shifts[int(number)] = shifts.get(int(number), 0) + int(amount)
    for number, amount in shifts.items():
        x = _rolled(trace, x, amount, number)
    return wrap_array(trace, x)


def _rolled(trace: Trace, x: Node, shift: int, axis: int) -> Node:
    """``x`` with its elements moved around by ``shift`` along one axis."""
    size = x.shape[axis]
    cut = -shift % size if size else 0
    if not cut:
        return x
    return trace.emit(
        "concatenate", sliced(trace, x, axis, cut, size), sliced(trace, x, axis, 0, cut), axis=axis
    )


# ------------------------------------------------------------------------------------------- static questions


@implements(np.shape)
def shape(a: Any) -> tuple[int, ...]:
    """np.shape."""
    return tracer_of(a).shape


@implements(np.ndim)
def ndim(a: Any) -> int:
    """np.ndim."""
    return tracer_of(a).ndim


@implements(np.size)
def size(a: Any, axis: Any = None) -> int:
    """np.size."""
    sizes = tracer_of(a).shape
    if axis is None:
        return math.prod(sizes)
    return math.prod(sizes[i] for i in normalize_axis_tuple(axis, len(sizes)))
