"""Lower kernels to loop IR.

Job: loop nests, one phase after another, with each value computed at the outermost level that its index
allows.
Input: a `Program`.  Output: one `LoopKernel` per kernel or assembly step (products have none).
Invariants: a value is computed once per level; loops over axes of length 1 do not exist; error checks carry
the program's codes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.affine import Affine, axis_index
from graphjit.ir.node import Node
from graphjit.ir.opdef import Reduce, Scalar, Scan, Special, View
from graphjit.ir.types import BOOL, I64
from graphjit.loops import ir
from graphjit.loops.ir import Address, Axis, Const, For, Index, Let, Load, LoopKernel, Ref, Statement, Store
from graphjit.schedule.access import is_window, linear, reshape_index, storage, strides
from graphjit.schedule.program import Kernel, Member, Program

Index_ = tuple[Address, ...]


@dataclass(frozen=True)
class Limit:
    """``index >= low`` or ``index < high``; the other one is None."""

    index: Address
    low: int | None
    high: int | None


Where = tuple[Limit, ...]

CHECKED: dict[str, tuple[type[Exception], str]] = {
    "floor_divide": (ZeroDivisionError, "integer division by zero"),
    "remainder": (ZeroDivisionError, "integer modulo by zero"),
    "fmod": (ZeroDivisionError, "integer modulo by zero"),
    "pow": (ValueError, "Integers to negative integer powers are not allowed."),
}


ROWS = "i0"
"""Name of the loop over the first axis of a kernel's space."""


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
        """Wrap ``count`` levels, from ``deepest`` outward, into their loops, each appended one level further
        out.
        """
        for level in range(deepest, deepest - count, -1):
            axis, extent = self.axes[level - 1]
            if self.lists[level]:
                self.lists[level - 1].append(For(axis, extent, tuple(self.lists[level])))
            self.lists[level] = []
            self.memo[level] = {}

    # ------------------------------------------------------------------------------------------------- values

    def value(self, node: Node, index: Index_, where: Where = ()) -> Ref:
        """The element of ``node`` at ``index``; of no interest outside ``where``, and memory is not read
        there.
        """
        base = storage(node)
        if base in self.registers:
            return self.registers[base]
        level = max(self.level(index), self.level(tuple(limit.index for limit in where)))
        buffer = self.program.buffers.get(base)
        if buffer is not None:
            if where and not buffer.size:
                return self.const(0, node.dtype)
            guard = self.holds(where) if where else None
            return self.let(level, node.dtype, Load(buffer, linear(node.shape, index), guard=guard))
        key = (node, index, where)
        known = self.memo[level].get(key)
        if known is None:
            known = self.memo[level][key] = self.compute(node, index, level, where)
        return known

    def compute(self, node: Node, index: Index_, level: int, where: Where = ()) -> Ref:
        """Evaluate ``node`` itself at ``index``."""
        lower = node.op.lower
        if isinstance(lower, Scalar):
            args = [self.value(arg, index, where) for arg in node.args]
            check = 0
            if node.dtype.kind in "iu" and lower.name in CHECKED:
                check = self.program.error(*CHECKED[lower.name], node.loc)
                if where:  # what is not there must not fail
                    args[1] = self.scalar(
                        level,
                        args[1].dtype,
                        "select",
                        self.holds(where),
                        args[1],
                        self.const(1, args[1].dtype),
                    )
            if where and node.op.name == "narrow":
                args[0] = self.scalar(
                    level, args[0].dtype, "select", self.holds(where), args[0], self.const(0, args[0].dtype)
                )
            result = self.scalar(level, node.dtype, lower.name, *args, check=check)
            if node.op.name == "narrow":
                self.check_narrow(node, args[0], result, level)
            return result
        if isinstance(lower, View):
            return self.value(node.args[0], lower.index_map(node, index), where)
        if is_window(node):
            return self.window(node, index, level, where)
        if isinstance(lower, Special):
            if lower.kind == "const":
                return self.const(node.attrs["value"].array.reshape(())[()], node.dtype)  # type: ignore[attr-defined]
            if lower.kind == "reshape":
                inner = reshape_index(node, index)
                if inner is not None:
                    return self.value(node.args[0], inner, where)
            if lower.kind == "iota":
                axis: Any = node.attrs["axis"]
                number = self.let(level, I64, Index(index[axis]))
                return number if node.dtype == I64 else self.scalar(level, node.dtype, "convert", number)
            if lower.kind == "gather":
                return self.gather(node, index, level, where)
        raise IRError(f"{node!r} cannot be computed inside a loop nest")

    def keep(self, node: Node, index: Index_, ref: Ref, level: int) -> None:
        """Store an element of a root in its own storage, and where it is a piece."""
        buffer = self.program.buffers.get(node)
        if buffer is not None:
            self.lists[level].append(Store(buffer, linear(node.shape, index), ref))
        for piece in self.program.destinations.get(node, ()):
            address: Address = Affine(piece.offset)
            for i, factor in zip(index, piece.factors, strict=True):
                address = address + i * factor
            self.lists[level].append(Store(self.program.buffers[piece.owner], address, ref))

    def holds(self, where: Where) -> Ref:
        """Whether all of ``where`` holds; ``where`` is not empty."""
        found: Ref | None = None
        for limit in sorted(where, key=lambda limit: self.level((limit.index,))):
            level = self.level((limit.index,))
            at = self.let(level, I64, Index(limit.index))
            op = "ge" if limit.low is not None else "lt"
            bound = limit.low if limit.low is not None else limit.high
            test = self.scalar(level, BOOL, op, at, self.const(bound, I64))
            found = test if found is None else self.scalar(level, BOOL, "and", found, test)
        assert found is not None
        return found

    def window(self, node: Node, index: Index_, level: int, where: Where) -> Ref:
        """An element of an embed: of its argument, or zero outside."""
        x = node.args[0]
        if not x.type.size:
            return self.const(0, node.dtype)
        starts: Any = node.attrs["starts"]
        inner = tuple(i - s for i, s in zip(index, starts, strict=True))
        limits: list[Limit] = []
        for i, n in zip(inner, x.shape, strict=True):
            low, high = self.span(i)
            if high < 0 or low >= n:
                return self.const(0, node.dtype)
            limits += [Limit(i, 0, None)] if low < 0 else []
            limits += [Limit(i, None, n)] if high >= n else []
        if not limits:
            return self.value(x, inner, where)
        inside = (*where, *(limit for limit in limits if limit not in where))
        if _contradicts(inside):
            return self.const(0, node.dtype)
        value = self.value(x, inner, inside)
        return self.scalar(
            level, node.dtype, "select", self.holds(tuple(limits)), value, self.const(0, node.dtype)
        )

    def span(self, index: Address) -> tuple[int, int]:
        """Smallest and largest value of an index over the whole nest."""
        low = high = index.offset
        for axis, factor in index.terms.items():
            last = factor * (self.axes[self.depth[axis] - 1][1] - 1)
            low, high = low + min(0, last), high + max(0, last)
        return low, high

    def check_narrow(self, node: Node, wide: Ref, result: Ref, level: int) -> None:
        """Report an integer that changed when it was made smaller."""
        back = self.scalar(level, I64, "convert", result)
        ok = self.scalar(level, BOOL, "eq", back, wide)
        if node.dtype.kind == "u":
            ok = self.scalar(level, BOOL, "and", ok, self.scalar(level, BOOL, "ge", wide, self.const(0, I64)))
        code = self.program.error(
            OverflowError, f"Python integer out of bounds for {node.dtype.name}", node.loc
        )
        self.lists[level].append(ir.Check(ok, code))

    def gather(self, node: Node, index: Index_, level: int, where: Where = ()) -> Ref:
        """One element at data-dependent positions along some axes."""
        x = node.args[0]
        axes: Any = node.attrs["axes"]
        empty = next((a for a in axes if x.shape[a] == 0), None)
        if empty is not None:
            code = self.program.error(
                IndexError, f"index is out of bounds for axis {empty} with size 0", node.loc
            )
            outside = self.scalar(level, BOOL, "not", self.holds(where)) if where else self.const(False, BOOL)
            self.lists[level].append(ir.Check(outside, code))
            return self.const(0, node.dtype)
        # Positions are the same for all of a row that is picked; the check stays in a loop, so that blocks of
        # it have one.
        depth = len(node.args[1].shape)
        found = max(
            self.level(index[:depth]), self.level(tuple(limit.index for limit in where)), min(level, 1)
        )
        dynamic, rest = self.positions(node, node.args[1:], axes, x.shape, index, found, where)
        buffer = self.program.buffers.get(storage(x))
        if buffer is None:  # a single number, which takes no memory: the position has been checked
            return self.value(x, (Affine(),) * len(x.shape), where)
        guard = self.holds(where) if where else None
        return self.let(level, node.dtype, Load(buffer, rest, dynamic, guard))

    def positions(
        self,
        node: Node,
        indices: tuple[Node, ...],
        axes: tuple[int, ...],
        shape: tuple[int, ...],
        index: Index_,
        level: int,
        where: Where = (),
    ) -> tuple[tuple[tuple[Ref, int], ...], Address]:
        """Checked, wrapped positions along ``axes`` and the affine address along the other axes of
        ``shape``.
        """
        depth = len(indices[0].shape)
        step = strides(shape)
        dynamic = []
        for axis, positions in zip(axes, indices, strict=True):
            at = self.value(positions, index[:depth], where)
            if where:
                at = self.scalar(level, I64, "select", self.holds(where), at, self.const(0, I64))
            n = shape[axis]
            code = self.program.error(
                IndexError, f"index is out of bounds for axis {axis} with size {n}", node.loc
            )
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


