"""np.pad, with one function for each mode: constant, edge, linear_ramp, reflect, symmetric, wrap, maximum,
minimum, mean, empty.

Axes are padded one after the other, as in NumPy: each grows by pieces made of what is there already (slices,
flips, statistics), so every mode is differentiable. A pad with zeros is one `embed` node. Not compiled: mode
``median``, callables, and the option ``stat_length``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.types import F64, I64
from graphjit.trace.numpy.arguments import (
    as_dtype,
    full,
    inexact,
    node_of,
    static_array,
    tracer_of,
    tracing,
    wrap,
)
from graphjit.trace.numpy.reductions import keep, mean_node
from graphjit.trace.numpy.shapes import joined, sliced, with_size
from graphjit.trace.recording.answers import STATIC, value_needed
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, any_tracer, implements

_OPTIONS = {
    "constant": ("constant_values",),
    "linear_ramp": ("end_values",),
    "reflect": ("reflect_type",),
    "symmetric": ("reflect_type",),
}


def _pairs(value: Any, ndim: int) -> list[tuple[Any, Any]]:
    """(before, after) for each axis, by NumPy's broadcasting of the argument."""
    if isinstance(value, dict):
        pairs = [(0, 0)] * ndim
        for axis, width in value.items():
            pairs[axis] = tuple(np.broadcast_to(width, 2).tolist())  # type: ignore[assignment]
        return pairs
    if any_tracer(value) and static_array(value) is None:
        raise value_needed(
            "the width of a pad",
            tracer_of(value)._node.type,
            f"The shape of the result depends on it. {STATIC}",
        )
    return [(row[0], row[1]) for row in np.broadcast_to(value, (ndim, 2)).tolist()]


def _values(trace: Trace, value: Any, dtype: np.dtype, ndim: int) -> list[tuple[Node, Node]]:
    """Pad values for each axis as 0-d nodes; they may be traced."""
    constant = static_array(value)
    if constant is not None:
        pairs = np.broadcast_to(constant, (ndim, 2))
        return [(as_dtype(trace, before, dtype), as_dtype(trace, after, dtype)) for before, after in pairs]
    node = trace.broadcast(trace.convert(node_of(trace, value), dtype), (ndim, 2))

    def element(i: int, j: int) -> Node:
        piece = trace.emit("slice", node, starts=(i, j), limits=(i + 1, j + 1), steps=(1, 1))
        return trace.emit("reshape", piece, shape=())

    return [(element(i, 0), element(i, 1)) for i in range(ndim)]


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Tracer:
    """np.pad."""
    trace = tracing()
    x = node_of(trace, array)
    _check_mode(mode, kwargs)
    widths = [(int(before), int(after)) for before, after in _pairs(pad_width, len(x.shape))]
    if any(before < 0 or after < 0 for before, after in widths):
        raise ValueError("index can't contain negative values")
    options = _axis_options(trace, x, mode, kwargs)
    for axis, (before, after) in enumerate(widths):
        if before or after:
            if not x.shape[axis] and mode not in ("constant", "empty"):
                raise ValueError(
                    f"can't extend empty axis {axis} using modes other than 'constant' or 'empty'"
                )
            x = _MODES[mode](trace, x, axis, before, after, options[axis])
    return wrap(trace, x)


def _check_mode(mode: Any, keywords: dict[str, Any]) -> None:
    """Refuse modes and options that are not compiled, and options that do not belong to the mode.

    Raises:
        UnsupportedError: a mode or an option that is not compiled.
        ValueError: NumPy's, for an option of another mode.
    """
    if not isinstance(mode, str) or mode not in _MODES:
        raise UnsupportedError(
            f"np.pad(mode={mode!r}) is not compiled (at {user_location()}): use one of {', '.join(_MODES)}"
        )
    for name in keywords:
        if name not in _OPTIONS.get(mode, ()):
            if name == "stat_length":
                raise UnsupportedError(f"np.pad(stat_length=...) is not compiled (at {user_location()})")
            raise ValueError(f"unsupported keyword arguments for mode '{mode}': {name}")


def _axis_options(trace: Trace, x: Node, mode: str, keywords: dict[str, Any]) -> Sequence[Any]:
    """What the mode's function gets for each axis: the (before, after) values of a constant or a ramp, the
    kind of a reflection.
    """
    ndim = len(x.shape)
    if mode not in ("constant", "linear_ramp"):
        return [keywords.get("reflect_type", "even")] * ndim
    dtype = x.dtype if mode == "constant" or x.dtype.kind == "f" else F64  # a ramp is cast to integers last
    return _values(trace, keywords.get("constant_values", keywords.get("end_values", 0)), dtype, ndim)


def _sides(trace: Trace, x: Node, axis: int, before: Node | None, after: Node | None) -> Node:
    return joined(trace, [piece for piece in (before, x, after) if piece is not None], axis)


def _constant(trace: Trace, x: Node, axis: int, before: int, after: int, values: tuple[Node, Node]) -> Node:
    """A pad of one value on each side. Zeros (but not -0.0) are one `embed` node."""
    zeros = all(value.is_const and not value.attrs["value"].array.any() for value in values)  # type: ignore[attr-defined]
    if zeros and x.dtype.kind != "b":
        if not any(np.signbit(value.attrs["value"].array).any() for value in values):  # type: ignore[attr-defined]
            starts = tuple(before if i == axis else 0 for i in range(len(x.shape)))
            shape = with_size(x.shape, axis, x.shape[axis] + before + after)
            return trace.emit("embed", x, shape=shape, starts=starts, steps=(1,) * len(shape))
    left, right = (
        trace.broadcast(value, with_size(x.shape, axis, width))
        for value, width in zip(values, (before, after), strict=True)
    )
    return _sides(trace, x, axis, left, right)


