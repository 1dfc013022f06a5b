"""Arithmetic in LLVM text: instructions on vectors (or single numbers) of one element type.

Job: spell instructions, so that code which computes reads like arithmetic: ``v.fma(x, y, v.mul(x, 0.5))``.
Input: SSA names, or Python numbers, which become literals in every lane.  Output: SSA names.
Invariants: no fast-math flags; an FMA only where ``fma`` is called; every method gives the same bits in every
lane, for every number of lanes and on every processor, so vector code, masked tails and scalar code agree
exactly.

``Vector(fn, "double", 8)`` works on ``<8 x double>``, ``Vector(fn, "double", 1)`` on ``double``; ``.bits`` is
the builder for integers of the same width, ``.mask`` the one for conditions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from graphjit.backend.llvm.writing.text import Function
from graphjit.machine import machine

Operand = str | float | int

SUFFIX = {"double": "f64", "float": "f32"}
WIDTH = {"double": 64, "float": 32, "i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128}
MANTISSA_BITS = {"double": 52, "float": 23}
EXPONENT_BIAS = {"double": 1023, "float": 127}
SMALLEST_NORMAL = {"double": 2.0**-1022, "float": 2.0**-126}
COLUMNS = 16
INF = float("inf")
NAN = float("nan")


def double_bits(value: float) -> int:
    """The 64 bits of a float64."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def float_bits(value: float) -> int:
    """The 32 bits of a float32."""
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def to_float32(value: float) -> float:
    """Round to float32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@dataclass(frozen=True)
class Table:
    """Rows of sixteen numbers, of which code picks one column: the size that one permutation instruction
    reads.
    """

    name: str
    rows: tuple[tuple[float, ...], ...]

    def define(self, v: Vector) -> str:
        """Put the table into the module of ``v`` in its precision, once; gives the pointer's name."""
        symbol = f"gj_table_{self.name}_{SUFFIX[v.element]}"
        one = v.like(v.element, 1)
        numbers = ", ".join(f"{one.of} {one.const(x)}" for row in self.rows for x in row)
        count = COLUMNS * len(self.rows)
        text = f"@{symbol} = private unnamed_addr constant [{count} x {one.of}] [{numbers}], align 64"
        v.fn.module.add_global(symbol, text)
        return f"@{symbol}"


