"""Split loops into blocks that threads can claim.

Job: cut large top-level loops into blocks fixed by shape; turn one large accumulation into partial ones and a short final loop.
Input and output: a loop kernel.
Invariant: which iterations make a block, and the order in which partial results are combined, depends on shapes only; so results are the same
for every number of threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.loops.collapse import map_addresses
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Axis,
    Bound,
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
    open_accumulators,
    running,
    uses,
    walk,
)
from graphjit.loops.vectorize import HEAVY

GRAIN_NS = 8_000  # estimated work of a block
WORTH_NS = 12_000  # estimated work from which a loop is split at all
MAX_BLOCKS = 256
PER_NS = 40
"""Multiply-adds of a matrix product per nanosecond of an estimate."""
SUM_BLOCK = 4_096  # elements of one partial accumulation at the least: bounds the error of long sums


def parallelize(kernel: LoopKernel) -> LoopKernel:
    """Split what pays."""
    body: list[Statement] = []
    extra: list[Buffer] = []
    numbers = itertools.count(1 + max((s.ref.number for s in walk(kernel.body) if isinstance(s, Let | Init)), default=0))
    for i, statement in enumerate(kernel.body):
        if not isinstance(statement, For):
            body.append(statement)
            continue
        if statement.kind == "parallel":  # a sweep: cut into tasks already
            work = estimate(statement)
            body.append(replace(statement, nanoseconds=work) if work >= WORTH_NS else replace(statement, kind="serial"))
            continue
        sums = open_accumulators(statement)
        if not _can_cut(statement):
            body.append(statement)
            continue
        work = estimate(statement)
        lets, length = _free_lets(statement, kernel.body[:i]), _length(statement, work)
        # One block would be no split: few lanes with long loops inside (the sum of a tall matrix over its rows).
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
    """Whether blocks of ``loop`` are independent: they write different places, and nobody reads a running total."""
    if running(loop):
        return False
    for statement in walk(loop.body):
        if isinstance(statement, Store) and (statement.combine or statement.dynamic or not statement.address[loop.axis]):
            return False
    return True


def estimate(loop: For) -> int:
    """Estimated nanoseconds of a loop on one core."""
    return int(_estimate(loop.body, loop.extent, loop.kind == "simd", loop.extent if loop.kind == "parallel" else 1))


def _estimate(body: tuple[Statement, ...], times: int, lanes: bool, tasks: int) -> float:
    """A loop under a condition runs in one of the tasks."""
    scale = 0.06 if lanes else 0.3
    total = 0.0
    for statement in body:
        if isinstance(statement, For):
            runs = times if statement.when is None else times / tasks
            total += runs * (_estimate(statement.body, statement.extent, lanes or statement.kind == "simd", tasks) + 1)
        elif isinstance(statement, Multiply):
            total += times * math.prod(statement.shape) / PER_NS
        elif isinstance(statement, Let) and isinstance(statement.value, Scalar):
            cost = 16 if statement.value.op in HEAVY else 4 if statement.value.op in ("div", "sqrt") else 1
            total += times * scale * cost
        elif isinstance(statement, Store) or (isinstance(statement, Let) and isinstance(statement.value, Load)):
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


def _split(loop: For, length: int) -> tuple[Axis, For, int]:
    """``loop`` over one block: the block's axis, the inner loop, and the number of blocks."""
    block = Axis(f"{loop.axis.name}b")

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
    """Partial accumulations in blocks, then one serial loop over the partial results."""
    length = max(SUM_BLOCK, -(-loop.extent // MAX_BLOCKS), _length(loop, work) if work >= WORTH_NS else 0)
    length = -(-length // 64) * 64
    block, inner, count = _split(loop, length)
    buffers = {ref: Buffer(f"{name}p{ref.number}", ref.dtype, count, "local") for ref in sums}
    extra.extend(buffers.values())
    here = Affine(0, {block: 1})
    own = {ref: Ref(next(numbers), ref.dtype) for ref in sums}
    first: list[Statement] = [*lets, *(Init(own[ref], combine) for ref, combine in sums.items())]
    first += [_renamed(inner, own), *(Store(buffers[ref], here, own[ref]) for ref in sums)]
    axis = Axis(f"{block.name}s")
    final: list[Statement] = []
    for ref, combine in sums.items():
        part = Ref(next(numbers), ref.dtype)
        final += [Let(part, Load(buffers[ref], Affine(0, {axis: 1}))), Accumulate(ref, combine, part)]
    parallel = work >= WORTH_NS
    return [
        For(block, count, tuple(first), "parallel" if parallel else "serial", nanoseconds=work),
        For(axis, count, tuple(final)),
    ]


def _renamed(statement: Statement, own: dict[Ref, Ref]) -> Statement:
    if isinstance(statement, For):
        return replace(statement, body=tuple(_renamed(s, own) for s in statement.body))
    if isinstance(statement, Accumulate):
        return replace(statement, ref=own.get(statement.ref, statement.ref))
    return statement
