"""How a key is read: what ``x[key]`` slices, flips and gathers, and where the axes of index arrays go.

Job: NumPy's basic, advanced and mixed indexing.
Input: a shape or a node, and a key. Output: a `Plan`, which assignment uses too, and the node read through
it.
Invariants: basic indexing is slice, flip and reshape; integer arrays are one `gather` with int64 indices;
indices that are known are checked while tracing (IndexError), others wrap and are checked when the compiled
code runs; a mask must be known while tracing, since the shape of the result depends on it.

Example: ``x[::-1, None, [0, 2]]`` on shape (4, 5) takes the box of all rows, flips axis 0, gathers columns 0
and 2, and has shape (4, 1, 2).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from graphjit.errors import TraceError
from graphjit.ir.node import Node
from graphjit.ir.types import I64
from graphjit.trace.numpy.arguments import as_index, node_of, static_array, wrap
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import METHODS, Trace, Tracer, any_tracer


class Static(NamedTuple):
    """An index array known while tracing; from a mask: with the length that its axis must have."""

    values: np.ndarray
    length: int | None = None


class Dynamic(NamedTuple):
    """An index array known at run time; one from outside with the values it has now."""

    node: Node
    present: np.ndarray | None


Index = np.ndarray | Node


@dataclass
class Plan:
    """One key on one shape, in three steps: a box (slice and flip) of every axis, a gather from some of them,
    the final shape.
    """

    starts: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    flipped: list[int] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)
    indices: list[Index] = field(default_factory=list)
    axes: list[int] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    index_shape: tuple[int, ...] = ()
    lead: int = 0  # axes of the result in front of the index axes, new ones not counted
    final: tuple[int, ...] = ()

    masked: bool = False

    @property
    def basic(self) -> bool:
        """Whether all positions are known now: slices, integers and new axes."""
        return not self.axes

    @property
    def view(self) -> bool:
        """Whether NumPy would return a view: integers that are only known at run time are integers too."""
        return not self.masked and all(not index.shape for index in self.indices)

    @property
    def limits(self) -> tuple[int, ...]:
        """End of the box on each axis."""
        return tuple(
            start + (count - 1) * step + 1 if count else start
            for start, count, step in zip(self.starts, self.counts, self.steps, strict=True)
        )


def plan(trace: Trace, shape: tuple[int, ...], key: Any) -> Plan:
    """Read ``key`` as NumPy does.

    Raises:
        IndexError: too many indices, out of bounds, wrong kinds.
        TraceError: a mask or a slice bound that is only known at run time.
    """
    usual = _ints_and_slices(shape, key)
    if usual is not None:
        return usual
    items = _items(trace, shape, key)
    result = Plan(shape=shape, index_shape=_index_shape(items))
    final: list[int] = []
    axis = 0
    # Beside an integer that is only known at run time all integers are positions: one gather of one element.
    positions = any(kind == "array" for kind, _ in items) and result.index_shape == ()
    for kind, value in items:
        if kind == "new":
            final.append(1)
        elif kind == "slice":
            final.append(_slice_axis(result, value, axis))
        elif kind == "int" and positions:
            _gather_axis(result, Static(np.asarray(value)), axis)
        elif kind == "int":
            _box(result, value, 1, 1)
            result.dropped.add(axis)
        elif kind == "array":
            _gather_axis(result, value, axis)
        axis += kind not in ("new", "gap")
    if result.axes:
        at, result.lead = _place_of_index_axes([kind for kind, _ in items])
        final[at:at] = result.index_shape
    result.final = tuple(final)
    return result


def position(shape: tuple[int, ...], key: Any) -> tuple[int, ...] | None:
    """Where a key of integers leads, counted from the start of the first axes; None for all other keys,
    and for those that are wrong.
    """
    keys = key if type(key) is tuple else (key,)
    if not 0 < len(keys) <= len(shape):
        return None
    found = []
    for index, size in zip(keys, shape, strict=False):
        if type(index) not in _INTEGERS or not -size <= index < size:
            return None
        found.append(int(index) % size)
    return tuple(found)


def _ints_and_slices(shape: tuple[int, ...], key: Any) -> Plan | None:
    """The plan of a key of integers and slices between Python ints; None for all other keys, and for those
    that are wrong.
    """
    keys = key if type(key) is tuple else (key,)
    if not 0 < len(keys) <= len(shape):
        return None
    result = Plan(shape=shape)
    final: list[int] = []
    for axis, (each, size) in enumerate(zip(keys, shape, strict=False)):
        if type(each) in _INTEGERS and -size <= each < size:
            _box(result, int(each) % size, 1, 1)
            result.dropped.add(axis)
        elif type(each) is slice and {type(each.start), type(each.stop), type(each.step)} <= _BOUNDS:
            final.append(_slice_axis(result, each, axis))
        else:
            return None
    rest = shape[len(keys) :]
    result.starts += [0] * len(rest)
    result.counts += rest
    result.steps += [1] * len(rest)
    result.final = (*final, *rest)
    return result


_INTEGERS = {int, np.int64}
"""Types of the integers in most keys: of a range, of an array."""

_BOUNDS = {int, type(None)}
"""Types of the bounds of most slices."""


def _slice_axis(result: Plan, value: slice, axis: int) -> int:
    """Take a slice of an axis; the number of its elements."""
    start, stop, step = value.indices(result.shape[axis])
    count = len(range(start, stop, step))
    if step < 0:  # the same elements forwards, then flipped
        result.flipped.append(axis)
        start, step = start + (count - 1) * step if count else 0, -step
    _box(result, start if count else 0, count, step)
    return count


def _gather_axis(result: Plan, index: Static | Dynamic, axis: int) -> None:
    """Take the elements that an index array names, of the whole axis."""
    size = result.shape[axis]
    _box(result, 0, size, 1)
    result.axes.append(axis)
    result.indices.append(_checked(index, axis, size, picks=0 not in result.index_shape))
    result.masked = result.masked or (isinstance(index, Static) and index.length is not None)


def _place_of_index_axes(kinds: list[str]) -> tuple[int, int]:
    """Where NumPy puts the axes of index arrays: how many axes of the result stand in front of them, and how
    many of these are slices.

    They stand where the first index array or integer stands if all of those are neighbours, else in front:
    ``x[:, [0, 1], 2]`` has them second, ``x[:, [0, 1], :, 2]`` first.
    """
    advanced = [position for position, kind in enumerate(kinds) if kind in ("int", "array")]
    if advanced != list(range(advanced[0], advanced[-1] + 1)):
        return 0, 0
    before = kinds[: advanced[0]]
    slices = before.count("slice")
    return slices + before.count("new"), slices


def _box(result: Plan, start: int, count: int, step: int) -> None:
    result.starts.append(start)
    result.counts.append(count)
    result.steps.append(step)


def _index_shape(items: list[tuple[str, Any]]) -> tuple[int, ...]:
    """The broadcast shape of all index arrays of a key; () where it has none."""
    shapes = [
        value.values.shape if isinstance(value, Static) else value.node.shape
        for kind, value in items
        if kind == "array"
    ]
    try:
        return np.broadcast_shapes(*shapes) if shapes else ()
    except ValueError:
        text = " ".join(str(shape) for shape in shapes)
        raise IndexError(
            f"shape mismatch: indexing arrays could not be broadcast together with shapes {text} (at {user_location()})"
        ) from None


def _items(trace: Trace, shape: tuple[int, ...], key: Any) -> list[tuple[str, Any]]:
    """The key as (kind, value) pairs that cover every axis: int, slice, new, array."""
    keys = key if isinstance(key, tuple) else (key,)
    items: list[tuple[str, Any]] = []
    used, ellipsis = 0, None
    for each in keys:
        if each is None:
            items.append(("new", None))
        elif each is Ellipsis:
            if ellipsis is not None:
                raise IndexError("an index can only have a single ellipsis ('...')")
            ellipsis = len(items)
        elif isinstance(each, slice):
            items.append(("slice", _checked_slice(each)))
            used += 1
        else:
            for item in _integer_items(trace, each):
                items.append(item)
                used += item[0] != "new"
    if used > len(shape):
        raise IndexError(
            f"too many indices for array: array is {len(shape)}-dimensional, but {used} were indexed (at {user_location()})"
        )
    at = len(items) if ellipsis is None else ellipsis
    # An ellipsis stands between its neighbours also where it covers no axis: index arrays on both sides are
    # apart.
    covered: list[tuple[str, Any]] = [("slice", slice(None))] * (len(shape) - used)
    items[at:at] = covered or [("gap", None)]
    # the axis of an integer is only known now
    axis, ready = 0, []
    for kind, value in items:
        if kind == "int":
            value = _in_range(value, axis, shape[axis])
        ready.append((kind, value))
        axis += kind not in ("new", "gap")
    return ready


def _checked_slice(value: slice) -> slice:
    value = slice(*[_bound(bound) for bound in (value.start, value.stop, value.step)])
    if any(
        isinstance(bound, Tracer) and static_array(bound) is None
        for bound in (value.start, value.stop, value.step)
    ):
        raise TraceError(
            f"a slice bound is a traced value at {user_location()}: the shape of the result would depend on it. Use a Python number "
            "(static_argnums), or np.take with np.arange(length) + start, whose length is fixed."
        )
    return value


def _bound(bound: Any) -> Any:
    """A slice bound; a number from a captured array is read now."""
    known = (
        METHODS["__concretise__"](bound, "a slice bound")
        if isinstance(bound, Tracer) and static_array(bound) is None
        else None
    )
    return bound if known is None else known


def _integer_items(trace: Trace, value: Any) -> list[tuple[str, Any]]:
    """An integer, an index array or a mask."""
    if not isinstance(value, Tracer | np.ndarray | list | tuple):
        try:
            return [("int", operator.index(value))]
        except TypeError:
            raise IndexError(
                "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean arrays are valid "
                f"indices (at {user_location()})"
            ) from None
    known = _known_index(value)
    return _traced_items(trace, value) if known is None else _known_items(known)


def _known_index(value: Any) -> np.ndarray | None:
    """The values of an index array or a mask, where they are known while tracing."""
    known = static_array(value)
    if known is None and isinstance(value, Tracer) and not value.shape:
        known = METHODS["__concretise__"](
            value, "an index", only_small=True
        )  # one number: a fixed place is much cheaper than a computed one
    if known is None and isinstance(value, list | tuple) and not any_tracer(value):
        known = np.asarray(value)
    if known is not None and not known.size and isinstance(value, list | tuple) and known.dtype.kind != "b":
        return known.astype(np.int64)  # an empty list has no dtype of its own
    return known


def _known_items(known: np.ndarray) -> list[tuple[str, Any]]:
    """An index array or a mask of known values."""
    if known.dtype.kind == "b":
        return _mask_items(known)
    if known.dtype.kind not in "iu":
        raise _not_integers()
    return [("array", Static(known.astype(np.int64)))] if known.ndim else [("int", int(known))]


def _traced_items(trace: Trace, value: Any) -> list[tuple[str, Any]]:
    """An index array that is traced or comes from outside.

    Raises:
        TraceError: a mask, whose values decide the shape of the result.
    """
    outside = isinstance(value, np.ndarray) and value.dtype != object
    if outside and value.dtype.kind not in "iub":
        raise _not_integers()
    node = node_of(trace, value)
    if node.dtype.kind == "b":
        mask = METHODS["__concretise__"](wrap(trace, node), "indexing with a mask")
        if mask is not None:
            return _mask_items(mask)
        raise TraceError(
            f"indexing with a traced mask at {user_location()}: the shape of the result would depend on its values. Use "
            "np.where(mask, x, 0) and reduce, for example np.sum(np.where(mask, x, 0)) for x[mask].sum()."
        )
    if node.dtype.kind not in "iu":
        raise _not_integers()
    return [("array", Dynamic(as_index(trace, node), value if outside else None))]


def _not_integers() -> IndexError:
    return IndexError(f"arrays used as indices must be of integer (or boolean) type (at {user_location()})")


def _mask_items(mask: np.ndarray) -> list[tuple[str, Any]]:
    return [
        ("array", Static(index, length)) for index, length in zip(np.nonzero(mask), mask.shape, strict=True)
    ]


def _in_range(index: int, axis: int, size: int) -> int:
    if not -size <= index < size:
        raise IndexError(
            f"index {index} is out of bounds for axis {axis} with size {size} (at {user_location()})"
        )
    return index % size


def _checked(index: Static | Dynamic, axis: int, size: int, *, picks: bool) -> Index:
    """Index arrays ready for a gather; what is known now is in range, and static indices become non-negative.

    Indices that pick nothing, because another array of the key has no element, may be anything, as in NumPy.
    """
    if isinstance(index, Dynamic):
        if index.present is not None and picks:
            in_range(index.present, axis, size)
        return index.node
    if index.length not in (None, size):
        raise IndexError(
            f"boolean index did not match indexed array along axis {axis}; size of axis is {size} but size of corresponding boolean "
            f"axis is {index.length} (at {user_location()})"
        )
    return in_range(index.values, axis, size) if picks else np.zeros_like(index.values)


def in_range(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Index values from 0 to size - 1.

    Raises:
        IndexError: as NumPy.
    """
    if not values.size:
        return values
    low, high = int(values.min()), int(values.max())
    if low < -size or high >= size:
        wrong = low if low < -size else high
        raise IndexError(
            f"index {wrong} is out of bounds for axis {axis} with size {size} (at {user_location()})"
        )
    return np.where(values < 0, values + size, values) if low < 0 else values


