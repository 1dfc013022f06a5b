"""Print loop kernels as LLVM functions.

Job: loops, vectors, masked tails, accumulators, addresses.
Input: a `LoopKernel`.  Output: one function per kernel (and per parallel loop in it) in a `Module`.
Invariants: a simd loop becomes explicit vector code, so no optimisation pass is needed; lanes beyond the loop's end load 1 and store nothing;
pointers are computed at the outermost loop that their address depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from graphjit.backend.llvm.jit import host
from graphjit.backend.llvm.scalar import Scalars, constant, kind, literal, stored, vector
from graphjit.backend.llvm.text import Function, Module, Phi
from graphjit.ir.buffers import Buffer
from graphjit.loops import ir
from graphjit.loops.ir import Accumulate, Address, Axis, Check, Const, For, Index, Init, Let, Load, Ref, Statement, Store

ATTRIBUTES = 'nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512"'
CONTEXT = "ptr %inputs, ptr %outputs, ptr %arena, ptr %status"


def vector_bytes() -> int:
    """Bytes of the widest vector register of this machine."""
    features = host()[2].split(",")
    return 64 if "+avx512f" in features and "+avx512dq" in features else 32 if "+avx2" in features else 16


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
    """Pointers and index values known in one loop body."""

    pointers: dict[tuple[Buffer, frozenset[tuple[Axis, int]]], str] = field(default_factory=dict)


class KernelEmitter:
    """Prints the body of one function."""

    def __init__(self, module: Module, fn: Function, constants: Sequence[np.ndarray], name: str) -> None:
        self.module = module
        self.fn = fn
        self.constants = constants
        self.name = name
        self.scalars = Scalars(fn, True)
        self.values: dict[Ref, Value] = {}
        self.accumulators: dict[Ref, Accumulator] = {}
        self.lanes: Lanes | None = None
        self.bound: dict[Axis, str] = {}  # value of each loop variable
        self.scopes: list[Scope] = [Scope()]
        self.bases: dict[Buffer, str] = {}
        self.parallel = 0

    # ------------------------------------------------------------------------------------------------ statements

    def body(self, statements: Sequence[Statement]) -> None:
        """Print statements in order."""
        for i, statement in enumerate(statements):
            if isinstance(statement, Let):
                self.values[statement.ref] = self.expression(statement.value, statement.ref.dtype)
            elif isinstance(statement, For):
                self.loop(statement)
            elif isinstance(statement, Store):
                self.store(statement)
            elif isinstance(statement, Accumulate):
                self.accumulate(statement)
            elif isinstance(statement, Init):
                self.init(statement, statements[i + 1 :])
            else:
                self.check(statement)

    def init(self, statement: Init, following: Sequence[Statement]) -> None:
        """Open an accumulator, already in vector form when an inner simd loop will feed it."""
        start = ir.identity(statement.combine, statement.ref.dtype)
        widened = None if self.lanes else _feeding_simd(statement.ref, following)
        lanes, unroll = (self.lanes.count, self.lanes.unroll) if self.lanes else (1, 1)
        if widened is not None:
            lanes, unroll = self.lane_count(widened), self.unroll_count(widened)
        self.accumulators[statement.ref] = Accumulator(
            statement.combine, statement.ref.dtype, [constant(start, lanes)] * unroll, lanes, widened is not None
        )

    def accumulate(self, statement: Accumulate) -> None:
        """One accumulation step; lanes beyond the end change nothing."""
        acc = self.accumulators[statement.ref]
        if self.lanes is None:
            if acc.widened:
                self.settle(acc)
            value = self.scalar(statement.value)
            acc.parts = [self.scalars.combine(acc.combine, acc.dtype, 1, acc.parts[0], value)]
            return
        for u, value in enumerate(self.vectors(statement.value)):
            if self.lanes.masks is not None and acc.widened:
                of = vector(kind(acc.dtype), acc.lanes)
                rest = constant(ir.identity(acc.combine, acc.dtype), acc.lanes)
                mask = self.lanes.masks[u]
                value = self.fn.op(f"select {vector('i1', acc.lanes)} {mask}, {of} {value}, {of} {rest}")
            acc.parts[u] = self.scalars.combine(acc.combine, acc.dtype, acc.lanes, acc.parts[u], value)

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

    def check(self, statement: Check) -> None:
        """Remember the first error code."""
        ok = self.value(statement.ok)
        for u, part in enumerate(ok.parts):
            lanes = 1 if ok.uniform else self.lanes.count  # type: ignore[union-attr]
            bad = self.fn.op(f"xor {vector('i1', lanes)} {part}, {constant(np.True_, lanes)}")
            self.report(bad, lanes, u, statement.code)

    def report(self, bad: str, lanes: int, u: int, code: int) -> None:
        """Store ``code`` where ``bad`` holds in a lane that exists, unless an error is stored already."""
        fn = self.fn
        if lanes > 1:
            if self.lanes is not None and self.lanes.masks is not None:
                bad = fn.op(f"and <{lanes} x i1> {bad}, {self.lanes.masks[u]}")
            symbol = f"llvm.vector.reduce.or.v{lanes}i1"
            self.module.declare(symbol, f"declare i1 @{symbol}(<{lanes} x i1>)")
            bad = fn.op(f"call i1 @{symbol}(<{lanes} x i1> {bad})")
        before = fn.op("load i64, ptr %status")
        fresh = fn.op(f"and i1 {bad}, {fn.op(f'icmp eq i64 {before}, 0')}")
        fn.do(f"store i64 {fn.op(f'select i1 {fresh}, i64 {code}, i64 {before}')}, ptr %status")

    # ----------------------------------------------------------------------------------------------- expressions

    def expression(self, value: ir.Expression, dtype: np.dtype) -> Value:
        """Compute an expression."""
        if isinstance(value, Const):
            return Value([literal(value.value)], dtype, True)
        if isinstance(value, Load):
            return self.load(value, dtype)
        if isinstance(value, Index):
            return self.index(value.value)
        operands = [self.value(ref) for ref in value.args]
        source = value.args[-1].dtype
        if all(operand.uniform for operand in operands):
            names = [operand.parts[0] for operand in operands]
            if value.check:
                self.fail(value, source, 1, 0, names)
            straight = self.scalars.straight
            self.scalars.straight = True
            result = self.scalars.apply(value.op, dtype, source, 1, names)
            self.scalars.straight = straight
            return Value([result], dtype, True)
        assert self.lanes is not None
        columns = [self.vectors(ref) for ref in value.args]
        parts = []
        for u in range(self.lanes.unroll):
            names = [column[u] for column in columns]
            if value.check:
                self.fail(value, source, self.lanes.count, u, names)
            parts.append(self.scalars.apply(value.op, dtype, source, self.lanes.count, names))
        return Value(parts, dtype, False)

    def fail(self, value: ir.Scalar, source: np.dtype, lanes: int, u: int, names: list[str]) -> None:
        """Report the lanes in which a checked operation is undefined."""
        bad = self.scalars.failing(value.op, source, lanes, names)
        if bad:
            self.report(bad, lanes, u, value.check)

    def value(self, ref: Ref) -> Value:
        """What a ref holds; reading a finished accumulator combines its lanes."""
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
            self.fn.op(f"add <{count} x i64> {base}, {_ramp(count, step, u * count * step)}")
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
        if not varying and not step:
            raw = self.fn.op(f"load {memory}, ptr {base}, align {dtype.itemsize}")
            return Value([self.from_memory(raw, dtype, 1)], dtype, True)
        assert lanes is not None
        parts = []
        for u in range(lanes.unroll):
            if not varying and step == 1:
                raw = self.load_row(self.shifted(base, memory, u * lanes.count), memory, dtype, u)
            else:
                raw = self.gather(self.lane_pointers(base, memory, step, varying, u), memory, dtype, u)
            parts.append(self.from_memory(raw, dtype, lanes.count))
        return Value(parts, dtype, False)

    def advance(self, buffer: Buffer, base: str, index: str, factor: int) -> str:
        """``base`` moved by ``index * factor`` elements."""
        step = index if factor == 1 else self.fn.op(f"mul i64 {index}, {factor}")
        return self.fn.op(f"getelementptr {stored(buffer.dtype)}, ptr {base}, i64 {step}")

    def shifted(self, base: str, memory: str, by: int) -> str:
        """``base`` moved by a number of elements."""
        return self.fn.op(f"getelementptr {memory}, ptr {base}, i64 {by}") if by else base

    def load_row(self, base: str, memory: str, dtype: np.dtype, u: int) -> str:
        """Neighbouring elements."""
        assert self.lanes is not None
        count, masks = self.lanes.count, self.lanes.masks
        of = f"<{count} x {memory}>"
        if masks is None:
            return self.fn.op(f"load {of}, ptr {base}, align {dtype.itemsize}")
        symbol = f"llvm.masked.load.v{count}{_suffix(memory)}.p0"
        self.module.declare(symbol, f"declare {of} @{symbol}(ptr, i32, <{count} x i1>, {of})")
        one = _ones(dtype, count)
        return self.fn.op(
            f"call {of} @{symbol}(ptr {base}, i32 {dtype.itemsize}, <{count} x i1> {masks[u]}, {of} {one})"
        )

    def lane_pointers(
        self, base: str, memory: str, step: int, varying: list[tuple[Value, int]], u: int
    ) -> str:
        """One pointer per lane."""
        assert self.lanes is not None
        count = self.lanes.count
        offsets = _ramp(count, step, u * count * step) if step else ""
        for part, factor in varying:
            name = part.parts[u]
            if factor != 1:
                name = self.fn.op(f"mul <{count} x i64> {name}, splat (i64 {factor})")
            offsets = self.fn.op(f"add <{count} x i64> {name}, {offsets}") if offsets else name
        return self.fn.op(f"getelementptr {memory}, ptr {base}, <{count} x i64> {offsets}")

    def gather(self, pointers: str, memory: str, dtype: np.dtype, u: int) -> str:
        """Elements from anywhere."""
        assert self.lanes is not None
        count, masks = self.lanes.count, self.lanes.masks
        of = f"<{count} x {memory}>"
        symbol = f"llvm.masked.gather.v{count}{_suffix(memory)}.v{count}p0"
        self.module.declare(symbol, f"declare {of} @{symbol}(<{count} x ptr>, i32, <{count} x i1>, {of})")
        mask = masks[u] if masks is not None else "splat (i1 true)"
        return self.fn.op(
            f"call {of} @{symbol}(<{count} x ptr> {pointers}, i32 {dtype.itemsize}, <{count} x i1> {mask}, "
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
        for u, name in enumerate(self.vectors(statement.value)):
            if not varying and step == 1:
                where = self.shifted(base, memory, u * lanes.count)
                if statement.combine:
                    old = self.from_memory(self.load_row(where, memory, dtype, u), dtype, lanes.count)
                    name = self.scalars.combine(statement.combine, dtype, lanes.count, old, name)
                self.store_row(self.to_memory(name, dtype, lanes.count), where, memory, dtype, u)
            else:
                pointers = self.lane_pointers(base, memory, step, varying, u)
                if statement.combine:
                    old = self.from_memory(self.gather(pointers, memory, dtype, u), dtype, lanes.count)
                    name = self.scalars.combine(statement.combine, dtype, lanes.count, old, name)
                self.scatter(self.to_memory(name, dtype, lanes.count), pointers, memory, dtype, u)

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

    # ----------------------------------------------------------------------------------------------------- loops

    def lane_count(self, loop: For) -> int:
        """Lanes so that the widest value in the loop fills a register."""
        widths = [
            s.ref.dtype.itemsize
            for s in ir.walk(loop.body)
            if isinstance(s, Let) and s.ref.dtype.kind != "b" and not isinstance(s.value, Const)
        ]
        return max(2, min(32, vector_bytes() // max(widths, default=1)))

    def unroll_count(self, loop: For) -> int:
        """Unrolled copies, fewer when that avoids a masked tail."""
        count = self.lane_count(loop)
        unroll = loop.unroll
        while unroll > 1 and loop.extent % (count * unroll) and not loop.extent % count:
            unroll //= 2
        return unroll

    def loop(self, loop: For) -> None:
        """Print a loop."""
        if loop.extent == 0:
            return
        if loop.kind == "parallel":
            self.parallel_loop(loop)
            return
        fn = self.fn
        simd = loop.kind == "simd" and self.lanes is None
        if simd:
            self.lanes = Lanes(loop.axis, self.lane_count(loop), self.unroll_count(loop))
        step = self.lanes.count * self.lanes.unroll if simd and self.lanes else 1
        stop, ragged = self.stop(loop, step)
        start, head, done = fn.current, fn.label("loop"), fn.label("done")
        fn.do(f"br label %{head}")
        fn.start(head)
        counter = fn.phi("i64")
        counter.add("0", start)
        carried = self.carry(loop, start)
        self.bound[loop.axis] = counter.name
        self.scopes.append(Scope())
        straight, self.scalars.straight = self.scalars.straight, False
        if simd and ragged and self.lanes is not None:
            self.lanes.masks = self.tail_masks(counter.name, stop)
        self.prepare(loop.body)
        self.body(loop.body)
        self.scalars.straight = straight
        following = fn.op(f"add i64 {counter.name}, {step}")
        more = fn.op(f"icmp slt i64 {following}, {stop}")
        fn.do(f"br i1 {more}, label %{head}, label %{done}")
        counter.add(following, fn.current)
        for acc, phis in carried:
            for phi, part in zip(phis, acc.parts, strict=True):
                phi.add(part, fn.current)
        fn.start(done)
        self.scopes.pop()
        del self.bound[loop.axis]
        if simd:
            self.lanes = None

    def stop(self, loop: For, step: int) -> tuple[str, bool]:
        """Number of iterations, and whether the last vector can be incomplete."""
        if loop.bound is None:
            return str(loop.extent), loop.extent % step != 0
        begin = self.index(loop.bound.start).parts[0]
        left = self.fn.op(f"sub i64 {loop.bound.stop}, {begin}")
        fewer = self.fn.op(f"icmp slt i64 {left}, {loop.extent}")
        stop = self.fn.op(f"select i1 {fewer}, i64 {left}, i64 {loop.extent}")
        return stop, bool(loop.extent % step or loop.bound.stop % step)

    def tail_masks(self, counter: str, stop: str) -> list[str]:
        """Which lanes are inside the loop, per unrolled copy."""
        assert self.lanes is not None
        count = self.lanes.count
        left = self.splat(self.fn.op(f"sub i64 {stop}, {counter}"), "i64", count)
        return [
            self.fn.op(f"icmp slt <{count} x i64> {_ramp(count, 1, u * count)}, {left}") for u in range(self.lanes.unroll)
        ]

    def carry(self, loop: For, start: str) -> list[tuple[Accumulator, list[Phi]]]:
        """Phis for accumulators that the loop feeds and that were opened before it."""
        carried = []
        fed = {s.ref for s in ir.walk(loop.body) if isinstance(s, Accumulate)}
        for ref in sorted(fed & set(self.accumulators), key=lambda ref: ref.number):
            acc = self.accumulators[ref]
            inner = self.lanes is not None or _feeding_simd(ref, (loop,)) is not None
            if acc.widened and not inner:
                raise AssertionError("a widened accumulator is fed by a scalar loop")
            phis = []
            for part in acc.parts:
                phi = self.fn.phi(vector(kind(acc.dtype), acc.lanes))
                phi.add(part, start)
                phis.append(phi)
            acc.parts = [phi.name for phi in phis]
            carried.append((acc, phis))
        return carried

    def parallel_loop(self, loop: For) -> None:
        """Outline the body and hand its blocks to the thread pool."""
        self.parallel += 1
        name = f"{self.name}_p{self.parallel}"
        locals_ = [buffer for buffer in ir.buffers(loop.body) if buffer.kind == "local"]
        assert not ir.free_refs(loop), "a parallel loop must compute what it needs"
        inner = Function(self.module, name, "void", [("ptr", "%context"), ("i64", "%block")], ATTRIBUTES)
        for i, label in enumerate(("inputs", "outputs", "arena", "status")):
            slot = inner.op(f"getelementptr ptr, ptr %context, i64 {i}")
            inner._lines.append(f"  %{label} = load ptr, ptr {slot}")
        emitter = KernelEmitter(self.module, inner, self.constants, name)
        emitter.open_buffers([b for b in ir.buffers(loop.body) if b.kind != "local"])
        for i, buffer in enumerate(locals_):
            slot = inner.op(f"getelementptr ptr, ptr %context, i64 {4 + i}")
            emitter.bases[buffer] = inner.op(f"load ptr, ptr {slot}")
        emitter.bound[loop.axis] = "%block"
        emitter.prepare(loop.body)
        emitter.body(loop.body)
        inner.do("ret void")
        self.module.add_function(inner)
        fn = self.fn
        context = fn.alloca(f"[{4 + len(locals_)} x ptr]")
        pointers = ["%inputs", "%outputs", "%arena", "%status", *(self.bases[b] for b in locals_)]
        for i, pointer in enumerate(pointers):
            fn.do(f"store ptr {pointer}, ptr {fn.op(f'getelementptr ptr, ptr {context}, i64 {i}')}")
        self.module.declare("gj_parallel_for", "declare void @gj_parallel_for(ptr, ptr, i64, i64)")
        fn.do(
            f"call void @gj_parallel_for(ptr @{name}, ptr {context}, i64 {loop.extent}, i64 {loop.nanoseconds})"
        )

    def open_buffers(self, buffers: Sequence[Buffer]) -> None:
        """Base pointers of everything that the function touches."""
        for buffer in buffers:
            self.bases[buffer] = base_pointer(self.fn, buffer, self.constants)


def base_pointer(fn: Function, buffer: Buffer, constants: Sequence[np.ndarray], arena: str = "%arena") -> str:
    """Pointer to the first element of a buffer."""
    if buffer.kind == "const":
        return f"inttoptr (i64 {constants[buffer.slot].ctypes.data} to ptr)"
    if buffer.kind == "arena":
        return fn.op(f"getelementptr i8, ptr {arena}, i64 {buffer.slot}")
    if buffer.kind == "local":
        return fn.alloca(f"[{buffer.size} x {stored(buffer.dtype)}]", 64)
    table = "%inputs" if buffer.kind == "input" else "%outputs"
    return fn.op(f"load ptr, ptr {fn.op(f'getelementptr ptr, ptr {table}, i64 {buffer.slot}')}")


def emit_kernel(module: Module, kernel: ir.LoopKernel, constants: Sequence[np.ndarray]) -> str:
    """Add the function of a kernel; returns its name."""
    fn = Function(
        module,
        kernel.name,
        "void",
        [("ptr", "%inputs"), ("ptr", "%outputs"), ("ptr", "%arena"), ("ptr", "%status")],
        ATTRIBUTES,
    )
    emitter = KernelEmitter(module, fn, constants, kernel.name)
    emitter.open_buffers(ir.buffers(kernel.body))
    emitter.body(kernel.body)
    fn.do("ret void")
    module.add_function(fn)
    return kernel.name


def _accessed(statement: Statement) -> tuple[Buffer, Address] | None:
    if isinstance(statement, Let) and isinstance(statement.value, Load):
        return statement.value.buffer, statement.value.address
    return (statement.buffer, statement.address) if isinstance(statement, Store) else None


def _feeding_simd(ref: Ref, statements: Sequence[Statement]) -> For | None:
    """The simd loop inside ``statements`` whose lanes feed an accumulator opened outside."""
    for statement in statements:
        if isinstance(statement, For):
            if statement.kind == "simd":
                if any(isinstance(s, Accumulate) and s.ref is ref for s in ir.walk(statement.body)):
                    return statement
            else:
                found = _feeding_simd(ref, statement.body)
                if found is not None:
                    return found
    return None


def _ramp(count: int, step: int, start: int = 0) -> str:
    return f"<{', '.join(f'i64 {start + i * step}' for i in range(count))}>"


def _suffix(memory: str) -> str:
    return {"double": "f64", "float": "f32"}.get(memory, memory)


def _ones(dtype: np.dtype, count: int) -> str:
    if dtype.kind == "b":
        return "splat (i8 1)"
    return constant(dtype.type(1), count)
