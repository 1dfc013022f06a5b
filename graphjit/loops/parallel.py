"""Split loops into blocks that threads can claim.

Job: cut large top-level loops into blocks fixed by shape; turn one large accumulation into partial ones and a
short final loop. Input and output: a loop kernel.
Invariant: which iterations make a block, and the order in which partial results are combined, depends on
shapes only; so results are the same for every number of threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from graphjit.ir.affine import Affine, axis_index
from graphjit.ir.buffers import Buffer
from graphjit.loops.collapse import map_addresses
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
    LoopKernel,
    Multiply,
    Ref,
    Scalar,
    Statement,
    Store,
    free_refs,
    map_refs,
    open_accumulators,
    running,
    uses,
    walk,
)
from graphjit.loops.sums import block_length, restored, rounded_away
from graphjit.loops.vectorize import HEAVY

GRAIN_NS = 8_000  # estimated work of a block
WORTH_NS = 12_000  # estimated work from which a loop is split at all
MAX_BLOCKS = 256
PER_NS = 40
"""Multiply-adds of a matrix product per nanosecond of an estimate."""
SUM_BLOCK = 4_096  # elements of one partial accumulation at the least
SCAN_BLOCK = 16_384  # elements of a running sum that one task takes at the least
SCAN_PIECE = 4_096  # bytes after which a running sum of floating-point numbers starts anew from what stands before it: that bounds its errors
SCAN_ROW = 1 << 17  # elements from which it is cut


def parallelize(kernel: LoopKernel) -> LoopKernel:
    """Split what pays."""
    body: list[Statement] = []
    extra: list[Buffer] = []
    numbers = itertools.count(
        1 + max((s.ref.number for s in walk(kernel.body) if isinstance(s, Let | Init)), default=0)
    )
    for i, statement in enumerate(kernel.body):
        if not isinstance(statement, For):
            body.append(statement)
            continue
        if statement.kind == "parallel":  # a sweep: cut into tasks already
            work = estimate(statement)
            body.append(
                replace(statement, nanoseconds=work)
                if work >= WORTH_NS
                else replace(statement, kind="serial")
            )
            continue
        sums = open_accumulators(statement)
        if not _can_cut(statement):
            runs = _scan(statement, kernel.body[:i], kernel.body[i + 1 :], numbers, extra, kernel.name)
            body += runs or [statement]
            continue
        work = estimate(statement)
        lets, length = _free_lets(statement, kernel.body[:i]), _length(statement, work)
        # One block would be no split: few lanes with long loops inside (the sum of a tall matrix over its
        # rows).
        if not sums and work >= WORTH_NS and length < statement.extent:
            if lets is not None:
                body.append(_blocks(statement, lets, length, work))
                continue
        if sums and statement.extent >= 2 * SUM_BLOCK:
            lets = _free_lets(statement, kernel.body[:i], set(sums))
            if lets is not None:
                body += _partial(statement, lets, sums, numbers, extra, work, kernel.name)
                continue
        body.append(statement)
    return replace(kernel, body=tuple(body), locals=(*kernel.locals, *extra))


def _can_cut(loop: For) -> bool:
    """Whether blocks of ``loop`` are independent: they write different places, and nobody reads a running
    total.
    """
    if running(loop):
        return False
    for statement in walk(loop.body):
        if isinstance(statement, Store) and (
            statement.combine or statement.dynamic or not statement.address[loop.axis]
        ):
            return False
    return True


def _scan(
    loop: For,
    before: tuple[Statement, ...],
    after: tuple[Statement, ...],
    numbers: itertools.count[int],
    extra: list[Buffer],
    name: str,
) -> list[Statement] | None:
    """Running sums along one long row: the total of each block, what stands before each block, then every
    block from there on.

    What joins the sums is computed twice, so it must be little. The order of additions is another than that
    of one long loop, though always the same: a block whose own total overflows gives inf although the running
    sum did not. Products of floating-point numbers, where that is likely, stay in one piece, like everything
    with factors.
    """
    combines, runs = open_accumulators(loop), running(loop)
    joins = [s for s in loop.body if isinstance(s, Accumulate) and s.ref in runs]
    stores = [s for s in loop.body if isinstance(s, Store)]
    simple = len(joins) == len(runs) and not any(isinstance(s, For | Init | Check) for s in loop.body)
    exact = all(s.factor is None and (s.combine == "add" or s.ref.dtype.kind in "iu") for s in joins)
    if (
        not runs
        or not simple
        or not exact
        or loop.extent < SCAN_ROW
        or any(s.combine or s.dynamic or not s.address[loop.axis] for s in stores)
    ):
        return None
    totals = _feeding(loop, joins)
    if not runs.isdisjoint(ref for s in totals[: -len(joins)] for ref in uses(s)) or any(
        s.value in runs for s in joins
    ):
        return None  # a running sum of running sums
    if any(
        isinstance(s, Let) and isinstance(s.value, Scalar) and (s.value.op in HEAVY or s.value.check)
        for s in totals
    ) or any(
        ref in runs
        for s in after
        for t in (s, *(walk(s.body) if isinstance(s, For) else ()))
        for ref in uses(t)
    ):
        return None
    work = estimate(loop)
    first = replace(loop, body=totals, unroll=4 if loop.kind == "simd" else 1)
    lets, firsts = _free_lets(loop, before, set(combines)), _free_lets(first, before, runs)
    if lets is None or firsts is None or work < WORTH_NS:
        return None
    order = sorted(runs, key=lambda ref: ref.number)
    piece = SCAN_PIECE // max(ref.dtype.itemsize for ref in order)
    length = -(-max(SCAN_BLOCK, -(-loop.extent // MAX_BLOCKS)) // piece) * piece
    if all(ref.dtype.kind != "f" for ref in order):  # integers are exact
        piece = length
    count = -(-loop.extent // piece)
    parts = {
        ref: [Buffer(f"{name}{kind}{ref.number}", ref.dtype, count, "local") for kind in "po"]
        for ref in order
    }
    others = {
        ref: Buffer(f"{name}p{ref.number}", ref.dtype, -(-loop.extent // length), "local")
        for ref in combines
        if ref not in runs
    }
    extra.extend(buffer for pair in parts.values() for buffer in pair)
    extra.extend(others.values())

    def new(dtype: np.dtype) -> Ref:
        return Ref(next(numbers), dtype)

    def fresh() -> dict[Ref, Ref]:
        return {ref: new(ref.dtype) for ref in order}

    def inits(own: dict[Ref, Ref]) -> list[Statement]:
        return [Init(own[ref], combines[ref], running=True) for ref in order]

    def in_pieces(loop: For) -> tuple[For, For, For, Address]:
        """Empty loops over blocks and over the pieces of one; the loop over one piece; the number of the
        piece.
        """
        block, inner, blocks = _split(loop, length)
        small, inner, most = _split(replace(inner, bound=None), piece, "c")
        ragged = Bound(Affine(0, {block: length, small: piece}), loop.extent) if loop.extent % piece else None
        bound = Bound(Affine(0, {block: most}), count) if loop.extent % length else None
        around, within = For(block, blocks, (), "parallel"), For(small, most, (), bound=bound)
        return around, within, replace(inner, bound=ragged), Affine(0, {block: most, small: 1})

    around, within, inner, here = in_pieces(first)
    own = fresh()
    keep: list[Statement] = [Store(parts[ref][0], here, own[ref]) for ref in order]
    within = replace(within, body=(*inits(own), _renamed(inner, own), *keep))
    sums = replace(around, body=(*firsts, within), nanoseconds=estimate(first))
    axis = Axis(f"{around.axis.name}s")
    here, own = Affine(0, {axis: 1}), fresh()
    starts = inits(own)
    each: list[Statement] = []
    for ref in order:
        so_far, part = new(ref.dtype), new(ref.dtype)
        each += [
            Let(so_far, Scalar("copy", (own[ref],))),
            Let(part, Load(parts[ref][0], here)),
            Accumulate(own[ref], combines[ref], part),
        ]
        start = so_far
        if ref.dtype.kind == "f":
            lost = new(ref.dtype)
            starts.append(Init(lost, "add", running=True))
            start, whole = restored(so_far, lost, new)
            error, rounded = rounded_away(so_far, part, own[ref], new)
            each += [*whole, *rounded, Accumulate(lost, "add", error)]
        each.append(Store(parts[ref][1], here, start))
    starts.append(For(axis, count, tuple(each)))
    around, within, inner, here = in_pieces(loop)
    own, offsets = fresh(), fresh()
    open_: list[Statement] = inits(own)
    for ref in order:
        open_ += [
            Let(offsets[ref], Load(parts[ref][1], here)),
            Accumulate(own[ref], combines[ref], offsets[ref]),
        ]
    sides = {ref: new(ref.dtype) for ref in others}
    own |= sides
    close: list[Statement] = [Store(others[ref], axis_index(around.axis), sides[ref]) for ref in others]
    within = replace(within, body=(*open_, map_refs(inner, lambda ref: own.get(ref, ref))))
    body = (*lets, *(Init(sides[ref], combines[ref]) for ref in others), within, *close)
    runs_on = replace(around, body=body, nanoseconds=work)
    return [
        sums,
        *starts,
        runs_on,
        *([_gathered(others, combines, numbers, around.axis, around.extent)] if others else []),
    ]


def _feeding(loop: For, joins: list[Accumulate]) -> tuple[Statement, ...]:
    """What of a loop's body it takes to compute ``joins``; they stand at the end."""
    wanted = {s.value for s in joins}
    lets: list[Statement] = []
    for statement in reversed(loop.body):
        if isinstance(statement, Let) and statement.ref in wanted:
            wanted |= set(uses(statement))
            lets.append(statement)
    return (*lets[::-1], *joins)


