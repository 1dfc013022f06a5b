"""What becomes of the iterations that do not fill whole vectors.

Job: for each loop in lanes, unroll less where that leaves no rest; else say whether the rest runs in the same
loop, whose vectors are then masked, or in a loop of its own.
Input and output: a loop kernel whose loops have their final extents.
Invariant: every iteration runs once.

    simd i0 in 0..1000 lanes 8 unroll 4:               -> unroll 1: 125 vectors, no rest
    simd i0 in 0..1003 lanes 8 unroll 4 tail apart:    -> 31 times 4 vectors, then 2 vectors with masks
"""

from __future__ import annotations

from dataclasses import replace

from graphjit.limits import Limits, VectorLimits
from graphjit.loops.ir import For, LoopKernel, Statement, Store, loads, walk
from graphjit.loops.passes.stream import is_light
from graphjit.loops.passes.vectorize import is_chained, sums_side_by_side


def fit_tails(kernel: LoopKernel, limits: Limits) -> LoopKernel:
    """Settle how far loops in lanes are unrolled, and their tails."""
    return kernel.with_body(_body(kernel.body, limits.vectors))


def _body(body: tuple[Statement, ...], limits: VectorLimits) -> tuple[Statement, ...]:
    return tuple(_loop(s, limits) if isinstance(s, For) else s for s in body)


def _loop(loop: For, limits: VectorLimits) -> For:
    if loop.kind != "simd":
        return replace(loop, body=_body(loop.body, limits))
    unroll = loop.unroll
    # A chain needs all of its vectors to have enough to do.
    if not is_chained(loop, limits) and sums_side_by_side(loop, limits) == 1:
        while unroll > 1 and loop.extent % (loop.lanes * unroll) and not loop.extent % loop.lanes:
            unroll //= 2
    loop = replace(loop, unroll=unroll)
    # Masks slow strided access and light loops, and streaming has none. A long body is not written twice.
    streams = any(isinstance(s, Store) and s.streamed for s in loop.body)
    slowed = (_is_strided(loop) or is_light(loop)) and len(loop.body) < limits.long_body
    apart = loop.is_ragged and (streams or slowed)
    return replace(loop, tail="apart" if apart else "masked")


def _is_strided(loop: For) -> bool:
    """Whether a loop in lanes reads or writes elements that are neither neighbours nor one and the same."""
    found = [load.address for load in loads(loop.body)]
    found += [s.address for s in walk(loop.body) if isinstance(s, Store)]
    return any(address[loop.axis] not in (0, 1) for address in found)
