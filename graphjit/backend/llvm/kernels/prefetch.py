"""What loops ask memory for one iteration ahead.

Job: rows that are passed several times come from memory in their first pass alone, and memory idles during
the others. The pass that computes longest therefore asks for the rows of the next iteration.
Input: a loop around several passes.  Output: for its loops in lanes, the places that they fetch.
Invariant: a prefetch neither faults nor changes a value, so what follows the last iteration needs no test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.loops.ir import Address, Axis, For, Let, Load, Statement, walk
from graphjit.loops.parallel import estimate

FAR_BYTES = (
    1 << 20
)  # buffers from this size come from memory, or from a cache that is shared: about the second-level cache
NEAR_BYTES = (
    1 << 18
)  # what is fetched ahead at the most: it must wait in the second-level cache beside what is in use
IDLE = 1 / 8  # part of the longest pass that the others must take together: memory hardly idles else

Places = list[tuple[Buffer, Address]]


def ahead(loop: For) -> dict[int, Places]:
    """What each loop in lanes inside ``loop``, by its identity, fetches for the next iteration; empty where
    nothing is worth it.
    """
    passes = sorted(_in_lanes(loop.body, ()), key=lambda found: -estimate(found[0]))
    found: dict[int, Places] = {}
    if len(passes) < 2 or loop.extent < 2:
        return found  # one pass: the processor sees by itself what comes next
    extents = {s.axis: s.extent for s in walk(loop.body) if isinstance(s, For)}
    work = [
        estimate(lanes) * math.prod(extents[axis] for axis in axes if axis is not lanes.axis)
        for lanes, axes in passes
    ]
    if sum(work) - max(work) < max(work) * IDLE:
        return found
    seen: dict[tuple[Buffer, frozenset[tuple[Axis, int]]], list[int]] = {}
    size = 0
    for statement in walk(loop.body):
        if not (isinstance(statement, Let) and isinstance(statement.value, Load)):
            continue
        buffer, address = statement.value.buffer, statement.value.address
        if statement.value.refs or not address[loop.axis] or not _is_far(buffer):
            continue
        inner = address.terms.keys() & extents.keys()
        known = seen.setdefault((buffer, frozenset(address.terms.items())), [])
        for lanes, axes in passes:
            if address[lanes.axis] == 1 and axes >= inner:
                if all(
                    abs(address.offset - offset) >= lanes.extent for offset in known
                ):  # not a neighbour in the same row
                    known.append(address.offset)
                    size += math.prod(extents[axis] for axis in inner) * buffer.dtype.itemsize
                    found.setdefault(id(lanes), []).append(
                        (buffer, Affine(address.offset + address[loop.axis], address.terms))
                    )
                break
    return found if size <= NEAR_BYTES else {}


def _is_far(buffer: Buffer) -> bool:
    return buffer.kind in ("input", "arena") and buffer.size * buffer.dtype.itemsize >= FAR_BYTES


def _in_lanes(body: tuple[Statement, ...], around: tuple[Axis, ...]) -> Iterator[tuple[For, set[Axis]]]:
    """Loops in lanes, with the axes that are bound in them."""
    for statement in body:
        if isinstance(statement, For):
            axes = (*around, statement.axis)
            if statement.kind == "simd":
                yield statement, set(axes)
            else:
                yield from _in_lanes(statement.body, axes)