class Vector:
    """Instructions on ``lanes`` elements of type ``element`` appended to ``fn``."""

    def __init__(self, fn: Function, element: str, lanes: int, avx512: bool | None = None) -> None:
        self.fn = fn
        self.element = element
        self.lanes = lanes
        self.floating = element in SUFFIX
        self.avx512 = machine().avx512 if avx512 is None else avx512
        self.of = element if lanes == 1 else f"<{lanes} x {element}>"
        suffix = SUFFIX.get(element, element)
        self.suffix = suffix if lanes == 1 else f"v{lanes}{suffix}"

    def like(self, element: str, lanes: int = 0) -> Vector:
        """A builder of another element type (and number of lanes) in the same function."""
        return Vector(self.fn, element, lanes or self.lanes, self.avx512)

    @cached_property
    def bits(self) -> Vector:
        """Integers of the same width."""
        return self.like(f"i{WIDTH[self.element]}")

    @cached_property
    def mask(self) -> Vector:
        """Conditions: one i1 a lane."""
        return self.like("i1")

    # ----------------------------------------------------------------------------------------------- operands

    def const(self, value: float | int) -> str:
        """A number in every lane; floating-point numbers are printed as bits."""
        if self.floating:
            rounded = to_float32(value) if self.element == "float" else float(value)
            text = f"0x{double_bits(rounded) & 0xFFFFFFFFFFFFFFFF:016X}"
        elif self.element == "i1":
            text = "true" if value else "false"
        else:
            text = str(int(value))
        return text if self.lanes == 1 else f"splat ({self.element} {text})"

    def name(self, x: Operand) -> str:
        """The text of an operand."""
        return x if isinstance(x, str) else self.const(x)

    def call(self, intrinsic: str, *args: Operand) -> str:
        """An LLVM intrinsic whose arguments and result have this type."""
        symbol = f"llvm.{intrinsic}.{self.suffix}"
        self.fn.module.declare(symbol, f"declare {self.of} @{symbol}({', '.join([self.of] * len(args))})")
        return self.fn.op(f"call {self.of} @{symbol}({', '.join(f'{self.of} {self.name(a)}' for a in args)})")

    def _binary(self, text: str, x: Operand, y: Operand) -> str:
        return self.fn.op(f"{text} {self.of} {self.name(x)}, {self.name(y)}")

    # --------------------------------------------------------------------------------------------- arithmetic

    def add(self, x: Operand, y: Operand) -> str:
        """x + y."""
        return self._binary("fadd" if self.floating else "add", x, y)

    def sub(self, x: Operand, y: Operand) -> str:
        """x - y."""
        return self._binary("fsub" if self.floating else "sub", x, y)

    def mul(self, x: Operand, y: Operand) -> str:
        """x * y."""
        return self._binary("fmul" if self.floating else "mul", x, y)

    def div(self, x: Operand, y: Operand) -> str:
        """x / y of floating-point numbers."""
        return self._binary("fdiv", x, y)

    def fma(self, x: Operand, y: Operand, z: Operand) -> str:
        """x * y + z, rounded once."""
        return self.call("fma", x, y, z)

    def neg(self, x: Operand) -> str:
        """-x."""
        return self.fn.op(f"fneg {self.of} {self.name(x)}") if self.floating else self.sub(0, x)

    def fnma(self, x: Operand, y: Operand, z: Operand) -> str:
        """z - x * y, rounded once; a number is negated in the literal."""
        if not isinstance(y, str):
            return self.fma(x, -y, z)
        return self.fma(self.neg(x), y, z)

    def abs(self, x: Operand) -> str:
        """|x| of floating-point numbers."""
        return self.call("fabs", x)

    def sqrt(self, x: Operand) -> str:
        """Square root, exactly rounded."""
        return self.call("sqrt", x)

    def rint(self, x: Operand) -> str:
        """The nearest integer, ties to even."""
        return self.call("roundeven", x)

    def floor(self, x: Operand) -> str:
        """The largest integer not above x."""
        return self.call("floor", x)

    def trunc(self, x: Operand) -> str:
        """The integer part."""
        return self.call("trunc", x)

    def copysign(self, size: Operand, sign: Operand) -> str:
        """|size| with the sign bit of ``sign``."""
        return self.call("copysign", size, sign)

    def min(self, bound: Operand, x: Operand) -> str:
        """The smaller one; x where either is NaN, so min(bound, NaN) is NaN.  One instruction on x86."""
        return self.select(self.lt(bound, x), bound, x)

    def max(self, bound: Operand, x: Operand) -> str:
        """The larger one; x where either is NaN, so max(bound, NaN) is NaN.  One instruction on x86."""
        return self.select(self.gt(bound, x), bound, x)

    def poly(self, x: str, coefficients: Sequence[float], square: str = "") -> str:
        """Sum of coefficients[k] * x**k by Horner's rule; with ``square`` = x * x two chains run side by
        side.
        """
        if square and len(coefficients) > 3:
            odd = self.poly(square, coefficients[1::2])
            return self.fma(odd, x, self.poly(square, coefficients[0::2]))
        result: Operand = coefficients[-1]
        for c in reversed(coefficients[:-1]):
            result = self.fma(result, x, c)
        return self.name(result)

    # ---------------------------------------------------------------------------------- comparison and choice

    def compare(self, predicate: str, x: Operand, y: Operand) -> str:
        """``fcmp`` or ``icmp`` with LLVM's predicate; gives a mask."""
        return self._binary(("fcmp " if self.floating else "icmp ") + predicate, x, y)

    def _ordered(self, predicate: str, x: Operand, y: Operand) -> str:
        return self.compare(("o" if self.floating else "s") + predicate, x, y)

    def lt(self, x: Operand, y: Operand) -> str:
        """x < y (signed; false for NaN)."""
        return self._ordered("lt", x, y)

    def le(self, x: Operand, y: Operand) -> str:
        """x <= y (signed; false for NaN)."""
        return self._ordered("le", x, y)

    def gt(self, x: Operand, y: Operand) -> str:
        """x > y (signed; false for NaN)."""
        return self._ordered("gt", x, y)

    def ge(self, x: Operand, y: Operand) -> str:
        """x >= y (signed; false for NaN)."""
        return self._ordered("ge", x, y)

    def eq(self, x: Operand, y: Operand) -> str:
        """x == y (false for NaN)."""
        return self.compare("oeq" if self.floating else "eq", x, y)

    def ne(self, x: Operand, y: Operand) -> str:
        """x != y (true for NaN)."""
        return self.compare("une" if self.floating else "ne", x, y)

    def select(self, condition: str, x: Operand, y: Operand) -> str:
        """x where the condition holds, y elsewhere."""
        return self.fn.op(
            f"select {self.mask.of} {condition}, {self.of} {self.name(x)}, {self.of} {self.name(y)}"
        )

    # ----------------------------------------------------------------------------------------- bits, integers

    def and_(self, x: Operand, y: Operand) -> str:
        """Bitwise and."""
        return self._binary("and", x, y)

    def or_(self, x: Operand, y: Operand) -> str:
        """Bitwise or."""
        return self._binary("or", x, y)

    def xor(self, x: Operand, y: Operand) -> str:
        """Bitwise exclusive or."""
        return self._binary("xor", x, y)

    def not_(self, x: Operand) -> str:
        """Bitwise complement."""
        return self._binary("xor", x, 1 if self.element == "i1" else -1)

    def shl(self, x: Operand, count: Operand) -> str:
        """Shift to the left."""
        return self._binary("shl", x, count)

    def lshr(self, x: Operand, count: Operand) -> str:
        """Shift to the right, zeros enter."""
        return self._binary("lshr", x, count)

    def ashr(self, x: Operand, count: Operand) -> str:
        """Shift to the right, the sign enters."""
        return self._binary("ashr", x, count)

    def to_bits(self, x: str) -> str:
        """Floating-point numbers as integers of the same width."""
        return self.fn.op(f"bitcast {self.of} {x} to {self.bits.of}")

    def from_bits(self, x: str) -> str:
        """Integers of the same width as floating-point numbers."""
        return self.fn.op(f"bitcast {self.bits.of} {x} to {self.of}")

    def convert(self, instruction: str, x: str, to: Vector) -> str:
        """LLVM's conversion ``instruction`` (fpext, fptrunc, sitofp, fptosi, zext, sext, trunc ...) to
        ``to``'s type.
        """
        return self.fn.op(f"{instruction} {self.of} {x} to {to.of}")

    # -------------------------------------------------------------------------------------------------- lanes

    def splat(self, x: str) -> str:
        """A scalar name in every lane."""
        if self.lanes == 1:
            return x
        first = self.fn.op(f"insertelement {self.of} poison, {self.element} {x}, i32 0")
        return self.fn.op(
            f"shufflevector {self.of} {first}, {self.of} poison, <{self.lanes} x i32> zeroinitializer"
        )

    def extract(self, x: str, lane: int) -> str:
        """One lane as a scalar."""
        return x if self.lanes == 1 else self.fn.op(f"extractelement {self.of} {x}, i32 {lane}")

    def insert(self, x: str, value: Operand, lane: int) -> str:
        """x with one lane replaced."""
        if self.lanes == 1:
            return self.name(value)
        scalar = value if isinstance(value, str) else self.like(self.element, 1).const(value)
        return self.fn.op(f"insertelement {self.of} {x}, {self.element} {scalar}, i32 {lane}")

    def slice(self, x: str, first: int, count: int) -> str:
        """Lanes first ... first + count - 1; lanes beyond the end are undefined."""
        if self.lanes == 1:
            wide = self.like(self.element, count)
            return wide.insert("poison", x, 0) if count > 1 else x
        if count == 1:
            return self.extract(x, first)
        chosen = ", ".join(
            f"i32 {i}" if i < self.lanes else "i32 poison" for i in range(first, first + count)
        )
        return self.fn.op(f"shufflevector {self.of} {x}, {self.of} poison, <{count} x i32> <{chosen}>")

    def join(self, low: str, high: str) -> str:
        """Twice as many lanes: those of ``low``, then those of ``high``."""
        count = 2 * self.lanes
        if self.lanes == 1:
            wide = self.like(self.element, 2)
            return wide.insert(wide.insert("poison", low, 0), high, 1)
        chosen = ", ".join(f"i32 {i}" for i in range(count))
        return self.fn.op(f"shufflevector {self.of} {low}, {self.of} {high}, <{count} x i32> <{chosen}>")

    def any(self, condition: str) -> str:
        """Whether a mask holds in some lane: an i1."""
        if self.lanes == 1:
            return condition
        symbol = f"llvm.vector.reduce.or.v{self.lanes}i1"
        self.fn.module.declare(symbol, f"declare i1 @{symbol}({self.mask.of})")
        return self.fn.op(f"call i1 @{symbol}({self.mask.of} {condition})")

    def unlikely(self, condition: str, usual: str, rare: Callable[[], str]) -> str:
        """``usual``; ``rare()`` in the lanes where ``condition`` holds. One test and one branch while it
        holds in no lane.
        """
        fn = self.fn
        some = self.any(condition)
        before, slow, after = fn.current, fn.label("rare"), fn.label("usual")
        fn.do(f"br i1 {some}, label %{slow}, label %{after}")
        fn.start(slow)
        value = self.select(condition, rare(), usual)
        last = fn.current
        fn.do(f"br label %{after}")
        fn.start(after)
        result = fn.phi(self.of)
        result.add(usual, before)
        result.add(value, last)
        return result.name

    # ------------------------------------------------------------------------ parts of floating-point numbers

    def nearest(self, x: str, factor: float) -> tuple[str, str]:
        """(n, shifted): the integer nearest to x * factor, and a number whose bit pattern ends in n's binary
        digits.

        Valid for |x * factor| below 2**51 (2**22 in float32): the sum with 1.5 * 2**52 is what rounds.
        """
        shift = 1.5 * 2.0 ** MANTISSA_BITS[self.element]
        shifted = self.fma(x, factor, shift)
        return self.sub(shifted, shift), shifted

    def scale(self, x: Operand, n: str) -> str:
        """x * 2**n, rounded once, for integral n with |n| <= 2000 (250 in float32) and |x| between 2**-20 and
        2**20.
        """
        if self.avx512:
            return self._native(lambda v, args: v.x86("scalef", args), [self.name(x), n])
        bits, mantissa, bias = self.bits, MANTISSA_BITS[self.element], EXPONENT_BIAS[self.element]
        shift = 1.5 * 2.0**mantissa
        total = bits.sub(
            self.to_bits(self.add(n, shift)), double_bits(shift) if mantissa == 52 else float_bits(shift)
        )
        half = bits.ashr(total, 1)
        rest = bits.sub(total, half)
        first, second = (self.from_bits(bits.shl(bits.add(k, bias), mantissa)) for k in (half, rest))
        return self.mul(self.mul(x, first), second)

    def split(self, x: str) -> tuple[str, str]:
        """(m, e) with x = m * 2**e and m in [0.75, 1.5); subnormals included.

        zero gives (1, -inf), +inf gives (1, inf), a negative number and NaN give m = NaN.
        """
        if self.avx512:
            # interval [3/4, 3/2), NaN for negative numbers
            m = self._native(lambda v, args: v.x86("getmant", args, immediate=0b1011), [x])
            e = self._native(lambda v, args: v.x86("getexp", args), [x])
            return m, self.select(self.lt(m, 1.0), self.add(e, 1.0), e)
        bits, mantissa = self.bits, MANTISSA_BITS[self.element]
        wide = mantissa == 52
        raw = double_bits if wide else float_bits
        shift = 1.5 * 2.0**mantissa
        small = self.lt(x, SMALLEST_NORMAL[self.element])
        up = 2.0 ** (mantissa + 2)
        pattern = self.to_bits(self.select(small, self.mul(x, up), x))
        exponent = bits.ashr(bits.sub(pattern, raw(0.75)), mantissa)
        m = self.from_bits(bits.sub(pattern, bits.shl(exponent, mantissa)))
        e = self.sub(self.from_bits(bits.add(exponent, raw(shift))), shift)
        e = self.select(small, self.sub(e, float(mantissa + 2)), e)
        zero, infinite = self.eq(x, 0.0), self.eq(x, INF)
        m = self.select(self.ge(x, 0.0), self.select(self.mask.or_(zero, infinite), 1.0, m), NAN)
        return m, self.select(zero, -INF, self.select(infinite, INF, e))

    def lookup(self, table: Table, index: str) -> list[str]:
        """One value of every row of ``table``, at the column in the low four bits of the integers
        ``index``.
        """
        bits = self.bits
        base = table.define(self)
        if self.lanes == 1:
            column = bits.and_(index, COLUMNS - 1)
            row = self.fn.op(f"getelementptr {self.of}, ptr {base}, {bits.of} {column}")
            return [
                self.fn.op(f"load {self.of}, ptr {p}, align {self.size}")
                for p in self._rows(row, len(table.rows))
            ]
        if not self.avx512:
            column = bits.and_(index, COLUMNS - 1)
            row = self.fn.op(f"getelementptr {self.element}, ptr {base}, {bits.of} {column}")
            return [self._gather(row, k) for k in range(len(table.rows))]
        width = 512 // WIDTH[self.element]
        if self.lanes > width:
            half = self.like(self.element, self.lanes // 2)
            parts = [half.lookup(table, bits.slice(index, i * half.lanes, half.lanes)) for i in (0, 1)]
            return [half.join(low, high) for low, high in zip(*parts, strict=True)]
        full = self.like(self.element, width)
        chosen = bits.slice(index, 0, width) if self.lanes < width else index
        values = [full._permute(p, chosen) for p in self._rows(base, len(table.rows))]
        return values if self.lanes == width else [full.slice(x, 0, self.lanes) for x in values]

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return WIDTH[self.element] // 8

    def _rows(self, base: str, count: int) -> list[str]:
        """Pointers to consecutive rows of a table."""
        pitch = COLUMNS * self.size
        return [base] + [self._shifted(base, k * pitch) for k in range(1, count)]

    def _shifted(self, pointer: str, offset: int) -> str:
        """``pointer`` moved by bytes; a constant expression where the pointer is a constant."""
        if pointer.startswith("%"):
            return self.fn.op(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        name, _, rest = pointer.removeprefix("getelementptr (i8, ptr ").partition(", i64 ")
        return f"getelementptr (i8, ptr {name}, i64 {offset + int(rest.rstrip(')') or 0)})"

    def _gather(self, pointers: str, row: int) -> str:
        """One load a lane."""
        if row:
            offset = self.like("i64").const(row * COLUMNS * self.size)
            pointers = self.fn.op(
                f"getelementptr i8, <{self.lanes} x ptr> {pointers}, {self.like('i64').of} {offset}"
            )
        symbol = f"llvm.masked.gather.{self.suffix}.v{self.lanes}p0"
        types = [f"<{self.lanes} x ptr>", "i32", self.mask.of, self.of]
        self.fn.module.declare(symbol, f"declare {self.of} @{symbol}({', '.join(types)})")
        values = [pointers, str(self.size), self.mask.const(1), "zeroinitializer"]
        typed = ", ".join(f"{of} {x}" for of, x in zip(types, values, strict=True))
        return self.fn.op(f"call {self.of} @{symbol}({typed})")

    def _permute(self, row: str, index: str) -> str:
        """One column of a row of sixteen: a permutation of one (float) or two (double) registers."""
        fn, of, bits = self.fn, self.of, self.bits
        low = fn.op(f"load {of}, ptr {row}, align 64")
        if self.element == "float":
            symbol = "llvm.x86.avx512.permvar.sf.512"
            fn.module.declare(symbol, f"declare {of} @{symbol}({of}, {bits.of})")
            return fn.op(f"call {of} @{symbol}({of} {low}, {bits.of} {index})")
        high = fn.op(f"load {of}, ptr {self._shifted(row, 64)}, align 64")
        symbol = "llvm.x86.avx512.vpermi2var.pd.512"
        fn.module.declare(symbol, f"declare {of} @{symbol}({of}, {bits.of}, {of})")
        return fn.op(f"call {of} @{symbol}({of} {low}, {bits.of} {index}, {of} {high})")

    def _native(self, make: Callable[[Vector, list[str]], str], args: list[str]) -> str:
        """Apply an instruction that exists for 128, 256 and 512 bits: short vectors are padded, long ones
        cut.
        """
        width = WIDTH[self.element]
        least, most = 128 // width, 512 // width
        if self.lanes < least:
            wide = self.like(self.element, least)
            return wide.slice(make(wide, [self.slice(a, 0, least) for a in args]), 0, self.lanes)
        if self.lanes <= most:
            return make(self, args)
        half = self.like(self.element, self.lanes // 2)
        parts = [
            half._native(make, [self.slice(a, i * half.lanes, half.lanes) for a in args]) for i in (0, 1)
        ]
        return half.join(*parts)

    def x86(self, stem: str, args: Sequence[str], immediate: int | None = None) -> str:
        """One masked AVX-512 floating-point intrinsic with all lanes on."""
        kind = "pd" if self.element == "double" else "ps"
        size = self.lanes * WIDTH[self.element]
        symbol = f"llvm.x86.avx512.mask.{stem}.{kind}.{size}"
        mask = "i16" if self.lanes == 16 else "i8"
        typed = [(self.of, self.name(a)) for a in args]
        typed += [("i32", str(immediate))] if immediate is not None else []
        typed += [(self.of, "zeroinitializer"), (mask, "-1")]
        typed += [("i32", "4")] if size == 512 else []  # 4: the current rounding mode
        self.fn.module.declare(symbol, f"declare {self.of} @{symbol}({', '.join(of for of, _ in typed)})")
        return self.fn.op(f"call {self.of} @{symbol}({', '.join(f'{of} {a}' for of, a in typed)})")
