"""np.lib.stride_tricks.sliding_window_view: what convolutions and pooling are written with.

It becomes the op ``window``. Slices of it, such as every second window or every second element of each,
become its steps and spreads (`graphjit.ops.windows`).
"""

from __future__ import annotations

from typing import Any

from numpy.lib.array_utils import normalize_axis_tuple

from graphjit.ir.node import Node
from graphjit.trace.numpy.arguments import integers, node_of, tracing, wrap
from graphjit.trace.numpy.shapes import permuted, with_size
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer


def sliding_window_view(
    x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> Tracer:
    """np.lib.stride_tricks.sliding_window_view."""
    trace = tracing()
    node = node_of(trace, x)
    sizes = integers(window_shape if isinstance(window_shape, tuple | list) else (window_shape,), "sizes")
    axes = _axes(node, sizes, axis)
    if min(sizes, default=0) < 0:
        raise ValueError(f"`window_shape` cannot contain negative values (at {user_location()})")
    if len(set(axes)) == len(axes):
        return wrap(trace, _windows(trace, node, sizes, axes))
    for size, number in zip(sizes, axes, strict=True):  # windows over windows of one axis
        node = _windows(trace, node, (size,), (number,))
    return wrap(trace, node)


def _axes(x: Node, sizes: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    ndim = len(x.shape)
    axes = tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim, allow_duplicate=True)
    if len(axes) != len(sizes):
        wanted = (
            f"Since axis is `None`, must provide window_shape for all dimensions of `x`; got {len(sizes)} window_shape elements and `x.ndim` is {ndim}"
            if axis is None
            else f"Must provide matching length window_shape and axis; got {len(sizes)} window_shape elements and {len(axes)} axes elements"
        )
        raise ValueError(f"{wanted} (at {user_location()})")
    return axes


def _windows(trace: Trace, x: Node, sizes: tuple[int, ...], axes: tuple[int, ...]) -> Node:
    """Windows over distinct axes, those of the elements of a window last, in the order given."""
    if any(size > x.shape[axis] + (size == 0) for size, axis in zip(sizes, axes, strict=True)):
        raise ValueError(f"window shape cannot be larger than input array shape (at {user_location()})")
    if not axes:
        return x
    if 0 in sizes:
        shape = x.shape
        for size, axis in zip(sizes, axes, strict=True):
            shape = with_size(shape, axis, x.shape[axis] - size + 1)
        return trace.builder.full(0, x.type.with_shape((*shape, *sizes)))
    order = sorted(range(len(axes)), key=axes.__getitem__)
    made = trace.emit(
        "window",
        x,
        axes=tuple(axes[i] for i in order),
        sizes=tuple(sizes[i] for i in order),
        steps=(1,) * len(axes),
        spreads=(1,) * len(axes),
    )
    first = max(axes) + 1
    taps = [first + order.index(i) for i in range(len(axes))]
    return permuted(trace, made, [*(a for a in range(len(made.shape)) if a not in taps), *taps])
