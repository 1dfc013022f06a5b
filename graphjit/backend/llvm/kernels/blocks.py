"""Neighbouring elements of each lane, turned into vectors with one element of every lane.

Job: of a loop over 6 by 6 matrices, each lane reads 36 elements that lie side by side. Read eight of them for
each of eight lanes as eight vectors, and transpose these in registers: 8 loads and 24 shuffles instead of 64
loads and 56 inserts. Stores are the same the other way round.
Input: the statements of a loop body; pointers.  Output: which accesses go together; LLVM text.
Invariants: only elements that the body reads or writes are touched; the accesses of a block move past no
store to the buffer, no load from it and no loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from graphjit.backend.llvm.kernels.scalar import vector
from graphjit.backend.llvm.writing.text import Function
from graphjit.ir.buffers import Buffer
from graphjit.loops.ir import Address, Axis, For, Let, Load, Statement, Store


class Block(NamedTuple):
    """``width`` elements from ``start`` on, in each lane; a power of two."""

    buffer: Buffer
    start: Address
    width: int


Place = tuple[Buffer, Address]
Blocks = dict[Place, tuple[Block, int]]
"""The block of an element, and its number there."""


def read_in_blocks(body: Sequence[Statement], axis: Axis, lanes: int, least: int) -> Blocks:
    """Which loads of a loop body go together, of those whose lanes lie more than ``least`` elements apart."""
    places: dict[Place, list[int]] = {}
    barriers: dict[Buffer | None, list[int]] = {}
    for number, statement in enumerate(body):
        if isinstance(statement, Let) and isinstance(statement.value, Load):
            load = statement.value
            if not load.refs:
                places.setdefault((load.buffer, load.address), []).append(number)
        elif isinstance(statement, Store):
            barriers.setdefault(statement.buffer, []).append(number)
        elif isinstance(statement, For):
            barriers.setdefault(None, []).append(number)
    return _blocks(places, barriers, axis, lanes, least)


def written_in_blocks(body: Sequence[Statement], axis: Axis, lanes: int, least: int) -> Blocks:
    """The same for its stores."""
    places: dict[Place, list[int]] = {}
    barriers: dict[Buffer | None, list[int]] = {}
    for number, statement in enumerate(body):
        if isinstance(statement, Store):
            if statement.dynamic or statement.combine or statement.streamed:
                barriers.setdefault(statement.buffer, []).append(number)
            else:
                places.setdefault((statement.buffer, statement.address), []).append(number)
        elif isinstance(statement, Let) and isinstance(statement.value, Load):
            barriers.setdefault(statement.value.buffer, []).append(number)
        elif isinstance(statement, For):
            barriers.setdefault(None, []).append(number)
    once = {place: numbers for place, numbers in places.items() if len(numbers) == 1}
    return _blocks(once, barriers, axis, lanes, least)


def _blocks(
    places: dict[Place, list[int]],
    barriers: dict[Buffer | None, list[int]],
    axis: Axis,
    lanes: int,
    least: int,
) -> Blocks:
    rows: dict[Place, list[int]] = {}  # offsets by what is the same for all elements of a lane
    for buffer, address in places:
        if address[axis] > least:
            rows.setdefault((buffer, address - address.offset), []).append(address.offset)
    found: Blocks = {}
    for (buffer, row), offsets in rows.items():
        stops = sorted([*barriers.get(buffer, ()), *barriers.get(None, ())])
        for first, width in _cut(sorted(offsets), min(lanes, row[axis])):
            block = Block(buffer, row + first, width)
            own = [(buffer, row + (first + i)) for i in range(width)]
            numbers = [number for place in own for number in places[place]]
            if not any(min(numbers) < stop < max(numbers) for stop in stops):
                found.update((place, (block, i)) for i, place in enumerate(own))
    return found


def _cut(offsets: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Neighbours among ``offsets`` in pieces of powers of two, from two on: (first, width)."""
    first = 0
    for i in range(1, len(offsets) + 1):
        if i == len(offsets) or offsets[i] != offsets[i - 1] + 1:
            while i - first > 1:
                width = 1 << (min(i - first, most).bit_length() - 1)
                yield offsets[first], width
                first += width
            first = i


# ------------------------------------------------------------------------------------------------------- text


def load_block(fn: Function, rows: Sequence[str], memory: str, size: int, width: int) -> list[str]:
    """Elements 0, 1 ... ``width`` - 1 behind each of the pointers ``rows``, each as a vector."""
    loaded = [fn.op(f"load {vector(memory, width)}, ptr {row}, align {size}") for row in rows]
    joined = [_joined(fn, loaded[i::width], memory, width) for i in range(width)]
    return _turned(fn, joined, vector(memory, len(rows)), len(rows))


def store_block(fn: Function, parts: Sequence[str], rows: Sequence[str], memory: str, size: int) -> None:
    """The inverse of `load_block`."""
    width, lanes = len(parts), len(rows)
    turned = _turned(fn, parts, vector(memory, lanes), lanes)
    for lane, row in enumerate(rows):
        piece = turned[lane % width]
        if width < lanes:
            first = lane // width * width
            piece = _shuffled(fn, vector(memory, lanes), piece, "poison", range(first, first + width))
        fn.do(f"store {vector(memory, width)} {piece}, ptr {row}, align {size}")


def _joined(fn: Function, pieces: Sequence[str], memory: str, width: int) -> str:
    """Short vectors one after the other, as one."""
    pieces = list(pieces)
    while len(pieces) > 1:
        of, both = vector(memory, width), range(2 * width)
        pieces = [_shuffled(fn, of, a, b, both) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
        width *= 2
    return pieces[0]


def _turned(fn: Function, vectors: Sequence[str], of: str, lanes: int) -> list[str]:
    """Squares of ``len(vectors)`` lanes transposed, side by side."""
    rows, distance = list(vectors), 1
    while distance < len(rows):
        # Swaps the bit ``distance`` of the number of a row with that of the number of a lane.
        low = [p if not p & distance else lanes + p - distance for p in range(lanes)]
        high = [p + distance if not p & distance else lanes + p for p in range(lanes)]
        for i in range(len(rows)):
            if not i & distance:
                a, b = rows[i], rows[i + distance]
                rows[i] = _shuffled(fn, of, a, b, low)
                rows[i + distance] = _shuffled(fn, of, a, b, high)
        distance *= 2
    return rows


def _shuffled(fn: Function, of: str, a: str, b: str, order: Iterable[int]) -> str:
    lanes = [f"i32 {i}" for i in order]
    return fn.op(f"shufflevector {of} {a}, {of} {b}, <{len(lanes)} x i32> <{', '.join(lanes)}>")
