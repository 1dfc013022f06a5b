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

import math
from collections.abc import Callable, Iterator
from itertools import groupby, product
from typing import Any

import numpy as np

from graphjit.errors import TraceError
from graphjit.ir.node import Node
from graphjit.ir.types import I64, Type
from graphjit.ops.control import SMALL
from graphjit.trace.arrays.assignment import fitted, write
from graphjit.trace.arrays.indexing import Plan, item, read
from graphjit.trace.arrays.layout import model_of_copy
from graphjit.trace.numpy.arguments import tracing
from graphjit.trace.numpy.shapes import sliced
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.recorder import Recorder, Within, current
from graphjit.trace.recording.tracer import Trace, check_dtype

PIECES = 16
"""Cells up to which they are looked at one by one: to put a part together, to be written in a body."""


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

    A collected write is a *cell*: the element or row at a position on the first ``grain`` axes. ``token``
    changes with every write.
    """

    __slots__ = (
        "array",
        "base",
        "cells",
        "frozen",
        "grain",
        "joined",
        "model",
        "shared",
        "spent",
        "spoilt",
        "token",
        "trace",
        "type",
        "within",
    )

    def __init__(
        self, type: Type, array: np.ndarray | None, trace: Trace | None, node: Node | None, shared: str = ""
    ) -> None:
        self.within = within()
        self.type = type
        self.array = array
        self.trace = trace
        self.base = node
        self.cells: dict[tuple[int, ...], Node] = {}
        self.joined: dict[tuple[int, ...], Node] = {}
        """Cells that the base has too, so that reading one needs no part of the base."""
        self.grain = 0
        self.spent = 0
        """Cells that were read as a part of several since the last write."""
        # The function that made it, where NumPy would have returned a view that we do not follow.
        self.shared = shared
        self.frozen = ""
        """Why it cannot be written any more."""
        self.spoilt = ""
        """Why it cannot be read any more."""
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
        if self.spoilt:
            raise TraceError(f"{self.spoilt} (read at {user_location()})")
        if self.array is not None:
            return constant(tracing(), self.array)
        assert self.base is not None
        if self.cells:
            self._join()
        return self.base

    def note(self, trace: Recorder) -> None:
        """Keep what it is now in all journals that have not got it."""
        for journal in reversed(trace.journals):
            if id(self) in journal:
                return
            journal[id(self)] = self, self._undo()

    def _undo(self) -> Callable[[], None]:
        """What makes it again what it is now."""
        fields = ("base", "grain", "model", "spent", "token", "trace")
        kept = [getattr(self, name) for name in fields]
        array = None if self.array is None else self.array.copy(order="K")
        cells, joined = dict(self.cells), dict(self.joined)

        def undo() -> None:
            for name, value in zip(fields, kept, strict=True):
                setattr(self, name, value)
            self.array, self.cells, self.joined = array, dict(cells), dict(joined)

        return undo

    def become_traced(self, trace: Trace) -> None:
        """Nodes in place of known values."""
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
        self.cells, self.joined, self.token = {}, {}, object()

    def address(self, p: Plan) -> tuple[int, ...] | None:
        """The position of the one cell that a key names, or None."""
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
        return tuple(p.starts[:grain])

    def write(self, trace: Trace, p: Plan, value: Any) -> None:
        """Assign to a part."""
        address = self.address(p)
        if address is not None:
            self.put(trace, address, value)
            return
        self.become_traced(trace)
        self.replace(write(trace, self.node(), p, value))

    def put(self, trace: Trace, at: tuple[int, ...], value: Any) -> None:
        """Assign to what stands at a position."""
        self.become_traced(trace)
        grain = len(at)
        if grain != self.grain:
            if self.cells:
                self._join()
            self.joined = {}
        self.grain, self.spent = grain, 0
        self.cells[at] = fitted(trace, value, self.type.dtype, self.type.shape[grain:])
        self.token = object()

    def read(self, trace: Trace, p: Plan) -> Node:
        """A part, without joining collected writes where that is cheaper."""
        grain, count = self.grain, self.parts(p)
        cell = None
        if grain and p.basic and p.dropped.issuperset(range(grain)):
            cell = self._cell(tuple(p.starts[:grain]))
            if cell is None and self.base is not None:
                return read(trace, self.base, p)
        if cell is not None:
            inner = Plan(
                starts=p.starts[grain:],
                counts=p.counts[grain:],
                steps=p.steps[grain:],
                flipped=[axis - grain for axis in p.flipped],
                shape=p.shape[grain:],
                final=p.final,
            )
            return read(trace, cell, inner)
        # Joined once it would have been cheaper: so no reader pays more than twice. What is joined once is no
        # longer told apart: so long parts do not cost a node for each of their elements, time and again.
        self.spent += count
        if not count or count > PIECES or self.spent > len(self.cells):
            return read(trace, self.node(), p)
        return self._read_cells(trace, p)

    def item(self, trace: Trace, at: tuple[int, ...]) -> Node:
        """What stands at a position."""
        grain = self.grain
        if 0 < grain <= len(at):
            cell = self._cell(at[:grain])
            if cell is not None:
                return item(trace, cell, at[grain:]) if len(at) > grain else cell
        elif self.cells:
            return item(trace, self.node(), at)
        return item(trace, self.node() if self.base is None else self.base, at)

    def parts(self, p: Plan) -> int:
        """How many cells a part consists of; 0 where no writes are collected, or positions are not known."""
        return math.prod(p.counts[: self.grain]) if self.cells and p.basic else 0

    def _cell(self, at: tuple[int, ...]) -> Node | None:
        """A cell that was written, joined or not."""
        return self.cells.get(at) or self.joined.get(at)

    def _read_cells(self, trace: Trace, p: Plan) -> Node:
        """A part of several cells, put together of them."""
        grain, base = self.grain, self.base
        assert base is not None
        places = [
            range(start, start + count * step, step)
            for start, count, step in zip(p.starts[:grain], p.counts[:grain], p.steps[:grain], strict=True)
        ]
        if not any(map(self._cell, product(*places))):
            return read(trace, base, p)
        pieces: list[Node] = []
        for row in product(*places[:-1]):
            pieces += self._pieces(trace, row, places[-1])
        shape = (*p.counts[:grain], *self.type.shape[grain:])
        box = trace.emit("reshape", trace.emit("concatenate", *pieces, axis=0), shape=shape)
        inside = Plan(
            starts=[0] * grain + p.starts[grain:],
            counts=p.counts,
            steps=[1] * grain + p.steps[grain:],
            flipped=p.flipped,
            shape=shape,
            final=p.final,
        )
        return read(trace, box, inside)

    def _pieces(self, trace: Trace, row: tuple[int, ...], places: range) -> Iterator[Node]:
        """The cells at these places of a row, and the runs of the base between them, each with one axis in
        front.
        """
        assert self.base is not None
        inner = self.type.shape[self.grain :]
        for cell, run in groupby(places, lambda place: self._cell((*row, place))):
            same = list(run)
            if cell is not None:
                yield from [trace.emit("reshape", cell, shape=(1, *inner))] * len(same)
                continue
            ones, zeros = [1] * len(row), [0] * len(inner)
            untouched = Plan(
                starts=[*row, same[0], *zeros],
                counts=[*ones, len(same), *inner],
                steps=[*ones, places.step, *[1] * len(inner)],
                final=(len(same), *inner),
            )
            yield read(trace, self.base, untouched)

    def _join(self) -> None:
        """One concatenation of written cells and untouched runs. In a body, where a large array from outside
        is changed in every step, its cells are written one by one: the rest stays where it lies.
        """
        trace, base = tracing(), self.base
        assert base is not None
        shape, grain = self.type.shape, self.grain
        if self.within is not trace.within and len(self.cells) <= PIECES and self.type.size > SMALL:
            for at, cell in self.cells.items():
                places = [trace.builder.const(index, I64) for index in at]
                base = trace.emit("scatter_set", base, cell, *places, axes=tuple(range(grain)))
            self.base = base
            self.joined.update(self.cells)
            self.cells = {}
            return
        outer, inner = shape[:grain], shape[grain:]
        total = math.prod(outer)
        flat = trace.emit("reshape", base, shape=(total, *inner))
        pieces, reached = [], 0
        for at, cell in sorted(self.cells.items(), key=lambda entry: entry[0]):
            number = 0
            for index, size in zip(at, outer, strict=True):
                number = number * size + index
            if number > reached:
                pieces.append(sliced(trace, flat, 0, reached, number))
            pieces.append(trace.emit("reshape", cell, shape=(1, *inner)))
            reached = number + 1
        if reached < total:
            pieces.append(sliced(trace, flat, 0, reached, total))
        self.base = trace.emit("reshape", trace.emit("concatenate", *pieces, axis=0), shape=shape)
        self.joined.update(self.cells)
        self.cells = {}
