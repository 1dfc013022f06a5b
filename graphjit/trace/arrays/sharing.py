"""Which of NumPy's functions return a view of their argument, and how such a view is read and written.

Job: a view sees later writes to its base and is written through; a copy does neither.
Input: our implementations, which make new arrays. Output: entries of FUNCTIONS and METHODS that make views
wherever NumPy does (`VIEWS`, `VIEW_METHODS`). What may return its argument itself stands in `copies`; all
other functions make new arrays. A test holds every bound function against NumPy.
Invariant: whether a result is a view is NumPy's own decision: the function is run on the argument's model
(see `layout`).

A view is declared by how it is read from its base and how the base looks after a write to it. ``reshape`` is
read by a reshape and inverted by a reshape to the base's shape; pieces of a split are slices. Where no simple
inverse exists (a diagonal that einsum returns), NumPy's function is applied once to an array that numbers the
elements of the base: the result tells where each element of the view belongs, and a write is a scatter to
there.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from graphjit.errors import UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.types import I64, Type
from graphjit.trace.arrays import layout
from graphjit.trace.arrays.buffers import Lens, Unknown, from_storage, known_array, known_values, local
from graphjit.trace.arrays.items import getitem
from graphjit.trace.numpy import diagonals, einsum, joining, shapes, windows
from graphjit.trace.numpy.arguments import axes_tuple, axis_number, integers, node_of, tracing, wrap_array
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.promotion import common_shape
from graphjit.trace.recording.tables import METHODS, SHARING_FUNCTIONS, SHARING_METHODS, implements
from graphjit.trace.recording.tracer import Array, Scalar, Trace, Tracer

OfArray = Callable[[np.ndarray], np.ndarray]
Inverse = Callable[[Trace, Node, Node, OfArray], Node]
"""``(trace, base, written value, the view as a function of an array)`` -> the base after the write."""

# --------------------------------------------------------------------------------------------------- inverses


def reshaped(order: str) -> Inverse:
    """The inverse of a reshape in this order."""
    return lambda trace, base, value, of_array: shapes.reshape_node(trace, value, base.shape, order)


def transposed(trace: Trace, base: Node, value: Node, of_array: OfArray) -> Node:
    """The inverse of a permutation of axes, which shows when NumPy permutes an array of distinct sizes."""
    moved = of_array(np.broadcast_to(False, tuple(range(2, len(base.shape) + 2)))).shape
    return trace.emit(
        "transpose", value, perm=tuple(moved.index(axis + 2) for axis in range(len(base.shape)))
    )


def scattered(trace: Trace, base: Node, value: Node, of_array: OfArray) -> Node:
    """The inverse of any view: where an array that numbers the base's elements leads, there each one goes."""
    numbers = of_array(np.arange(base.type.size).reshape(base.shape))
    flat = trace.emit("reshape", base, shape=(base.type.size,))
    updates = trace.emit("reshape", value, shape=(value.type.size,))
    written = trace.emit(
        "scatter_set", flat, updates, trace.builder.const(numbers.reshape(-1), I64), axes=(0,)
    )
    return trace.emit("reshape", written, shape=base.shape)


# ------------------------------------------------------------------------------------------------------ views


def viewed(
    base: Array, of_array: OfArray, of_node: Callable[[Trace, Node], Node], inverse: Inverse = scattered
) -> Tracer:
    """A view of ``base`` where NumPy makes one, else a copy.

    Raises:
        Unknown: ``of_array`` needs a value that is traced.
    """
    base_model = layout.model(base)
    viewed_model = of_array(base_model)
    known = known_array(base)
    if not layout.shares(viewed_model, base_model):
        if known is not None:
            return local(viewed_model)  # type: ignore[no-any-return]
        result = wrap_array(tracing(), of_node(tracing(), base._node))
        result._model = None if viewed_model.flags.c_contiguous else viewed_model
        return result
    lens = Lens(
        base,
        Type(base.dtype, viewed_model.shape),
        of_array,
        of_node,
        lambda trace, node, value: inverse(trace, node, value, of_array),
    )
    if known is None:
        lens.node()  # now, so that the node carries the user's line
    return from_storage(lens)


