"""Cut running sums along one long row into blocks that threads can claim.

Job: for a loop that wants every stage of its sums (`np.cumsum`), write three loops: the total of each block,
what stands before each block, and every block from there on.
Input: the loop and the statements around it.  Output: the statements that stand in its place.
Invariants: what joins the sums is computed twice, so it must be little; the order of additions is another
than that of one long loop, though always the same.

A block whose own total overflows gives inf although the running sum did not. Products of floating-point
numbers, where that is likely, stay in one piece, like everything with factors.

    parallel i0b:                 the total of each piece of a block       -> p
    for i0bs:                     what stands before each piece            -> o
    parallel i0b:                 every piece, from what stands before it  -> the result
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from graphjit.ir.affine import Affine, axis_index
from graphjit.ir.buffers import Buffer
from graphjit.ir.scalars import is_function
from graphjit.limits import Limits, ThreadLimits
from graphjit.loops.estimate import estimate
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Axis,
    Bound,
    Check,
    For,
    Init,
    Let,
    Load,
    Ref,
    Scalar,
    Statement,
    Store,
    map_refs,
    open_accumulators,
    running,
    uses,
    walk,
)
from graphjit.loops.passes.blocks import free_lets, gathered, renamed, split
from graphjit.loops.passes.sums import restored, rounded_away
from graphjit.loops.passes.vectorize import lanes_of

Body = tuple[Statement, ...]


def cut_running_sums(
    loop: For, before: Body, after: Body, numbers: itertools.count[int], name: str, limits: Limits
) -> tuple[list[Statement], list[Buffer]] | None:
    """The three loops and the buffers between them; None where the sums stay in one loop.

    ``before`` and ``after`` are the statements around the loop, ``name`` is that of the kernel.
    """
    runs = running(loop)
    joins = [s for s in loop.body if isinstance(s, Accumulate) and s.ref in runs]
    if not runs or loop.extent < limits.threads.scan_row or not _is_simple(loop, joins):
        return None
    totals = _feeding(loop, joins)
    if not _can_repeat(totals, joins) or _read_later(after, runs):
        return None
    first = replace(loop, body=totals)
    if loop.kind == "simd":  # what joins the sums may be narrower than the whole
        first = replace(first, unroll=4, lanes=lanes_of(first, limits.vectors))
    lets = free_lets(loop, before, set(open_accumulators(loop)))
    first_lets = free_lets(first, before, runs)
    if lets is None or first_lets is None or estimate(loop) < limits.threads.worth_ns:
        return None
    cut = _Cut(loop, runs, numbers, name, limits.threads)
    return cut.statements(first, first_lets, lets), cut.buffers()


def _is_simple(loop: For, joins: list[Accumulate]) -> bool:
    """Whether the loop joins each sum once, by additions whose order may change, and writes only its own
    elements.
    """
    stores = [s for s in loop.body if isinstance(s, Store)]
    if len(joins) != len(running(loop)) or any(isinstance(s, For | Init | Check) for s in loop.body):
        return False
    if any(s.combine or s.dynamic or not s.address[loop.axis] for s in stores):
        return False
    return all(s.factor is None and (s.combine == "add" or s.ref.dtype.kind in "iu") for s in joins)


def _feeding(loop: For, joins: list[Accumulate]) -> Body:
    """What of a loop's body it takes to compute ``joins``; they stand at the end."""
    wanted = {s.value for s in joins}
    lets: list[Statement] = []
    for statement in reversed(loop.body):
        if isinstance(statement, Let) and statement.ref in wanted:
            wanted |= set(uses(statement))
            lets.append(statement)
    return (*lets[::-1], *joins)


def _can_repeat(totals: Body, joins: list[Accumulate]) -> bool:
    """Whether what joins the sums is little, cannot fail, and is no running sum itself."""
    runs = {s.ref for s in joins}
    if any(s.value in runs for s in joins):
        return False
    if any(ref in runs for s in totals[: -len(joins)] for ref in uses(s)):
        return False
    operations = [s.value for s in totals if isinstance(s, Let) and isinstance(s.value, Scalar)]
    return not any(is_function(operation.op) or operation.check for operation in operations)


def _read_later(after: Body, runs: set[Ref]) -> bool:
    """Whether statements after the loop read a sum."""
    inner = [t for s in after for t in (s, *(walk(s.body) if isinstance(s, For) else ()))]
    return any(ref in runs for statement in inner for ref in uses(statement))


