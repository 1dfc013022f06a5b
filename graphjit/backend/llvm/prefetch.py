"""What a sweep asks memory for one block ahead.

Job: rows that are passed several times come from memory in their first pass alone, and memory idles during the others.  The pass that
computes longest therefore asks for the rows of the next block.
Input: the loop over blocks.  Output: for its loops in lanes, the places that they fetch.
Invariant: a prefetch neither faults nor changes a value, so what follows the last block needs no test.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.loops.ir import Address, Axis, For, Let, Load, Statement, walk
from graphjit.loops.parallel import estimate

FAR_BYTES = 1 << 20  # buffers from this size come from memory, or from a cache that is shared: about the second-level cache

Places = list[tuple[Buffer, Address]]


def ahead(blocks: For) -> dict[int, Places]:
    """By identity of the loops in lanes inside ``blocks``: what of the next block they fetch, where they fetch anything."""
    loops = list(_in_lanes(blocks.body, ()))
    found: dict[int, Places] = {}
    if len(loops) < 2:
        return found  # one pass: the processor sees by itself what comes next
    seen: set[tuple[Buffer, frozenset[tuple[Axis, int]]]] = set()
    longest = sorted(loops, key=lambda loop: -estimate(loop[0]))
    for statement in walk(blocks.body):
        if not (isinstance(statement, Let) and isinstance(statement.value, Load)):
            continue
        buffer, address = statement.value.buffer, statement.value.address
        key = (buffer, frozenset(address.terms.items()))
        if key in seen or statement.value.refs or not address[blocks.axis] or not _is_far(buffer):
            continue
        seen.add(key)  # neighbours of a stencil are fetched once
        for loop, axes in longest:
            if address[loop.axis] == 1 and axes.issuperset(address.terms.keys() & _axes(blocks)):
                found.setdefault(id(loop), []).append((buffer, Affine(address.offset + address[blocks.axis], address.terms)))
                break
    return found


def _is_far(buffer: Buffer) -> bool:
    return buffer.kind in ("input", "arena") and buffer.size * buffer.dtype.itemsize >= FAR_BYTES


def _axes(loop: For) -> set[Axis]:
    """Axes of the loops inside."""
    return {statement.axis for statement in walk(loop.body) if isinstance(statement, For)}


def _in_lanes(body: tuple[Statement, ...], around: tuple[Axis, ...]) -> Iterator[tuple[For, set[Axis]]]:
    """Loops in lanes, with the axes that are bound in them."""
    for statement in body:
        if isinstance(statement, For):
            axes = (*around, statement.axis)
            if statement.kind == "simd":
                yield statement, set(axes)
            else:
                yield from _in_lanes(statement.body, axes)
