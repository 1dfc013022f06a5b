"""Reading and writing at integer positions that are data: gather, scatter_add, scatter_set.

``indices`` are int64 nodes of one shape B, one for each of ``axes`` (ascending). Positions wrap once when
negative; out of range is a run-time IndexError. The indexed part has shape B + the remaining axes of the
array in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.batching import all_batched, from_front, size_of, to_front
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Linear, Special, op
from graphjit.ir.types import I64, Type
from graphjit.ops.samples import ALL, FLOATS, INTS, Case, Cases, Draw

Axes = tuple[int, ...]


def indexed_shape(shape: tuple[int, ...], indices: Sequence[Type], axes: Axes) -> tuple[int, ...]:
    """Shape of the indexed part.

    Raises:
        ShapeError: axes out of order or range, indices that are not int64 of one shape.
    """
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < len(shape) for a in axes):
        raise ShapeError(f"indexed axes {axes} do not fit shape {shape}")
    if not axes or len(indices) != len(axes):
        raise ShapeError(f"{len(indices)} index arrays for axes {axes}")
    if any(index.dtype != I64 or index.shape != indices[0].shape for index in indices):
        raise ShapeError(f"index arrays must be int64 of one shape, not {', '.join(map(str, indices))}")
    return (*indices[0].shape, *(n for i, n in enumerate(shape) if i not in axes))


def _checked(shape: tuple[int, ...], indices: Sequence[Any], axes: Axes) -> tuple[Any, ...]:
    """Wrapped positions.

    Raises:
        IndexError: out of range, in NumPy's words.
    """
    wrapped = []
    for axis, index in zip(axes, indices, strict=True):
        n = shape[axis]
        wrong = (index < -n) | (index >= n)
        if np.any(wrong):
            first = np.asarray(index)[np.asarray(wrong)].ravel()[0]
            raise IndexError(f"index {first} is out of bounds for axis {axis} with size {n}")
        wrapped.append(np.where(index < 0, index + n, index))
    return tuple(wrapped)


def _in_front(x: Any, axes: Axes) -> Any:
    """A view of ``x`` with the indexed axes first."""
    return np.moveaxis(x, axes, range(len(axes)))


def _updates_fit(updates: Type, shape: tuple[int, ...], indices: Sequence[Type], axes: Axes) -> None:
    wanted = indexed_shape(shape, indices, axes)
    if updates.shape != wanted:
        raise ShapeError(f"updates {updates} for an indexed part of shape {wanted}")


def _cases(
    build: Callable[[Draw, tuple[int, ...], list[np.ndarray], Axes], Case],
) -> Callable[..., list[Case]]:
    """Sample positions: repeated, negative, two-dimensional, several axes, none at all."""

    def make(rng: np.random.Generator, draw: Draw) -> list[Case]:
        def at(n: int, *shape: int) -> np.ndarray:
            return rng.integers(-n, n, size=shape, dtype=np.int64)

        return [
            build(draw, (5,), [np.array([0, 2, 2, -1])], (0,)),
            build(draw, (5,), [np.array(3)], (0,)),
            build(draw, (4, 3), [at(4, 6)], (0,)),
            build(draw, (4, 3), [at(3, 2, 2)], (1,)),
            build(draw, (4, 3), [at(4, 5), at(3, 5)], (0, 1)),
            build(draw, (3, 2, 4), [at(3, 3), at(4, 3)], (0, 2)),
            build(draw, (4, 3), [at(4, 0)], (0,)),
        ]

    return make


def _indices_of_elements(b: Builder, args: Sequence[Node], batched: Sequence[bool], start: int) -> list[Node]:
    """Index arrays of a batch that varies in its indices (``args[start:]``): the number of the element comes
    first, as one more index.
    """
    size = size_of(args, batched)
    rows = [
        index if varies else b.broadcast_to(index, shape=(size, *index.shape))
        for index, varies in zip(args[start:], batched[start:], strict=True)
    ]
    return [b.iota(dtype=I64, shape=rows[0].shape, axis=0), *rows]


def _all_in_front(node: Node) -> tuple[int, ...]:
    """The indexed axes of an array that has the axis of the batch, which is indexed too."""
    axes: Any = node.attrs["axes"]
    return (0, *(axis + 1 for axis in axes))


def _behind(node: Node) -> tuple[int, ...]:
    """The indexed axes of an array that has the axis of the batch, which is not indexed."""
    return _all_in_front(node)[1:]


# ----------------------------------------------------------------------------------------------------- gather


def _infer_gather(x: Type, *indices: Type, axes: Axes) -> Type:
    return x.with_shape(indexed_shape(x.shape, indices, axes))


def _gather(x: Any, *indices: Any, axes: Axes) -> Any:
    return _in_front(x, axes)[_checked(x.shape, indices, axes)]


def _gather_transpose(b: Builder, ct: Node, out: Node, x: Node, *indices: Node) -> Sequence[Node | None]:
    back = b.scatter_add(ct, *indices, shape=x.shape, axes=out.attrs["axes"])
    return (back, *(None for _ in indices))


def _gather_batch(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """One place in every element, another place of one array for each element, or both."""
    x, *indices = args
    if not any(batched[1:]):
        return to_front(b, b.gather(x, *indices, axes=_behind(node)), len(indices[0].shape))
    if not batched[0]:
        indices = all_batched(b, indices, batched[1:])
        return b.gather(x, *indices, axes=node.attrs["axes"])
    return b.gather(x, *_indices_of_elements(b, args, batched, 1), axes=_all_in_front(node))


op(
    "gather",
    doc="x at integer positions along `axes`; negative positions wrap, others out of range are a run-time IndexError.",
    arity=None,
    attrs=("axes",),
    infer=_infer_gather,
    impl=_gather,
    grad=Linear(_gather_transpose),
    lower=Special("gather"),
    batch=_gather_batch,
    samples=Cases(_cases(lambda draw, shape, indices, axes: ([draw(*shape), *indices], {"axes": axes})), ALL),
)

# ------------------------------------------------------------------------------------------------ scatter_add


def _infer_scatter_add(updates: Type, *indices: Type, shape: tuple[int, ...], axes: Axes) -> Type:
    _updates_fit(updates, shape, indices, axes)
    if updates.dtype.kind == "b":
        raise ShapeError("scatter_add needs numbers, not bool")
    return updates.with_shape(shape)


def _scatter_add(updates: Any, *indices: Any, shape: tuple[int, ...], axes: Axes) -> Any:
    out = np.zeros(shape, dtype=updates.dtype)
    np.add.at(_in_front(out, axes), _checked(shape, indices, axes), updates)
    return out


def _scatter_add_transpose(
    b: Builder, ct: Node, out: Node, updates: Node, *indices: Node
) -> Sequence[Node | None]:
    return (b.gather(ct, *indices, axes=out.attrs["axes"]), *(None for _ in indices))


def _updates(draw: Draw, shape: tuple[int, ...], indices: list[np.ndarray], axes: Axes) -> np.ndarray:
    return draw(*indices[0].shape, *(n for i, n in enumerate(shape) if i not in axes))


def _scatter_add_batch(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    size = size_of(args, batched)
    shape = (size, *node.shape)
    if not any(batched[1:]):
        updates = from_front(b, args[0], len(args[1].shape))
        return b.scatter_add(updates, *args[1:], shape=shape, axes=_behind(node))
    updates = args[0] if batched[0] else b.broadcast_to(args[0], shape=(size, *args[0].shape))
    indices = _indices_of_elements(b, args, batched, 1)
    return b.scatter_add(updates, *indices, shape=shape, axes=_all_in_front(node))


op(
    "scatter_add",
    doc="Zeros of `shape` with updates added at integer positions along `axes`, in index order: transpose of gather.",
    arity=None,
    attrs=("shape", "axes"),
    infer=_infer_scatter_add,
    impl=_scatter_add,
    grad=Linear(_scatter_add_transpose),
    lower=Special("scatter"),
    batch=_scatter_add_batch,
    samples=Cases(
        _cases(
            lambda draw, shape, indices, axes: (
                [_updates(draw, shape, indices, axes), *indices],
                {"shape": shape, "axes": axes},
            )
        ),
        FLOATS + INTS,
    ),
)

# ------------------------------------------------------------------------------------------------ scatter_set


def _infer_scatter_set(x: Type, updates: Type, *indices: Type, axes: Axes) -> Type:
    _updates_fit(updates, x.shape, indices, axes)
    if updates.dtype != x.dtype:
        raise ShapeError(f"scatter_set of {updates} into {x}: dtypes differ")
    return x


def _scatter_set(x: Any, updates: Any, *indices: Any, axes: Axes) -> Any:
    out = np.array(x)
    positions = _checked(x.shape, indices, axes)
    front = _in_front(out, axes)
    rest = front.shape[len(axes) :]
    rows = updates.reshape(np.size(indices[0]), *rest)
    # In order: the last write wins.
    for k, position in enumerate(zip(*[p.ravel() for p in positions], strict=True)):
        front[position] = rows[k]
    return out


def _written_last(b: Builder, out: Node, indices: Sequence[Node]) -> Node | None:
    """For each position of B whether no later one writes to the same place; None when there is one position
    only.
    """
    axes: Any = out.attrs["axes"]
    count = indices[0].type.size
    if count <= 1:
        return None
    number = b.iota(dtype=I64, shape=(count,), axis=0)
    number = b.reshape(number, shape=indices[0].shape)
    space = Type(I64, tuple(out.shape[a] for a in axes))
    every = tuple(range(len(axes)))
    winner = b.scatter_set(b.full(0, space), number, *indices, axes=every)
    return b.eq(b.gather(winner, *indices, axes=every), number)


def _scatter_set_transpose(
    b: Builder, ct: Node, out: Node, x: Node, updates: Node, *indices: Node
) -> Sequence[Node | None]:
    axes: Any = out.attrs["axes"]
    kept = b.scatter_set(ct, b.full(0.0, updates.type), *indices, axes=axes)
    found = b.gather(ct, *indices, axes=axes)
    last = _written_last(b, out, indices)
    if last is not None:
        rest = len(updates.shape) - len(last.shape)
        last = b.broadcast_to(b.reshape(last, shape=(*last.shape, *(1,) * rest)), shape=updates.shape)
        found = b.select(last, found, b.full(0.0, updates.type))
    return (kept, found, *(None for _ in indices))


def _scatter_set_batch(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    x, updates = all_batched(b, args, batched)[:2]
    if not any(batched[2:]):
        updates = from_front(b, updates, len(args[2].shape))
        return b.scatter_set(x, updates, *args[2:], axes=_behind(node))
    indices = _indices_of_elements(b, args, batched, 2)
    return b.scatter_set(x, updates, *indices, axes=_all_in_front(node))


op(
    "scatter_set",
    doc="A copy of x with updates written at integer positions along `axes`; the last write to a place wins.",
    arity=None,
    attrs=("axes",),
    infer=_infer_scatter_set,
    impl=_scatter_set,
    grad=Linear(_scatter_set_transpose, args=(0, 1)),
    lower=Special("scatter"),
    batch=_scatter_set_batch,
    samples=Cases(
        _cases(
            lambda draw, shape, indices, axes: (
                [draw(*shape), _updates(draw, shape, indices, axes), *indices],
                {"axes": axes},
            )
        ),
        ALL,
    ),
)
