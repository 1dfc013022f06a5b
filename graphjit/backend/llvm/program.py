"""A whole program as one LLVM module: kernels and the driver that runs them.

Job: emit every step, give the arena, return the status.
Input: a `Program` and its loop kernels. Output: module text whose function ``program(inputs, outputs) ->
i64`` does everything.
Invariants: 0 means success, a positive status is a code of ``Program.errors``, -1 is lack of memory, -2 an
interruption; a large arena is kept between calls and taken by exchange, so concurrent calls never share one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial

import numpy as np

from graphjit.backend.llvm.entry.interrupts import INTERRUPTED, LONG_NS, STEP_NS, SYMBOL
from graphjit.backend.llvm.kernels.emit import ATTRIBUTES, emit_kernel
from graphjit.backend.llvm.kernels.registers import ON_STACK, OUT_OF_MEMORY
from graphjit.backend.llvm.products.step import call_product
from graphjit.backend.llvm.writing.text import Function, Module
from graphjit.ir.buffers import Buffer
from graphjit.limits import Limits
from graphjit.loops.cost import nanoseconds
from graphjit.loops.ir import LoopKernel, parameters
from graphjit.loops.signature import signature
from graphjit.schedule.access import storage
from graphjit.schedule.program import Product, Program, Step


def emit_program(program: Program, kernels: Mapping[str, LoopKernel], limits: Limits | None = None) -> Module:
    """The module of ``program``; ``kernels`` by step name."""
    module = Module(program.name, limits)
    fn = Function(module, "program", "i64", [("ptr", "%inputs"), ("ptr", "%outputs")], ATTRIBUTES)
    status = fn.alloca("i64")
    fn.do(f"store i64 0, ptr {status}")
    fn.driver = True
    arena = _take_arena(module, fn, program.arena)
    known: dict[Hashable, str] = {}  # equal kernels are compiled once
    bases = Bases(fn, program, arena)
    looks = _Looks(fn, program, kernels)
    for step in program.steps:
        looks.before(step)
        if isinstance(step, Product):
            operands = [bases[program.buffers[storage(node)]] for node in (*step.node.args, step.node)]
            call_product(fn, step, operands, known)
        elif kernels[step.name].body:
            kernel = kernels[step.name]
            key = signature(kernel)
            if key not in known:
                known[key] = kernel.name
                emit_kernel(module, kernel, kernel.name)
            pointers = [bases[buffer] for buffer in parameters(kernel)]
            fn.do(
                f"call void @{known[key]}({', '.join(f'ptr {pointer}' for pointer in (status, *pointers))})"
            )
    looks.end(status)
    if program.arena > ON_STACK:
        old = fn.op(f"atomicrmw xchg ptr @arena, ptr {arena} seq_cst")
        fn.do(f"call void @free(ptr {old})")
    fn.do(f"ret i64 {fn.op(f'load i64, ptr {status}')}")
    module.add_function(fn)
    return module


class _Looks:
    """Looks for signals between the steps of a program that takes long; others have none, and no other
    code.
    """

    def __init__(self, fn: Function, program: Program, kernels: Mapping[str, LoopKernel]) -> None:
        self.fn = fn
        self.times = {step.name: nanoseconds(step, kernels.get(step.name)) for step in program.steps}
        self.passed = 0
        self.stop = ""
        self.next = ""
        if sum(self.times.values()) >= LONG_NS and len(program.steps) > 1:
            fn.module.declare(SYMBOL, f"declare i64 @{SYMBOL}(ptr)")
            self.stop = fn.label("stop")
            self.next = fn.alloca("i64")
            fn.do(f"store i64 0, ptr {self.next}")
            fn.do(f"call i64 @{SYMBOL}(ptr {self.next})")  # notes the time

    def before(self, step: Step) -> None:
        """A look before that step, if those since the last one take long enough."""
        if self.stop and self.passed >= STEP_NS:
            go_on = self.fn.label("next")
            raised = self.fn.op(f"call i64 @{SYMBOL}(ptr {self.next})")
            self.fn.do(f"br i1 {self.fn.op(f'icmp eq i64 {raised}, 0')}, label %{go_on}, label %{self.stop}")
            self.fn.start(go_on)
            self.passed = 0
        self.passed += self.times[step.name]

    def end(self, status: str) -> None:
        """The block that all looks lead to when a handler raised; the arena is given back after it as
        always.
        """
        if self.stop:
            end = self.fn.label("end")
            self.fn.do(f"br label %{end}")
            self.fn.start(self.stop)
            self.fn.do(f"store i64 {INTERRUPTED}, ptr {status}")
            self.fn.do(f"br label %{end}")
            self.fn.start(end)


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
    """Pointers to the first elements of buffers, each computed once."""

    def __init__(self, fn: Function, program: Program, arena: str) -> None:
        super().__init__()
        self._make = partial(base_pointer, fn, constants=program.constants, arena=arena)

    def __missing__(self, buffer: Buffer) -> str:
        pointer = self[buffer] = self._make(buffer)
        return pointer


def base_pointer(fn: Function, buffer: Buffer, constants: Sequence[np.ndarray], arena: str) -> str:
    """Pointer to the first element of a buffer that lives outside of kernels."""
    if buffer.kind == "const":
        return f"inttoptr (i64 {constants[buffer.slot].ctypes.data} to ptr)"
    if buffer.kind == "arena":
        return fn.op(f"getelementptr i8, ptr {arena}, i64 {buffer.slot}")
    table = "%inputs" if buffer.kind == "input" else "%outputs"
    return fn.op(f"load ptr, ptr {fn.op(f'getelementptr ptr, ptr {table}, i64 {buffer.slot}')}")
