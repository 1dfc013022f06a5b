"""Loops, branches and integer arithmetic for the drivers of matrix products.

A `Writer` writes instructions into a `text.Function` and hands out the names of their results. Values that
change in a loop are phis, never stack slots, since no optimisation runs afterwards. Code with variables,
structs and calls of CPython is written with `native.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphjit.backend.llvm.writing.text import Function, Module

Value = str | int

DRIVER = "nounwind optnone noinline"
"""Attributes of functions that decide and call: not optimised, since that takes a third of the time to
compile and costs nanoseconds per call.
"""
HOT = 'nounwind "prefer-vector-width"="512"'
"""Attributes of functions with the inner loops."""


class Writer:
    """One library function under construction; integers are i64, strides are in bytes unless said
    otherwise.
    """

    def __init__(
        self,
        module: Module,
        name: str,
        parameters: Sequence[tuple[str, str]],
        result: str = "void",
        attributes: str = DRIVER,
    ) -> None:
        self.module = module
        self.fn = Function(
            module, name, result, [(kind, f"%{label}") for kind, label in parameters], attributes
        )
        self.fn.driver = attributes == DRIVER
        self.op = self.fn.op
        self.do = self.fn.do

    @classmethod
    def within(cls, fn: Function) -> Writer:
        """A writer that goes on with a function begun elsewhere."""
        writer = cls.__new__(cls)
        writer.module, writer.fn, writer.op, writer.do = fn.module, fn, fn.op, fn.do
        return writer

    def finish(self, value: str = "void") -> None:
        """Return and hand the function to the module."""
        self.do(f"ret {value}")
        self.module.add_function(self.fn)

    def add(self, a: Value, b: Value) -> str:
        return self.op(f"add i64 {a}, {b}")

    def sub(self, a: Value, b: Value) -> str:
        return self.op(f"sub i64 {a}, {b}")

    def mul(self, a: Value, b: Value) -> str:
        return self.op(f"mul i64 {a}, {b}")

    def div(self, a: Value, b: Value) -> str:
        """Quotient of two non-negative numbers, rounded down."""
        return self.op(f"udiv i64 {a}, {b}")

    def ceildiv(self, a: Value, b: Value) -> str:
        """Quotient of two non-negative numbers, rounded up."""
        return self.div(self.add(a, self.sub(b, 1)) if isinstance(b, str) else self.add(a, b - 1), b)

    def rem(self, a: Value, b: Value) -> str:
        return self.op(f"urem i64 {a}, {b}")

    def min(self, a: Value, b: Value) -> str:
        return self.select(self.test("slt", a, b), a, b)

    def max(self, a: Value, b: Value) -> str:
        return self.select(self.test("sgt", a, b), a, b)

    def test(self, relation: str, a: Value, b: Value) -> str:
        return self.op(f"icmp {relation} i64 {a}, {b}")

    def both(self, *conditions: str) -> str:
        return self._combine("and", conditions)

    def either(self, *conditions: str) -> str:
        return self._combine("or", conditions)

    def _combine(self, how: str, conditions: Sequence[str]) -> str:
        result = conditions[0]
        for condition in conditions[1:]:
            result = self.op(f"{how} i1 {result}, {condition}")
        return result

    def select(self, condition: str, a: Value, b: Value, kind: str = "i64") -> str:
        return self.op(f"select i1 {condition}, {kind} {a}, {kind} {b}")

    def at(self, pointer: str, offset: Value) -> str:
        """``pointer`` moved by a number of bytes."""
        return pointer if offset == 0 else self.op(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    def load(self, kind: str, pointer: str, align: int = 8) -> str:
        return self.op(f"load {kind}, ptr {pointer}, align {align}")

    def store(self, kind: str, value: Value, pointer: str, align: int = 8) -> None:
        self.do(f"store {kind} {value}, ptr {pointer}, align {align}")

    def call(self, name: str, arguments: Sequence[str], result: str = "void") -> str:
        """Call a function; ``arguments`` are typed (``i64 %n``)."""
        text = f"call {result} @{name}({', '.join(arguments)})"
        if result != "void":
            return self.op(text)
        self.do(text)
        return ""

    @contextmanager
    def loop(self, start: Value, stop: Value, step: Value = 1) -> Iterator[str]:
        """``for (i = start; i < stop; i += step)``: yields i; no iteration when start >= stop."""
        fn = self.fn
        head, body, done = fn.label("head"), fn.label("body"), fn.label("done")
        before = fn.current
        self.do(f"br label %{head}")
        fn.start(head)
        index = fn.phi("i64")
        index.add(str(start), before)
        self.do(f"br i1 {self.test('slt', index.name, stop)}, label %{body}, label %{done}")
        fn.start(body)
        yield index.name
        index.add(self.add(index.name, step), fn.current)
        self.do(f"br label %{head}")
        fn.start(done)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """``if (condition) { ... }``"""
        fn = self.fn
        then, after = fn.label("then"), fn.label("after")
        self.do(f"br i1 {condition}, label %{then}, label %{after}")
        fn.start(then)
        yield
        self.do(f"br label %{after}")
        fn.start(after)

    @contextmanager
    def exit_when(self, condition: str, value: str = "void") -> Iterator[None]:
        """``if (condition) { ...; return value; }``"""
        fn = self.fn
        then, after = fn.label("then"), fn.label("after")
        self.do(f"br i1 {condition}, label %{then}, label %{after}")
        fn.start(then)
        yield
        self.do(f"ret {value}")
        fn.start(after)
