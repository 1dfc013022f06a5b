"""Print loop kernels as LLVM functions.

Job: loops, vectors, masked tails, accumulators, addresses.
Input: a `LoopKernel`.  Output: one function per kernel (and per parallel loop in it) in a `Module`.
Invariants: a simd loop becomes explicit vector code, so no optimisation pass is needed; lanes beyond the
loop's end load 1 and store nothing; pointers are computed at the outermost loop that their address depends
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphjit.backend.llvm.kernels.blocks import read_in_blocks, written_in_blocks
from graphjit.backend.llvm.kernels.elements import Elements
from graphjit.backend.llvm.kernels.registers import Accumulator, Lanes, Scope, Value, ramp
from graphjit.backend.llvm.kernels.running import multiply_add, stages
from graphjit.backend.llvm.kernels.scalar import constant, kind, literal, vector
from graphjit.backend.llvm.kernels.steps import Steps, can_fail
from graphjit.backend.llvm.kernels.strided import components
from graphjit.backend.llvm.products.in_sweeps import block_function
from graphjit.backend.llvm.products.tile import host_tile
from graphjit.backend.llvm.threads import waiting
from graphjit.backend.llvm.writing.text import Function, Module, Phi
from graphjit.ir.scalars import identity, is_function
from graphjit.loops import ir
from graphjit.loops.ir import (
    Accumulate,
    Check,
    Choose,
    Const,
    For,
    Index,
    Init,
    Let,
    Load,
    Multiply,
    Peek,
    Push,
    Ref,
    Repeat,
    Statement,
    Store,
)
from graphjit.loops.lanes import varying
from graphjit.loops.passes.vectorize import RECORD
from graphjit.loops.passes.write_out import is_plain

ATTRIBUTES = 'nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512"'
QUICK = " noinline optnone"
"""Attributes that halve the time of code generation; a single block without loops runs as fast."""


class KernelEmitter(Steps):
    """Prints the body of one function."""

    # --------------------------------------------------------------------------------------------- statements

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
            elif isinstance(statement, Multiply):
                self.multiply(statement)
            elif isinstance(statement, Repeat):
                self.repeat(statement)
            elif isinstance(statement, Choose):
                self.choose(statement)
            elif isinstance(statement, Push):
                self.push(statement)
            else:
                self.check(statement)

    def multiply(self, statement: Multiply) -> None:
        """Call the product for its shape and strides, on the rows that are left."""
        tile = host_tile("f64" if statement.out.buffer.dtype.itemsize == 8 else "f32")
        places = [
            self.pointer(matrix.buffer, matrix.address)
            for matrix in (statement.x, statement.y, statement.out)
        ]
        count = self.left(statement.bound, statement.shape[2 if statement.adds else 0])
        name = block_function(self.module, tile, statement)
        self.fn.do(f"call void @{name}({', '.join(f'ptr {place}' for place in places)}, i64 {count})")

    def init(self, statement: Init, following: Sequence[Statement]) -> None:
        """Open an accumulator, already in vector form when an inner simd loop will feed it."""
        start = identity(statement.combine, statement.ref.dtype, statement.running)
        widened = None if self.lanes else _feeding_simd(statement.ref, following)
        lanes, unroll = (self.lanes.count, self.lanes.unroll) if self.lanes else (1, 1)
        if widened is not None:
            lanes, unroll = widened.lanes, widened.unroll
        self.accumulators[statement.ref] = Accumulator(
            statement.combine,
            statement.ref.dtype,
            [constant(start, lanes)] * unroll,
            lanes,
            widened is not None,
        )

    def accumulate(self, statement: Accumulate) -> None:
        """One accumulation step; lanes beyond the end change nothing."""
        acc = self.accumulators[statement.ref]
        if self.lanes is None:
            if acc.widened:
                self.settle(acc)
            factor = None if statement.factor is None else self.scalar(statement.factor)
            acc.parts = [self.step(statement, acc, 0, self.scalar(statement.value), factor)]
            return
        values = self.vectors(statement.value)
        factors = [None] * len(values) if statement.factor is None else self.vectors(statement.factor)
        if acc.lanes == 1:
            self.carry_lanes(statement, acc, values, factors)
            return
        for u, value in enumerate(values):
            if self.lanes.masks is not None and acc.widened:
                of = vector(kind(acc.dtype), acc.lanes)
                rest = constant(identity(acc.combine, acc.dtype), acc.lanes)
                mask = self.lanes.masks[u]
                value = self.fn.op(f"select {vector('i1', acc.lanes)} {mask}, {of} {value}, {of} {rest}")
            acc.parts[u] = self.step(statement, acc, u, value, factors[u])

    def step(self, statement: Accumulate, acc: Accumulator, u: int, value: str, factor: str | None) -> str:
        """What one part of an accumulator holds after a step."""
        if factor is None:
            return self.scalars.combine(acc.combine, acc.dtype, acc.lanes, acc.parts[u], value)
        return multiply_add(self.fn, self.scalars, acc.dtype, acc.lanes, acc.parts[u], factor, value)

    def carry_lanes(
        self, statement: Accumulate, acc: Accumulator, values: Sequence[str], factors: Sequence[str | None]
    ) -> None:
        """Steps of an accumulator whose every stage is wanted: each lane follows the one before it."""
        assert self.lanes is not None
        count, masks, parts = self.lanes.count, self.lanes.masks, []
        of = vector(kind(acc.dtype), count)
        for u, (value, factor) in enumerate(zip(values, factors, strict=True)):
            if masks is not None:
                rest = constant(identity(acc.combine, acc.dtype, True), count)
                value = self.fn.op(f"select {vector('i1', count)} {masks[u]}, {of} {value}, {of} {rest}")
                if factor is not None:
                    one = constant(identity("mul", acc.dtype), count)
                    factor = self.fn.op(f"select {vector('i1', count)} {masks[u]}, {of} {factor}, {of} {one}")
            part, last = stages(
                self.fn, self.scalars, acc.combine, acc.dtype, count, acc.parts[0], value, factor
            )
            parts.append(part)
            acc.parts = [last]
        self.running[statement.ref] = Value(parts, acc.dtype, False)

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
        before = fn.op(f"load i64, ptr {self.status}")
        fresh = fn.op(f"and i1 {bad}, {fn.op(f'icmp eq i64 {before}, 0')}")
        fn.do(f"store i64 {fn.op(f'select i1 {fresh}, i64 {code}, i64 {before}')}, ptr {self.status}")

    # -------------------------------------------------------------------------------------------- expressions

    def expression(self, value: ir.Expression, dtype: np.dtype) -> Value:
        """Compute an expression."""
        if isinstance(value, Const):
            return Value([literal(value.value)], dtype, True)
        if isinstance(value, Load):
            return self.load(value, dtype)
        if isinstance(value, Index):
            return self.index(value.value)
        if isinstance(value, Peek):
            return self.peek(value, dtype)
        return self.operation(value, dtype)

    def operation(self, value: ir.Scalar, dtype: np.dtype) -> Value:
        """Compute a scalar operation, once where its operands are the same in all lanes."""
        operands = [self.value(ref) for ref in value.args]
        source = value.args[-1].dtype
        if all(operand.uniform for operand in operands):
            names = [operand.parts[0] for operand in operands]
            if value.check:
                self.fail(value, source, 1, 0, names)
            calls, self.scalars.calls = self.scalars.calls, True
            result = self.scalars.apply(value.op, dtype, source, 1, names)
            self.scalars.calls = calls
            return Value([result], dtype, True)
        assert self.lanes is not None
        columns = [self.vectors(ref) for ref in value.args]
        if self.scalars.calls and is_function(value.op) and source.kind == "f" and self.lanes.unroll > 1:
            return Value(self.scalars.together(value.op, source, self.lanes.count, columns), dtype, False)
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

    # -------------------------------------------------------------------------------------------------- loops

    def loop(self, loop: For) -> None:
        """Print a loop."""
        if loop.extent == 0:
            return
        if loop.kind == "parallel":
            self.parallel_loop(loop)
            return
        if loop.when is not None:
            taken, passed = self.fn.label("taken"), self.fn.label("passed")
            self.fn.do(f"br i1 {self.scalar(loop.when)}, label %{taken}, label %{passed}")
            self.fn.start(taken)
            self.loop(replace(loop, when=None))
            self.fn.do(f"br label %{passed}")
            self.fn.start(passed)
            return
        if self.clears(loop):
            return
        if loop.kind == "simd" and self.lanes is None:
            self.in_lanes(loop)
        else:
            self.run(loop, "0", self.stop(loop), 1)

    def in_lanes(self, loop: For) -> None:
        """Print a simd loop: whole vectors, and the last ones with masks."""
        self.lanes = Lanes(loop.axis, loop.lanes, loop.unroll, varying(loop))
        step = loop.lanes * loop.unroll
        stop, ragged = self.stop(loop), loop.is_ragged
        self.fence |= any(isinstance(s, Store) and s.streamed for s in loop.body)
        if ragged and loop.tail == "apart":
            whole = str(int(stop) // step * step) if stop.isdigit() else self.multiple_below(stop, step)
            if whole != "0":
                self.run(loop, "0", whole, step, guard=not whole.isdigit())
                self.lanes = replace(self.lanes, unroll=1)
                step = self.lanes.count
            self.run(loop, whole, stop, step, masked=True, guard=not whole.isdigit())
        else:
            self.run(loop, "0", stop, step, masked=ragged)
        self.lanes = None
        self.running.clear()

    def multiple_below(self, stop: str, step: int) -> str:
        """The largest multiple of ``step`` that is not above ``stop``."""
        if not step & (step - 1):
            return self.fn.op(f"and i64 {stop}, {-step}")
        return self.fn.op(f"sub i64 {stop}, {self.fn.op(f'urem i64 {stop}, {step}')}")

    def clears(self, loop: For) -> bool:
        """Print a loop that only fills neighbouring elements with zeros, as calls; False where it does
        something else, or goes past the caches, as such a call does not.
        """
        if self.lanes is not None or loop.bound is not None:
            return False
        stores = [s for s in loop.body if isinstance(s, Store)]
        for store in stores:
            value = self.values.get(store.value)
            if value is None or value.parts != [literal(store.buffer.dtype.type(0))]:
                return False
            if store.address[loop.axis] != 1 or store.dynamic or store.combine or store.streamed:
                return False
        if len(stores) != len(loop.body):
            return False
        self.module.declare("llvm.memset.p0.i64", "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
        for store in stores:
            first = ir.Address(
                store.address.offset,
                {axis: c for axis, c in store.address.terms.items() if axis is not loop.axis},
            )
            nbytes = loop.extent * store.buffer.dtype.itemsize
            self.fn.do(
                f"call void @llvm.memset.p0.i64(ptr {self.pointer(store.buffer, first)}, i8 0, i64 {nbytes}, i1 false)"
            )
        return True

    def run(
        self, loop: For, begin: str, stop: str, step: int, *, masked: bool = False, guard: bool = False
    ) -> None:
        """The loop over part of its range; at least one iteration, unless ``guard`` asks for the test."""
        fn = self.fn
        if begin.isdigit() and stop.isdigit() and int(stop) - int(begin) <= step:
            if self.lanes is not None and self.lanes.axis is loop.axis:
                self.lanes.inside = int(stop) - int(begin)
            self.iteration(loop, begin, stop, masked)
            return
        before = fn.current
        head, done = fn.label("loop"), fn.label("done")
        held = {id(acc): list(acc.parts) for acc in self.accumulators.values()} if guard else {}
        if guard:
            fn.do(f"br i1 {fn.op(f'icmp slt i64 {begin}, {stop}')}, label %{head}, label %{done}")
        else:
            fn.do(f"br label %{head}")
        fn.start(head)
        counter = fn.phi("i64")
        counter.add(begin, before)
        carried = self.carry(loop, before)
        self.iteration(loop, counter.name, stop, masked)
        following = fn.op(f"add i64 {counter.name}, {step}")
        more = fn.op(f"icmp slt i64 {following}, {stop}")
        fn.do(f"br i1 {more}, label %{head}, label %{done}")
        counter.add(following, fn.current)
        last = fn.current
        for acc, phis in carried:
            for phi, part in zip(phis, acc.parts, strict=True):
                phi.add(part, fn.current)
        fn.start(done)
        if guard:
            self.merge(carried, held, before, last)

    def iteration(self, loop: For, counter: str, stop: str, masked: bool) -> None:
        """The body of a loop, from iteration ``counter`` on."""
        self.bound[loop.axis] = counter
        self.scopes.append(Scope())
        if self.lanes is not None:
            inside, scope = (loop.body, self.lanes.axis, self.lanes.count), self.scopes[-1]
            scope.stored = components(*inside)
            least = 1 if masked else RECORD
            scope.reads, scope.writes = read_in_blocks(*inside, least), written_in_blocks(*inside, least)
        calls, self.scalars.calls = self.scalars.calls, loop.calls
        if masked and self.lanes is not None:
            self.lanes.masks = self.tail_masks(counter, stop)
        self.prepare(loop.body)
        self.fetch(loop.fetch)
        self.body(loop.body)
        if masked and self.lanes is not None:
            self.lanes.masks = None
        self.scalars.calls = calls
        self.scopes.pop()
        del self.bound[loop.axis]

    def merge(
        self, carried: list[tuple[Accumulator, list[Phi]]], held: dict[int, list[str]], before: str, last: str
    ) -> None:
        """What accumulators hold after a loop that may not have run."""
        for acc, _ in carried:
            parts = []
            for old, new in zip(held[id(acc)], acc.parts, strict=True):
                phi = self.fn.phi(vector(kind(acc.dtype), acc.lanes))
                phi.add(old, before)
                phi.add(new, last)
                parts.append(phi.name)
            acc.parts = parts

    def stop(self, loop: For) -> str:
        """Number of iterations."""
        if loop.bound is None:
            return str(loop.extent)
        return self.left(loop.bound, loop.extent)

    def left(self, bound: ir.Bound | None, extent: int) -> str:
        """``extent``, or fewer where the bound says so."""
        if bound is None:
            return str(extent)
        begin = self.index(bound.start).parts[0]
        left = self.fn.op(f"sub i64 {bound.stop}, {begin}")
        fewer = self.fn.op(f"icmp slt i64 {left}, {extent}")
        return self.fn.op(f"select i1 {fewer}, i64 {left}, i64 {extent}")

    def tail_masks(self, counter: str, stop: str) -> list[str]:
        """Which lanes are inside the loop, per unrolled copy."""
        assert self.lanes is not None
        count = self.lanes.count
        reach, left = count * self.lanes.unroll, self.fn.op(f"sub i64 {stop}, {counter}")
        self.lanes.left = left
        near = self.fn.op(f"icmp slt i64 {left}, {reach}")
        few = self.fn.op(f"trunc i64 {self.fn.op(f'select i1 {near}, i64 {left}, i64 {reach}')} to i32")
        last = self.splat(few, "i32", count)
        return [
            self.fn.op(f"icmp slt <{count} x i32> {ramp(count, 1, u * count, 'i32')}, {last}")
            for u in range(self.lanes.unroll)
        ]

    def carry(self, loop: For, start: str) -> list[tuple[Accumulator, list[Phi]]]:
        """Phis for accumulators that the loop feeds and that were opened before it."""
        carried = []
        for ref in sorted(
            ir.open_accumulators(loop).keys() & self.accumulators.keys(), key=lambda ref: ref.number
        ):
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
        assert not ir.free_refs(loop), "a parallel loop must compute what it needs"
        used = ir.buffers(loop.body)
        shared = [buffer for buffer in used if buffer.kind != "scratch"]
        inner = Function(self.module, name, "void", [("ptr", "%context"), ("i64", "%block")], ATTRIBUTES)
        inner.load_into("%status", "ptr", "%context")
        emitter = KernelEmitter(self.module, inner, name)
        for i, buffer in enumerate(shared, 1):
            emitter.bases[buffer] = inner.op(
                f"load ptr, ptr {inner.op(f'getelementptr ptr, ptr %context, i64 {i}')}"
            )
        emitter.own([buffer for buffer in used if buffer.kind == "scratch"])
        failing = any(map(can_fail, ir.walk(loop.body)))
        if failing:
            emitter.status = inner.alloca("i64")
            inner.do(f"store i64 0, ptr {emitter.status}")
        emitter.bound[loop.axis] = "%block"
        emitter.prepare(loop.body)
        emitter.body(loop.body)
        emitter.finish()
        self.module.add_function(inner)
        fn = self.fn
        context = fn.shared_slot(f"[{1 + len(shared)} x ptr]")
        status = "%status"
        if failing:
            status = fn.alloca("i64")
            fn.do(f"store i64 0, ptr {status}")
        for i, pointer in enumerate([status, *(self.bases[buffer] for buffer in shared)]):
            fn.do(f"store ptr {pointer}, ptr {fn.op(f'getelementptr ptr, ptr {context}, i64 {i}')}")
        job = f"ptr @{name}, ptr {context}, i64 {loop.extent}, i64 {loop.nanoseconds}"
        if any(isinstance(s, Repeat) for s in ir.walk(loop.body)):
            self.module.declare(waiting.WATCHED, f"declare void @{waiting.WATCHED}(ptr, ptr, i64, i64, ptr)")
            fn.do(f"call void @{waiting.WATCHED}({job}, ptr @{self.look_for_others()})")
        else:
            self.module.declare(waiting.SYMBOL, f"declare void @{waiting.SYMBOL}(ptr, ptr, i64, i64)")
            fn.do(f"call void @{waiting.SYMBOL}({job})")
        if failing:
            before, found = fn.op("load i64, ptr %status"), fn.op(f"load i64, ptr {status}")
            none = fn.op(f"icmp eq i64 {before}, 0")
            fn.do(f"store i64 {fn.op(f'select i1 {none}, i64 {found}, i64 {before}')}, ptr %status")


def emit_kernel(module: Module, kernel: ir.LoopKernel, name: str) -> None:
    """Add function ``name(status, one pointer for each of `ir.parameters`)``, which runs a kernel."""
    given = ir.parameters(kernel)
    labels = [("ptr", "%status"), *(("ptr", f"%b{i}") for i in range(len(given)))]
    fn = Function(module, name, "void", labels, ATTRIBUTES + (QUICK if kernel.quick else ""))
    emitter = KernelEmitter(module, fn, name)
    emitter.bases.update((buffer, f"%b{i}") for i, buffer in enumerate(given))
    emitter.elements = Elements(fn) if is_plain(kernel) else None
    # Scratch of a parallel loop belongs to the thread that runs a task.
    tasks = [s for s in kernel.body if isinstance(s, For) and s.kind == "parallel"]
    in_tasks = {buffer for task in tasks for buffer in ir.buffers(task.body) if buffer.kind == "scratch"}
    emitter.own([buffer for buffer in kernel.locals if buffer not in in_tasks])
    emitter.body(kernel.body)
    emitter.finish()
    fn.driver = all(isinstance(s, Let) or (isinstance(s, For) and s.kind == "parallel") for s in kernel.body)
    module.add_function(fn)


def _feeding_simd(ref: Ref, statements: Sequence[Statement]) -> For | None:
    """The simd loop inside ``statements`` whose lanes feed an accumulator opened outside, each its own part
    of it.
    """
    for statement in statements:
        if isinstance(statement, For):
            if statement.kind == "simd":
                if any(isinstance(s, Accumulate) and s.ref is ref for s in ir.walk(statement.body)):
                    return None if ref in ir.running(statement) else statement
            else:
                found = _feeding_simd(ref, statement.body)
                if found is not None:
                    return found
    return None
