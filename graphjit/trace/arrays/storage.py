"""Where the value of a written array lives while a function is traced: `Owned`, the storage of an array that
is no view.

Job: keep the present value and take writes. While everything in it is known it is a real ndarray, which can
serve as a static index, a size or a mask; the first traced write turns it into nodes. Writes of single
elements or rows are collected, and joined when the whole is read next: a loop that fills an array costs one
node for each write, and reading back what was just written costs none.
Input: plans of keys (see `indexing`), values. Output: the node of the whole or of a part.

Example: after ``x[0] = a; x[2] = b`` on an array of four elements there are two cells, 0 and 2. Reading
``x[2]`` gives the node of ``b``; reading ``x`` emits one concatenation of ``a``, ``x[1:2]``, ``b`` and
``x[3:4]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.ir.node import Node
from graphjit.ir.types import Type
from graphjit.trace.arrays.assignment import fitted, write
from graphjit.trace.arrays.indexing import Plan, read
from graphjit.trace.arrays.layout import model_of_copy
from graphjit.trace.numpy.arguments import tracing
from graphjit.trace.numpy.shapes import sliced
from graphjit.trace.recording.recorder import Within, current
from graphjit.trace.recording.tracer import Trace, check_dtype


def constant(trace: Trace, array: np.ndarray) -> Node:
    """A known array by value; one number everywhere becomes a broadcast."""
    check_dtype(array.dtype)
    if array.size > 1:
        text = array.tobytes()
        if text == text[: array.itemsize] * array.size:
            return trace.builder.full(array.reshape(-1)[0], Type(array.dtype, array.shape))
    return trace.builder.const(array, array.dtype)


def within() -> Within | None:
    """The body of control flow that is being recorded in this thread, if any."""
    return None if current.recorder is None else current.recorder.within


class Owned:
    """The storage of an array that is no view: known values, or a node with collected writes.

    A collected write is a *cell*: the element or row that the first ``grain`` axes address, by its number in
    C order. ``token`` changes with every write.
    """

    __slots__ = ("array", "base", "cells", "grain", "model", "shared", "token", "trace", "type", "within")

    def __init__(
        self, type: Type, array: np.ndarray | None, trace: Trace | None, node: Node | None, shared: str = ""
    ) -> None:
        self.within = within()
        self.type = type
        self.array = array
        self.trace = trace
        self.base = node
        self.cells: dict[int, Node] = {}
        self.grain = 0
        # The function that made it, where NumPy would have returned a view that we do not follow.
        self.shared = shared
        self.model: np.ndarray | None = None
        self.token: object = node if node is not None else self

    def known(self) -> np.ndarray | None:
        """The values, while they are known; to be read only in bodies that they do not belong to."""
        if self.array is None or self.within is within():
            return self.array
        values = self.array.view()
        values.flags.writeable = False
        return values

    def layout(self) -> np.ndarray:
        """The model; the known values are their own."""
        if self.array is not None:
            return self.array
        if self.model is None:
            self.model = np.empty(self.type.shape, bool)
        return self.model

    def node(self) -> Node:
        """The present value."""
        if self.array is not None:
            return constant(tracing(), self.array)
        assert self.base is not None
        if self.cells:
            self._join()
        return self.base

    def _become_traced(self, trace: Trace) -> None:
        if self.array is not None:
            self.base = constant(trace, self.array)
            self.model = model_of_copy(self.array, "K")
            self.array, self.trace = None, trace

    def replace(self, node: Node) -> None:
        """A new value of the whole."""
        if self.array is not None:
            self.model = model_of_copy(self.array, "K")
            self.array = None
        self.trace, self.base = tracing(), node
        self.cells, self.token = {}, object()

    def address(self, p: Plan) -> tuple[int, int] | None:
        """(grain, number) of the one cell that a key names, or None."""
        grain = len(p.dropped)
        if (
            not p.basic
            or not grain
            or p.flipped
            or p.dropped != set(range(grain))
            or p.final != p.shape[grain:]
        ):
            return None
        if any(count != size for count, size in zip(p.counts[grain:], p.shape[grain:], strict=True)):
            return None
        return grain, self._number(p, grain)

    def _number(self, p: Plan, grain: int) -> int:
        number = 0
        for start, size in zip(p.starts[:grain], p.shape[:grain], strict=True):
            number = number * size + start
        return number

    def write(self, trace: Trace, p: Plan, value: Any) -> None:
        """Assign to a part."""
        self._become_traced(trace)
        address = self.address(p)
        if address is None:
            self.replace(write(trace, self.node(), p, value))
            return
        grain, number = address
        if self.cells and grain != self.grain:
            self._join()
        self.grain = grain
        self.cells[number] = fitted(trace, value, self.type.dtype, self.type.shape[grain:])
        self.token = object()

    def read(self, trace: Trace, p: Plan) -> Node:
        """A part, without joining collected writes where one cell or none of them is touched."""
        grain = self.grain
        if self.cells and p.basic and p.dropped.issuperset(range(grain)):
            cell = self.cells.get(self._number(p, grain))
            assert self.base is not None
            if cell is None:
                return read(trace, self.base, p)
            inner = Plan(
                starts=p.starts[grain:],
                counts=p.counts[grain:],
                steps=p.steps[grain:],
                flipped=[axis - grain for axis in p.flipped],
                shape=p.shape[grain:],
                final=p.final,
            )
            return read(trace, cell, inner)
        return read(trace, self.node(), p)

    def _join(self) -> None:
        """One concatenation of written cells and untouched runs."""
        trace, base = tracing(), self.base
        assert base is not None
        shape, inner = self.type.shape, self.type.shape[self.grain :]
        total = 1
        for size in shape[: self.grain]:
            total *= size
        flat = trace.emit("reshape", base, shape=(total, *inner))
        pieces, reached = [], 0
        for number in sorted(self.cells):
            if number > reached:
                pieces.append(sliced(trace, flat, 0, reached, number))
            pieces.append(trace.emit("reshape", self.cells[number], shape=(1, *inner)))
            reached = number + 1
        if reached < total:
            pieces.append(sliced(trace, flat, 0, reached, total))
        self.base = trace.emit("reshape", trace.emit("concatenate", *pieces, axis=0), shape=shape)
        self.cells = {}
