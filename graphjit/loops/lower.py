"""Lower kernels to loop IR.

Job: loop nests, one phase after another, with each value computed at the outermost level that its index allows.
Input: a `Program`.  Output: one `LoopKernel` per kernel or assembly step (products have none).
Invariants: a value is computed once per level; loops over axes of length 1 do not exist; error checks carry the program's codes.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.affine import Affine, axis_index
from graphjit.ir.node import Node
from graphjit.ir.opdef import Reduce, Scalar, Special, View
from graphjit.ir.types import BOOL, I64
from graphjit.loops import ir
from graphjit.loops.ir import Address, Axis, Const, For, Index, Let, Load, LoopKernel, Ref, Statement, Store
from graphjit.schedule.access import linear, reshape_index, storage, strides
from graphjit.schedule.program import Kernel, Member, Program

Index_ = tuple[Address, ...]

CHECKED: dict[str, tuple[type[Exception], str]] = {
    "floor_divide": (ZeroDivisionError, "integer division by zero"),
    "remainder": (ZeroDivisionError, "integer modulo by zero"),
    "fmod": (ZeroDivisionError, "integer modulo by zero"),
    "pow": (ValueError, "Integers to negative integer powers are not allowed."),
}


class Nest:
    """A loop nest being filled: one statement list per level, values remembered per level."""

    def __init__(self, program: Program, axes: list[tuple[Axis, int]]) -> None:
        self.program = program
        self.axes = axes
        self.depth = {axis: i + 1 for i, (axis, _) in enumerate(axes)}
        self.lists: list[list[Statement]] = [[] for _ in range(len(axes) + 1)]
        self.memo: list[dict[Any, Ref]] = [{} for _ in range(len(axes) + 1)]
        self.registers: dict[Node, Ref] = {}  # members of this kernel that are held in a register now
        self._numbers = itertools.count()

    # ----------------------------------------------------------------------------------------------- emission

    def fresh(self, dtype: np.dtype) -> Ref:
        """A new name."""
        return Ref(next(self._numbers), dtype)

    def level(self, index: Index_) -> int:
        """The outermost level at which ``index`` is known."""
        return max((self.depth[axis] for i in index for axis in i.terms), default=0)

    def let(self, level: int, dtype: np.dtype, value: ir.Expression) -> Ref:
        """Compute ``value`` at ``level`` unless that was done already."""
        key = (value.value.tobytes() if isinstance(value, Const) else value, dtype)
        known = self.memo[level].get(key)
        if known is None:
            known = self.memo[level][key] = self.fresh(dtype)
            self.lists[level].append(Let(known, value))
        return known

    def scalar(self, level: int, dtype: np.dtype, op: str, *args: Ref, check: int = 0) -> Ref:
        """One scalar operation."""
        return self.let(level, dtype, ir.Scalar(op, args, check))

    def const(self, value: Any, dtype: np.dtype) -> Ref:
        """A number, named at the top."""
        return self.let(0, dtype, Const(dtype.type(value)))

    def open(self, count: int) -> None:
        """Start new statement lists for the innermost ``count`` loops."""
        for level in range(len(self.axes) + 1 - count, len(self.axes) + 1):
            self.lists[level] = []
            self.memo[level] = {}

    def close(self, deepest: int, count: int) -> None:
        """Wrap ``count`` levels, from ``deepest`` outward, into their loops, each appended one level further out."""
        for level in range(deepest, deepest - count, -1):
            axis, extent = self.axes[level - 1]
            if self.lists[level]:
                self.lists[level - 1].append(For(axis, extent, tuple(self.lists[level])))
            self.lists[level] = []
            self.memo[level] = {}

    # ------------------------------------------------------------------------------------------------- values

    def value(self, node: Node, index: Index_) -> Ref:
        """The element of ``node`` at ``index``."""
        base = storage(node)
        if base in self.registers:
            return self.registers[base]
        buffer = self.program.buffers.get(base)
        if buffer is not None:
            return self.let(self.level(index), node.dtype, Load(buffer, linear(node.shape, index)))
        level = self.level(index)
        key = (node, index)
        known = self.memo[level].get(key)
        if known is None:
            known = self.memo[level][key] = self.compute(node, index, level)
        return known

    def compute(self, node: Node, index: Index_, level: int) -> Ref:
        """Evaluate ``node`` itself at ``index``."""
        lower = node.op.lower
        if isinstance(lower, Scalar):
            args = [self.value(arg, index) for arg in node.args]
            check = 0
            if node.dtype.kind in "iu" and lower.name in CHECKED:
                check = self.program.error(*CHECKED[lower.name], node.loc)
            result = self.scalar(level, node.dtype, lower.name, *args, check=check)
            if node.op.name == "narrow":
                self.check_narrow(node, args[0], result, level)
            return result
        if isinstance(lower, View):
            return self.value(node.args[0], lower.index_map(node, index))
        if isinstance(lower, Special):
            if lower.kind == "const":
                return self.const(node.attrs["value"].array.reshape(())[()], node.dtype)  # type: ignore[attr-defined]
            if lower.kind == "reshape":
                inner = reshape_index(node, index)
                if inner is not None:
                    return self.value(node.args[0], inner)
            if lower.kind == "iota":
                axis: Any = node.attrs["axis"]
                number = self.let(level, I64, Index(index[axis]))
                return number if node.dtype == I64 else self.scalar(level, node.dtype, "convert", number)
            if lower.kind == "gather":
                return self.gather(node, index, level)
        raise IRError(f"{node!r} cannot be computed inside a loop nest")

    def check_narrow(self, node: Node, wide: Ref, result: Ref, level: int) -> None:
        """Report an integer that changed when it was made smaller."""
        back = self.scalar(level, I64, "convert", result)
        ok = self.scalar(level, BOOL, "eq", back, wide)
        if node.dtype.kind == "u":
            ok = self.scalar(level, BOOL, "and", ok, self.scalar(level, BOOL, "ge", wide, self.const(0, I64)))
        code = self.program.error(OverflowError, f"Python integer out of bounds for {node.dtype.name}", node.loc)
        self.lists[level].append(ir.Check(ok, code))

    def gather(self, node: Node, index: Index_, level: int) -> Ref:
        """One element at data-dependent positions along some axes."""
        x = node.args[0]
        axes: Any = node.attrs["axes"]
        if any(x.shape[a] == 0 for a in axes):
            return self.const(0, node.dtype)
        dynamic, rest = self.positions(node, node.args[1:], axes, x.shape, index, level)
        return self.let(level, node.dtype, Load(self.program.buffers[storage(x)], rest, dynamic))

    def positions(
        self, node: Node, indices: tuple[Node, ...], axes: tuple[int, ...], shape: tuple[int, ...], index: Index_, level: int
    ) -> tuple[tuple[tuple[Ref, int], ...], Address]:
        """Checked, wrapped positions along ``axes`` and the affine address along the other axes of ``shape``."""
        depth = len(indices[0].shape)
        step = strides(shape)
        dynamic = []
        for axis, positions in zip(axes, indices, strict=True):
            at = self.value(positions, index[:depth])
            n = shape[axis]
            code = self.program.error(IndexError, f"index is out of bounds for axis {axis} with size {n}", node.loc)
            zero, length = self.const(0, I64), self.const(n, I64)
            wrapped = self.scalar(level, I64, "add", at, length)
            at = self.scalar(level, I64, "select", self.scalar(level, BOOL, "lt", at, zero), wrapped, at)
            low, high = self.scalar(level, BOOL, "ge", at, zero), self.scalar(level, BOOL, "lt", at, length)
            ok = self.scalar(level, BOOL, "and", low, high)
            self.lists[level].append(ir.Check(ok, code))
            dynamic.append((self.scalar(level, I64, "select", ok, at, zero), step[axis]))
        others = iter(index[depth:])
        rest: Address = Affine()
        for axis, stride in enumerate(step):
            if axis not in axes:
                rest = rest + next(others) * stride
        return tuple(dynamic), rest


def lower_kernel(program: Program, kernel: Kernel) -> LoopKernel:
    """Loop IR of a fused kernel."""
    order = [*kernel.outer, *(kernel.axes or ())]
    names = {i: Axis(f"i{i}") for i in order}
    index = tuple(axis_index(names[i]) if n != 1 else Affine() for i, n in enumerate(kernel.space))
    loops = [i for i in order if kernel.space[i] != 1]
    inner = sum(1 for i in loops if kernel.axes is not None and i in kernel.axes)
    nest = Nest(program, [(names[i], kernel.space[i]) for i in loops])
    row = len(loops) - inner
    outer_index = tuple(index[i] for i in kernel.outer)
    if kernel.axes is not None and any(kernel.space[i] == 0 for i in kernel.outer):
        return LoopKernel(kernel.name, ())
    phases = max(member.phase for member in kernel.members) + 1
    for phase in range(phases):
        here = [member for member in kernel.members if member.phase == phase]
        nest.open(inner)
        sums: list[Member] = []
        for member in here:
            if not member.outer:
                _inner_member(nest, member, index, row, len(loops), sums)
        nest.close(len(loops), inner)
        for member in kernel.members:
            if not isinstance(member.node.op.lower, Reduce) and not member.outer:
                nest.registers.pop(member.node, None)
        for member in sums:
            buffer = program.buffers.get(member.node)
            if buffer is not None:
                address = linear(member.node.shape, outer_index)
                nest.lists[row].append(Store(buffer, address, nest.registers[member.node]))
        for member in here:
            if member.outer:
                ref = nest.registers[member.node] = nest.compute(member.node, outer_index, row)
                buffer = program.buffers.get(member.node)
                if buffer is not None:
                    nest.lists[row].append(Store(buffer, linear(member.node.shape, outer_index), ref))
    nest.close(row, row)
    return LoopKernel(kernel.name, tuple(nest.lists[0]), comment=" ".join(n.op.name for n in kernel.nodes))


def _inner_member(nest: Nest, member: Member, index: Index_, row: int, depth: int, sums: list[Member]) -> None:
    node = member.node
    if isinstance(node.op.lower, Reduce):
        accumulator = nest.fresh(node.dtype)
        nest.lists[row].append(ir.Init(accumulator, node.op.lower.combine))
        value = nest.value(node.args[0], index)
        nest.lists[depth].append(ir.Accumulate(accumulator, node.op.lower.combine, value))
        nest.registers[node] = accumulator
        sums.append(member)
        return
    ref = nest.compute(node, index, nest.level(index))
    nest.registers[node] = ref
    buffer = nest.program.buffers.get(node)
    if buffer is not None:
        nest.lists[depth].append(Store(buffer, linear(node.shape, index), ref))