def _contradicts(where: Where) -> bool:
    """Whether two limits exclude each other, as those of frames side by side do."""
    low: dict[Address, int] = {}
    high: dict[Address, int] = {}
    for limit in where:
        moving = limit.index - limit.index.offset
        if limit.low is not None:
            low[moving] = max(low.get(moving, limit.low - limit.index.offset), limit.low - limit.index.offset)
        if limit.high is not None:
            high[moving] = min(
                high.get(moving, limit.high - limit.index.offset), limit.high - limit.index.offset
            )
    return any(low[moving] >= high.get(moving, low[moving] + 1) for moving in low)


def lower_kernel(program: Program, kernel: Kernel) -> LoopKernel:
    """Loop IR of a fused kernel."""
    order = [*kernel.outer, *(kernel.axes or ())]
    names = {i: Axis(ROWS if i == 0 else f"i{i}") for i in order}
    index = tuple(axis_index(names[i]) if n != 1 else Affine() for i, n in enumerate(kernel.space))
    if kernel.scan is not None:
        along, reverse = kernel.scan
        order.append(order.pop(order.index(along)))
        if reverse and kernel.space[along] != 1:
            index = tuple(-at + (kernel.space[along] - 1) if i == along else at for i, at in enumerate(index))
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
            nest.keep(member.node, outer_index, nest.registers[member.node], row)
        for member in here:
            if member.outer:
                ref = nest.registers[member.node] = nest.compute(member.node, outer_index, row)
                nest.keep(member.node, outer_index, ref, row)
    nest.close(row, row)
    return LoopKernel(kernel.name, tuple(nest.lists[0]), comment=" ".join(n.op.name for n in kernel.nodes))


