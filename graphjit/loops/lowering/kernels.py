"""Lower kernels to loop IR.

Job: loop nests, one phase after another, with each value computed at the outermost level that its index
allows.
Input: a `Program`.  Output: one `LoopKernel` per kernel or assembly step (products have none).
Invariants: a value is computed once per level; loops over axes of length 1 do not exist; error checks carry
the program's codes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.affine import Affine, axis_index, index_over, linear, reshape_index, strides
from graphjit.ir.buffers import Buffer
from graphjit.ir.node import Node
from graphjit.ir.opdef import Reduce, Scalar, Scan, Special, View
from graphjit.ir.types import BOOL, I64
from graphjit.loops import ir
from graphjit.loops.ir import (
    Address,
    Axis,
    Const,
    For,
    Index,
    Let,
    Load,
    LoopKernel,
    Positions,
    Ref,
    Statement,
    Store,
)
from graphjit.loops.lowering.conditions import Side, Where, contradicts, span
from graphjit.loops.lowering.positions import ROW, Position, reached, whole
from graphjit.ops.linalg import FAILURES
from graphjit.ops.splicing import Run
from graphjit.schedule.access import is_window, storage
from graphjit.schedule.program import Kernel, Member, Program

Index_ = tuple[Address, ...]


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
        self.extents = dict(axes)
        # Computed numbers that stand in indices like loop variables.
        self.variables: dict[Ref, Axis] = {}
        self.computed: dict[Axis, tuple[Ref, Position]] = {}
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

    def loaded(
        self,
        level: int,
        dtype: np.dtype,
        buffer: Buffer,
        address: Address,
        dynamic: Positions = (),
        guard: Ref | None = None,
    ) -> Ref:
        """One element; ``address`` may have numbers that are computed."""
        fixed, moving = self.taken_apart(address)
        return self.let(level, dtype, Load(buffer, fixed, (*dynamic, *moving), guard))

    def number(self, level: int, index: Address) -> Ref:
        """What an index is."""
        fixed, moving = self.taken_apart(index)
        total = self.let(level, I64, Index(fixed)) if fixed != Affine() or not moving else None
        for ref, factor in moving:
            term = ref if factor == 1 else self.scalar(level, I64, "mul", ref, self.const(factor, I64))
            total = term if total is None else self.scalar(level, I64, "add", total, term)
        assert total is not None
        return total

    def taken_apart(self, address: Address) -> tuple[Address, tuple[tuple[Ref, int], ...]]:
        """What depends on loop variables, and the computed numbers with their factors."""
        moving = tuple(
            (self.computed[axis][0], factor)
            for axis, factor in address.terms.items()
            if axis in self.computed
        )
        if not moving:
            return address, ()
        fixed = {axis: factor for axis, factor in address.terms.items() if axis not in self.computed}
        return Affine(address.offset, fixed), moving

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
        level = max(self.level(index), self.level(tuple(side.index for side in where)))
        buffer = self.program.buffers.get(base)
        if buffer is not None:
            if where and not buffer.size:
                return self.const(0, node.dtype)
            guard = self.holds(where) if where else None
            return self.loaded(level, node.dtype, buffer, linear(node.shape, index), guard=guard)
        key = (node, index, where)
        known = self.memo[level].get(key)
        if known is None:
            known = self.memo[level][key] = self.compute(node, index, level, where)
        return known

    def compute(self, node: Node, index: Index_, level: int, where: Where = ()) -> Ref:
        """Evaluate ``node`` itself at ``index``."""
        lower = node.op.lower
        if isinstance(lower, Scalar):
            return self.operation(node, index, level, where)
        if isinstance(lower, View):
            return self.value(node.args[0], lower.index_map(node, index), where)
        if is_window(node):
            return self.window(node, index, level, where)
        if node.op.name == "splice":
            return self.spliced(node, index, level, where)
        if isinstance(lower, Special):
            found = self.special(node, index, level, where)
            if found is not None:
                return found
        raise IRError(f"{node!r} cannot be computed inside a loop nest")

    def operation(self, node: Node, index: Index_, level: int, where: Where) -> Ref:
        """One scalar operation on the elements of its arguments; what is not there must not fail."""
        name = node.op.lower.name  # type: ignore[union-attr]
        args = [self.value(arg, index, where) for arg in node.args]
        if node.op.name == "require":
            return self.required(node, args[0], args[1], level, where)
        check = 0
        if node.dtype.kind in "iu" and name in CHECKED:
            check = self.program.error(*CHECKED[name], node.loc)
            if where:
                args[1] = self.replaced(args[1], 1, level, where)
        narrow = node.op.name == "narrow"
        if where and narrow:
            args[0] = self.replaced(args[0], 0, level, where)
        result = self.scalar(level, node.dtype, name, *args, check=check)
        if narrow:
            self.check_narrow(node, args[0], result, level)
        return result

    def required(self, node: Node, value: Ref, ok: Ref, level: int, where: Where) -> Ref:
        """``value``; reports where ``ok`` does not hold, once for all values that need it."""
        if where:
            ok = self.scalar(level, BOOL, "or", ok, self.scalar(level, BOOL, "not", self.holds(where)))
        code = self.program.error(*FAILURES[str(node.attrs["failure"])], node.loc)
        self.check(level, ok, code)
        return value

    def check(self, level: int, ok: Ref, code: int) -> None:
        """Report ``code`` unless ``ok`` holds, once."""
        key = ("check", ok, code)
        if key not in self.memo[level]:
            self.memo[level][key] = ok
            self.lists[level].append(ir.Check(ok, code))

    def replaced(self, ref: Ref, value: int, level: int, where: Where) -> Ref:
        """``ref`` inside ``where``, ``value`` outside."""
        return self.scalar(level, ref.dtype, "select", self.holds(where), ref, self.const(value, ref.dtype))

    def special(self, node: Node, index: Index_, level: int, where: Where) -> Ref | None:
        """An element of a node with a lowering of its own; None where no loop nest can compute it."""
        kind = node.op.lower.kind  # type: ignore[union-attr]
        if kind == "const":
            return self.const(node.attrs["value"].array.reshape(())[()], node.dtype)  # type: ignore[attr-defined]
        if kind == "reshape":
            inner = reshape_index(node.args[0].shape, node.shape, index)
            return None if inner is None else self.value(node.args[0], inner, where)
        if kind == "iota":
            axis: Any = node.attrs["axis"]
            number = self.number(level, index[axis])
            return number if node.dtype == I64 else self.scalar(level, node.dtype, "convert", number)
        return self.gather(node, index, level, where) if kind == "gather" else None

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
        for side in sorted(where, key=lambda side: self.level((side.index,))):
            level = self.level((side.index,))
            at = self.number(level, side.index)
            op = "ge" if side.low is not None else "lt"
            bound = side.low if side.low is not None else side.high
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
        sides: list[Side] = []
        for i, n in zip(inner, x.shape, strict=True):
            low, high = span(i, where, self.extents)
            if high < 0 or low >= n:
                return self.const(0, node.dtype)
            sides += [Side(i, 0, None)] if low < 0 else []
            sides += [Side(i, None, n)] if high >= n else []
        if not sides:
            return self.value(x, inner, where)
        inside = (*where, *(side for side in sides if side not in where))
        if contradicts(inside):
            return self.const(0, node.dtype)
        value = self.value(x, inner, inside)
        return self.scalar(
            level, node.dtype, "select", self.holds(tuple(sides)), value, self.const(0, node.dtype)
        )

    def spliced(self, node: Node, index: Index_, level: int, where: Where) -> Ref:
        """An element of a splice: of the segment in which the index lies.

        Where loops inside hide it, a position is computed; else each segment is read under a condition, and
        the loop is cut at the seams (`loops/passes/seams.py`).
        """
        axis: Any = node.attrs["axis"]
        at = index[axis]
        parts = reached(node, span(at, where, self.extents))
        if not parts:
            return self.const(0, node.dtype)

        def element(source: Node, place: Address, where: Where) -> Ref:
            return self.value(source, (*index[:axis], place, *index[axis + 1 :]), where)

        if len(parts) == 1:
            return element(parts[0].source, parts[0].at(at), where)
        place = self.place_in_source(at, parts, axis)
        if place is not None:
            return element(parts[0].source, place, where)
        found: Ref | None = None
        for run in reversed(parts):
            low = [Side(at, run.begin, None)] if run is not parts[0] else []
            high = [Side(at, None, run.end)] if run is not parts[-1] else []
            inside = (*where, *(side for side in (*low, *high) if side not in where))
            if contradicts(inside):
                continue
            value = element(run.source, run.at(at), inside)
            if found is not None:
                test = self.holds((Side(at, None, run.end),))
                value = self.scalar(level, node.dtype, "select", test, value, found)
            found = value
        return self.const(0, node.dtype) if found is None else found

    def place_in_source(self, at: Address, parts: Sequence[Run], axis: int) -> Address | None:
        """The position along ``axis`` in the one array that all ``parts`` of a splice read; None if there is
        no such array, or if too few iterations need it.
        """
        level, source = self.level((at,)), parts[0].source
        inner = math.prod(extent for _, extent in self.axes[level:])
        if inner < ROW or len(at.terms) != 1 or any(run.source is not source for run in parts):
            return None
        ((variable, factor),) = at.terms.items()
        if variable in self.computed:
            position = self.computed[variable][1].scaled(factor, at.offset)
        else:
            position = whole(at, self.extents)
        return self.computed_index(position.through(parts), source.shape[axis], level)

    def computed_index(self, position: Position, size: int, level: int) -> Address:
        """A position below ``size`` as an index."""
        if not position.pieces:  # nobody wants the element
            return Affine()
        *earlier, last = position.pieces
        if not earlier:
            return position.value(last)
        number = self.number(level, position.value(last))
        at = self.number(level, position.index)
        for piece in reversed(earlier):
            before = self.scalar(level, BOOL, "lt", at, self.const(piece.end, I64))
            number = self.scalar(
                level, I64, "select", before, self.number(level, position.value(piece)), number
            )
        variable = self.variables.get(number)
        if variable is None:
            variable = self.variables[number] = Axis(f"t{number.number}")
            self.depth[variable], self.extents[variable] = level, size
            self.computed[variable] = number, position
        return axis_index(variable)

    def check_narrow(self, node: Node, wide: Ref, result: Ref, level: int) -> None:
        """Report an integer that changed when it was made smaller."""
        back = self.scalar(level, I64, "convert", result)
        ok = self.scalar(level, BOOL, "eq", back, wide)
        if node.dtype.kind == "u":
            ok = self.scalar(level, BOOL, "and", ok, self.scalar(level, BOOL, "ge", wide, self.const(0, I64)))
        code = self.program.error(
            OverflowError, f"Python integer out of bounds for {node.dtype.name}", node.loc
        )
        self.check(level, ok, code)

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
            self.check(level, outside, code)
            return self.const(0, node.dtype)
        # Positions are the same for all of a row that is picked; the check stays in a loop, so that blocks of
        # it have one.
        depth = len(node.args[1].shape)
        found = max(self.level(index[:depth]), self.level(tuple(side.index for side in where)), min(level, 1))
        dynamic, rest = self.positions(node, node.args[1:], axes, x.shape, index, found, where)
        return self.picked(x, dynamic, rest, level, where)

    def picked(self, x: Node, dynamic: Positions, rest: Address, level: int, where: Where) -> Ref:
        """The element of ``x`` at a checked place."""
        buffer = self.program.buffers.get(storage(x))
        if buffer is None:  # a single number, which takes no memory
            return self.value(x, (Affine(),) * len(x.shape), where)
        guard = self.holds(where) if where else None
        return self.loaded(level, x.dtype, buffer, rest, dynamic, guard)

    def positions(
        self,
        node: Node,
        indices: tuple[Node, ...],
        axes: tuple[int, ...],
        shape: tuple[int, ...],
        index: Index_,
        level: int,
        where: Where = (),
    ) -> tuple[Positions, Address]:
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
            self.check(level, ok, code)
            dynamic.append((self.scalar(level, I64, "select", ok, at, zero), step[axis]))
        others = iter(index[depth:])
        rest: Address = Affine()
        for axis, stride in enumerate(step):
            if axis not in axes:
                rest = rest + next(others) * stride
        return tuple(dynamic), rest


def lower_kernel(program: Program, kernel: Kernel) -> LoopKernel:
    """Loop IR of a fused kernel."""
    if kernel.axes is not None and any(kernel.space[i] == 0 for i in kernel.outer):
        return LoopKernel(kernel.name, ())
    filled = _Fill(program, kernel)
    for phase in range(max(member.phase for member in kernel.members) + 1):
        filled.phase(phase)
    return LoopKernel(
        kernel.name, tuple(filled.statements()), comment=" ".join(n.op.name for n in kernel.nodes)
    )


class _Fill:
    """The loop nest of one kernel being filled, phase by phase.

    ``row`` is the depth of the loops outside of what is reduced, ``depth`` that of all.
    """

    def __init__(self, program: Program, kernel: Kernel) -> None:
        self.kernel = kernel
        order = [*kernel.outer, *(kernel.axes or ())]
        names = [Axis(ROWS if i == 0 else f"i{i}") for i in range(len(kernel.space))]
        index = list(index_over(names, kernel.space))
        if kernel.scan is not None:
            along, reverse = kernel.scan
            order.append(order.pop(order.index(along)))
            if reverse and kernel.space[along] != 1:
                index[along] = -index[along] + (kernel.space[along] - 1)
        loops = [i for i in order if kernel.space[i] != 1]
        self.inner = sum(1 for i in loops if kernel.axes is not None and i in kernel.axes)
        self.nest = Nest(program, [(names[i], kernel.space[i]) for i in loops])
        self.depth = len(loops)
        self.row = len(loops) - self.inner
        self.index: Index_ = tuple(index)
        self.row_index: Index_ = tuple(index[i] for i in kernel.outer)

    def phase(self, phase: int) -> None:
        """One pass over each row: what is computed for each element, then what is for the row."""
        nest, members = self.nest, [member for member in self.kernel.members if member.phase == phase]
        nest.open(self.inner)
        sums: list[Member] = []
        for member in members:
            if not member.outer:
                _inner_member(nest, member, self.index, self.row, self.depth, sums)
        nest.close(self.depth, self.inner)
        for member in self.kernel.members:
            if not member.is_row:
                nest.registers.pop(member.node, None)
        for member in sums:
            nest.keep(member.node, self.row_index, nest.registers[member.node], self.row)
        for member in members:
            if member.outer:
                ref = nest.registers[member.node] = nest.compute(member.node, self.row_index, self.row)
                nest.keep(member.node, self.row_index, ref, self.row)

    def statements(self) -> list[Statement]:
        """The whole nest."""
        self.nest.close(self.row, self.row)
        return self.nest.lists[0]


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
