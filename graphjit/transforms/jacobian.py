"""Jacobians: every column of one by forward mode, or every row by reverse mode, as one graph.

A column is the tangent of the outputs for a direction that is 1 in one element of the input and 0 in all
others. There are three ways to get all of them.

- *Small functions*: column by column. Each direction is a constant, so what it does not touch is seen to be
  zero and is never built: straight-line code of what is left.
- *Functions that work element by element*, in forward mode: one derivative for each band (`bands`).
- *All others*: one tangent, over the batch of all directions (`batch`). A direction is
  ``select(diagonal, 1, 0)``: derivative rules keep such a selection outermost, so that zeros of a
  Jacobian are zeros, also where a local derivative is infinite, and products with directions are read off.

Example: the Jacobian of ``w @ x`` in ``x`` is ``w`` itself.

Input: input nodes and output nodes. Output: one block for each pair, of the shape of the output followed by
that of the input; None where the output does not depend on the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.types import BOOL, I64, Type
from graphjit.transforms.bands import banded
from graphjit.transforms.batch import batch, repeated
from graphjit.transforms.chains import along_chains
from graphjit.transforms.control.loops import Loop, Parts, run
from graphjit.transforms.effects import told_for_each
from graphjit.transforms.reverse import active_nodes, cotangents

MOST_COLUMNS = 32
"""Columns (or rows) up to which a Jacobian may be written out one by one."""
SMALL = 64
"""Elements up to which a value is small: functions of small values alone are written out."""
MOST_PARTS = 4
"""Parts of a Jacobian up to which each gets code of its own."""
MOST_NODES = 6_000
"""Nodes of derivatives up to which they are."""

Blocks = list[list[Node | None]]
Derivative = Callable[[Node], list[Node | None]]
"""Derivatives of several nodes for one seed."""
Chunk = int | Callable[[Sequence[Node], Node], int] | None
"""How many directions are computed at a time: a number; a function of the derivatives for one direction and
of the input that says which; None for all.
"""


def forward(b: Builder, inputs: Sequence[Node], outputs: Sequence[Node], chunk: Chunk = None) -> Blocks:
    """The blocks of each output, by forward mode; ``chunk`` directions of an input at a time."""
    most = _most_written_out(inputs, outputs)

    def blocks_of(x: Node) -> list[Node | None]:
        written_out = 0 < x.type.size <= most
        if not isinstance(chunk, int) and not written_out and x.type.size > 1:
            blocks = banded(b, x, outputs)
            if blocks is not None:
                return blocks
        found = _along(b, x.type, along_chains(b, x, outputs), written_out, chunk)
        return [
            None if block is None else _behind(b, block, out, x)
            for block, out in zip(found, outputs, strict=True)
        ]

    columns = [blocks_of(x) for x in inputs]
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in outputs]


def reverse(b: Builder, inputs: Sequence[Node], outputs: Sequence[Node], chunk: Chunk = None) -> Blocks:
    """The blocks of each output, by reverse mode; ``chunk`` elements of an output at a time."""
    most = _most_written_out(inputs, outputs)

    def blocks_of(out: Node) -> list[Node | None]:
        if out.dtype.kind != "f":
            return [None for _ in inputs]
        found = _along(
            b,
            out.type,
            lambda seed: cotangents(b, {out: seed}, inputs),
            0 < out.type.size <= most,
            chunk,
        )
        return [
            None if block is None else b.reshape(block, shape=(*out.shape, *x.shape))
            for block, x in zip(found, inputs, strict=True)
        ]

    return [blocks_of(out) for out in outputs]


def _most_written_out(inputs: Sequence[Node], outputs: Sequence[Node]) -> int:
    """The number of directions up to which each gets code of its own."""
    active = active_nodes(outputs, inputs)
    if any(part.size > SMALL for node in active for part in node.parts):
        return 0
    return min(MOST_COLUMNS, MOST_NODES // max(len(active), 1))


def _behind(b: Builder, block: Node, out: Node, x: Node) -> Node:
    """A block whose first axis numbers the elements of the input, with that axis behind those of the
    output.
    """
    last = b.transpose(block, perm=(*range(1, len(block.shape)), 0))
    return b.reshape(last, shape=(*out.shape, *x.shape))


def _along(b: Builder, type: Type, derive: Derivative, written_out: bool, chunk: Chunk) -> list[Node | None]:
    """Derivatives along each element of ``type``, numbered by a new first axis."""
    if type.size == 1:
        return _rows(b, derive(b.full(1.0, type)))
    if written_out and not isinstance(chunk, int):
        with b.folding():
            return _joined(b, [_rows(b, derive(_direction(b, type, i))) for i in range(type.size)])
    mask = b.input(type.with_dtype(BOOL), "direction")
    seed = b.select(mask, b.full(1.0, type), b.full(0.0, type))
    before = len(b.told)
    found = derive(seed)
    told = b.told.take(before)
    known = [node for node in found if node is not None]
    step = chunk(known, mask) if callable(chunk) else chunk or type.size
    step = max(min(step, type.size), 1)
    parts, first = [], 0
    if type.size // step > MOST_PARTS and not told:
        first = type.size // step * step
        parts.append(_of_rows(found, _in_a_loop(b, known, mask, step, first // step)))
    for start in range(first, type.size, step) if type.size else [0]:
        count = min(step, type.size - start)
        places = {mask: _places(b, type, start, count)}
        wide = _over(b, known, places, count)
        told_for_each(b, told, places, count, others=start == 0)
        parts.append(_of_rows(found, wide))
    return _joined(b, parts)


def _over(b: Builder, known: Sequence[Node], places: dict[Node, Node], count: int) -> list[Node]:
    """Derivatives for ``count`` directions."""
    wide = zip(known, batch(b, known, places), strict=True)
    return [repeated(b, node, count) if over is None else over for node, over in wide]


def _of_rows(found: Sequence[Node | None], rows: Sequence[Node]) -> list[Node | None]:
    """``rows`` of those that are not zero, in the places of all."""
    rest = iter(rows)
    return [None if node is None else next(rest) for node in found]


def _in_a_loop(b: Builder, known: Sequence[Node], mask: Node, step: int, count: int) -> list[Node]:
    """Derivatives for the first ``step * count`` directions, ``step`` at a time, by a loop: code for one part
    serves for all.
    """
    start, shape = b.input(Type(I64, ()), "start"), (step, mask.type.size)
    row = b.add(b.iota(dtype=I64, shape=shape, axis=0), b.broadcast_to(start, shape=shape))
    same = b.eq(row, b.iota(dtype=I64, shape=shape, axis=1))
    made = _over(b, known, {mask: b.reshape(same, shape=(step, *mask.shape))}, step)
    steps = b.iota(dtype=I64, shape=(count,), axis=0)
    args, inputs = Parts([], [], [b.mul(steps, b.full(step, steps.type))]), Parts([], [], [start])
    results = run(b, Loop("scan", args, inputs, [], made, None, count, False, "directions")).made
    return [b.reshape(x, shape=(count * step, *x.shape[2:])) for x in results]


def _direction(b: Builder, type: Type, place: int) -> Node:
    """1 at one place."""
    at = np.zeros(type.size, bool)
    at[place] = True
    mask = b.const(at.reshape(type.shape), BOOL)
    return b.select(mask, b.full(1.0, type), b.full(0.0, type))


def _places(b: Builder, type: Type, start: int, count: int) -> Node:
    """For directions ``start`` to ``start + count``: where each of them is 1."""
    same = b.diagonal(shape=(count, type.size), first=0, second=1, offset=start)
    return b.reshape(same, shape=(count, *type.shape))


def _rows(b: Builder, values: Sequence[Node | None]) -> list[Node | None]:
    """Each value as one row."""
    return [None if value is None else repeated(b, value, 1) for value in values]


def _joined(b: Builder, parts: Sequence[Sequence[Node | None]]) -> list[Node | None]:
    """Rows of several parts, one below the other; what is zero in some of them is filled up."""
    joined: list[Node | None] = []
    for rows in zip(*parts, strict=True):
        known = next((row for row in rows if row is not None), None)
        if known is None:
            joined.append(None)
            continue
        filled = [b.full(0.0, known.type) if row is None else row for row in rows]
        joined.append(b.concatenate(*filled, axis=0))
    return joined
