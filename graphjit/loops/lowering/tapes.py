"""The tapes that a loop in registers reads and writes. Their words are handed on like carries.

Input: a loop of unknown length. Output: statements in the nest of `graphjit.loops.lowering.points`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import TAPES
from graphjit.ir.node import Node
from graphjit.ir.types import BOOL, I64
from graphjit.loops.ir import Carried, Peek, Push, Ref, Write
from graphjit.loops.lowering.open_loops import OpenLoops


class Tapes:
    """The tapes that a loop reads and writes. Their words are handed on like carries."""

    def __init__(self, points: OpenLoops, node: Node, starts: Sequence[Ref]) -> None:
        self.points = points
        self.starts = starts
        self.blank: list[Ref] = []
        if node.op.name != "scan":
            carried: Any = node.attrs["carried"]
            self.blank = [points.const(0, I64) for _ in node.parts[carried:]]
        self.words: list[Ref] = []
        self.written: list[Ref] = []
        self.before: list[Ref] = []
        self.after: list[Ref] = []

    def begin(self, place: int) -> None:
        """In the list of the steps."""
        self.words = [self.points.handed(I64, place) for _ in self.starts]
        self.written = [self.points.handed(I64, place) for _ in self.blank]

    def more(self) -> Ref | None:
        """Whether there is something on the tapes; None for loops that read none."""
        if not self.words:
            return None
        return self.points.scalar(0, BOOL, "ne", self.words[0], self.points.const(0, I64))

    def read(self, inputs: Sequence[Node]) -> None:
        """The values that a step reads are the last inputs of the body."""
        for word, x in zip(self.words, inputs[len(inputs) - len(self.words) :], strict=True):
            for at in range(x.type.size):
                value = Peek(word, at)
                self.points.memo[-1][x, Affine(at)] = self.points.let(
                    0, I64 if x.type.record else x.dtype, value
                )
        self.before = [self.points.let(0, I64, Peek(word, -1)) for word in self.words]

    def write(self, values: Sequence[Sequence[Ref]]) -> None:
        """What a step computes besides carries."""
        if not values:
            return
        self.after = [self.points.handed(I64, len(self.points.lists) - 1) for _ in values]
        rows = zip(self.after, self.written, values, strict=True)
        writes = tuple(Write(ref, before, tuple(refs)) for ref, before, refs in rows)
        self.points.lists[-1].append(Push(TAPES, writes))

    def carried(self) -> list[Carried]:
        """What steps hand on."""
        rows = (
            *zip(self.words, self.starts, self.before, strict=True),
            *zip(self.written, self.blank, self.after, strict=True),
        )
        return [Carried(*row) for row in rows]
