"""When are two kernels the same code?

Job: describe a kernel up to the names of its loops, values and buffers.
Input: a loop kernel.  Output: a hashable description.
Invariant: kernels with equal descriptions differ only in which buffers they are given, so one function serves
both.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from graphjit.ir.buffers import Buffer
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
    Multiply,
    Peek,
    Push,
    Repeat,
    Statement,
    Store,
)


def signature(kernel: LoopKernel) -> Hashable:
    """The description of ``kernel``; buffers are numbered in order of first use, as in `ir.buffers`."""
    return kernel.quick, _Signature().body(kernel.body)


class _Signature:
    """Numbers everything in order of appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def name(self, thing: Any) -> int:
        return self.numbers.setdefault(thing, len(self.numbers))

    def body(self, body: tuple[Statement, ...]) -> Hashable:
        return tuple(map(self.statement, body))

    def buffer(self, buffer: Buffer) -> Hashable:
        inside = buffer.kind if buffer.kind in ("local", "scratch") else ""
        return (
            self.name(buffer),
            buffer.dtype,
            buffer.size,
            inside,
        )  # code may depend on the size: whole records are read where they fit

    def address(self, address: Address) -> Hashable:
        return address.offset, tuple((self.name(axis), factor) for axis, factor in address.terms.items())

    def statement(self, statement: Statement) -> Hashable:
        if isinstance(statement, For):
            bound = statement.bound and (self.address(statement.bound.start), statement.bound.stop)
            head = (
                self.name(statement.axis),
                statement.extent,
                statement.kind,
                bound,
                statement.unroll,
                statement.nanoseconds,
                statement.lanes,
                statement.tail,
                statement.calls,
                tuple((self.buffer(buffer), self.address(address)) for buffer, address in statement.fetch),
            )
            when = None if statement.when is None else self.name(statement.when)
            return ("for", *head, when, self.body(statement.body))
        if isinstance(statement, Repeat | Choose | Push):
            return self.control(statement)
        if isinstance(statement, Let):
            return "let", self.name(statement.ref), statement.ref.dtype, self.expression(statement.value)
        if isinstance(statement, Init):
            return "init", self.name(statement.ref), statement.ref.dtype, statement.combine, statement.running
        if isinstance(statement, Accumulate):
            factor = None if statement.factor is None else self.name(statement.factor)
            return (
                "accumulate",
                self.name(statement.ref),
                statement.combine,
                self.name(statement.value),
                factor,
            )
        if isinstance(statement, Check):
            return "check", self.name(statement.ok), statement.code
        if isinstance(statement, Multiply):
            bound = statement.bound and (self.address(statement.bound.start), statement.bound.stop)
            matrices = (statement.x, statement.y, statement.out)
            places = tuple(
                (self.buffer(m.buffer), self.address(m.address), m.row, m.column) for m in matrices
            )
            return "multiply", places, statement.shape, statement.adds, bound
        assert isinstance(statement, Store)
        dynamic = tuple((self.name(ref), factor) for ref, factor in statement.dynamic)
        return (
            "store",
            self.buffer(statement.buffer),
            self.address(statement.address),
            dynamic,
            self.name(statement.value),
            statement.combine,
            statement.streamed,
        )

    def control(self, statement: Repeat | Choose | Push) -> Hashable:
        """Statements that hand values on."""
        if isinstance(statement, Push):
            rows = [(w.ref, w.before, *w.values) for w in statement.writes]
            return "push", tuple((row[-1].dtype, tuple(map(self.name, row))) for row in rows)
        if isinstance(statement, Choose):
            which, branches = self.name(statement.which), tuple(map(self.body, statement.branches))
            results = [(self.name(ref), tuple(map(self.name, values))) for ref, values in statement.results]
            return "choose", which, branches, tuple(results)
        carried = tuple(tuple(map(self.name, (c.start, c.ref))) for c in statement.carried)
        blocks = (self.body(statement.test), self.body(statement.body))
        holds = None if statement.holds is None else self.name(statement.holds)
        lefts = tuple(self.name(c.after) for c in statement.carried)
        head = self.name(statement.axis), statement.extent, statement.lends
        return "repeat", head, carried, blocks, holds, lefts

    def expression(self, value: Any) -> Hashable:
        if isinstance(value, Const):
            return "const", value.value.dtype, value.value.tobytes()
        if isinstance(value, Peek):
            return "peek", self.name(value.tape), value.at
        if isinstance(value, Index):
            return "index", self.address(value.value)
        if isinstance(value, Load):
            dynamic = tuple((self.name(ref), factor) for ref, factor in value.dynamic)
            guard = None if value.guard is None else self.name(value.guard)
            return "load", self.buffer(value.buffer), self.address(value.address), dynamic, guard
        return value.op, tuple(map(self.name, value.args)), value.check
