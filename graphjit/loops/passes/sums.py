"""Long sums of floating-point numbers, taken in blocks.

Job: keep the rounding errors of a sum small, whatever its length. A chain of additions loses about as many
units in the last place as it has links. So a long loop becomes a loop over blocks, each with a sum of its
own. Adding that to the total rounds something away, which is computed exactly (Knuth's two-sum, TAOCP 4.2.2),
added up beside the total, and added to it at the end.
Input and output: a loop kernel, after all passes that choose lanes and cut loops.
Invariants: blocks are fixed by shape and vector width, so results do not depend on the number of threads;
short sums stay as they are.

    for i0 in 0..100000:                 for i0c in 0..6250:
      t1 = load in0[i0]                    t2 = accumulator add       # the sum of this block
      accumulate t0 add t1                 for i0 in 0..16:
                                             t1 = load in0[16*i0c + i0]
                                             accumulate t2 add t1
                                           t5 = copy t3               # the total before
                                           accumulate t3 add t2       # the total after
                                           ...                        # t10 = t5 + t2 - t3, exactly
                                           accumulate t4 add t10      # all that was rounded away
                                         t11 = add t3 t4
                                         accumulate t0 add t11
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from graphjit.ir.affine import Affine
from graphjit.ir.types import BOOL
from graphjit.limits import Limits, SumLimits
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Axis,
    Bound,
    For,
    Init,
    Let,
    LoopKernel,
    Ref,
    Scalar,
    Statement,
    fresh_numbers,
    map_refs,
    open_accumulators,
    running,
)
from graphjit.loops.passes.collapse import map_addresses


def cut_sums(kernel: LoopKernel, limits: Limits) -> LoopKernel:
    """Take long sums in blocks."""
    numbers = fresh_numbers(kernel)
    return kernel.with_body(_body(kernel.body, numbers, limits.sums, in_lanes=False))


def block_length(loop: For, limits: SumLimits) -> int:
    """Iterations of a loop, not inside one in lanes, that make a block of its sums; 0 where it is not cut."""
    each, stride = _links(loop.body), _stride(loop)
    if not _sums(loop) or -(-loop.extent // stride) * each <= limits.long:
        return 0
    return max(1, limits.chain // each) * stride


def _stride(loop: For) -> int:
    """Iterations that run side by side, each with a partial sum of its own."""
    return loop.lanes * loop.unroll if loop.kind == "simd" else 1


def _sums(loop: For) -> list[Ref]:
    """The sums that a loop feeds, that live beyond it, and of which nobody needs every stage."""
    stages = running(loop)
    found = [
        ref
        for ref, combine in open_accumulators(loop).items()
        if combine == "add" and ref.dtype.kind == "f" and ref not in stages
    ]
    return sorted(found, key=lambda ref: ref.number)


def _links(body: tuple[Statement, ...]) -> int:
    """Additions to one accumulator that follow one another in one run of ``body``."""
    found: dict[Ref, int] = {}
    for statement in body:
        if isinstance(statement, Accumulate):
            found[statement.ref] = found.get(statement.ref, 0) + 1
        elif isinstance(statement, For):
            links = -(-statement.extent // _stride(statement)) * _links(statement.body)
            for ref in open_accumulators(statement):
                found[ref] = found.get(ref, 0) + links
    return max(found.values(), default=1)


def _body(
    body: tuple[Statement, ...], numbers: Iterator[int], limits: SumLimits, *, in_lanes: bool
) -> tuple[Statement, ...]:
    made: list[Statement] = []
    for statement in body:
        if isinstance(statement, For):
            inside = in_lanes or statement.kind == "simd"
            inner = _body(statement.body, numbers, limits, in_lanes=inside)
            made += _loop(replace(statement, body=inner), numbers, limits, in_lanes)
        else:
            made.append(statement)
    return tuple(made)


def _loop(loop: For, numbers: Iterator[int], limits: SumLimits, in_lanes: bool) -> list[Statement]:
    """``loop``, or the same sums block by block."""
    sums = _sums(loop)
    each, stride = _links(loop.body), _stride(loop)
    most, chain = (limits.long_in_lanes, limits.chain_in_lanes) if in_lanes else (limits.long, limits.chain)
    if not sums or loop.when is not None or -(-loop.extent // stride) * each <= most:
        return [loop]
    length = max(1, chain // each) * stride
    start, stop = (
        (loop.bound.start, loop.bound.stop) if loop.bound is not None else (Affine[Axis](), loop.extent)
    )
    if loop.extent % length and loop.bound is not None:
        return [loop]
    if start.offset % length or any(factor % length for factor in start.terms.values()):
        return [loop]
    blocks = Axis(f"{loop.axis.name}c")
    place = Affine(0, {blocks: length})
    here = Affine(start.offset // length, {axis: factor // length for axis, factor in start.terms.items()})
    block = replace(loop, extent=length, bound=Bound(start + place, stop) if stop % length else None)
    bound = None if loop.bound is None else Bound(here, -(-stop // length))
    return _compensated(
        For(blocks, -(-loop.extent // length), (), bound=bound), moved(block, place), sums, numbers
    )


def _compensated(around: For, block: For, sums: list[Ref], numbers: Iterator[int]) -> list[Statement]:
    """``block`` inside ``around``: sums of its own, added to totals of which what they lose is kept."""
    before: list[Statement] = []
    each: list[Statement] = []
    after: list[Statement] = []

    def fresh(dtype: np.dtype) -> Ref:
        return Ref(next(numbers), dtype)

    own = {ref: fresh(ref.dtype) for ref in sums}
    for ref in sums:
        total, lost, old = (fresh(ref.dtype) for _ in range(3))
        before += [Init(total, "add"), Init(lost, "add")]
        error, computed = rounded_away(old, own[ref], total, fresh)
        each += [
            Let(old, Scalar("copy", (total,))),
            Accumulate(total, "add", own[ref]),
            *computed,
            Accumulate(lost, "add", error),
        ]
        whole, computed = restored(total, lost, fresh)
        after += [*computed, Accumulate(ref, "add", whole)]
    body = (*(Init(own[ref], "add") for ref in sums), map_refs(block, lambda ref: own.get(ref, ref)), *each)
    return [*before, replace(around, body=body), *after]


def rounded_away(
    old: Ref, value: Ref, total: Ref, fresh: Callable[[np.dtype], Ref]
) -> tuple[Ref, list[Statement]]:
    """``old + value - total``, exactly, where ``total`` is their rounded sum."""
    up, back, low, high, error = (fresh(total.dtype) for _ in range(5))
    return error, [
        Let(up, Scalar("sub", (total, old))),
        Let(back, Scalar("sub", (total, up))),
        Let(low, Scalar("sub", (old, back))),
        Let(high, Scalar("sub", (value, up))),
        Let(error, Scalar("add", (low, high))),
    ]


def restored(total: Ref, lost: Ref, fresh: Callable[[np.dtype], Ref]) -> tuple[Ref, list[Statement]]:
    """``total`` with what its additions have ``lost``, which is NaN beside infinities: then the total is
    right as it is.
    """
    ok, whole, value = fresh(BOOL), fresh(total.dtype), fresh(total.dtype)
    return value, [
        Let(ok, Scalar("eq", (lost, lost))),
        Let(whole, Scalar("add", (total, lost))),
        Let(value, Scalar("select", (ok, whole, total))),
    ]


def moved(loop: For, by: Address) -> For:
    """``loop`` over iterations that lie further on."""

    def change(address: Address) -> Address:
        factor = address[loop.axis]
        return address + by * factor if factor else address

    return replace(loop, body=tuple(map_addresses(s, change) for s in loop.body))