# ---------------------------------------------------------------------------------------------------- reading


def index_nodes(trace: Trace, indices: list[Index], shape: tuple[int, ...]) -> list[Node]:
    """Index arrays as int64 nodes of one shape."""
    nodes = []
    for index in indices:
        if isinstance(index, np.ndarray):
            nodes.append(trace.builder.const(np.broadcast_to(index, shape), I64))
        else:
            nodes.append(trace.broadcast(index, shape))
    return nodes


def gathered(trace: Trace, x: Node, indices: list[Node], axes: tuple[int, ...]) -> Node:
    """`gather`: result axes are the index axes, then the remaining axes of x."""
    return trace.emit("gather", x, *indices, axes=axes)


def boxed(trace: Trace, x: Node, p: Plan) -> Node:
    """The sliced and flipped box with the integer axes dropped."""
    x = trace.emit("slice", x, starts=tuple(p.starts), limits=p.limits, steps=tuple(p.steps))
    if p.flipped:
        x = trace.emit("flip", x, axes=tuple(p.flipped))
    return x


def item(trace: Trace, x: Node, at: tuple[int, ...]) -> Node:
    """``x[at]``, at a position on the first axes. Each is made once: loops read the same items again and
    again.
    """
    found = trace.items.get((x, at))
    if found is None:
        rest = x.shape[len(at) :]
        starts, limits = (*at, *[0] * len(rest)), (*[i + 1 for i in at], *rest)
        box = trace.emit("slice", x, starts=starts, limits=limits, steps=(1,) * len(starts))
        found = trace.items[x, at] = trace.emit("reshape", box, shape=rest)
    return found


