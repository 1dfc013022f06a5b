"""Loops cut into blocks of equal length: what the passes that split them have in common.

Job: a loop over one block and the number of blocks; what a block needs from outside; partial results put
together.
Input and output: statements of the loop IR.
Invariant: blocks are combined in their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Axis,
    Bound,
    For,
    Let,
    Load,
    Ref,
    Statement,
    free_refs,
    uses,
)
from graphjit.loops.passes.collapse import map_addresses


def free_lets(loop: For, before: tuple[Statement, ...], inside: set[Ref] | None = None) -> list[Let] | None:
    """Definitions that the loop needs from outside, in order; None when one of them is an accumulator.

    ``inside``: refs that are defined anew with the loop.
    """
    wanted = free_refs(loop) - (inside or set())
    lets: list[Let] = []
    for statement in reversed(before):
        if isinstance(statement, Let) and statement.ref in wanted:
            wanted.discard(statement.ref)
            wanted |= set(uses(statement))
            lets.append(statement)
    return None if wanted else lets[::-1]


def split(loop: For, length: int, suffix: str = "b") -> tuple[Axis, For, int]:
    """``loop`` over one block: the block's axis, the inner loop, and the number of blocks."""
    block = Axis(f"{loop.axis.name}{suffix}")

    def moved(address: Address) -> Address:
        step = address[loop.axis]
        return address + Affine(0, {block: step * length}) if step else address

    body = tuple(map_addresses(s, moved) for s in loop.body)
    ragged = Bound(Affine(0, {block: length}), loop.extent) if loop.extent % length else None
    return block, replace(loop, body=body, extent=length, bound=ragged), -(-loop.extent // length)


def gathered(
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


def renamed(statement: Statement, own: dict[Ref, Ref]) -> Statement:
    """The same statement feeding other accumulators."""
    if isinstance(statement, For):
        return replace(statement, body=tuple(renamed(s, own) for s in statement.body))
    if isinstance(statement, Accumulate):
        return replace(statement, ref=own.get(statement.ref, statement.ref))
    return statement
