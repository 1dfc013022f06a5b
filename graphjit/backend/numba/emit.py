"""Print a program as Python source.

Job: one function per kernel over flat NumPy arrays, one function that runs them in order.
Input: a `Program` and its loop kernels.  Output: the text of a module.
Invariants: the text runs as it is under CPython and, function by function, under
``numba.njit(error_model="numpy")``; parallel and simd loops are plain loops, so sums are those of the loop IR
read line by line; but a long sum in lanes, which has partial sums in its lanes, is as good here because what
its additions round away is added at its end.

    def k0(in0, out0, status):
        t1 = np.float64(2.0)
        for i0 in range(12):  # simd
            t0 = in0[i0]
            t2 = t0 * t1
            out0[i0] = t2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphjit.backend.numba import scalar
from graphjit.ir.buffers import TAPES, Buffer
from graphjit.ir.scalars import identity
from graphjit.ir.types import I64
from graphjit.loops import ir
from graphjit.loops.elements import as_loops
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Check,
    Choose,
    Const,
    For,
    Index,
    Init,
    Let,
    Load,
    LoopKernel,
    Peek,
    Positions,
    Push,
    Ref,
    Repeat,
    Statement,
    Write,
)
from graphjit.schedule.access import storage
from graphjit.schedule.program import Control, Product, Program

INDENT = "    "
LONG = 128
"""Terms from which a sum of floating-point numbers in lanes keeps what it rounds away."""


def parameters(program: Program) -> list[Buffer]:
    """Buffers that the printed ``program`` takes, in order: inputs, constants, outputs."""
    rank = {"input": 0, "const": 1, "output": 2}
    found = {buffer for buffer in program.buffers.values() if buffer.kind in rank}
    return sorted(found, key=lambda buffer: (rank[buffer.kind], buffer.slot))


def print_program(program: Program, kernels: Mapping[str, LoopKernel]) -> str:
    """The module of ``program``; ``kernels`` by step name.

    Its function ``program`` takes a flat array for each of `parameters`, the arena (uint8) and the status
    (one int64).
    """
    printer = _Program(kernels)
    body = printer.steps(program)
    names = [*(buffer.name for buffer in parameters(program)), "arena", "status"]
    driver = "\n".join([f"def program({', '.join(names)}):", *(INDENT + line for line in body)])
    header = ["import numpy as np"]
    tapes = printer.imports & {"push_tape", "peek_tape"}
    printer.controls |= tapes
    printer.imports -= tapes
    if printer.controls:
        header += ["", f"from graphjit.backend.numba.control import {', '.join(sorted(printer.controls))}"]
    if printer.imports:
        header += ["", f"from graphjit.backend.numba.runtime import {', '.join(sorted(printer.imports))}"]
    return "\n".join(header) + "\n\n\n" + "\n\n\n".join([*printer.functions, driver]) + "\n"


class _Program:
    """Prints the kernels of a program and of the programs inside it, and the drivers of the latter."""

    def __init__(self, kernels: Mapping[str, LoopKernel]) -> None:
        self.kernels = kernels
        self.imports: set[str] = set()
        self.controls: set[str] = set()
        self.functions: list[str] = []

    def steps(self, program: Program) -> list[str]:
        """The lines that run the steps in order."""
        calls: list[str] = []
        used: dict[Buffer, None] = {}
        for step in program.steps:
            if isinstance(step, Product):
                self.imports |= {"product", "in_runs"} if step.in_runs else {"product"}
                calls += _product(program, step, used)
            elif isinstance(step, Control) and not step.in_registers:
                calls.append(self.control(program, step, used))
            elif self.kernels[step.name].body:
                printer = _Kernel(as_loops(self.kernels[step.name]), self.imports)
                self.functions.append(printer.text())
                used.update(dict.fromkeys(printer.parameters))
                names = [*(buffer.name for buffer in printer.parameters), "status"]
                calls.append(f"{step.name}({', '.join(names)})")
        views = [
            f"{b.name} = arena[{b.slot}:{b.slot + b.nbytes}].view(np.{scalar.numpy_name(b.dtype)})"
            for b in used
            if b.kind == "arena"
        ]
        return [*views, *calls] or ["pass"]

    def control(self, program: Program, step: Control, used: dict[Buffer, None]) -> str:
        """The call that runs a loop or a choice; its programs become functions."""
        runs = [self.inside(f"run_{step.name}_{role}", one) for role, one in step.inner.items()]
        args = [program.buffers[storage(arg)] for arg in step.node.args]
        results = [None if item is None else program.buffers[item] for item in step.results]
        used.update(dict.fromkeys([*args, *(buffer for buffer in results if buffer is not None)]))
        places = [
            f"np.empty({type.size}, np.{scalar.numpy_name(type.dtype)})" if buffer is None else buffer.name
            for buffer, type in zip(results, step.node.parts, strict=True)
        ]
        lists = f"[{', '.join(buffer.name for buffer in args)}], [{', '.join(places)}], status"
        attrs = step.node.attrs
        name = {"while": "while_loop"}.get(step.node.op.name, step.node.op.name)
        self.controls.add(name)
        staying = tuple(sorted(step.staying))
        if name == "cond":
            return f"cond([{', '.join(runs)}], {lists})"
        if name == "scan":
            numbers = tuple(attrs[key] for key in ("carried", "sliced", "length", "reverse"))
            return f"scan({runs[0]}, {lists}, {numbers}, {staying})"
        carried: Any = attrs["carried"]
        parts = step.node.parts[carried:]
        records = [
            f"({part.record.size}, np.{scalar.numpy_name(part.record.dtype)})"
            for part in parts
            if part.record
        ]
        counts = [str(attrs[key]) for key in ("carried", "tapes") if key in attrs]
        return f"{name}({', '.join(runs)}, {lists}, {', '.join(counts)}, [{', '.join(records)}], {staying})"

    def inside(self, name: str, program: Program) -> str:
        """Print the driver of a program inside; its name."""
        body = self.steps(program)
        tables = {"input": "inputs", "output": "outputs"}
        places = [
            f"{b.name} = {tables[b.kind]}[{b.slot}]"
            if b.kind in tables
            else f"{b.name} = np.frombuffer({program.constants[b.slot].tobytes()!r}, np.{scalar.numpy_name(b.dtype)})"
            for b in parameters(program)
        ]
        lines = [*places, f"arena = np.empty({program.arena}, np.uint8)", *body]
        self.functions.append(
            "\n".join([f"def {name}(inputs, outputs, status):", *(INDENT + s for s in lines)])
        )
        return name


def _product(program: Program, step: Product, used: dict[Buffer, None]) -> list[str]:
    """The call of the matrix product, in a loop over the batch."""
    x, y = step.node.args
    buffers = [program.buffers[storage(node)] for node in (x, y, step.node)]
    used.update(dict.fromkeys(buffers))
    (x_row, x_column), (y_row, y_column) = step.lhs, step.rhs
    names = [buffer.name for buffer in buffers]
    if step.batch > 1:
        names = [
            f"{name}[batch * {stride} :]" for name, stride in zip(names, step.batch_strides, strict=True)
        ]
    if step.in_runs:
        levels = (*step.rows, *step.terms)
        lengths = tuple(length for length, _ in levels)
        apart = tuple(stride * step.node.dtype.itemsize for _, stride in levels)
        left = f"in_runs({names[0]}, {lengths}, {apart})"
        x_row, x_column = step.k, 1
    else:
        left = names[0]
    call = f"product({left}, {x_row}, {x_column}, {names[1]}, {y_row}, {y_column}, {names[2]}, {step.m}, {step.n}, {step.k})"
    return [call] if step.batch == 1 else [f"for batch in range({step.batch}):", INDENT + call]


class _Kernel:
    """Prints one kernel; adds the runtime functions that it calls to ``imports``."""

    def __init__(self, kernel: LoopKernel, imports: set[str]) -> None:
        self.kernel = kernel
        self.imports = imports
        self.parameters = [buffer for buffer in ir.parameters(kernel) if buffer is not TAPES]
        self.kept: list[Ref] = []  # sums in the lanes of the loop that is open

    def text(self) -> str:
        """The function."""
        names = [*(buffer.name for buffer in self.parameters), "status"]
        lines = [f"def {self.kernel.name}({', '.join(names)}):"]
        if self.kernel.comment:
            lines[0] += f"  # {self.kernel.comment}"
        lines += [
            f"{INDENT}{b.name} = np.empty({b.size}, np.{scalar.numpy_name(b.dtype)})"
            for b in self.kernel.locals
        ]
        self.body(self.kernel.body, 1, lines)
        return "\n".join(lines)

    def body(self, statements: Sequence[Statement], depth: int, lines: list[str]) -> None:
        for statement in statements:
            if isinstance(statement, Repeat):
                self.repeat(statement, depth, lines)
                continue
            if isinstance(statement, Choose):
                self.choose(statement, depth, lines)
                continue
            if not isinstance(statement, For):
                lines += [INDENT * depth + line for line in self.statement(statement)]
                continue
            kept = _long_sums(statement)
            self.kept += kept
            lines += [f"{INDENT * depth}{ref!r}_lost = {scalar.literal(ref.dtype.type(0))}" for ref in kept]
            lines.append(INDENT * depth + _head(statement))
            self.body(statement.body, depth + 1, lines)
            lines += [
                f"{INDENT * depth}{ref!r} = {ref!r} + {ref!r}_lost if {ref!r}_lost == {ref!r}_lost else {ref!r}"
                for ref in kept
            ]
            self.kept = [ref for ref in self.kept if ref not in kept]

    def repeat(self, loop: Repeat, depth: int, lines: list[str]) -> None:
        """Steps that hand values on."""
        pad = INDENT * depth
        lines += [f"{pad}{c.ref!r} = {c.start!r}" for c in loop.carried]
        if loop.holds is None:
            lines.append(f"{pad}for {loop.axis!r} in range({loop.extent}):")
        else:
            lines += [f"{pad}{loop.axis!r} = -1", f"{pad}while True:", f"{pad}{INDENT}{loop.axis!r} += 1"]
            self.body(loop.test, depth + 1, lines)
            test = f"not {loop.holds!r} or status[0] != 0"
            lines += [f"{pad}{INDENT}if {test}:", f"{pad}{INDENT * 2}break"]
        self.body(loop.body, depth + 1, lines)
        if loop.carried:
            names, values = (
                [repr(ref) for ref in refs]
                for refs in zip(*((c.ref, c.after) for c in loop.carried), strict=True)
            )
            lines.append(f"{pad}{INDENT}{', '.join(names)} = {', '.join(values)}")

    def choose(self, statement: Choose, depth: int, lines: list[str]) -> None:
        """One of several branches."""
        pad, last = INDENT * depth, len(statement.branches) - 1
        for number, branch in enumerate(statement.branches):
            test = (
                f"if {statement.which!r} <= {number}:" if number < last else "else:" if last else "if True:"
            )
            lines.append(pad + ("el" if 0 < number < last else "") + test)
            self.body(branch, depth + 1, lines)
            lines += [f"{pad}{INDENT}{ref!r} = {values[number]!r}" for ref, values in statement.results]
            lines.append(f"{pad}{INDENT}pass")

    def statement(self, statement: Statement) -> list[str]:
        """Its lines."""
        if isinstance(statement, Let):
            return self.let(statement)
        if isinstance(statement, Init):
            return [
                f"{statement.ref!r} = {scalar.literal(identity(statement.combine, statement.ref.dtype, statement.running))}"
            ]
        if isinstance(statement, Accumulate):
            ref = statement.ref
            if statement.factor is not None:
                scaled = scalar.combine("mul", ref.dtype, repr(ref), repr(statement.factor))
                return [
                    f"{ref!r} = {scaled}",
                    f"{ref!r} = {scalar.combine('add', ref.dtype, repr(ref), repr(statement.value))}",
                ]
            if ref in self.kept:
                self.imports.add("two_sum")
                return [f"{ref!r}, {ref!r}_lost = two_sum({ref!r}, {ref!r}_lost, {statement.value!r})"]
            return [
                f"{ref!r} = {scalar.combine(statement.combine, ref.dtype, repr(ref), repr(statement.value))}"
            ]
        if isinstance(statement, Push):
            return [self.push(write) for write in statement.writes]
        if isinstance(statement, Check):
            return self.report(f"not {statement.ok!r}", statement.code)
        assert isinstance(statement, ir.Store), "matrix products are printed as loops"
        place = f"{statement.buffer.name}[{_place(statement.address, statement.dynamic)}]"
        value = repr(statement.value)
        if statement.combine:
            value = scalar.combine(statement.combine, statement.buffer.dtype, place, value)
        return [f"{place} = {value}"]

    def push(self, write: Write) -> str:
        """Write on a tape."""
        self.imports.add("push_tape")
        values = f"[{', '.join(map(repr, write.values))}], np.{scalar.numpy_name(write.values[0].dtype)}"
        return f"{write.ref!r} = push_tape({write.before!r}, np.array({values}))"

    def let(self, statement: Let) -> list[str]:
        ref, value = statement.ref, statement.value
        if isinstance(value, Const):
            return [f"{ref!r} = {scalar.literal(value.value)}"]
        if isinstance(value, Load):
            element = f"{value.buffer.name}[{_place(value.address, value.dynamic)}]"
            if value.guard is not None:
                element = f"{element} if {value.guard!r} else {scalar.literal(ref.dtype.type(1))}"
            return [f"{ref!r} = {element}"]
        if isinstance(value, Peek):
            self.imports.add("peek_tape")
            return [f"{ref!r} = peek_tape({value.tape!r}, {value.at})"]
        if isinstance(value, Index):
            return [f"{ref!r} = np.{I64.name}({value.value!r})"]
        source = value.args[-1].dtype
        names = [repr(arg) for arg in value.args]
        self.imports.update(scalar.functions_of(value.op, source))
        lines = [f"{ref!r} = {scalar.expression(value.op, ref.dtype, source, names)}"]
        condition = scalar.failing(value.op, source, names) if value.check else ""
        return [*self.report(condition, value.check), *lines] if condition else lines

    def report(self, condition: str, code: int) -> list[str]:
        self.imports.add("fail")
        return [f"if {condition}:", f"{INDENT}fail(status, {code})"]


def _long_sums(loop: For) -> list[Ref]:
    if loop.kind != "simd" or loop.extent <= LONG:
        return []
    stages = ir.running(loop)
    return [
        ref
        for ref, combine in ir.open_accumulators(loop).items()
        if combine == "add" and ref.dtype.kind == "f" and ref not in stages
    ]


def _head(loop: For) -> str:
    stop = str(loop.extent)
    if loop.bound is not None:
        stop = f"min({loop.extent}, {loop.bound.stop} - ({loop.bound.start!r}))"
    if loop.when is not None:
        stop = f"{stop} if {loop.when!r} else 0"
    note = f"  # {loop.kind}" if loop.kind in ("simd", "parallel") else ""
    return f"for {loop.axis!r} in range({stop}):{note}"


def _place(address: Address, dynamic: Positions) -> str:
    moved = [repr(ref) if factor == 1 else f"{factor}*{ref!r}" for ref, factor in dynamic]
    fixed = [repr(address)] if address.terms or address.offset or not moved else []
    return " + ".join([*fixed, *moved])
