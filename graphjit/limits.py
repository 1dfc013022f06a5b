"""Thresholds: from where on a decision of the compiler goes the other way.

Job: hold every tuned number of the compiler, by the stage that reads it, with what was measured for it.
Input: the record of the machine, for the numbers that follow from cache sizes and vector width.
Output: `host_limits()`, the record for this machine, which `pipeline` passes down to every stage.
Invariant: nothing changes a record; a test that wants other numbers makes one and passes it:

    one_kernel = host_limits().changed(fusion={"tiny": 0})
    compile_graph(graph, limits=one_kernel)

What follows from the instruction set or the caches is computed in `Limits.of`; all other numbers stand beside
their explanation.  What an algorithm needs to be right (a table's size, the length of a series) is no limit
and stays where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from graphjit.machine import Machine, machine


class VectorLimits(NamedTuple):
    """`loops/passes/vectorize.py`: which loop of a nest runs in SIMD lanes, and how far it is unrolled."""

    vector_bytes: int
    """Bytes of a vector register."""
    min_lanes: int = 4
    """Iterations from which lanes are worth their set-up."""
    step: float = 1.0
    """Cycles to count and to jump."""
    horizontal: float = 8.0
    """Cycles to combine the lanes of an accumulator."""
    gathered: float = 1.5
    """Cycles for each element of a vector whose elements lie apart."""
    function: int = 10
    """Statements that an elementary function counts for in the size of a loop body."""
    unroll_4: int = 8
    """Statements of a body up to which four vectors are computed side by side ..."""
    unroll_2: int = 20
    """... and two."""
    steps: int = 16
    """Iterations that each unrolled copy must have."""
    chained: int = 3
    """Elementary functions, each waiting for the one before it, that make a chain: one vector at a time then
    leaves the processor idle."""
    chained_unroll: int = 4
    """Vectors that such a chain computes side by side (ten `tanh` of 1e5 elements: 1.77 to 0.80 ms)."""


class ThreadLimits(NamedTuple):
    """`loops/passes/parallel.py` and `scans.py`: which loops are cut into blocks that threads claim."""

    grain_ns: int = 8_000
    """Estimated work of a block."""
    worth_ns: int = 12_000
    """Estimated work from which a loop is cut at all: waking a thread takes some microseconds."""
    max_blocks: int = 256
    """Blocks of a loop at the most."""
    sum_block: int = 4_096
    """Elements of one partial sum at the least."""
    scan_row: int = 1 << 17
    """Elements from which a running sum along one row is cut: what joins them is computed twice."""
    scan_block: int = 16_384
    """Elements of a running sum that one task takes at the least."""
    scan_piece: int = 4_096
    """Bytes after which a running sum of floating-point numbers starts anew from what stands before it: that
    bounds its errors."""


class SumLimits(NamedTuple):
    """`loops/passes/sums.py` and the lowering of sweeps: how long a chain of additions may be.

    A chain loses about as many units in the last place as it has links.
    """

    chain: int = 32
    """Additions that follow one another in a block. With half as many, as in NumPy's blocks, errors were half
    as large, and what a block costs besides was felt."""
    long: int = 64
    """Additions that follow one another in one loop at the most; shorter sums are not cut."""
    chain_in_lanes: int = 64
    """The same inside a loop in lanes, where the total of a block costs as much as seven of its terms ..."""
    long_in_lanes: int = 192
    """... and NumPy, too, adds row after row there."""
    wide: int = 64
    """Columns from which sums down them are taken row by row: going down, each step lands on another page."""


class ScatterLimits(NamedTuple):
    """`loops/lowering/assemblies.py`: which scatters several tasks share, each owner of some rows."""

    row_bytes: int = 512
    """Bytes of an update from which two tasks share a scatter; four times as many, twice as many tasks."""
    least_bytes: int = 1 << 17
    """Bytes of all updates from which they are shared ..."""
    most_bytes: int = 1 << 22
    """... and from which they are not: one thread that reads them in order is as fast as memory is."""
    max_tasks: int = 16
    """Tasks at the most: each reads all positions."""


class TrafficLimits(NamedTuple):
    """`loops/passes/stream.py` and `prefetch.py`: what goes past the caches, and what is fetched ahead."""

    last_cache: int
    """Most of the last-level cache: of what is larger, or written beside as much, little is found again."""
    streamed_bytes: int
    """Bytes from which a result is written past the caches then."""
    far_bytes: int
    """Buffers from this size come from memory, or from a cache that is shared: the second-level cache."""
    ahead_bytes: int
    """What is fetched ahead at the most: it waits in the second-level cache beside what is in use."""
    idle: float = 1 / 8
    """Part of the longest pass over a row that the others must take together: memory hardly idles else."""


class CodeLimits(NamedTuple):
    """`loops/passes/calls.py`: where code is kept short, because its generation would take longer than it
    saves. An inlined elementary function takes a millisecond to generate."""

    calls: int = 16
    """Elementary functions in one loop body from which they are calls ..."""
    calls_short: int = 2
    """... and in a body that runs for few elements:"""
    short: int = 256
    """so many at the most."""
    straight_line: int = 200
    """Statements from which a kernel without loops is generated without optimisation."""


class Limits(NamedTuple):
    """Every threshold, by stage."""

    vectors: VectorLimits
    threads: ThreadLimits
    sums: SumLimits
    scatters: ScatterLimits
    traffic: TrafficLimits
    code: CodeLimits

    @classmethod
    def of(cls, here: Machine) -> Limits:
        """The limits for a machine."""
        _, second, last = here.caches
        return cls(
            vectors=VectorLimits(vector_bytes=here.vector_bytes),
            threads=ThreadLimits(),
            sums=SumLimits(),
            scatters=ScatterLimits(),
            traffic=TrafficLimits(
                last_cache=last // 4 * 3, streamed_bytes=last // 4, far_bytes=second, ahead_bytes=second // 4
            ),
            code=CodeLimits(),
        )

    def changed(self, **sections: Mapping[str, Any]) -> Limits:
        """A record with other numbers in some sections: ``changed(vectors={"min_lanes": 8})``."""
        return self._replace(
            **{name: getattr(self, name)._replace(**values) for name, values in sections.items()}
        )


@cache
def host_limits() -> Limits:
    """The limits for the machine that code is made for."""
    return Limits.of(machine())