def _inner_member(
    nest: Nest, member: Member, index: Index_, row: int, depth: int, sums: list[Member]
) -> None:
    node = member.node
    if isinstance(node.op.lower, Reduce):
        accumulator = nest.fresh(node.dtype)
        nest.lists[row].append(ir.Init(accumulator, node.op.lower.combine))
        value = nest.value(node.args[0], index)
        nest.lists[depth].append(ir.Accumulate(accumulator, node.op.lower.combine, value))
        nest.registers[node] = accumulator
        sums.append(member)
        return
    if isinstance(node.op.lower, Scan):
        ref = _running(nest, node, index, depth)
    else:
        ref = nest.compute(node, index, nest.level(index))
    nest.registers[node] = ref
    nest.keep(node, index, ref, depth)


def _running(nest: Nest, node: Node, index: Index_, depth: int) -> Ref:
    """The running value at ``index``, in the innermost loop; its accumulator is opened outside that loop."""
    assert isinstance(node.op.lower, Scan)
    combine = node.op.lower.combine
    axis: Any = node.attrs["axis"]
    n = node.shape[axis]
    value = nest.value(node.args[-1], index)
    if n == 1:
        return value
    factor = None
    if len(node.args) == 2:
        first = nest.scalar(
            depth,
            BOOL,
            "eq",
            nest.let(depth, I64, Index(index[axis])),
            nest.const(n - 1 if node.attrs["reverse"] else 0, I64),
        )
        factor = nest.scalar(
            depth, node.dtype, "select", first, nest.const(1, node.dtype), nest.value(node.args[0], index)
        )
    accumulator = nest.fresh(node.dtype)
    nest.lists[depth - 1].append(ir.Init(accumulator, combine, True))
    nest.lists[depth].append(ir.Accumulate(accumulator, combine, value, factor))
    return nest.let(depth, node.dtype, ir.Scalar("copy", (accumulator,)))