class _Cut:
    """The blocks of one loop with running sums.

    A block is what one task takes. It consists of pieces: floating-point sums start anew at each, from what
    stands before it, which bounds their errors; sums of integers are exact, and a block is one piece.
    """

    def __init__(
        self, loop: For, runs: set[Ref], numbers: itertools.count[int], name: str, limits: ThreadLimits
    ) -> None:
        self.loop = loop
        self.combines = open_accumulators(loop)
        self.runs = sorted(runs, key=lambda ref: ref.number)
        self.numbers = numbers
        piece = limits.scan_piece // max(ref.dtype.itemsize for ref in self.runs)
        self.length = -(-max(limits.scan_block, -(-loop.extent // limits.max_blocks)) // piece) * piece
        exact = all(ref.dtype.kind != "f" for ref in self.runs)
        self.piece = self.length if exact else piece
        self.pieces = -(-loop.extent // self.piece)
        self.totals, self.before = (
            {ref: Buffer(f"{name}{kind}{ref.number}", ref.dtype, self.pieces, "local") for ref in self.runs}
            for kind in "po"
        )
        self.others = {  # sums of the same loop of which only the end is wanted
            ref: Buffer(f"{name}p{ref.number}", ref.dtype, -(-loop.extent // self.length), "local")
            for ref in self.combines
            if ref not in runs
        }

    def buffers(self) -> list[Buffer]:
        """What lies between the loops."""
        pairs = (buffer for ref in self.runs for buffer in (self.totals[ref], self.before[ref]))
        return [*pairs, *self.others.values()]

    def statements(self, first: For, first_lets: list[Let], lets: list[Let]) -> list[Statement]:
        """The three loops; ``first`` is the loop with nothing but what joins the sums."""
        sums = self.total_of_pieces(first, first_lets)
        starts = self.before_pieces(sums.axis)
        last = self.from_there_on(lets)
        if not self.others:
            return [sums, *starts, last]
        ends = gathered(self.others, self.combines, self.numbers, last.axis, last.extent)
        return [sums, *starts, last, ends]

    def new(self, dtype: np.dtype) -> Ref:
        """A new name."""
        return Ref(next(self.numbers), dtype)

    def fresh(self) -> dict[Ref, Ref]:
        """A new name for each running sum."""
        return {ref: self.new(ref.dtype) for ref in self.runs}

    def inits(self, own: dict[Ref, Ref]) -> list[Statement]:
        """Running sums that begin."""
        return [Init(own[ref], self.combines[ref], running=True) for ref in self.runs]

    def in_pieces(self, loop: For) -> tuple[For, For, For, Address]:
        """Empty loops over blocks and over the pieces of one; the loop over one piece; the number of the
        piece.
        """
        block, inner, blocks = split(loop, self.length)
        small, inner, most = split(replace(inner, bound=None), self.piece, "c")
        begin = Affine(0, {block: self.length, small: self.piece})
        ragged = Bound(begin, loop.extent) if loop.extent % self.piece else None
        bound = Bound(Affine(0, {block: most}), self.pieces) if loop.extent % self.length else None
        around, within = For(block, blocks, (), "parallel"), For(small, most, (), bound=bound)
        return around, within, replace(inner, bound=ragged), Affine(0, {block: most, small: 1})

    def total_of_pieces(self, first: For, lets: list[Let]) -> For:
        """The first loop."""
        around, within, inner, here = self.in_pieces(first)
        own = self.fresh()
        keep: list[Statement] = [Store(self.totals[ref], here, own[ref]) for ref in self.runs]
        within = replace(within, body=(*self.inits(own), renamed(inner, own), *keep))
        return replace(around, body=(*lets, within), nanoseconds=estimate(first))

    def before_pieces(self, block: Axis) -> list[Statement]:
        """The second loop: the totals added up, with what each addition rounds away added up beside them."""
        axis = Axis(f"{block.name}s")
        here, own = Affine(0, {axis: 1}), self.fresh()
        starts = self.inits(own)
        each: list[Statement] = []
        for ref in self.runs:
            so_far, part = self.new(ref.dtype), self.new(ref.dtype)
            each += [
                Let(so_far, Scalar("copy", (own[ref],))),
                Let(part, Load(self.totals[ref], here)),
                Accumulate(own[ref], self.combines[ref], part),
            ]
            start = so_far
            if ref.dtype.kind == "f":
                lost = self.new(ref.dtype)
                starts.append(Init(lost, "add", running=True))
                start, whole = restored(so_far, lost, self.new)
                error, rounded = rounded_away(so_far, part, own[ref], self.new)
                each += [*whole, *rounded, Accumulate(lost, "add", error)]
            each.append(Store(self.before[ref], here, start))
        return [*starts, For(axis, self.pieces, tuple(each))]

    def from_there_on(self, lets: list[Let]) -> For:
        """The third loop."""
        around, within, inner, here = self.in_pieces(self.loop)
        own, offsets = self.fresh(), self.fresh()
        opening: list[Statement] = self.inits(own)
        for ref in self.runs:
            opening += [
                Let(offsets[ref], Load(self.before[ref], here)),
                Accumulate(own[ref], self.combines[ref], offsets[ref]),
            ]
        sides = {ref: self.new(ref.dtype) for ref in self.others}
        names = own | sides
        within = replace(within, body=(*opening, map_refs(inner, lambda ref: names.get(ref, ref))))
        body: Body = (
            *lets,
            *(Init(sides[ref], self.combines[ref]) for ref in self.others),
            within,
            *(Store(self.others[ref], axis_index(around.axis), sides[ref]) for ref in self.others),
        )
        return replace(around, body=body, nanoseconds=estimate(self.loop))