def view(
    implementation: Callable[..., Any], numpy: Callable[..., Any], inverse: Inverse
) -> Callable[..., Any]:
    """A function whose result is a view of its first argument wherever NumPy's is."""

    def function(a: Any, *args: Any, **kwargs: Any) -> Any:
        if active_trace() is None:
            known = known_array(a)
            return implementation(a, *args, **kwargs) if known is None else numpy(known, *args, **kwargs)
        if isinstance(a, Array):
            try:
                static, options = known_values(args), known_values(kwargs)
            except Unknown:
                return implementation(a, *args, **kwargs)  # its error names the traced argument
            result = viewed(
                a,
                lambda array: numpy(array, *static, **options),
                lambda trace, node: implementation(wrap_array(trace, node), *args, **kwargs)._node,
                inverse,
            )
            return result
        result = implementation(
            a, *args, **kwargs
        )  # of a NumPy scalar a scalar again, where the result has no axes
        return (
            result
            if isinstance(a, Scalar) or not isinstance(result, Tracer)
            else wrap_array(tracing(), result._node)
        )

    return function


def _order(a: Any, order: Any) -> Any:
    """C or F: what an order means for this array."""
    if order == "A" and isinstance(a, Array):
        flags = layout.model(a).flags
        return "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    return "C" if order in ("A", None) else order


def reshape(a: Any, /, shape: Any, order: Any = "C", *, copy: Any = None) -> Any:
    """np.reshape."""
    effective = _order(a, order)
    made = view(
        lambda x, size: shapes.reshape(x, size, effective),
        lambda x, size: np.reshape(x, size, effective, copy=copy),
        reshaped(effective),
    )
    return made(a, shape)


def ravel(a: Any, order: Any = "C") -> Any:
    """np.ravel; in order K the axes are read as they lie in memory."""
    if order == "K" and isinstance(a, Array):
        return ravel(_transpose(a, layout.axes_in_memory(layout.model(a))))
    effective: Any = "C" if order == "K" else _order(a, order)
    return view(lambda x: shapes.ravel(x, effective), lambda x: np.ravel(x, effective), reshaped(effective))(
        a
    )


def _method_shape(shape: tuple[Any, ...]) -> Any:
    return shape[0] if len(shape) == 1 and not isinstance(shape[0], int | np.integer) else shape


def _permute(x: Any, *axes: Any) -> Any:
    """x.transpose(0, 1), x.transpose((0, 1)), x.transpose()."""
    return _transpose(x, None if not axes or axes == (None,) else _method_shape(axes))


def matrix_transposed(x: Any) -> Any:
    """x.mT."""
    if x.ndim < 2:
        raise ValueError(f"matrix transpose with ndim < 2 is undefined (at {user_location()})")
    return shapes.swapaxes(x, -1, -2)


def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Any:
    """np.broadcast_to: a read-only view."""
    base = array if isinstance(array, Array) else wrap_array(tracing(), node_of(tracing(), array))
    return view(shapes.broadcast_to, np.broadcast_to, scattered)(base, shape)


def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Any, ...]:
    """np.broadcast_arrays: views, or the arguments themselves where nothing is to be broadcast."""
    shape = common_shape(*[node_of(tracing(), arg) for arg in args])

    def spread(array: np.ndarray) -> np.ndarray:
        # np.broadcast_to's are read-only, these are not
        return np.lib.stride_tricks.as_strided(array, shape, np.broadcast_to(array, shape).strides)

    return tuple(
        arg
        if isinstance(arg, Array | np.ndarray) and arg.shape == shape
        else view(lambda x: shapes.broadcast_to(x, shape), spread, scattered)(arg)
        for arg in args
    )


def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple[Any, ...]:
    """np.meshgrid: with ``copy=False`` views of its arguments."""
    result = shapes.meshgrid(*xi, sparse=sparse, indexing=indexing)
    if copy:
        return result
    swap = indexing == "xy" and len(xi) > 1
    grids = []
    for i, x in enumerate(xi):
        axis = 1 - i if swap and i < 2 else i
        open_shape = tuple(-1 if j == axis else 1 for j in range(len(xi)))
        grid = reshape(x, open_shape)
        grids.append(grid)
    return tuple(grids) if sparse else broadcast_arrays(*grids)


# ----------------------------------------------------------------------------------- pieces, flips, diagonals


