"""What a function holds: values, accumulators, lanes, pointers, memory of its own.

Job: the state of one function under construction.
Input: refs, affine addresses, buffers.  Output: LLVM text in that function.
Invariant: pointers are computed at the outermost loop that their address depends on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from graphjit.backend.llvm.kernels.blocks import Block, Blocks
from graphjit.backend.llvm.kernels.elements import Elements
from graphjit.backend.llvm.kernels.scalar import Scalars, kind, stored, vector
from graphjit.backend.llvm.kernels.strided import (
    Components,
    Record,
)
from graphjit.backend.llvm.writing.text import Function, Module
from graphjit.ir.buffers import Buffer
from graphjit.loops import ir
from graphjit.loops.ir import Address, Axis, Let, Load, Ref, Statement, Store

CACHE_LINE = 64
ON_STACK = 8_192
"""Bytes that a function keeps on the stack; more lies on the heap, since threads may have small stacks."""
OUT_OF_MEMORY = -1
"""Status of a run that found no memory."""

NOTE_ERROR = """; The smallest code of all tasks is kept, whichever comes first.
define internal void @gj_note_error(ptr %status, i64 %code) nounwind {
entry:
  %bad = icmp ne i64 %code, 0
  br i1 %bad, label %look, label %done
look:
  %first = load atomic i64, ptr %status monotonic, align 8
  br label %again
again:
  %old = phi i64 [ %first, %look ], [ %now, %swap ]
  %none = icmp eq i64 %old, 0
  %less = icmp slt i64 %code, %old
  %better = or i1 %none, %less
  br i1 %better, label %swap, label %done
swap:
  %pair = cmpxchg ptr %status, i64 %old, i64 %code monotonic monotonic
  %now = extractvalue { i64, i1 } %pair, 0
  %written = extractvalue { i64, i1 } %pair, 1
  br i1 %written, label %done, label %again
done:
  ret void
}"""


@dataclass
class Value:
    """A value in registers: one name where it is the same in all lanes, else one vector per unrolled copy."""

    parts: list[str]
    dtype: np.dtype
    uniform: bool


@dataclass
class Accumulator:
    """What an accumulator has collected; ``widened``: lanes of an inner simd loop that still have to be
    combined.
    """

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
    varying: set[Ref] = field(default_factory=set)
    """What differs from lane to lane."""
    masks: list[str] | None = None
    left: str = ""
    """With masks: how many iterations there are from the first lane on."""
    inside: int = 0
    """In a loop of one iteration: how many lanes of all vectors are inside the loop."""


@dataclass
class Scope:
    """What was computed for one loop body: pointers, repeated scalars, whole records."""

    pointers: dict[tuple[Buffer, frozenset[tuple[Axis, int]]], str] = field(default_factory=dict)
    splats: dict[tuple[str, str, int], str] = field(default_factory=dict)  # scalars in every lane
    stored: Components = field(default_factory=dict)  # components of records that the loop body stores
    records: dict[tuple[Record, int], list[str]] = field(
        default_factory=dict
    )  # whole records read so far, by unrolled copy
    filled: dict[Record, dict[int, list[str]]] = field(
        default_factory=dict
    )  # elements of records that are not stored yet
    reads: Blocks = field(default_factory=dict)  # loads that are done together
    writes: Blocks = field(default_factory=dict)  # stores that are
    loaded: dict[tuple[Block, int], list[str]] = field(default_factory=dict)  # blocks read so far
    waiting: dict[Block, dict[int, list[str]]] = field(default_factory=dict)  # blocks not stored yet
    inside: dict[int, tuple[str, str]] = field(
        default_factory=dict
    )  # of lanes under masks: whether there is such an iteration, and the last one up to it


class Registers:
    """The state of one function."""

    def __init__(self, module: Module, fn: Function, name: str) -> None:
        self.module = module
        self.fn = fn
        self.name = name
        self.scalars = Scalars(fn, True)
        self.values: dict[Ref, Value] = {}
        self.accumulators: dict[Ref, Accumulator] = {}
        self.lanes: Lanes | None = None
        self.running: dict[
            Ref, Value
        ] = {}  # stages of accumulators that go from lane to lane, in this simd loop
        self.bound: dict[Axis, str] = {}  # value of each loop variable
        self.scopes: list[Scope] = [Scope()]
        self.bases: dict[Buffer, str] = {}
        self.heap = ""  # what this function must free
        self.status = "%status"  # where errors are noted: in a task, a cell of its own
        self.exits: list[str] = []  # blocks after the loops of steps that are open
        self.elements: Elements | None = None  # of a kernel whose addresses are numbers
        self.parallel = 0
        self.fence = False  # whether any loop streams

    # ------------------------------------------------------------------------------------------------- values

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
        known, key = self.scopes[-1].splats, (name, element, lanes)
        if key not in known:
            of = vector(element, lanes)
            first = self.fn.op(f"insertelement {of} poison, {element} {name}, i32 0")
            known[key] = self.fn.op(
                f"shufflevector {of} {first}, {of} poison, <{lanes} x i32> zeroinitializer"
            )
        return known[key]

    def multiple(self, name: str, factor: int) -> str:
        """A loop variable times a stride; once for each pointer, as the addresses of a loop are faster that
        way.
        """
        if name.isdigit():  # of a loop of one iteration
            return str(int(name) * factor)
        return name if factor == 1 else self.fn.op(f"mul i64 {name}, {factor}")

    def index(self, address: Address) -> Value:
        """An affine expression as a number."""
        i64 = np.dtype(np.int64)
        total = str(address.offset)
        for axis, factor in address.terms.items():
            term = self.multiple(self.bound[axis], factor)
            if term != "0":
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

    # ------------------------------------------------------------------------------------------------- memory

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
        step = self.multiple(self.bound[axis], factor)
        found = parent
        if step != "0":
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
        """The end of the function; a task tells the others the error it noted."""
        if self.fence:  # what streams past the caches is there before anybody is told that this task is done
            self.fn.do("fence seq_cst")
        if self.status != "%status":
            self.module.ensure("gj_note_error", lambda _: NOTE_ERROR)
            self.fn.do(
                f"call void @gj_note_error(ptr %status, i64 {self.fn.op(f'load i64, ptr {self.status}')})"
            )
        if self.heap:
            self.fn.do(f"call void @free(ptr {self.heap})")
        self.fn.do("ret void")


def _room(buffer: Buffer) -> int:
    """Bytes of a buffer in whole cache lines."""
    return -(-buffer.nbytes // CACHE_LINE) * CACHE_LINE


def _accessed(statement: Statement) -> tuple[Buffer, Address] | None:
    if isinstance(statement, Let) and isinstance(statement.value, Load):
        return statement.value.buffer, statement.value.address
    return (statement.buffer, statement.address) if isinstance(statement, Store) else None


def ramp(count: int, step: int, start: int = 0, of: str = "i64") -> str:
    """The vector start, start + step, ..."""
    return f"<{', '.join(f'{of} {start + i * step}' for i in range(count))}>"