def kept_axes(p: Plan) -> tuple[list[int], tuple[int, ...]]:
    """Axes of x that are left when integers are dropped, and where among them the gathered ones stand."""
    kept = [i for i in range(len(p.shape)) if i not in p.dropped]
    return kept, tuple(kept.index(axis) for axis in p.axes)


def read(trace: Trace, x: Node, p: Plan) -> Node:
    """``x[key]``."""
    x = boxed(trace, x, p)
    if p.basic:
        return trace.emit("reshape", x, shape=p.final)
    kept, axes = kept_axes(p)
    x = trace.emit("reshape", x, shape=tuple(p.counts[i] for i in kept))
    part = gathered(trace, x, index_nodes(trace, p.indices, p.index_shape), axes)
    part = trace.emit("transpose", part, perm=placed(p, len(part.shape)))
    return trace.emit("reshape", part, shape=p.final)


def placed(p: Plan, ndim: int) -> tuple[int, ...]:
    """Order that moves the index axes of a gather's result to their place among the sliced axes."""
    width = len(p.index_shape)
    return (*range(width, width + p.lead), *range(width), *range(width + p.lead, ndim))


def wrapped_indices(trace: Trace, indices: Any, size: int, axis: int, mode: str) -> Node:
    """An index argument of np.take and its kin as an int64 node.

    Raises:
        IndexError: a static index out of range in mode 'raise'.
    """
    known = static_array(indices)
    if known is not None:
        if known.dtype.kind not in "iub" and known.size:
            raise TypeError(
                f"Cannot cast array data from {known.dtype!r} to dtype('int64') according to the rule 'safe'"
            )
        known = known.astype(np.int64)
        if mode == "raise":
            known = in_range(known, axis, size)
        elif mode == "wrap":
            known = known % size
        else:
            known = np.clip(known, 0, size - 1)
        return trace.builder.const(known, I64)
    node = node_of(trace, indices)
    if node.dtype.kind not in "iub":
        raise TypeError(
            f"Cannot cast array data from {node.dtype!r} to dtype('int64') according to the rule 'safe'"
        )
    node = as_index(trace, node)
    if mode == "raise":
        return node
    value: Any = Tracer(trace, node)
    value = value % size if mode == "wrap" else np.minimum(np.maximum(value, 0), size - 1)
    return value._node  # type: ignore[no-any-return]
