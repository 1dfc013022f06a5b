"""Positions in what a splice reads: a number that is computed once for many iterations of the loops inside.

Job: which runs of a splice an index can reach; and, where all of them lie in one array, the position there as
a function of a loop variable, affine piece by piece. A splice of a splice gives such a function again.
Input: a splice and an index. Output: runs; a `Position`.
Invariant: the pieces of a position cover every value of its index, in order.

    roll by one of 400 rows, read in row i0:   399 where i0 < 1, else i0 - 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphjit.ir.node import Node
from graphjit.loops.ir import Address, Axis
from graphjit.ops.splicing import Run, runs

ROW = 16
"""Iterations inside of a loop from which a number that each iteration of it computes costs nothing."""


@dataclass(frozen=True)
class Piece:
    """The value ``step * index + offset`` where ``begin <= index < end``."""

    begin: int
    end: int
    step: int
    offset: int


@dataclass(frozen=True)
class Position:
    """A number for each value of ``index``."""

    index: Address
    pieces: tuple[Piece, ...]

    def value(self, piece: Piece) -> Address:
        """What it is in a piece."""
        return self.index * piece.step + piece.offset

    def scaled(self, factor: int, offset: int) -> Position:
        """``factor`` times this plus ``offset``."""
        pieces = (Piece(p.begin, p.end, factor * p.step, factor * p.offset + offset) for p in self.pieces)
        return Position(self.index, tuple(pieces))

    def through(self, found: Sequence[Run]) -> Position:
        """Where the array that all runs ``found`` read has the element that lies here in the splice."""
        made = []
        for piece in self.pieces:
            for run in found:
                begin, end = _reaching(piece, run)
                if begin < end:
                    step, offset = run.step * piece.step, run.start + run.step * (piece.offset - run.begin)
                    made.append(Piece(begin, end, step, offset))
        return Position(self.index, tuple(sorted(made, key=lambda piece: piece.begin)))


def _reaching(piece: Piece, run: Run) -> tuple[int, int]:
    """Begin and end of the indices in a piece whose values lie in a run."""
    step, offset = piece.step, piece.offset
    if step == 0:
        return (piece.begin, piece.end) if run.begin <= offset < run.end else (0, 0)
    # The first index from which on the value lies inside, and the first that lies behind.
    if step > 0:
        begin, end = -((offset - run.begin) // step), -((offset - run.end) // step)
    else:
        begin, end = -((run.end - 1 - offset) // -step), (run.begin - offset) // step + 1
    return max(begin, piece.begin), min(end, piece.end)


def whole(index: Address, extents: Mapping[Axis, int]) -> Position:
    """The number that an index is."""
    low, high = index.span(extents)
    return Position(index, (Piece(low, high + 1, 1, 0),))


def reached(node: Node, span: tuple[int, int]) -> list[Run]:
    """The runs of a splice that an index between these numbers, both included, can lie in."""
    low, high = span
    return [run for run in runs(node) if run.begin <= high and run.end > low]
