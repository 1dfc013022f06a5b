"""What loops ask memory for one iteration ahead.

Job: rows that are passed several times come from memory in their first pass alone, and memory idles during
the others. The pass that computes longest therefore asks for the rows of the next iteration.
Input and output: a loop kernel; loops in lanes get the places that they fetch.
Invariant: a prefetch neither faults nor changes a value, so what follows the last iteration needs no test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.limits import Limits, TrafficLimits
from graphjit.loops.estimate import estimate
from graphjit.loops.ir import Address, Axis, For, Load, LoopKernel, Statement, loads, walk

Places = tuple[tuple[Buffer, Address], ...]


def prefetch(kernel: LoopKernel, limits: Limits) -> LoopKernel:
    """Mark what loops in lanes fetch."""
    return kernel.with_body(_body(kernel.body, limits.traffic))


def _body(body: tuple[Statement, ...], limits: TrafficLimits) -> tuple[Statement, ...]:
    return tuple(_loop(s, limits) if isinstance(s, For) else s for s in body)


def _loop(loop: For, limits: TrafficLimits) -> For:
    """A loop outside of lanes; the outermost one for which it pays decides for all in it."""
    if loop.kind == "simd":
        return replace(loop, fetch=_records_ahead(loop, limits))
    if loop.kind != "parallel":
        found = _ahead(loop, limits)
        if found:
            return _marked(loop, found)
    return replace(loop, body=_body(loop.body, limits))


def _marked(loop: For, found: dict[int, Places]) -> For:
    body = tuple(_marked(s, found) if isinstance(s, For) else s for s in loop.body)
    return replace(loop, body=body, fetch=found.get(id(loop), ()))


class _Rows:
    """The rows of the next iteration that are worth fetching, and who fetches them."""

    def __init__(
        self,
        loop: For,
        passes: list[tuple[For, set[Axis]]],
        limits: TrafficLimits,
        extents: dict[Axis, int],
    ) -> None:
        self.loop = loop
        self.passes = passes
        self.limits = limits
        self.extents = extents
        self.found: dict[int, Places] = {}  # by the identity of a loop in lanes
        self.size = 0
        self.offsets: dict[tuple[Buffer, frozenset[tuple[Axis, int]]], list[int]] = {}

    def consider(self, load: Load) -> None:
        """A load inside the loop: the first pass along its row fetches the next one."""
        buffer, address = load.buffer, load.address
        if load.refs or not address[self.loop.axis] or not _is_far(buffer, self.limits):
            return
        inner = address.terms.keys() & self.extents.keys()
        seen = self.offsets.setdefault((buffer, frozenset(address.terms.items())), [])
        for lanes, axes in self.passes:
            if address[lanes.axis] == 1 and axes >= inner:
                # Not a neighbour in the same row.
                if all(abs(address.offset - offset) >= lanes.extent for offset in seen):
                    seen.append(address.offset)
                    self.size += math.prod(self.extents[axis] for axis in inner) * buffer.dtype.itemsize
                    place = buffer, Affine(address.offset + address[self.loop.axis], address.terms)
                    self.found[id(lanes)] = (*self.found.get(id(lanes), ()), place)
                return


def _is_far(buffer: Buffer, limits: TrafficLimits) -> bool:
    """Whether a buffer comes from memory, or from a cache that is shared."""
    return buffer.kind in ("input", "arena") and buffer.nbytes >= limits.far_bytes


def _ahead(loop: For, limits: TrafficLimits) -> dict[int, Places]:
    """What each loop in lanes inside ``loop``, by its identity, fetches for the next iteration; empty where
    nothing is worth it.
    """
    passes = sorted(_in_lanes(loop.body, ()), key=lambda found: -estimate(found[0]))
    if len(passes) < 2 or loop.extent < 2:
        return {}  # one pass: the processor sees by itself what comes next
    extents = {s.axis: s.extent for s in walk(loop.body) if isinstance(s, For)}
    work = [
        estimate(lanes) * math.prod(extents[axis] for axis in axes if axis is not lanes.axis)
        for lanes, axes in passes
    ]
    if sum(work) - max(work) < max(work) * limits.idle:
        return {}
    rows = _Rows(loop, passes, limits, extents)
    for load in loads(loop.body):
        rows.consider(load)
    return rows.found if rows.size <= limits.ahead_bytes else {}


def _records_ahead(loop: For, limits: TrafficLimits) -> Places:
    """What the lanes of a heavy loop read in the next iteration, where each reads many elements side by side.

    The processor sees hundreds of operations ahead: with more in an iteration, it meets the next records only
    when it needs them.
    """
    if any(isinstance(s, For) for s in loop.body) or len(loop.body) < limits.long_body:
        return ()
    step = loop.lanes * loop.unroll
    records: dict[tuple[Buffer, Address], int] = {}
    for load in loads(loop.body):
        if _is_far(load.buffer, limits) and not load.refs and load.address[loop.axis] > 1:
            record = load.buffer, load.address - load.address.offset
            records[record] = min(records.get(record, load.address.offset), load.address.offset)
    return tuple(
        (buffer, address + (first + (address[loop.axis] + k) * step))
        for (buffer, address), first in records.items()
        for k in range(address[loop.axis])
    )


def _in_lanes(body: tuple[Statement, ...], around: tuple[Axis, ...]) -> Iterator[tuple[For, set[Axis]]]:
    """Loops in lanes, with the axes that are bound in them."""
    for statement in body:
        if isinstance(statement, For):
            axes = (*around, statement.axis)
            if statement.kind == "simd":
                yield statement, set(axes)
            else:
                yield from _in_lanes(statement.body, axes)
