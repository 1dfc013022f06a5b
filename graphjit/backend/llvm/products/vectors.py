"""Vector instructions and calls that the native parts of products share.

Job: spell masked loads and stores, multiply-adds and a number in all lanes, once for all parts.
Input: names of values in the function under construction.  Output: names of results.
Invariant: a multiply-add rounds once where the machine can do that, else twice; nothing contracts on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import Value, Writer


def arguments(parameters: Sequence[tuple[str, str]], values: Sequence[Value]) -> list[str]:
    """The values of a call with the types that the callee's parameters have: ``["i64 3", "ptr %a"]``."""
    return [f"{of} {value}" for (of, _), value in zip(parameters, values, strict=True)]


@dataclass(frozen=True)
class VectorType:
    """Vectors of ``lanes`` elements of ``kind`` ("f64" or "f32")."""

    kind: str
    lanes: int
    fused: bool

    @cached_property
    def element(self) -> str:
        """LLVM's element type."""
        return "double" if self.kind == "f64" else "float"

    @cached_property
    def size(self) -> int:
        """Bytes of an element."""
        return 8 if self.kind == "f64" else 4

    @cached_property
    def nbytes(self) -> int:
        """Bytes of a vector."""
        return self.lanes * self.size

    @cached_property
    def text(self) -> str:
        """LLVM's vector type."""
        return f"<{self.lanes} x {self.element}>"

    @cached_property
    def short(self) -> str:
        """The vector type in names of intrinsics: ``v8f64``."""
        return f"v{self.lanes}{self.kind}"

    def declare_multiply_add(self, module: Module) -> None:
        """Declare what `multiply_add` calls."""
        name, vec = f"llvm.fma.{self.short}", self.text
        module.declare(name, f"declare {vec} @{name}({vec}, {vec}, {vec})")

    def declare_load(self, module: Module) -> None:
        """Declare what `load` calls for masked lanes."""
        form = f"ptr, i32, <{self.lanes} x i1>, {self.text}"
        name = f"llvm.masked.load.{self.short}.p0"
        module.declare(name, f"declare {self.text} @{name}({form})")

    def declare_store(self, module: Module) -> None:
        """Declare what `store` calls for masked lanes."""
        form = f"{self.text}, ptr, i32, <{self.lanes} x i1>"
        name = f"llvm.masked.store.{self.short}.p0"
        module.declare(name, f"declare void @{name}({form})")

    def spread(self, w: Writer, value: str) -> str:
        """``value`` in every lane."""
        return self._spread(w, self.element, value)

    def spread_index(self, w: Writer, value: str) -> str:
        """An i64 in every lane, for `below`."""
        return self._spread(w, "i64", value)

    def below(self, w: Writer, bounds: str) -> str:
        """The mask, with its type, of the lanes whose number is below ``bounds`` (of `spread_index`)."""
        numbers = ", ".join(f"i64 {i}" for i in range(self.lanes))
        return f"<{self.lanes} x i1> " + w.op(f"icmp ult <{self.lanes} x i64> <{numbers}>, {bounds}")

    def _spread(self, w: Writer, element: str, value: str) -> str:
        of = f"<{self.lanes} x {element}>"
        one = w.op(f"insertelement {of} poison, {element} {value}, i32 0")
        return w.op(f"shufflevector {of} {one}, {of} poison, <{self.lanes} x i32> zeroinitializer")

    def load(self, w: Writer, pointer: str, mask: str = "") -> str:
        """Neighbouring elements; zeros in lanes that a mask leaves out."""
        if not mask:
            return w.load(self.text, pointer, self.size)
        return w.op(
            f"call {self.text} @llvm.masked.load.{self.short}.p0("
            f"ptr {pointer}, i32 {self.size}, {mask}, {self.text} zeroinitializer)"
        )

    def store(self, w: Writer, value: str, pointer: str, mask: str = "") -> None:
        """Neighbouring elements, without those that a mask leaves out."""
        if not mask:
            w.store(self.text, value, pointer, self.size)
            return
        w.do(
            f"call void @llvm.masked.store.{self.short}.p0("
            f"{self.text} {value}, ptr {pointer}, i32 {self.size}, {mask})"
        )

    def multiply_add(self, w: Writer, x: str, y: str, total: str) -> str:
        """x * y + total."""
        vec = self.text
        if self.fused:
            return w.op(f"call {vec} @llvm.fma.{self.short}({vec} {x}, {vec} {y}, {vec} {total})")
        return w.op(f"fadd {vec} {w.op(f'fmul {vec} {x}, {y}')}, {total}")


def fetch(w: Writer, pointer: str) -> None:
    """Ask for the cache line at ``pointer``, as near as the first-level cache."""
    w.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")


def declare_fetch(module: Module) -> None:
    """Declare what `fetch` calls."""
    module.declare("llvm.prefetch.p0", "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