def _pieces(split: Callable[..., Any], axis_of: Callable[[Any], int]) -> Callable[..., Any]:
    """A member of the split family: each piece is a slice."""

    def function(ary: Any, indices_or_sections: Any, axis: Any = None) -> list[Any]:
        if not isinstance(ary, Array):
            return split(ary, indices_or_sections) if axis is None else split(ary, indices_or_sections, axis)  # type: ignore[no-any-return]
        whole = (
            split(ary, indices_or_sections) if axis is None else split(ary, indices_or_sections, axis)
        )  # its errors
        number = axis_number(axis_of(ary) if axis is None else axis, ary.ndim)
        pieces, reached = [], 0
        size = ary.shape[number]
        if np.ndim(indices_or_sections):
            cuts = [0, *integers(indices_or_sections, "split points"), size]
            bounds = list(pairwise(cuts))
        else:
            bounds = []
            for piece in whole:
                bounds.append((reached, reached + piece.shape[number]))
                reached += piece.shape[number]
        for start, stop in bounds:
            pieces.append(getitem(ary, (*[slice(None)] * number, slice(start, stop))))
        return pieces

    return function


def unstack(x: Any, /, *, axis: Any = 0) -> tuple[Any, ...]:
    """np.unstack: the items along an axis, as views."""
    if not isinstance(x, Array):
        return joining.unstack(x, axis=axis)  # type: ignore[no-any-return]
    if not x.ndim:
        raise ValueError("Input array must be at least 1-d.")
    number = axis_number(axis, x.ndim)
    return tuple(getitem(x, (*[slice(None)] * number, i)) for i in range(x.shape[number]))


def flip(m: Any, axis: Any = None) -> Any:
    """np.flip: an index with negative steps."""
    if not isinstance(m, Array):
        return shapes.flip(m, axis)
    axes = axes_tuple(axis, m.ndim)
    return getitem(m, tuple(slice(None, None, -1 if i in axes else None) for i in range(m.ndim)))


def _flipped(axis: int, function: Callable[..., Any]) -> Callable[[Any], Any]:
    def flipped(m: Any) -> Any:
        function(m)  # its errors
        return flip(m, axis)

    return flipped


def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    """np.rot90: flips and a transpose."""
    shapes.rot90(m, k, axes)  # its errors
    if not isinstance(m, Array):
        return shapes.rot90(m, k, axes)
    first, second = (axis_number(axis, m.ndim) for axis in axes)
    turns = k % 4
    if turns == 0:
        return getitem(m, slice(None))
    if turns == 2:
        return flip(m, (first, second))
    return _swap(flip(m, second), first, second) if turns == 1 else flip(_swap(m, first, second), second)


def diag(v: Any, k: int = 0) -> Any:
    """np.diag: of a matrix a read-only view, of a vector a new matrix."""
    if isinstance(v, Array) and v.ndim == 2:
        return view(diagonals.diag, np.diag, scattered)(v, k)
    return diagonals.diag(v, k)


def einsum_function(*operands: Any, **kwargs: Any) -> Any:
    """np.einsum: a writeable view of its one operand where nothing is summed."""
    values, labels, result = einsum.parsed(operands)
    if (
        len(values) == 1
        and isinstance(values[0], Array)
        and not {"out", "dtype"} & {k for k, v in kwargs.items() if v is not None}
    ):
        base, text = values[0], labels[0] + ("" if result is None else "->" + result)
        einsum.einsum(*operands, **kwargs)  # its errors
        small = np.empty([min(n, 2) for n in base.shape], bool)
        if layout.shares(np.einsum(text, small), small):
            return viewed(
                base,
                lambda array: np.einsum(text, array),
                lambda trace, node: einsum.einsum(text, wrap_array(trace, node), **kwargs)._node,
            )
    return einsum.einsum(*operands, **kwargs)


def at_least(name: str) -> Callable[..., Any]:
    """np.atleast_1d and kin: views; an array with enough axes is returned itself."""
    least = int(name[-2])
    one = view(getattr(shapes, name), getattr(np, name), reshaped("C"))

    def function(*arys: Any) -> Any:
        result = [a if isinstance(a, Array) and a.ndim >= least else one(a) for a in arys]
        return result[0] if len(result) == 1 else tuple(result)

    return function


def tile(A: Any, reps: Any) -> Any:
    """np.tile: a new array; only of an array without elements NumPy makes a view."""
    return _tiled(A, reps) if isinstance(A, Array) and not A.size else joining.tile(A, reps)


