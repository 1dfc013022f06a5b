"""The scalar operations of the loop IR (``add``, ``floor_divide``, ``sin``) as LLVM instructions.

Job: spell one operation, for one lane or many: one method per group of operations.  Elementary functions come
from `graphjit.backend.llvm.math`.
Input: the operation's name, its types, operand names of one LLVM type.  Output: the result's name.
Invariants: no fast-math flags, no contraction; integer division never traps; bool is i1 in registers and i8
in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from graphjit.backend.llvm import math
from graphjit.backend.llvm.kernels import quotients
from graphjit.backend.llvm.writing.text import Function, Module
from graphjit.errors import IRError
from graphjit.ir.scalars import SCALARS, is_function
from graphjit.machine import machine

COMPARE = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
ROUNDING = {
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "rint": "roundeven",
    "sqrt": "sqrt",
    "abs": "fabs",
}
EXTREMA = {"maximum": "max", "fmax": "max", "minimum": "min", "fmin": "min"}
"""Intrinsics of integers, without the letter for signed or unsigned."""
LOGICAL = {"add": "or", "mul": "and", "maximum": "or", "minimum": "and", "fmax": "or", "fmin": "and"}
"""What operations on numbers mean for bool."""


def kind(dtype: np.dtype) -> str:
    """LLVM type of one element in a register."""
    if dtype.kind == "f":
        return "double" if dtype.itemsize == 8 else "float"
    return "i1" if dtype.kind == "b" else f"i{8 * dtype.itemsize}"


def stored(dtype: np.dtype) -> str:
    """LLVM type of one element in memory."""
    return "i8" if dtype.kind == "b" else kind(dtype)


def vector(element: str, lanes: int) -> str:
    """``<lanes x element>``, or the element itself for one lane."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def literal(value: np.generic) -> str:
    """A number as LLVM prints it: bits, not decimals."""
    if value.dtype.kind == "f":
        return f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"
    if value.dtype.kind == "b":
        return "true" if value else "false"
    return str(int(value))


def constant(value: np.generic, lanes: int) -> str:
    """A literal in every lane."""
    text = literal(value)
    return text if lanes == 1 else f"splat ({kind(value.dtype)} {text})"


def mangled(element: str, lanes: int) -> str:
    """Type suffix of an overloaded intrinsic."""
    name = {"double": "f64", "float": "f32"}.get(element, element)
    return name if lanes == 1 else f"v{lanes}{name}"


def intrinsic(fn: Function, name: str, element: str, lanes: int, args: Sequence[str], extra: str = "") -> str:
    """Call an LLVM intrinsic whose arguments and result have one type."""
    of = vector(element, lanes)
    symbol = f"llvm.{name}.{mangled(element, lanes)}"
    tail = ", i1" if extra else ""
    fn.module.declare(symbol, f"declare {of} @{symbol}({', '.join([of] * len(args))}{tail})")
    return fn.op(
        f"call {of} @{symbol}({', '.join(f'{of} {a}' for a in args)}{', i1 ' + extra if extra else ''})"
    )


def converts_words() -> bool:
    """Whether vectors of 64-bit integers become float64 in one instruction. x86 before AVX-512 takes them
    one by one.
    """
    return not machine().has("sse2") or machine().has("avx512dq")