def estimate(loop: For) -> int:
    """Estimated nanoseconds of a loop on one core."""
    return int(
        _estimate(loop.body, loop.extent, loop.kind == "simd", loop.extent if loop.kind == "parallel" else 1)
    )


def _estimate(body: tuple[Statement, ...], times: int, lanes: bool, tasks: int) -> float:
    """A loop under a condition runs in one of the tasks."""
    scale = 0.06 if lanes else 0.3
    total = 0.0
    for statement in body:
        if isinstance(statement, For):
            runs = times if statement.when is None else times / tasks
            total += runs * (
                _estimate(statement.body, statement.extent, lanes or statement.kind == "simd", tasks) + 1
            )
        elif isinstance(statement, Multiply):
            total += times * math.prod(statement.shape) / PER_NS
        elif isinstance(statement, Let) and isinstance(statement.value, Scalar):
            cost = 16 if statement.value.op in HEAVY else 4 if statement.value.op in ("div", "sqrt") else 1
            total += times * scale * cost
        elif isinstance(statement, Store) or (
            isinstance(statement, Let) and isinstance(statement.value, Load)
        ):
            total += times * scale * 4
        else:
            total += times * scale
    return total


def _free_lets(loop: For, before: tuple[Statement, ...], known: set[Ref] | None = None) -> list[Let] | None:
    """Definitions that the loop needs from outside, in order; None when one of them is an accumulator."""
    wanted = free_refs(loop) - (known or set())
    lets: list[Let] = []
    for statement in reversed(before):
        if isinstance(statement, Let) and statement.ref in wanted:
            wanted.discard(statement.ref)
            wanted |= set(uses(statement))
            lets.append(statement)
    return None if wanted else lets[::-1]