def _empty(trace: Trace, x: Node, axis: int, before: int, after: int, option: Any) -> Node:
    """What NumPy leaves undefined is zero here."""
    zero = full(trace, 0, x.dtype, ())
    return _constant(trace, x, axis, before, after, (zero, zero))


def _ends(trace: Trace, x: Node, axis: int) -> tuple[Node, Node]:
    """The first and the last element along an axis."""
    size = x.shape[axis]
    return sliced(trace, x, axis, 0, 1), sliced(trace, x, axis, size - 1, size)


def _edge(trace: Trace, x: Node, axis: int, before: int, after: int, option: Any) -> Node:
    first, last = _ends(trace, x, axis)
    left = trace.broadcast(first, with_size(x.shape, axis, before))
    return _sides(trace, x, axis, left, trace.broadcast(last, with_size(x.shape, axis, after)))


def _linear_ramp(
    trace: Trace, x: Node, axis: int, before: int, after: int, values: tuple[Node, Node]
) -> Node:
    """end + (edge - end) * k / width for k = 0 .. width-1, mirrored on the right (np.linspace without its
    last point).
    """
    float_type = F64 if x.dtype.kind != "f" else x.dtype
    pieces = []
    for end, edge, width, mirrored in zip(
        values, _ends(trace, x, axis), (before, after), (False, True), strict=True
    ):
        shape = with_size(x.shape, axis, width)
        ramp = np.arange(width, dtype=float_type).reshape(with_size((1,) * len(shape), axis, width))
        start = trace.broadcast(trace.convert(end, float_type), edge.shape)
        step = trace.emit(
            "div",
            trace.emit("sub", trace.convert(edge, float_type), start),
            full(trace, max(width, 1), float_type, edge.shape),
        )
        position = trace.broadcast(trace.builder.const(ramp, float_type), shape)
        line = trace.emit(
            "add", trace.emit("mul", position, trace.broadcast(step, shape)), trace.broadcast(start, shape)
        )
        line = trace.convert(trace.emit("floor", line) if x.dtype.kind in "iu" else line, x.dtype)
        pieces.append(trace.emit("flip", line, axes=(axis,)) if mirrored else line)
    return _sides(trace, x, axis, *pieces)


def _mirror(trace: Trace, x: Node, axis: int, before: int, after: int, kind: str, skip: int) -> Node:
    """Reflection about the edge element (skip=1) or about the edge itself (skip=0), again and again when the
    pad is wide.
    """
    if kind not in ("even", "odd"):
        raise ValueError(f"reflect_type must be 'even' or 'odd', not {kind!r}")
    if x.shape[axis] == 1 and skip:
        return _edge(trace, x, axis, before, after, None)
    while before or after:
        size = x.shape[axis]
        left, right = min(before, size - skip), min(after, size - skip)
        first, last = _ends(trace, x, axis)
        head = trace.emit("flip", sliced(trace, x, axis, skip, skip + left), axes=(axis,))
        tail = trace.emit("flip", sliced(trace, x, axis, size - skip - right, size - skip), axes=(axis,))
        if kind == "odd":
            head = _twice_minus(trace, first, head)
            tail = _twice_minus(trace, last, tail)
        x = _sides(trace, x, axis, head, tail)
        before, after = before - left, after - right
    return x


def _twice_minus(trace: Trace, edge: Node, piece: Node) -> Node:
    """``2 * edge - piece``, in integers for bools."""
    dtype = edge.dtype if edge.dtype.kind != "b" else I64
    double = trace.emit("mul", full(trace, 2, dtype, edge.shape), trace.convert(edge, dtype))
    return trace.convert(
        trace.emit("sub", trace.broadcast(double, piece.shape), trace.convert(piece, dtype)), edge.dtype
    )


def _reflect(trace: Trace, x: Node, axis: int, before: int, after: int, kind: str) -> Node:
    return _mirror(trace, x, axis, before, after, kind, skip=1)


def _symmetric(trace: Trace, x: Node, axis: int, before: int, after: int, kind: str) -> Node:
    return _mirror(trace, x, axis, before, after, kind, skip=0)


def _wrap(trace: Trace, x: Node, axis: int, before: int, after: int, option: Any) -> Node:
    """Copies of the array side by side, the first and the last cut to size."""
    size = x.shape[axis]
    head = sliced(trace, x, axis, size - before % size, size)
    tail = sliced(trace, x, axis, 0, after % size)
    return joined(trace, [head, *[x] * (before // size + 1 + after // size), tail], axis)


def _statistic(op: str) -> Any:
    """The function of a mode that pads with the array's maximum, minimum or mean along the axis."""

    def grow(trace: Trace, x: Node, axis: int, before: int, after: int, option: Any) -> Node:
        if op == "mean":
            value = mean_node(trace, inexact(trace, x), (axis,))
            value = trace.convert(trace.emit("rint", value) if x.dtype.kind in "iu" else value, x.dtype)
        else:
            value = trace.emit(op, x, axes=(axis,))
        value = keep(trace, value, x.shape, (axis,))
        left, right = (trace.broadcast(value, with_size(x.shape, axis, width)) for width in (before, after))
        return _sides(trace, x, axis, left, right)

    return grow


_MODES: dict[str, Any] = {
    "constant": _constant,
    "edge": _edge,
    "linear_ramp": _linear_ramp,
    "reflect": _reflect,
    "symmetric": _symmetric,
    "wrap": _wrap,
    "maximum": _statistic("max"),
    "minimum": _statistic("min"),
    "mean": _statistic("mean"),
    "empty": _empty,
}
