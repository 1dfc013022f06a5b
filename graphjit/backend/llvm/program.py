"""A whole program as one LLVM module: kernels and the driver that runs them.

Job: emit every step, give the arena, return the status.
Input: a `Program` and its loop kernels. Output: module text whose function ``program(inputs, outputs) ->
i64`` does everything.
Invariants: 0 means success, a positive status is a code of ``Program.errors``, -1 is lack of memory, -2 an
interruption; a large arena is kept between calls and taken by exchange, so concurrent calls never share one.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

from graphjit.backend.llvm.control import ControlEmitter
from graphjit.backend.llvm.entry.interrupts import INTERRUPTED, LONG_NS, STEP_NS, SYMBOL
from graphjit.backend.llvm.kernels.emit import ATTRIBUTES, emit_kernel
from graphjit.backend.llvm.kernels.registers import ON_STACK, OUT_OF_MEMORY
from graphjit.backend.llvm.products.step import call_product
from graphjit.backend.llvm.tapes import Tapes
from graphjit.backend.llvm.writing.text import Function, Module
from graphjit.ir.buffers import TAPES, Buffer
from graphjit.ir.node import bodies, with_bodies
from graphjit.limits import Limits
from graphjit.loops.cost import nanoseconds, trips
from graphjit.loops.ir import LoopKernel, parameters
from graphjit.loops.signature import signature
from graphjit.schedule.access import storage
from graphjit.schedule.loops.control import scratch
from graphjit.schedule.program import Control, Product, Program, Step


def emit_program(program: Program, kernels: Mapping[str, LoopKernel], limits: Limits | None = None) -> Module:
    """The module of ``program``; ``kernels`` by step name."""
    module = Module(program.name, limits)
    fn = Function(module, "program", "i64", [("ptr", "%inputs"), ("ptr", "%outputs")], ATTRIBUTES)
    status = fn.alloca("i64")
    fn.do(f"store i64 0, ptr {status}")
    fn.driver = True
    arena = _take_arena(module, fn, program.arena)
    tapes = Tapes(fn) if _has(program, ("while", "unwind"), taped=True) else None
    driver = Driver(fn, kernels, status, _Looks(fn, program, kernels), tapes)
    driver.steps(program, Bases(fn, program, arena))
    full = tapes.full if tapes else ""
    leave(fn, status, {driver.looks.stop: INTERRUPTED, full: OUT_OF_MEMORY, driver.looks.ended: None})
    if tapes is not None:
        tapes.end(status)
    if program.arena > ON_STACK:
        old = fn.op(f"atomicrmw xchg ptr @arena, ptr {arena} seq_cst")
        fn.do(f"call void @free(ptr {old})")
    fn.do(f"ret i64 {fn.op(f'load i64, ptr {status}')}")
    module.add_function(fn)
    return module


class Driver:
    """The function that runs the steps of a program, and of the programs inside its loops."""

    def __init__(
        self,
        fn: Function,
        kernels: Mapping[str, LoopKernel],
        status: str,
        looks: _Looks,
        tapes: Tapes | None,
    ) -> None:
        self.fn = fn
        self.kernels = kernels
        self.status = status
        self.looks = looks
        self._tapes = tapes
        self.known: dict[Hashable, str] = {}  # equal kernels are compiled once
        self.depth = 0

    @property
    def tapes(self) -> Tapes:
        """The memory of tapes, of a program that has some."""
        assert self._tapes is not None
        return self._tapes

    def steps(self, program: Program, bases: Bases) -> None:
        """Run a program; ``bases`` are its places."""
        for step in program.steps:
            if self.depth == 0:
                self.looks.before(step)
            if isinstance(step, Product):
                operands = [bases[program.buffers[storage(node)]] for node in (*step.node.args, step.node)]
                call_product(self.fn, step, operands, self.known)
            elif isinstance(step, Control) and not step.in_registers:
                self.control(program, step, bases)
            elif self.kernels[step.name].body:
                self.kernel(self.kernels[step.name], bases)
                if isinstance(step, Control):
                    self.looks.stopped(step, self.status)

    def kernel(self, kernel: LoopKernel, bases: Bases) -> None:
        """Call a kernel."""
        key = signature(kernel)
        if key not in self.known:
            self.known[key] = kernel.name
            emit_kernel(self.fn.module, kernel, kernel.name)
        places = (self.tapes.state if buffer is TAPES else bases[buffer] for buffer in parameters(kernel))
        pointers = [self.status, *places]
        self.fn.do(f"call void @{self.known[key]}({', '.join(f'ptr {pointer}' for pointer in pointers)})")

    def control(self, program: Program, step: Control, bases: Bases) -> None:
        """Run a loop or a choice."""
        args = [bases[program.buffers[storage(arg)]] for arg in step.node.args]
        memory = bases.in_arena(step.scratch)
        homes = scratch(step).homes
        results = [
            bases.in_arena(step.scratch + homes[number]) if item is None else bases[program.buffers[item]]
            for number, item in enumerate(step.results)
        ]
        self.depth += 1
        ControlEmitter(self, step, args, results, memory).emit()
        self.depth -= 1

    def run(self, program: Program, inputs: Sequence[str], outputs: Sequence[str], arena: str) -> None:
        """Run a program inside a loop or a choice, on these arguments and results."""
        self.steps(program, Bases(self.fn, program, arena, (inputs, outputs)))

    def look_within(self, step: Control, counter: str) -> None:
        """A look for signals between the steps of a loop, after so many as take a while."""
        each = max(1, nanoseconds(step, self.kernels) // max(1, trips(step)))
        self.looks.every(max(1, STEP_NS // each), counter)


class _Looks:
    """Looks for signals between the steps of a program that takes long; others have none, and no other
    code.
    """

    def __init__(self, fn: Function, program: Program, kernels: Mapping[str, LoopKernel]) -> None:
        self.fn = fn
        self.times = {step.name: nanoseconds(step, kernels) for step in program.steps}
        self.passed = 0
        self.stop = ""
        self.ended = ""
        """The block to go to where a kernel has put the reason into the status."""
        self.next = ""
        long = sum(self.times.values()) >= LONG_NS and len(program.steps) > 1
        if long or _has(program, ("while", "unwind")):
            fn.module.declare(SYMBOL, f"declare i64 @{SYMBOL}(ptr)")
            self.stop = fn.label("stop")
            self.next = fn.alloca("i64")
            fn.do(f"store i64 0, ptr {self.next}")
            fn.do(f"call i64 @{SYMBOL}(ptr {self.next})")  # notes the time

    def before(self, step: Step) -> None:
        """A look before that step, if those since the last one take long enough."""
        if self.stop and self.passed >= STEP_NS:
            self.look()
            self.passed = 0
        self.passed += self.times[step.name]

    def every(self, count: int, counter: str) -> None:
        """A look once in ``count`` steps, or in a power of two near it."""
        if not self.stop:
            return
        with self.fn.now_and_then(counter, 1 << (count.bit_length() - 1)):
            self.look()

    def look(self) -> None:
        """Look, and stop if a handler raised."""
        go_on = self.fn.label("next")
        raised = self.fn.op(f"call i64 @{SYMBOL}(ptr {self.next})")
        self.fn.do(f"br i1 {self.fn.op(f'icmp eq i64 {raised}, 0')}, label %{go_on}, label %{self.stop}")
        self.fn.start(go_on)

    def stopped(self, step: Control, status: str) -> None:
        """After a loop in registers, which looks for signals and takes memory itself: stop if it did."""
        if any(name in ("while", "unwind") for name in _names(step)):
            self.ended = self.ended or self.fn.label("ended")
            go_on = self.fn.label("next")
            code = self.fn.op(f"load i64, ptr {status}")
            ended = self.fn.op(f"icmp slt i64 {code}, 0")
            self.fn.do(f"br i1 {ended}, label %{self.ended}, label %{go_on}")
            self.fn.start(go_on)


def _names(step: Control) -> set[str]:
    """The ops of a loop or a choice and of those inside."""
    graphs = [body.graph for body in bodies(step.node)]
    return {step.node.op.name, *(node.op.name for graph in graphs for node in with_bodies(graph))}


def leave(fn: Function, status: str, codes: Mapping[str, int | None]) -> None:
    """The end of the steps, and the blocks that lead there from where a program cannot go on, each with its
    status; what the program holds is given back after it as always.
    """
    end = fn.label("end")
    fn.do(f"br label %{end}")
    for label, code in codes.items():
        if label:
            fn.start(label)
            if code is not None:
                fn.do(f"store i64 {code}, ptr {status}")
            fn.do(f"br label %{end}")
    fn.start(end)


def _has(program: Program, names: Collection[str], taped: bool = False) -> bool:
    """Whether a program has loops of some kinds, that are ``taped`` if asked for."""
    return any(
        node.op.name in names and (not taped or any(part.record is not None for part in node.parts))
        for inner in program.with_inner()
        for step in inner.steps
        if isinstance(step, Control)
        for node in (step.node, *(x for body in bodies(step.node) for x in with_bodies(body.graph)))
    )


def _take_arena(module: Module, fn: Function, size: int) -> str:
    if size == 0:
        return "null"
    if size <= ON_STACK:
        return fn.alloca(f"[{size} x i8]", 64)
    module.add_global("arena", "@arena = global ptr null")
    module.declare("aligned_alloc", "declare ptr @aligned_alloc(i64, i64)")
    module.declare("free", "declare void @free(ptr)")
    kept = fn.op("atomicrmw xchg ptr @arena, ptr null seq_cst")
    fn.do(f"br i1 {fn.op(f'icmp eq ptr {kept}, null')}, label %allocate, label %run")
    fn.start("allocate")
    fresh = fn.op(f"call ptr @aligned_alloc(i64 64, i64 {-(-size // 64) * 64})")
    fn.do(f"br i1 {fn.op(f'icmp eq ptr {fresh}, null')}, label %fail, label %run")
    fn.start("fail")
    fn.do(f"ret i64 {OUT_OF_MEMORY}")
    fn.start("run")
    return fn.op(f"phi ptr [ {kept}, %entry ], [ {fresh}, %allocate ]")


class Bases(dict[Buffer, str]):
    """Pointers to the first elements of the buffers of a program, each computed once.

    ``tables`` are pointers to the arguments and results of a program inside a loop or a choice; those of the
    outermost stand in the tables that it is called with.
    """

    def __init__(
        self,
        fn: Function,
        program: Program,
        arena: str,
        tables: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.fn = fn
        self.constants = program.constants
        self.arena = arena
        self.tables = tables

    def __missing__(self, buffer: Buffer) -> str:
        pointer = self[buffer] = self.made(buffer)
        return pointer

    def made(self, buffer: Buffer) -> str:
        """The pointer to a buffer that lives outside of kernels."""
        if buffer.kind == "const":
            return f"inttoptr (i64 {self.constants[buffer.slot].ctypes.data} to ptr)"
        if buffer.kind == "arena":
            return self.in_arena(buffer.slot)
        if self.tables is not None:
            return self.tables[0 if buffer.kind == "input" else 1][buffer.slot]
        table = "%inputs" if buffer.kind == "input" else "%outputs"
        place = self.fn.op(f"getelementptr ptr, ptr {table}, i64 {buffer.slot}")
        return self.fn.op(f"load ptr, ptr {place}")

    def in_arena(self, offset: int) -> str:
        """A place in the arena."""
        return self.fn.op(f"getelementptr i8, ptr {self.arena}, i64 {offset}")
