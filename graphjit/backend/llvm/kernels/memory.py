"""Moves elements between memory and registers: loads, gathers, stores and scatters, in lanes or not.

Job: choose the instructions for each access by how far apart its lanes read or write: one element for all,
neighbours, equal distances (`strided.py`), or anywhere.
Input: the loads and stores of the loop IR.  Output: LLVM text in the function under construction.
Invariants: lanes beyond the loop's end load 1 and store nothing; where a guard is false memory is not
touched; records that a loop body fills are stored by whole vectors, with their last element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphjit.backend.llvm.kernels.blocks import Block, load_block, store_block
from graphjit.backend.llvm.kernels.registers import CACHE_LINE, Registers, Value, ramp
from graphjit.backend.llvm.kernels.scalar import constant, literal, stored, vector
from graphjit.backend.llvm.kernels.strided import (
    WRITTEN,
    backwards,
    component,
    load_elements,
    load_records,
    record_of,
    store_elements,
    store_records,
    written_whole,
)
from graphjit.ir.buffers import Buffer
from graphjit.loops.ir import Address, Load, Ref, Store


@dataclass(frozen=True)
class Access:
    """Where the lanes of a loop read or write elements of ``dtype``: from ``base`` on, ``step`` elements
    apart, moved by positions that ``varying`` values give, each times its factor.
    """

    base: str
    dtype: np.dtype
    step: int
    varying: list[tuple[Value, int]]

    @property
    def memory(self) -> str:
        """LLVM type of an element in memory."""
        return stored(self.dtype)

    @property
    def single(self) -> bool:
        """Whether all lanes mean the same element."""
        return not self.varying and not self.step

    @property
    def neighbours(self) -> bool:
        """Whether lanes mean elements that lie side by side."""
        return not self.varying and self.step == 1


class Traffic(Registers):
    """What a function loads and stores."""

    def access(self, statement: Load | Store, dtype: np.dtype) -> Access:
        """Where a load or store finds its elements."""
        step = statement.address[self.lanes.axis] if self.lanes else 0
        dynamic = [(self.value(ref), factor) for ref, factor in statement.dynamic]
        base = self.pointer(statement.buffer, statement.address)
        for part, factor in dynamic:
            if part.uniform:
                base = self.advance(statement.buffer, base, part.parts[0], factor)
        return Access(base, dtype, step, [(part, factor) for part, factor in dynamic if not part.uniform])

    # -------------------------------------------------------------------------------------------------- loads

    def load(self, value: Load, dtype: np.dtype) -> Value:
        """One element per lane, from registers where they have it."""
        places = None if value.guard is not None else self.numbered(value)
        if places is None:
            return self.load_anew(value, dtype)
        known = self.known(value.buffer, places)
        if known is None:
            known = self.load_anew(value, dtype)
            self.note(value.buffer, places, known)
        return known

    def load_anew(self, value: Load, dtype: np.dtype) -> Value:
        """Load one element per lane."""
        access, lanes = self.access(value, dtype), self.lanes
        if value.guard is not None:
            return self.load_guarded(value.guard, access, self.bases[value.buffer])
        if access.single:
            return Value([self.load_element(access.base, dtype)], dtype, True)
        assert lanes is not None
        vectors = [self.load_lanes(value, access, u) for u in range(lanes.unroll)]
        return Value(vectors, dtype, False)

    def numbered(self, statement: Load | Store) -> list[list[int]] | None:
        """The places of the elements that a statement means, in each vector or in all lanes; None where they
        are no numbers, or nobody asks.
        """
        numbers = [name for name in self.bound.values() if not name.isdigit()]
        if self.elements is None or statement.dynamic or numbers:
            return None
        terms = statement.address.terms.items()
        first = statement.address.offset + sum(factor * int(self.bound[axis]) for axis, factor in terms)
        step = statement.address[self.lanes.axis] if self.lanes else 0
        if self.lanes is None or not step:
            return [[first]]
        count, unroll = self.lanes.count, self.lanes.unroll
        rows = [range(u * count, min((u + 1) * count, self.lanes.inside)) for u in range(unroll)]
        return [[first + step * lane for lane in row] for row in rows]

    def known(self, buffer: Buffer, places: list[list[int]]) -> Value | None:
        """The elements at numbered places, if registers have them."""
        assert self.elements is not None
        if self.lanes is None or places == [places[0][:1]]:
            name = self.elements.single(buffer, places[0][0])
            return None if name is None else Value([name], buffer.dtype, True)
        rows = [self.elements.row(buffer, row, self.lanes.count) for row in places]
        parts = [row for row in rows if row is not None]
        return Value(parts, buffer.dtype, False) if len(parts) == len(rows) else None

    def note(self, buffer: Buffer, places: list[list[int]], value: Value) -> None:
        """Registers have the elements at numbered places."""
        assert self.elements is not None
        lanes = 1 if value.uniform or self.lanes is None else self.lanes.count
        for row, name in zip(places, value.parts, strict=True):
            self.elements.note(buffer, row, name, lanes)

    def load_element(self, base: str, dtype: np.dtype) -> str:
        """The element at ``base``."""
        raw = self.fn.op(f"load {stored(dtype)}, ptr {base}, align {dtype.itemsize}")
        return self.from_memory(raw, dtype, 1)

    def load_lanes(self, value: Load, access: Access, u: int) -> str:
        """One vector of elements."""
        assert self.lanes is not None
        count, dtype = self.lanes.count, access.dtype
        if access.neighbours:
            raw = self.load_row(self.shifted(access.base, access.memory, u * count), dtype, self.mask(u))
        elif not value.refs and (value.buffer, value.address) in self.scopes[-1].reads:
            raw = self.load_from_block(value, u)
        elif not access.varying and self.lanes.masks is None:
            raw = self.load_strided(value, access, u)
        else:
            raw = self.gather(self.lane_pointers(access, u), dtype, self.mask(u))
        return self.from_memory(raw, dtype, count)

    def load_guarded(self, ref: Ref, access: Access, home: str) -> Value:
        """Load where the guard ``ref`` holds; 1 elsewhere. ``home`` is where the buffer begins.

        A masked load that has no lane to read is slow where no memory is (hundreds of cycles), so it reads
        nothing at ``home`` then.
        """
        guard, dtype, lanes = self.value(ref), access.dtype, self.lanes
        if guard.uniform and access.single:
            return Value([self.load_element_if(guard.parts[0], access)], dtype, True)
        assert lanes is not None
        vectors = []
        for u, mask in enumerate(self.vectors(ref)):
            if lanes.masks is not None:
                mask = self.fn.op(f"and <{lanes.count} x i1> {mask}, {lanes.masks[u]}")
            wanted = guard.parts[0] if guard.uniform else self.any_lane(mask)
            base = self.fn.op(f"select i1 {wanted}, ptr {access.base}, ptr {home}")
            vectors.append(self.load_lanes_if(mask, replace(access, base=base), u))
        return Value(vectors, dtype, False)

    def any_lane(self, mask: str) -> str:
        """Whether a mask has a lane."""
        assert self.lanes is not None
        count = self.lanes.count
        bits = self.fn.op(f"bitcast <{count} x i1> {mask} to i{count}")
        return self.fn.op(f"icmp ne i{count} {bits}, 0")

    def load_element_if(self, condition: str, access: Access) -> str:
        """One element, or 1 from a place that is safe to read."""
        memory, dtype = access.memory, access.dtype
        safe = self.fn.shared_slot(memory, dtype.itemsize)
        one = literal(dtype.type(1)) if dtype.kind != "b" else "1"
        self.fn.do(f"store {memory} {one}, ptr {safe}")
        place = self.fn.op(f"select i1 {condition}, ptr {access.base}, ptr {safe}")
        return self.load_element(place, dtype)

    def load_lanes_if(self, mask: str, access: Access, u: int) -> str:
        """One vector of elements; 1 in lanes that the mask leaves out."""
        assert self.lanes is not None
        count, memory, dtype = self.lanes.count, access.memory, access.dtype
        if access.neighbours:
            raw = self.load_row(self.shifted(access.base, memory, u * count), dtype, mask)
        elif not access.varying and access.step == -1:
            last = self.shifted(access.base, memory, 1 - (u + 1) * count)
            raw = self.load_row(last, dtype, backwards(self.fn, mask, "i1", count))
            raw = backwards(self.fn, raw, memory, count)
        else:
            raw = self.gather(self.lane_pointers(access, u), dtype, mask)
        return self.from_memory(raw, dtype, count)

    def load_strided(self, value: Load, access: Access, u: int) -> str:
        """Elements at equal distances; components of short records come from the same vectors."""
        assert self.lanes is not None
        count, step, memory, size = self.lanes.count, access.step, access.memory, access.dtype.itemsize
        scope = self.scopes[-1]
        component_of = (
            record_of(value.buffer, value.address, self.lanes.axis, count) if not value.refs else None
        )
        if component_of is not None:
            record, _, which = component_of
            if (record, u) not in scope.records:
                start = self.shifted(self.pointer(*record), memory, u * count * step)
                scope.records[record, u] = load_records(self.fn, start, memory, size, step, count)
            return component(self.fn, scope.records[record, u], memory, count, which)
        return load_elements(
            self.fn, self.shifted(access.base, memory, u * count * step), memory, size, step, count
        )

    def load_from_block(self, value: Load, u: int) -> str:
        """An element of a block, which is loaded with the first one that is needed."""
        scope = self.scopes[-1]
        block, which = scope.reads[value.buffer, value.address]
        if (block, u) not in scope.loaded:
            memory, size = stored(block.buffer.dtype), block.buffer.dtype.itemsize
            rows = [row for row, _ in self.rows(block, u)]
            scope.loaded[block, u] = load_block(self.fn, rows, memory, size, block.width)
        return scope.loaded[block, u][which]

    def load_row(self, base: str, dtype: np.dtype, mask: str | None) -> str:
        """Neighbouring elements; 1 in lanes that the mask leaves out."""
        assert self.lanes is not None
        count, memory = self.lanes.count, stored(dtype)
        of = f"<{count} x {memory}>"
        if mask is None:
            return self.fn.op(f"load {of}, ptr {base}, align {dtype.itemsize}")
        symbol = f"llvm.masked.load.v{count}{_suffix(memory)}.p0"
        self.module.declare(symbol, f"declare {of} @{symbol}(ptr, i32, <{count} x i1>, {of})")
        one = _ones(dtype, count)
        return self.fn.op(
            f"call {of} @{symbol}(ptr {base}, i32 {dtype.itemsize}, <{count} x i1> {mask}, {of} {one})"
        )

    def gather(self, pointers: str, dtype: np.dtype, mask: str | None) -> str:
        """Elements from anywhere; 1 in lanes that the mask leaves out."""
        assert self.lanes is not None
        count, memory = self.lanes.count, stored(dtype)
        of = f"<{count} x {memory}>"
        symbol = f"llvm.masked.gather.v{count}{_suffix(memory)}.v{count}p0"
        self.module.declare(symbol, f"declare {of} @{symbol}(<{count} x ptr>, i32, <{count} x i1>, {of})")
        return self.fn.op(
            f"call {of} @{symbol}(<{count} x ptr> {pointers}, i32 {dtype.itemsize}, <{count} x i1> {mask or 'splat (i1 true)'}, "
            f"{of} {_ones(dtype, count)})"
        )

    # ------------------------------------------------------------------------------------------------- stores

    def store(self, statement: Store) -> None:
        """Store one element per lane, combined with what is there where the statement says so."""
        dtype = statement.buffer.dtype
        access, lanes = self.access(statement, dtype), self.lanes
        self.remember(statement)
        if access.single:
            self.store_element(statement, access)
            return
        assert lanes is not None
        if lanes.masks is None and not statement.combine and self.store_component(statement):
            return
        if self.store_in_block(statement):
            return
        if lanes.masks is None and statement.streamed:
            vectors = [self.to_memory(name, dtype, lanes.count) for name in self.vectors(statement.value)]
            self.stream(vectors, access)
            return
        for u, name in enumerate(self.vectors(statement.value)):
            self.store_lanes(name, statement.combine, access, u)

    def remember(self, statement: Store) -> None:
        """What is stored is in registers."""
        if self.elements is None:
            return
        places = self.numbered(statement)
        if places is None or statement.combine:
            self.elements.forget(statement.buffer)
            return
        single = self.lanes is None or not statement.address[self.lanes.axis]
        names = [self.scalar(statement.value)] if single else self.vectors(statement.value)
        self.note(statement.buffer, places, Value(names, statement.buffer.dtype, single))

    def store_element(self, statement: Store, access: Access) -> None:
        """The element that all lanes mean."""
        dtype = access.dtype
        name = self.scalar(statement.value)
        if statement.combine:
            old = self.load_element(access.base, dtype)
            name = self.scalars.combine(statement.combine, dtype, 1, old, name)
        name = self.to_memory(name, dtype, 1)
        self.fn.do(f"store {access.memory} {name}, ptr {access.base}, align {dtype.itemsize}")

    def store_lanes(self, name: str, combine: str, access: Access, u: int) -> None:
        """One vector of elements."""
        assert self.lanes is not None
        count, dtype, memory, step = self.lanes.count, access.dtype, access.memory, access.step
        if access.neighbours:
            where = self.shifted(access.base, memory, u * count)
            if combine:
                name = self.combined(combine, self.load_row(where, dtype, self.mask(u)), name, dtype)
            self.store_row(self.to_memory(name, dtype, count), where, dtype, u)
        elif not access.varying and self.lanes.masks is None and not combine:
            where = self.shifted(access.base, memory, u * count * step)
            name = self.to_memory(name, dtype, count)
            store_elements(self.fn, name, where, memory, dtype.itemsize, step, count)
        else:
            pointers = self.lane_pointers(access, u)
            if combine:
                name = self.combined(combine, self.gather(pointers, dtype, self.mask(u)), name, dtype)
            self.scatter(self.to_memory(name, dtype, count), pointers, dtype, u)

    def combined(self, combine: str, raw: str, name: str, dtype: np.dtype) -> str:
        """What memory holds (``raw``) combined with a vector."""
        assert self.lanes is not None
        old = self.from_memory(raw, dtype, self.lanes.count)
        return self.scalars.combine(combine, dtype, self.lanes.count, old, name)

    def store_component(self, statement: Store) -> bool:
        """Keep an element of records that this loop body fills, and store them with the last one; False where
        it does not fill them.
        """
        assert self.lanes is not None
        count, scope, dtype = self.lanes.count, self.scopes[-1], statement.buffer.dtype
        component_of = record_of(statement.buffer, statement.address, self.lanes.axis, count, WRITTEN)
        if component_of is None or statement.dynamic:
            return False
        record, step, which = component_of
        if not written_whole(scope.stored.get(record, ()), step):
            return False
        memory = stored(dtype)
        waiting = scope.filled.setdefault(record, {})
        waiting[which] = [self.to_memory(name, dtype, count) for name in self.vectors(statement.value)]
        if len(waiting) == step:
            base = self.pointer(*record)
            for u in range(self.lanes.unroll):
                start = self.shifted(base, memory, u * count * step)
                parts = [waiting[k][u] for k in range(step)]
                store_records(self.fn, parts, start, memory, dtype.itemsize, count)
        return True

    def store_in_block(self, statement: Store) -> bool:
        """Keep an element of a block, and store the block with the last one; False where there is none."""
        assert self.lanes is not None
        scope, dtype = self.scopes[-1], statement.buffer.dtype
        block_of = scope.writes.get((statement.buffer, statement.address))
        if block_of is None or statement.dynamic:
            return False
        block, which = block_of
        waiting, names = scope.waiting.setdefault(block, {}), self.vectors(statement.value)
        waiting[which] = [self.to_memory(name, dtype, self.lanes.count) for name in names]
        if len(waiting) == block.width:
            for u in range(self.lanes.unroll):
                parts = [waiting[k][u] for k in range(block.width)]
                rows = [self.written_if(block, row, there) for row, there in self.rows(block, u)]
                store_block(self.fn, parts, rows, stored(dtype), dtype.itemsize)
        return True

    def rows(self, block: Block, u: int) -> list[tuple[str, str]]:
        """For each lane of an unrolled copy a pointer to its elements of a block, and whether there is such
        an iteration; if not, the pointer is that of the last one.
        """
        assert self.lanes is not None
        memory, step = stored(block.buffer.dtype), block.start[self.lanes.axis]
        first = self.pointer(block.buffer, block.start)
        lanes = range(u * self.lanes.count, (u + 1) * self.lanes.count)
        if self.lanes.masks is None:
            return [(self.shifted(first, memory, lane * step), "true") for lane in lanes]
        found = []
        for lane in lanes:
            there, nearest = self.nearest(lane)
            found.append((self.advance(block.buffer, first, nearest, step) if lane else first, there))
        return found

    def nearest(self, lane: int) -> tuple[str, str]:
        """Whether the iteration of a lane exists, and the number of the last one up to it."""
        assert self.lanes is not None
        known = self.scopes[-1].inside
        if lane not in known:
            there = self.fn.op(f"icmp slt i64 {lane}, {self.lanes.left}")
            last = self.fn.op(f"sub i64 {self.lanes.left}, 1")
            known[lane] = there, self.fn.op(f"select i1 {there}, i64 {lane}, i64 {last}")
        return known[lane]

    def written_if(self, block: Block, row: str, there: str) -> str:
        """Where to write a row: a place that nobody reads, if there is no such iteration."""
        if there == "true":
            return row
        nowhere = self.fn.shared_slot(f"[{block.width} x {stored(block.buffer.dtype)}]")
        return self.fn.op(f"select i1 {there}, ptr {row}, ptr {nowhere}")

    def store_row(self, name: str, base: str, dtype: np.dtype, u: int) -> None:
        """Neighbouring elements."""
        assert self.lanes is not None
        count, masks, memory = self.lanes.count, self.lanes.masks, stored(dtype)
        of = f"<{count} x {memory}>"
        if masks is None:
            self.fn.do(f"store {of} {name}, ptr {base}, align {dtype.itemsize}")
            return
        symbol = f"llvm.masked.store.v{count}{_suffix(memory)}.p0"
        self.module.declare(symbol, f"declare void @{symbol}({of}, ptr, i32, <{count} x i1>)")
        self.fn.do(
            f"call void @{symbol}({of} {name}, ptr {base}, i32 {dtype.itemsize}, <{count} x i1> {masks[u]})"
        )

    def stream(self, vectors: list[str], access: Access) -> None:
        """Neighbouring elements past the caches, which are not read first then; that takes whole registers at
        multiples of their size.
        """
        assert self.lanes is not None
        count, fn, base, itemsize = self.lanes.count, self.fn, access.base, access.dtype.itemsize
        size = min(count * itemsize, CACHE_LINE)
        odd = fn.op(f"and i64 {fn.op(f'ptrtoint ptr {base} to i64')}, {size - 1}")
        aligned, other, done = fn.label("aligned"), fn.label("other"), fn.label("done")
        fn.do(f"br i1 {fn.op(f'icmp eq i64 {odd}, 0')}, label %{aligned}, label %{other}")
        for label, how in (
            (aligned, f"align {size}, !nontemporal !{{i32 1}}"),
            (other, f"align {itemsize}"),
        ):
            fn.start(label)
            for u, name in enumerate(vectors):
                place = self.shifted(base, access.memory, u * count)
                fn.do(f"store <{count} x {access.memory}> {name}, ptr {place}, {how}")
            fn.do(f"br label %{done}")
        fn.start(done)

    def scatter(self, name: str, pointers: str, dtype: np.dtype, u: int) -> None:
        """Elements to anywhere, in lane order."""
        assert self.lanes is not None
        count, masks, memory = self.lanes.count, self.lanes.masks, stored(dtype)
        of = f"<{count} x {memory}>"
        symbol = f"llvm.masked.scatter.v{count}{_suffix(memory)}.v{count}p0"
        self.module.declare(symbol, f"declare void @{symbol}({of}, <{count} x ptr>, i32, <{count} x i1>)")
        mask = masks[u] if masks is not None else "splat (i1 true)"
        self.fn.do(
            f"call void @{symbol}({of} {name}, <{count} x ptr> {pointers}, i32 {dtype.itemsize}, <{count} x i1> {mask})"
        )

    # ------------------------------------------------------------------------------------------------ fetches

    def fetch(self, places: Sequence[tuple[Buffer, Address]]) -> None:
        """Ask for the cache lines of neighbouring elements, as far as the second-level cache."""
        for buffer, address in places:
            assert self.lanes is not None
            self.module.declare("llvm.prefetch.p0", "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
            base, size = self.pointer(buffer, address), buffer.dtype.itemsize
            for first in range(0, self.lanes.count * self.lanes.unroll, max(1, CACHE_LINE // size)):
                self.fn.do(
                    f"call void @llvm.prefetch.p0(ptr {self.shifted(base, stored(buffer.dtype), first)}, i32 0, i32 2, i32 1)"
                )

    # ------------------------------------------------------------------------------------ pointers and masks

    def advance(self, buffer: Buffer, base: str, index: str, factor: int) -> str:
        """``base`` moved by ``index * factor`` elements."""
        step = index if factor == 1 else self.fn.op(f"mul i64 {index}, {factor}")
        return self.fn.op(f"getelementptr {stored(buffer.dtype)}, ptr {base}, i64 {step}")

    def shifted(self, base: str, memory: str, by: int) -> str:
        """``base`` moved by a number of elements."""
        return self.fn.op(f"getelementptr {memory}, ptr {base}, i64 {by}") if by else base

    def mask(self, u: int) -> str | None:
        """Lanes inside the loop, where there may be others."""
        assert self.lanes is not None
        return self.lanes.masks[u] if self.lanes.masks is not None else None

    def lane_pointers(self, access: Access, u: int) -> str:
        """One pointer per lane."""
        assert self.lanes is not None
        count, step = self.lanes.count, access.step
        offsets = ramp(count, step, u * count * step) if step or not access.varying else ""
        for part, factor in access.varying:
            name = part.parts[u]
            if factor != 1:
                name = self.fn.op(f"mul <{count} x i64> {name}, splat (i64 {factor})")
            offsets = self.fn.op(f"add <{count} x i64> {name}, {offsets}") if offsets else name
        return self.fn.op(f"getelementptr {access.memory}, ptr {access.base}, <{count} x i64> {offsets}")

    def from_memory(self, raw: str, dtype: np.dtype, lanes: int) -> str:
        """bool: byte to bit."""
        if dtype.kind != "b":
            return raw
        return self.fn.op(f"icmp ne {vector('i8', lanes)} {raw}, {constant(np.int8(0), lanes)}")

    def to_memory(self, name: str, dtype: np.dtype, lanes: int) -> str:
        """bool: bit to byte."""
        if dtype.kind != "b":
            return name
        return self.fn.op(f"zext {vector('i1', lanes)} {name} to {vector('i8', lanes)}")


def _suffix(memory: str) -> str:
    return {"double": "f64", "float": "f32"}.get(memory, memory)


def _ones(dtype: np.dtype, count: int) -> str:
    if dtype.kind == "b":
        return "splat (i8 1)"
    return constant(dtype.type(1), count)
