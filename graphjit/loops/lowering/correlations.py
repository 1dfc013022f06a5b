"""Lower sliding products: each result is a sum over the part of one series that lies under the other.

Job: loop nests for `correlate`, without a matrix of windows and without a term that does not exist.
Input: a `correlate` node whose first series is not the shorter one.  Output: statements.
Invariants: memory is what the node's arguments and result take; every result is written, and of terms outside
nothing is read or added.

In the order of the results the short series w slides onto x, lies on it whole, and slides off, so there are
three parts:

    x:            . . . . . . . .             results: rising, then n - m + 1 whole, then falling
    w:   rising . . .   whole   . . . falling

A tile of neighbouring results runs in lanes: for each element of w, the elements of x under it are one piece
of memory. Of a rising or falling part those terms that all results of a tile have run in lanes, too; the
triangle that is left is added result by result.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

from graphjit.ir.affine import Affine, axis_index
from graphjit.ir.buffers import Buffer
from graphjit.ir.node import Node
from graphjit.limits import Limits
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Axis,
    Bound,
    Const,
    For,
    Init,
    Let,
    Load,
    Ref,
    Scalar,
    Statement,
    Store,
)
from graphjit.schedule.access import storage
from graphjit.schedule.program import Program

UNROLL = 8
"""Vectors of results side by side: enough sums that do not wait for one another, and one element of w serves
them all.
"""
MAX_LANES = 32

Part = Literal["rising", "whole", "falling"]


@dataclass(frozen=True)
class _Terms:
    """``count`` products, ``most`` at the most: from these places on, element by element."""

    count: Address
    most: int
    x: Address
    w: Address


def lower_correlate(program: Program, node: Node, limits: Limits) -> list[Statement]:
    """Loops of one node."""
    return _Slide(program, node, limits).statements()


class _Slide:
    """One correlation; ``p`` is the number of a result, counted from the one in which the series meet."""

    def __init__(self, program: Program, node: Node, limits: Limits) -> None:
        self.lanes = min(MAX_LANES, limits.vectors.vector_bytes // node.dtype.itemsize)
        self.chain = limits.sums.chain_in_lanes
        self.x, self.w = (program.buffers[storage(arg)] for arg in node.args)
        self.out: Buffer = program.buffers[node]
        self.n, self.m, self.length = node.args[0].shape[-1], node.args[1].shape[-1], node.shape[-1]
        low: Any = node.attrs["low"]
        self.first: int = low - (self.m - 1)
        self._numbers = itertools.count()
        self._names = itertools.count()
        self.stack = math.prod(node.shape[:-1])
        self.row = axis_index(self.axis("s")) if self.stack > 1 else Affine()
        """Which two series of the stack."""

    def statements(self) -> list[Statement]:
        """The loops of one pair of series, for each pair."""
        if self.stack <= 1:
            return self.pair() if self.stack else []
        (axis,) = self.row.terms
        return [For(axis, self.stack, tuple(self.pair()))]

    def pair(self) -> list[Statement]:
        """All parts, as far as there are results in them, and zeros outside."""
        ends = (0, self.m - 1, self.n, self.n + self.m - 1)
        last = self.length - self.first
        made = self.zeros(0, min(self.first, self.length)) + self.zeros(
            max(self.first + ends[3], 0), self.length
        )
        for part, begin, end in zip(("rising", "whole", "falling"), ends, ends[1:], strict=False):
            begin, end = max(begin, -self.first), min(end, last)
            if begin < end:
                made += self.part(part, begin, end - begin)  # type: ignore[arg-type]
        return made

    def fresh(self) -> Ref:
        return Ref(next(self._numbers), self.out.dtype)

    def axis(self, name: str) -> Axis:
        return Axis(f"{name}{next(self._names)}")

    def zeros(self, begin: int, end: int) -> list[Statement]:
        if begin >= end:
            return []
        zero, axis = self.fresh(), self.axis("i")
        return [
            Let(zero, Const(self.out.dtype.type(0))),
            For(axis, end - begin, (Store(self.out, self.place(axis_index(axis) + begin), zero),)),
        ]

    def part(self, part: Part, begin: int, count: int) -> list[Statement]:
        """``count`` results of one part: tiles of neighbours (the last may repeat some of the one before), or
        one by one if they are few.
        """
        unroll = next((u for u in (UNROLL, 4, 2, 1) if self.lanes * u <= count), 0)
        tile = self.lanes * unroll
        if not unroll:
            return [
                self.rows(
                    count, lambda row: self.terms(part, Affine(begin) + row, begin + count - 1), Affine(begin)
                )
            ]
        made: list[Statement] = []
        tiles = count // tile
        if tiles > 1:
            axis = self.axis("b")
            start = Affine(begin, {axis: tile})
            made.append(
                For(axis, tiles, tuple(self.tile(part, start, begin + (tiles - 1) * tile, tile, unroll)))
            )
        else:
            made += self.tile(part, Affine(begin), begin, tile, unroll)
        if count % tile:
            made += self.tile(part, Affine(begin + count - tile), begin + count - tile, tile, unroll)
        return made

    def tile(self, part: Part, start: Address, last: int, tile: int, unroll: int) -> list[Statement]:
        """Results from ``start`` on, which is ``last`` at the most."""
        lane = self.axis("i")
        every = (
            self.terms(part, start, last)
            if part != "falling"
            else self.terms(part, start + (tile - 1), last + tile - 1)
        )
        # What all results of the tile have; a rising one begins with the elements of x that the first of them
        # begins with.
        x = every.x + axis_index(lane) - (tile - 1 if part == "falling" else 0)
        total, summed = self.sum(_Terms(every.count, every.most, x, every.w))
        made: list[Statement] = [
            For(lane, tile, (*summed, self.store(start + axis_index(lane), total)), "simd", unroll=unroll)
        ]
        if tile > 1 and part == "rising":
            made.append(
                self.rows(
                    tile - 1,
                    lambda row: _Terms(row + 1, tile - 1, Affine(), -start - row + (self.m - 2)),
                    start + 1,
                    adds=True,
                )
            )
        elif tile > 1 and part == "falling":
            rest = self.n + self.m - tile
            made.append(
                self.rows(
                    tile - 1,
                    lambda row: _Terms(-row + (tile - 1), tile - 1, row + (self.n + 1 - tile), -start + rest),
                    start,
                    adds=True,
                )
            )
        return made

    def terms(self, part: Part, p: Address, last: int) -> _Terms:
        """All terms of result ``p``; of those with the same code, the one with the most is at ``last`` where
        they rise, at the first where they fall.
        """
        if part == "rising":
            return _Terms(p + 1, last + 1, Affine(), -p + (self.m - 1))
        count = Affine(self.m) if part == "whole" else -p + (self.n + self.m - 1)
        return _Terms(count, self.m, p - (self.m - 1), Affine())

    def rows(self, count: int, terms: Any, start: Address, *, adds: bool = False) -> Statement:
        """Results one by one; ``adds``: to what is there already."""
        axis = self.axis("i")
        row: Address = axis_index(axis)
        total, body = self.sum(terms(row))
        if adds:
            old, new = self.fresh(), self.fresh()
            body += [
                Let(old, Load(self.out, self.place(start + row + self.first))),
                Let(new, Scalar("add", (old, total))),
            ]
            total = new
        return For(axis, count, (*body, self.store(start + row, total)))

    def sum(self, terms: _Terms) -> tuple[Ref, list[Statement]]:
        """A sum of products."""
        axis, total, a, c, product = self.axis("k"), self.fresh(), self.fresh(), self.fresh(), self.fresh()
        k: Address = axis_index(axis)
        each = (
            Let(a, Load(self.x, self.row * self.n + terms.x + k)),
            Let(c, Load(self.w, self.row * self.m + terms.w + k)),
            Let(product, Scalar("mul", (a, c))),
            Accumulate(total, "add", product),
        )
        most, bound = terms.most, None
        if (
            terms.count.terms
        ):  # whole blocks of sums (`loops/passes/sums.py`), of which the bound cuts the last
            most = -(-most // self.chain) * self.chain
            bound = Bound(terms.count * -1 + terms.count.offset, terms.count.offset)
        else:
            most = terms.count.offset
        return total, [Init(total, "add"), For(axis, most, each, bound=bound)]

    def store(self, p: Address, value: Ref) -> Statement:
        return Store(self.out, self.place(p + self.first), value)

    def place(self, result: Address) -> Address:
        """Where a result of the present pair is stored."""
        return self.row * self.length + result