def _length(loop: For, work: int) -> int:
    blocks = max(2, min(MAX_BLOCKS, work // GRAIN_NS, loop.extent))
    length = -(-loop.extent // blocks)
    return -(-length // 64) * 64 if loop.kind == "simd" else length


def _split(loop: For, length: int, suffix: str = "b") -> tuple[Axis, For, int]:
    """``loop`` over one block: the block's axis, the inner loop, and the number of blocks."""
    block = Axis(f"{loop.axis.name}{suffix}")

    def moved(address: Address) -> Address:
        step = address[loop.axis]
        return address + Affine(0, {block: step * length}) if step else address

    body = tuple(map_addresses(s, moved) for s in loop.body)
    ragged = Bound(Affine(0, {block: length}), loop.extent) if loop.extent % length else None
    return block, replace(loop, body=body, extent=length, bound=ragged), -(-loop.extent // length)


def _blocks(loop: For, lets: list[Let], length: int, work: int) -> For:
    block, inner, count = _split(loop, length)
    return For(block, count, (*lets, inner), "parallel", nanoseconds=work)


def _partial(
    loop: For,
    lets: list[Let],
    sums: Mapping[Ref, str],
    numbers: itertools.count[int],
    extra: list[Buffer],
    work: int,
    name: str,
) -> list[Statement]:
    """Partial accumulations in blocks of whole pieces of sums, then one serial loop over the partial
    results.
    """
    piece = block_length(loop) or 64
    length = max(SUM_BLOCK, -(-loop.extent // MAX_BLOCKS), _length(loop, work) if work >= WORTH_NS else 0)
    length = -(-length // piece) * piece
    block, inner, count = _split(loop, length)
    buffers = {ref: Buffer(f"{name}p{ref.number}", ref.dtype, count, "local") for ref in sums}
    extra.extend(buffers.values())
    here = Affine(0, {block: 1})
    own = {ref: Ref(next(numbers), ref.dtype) for ref in sums}
    first: list[Statement] = [*lets, *(Init(own[ref], combine) for ref, combine in sums.items())]
    first += [_renamed(inner, own), *(Store(buffers[ref], here, own[ref]) for ref in sums)]
    parallel = work >= WORTH_NS
    return [
        For(block, count, tuple(first), "parallel" if parallel else "serial", nanoseconds=work),
        _gathered(buffers, sums, numbers, block, count),
    ]


def _gathered(
    buffers: Mapping[Ref, Buffer],
    sums: Mapping[Ref, str],
    numbers: itertools.count[int],
    block: Axis,
    count: int,
) -> For:
    """Partial accumulations of all blocks, in their order."""
    axis = Axis(f"{block.name}s")
    final: list[Statement] = []
    for ref, buffer in buffers.items():
        part = Ref(next(numbers), ref.dtype)
        final += [Let(part, Load(buffer, Affine(0, {axis: 1}))), Accumulate(ref, sums[ref], part)]
    return For(axis, count, tuple(final))


def _renamed(statement: Statement, own: dict[Ref, Ref]) -> Statement:
    if isinstance(statement, For):
        return replace(statement, body=tuple(_renamed(s, own) for s in statement.body))
    if isinstance(statement, Accumulate):
        return replace(statement, ref=own.get(statement.ref, statement.ref))
    return statement
