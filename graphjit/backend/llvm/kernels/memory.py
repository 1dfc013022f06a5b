"""Elements in memory: loads, gathers, stores and scatters, in lanes or not.

Job: move elements between buffers and registers.
Input: the loads and stores of the loop IR.  Output: LLVM text in the function under construction.
Invariants: lanes beyond the loop's end load 1 and store nothing; where a guard is false memory is not
touched; records that a loop body fills are stored by whole vectors, with their last element.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphjit.backend.llvm.kernels.registers import CACHE_LINE, Registers, Value, ramp
from graphjit.backend.llvm.kernels.scalar import constant, literal, stored, vector
from graphjit.backend.llvm.kernels.strided import (
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
from graphjit.loops.ir import Address, Load, Store


class Traffic(Registers):
    """What a function loads and stores."""

    def load(self, value: Load, dtype: np.dtype) -> Value:
        """Load one element per lane."""
        buffer, lanes = value.buffer, self.lanes
        step = value.address[lanes.axis] if lanes else 0
        dynamic = [(self.value(ref), factor) for ref, factor in value.dynamic]
        base = self.pointer(buffer, value.address)
        for part, factor in dynamic:
            if part.uniform:
                base = self.advance(buffer, base, part.parts[0], factor)
        varying = [(part, factor) for part, factor in dynamic if not part.uniform]
        memory = stored(dtype)
        if value.guard is not None:
            return self.load_guarded(value, base, step, varying, dtype)
        if not varying and not step:
            raw = self.fn.op(f"load {memory}, ptr {base}, align {dtype.itemsize}")
            return Value([self.from_memory(raw, dtype, 1)], dtype, True)
        assert lanes is not None
        parts = []
        for u in range(lanes.unroll):
            if not varying and step == 1:
                raw = self.load_row(self.shifted(base, memory, u * lanes.count), memory, dtype, self.mask(u))
            elif not varying and lanes.masks is None:
                raw = self.load_strided(value, base, memory, dtype, u)
            else:
                raw = self.gather(
                    self.lane_pointers(base, memory, step, varying, u), memory, dtype, self.mask(u)
                )
            parts.append(self.from_memory(raw, dtype, lanes.count))
        return Value(parts, dtype, False)

    def load_guarded(
        self, value: Load, base: str, step: int, varying: list[tuple[Value, int]], dtype: np.dtype
    ) -> Value:
        """Load where the guard holds; 1 elsewhere."""
        assert value.guard is not None
        guard, memory, lanes = self.value(value.guard), stored(dtype), self.lanes
        if guard.uniform and not varying and not step:
            ok = guard.parts[0]
            safe = self.fn.shared_slot(memory, dtype.itemsize)
            one = literal(dtype.type(1)) if dtype.kind != "b" else "1"
            self.fn.do(f"store {memory} {one}, ptr {safe}")
            place = self.fn.op(f"select i1 {ok}, ptr {base}, ptr {safe}")
            return Value(
                [
                    self.from_memory(
                        self.fn.op(f"load {memory}, ptr {place}, align {dtype.itemsize}"), dtype, 1
                    )
                ],
                dtype,
                True,
            )
        assert lanes is not None
        tail, parts = lanes.masks, []
        for u, mask in enumerate(self.vectors(value.guard)):
            if tail is not None:
                mask = self.fn.op(f"and <{lanes.count} x i1> {mask}, {tail[u]}")
            if not varying and step == 1:
                raw = self.load_row(self.shifted(base, memory, u * lanes.count), memory, dtype, mask)
            elif not varying and step == -1:
                last = self.shifted(base, memory, 1 - (u + 1) * lanes.count)
                raw = self.load_row(last, memory, dtype, backwards(self.fn, mask, "i1", lanes.count))
                raw = backwards(self.fn, raw, memory, lanes.count)
            else:
                raw = self.gather(self.lane_pointers(base, memory, step, varying, u), memory, dtype, mask)
            parts.append(self.from_memory(raw, dtype, lanes.count))
        return Value(parts, dtype, False)

    def load_strided(self, value: Load, base: str, memory: str, dtype: np.dtype, u: int) -> str:
        """Elements at equal distances; components of short records come from the same vectors."""
        assert self.lanes is not None
        count, step = self.lanes.count, value.address[self.lanes.axis]
        scope = self.scopes[-1]
        found = record_of(value.buffer, value.address, self.lanes.axis, count) if not value.refs else None
        if found is not None:
            record, _, which = found
            if (record, u) not in scope.records:
                start = self.shifted(self.pointer(*record), memory, u * count * step)
                scope.records[record, u] = load_records(self.fn, start, memory, dtype.itemsize, step, count)
            return component(self.fn, scope.records[record, u], memory, count, which)
        return load_elements(
            self.fn, self.shifted(base, memory, u * count * step), memory, dtype.itemsize, step, count
        )

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

    def load_row(self, base: str, memory: str, dtype: np.dtype, mask: str | None) -> str:
        """Neighbouring elements; 1 in lanes that the mask leaves out."""
        assert self.lanes is not None
        count = self.lanes.count
        of = f"<{count} x {memory}>"
        if mask is None:
            return self.fn.op(f"load {of}, ptr {base}, align {dtype.itemsize}")
        symbol = f"llvm.masked.load.v{count}{_suffix(memory)}.p0"
        self.module.declare(symbol, f"declare {of} @{symbol}(ptr, i32, <{count} x i1>, {of})")
        one = _ones(dtype, count)
        return self.fn.op(
            f"call {of} @{symbol}(ptr {base}, i32 {dtype.itemsize}, <{count} x i1> {mask}, {of} {one})"
        )

    def lane_pointers(
        self, base: str, memory: str, step: int, varying: list[tuple[Value, int]], u: int
    ) -> str:
        """One pointer per lane."""
        assert self.lanes is not None
        count = self.lanes.count
        offsets = ramp(count, step, u * count * step) if step or not varying else ""
        for part, factor in varying:
            name = part.parts[u]
            if factor != 1:
                name = self.fn.op(f"mul <{count} x i64> {name}, splat (i64 {factor})")
            offsets = self.fn.op(f"add <{count} x i64> {name}, {offsets}") if offsets else name
        return self.fn.op(f"getelementptr {memory}, ptr {base}, <{count} x i64> {offsets}")

    def gather(self, pointers: str, memory: str, dtype: np.dtype, mask: str | None) -> str:
        """Elements from anywhere; 1 in lanes that the mask leaves out."""
        assert self.lanes is not None
        count = self.lanes.count
        of = f"<{count} x {memory}>"
        symbol = f"llvm.masked.gather.v{count}{_suffix(memory)}.v{count}p0"
        self.module.declare(symbol, f"declare {of} @{symbol}(<{count} x ptr>, i32, <{count} x i1>, {of})")
        return self.fn.op(
            f"call {of} @{symbol}(<{count} x ptr> {pointers}, i32 {dtype.itemsize}, <{count} x i1> {mask or 'splat (i1 true)'}, "
            f"{of} {_ones(dtype, count)})"
        )

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

    def store(self, statement: Store) -> None:
        """Store one element per lane."""
        buffer, lanes = statement.buffer, self.lanes
        dtype = buffer.dtype
        memory = stored(dtype)
        step = statement.address[lanes.axis] if lanes else 0
        dynamic = [(self.value(ref), factor) for ref, factor in statement.dynamic]
        base = self.pointer(buffer, statement.address)
        for part, factor in dynamic:
            if part.uniform:
                base = self.advance(buffer, base, part.parts[0], factor)
        varying = [(part, factor) for part, factor in dynamic if not part.uniform]
        if not varying and not step:
            name = self.scalar(statement.value)
            if statement.combine:
                old = self.from_memory(
                    self.fn.op(f"load {memory}, ptr {base}, align {dtype.itemsize}"), dtype, 1
                )
                name = self.scalars.combine(statement.combine, dtype, 1, old, name)
            self.fn.do(f"store {memory} {self.to_memory(name, dtype, 1)}, ptr {base}, align {dtype.itemsize}")
            return
        assert lanes is not None
        if lanes.masks is None and not statement.combine and self.store_component(statement):
            return
        if lanes.masks is None and statement.streamed:
            self.stream(
                [self.to_memory(name, dtype, lanes.count) for name in self.vectors(statement.value)],
                base,
                memory,
                dtype,
            )
            return
        for u, name in enumerate(self.vectors(statement.value)):
            if not varying and step == 1:
                where = self.shifted(base, memory, u * lanes.count)
                if statement.combine:
                    old = self.from_memory(
                        self.load_row(where, memory, dtype, self.mask(u)), dtype, lanes.count
                    )
                    name = self.scalars.combine(statement.combine, dtype, lanes.count, old, name)
                self.store_row(self.to_memory(name, dtype, lanes.count), where, memory, dtype, u)
            elif not varying and lanes.masks is None and not statement.combine:
                where = self.shifted(base, memory, u * lanes.count * step)
                name = self.to_memory(name, dtype, lanes.count)
                store_elements(self.fn, name, where, memory, dtype.itemsize, step, lanes.count)
            else:
                pointers = self.lane_pointers(base, memory, step, varying, u)
                if statement.combine:
                    old = self.from_memory(
                        self.gather(pointers, memory, dtype, self.mask(u)), dtype, lanes.count
                    )
                    name = self.scalars.combine(statement.combine, dtype, lanes.count, old, name)
                self.scatter(self.to_memory(name, dtype, lanes.count), pointers, memory, dtype, u)

    def store_component(self, statement: Store) -> bool:
        """Keep an element of records that this loop body fills, and store them with the last one; False where
        it does not fill them.
        """
        assert self.lanes is not None
        count, scope, dtype = self.lanes.count, self.scopes[-1], statement.buffer.dtype
        found = record_of(statement.buffer, statement.address, self.lanes.axis, count)
        if found is None or statement.dynamic or not written_whole(scope.stored.get(found[0], ()), found[1]):
            return False
        record, step, which = found
        memory = stored(dtype)
        kept = scope.filled.setdefault(record, {})
        kept[which] = [self.to_memory(name, dtype, count) for name in self.vectors(statement.value)]
        if len(kept) == step:
            base = self.pointer(*record)
            for u in range(self.lanes.unroll):
                start = self.shifted(base, memory, u * count * step)
                store_records(
                    self.fn, [kept[k][u] for k in range(step)], start, memory, dtype.itemsize, count
                )
        return True

    def store_row(self, name: str, base: str, memory: str, dtype: np.dtype, u: int) -> None:
        """Neighbouring elements."""
        assert self.lanes is not None
        count, masks = self.lanes.count, self.lanes.masks
        of = f"<{count} x {memory}>"
        if masks is None:
            self.fn.do(f"store {of} {name}, ptr {base}, align {dtype.itemsize}")
            return
        symbol = f"llvm.masked.store.v{count}{_suffix(memory)}.p0"
        self.module.declare(symbol, f"declare void @{symbol}({of}, ptr, i32, <{count} x i1>)")
        self.fn.do(
            f"call void @{symbol}({of} {name}, ptr {base}, i32 {dtype.itemsize}, <{count} x i1> {masks[u]})"
        )

    def stream(self, names: list[str], base: str, memory: str, dtype: np.dtype) -> None:
        """Neighbouring elements past the caches, which are not read first then; that takes whole registers at
        multiples of their size.
        """
        assert self.lanes is not None
        count, fn = self.lanes.count, self.fn
        size = min(count * dtype.itemsize, CACHE_LINE)
        odd = fn.op(f"and i64 {fn.op(f'ptrtoint ptr {base} to i64')}, {size - 1}")
        aligned, other, done = fn.label("aligned"), fn.label("other"), fn.label("done")
        fn.do(f"br i1 {fn.op(f'icmp eq i64 {odd}, 0')}, label %{aligned}, label %{other}")
        for label, how in (
            (aligned, f"align {size}, !nontemporal !{{i32 1}}"),
            (other, f"align {dtype.itemsize}"),
        ):
            fn.start(label)
            for u, name in enumerate(names):
                fn.do(
                    f"store <{count} x {memory}> {name}, ptr {self.shifted(base, memory, u * count)}, {how}"
                )
            fn.do(f"br label %{done}")
        fn.start(done)

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

    def scatter(self, name: str, pointers: str, memory: str, dtype: np.dtype, u: int) -> None:
        """Elements to anywhere, in lane order."""
        assert self.lanes is not None
        count, masks = self.lanes.count, self.lanes.masks
        of = f"<{count} x {memory}>"
        symbol = f"llvm.masked.scatter.v{count}{_suffix(memory)}.v{count}p0"
        self.module.declare(symbol, f"declare void @{symbol}({of}, <{count} x ptr>, i32, <{count} x i1>)")
        mask = masks[u] if masks is not None else "splat (i1 true)"
        self.fn.do(
            f"call void @{symbol}({of} {name}, <{count} x ptr> {pointers}, i32 {dtype.itemsize}, <{count} x i1> {mask})"
        )


def _suffix(memory: str) -> str:
    return {"double": "f64", "float": "f32"}.get(memory, memory)


def _ones(dtype: np.dtype, count: int) -> str:
    if dtype.kind == "b":
        return "splat (i8 1)"
    return constant(dtype.type(1), count)
