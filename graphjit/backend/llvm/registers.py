"""Values in registers and elements in memory.

Job: what a loop kernel holds (values, accumulators, lanes, pointers) and how it loads, gathers, stores and scatters.
Input: refs, affine addresses.  Output: LLVM text in the function under construction.
Invariants: lanes beyond the loop's end load 1 and store nothing; pointers are computed at the outermost loop that their address depends on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from graphjit.backend.llvm.scalar import Scalars, constant, kind, literal, stored, vector
from graphjit.backend.llvm.strided import (
    Components,
    Record,
    backwards,
    component,
    load_elements,
    load_records,
    record_of,
    store_elements,
    store_records,
    written_whole,
)
from graphjit.backend.llvm.text import Function, Module
from graphjit.ir.buffers import Buffer
from graphjit.loops import ir
from graphjit.loops.ir import Address, Axis, Let, Load, Ref, Statement, Store

CACHE_LINE = 64
ON_STACK = 16_384
"""Bytes that a function keeps on the stack; more lies on the heap, since threads may have small stacks."""
OUT_OF_MEMORY = -1
"""Status of a run that found no memory."""


@dataclass
class Value:
    """A value in registers: one name where it is the same in all lanes, else one vector per unrolled copy."""

    parts: list[str]
    dtype: np.dtype
    uniform: bool


@dataclass
class Accumulator:
    """What an accumulator has collected; ``widened``: lanes of an inner simd loop that still have to be combined."""

    combine: str
    dtype: np.dtype
    parts: list[str]
    lanes: int
    widened: bool


@dataclass
class Lanes:
    """The simd loop we are in."""

    axis: Axis
    count: int
    unroll: int
    masks: list[str] | None = None


@dataclass
class Scope:
    """Pointers and whole records known in one loop body."""

    pointers: dict[tuple[Buffer, frozenset[tuple[Axis, int]]], str] = field(default_factory=dict)
    stored: Components = field(default_factory=dict)  # components of records that the loop body stores
    records: dict[tuple[Record, int], list[str]] = field(default_factory=dict)  # whole records read so far, by unrolled copy
    filled: dict[Record, dict[int, list[str]]] = field(default_factory=dict)  # elements of records that are not stored yet


class Registers:
    """The state of one function and its traffic with memory."""

    def __init__(self, module: Module, fn: Function, name: str) -> None:
        self.module = module
        self.fn = fn
        self.name = name
        self.scalars = Scalars(fn, True)
        self.values: dict[Ref, Value] = {}
        self.accumulators: dict[Ref, Accumulator] = {}
        self.lanes: Lanes | None = None
        self.running: dict[Ref, Value] = {}  # stages of accumulators that go from lane to lane, in this simd loop
        self.bound: dict[Axis, str] = {}  # value of each loop variable
        self.scopes: list[Scope] = [Scope()]
        self.elements = 1  # iterations of all open loops together
        self.bases: dict[Buffer, str] = {}
        self.heap = ""  # what this function must free
        self.parallel = 0

    # ---------------------------------------------------------------------------------------------------- values

    def settle(self, acc: Accumulator) -> None:
        """Combine unrolled copies and lanes of an accumulator in a fixed tree."""
        parts = acc.parts
        while len(parts) > 1:
            parts = [
                self.scalars.combine(acc.combine, acc.dtype, acc.lanes, x, y)
                for x, y in zip(parts[::2], parts[1::2], strict=True)
            ]
        acc.parts = [self.scalars.horizontal(acc.combine, acc.dtype, acc.lanes, parts[0])]
        acc.lanes, acc.widened = 1, False

    def value(self, ref: Ref) -> Value:
        """What a ref holds; reading a finished accumulator combines its lanes."""
        if ref in self.running:
            return self.running[ref]
        acc = self.accumulators.get(ref)
        if acc is None:
            return self.values[ref]
        if acc.widened:
            self.settle(acc)
        return Value(acc.parts, acc.dtype, acc.lanes == 1)

    def scalar(self, ref: Ref) -> str:
        """A value that is the same in all lanes."""
        value = self.value(ref)
        assert value.uniform, f"{ref!r} differs between lanes"
        return value.parts[0]

    def vectors(self, ref: Ref) -> list[str]:
        """One vector per unrolled copy; uniform values are repeated in every lane."""
        value = self.value(ref)
        assert self.lanes is not None
        if not value.uniform:
            return value.parts
        return [self.splat(value.parts[0], kind(value.dtype), self.lanes.count)] * self.lanes.unroll

    def splat(self, name: str, element: str, lanes: int) -> str:
        """A scalar in every lane."""
        if lanes == 1:
            return name
        if not name.startswith("%"):
            return f"splat ({element} {name})"
        of = vector(element, lanes)
        first = self.fn.op(f"insertelement {of} poison, {element} {name}, i32 0")
        return self.fn.op(f"shufflevector {of} {first}, {of} poison, <{lanes} x i32> zeroinitializer")

    def index(self, address: Address) -> Value:
        """An affine expression as a number."""
        i64 = np.dtype(np.int64)
        total = str(address.offset)
        for axis, factor in address.terms.items():
            name = self.bound[axis]
            term = name if factor == 1 else self.fn.op(f"mul i64 {name}, {factor}")
            total = term if total == "0" else self.fn.op(f"add i64 {total}, {term}")
        step = address[self.lanes.axis] if self.lanes else 0
        if not step:
            return Value([total], i64, True)
        assert self.lanes is not None
        count = self.lanes.count
        base = self.splat(total, "i64", count)
        parts = [
            self.fn.op(f"add <{count} x i64> {base}, {ramp(count, step, u * count * step)}")
            for u in range(self.lanes.unroll)
        ]
        return Value(parts, i64, False)

    # ---------------------------------------------------------------------------------------------------- memory

    def pointer(self, buffer: Buffer, address: Address) -> str:
        """Pointer to the element at ``address`` in the first lane."""
        name = self.partial(buffer, frozenset(address.terms.items()))
        if address.offset:
            name = self.fn.op(f"getelementptr {stored(buffer.dtype)}, ptr {name}, i64 {address.offset}")
        return name

    def partial(self, buffer: Buffer, terms: frozenset[tuple[Axis, int]]) -> str:
        """Pointer with the contribution of loops that are open, from the innermost scope that has it."""
        if not terms:
            return self.bases[buffer]
        for scope in reversed(self.scopes):
            if (buffer, terms) in scope.pointers:
                return scope.pointers[buffer, terms]
        depth = {axis: i for i, axis in enumerate(self.bound)}
        axis, factor = max(terms, key=lambda term: depth[term[0]])
        parent = self.partial(buffer, terms - {(axis, factor)})
        name = self.bound[axis]
        step = name if factor == 1 else self.fn.op(f"mul i64 {name}, {factor}")
        found = self.fn.op(f"getelementptr {stored(buffer.dtype)}, ptr {parent}, i64 {step}")
        self.scopes[-1].pointers[buffer, terms] = found
        return found

    def prepare(self, statements: Sequence[Statement]) -> None:
        """Compute, at the head of a loop body, pointers whose address depends on no deeper loop."""
        for statement in ir.walk(tuple(statements)):
            buffer_address = _accessed(statement)
            if buffer_address is not None:
                buffer, address = buffer_address
                known = frozenset((axis, c) for axis, c in address.terms.items() if axis in self.bound)
                if known:
                    self.partial(buffer, known)

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
                raw = self.gather(self.lane_pointers(base, memory, step, varying, u), memory, dtype, self.mask(u))
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
            safe = self.fn.alloca(memory, dtype.itemsize)
            one = literal(dtype.type(1)) if dtype.kind != "b" else "1"
            self.fn.do(f"store {memory} {one}, ptr {safe}")
            place = self.fn.op(f"select i1 {ok}, ptr {base}, ptr {safe}")
            return Value([self.from_memory(self.fn.op(f"load {memory}, ptr {place}, align {dtype.itemsize}"), dtype, 1)], dtype, True)
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
        return load_elements(self.fn, self.shifted(base, memory, u * count * step), memory, dtype.itemsize, step, count)

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
                old = self.from_memory(self.fn.op(f"load {memory}, ptr {base}, align {dtype.itemsize}"), dtype, 1)
                name = self.scalars.combine(statement.combine, dtype, 1, old, name)
            self.fn.do(f"store {memory} {self.to_memory(name, dtype, 1)}, ptr {base}, align {dtype.itemsize}")
            return
        assert lanes is not None
        if lanes.masks is None and not statement.combine and self.store_component(statement):
            return
        for u, name in enumerate(self.vectors(statement.value)):
            if not varying and step == 1:
                where = self.shifted(base, memory, u * lanes.count)
                if statement.combine:
                    old = self.from_memory(self.load_row(where, memory, dtype, self.mask(u)), dtype, lanes.count)
                    name = self.scalars.combine(statement.combine, dtype, lanes.count, old, name)
                self.store_row(self.to_memory(name, dtype, lanes.count), where, memory, dtype, u)
            elif not varying and lanes.masks is None and not statement.combine:
                where = self.shifted(base, memory, u * lanes.count * step)
                name = self.to_memory(name, dtype, lanes.count)
                store_elements(self.fn, name, where, memory, dtype.itemsize, step, lanes.count)
            else:
                pointers = self.lane_pointers(base, memory, step, varying, u)
                if statement.combine:
                    old = self.from_memory(self.gather(pointers, memory, dtype, self.mask(u)), dtype, lanes.count)
                    name = self.scalars.combine(statement.combine, dtype, lanes.count, old, name)
                self.scatter(self.to_memory(name, dtype, lanes.count), pointers, memory, dtype, u)

    def store_component(self, statement: Store) -> bool:
        """Keep an element of records that this loop body fills, and store them with the last one; False where it does not fill them."""
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
                store_records(self.fn, [kept[k][u] for k in range(step)], start, memory, dtype.itemsize, count)
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
        self.fn.do(f"call void @{symbol}({of} {name}, ptr {base}, i32 {dtype.itemsize}, <{count} x i1> {masks[u]})")

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

    def own(self, buffers: Sequence[Buffer]) -> None:
        """Memory for the buffers that live in this function: on the stack when they are small."""
        total = sum(map(_room, buffers))
        if total > ON_STACK:
            self.heap = self.allocate(total)
        for buffer, place in zip(buffers, itertools.accumulate(map(_room, buffers), initial=0), strict=False):
            if self.heap:
                self.bases[buffer] = self.fn.op(f"getelementptr i8, ptr {self.heap}, i64 {place}")
            else:
                self.bases[buffer] = self.fn.alloca(f"[{buffer.size} x {stored(buffer.dtype)}]", CACHE_LINE)

    def allocate(self, nbytes: int) -> str:
        """Memory from the heap; where there is none the function ends with that status."""
        fn = self.fn
        self.module.declare("aligned_alloc", "declare ptr @aligned_alloc(i64, i64)")
        self.module.declare("free", "declare void @free(ptr)")
        found = fn.op(f"call ptr @aligned_alloc(i64 {CACHE_LINE}, i64 {nbytes})")
        none, some = fn.label("none"), fn.label("some")
        fn.do(f"br i1 {fn.op(f'icmp eq ptr {found}, null')}, label %{none}, label %{some}")
        fn.start(none)
        fn.do(f"store i64 {OUT_OF_MEMORY}, ptr %status")
        fn.do("ret void")
        fn.start(some)
        return found

    def finish(self) -> None:
        """The end of the function."""
        if self.heap:
            self.fn.do(f"call void @free(ptr {self.heap})")
        self.fn.do("ret void")


def _room(buffer: Buffer) -> int:
    """Bytes of a buffer in whole cache lines."""
    return -(-buffer.size * buffer.dtype.itemsize // CACHE_LINE) * CACHE_LINE


def _accessed(statement: Statement) -> tuple[Buffer, Address] | None:
    if isinstance(statement, Let) and isinstance(statement.value, Load):
        return statement.value.buffer, statement.value.address
    return (statement.buffer, statement.address) if isinstance(statement, Store) else None


def ramp(count: int, step: int, start: int = 0) -> str:
    """The vector start, start + step, ..."""
    return f"<{', '.join(f'i64 {start + i * step}' for i in range(count))}>"


def _suffix(memory: str) -> str:
    return {"double": "f64", "float": "f32"}.get(memory, memory)


def _ones(dtype: np.dtype, count: int) -> str:
    if dtype.kind == "b":
        return "splat (i8 1)"
    return constant(dtype.type(1), count)