class Scalars:
    """Prints scalar operations into a function; ``fail(bad, lanes, code)`` reports lanes that went wrong."""

    def __init__(self, fn: Function, calls: bool) -> None:
        self.fn = fn
        self.calls = calls  # outside loops elementary functions are calls: code size, not speed, counts
        self.awaited = False  # in steps that hand values on: how long an operation takes counts

    def apply(self, op: str, dtype: np.dtype, operand: np.dtype, lanes: int, args: Sequence[str]) -> str:
        """``op`` on operands of dtype ``operand`` (the last one's) giving ``dtype``."""
        fn = self.fn
        element = kind(operand)
        of = vector(element, lanes)
        if is_function(op) and operand.kind == "f":
            short = "f64" if operand.itemsize == 8 else "f32"
            return math.emit(fn, SCALARS[op].symbol, lanes, short, args, not self.calls)
        if op == "copy":
            return args[0]
        if op == "select":
            choose = vector("i1", lanes)
            return fn.op(f"select {choose} {args[0]}, {of} {args[1]}, {of} {args[2]}")
        if op in COMPARE:
            return self.compare(op, operand, lanes, args)
        if op == "convert":
            return self.convert(operand, dtype, lanes, args[0])
        if operand.kind == "f":
            return self.floating(op, element, lanes, args)
        return self.integer(op, operand, lanes, args)

    def together(self, op: str, operand: np.dtype, lanes: int, columns: Sequence[Sequence[str]]) -> list[str]:
        """An elementary function of several vectors in one call; ``columns``: for each argument the
        vectors.
        """
        return math.emit_together(
            self.fn, SCALARS[op].symbol, lanes, "f64" if operand.itemsize == 8 else "f32", columns
        )

    def compare(self, op: str, dtype: np.dtype, lanes: int, args: Sequence[str]) -> str:
        """Ordered comparison; ``ne`` is true for NaN."""
        of = vector(kind(dtype), lanes)
        if dtype.kind == "f":
            return self.fn.op(f"fcmp {'une' if op == 'ne' else 'o' + op} {of} {args[0]}, {args[1]}")
        sign = "" if op in ("eq", "ne") else "s" if dtype.kind == "i" else "u"
        return self.fn.op(f"icmp {sign}{op} {of} {args[0]}, {args[1]}")

    def convert(self, source: np.dtype, target: np.dtype, lanes: int, x: str) -> str:
        """astype."""
        fn = self.fn
        of, to = vector(kind(source), lanes), vector(kind(target), lanes)
        if source == target:
            return x
        if target.kind == "b":
            zero = constant(source.type(0), lanes)
            return fn.op(f"{'fcmp une' if source.kind == 'f' else 'icmp ne'} {of} {x}, {zero}")
        if source.kind == "f" and target.kind == "f":
            return fn.op(f"{'fpext' if target.itemsize > source.itemsize else 'fptrunc'} {of} {x} to {to}")
        if source.kind == "f":
            return self.to_integer(source, target, lanes, x)
        if target.kind == "f":
            return self.to_floating(source, target, lanes, x)
        if source.kind != "b" and target.itemsize == source.itemsize:
            return x
        if source.kind == "b" or target.itemsize > source.itemsize:
            return fn.op(f"{'sext' if source.kind == 'i' else 'zext'} {of} {x} to {to}")
        return fn.op(f"trunc {of} {x} to {to}")

    def to_floating(self, source: np.dtype, target: np.dtype, lanes: int, x: str) -> str:
        """astype of integers and bools."""
        if target.itemsize == source.itemsize == 8 and lanes > 1 and not converts_words():
            return self.words_to_doubles(source, lanes, x)
        of, to = vector(kind(source), lanes), vector(kind(target), lanes)
        return self.fn.op(f"{'sitofp' if source.kind == 'i' else 'uitofp'} {of} {x} to {to}")

    def words_to_doubles(self, source: np.dtype, lanes: int, x: str) -> str:
        """Integers of 64 bits as float64, by their halves: put into the mantissas of 2**52 and of 2**84, they
        are numbers already, and only the last sum rounds. The sign moves the upper half by 2**31.
        """
        fn = self.fn
        bits, of = vector("i64", lanes), vector("double", lanes)
        signed = source.kind == "i"
        put, raised = ("xor", 2.0**84 + 2.0**63 + 2.0**52) if signed else ("or", 2.0**84 + 2.0**52)
        word = lambda number: constant(np.int64(number), lanes)
        low = fn.op(f"or {bits} {fn.op(f'and {bits} {x}, {word(2**32 - 1)}')}, {word(0x433 << 52)}")
        upper = fn.op(f"lshr {bits} {x}, {word(32)}")
        high = fn.op(f"{put} {bits} {upper}, {word((0x453 << 52) + (signed << 31))}")
        low, high = (fn.op(f"bitcast {bits} {half} to {of}") for half in (low, high))
        upper = fn.op(f"fsub {of} {high}, {constant(np.float64(raised), lanes)}")
        return fn.op(f"fadd {of} {upper}, {low}")

    def to_integer(self, source: np.dtype, target: np.dtype, lanes: int, x: str) -> str:
        """astype of floating-point numbers. What does not fit becomes what NumPy's C code gives on x86: the
        least number of the integer that the instruction makes (64 bits for int64 and 32-bit unsigned, 32 bits
        for the shorter ones), cut to the target.
        """
        fn = self.fn
        of, wide = (
            vector(kind(source), lanes),
            vector("i64" if target.itemsize == 8 or target == np.dtype(np.uint32) else "i32", lanes),
        )
        whole = fn.op(f"fptosi {of} {x} to {wide}")
        if target == np.dtype(
            np.uint64
        ):  # from 2**63 on the top bit apart from the rest; negative numbers wrap
            half = constant(source.type(2.0**63), lanes)
            rest = fn.op(f"fptosi {of} {fn.op(f'fsub {of} {x}, {half}')} to {wide}")
            large = fn.op(f"xor {wide} {rest}, {constant(np.int64(-(2**63)), lanes)}")
            return fn.op(
                f"select {vector('i1', lanes)} {fn.op(f'fcmp oge {of} {x}, {half}')}, {wide} {large}, {wide} {whole}"
            )
        to = vector(kind(target), lanes)
        return whole if to == wide else fn.op(f"trunc {wide} {whole} to {to}")

    def floating(self, op: str, element: str, lanes: int, args: Sequence[str]) -> str:
        """Floating-point operations that are instructions or intrinsics."""
        fn = self.fn
        of = vector(element, lanes)
        instruction = {"add": "fadd", "sub": "fsub", "mul": "fmul"}.get(op)
        if op == "div":
            return self.quotient(of, args)
        if instruction:
            return fn.op(f"{instruction} {of} {args[0]}, {args[1]}")
        if op == "neg":
            return fn.op(f"fneg {of} {args[0]}")
        if op in ROUNDING:
            return intrinsic(fn, ROUNDING[op], element, lanes, args)
        if op == "copysign":
            return intrinsic(fn, "copysign", element, lanes, args)
        if op in ("fmax", "fmin"):
            return intrinsic(fn, "maxnum" if op == "fmax" else "minnum", element, lanes, args)
        if op in ("maximum", "minimum"):
            return self.extremum("ogt" if op == "maximum" else "olt", of, lanes, args)
        if op == "isnan":
            return fn.op(f"fcmp uno {of} {args[0]}, {args[0]}")
        if op == "signbit":
            bits = vector("i64" if element == "double" else "i32", lanes)
            raw = fn.op(f"bitcast {of} {args[0]} to {bits}")
            return fn.op(
                f"icmp slt {bits} {raw}, zeroinitializer" if lanes > 1 else f"icmp slt {bits} {raw}, 0"
            )
        raise IRError(f"no floating-point operation {op}")

    def quotient(self, of: str, args: Sequence[str]) -> str:
        """A division; by a product where steps wait for it and the product is the same number."""
        found = quotients.divide(self.fn, *args) if self.awaited and of == "double" else None
        return self.fn.op(f"fdiv {of} {args[0]}, {args[1]}") if found is None else found

    def extremum(self, predicate: str, of: str, lanes: int, args: Sequence[str]) -> str:
        """NaN of either side wins; else the one that the predicate prefers."""
        fn = self.fn
        x, y = args
        choose = vector("i1", lanes)
        wins = fn.op(f"fcmp {predicate} {of} {x}, {y}")
        nan = fn.op(f"fcmp uno {of} {x}, {x}")
        return fn.op(f"select {choose} {fn.op(f'or {choose} {wins}, {nan}')}, {of} {x}, {of} {y}")

    def integer(self, op: str, dtype: np.dtype, lanes: int, args: Sequence[str]) -> str:
        """Integer and bool operations."""
        fn, element = self.fn, kind(dtype)
        of = vector(element, lanes)
        if dtype.kind == "b":
            op = LOGICAL.get(op, op)
        if op in ("add", "sub", "mul", "and", "or", "xor"):
            return fn.op(f"{op} {of} {args[0]}, {args[1]}")
        if op in ("floor", "ceil", "trunc", "rint") or (op == "abs" and dtype.kind in "ub"):
            return args[0]
        if op == "not":
            ones = "true" if dtype.kind == "b" else "-1"
            return fn.op(f"xor {of} {args[0]}, {ones if lanes == 1 else f'splat ({element} {ones})'}")
        if op == "neg":
            return fn.op(f"sub {of} {constant(dtype.type(0), lanes)}, {args[0]}")
        if op == "abs":
            return intrinsic(fn, "abs", element, lanes, args, extra="false")
        if op in EXTREMA:
            return intrinsic(fn, ("s" if dtype.kind == "i" else "u") + EXTREMA[op], element, lanes, args)
        if op in ("shl", "shr"):
            return self.shift(op, dtype, lanes, args)
        if op in ("floor_divide", "remainder", "fmod"):
            return self.divide(op, dtype, lanes, args)
        if op == "pow":
            return self.power(dtype, lanes, args)
        raise IRError(f"no integer operation {op} on {dtype}")

    def shift(self, op: str, dtype: np.dtype, lanes: int, args: Sequence[str]) -> str:
        """Shifts by the width or more give 0 (or the sign), as in NumPy."""
        fn = self.fn
        of, choose = vector(kind(dtype), lanes), vector("i1", lanes)
        last = constant(dtype.type(8 * dtype.itemsize - 1), lanes)
        inside = fn.op(f"icmp ule {of} {args[1]}, {last}")
        count = fn.op(f"select {choose} {inside}, {of} {args[1]}, {of} {last}")
        if op == "shr" and dtype.kind == "i":
            return fn.op(f"ashr {of} {args[0]}, {count}")
        moved = fn.op(f"{'shl' if op == 'shl' else 'lshr'} {of} {args[0]}, {count}")
        return fn.op(f"select {choose} {inside}, {of} {moved}, {of} {constant(dtype.type(0), lanes)}")

    def divide(self, op: str, dtype: np.dtype, lanes: int, args: Sequence[str]) -> str:
        """Floor division, modulo of the divisor's sign, C remainder; a zero divisor and min/-1 are replaced
        before the instruction.
        """
        fn = self.fn
        x, y = args
        of, choose = vector(kind(dtype), lanes), vector("i1", lanes)
        zero, one = constant(dtype.type(0), lanes), constant(dtype.type(1), lanes)
        unsafe = fn.op(f"icmp eq {of} {y}, {zero}")
        negative = ""
        if dtype.kind == "i":
            minus = constant(dtype.type(-1), lanes)
            negative = fn.op(f"icmp eq {of} {y}, {minus}")
            unsafe = fn.op(f"or {choose} {unsafe}, {negative}")
        divisor = fn.op(f"select {choose} {unsafe}, {of} {one}, {of} {y}")
        if dtype.kind == "u":
            return fn.op(f"{'udiv' if op == 'floor_divide' else 'urem'} {of} {x}, {divisor}")
        rest = fn.op(f"srem {of} {x}, {divisor}")
        if op == "fmod":
            return rest
        mixed = fn.op(f"icmp slt {of} {fn.op(f'xor {of} {rest}, {divisor}')}, {zero}")
        off = fn.op(f"and {choose} {mixed}, {fn.op(f'icmp ne {of} {rest}, {zero}')}")
        if op == "remainder":
            return fn.op(f"select {choose} {off}, {of} {fn.op(f'add {of} {rest}, {divisor}')}, {of} {rest}")
        quotient = fn.op(f"sdiv {of} {x}, {divisor}")
        quotient = fn.op(
            f"select {choose} {off}, {of} {fn.op(f'sub {of} {quotient}, {one}')}, {of} {quotient}"
        )
        flipped = fn.op(f"sub {of} {zero}, {x}")
        return fn.op(f"select {choose} {negative}, {of} {flipped}, {of} {quotient}")

    def power(self, dtype: np.dtype, lanes: int, args: Sequence[str]) -> str:
        """Integer power by squaring, lane by lane."""
        fn = self.fn
        element = kind(dtype)
        name = f"gj_pow_{element}"
        fn.module.ensure(name, lambda module: _integer_power(module, name, element))
        if lanes == 1:
            return fn.op(f"call {element} @{name}({element} {args[0]}, {element} {args[1]})")
        of = vector(element, lanes)
        result = "poison"
        for i in range(lanes):
            x, y = (fn.op(f"extractelement {of} {a}, i32 {i}") for a in args)
            one = fn.op(f"call {element} @{name}({element} {x}, {element} {y})")
            result = fn.op(f"insertelement {of} {result}, {element} {one}, i32 {i}")
        return result

    def failing(self, op: str, dtype: np.dtype, lanes: int, args: Sequence[str]) -> str:
        """The condition under which a checked integer operation reports an error."""
        of = vector(kind(dtype), lanes)
        zero = constant(dtype.type(0), lanes)
        if op == "pow":
            return self.fn.op(f"icmp slt {of} {args[1]}, {zero}") if dtype.kind == "i" else ""
        return self.fn.op(f"icmp eq {of} {args[1]}, {zero}")

    def combine(self, combine: str, dtype: np.dtype, lanes: int, x: str, y: str) -> str:
        """One step of an accumulation."""
        name = {"max": "maximum", "min": "minimum"}.get(combine, combine)
        return self.apply(name, dtype, dtype, lanes, (x, y))

    def horizontal(self, combine: str, dtype: np.dtype, lanes: int, x: str) -> str:
        """All lanes of ``x`` combined in a fixed tree."""
        fn = self.fn
        element = kind(dtype)
        width = lanes
        while width > 1:
            half = width // 2
            of = vector(element, width)
            low = ", ".join(f"i32 {i}" for i in range(half))
            high = ", ".join(f"i32 {i}" for i in range(half, width))
            if half == 1:
                left = fn.op(f"extractelement {of} {x}, i32 0")
                right = fn.op(f"extractelement {of} {x}, i32 1")
            else:
                left = fn.op(f"shufflevector {of} {x}, {of} poison, <{half} x i32> <{low}>")
                right = fn.op(f"shufflevector {of} {x}, {of} poison, <{half} x i32> <{high}>")
            x = self.combine(combine, dtype, half, left, right)
            width = half
        return x


def _integer_power(module: Module, name: str, element: str) -> str:
    fn = Function(module, name, element, [(element, "%x"), (element, "%n")])
    start = fn.current
    fn.do("br label %loop")
    fn.start("loop")
    base, left, result = fn.phi(element), fn.phi(element), fn.phi(element)
    odd = fn.op(f"trunc {element} {left.name} to i1")
    times = fn.op(f"mul {element} {result.name}, {base.name}")
    product = fn.op(f"select i1 {odd}, {element} {times}, {element} {result.name}")
    squared = fn.op(f"mul {element} {base.name}, {base.name}")
    rest = fn.op(f"lshr {element} {left.name}, 1")
    done = fn.op(f"icmp eq {element} {rest}, 0")
    for phi, first, again in ((base, "%x", squared), (left, "%n", rest), (result, "1", product)):
        phi.add(first, start)
        phi.add(again, "loop")
    fn.do(f"br i1 {done}, label %exit, label %loop")
    fn.start("exit")
    fn.do(f"ret {element} {product}")
    return fn.render()