def squeeze(a: Any, axis: Any = None) -> Any:
    """np.squeeze: a view; an array without axes of length 1 is returned itself."""
    if axis is None and isinstance(a, Array) and 1 not in a.shape:
        return a
    return _squeezed(a, axis)


# Kept by name: while a function is traced, other objects stand in NumPy's module.
_squeezed = view(shapes.squeeze, np.squeeze, reshaped("C"))
_tiled = view(joining.tile, np.tile, scattered)
_transpose = view(shapes.transpose, np.transpose, transposed)
_swap = view(shapes.swapaxes, np.swapaxes, transposed)


# ----------------------------------------------------------------------------------------------- declarations

VIEWS: dict[Any, Callable[..., Any]] = {
    np.reshape: reshape,
    np.ravel: ravel,
    np.squeeze: squeeze,
    np.expand_dims: view(shapes.expand_dims, np.expand_dims, reshaped("C")),
    np.transpose: _transpose,
    np.permute_dims: _transpose,
    np.swapaxes: _swap,
    np.moveaxis: view(shapes.moveaxis, np.moveaxis, transposed),
    np.rollaxis: view(shapes.rollaxis, np.rollaxis, transposed),
    np.matrix_transpose: view(shapes.matrix_transpose, np.matrix_transpose, transposed),
    **{getattr(np, name): at_least(name) for name in ("atleast_1d", "atleast_2d", "atleast_3d")},
    np.linalg.matrix_transpose: view(shapes.matrix_transpose, np.matrix_transpose, transposed),
    np.broadcast_to: broadcast_to,
    np.broadcast_arrays: broadcast_arrays,
    np.meshgrid: meshgrid,
    np.split: _pieces(joining.split, lambda a: 0),
    np.array_split: _pieces(joining.array_split, lambda a: 0),
    np.hsplit: _pieces(joining.hsplit, lambda a: 0 if a.ndim == 1 else 1),
    np.vsplit: _pieces(joining.vsplit, lambda a: 0),
    np.dsplit: _pieces(joining.dsplit, lambda a: 2),
    np.unstack: unstack,
    np.flip: flip,
    np.fliplr: _flipped(1, shapes.fliplr),
    np.flipud: _flipped(0, shapes.flipud),
    np.rot90: rot90,
    np.diagonal: view(diagonals.diagonal, np.diagonal, scattered),
    np.linalg.diagonal: view(diagonals.linalg_diagonal, np.linalg.diagonal, scattered),
    np.diag: diag,
    np.einsum: einsum_function,
    np.tile: tile,
    np.lib.stride_tricks.sliding_window_view: view(
        windows.sliding_window_view, np.lib.stride_tricks.sliding_window_view, scattered
    ),
}
"""Functions that return views where NumPy can."""

VIEW_METHODS: dict[str, Callable[..., Any]] = {
    "reshape": lambda x, *shape, order="C", copy=None: reshape(x, _method_shape(shape), order, copy=copy),
    "ravel": ravel,
    "squeeze": squeeze,
    "transpose": _permute,
    "swapaxes": _swap,
    "diagonal": VIEWS[np.diagonal],
    "T": lambda x: _transpose(x),
    "mT": view(matrix_transposed, lambda array: array.mT, transposed),
    "view": lambda x, *args, **kwargs: same_dtype_view(x, *args, **kwargs),
}
for _name in ("T", "mT"):
    VIEW_METHODS[_name].is_property = True  # type: ignore[attr-defined]


def same_dtype_view(x: Array, dtype: Any = None, type: Any = None) -> Any:
    """x.view(): a second array over the same elements.

    Raises:
        UnsupportedError: another dtype would show bytes.
    """
    if type is not None or (dtype is not None and np.dtype(dtype) != x.dtype):
        raise UnsupportedError(
            f"ndarray.view with another dtype or class is not compiled (at {user_location()}): use astype"
        )
    return viewed(
        x, lambda array: array.view(), lambda trace, node: node, lambda trace, base, value, of_array: value
    )


for _function, _implementation in VIEWS.items():
    implements(_function)(_implementation)
METHODS.update(VIEW_METHODS)
SHARING_FUNCTIONS.update(VIEWS)
SHARING_METHODS.update(VIEW_METHODS)
