"""Results of a block as one flat buffer: scaled, summed, sent, and taken apart again.

Input: value, gradient and aux of a block, in any containers. Output: the same of all blocks.
Invariants: all arrays of one dtype lie side by side, so that a sum is one pass a dtype; two results are
summed only if their layouts are equal.

Example: ``(loss, {"w": f64[3], "b": f32[2]})`` is 32 bytes of float64, then 8 bytes of float32.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.errors import DerivativeError, ShapeError
from graphjit.trace.pytree import flatten, texts, unflatten

ALIGNMENT = 64


@dataclass(frozen=True)
class Slot:
    """Stands for an array in a tree whose arrays are elsewhere."""

    index: int


@dataclass(frozen=True)
class Place:
    """One array in a buffer; ``scalar`` says that it was a NumPy scalar."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scalar: bool
    start: int

    def of(self, data: np.ndarray) -> np.ndarray:
        """The array in a buffer, not copied."""
        count = int(np.prod(self.shape))
        stop = self.start + count * self.dtype.itemsize
        return data[self.start : stop].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Layout:
    """Where the arrays of a result lie, and the stretches of one dtype."""

    places: tuple[Place, ...]
    stretches: tuple[Place, ...]
    nbytes: int

    @property
    def checksum(self) -> int:
        """A number that differs for different layouts, for processes to compare."""
        return zlib.crc32(repr(self).encode())


@dataclass
class Flat:
    """A result: its buffer, where things lie in it, and its containers with a `Slot` for each array."""

    data: np.ndarray
    layout: Layout
    containers: Any

    def __sizeof__(self) -> int:
        return self.data.nbytes + 1024  # dask asks, to know when memory is full

    def tree(self) -> Any:
        """The result in its containers."""
        leaves, spec = flatten(self.containers)
        return unflatten(spec, [self._leaf(leaf) if type(leaf) is Slot else leaf for leaf in leaves])

    def _leaf(self, slot: Slot) -> Any:
        place = self.layout.places[slot.index]
        array = place.of(self.data)
        return array[()] if place.scalar else array.copy()


def packed(result: Any, weight: float, reduction: str) -> Flat:
    """A result times its weight.

    Raises:
        DerivativeError: it has numbers that such a weight means nothing for.
    """
    leaves, spec = flatten(result)
    arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray | np.generic)]
    for leaf in arrays:
        if not np.issubdtype(leaf.dtype, np.inexact if reduction == "mean" else np.number):
            _refuse(leaf, leaves, spec, reduction)
    layout = _layout(arrays)
    data = np.empty(layout.nbytes, np.uint8)
    for place, leaf in zip(layout.places, arrays, strict=True):
        scale = place.dtype.type(weight)
        np.multiply(leaf, scale, out=place.of(data), casting="unsafe")
    numbers = iter(range(len(arrays)))
    slots = [Slot(next(numbers)) if isinstance(leaf, np.ndarray | np.generic) else leaf for leaf in leaves]
    return Flat(data, layout, unflatten(spec, slots))


def _layout(arrays: list[Any]) -> Layout:
    groups: dict[np.dtype[Any], list[int]] = defaultdict(list)
    for i, array in enumerate(arrays):
        groups[array.dtype].append(i)
    places: dict[int, Place] = {}
    stretches, end = [], 0
    for dtype, members in groups.items():
        first = end = -(-end // ALIGNMENT) * ALIGNMENT
        for i in members:
            array = arrays[i]
            places[i] = Place(dtype, array.shape, not isinstance(array, np.ndarray), end)
            end += array.nbytes
        stretches.append(Place(dtype, ((end - first) // dtype.itemsize,), False, first))
    return Layout(tuple(places[i] for i in range(len(arrays))), tuple(stretches), end)


def summed(left: Flat, right: Flat, in_place: bool = False) -> Flat:
    """The sum of two results; ``in_place`` writes it over the left one.

    Raises:
        ShapeError: they do not consist of the same arrays.
    """
    if left.layout != right.layout:
        raise ShapeError(UNLIKE)
    data = left.data if in_place else np.empty_like(left.data)
    for stretch in left.layout.stretches:
        np.add(stretch.of(left.data), stretch.of(right.data), out=stretch.of(data))
    return Flat(data, left.layout, left.containers)


UNLIKE = (
    "the results of two blocks have different shapes or dtypes, so they cannot be summed: what aux holds must "
    "not depend on the number of rows (a value for each row has no mean over blocks)"
)


def _refuse(leaf: Any, leaves: list[Any], spec: Any, reduction: str) -> None:
    """Raises: DerivativeError: always; it names the leaf."""
    name = texts(spec, "result")[[id(other) for other in leaves].index(id(leaf))]
    raise DerivativeError(
        f"{name} is {leaf.dtype}: with reduction={reduction!r} everything that the function returns is averaged "
        "or summed over blocks of rows, aux too. Return floating-point numbers"
        + (", or counts with reduction='sum'" if reduction == "mean" else "")
    )
