"""Elements at equal distances, for all lanes at once.

Job: load and store what lies ``step`` elements apart without gather and scatter instructions, which take a
cycle or more for each lane.
Input: a base pointer, a step, a number of lanes.  Output: LLVM text in the function under construction.
Invariants: nothing outside the elements asked for is touched, except that records of few elements are read
whole where the buffer is known to hold whole records; components of one record share their loads.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphjit.backend.llvm.kernels.scalar import vector
from graphjit.backend.llvm.writing.text import Function
from graphjit.ir.buffers import Buffer
from graphjit.loops.ir import Address, Axis, Statement, Store
from graphjit.loops.passes.vectorize import RECORD

WRITTEN = (2, 3, 4, 6, 8)
"""Lengths of records that are written by whole vectors, where all of a record is written."""

Record = tuple[Buffer, Address]
Components = dict[Record, list[int]]


def record_of(
    buffer: Buffer, address: Address, axis: Axis, lanes: int, steps: Sequence[int] = range(2, RECORD + 1)
) -> tuple[Record, int, int] | None:
    """The record that an element belongs to, its length and the element's number, when every lane has a
    record of its own in ``buffer``, of a length among ``steps``.
    """
    step = address[axis]
    if step not in steps or lanes < 4 or buffer.size % step or any(c % step for c in address.terms.values()):
        return None
    which = address.offset % step
    return (buffer, address - which), step, which


def components(body: Sequence[Statement], axis: Axis, lanes: int) -> Components:
    """Which components of records the statements of a loop body store."""
    stored: Components = {}
    for statement in body:
        if isinstance(statement, Store) and not (statement.dynamic or statement.combine):
            found = record_of(statement.buffer, statement.address, axis, lanes, WRITTEN)
            if found is not None:
                stored.setdefault(found[0], []).append(found[2])
    return stored


def written_whole(given: Sequence[int], step: int) -> bool:
    """Whether these components fill their records."""
    return sorted(given) == list(range(step))


def load_elements(fn: Function, base: str, memory: str, size: int, step: int, lanes: int) -> str:
    """``base[0], base[step], ...`` as one vector, built from single loads."""
    of = vector(memory, lanes)
    if step == -1:
        first = fn.op(f"getelementptr {memory}, ptr {base}, i64 {1 - lanes}")
        row = fn.op(f"load {of}, ptr {first}, align {size}")
        return backwards(fn, row, memory, lanes)
    found = "poison"
    for lane in range(lanes):
        place = fn.op(f"getelementptr {memory}, ptr {base}, i64 {lane * step}") if lane else base
        element = fn.op(f"load {memory}, ptr {place}, align {size}")
        found = fn.op(f"insertelement {of} {found}, {memory} {element}, i32 {lane}")
    return found


def store_elements(
    fn: Function, value: str, base: str, memory: str, size: int, step: int, lanes: int
) -> None:
    """``base[0] = value[0], base[step] = value[1] ...`` by single stores."""
    of = vector(memory, lanes)
    if step == -1:
        first = fn.op(f"getelementptr {memory}, ptr {base}, i64 {1 - lanes}")
        fn.do(f"store {of} {backwards(fn, value, memory, lanes)}, ptr {first}, align {size}")
        return
    for lane in range(lanes):
        place = fn.op(f"getelementptr {memory}, ptr {base}, i64 {lane * step}") if lane else base
        fn.do(
            f"store {memory} {fn.op(f'extractelement {of} {value}, i32 {lane}')}, ptr {place}, align {size}"
        )


def backwards(fn: Function, value: str, element: str, lanes: int) -> str:
    """The lanes of a vector in reverse."""
    return _shuffle(fn, vector(element, lanes), value, value, list(range(lanes - 1, -1, -1)))


def load_records(fn: Function, base: str, memory: str, size: int, step: int, lanes: int) -> list[str]:
    """``lanes`` whole records of ``step`` elements as ``step`` vectors in storage order."""
    of = vector(memory, lanes)
    rows = []
    for k in range(step):
        place = fn.op(f"getelementptr {memory}, ptr {base}, i64 {k * lanes}") if k else base
        rows.append(fn.op(f"load {of}, ptr {place}, align {size}"))
    return rows


def component(fn: Function, rows: list[str], memory: str, lanes: int, which: int) -> str:
    """Element ``which`` of every record."""
    step = len(rows)
    of = vector(memory, lanes)
    at = [which + lane * step for lane in range(lanes)]
    found = rows[0]
    for k in range(1, step):
        # Lanes collected so far stay where they are; those that lie in row k come from there.
        order = []
        for lane, place in enumerate(at):
            row, column = divmod(place, lanes)
            order.append(lanes + column if row == k else (column if k == 1 and row == 0 else lane))
        if any(i >= lanes for i in order) or k == 1:
            found = _shuffle(fn, of, found, rows[k], order)
    return found


def store_records(fn: Function, parts: list[str], base: str, memory: str, size: int, lanes: int) -> None:
    """One record from each lane of ``parts``, which hold its elements, one after the other.

    Records of more than `RECORD` elements are made of pairs, the first half of the lanes before the others:
    so each row that is stored takes few shuffles.
    """
    of = vector(memory, lanes)
    if len(parts) <= RECORD:
        rows = _interleaved(fn, parts, of, lanes, 1)
    else:
        rows = []
        for half in (0, lanes // 2):
            order = [place for lane in range(half, half + lanes // 2) for place in (lane, lanes + lane)]
            pairs = [_shuffle(fn, of, p, q, order) for p, q in zip(parts[::2], parts[1::2], strict=True)]
            rows += _interleaved(fn, pairs, of, lanes, 2)
    for k, row in enumerate(rows):
        place = fn.op(f"getelementptr {memory}, ptr {base}, i64 {k * lanes}") if k else base
        fn.do(f"store {of} {row}, ptr {place}, align {size}")


def _interleaved(fn: Function, parts: list[str], of: str, lanes: int, width: int) -> list[str]:
    """Vectors that hold one item of each of ``parts`` after the other; an item has ``width`` elements."""
    items, rows = lanes // width, []
    for k in range(len(parts)):
        places = [divmod(k * items + slot, len(parts)) for slot in range(items)]  # (record, component)
        needed = sorted({which for _, which in places})
        found = parts[needed[0]]
        for n, which in enumerate(needed[1:]):
            order = []
            for slot, (record, component) in enumerate(places):
                first = n == 0 and component == needed[0]
                order.append(items + record if component == which else record if first else slot)
            spread = [item * width + e for item in order for e in range(width)]
            found = _shuffle(fn, of, found, parts[which], spread)
        rows.append(found)
    return rows


def _shuffle(fn: Function, of: str, a: str, b: str, order: list[int]) -> str:
    lanes = ", ".join(f"i32 {i}" for i in order)
    return fn.op(f"shufflevector {of} {a}, {of} {b}, <{len(order)} x i32> <{lanes}>")
