"""Split loops into blocks that threads can claim.

Job: cut large top-level loops into blocks fixed by shape; turn one large accumulation into partial ones and a
short final loop. Input and output: a loop kernel.
Invariant: which iterations make a block, and the order in which partial results are combined, depends on
shapes and the record of the machine only; so results are the same for every number of threads.

    for i0 in 0..1000000:            parallel i0b in 0..123:
      ...                              for i0 in 0..8192 while 8192*i0b + i0 < 1000000:
                                         ...

Running sums, of which every stage is wanted, are cut in `scans.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.limits import Limits
from graphjit.loops.estimate import estimate
from graphjit.loops.ir import (
    For,
    Init,
    Let,
    LoopKernel,
    Ref,
    Statement,
    Store,
    fresh_numbers,
    open_accumulators,
    running,
    walk,
)
from graphjit.loops.passes.blocks import free_lets, gathered, renamed, split
from graphjit.loops.passes.scans import cut_running_sums
from graphjit.loops.passes.sums import block_length


def parallelize(kernel: LoopKernel, limits: Limits) -> LoopKernel:
    """Split what pays."""
    return _Splitter(kernel, limits).result()


class _Splitter:
    """One kernel on its way into blocks."""

    def __init__(self, kernel: LoopKernel, limits: Limits) -> None:
        self.kernel = kernel
        self.limits = limits
        self.buffers: list[Buffer] = []  # of partial results
        self.numbers = fresh_numbers(kernel)

    def result(self) -> LoopKernel:
        """The kernel with its loops split."""
        body: list[Statement] = []
        for i, statement in enumerate(self.kernel.body):
            body += self.loop(i, statement) if isinstance(statement, For) else [statement]
        return replace(self.kernel, body=tuple(body), locals=(*self.kernel.locals, *self.buffers))

    def loop(self, i: int, loop: For) -> list[Statement]:
        """What becomes of the loop that is statement ``i`` of the kernel."""
        if loop.kind == "parallel":  # a sweep: cut into tasks already
            return [self.tasks(loop)]
        before, sums = self.kernel.body[:i], open_accumulators(loop)
        if not _can_cut(loop):
            return self.running_sums(i, loop) or [loop]
        work = estimate(loop)
        if sums:
            lets = free_lets(loop, before, set(sums))
            if lets is not None and loop.extent >= 2 * self.limits.threads.sum_block:
                return self.partial(loop, lets, sums, work)
            return [loop]
        lets, length = free_lets(loop, before), self.length(loop, work)
        # One block would be no split: few lanes with long loops inside (the sum of a tall matrix over its
        # rows).
        if lets is not None and work >= self.limits.threads.worth_ns and length < loop.extent:
            block, inner, count = split(loop, length)
            return [For(block, count, (*lets, inner), "parallel", nanoseconds=work)]
        return [loop]

    def tasks(self, loop: For) -> For:
        """A sweep's loop over tasks, serial where threads are not worth it."""
        work = estimate(loop)
        if work < self.limits.threads.worth_ns:
            return replace(loop, kind="serial")
        return replace(loop, nanoseconds=work)

    def running_sums(self, i: int, loop: For) -> list[Statement] | None:
        """Running sums along a long row, in blocks; None where they stay in one loop."""
        body = self.kernel.body
        made = cut_running_sums(loop, body[:i], body[i + 1 :], self.numbers, self.kernel.name, self.limits)
        if made is None:
            return None
        statements, buffers = made
        self.buffers += buffers
        return statements

    def length(self, loop: For, work: int) -> int:
        """Iterations of a block with a good amount of work; whole vectors."""
        threads = self.limits.threads
        blocks = max(2, min(threads.max_blocks, work // threads.grain_ns, loop.extent))
        length = -(-loop.extent // blocks)
        return -(-length // 64) * 64 if loop.kind == "simd" else length

    def partial(self, loop: For, lets: list[Let], sums: Mapping[Ref, str], work: int) -> list[Statement]:
        """Partial accumulations in blocks of whole pieces of sums, then one serial loop over the partial
        results.
        """
        threads = self.limits.threads
        parallel = work >= threads.worth_ns
        piece = block_length(loop, self.limits.sums) or 64
        length = max(
            threads.sum_block,
            -(-loop.extent // threads.max_blocks),
            self.length(loop, work) if parallel else 0,
        )
        block, inner, count = split(loop, -(-length // piece) * piece)
        buffers = {ref: Buffer(f"{self.kernel.name}p{ref.number}", ref.dtype, count, "local") for ref in sums}
        self.buffers += buffers.values()
        here = Affine(0, {block: 1})
        own = {ref: Ref(next(self.numbers), ref.dtype) for ref in sums}
        first: list[Statement] = [*lets, *(Init(own[ref], combine) for ref, combine in sums.items())]
        first += [renamed(inner, own), *(Store(buffers[ref], here, own[ref]) for ref in sums)]
        return [
            For(block, count, tuple(first), "parallel" if parallel else "serial", nanoseconds=work),
            gathered(buffers, sums, self.numbers, block, count),
        ]


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
            if statement.buffer.kind != "scratch":  # each task has its own
                return False
    return True
