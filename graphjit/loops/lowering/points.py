"""Loops and choices in registers: every element of every value is a value of its own.

Job: one kernel of a loop whose steps work on a few numbers (`graphjit.schedule.registers` says which).
Carries are handed on in registers, elements of arrays are loaded and stored where a step needs them.
Input: a program, a step. Output: a loop kernel.
Invariants: a value is computed as far outside as what it depends on allows, but never before a branch is
taken; nothing that can fail moves.

    scan f64[2] of 100 steps       ->    t0 = load in0[0]; t1 = load in0[1]
      h = h * w + x                      repeat i0 in 0..100 from t2 = t0, t3 = t1:
                                           t4 = mul t2 w0 ... t8 = add t4 (load in2[2*i0])
                                           next t2 = t8, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.affine import Affine, axis_index, linear
from graphjit.ir.buffers import TAPES, Buffer
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Reduce
from graphjit.ir.types import BOOL, I64
from graphjit.loops import ir
from graphjit.loops.ir import (
    Address,
    Axis,
    Carried,
    Choose,
    Const,
    For,
    Index,
    Let,
    Load,
    LoopKernel,
    Peek,
    Push,
    Ref,
    Repeat,
    Statement,
    Store,
    Write,
)
from graphjit.loops.lowering.kernels import Index_, Nest, Where
from graphjit.schedule.access import SHARES, storage
from graphjit.schedule.control import graphs_of
from graphjit.schedule.program import Control, Program


def lower_in_registers(program: Program, step: Control) -> LoopKernel:
    """Loop IR of a loop or a choice that runs in registers."""
    points = Points(program)
    for arg in step.node.args:
        points.lies_in_memory(storage(arg), program.buffers[storage(arg)])
    into = [None if item is None else program.buffers[item] for item in step.results]
    found = points.control(step.node, into)
    for buffer, refs in zip(into, found, strict=True):
        for at, ref in enumerate(refs if buffer is not None else ()):
            assert buffer is not None
            points.store(buffer, Affine(at), ref)
    return LoopKernel(step.name, tuple(points.lists[0]), comment=f"{step.node.op.name} in registers")


@dataclass(frozen=True)
class Array:
    """A value in memory: element ``at`` lies at ``address + at``."""

    buffer: Buffer
    address: Address


class Points(Nest):
    """Statements of nested loops and branches, filled from inside out.

    The lists of `Nest` are those of the loops that are open. ``home`` has the number of the list in which a
    ref is defined.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program, [])
        self.home: dict[Ref, int] = {}
        self.floor = 0
        """List of the innermost branch that is open: nothing moves out of it."""
        self.loops: dict[Axis, int] = {}
        """The list of the steps of each loop that is open."""

    # ------------------------------------------------------------------------------------------------- places

    def enter(self) -> int:
        """Open a list; its number."""
        self.lists.append([])
        self.memo.append({})
        return len(self.lists) - 1

    def leave(self) -> tuple[Statement, ...]:
        """Close the innermost list; what was known in it is forgotten."""
        self.memo.pop()
        return tuple(self.lists.pop())

    def known(self, key: Any) -> Any:
        """What is remembered in a list that is open."""
        return next((memo[key] for memo in reversed(self.memo) if key in memo), None)

    def let(self, level: int, dtype: np.dtype, value: ir.Expression) -> Ref:
        """Compute ``value`` as far outside as it can be; ``level`` is not asked."""
        key = (value.value.tobytes() if isinstance(value, Const) else value, dtype)
        found = self.known(key)
        if found is None:
            place = self.place(value)
            found = self.memo[place][key] = self.fresh(dtype)
            self.home[found] = place
            self.lists[place].append(Let(found, value))
        assert isinstance(found, Ref)
        return found

    def place(self, value: ir.Expression) -> int:
        """The outermost list in which ``value`` can be computed."""
        if isinstance(value, Const):
            return 0
        if isinstance(value, ir.Scalar):
            if value.check:
                return len(self.lists) - 1
            return max(self.floor, *(self.home[ref] for ref in value.args))
        if isinstance(value, Peek):
            return len(self.lists) - 1
        address = value.value if isinstance(value, Index) else value.address
        places = [self.loops[axis] for axis in address.terms]
        if isinstance(value, Load):
            places += [self.home[ref] for ref in value.refs]
        return max(self.floor if isinstance(value, Load) else 0, *places, 0)

    # ------------------------------------------------------------------------------------------------- values

    def lies_in_memory(self, node: Node, buffer: Buffer, address: Address | None = None) -> None:
        """Say where a value lies."""
        self.memo[-1]["array", node] = Array(buffer, address or Affine())  # type: ignore[assignment]

    def value(self, node: Node, index: Index_, where: Where = ()) -> Ref:
        """The element of ``node`` at ``index``, which is known numbers."""
        return self.element(node, linear(node.shape, index).offset)

    def elements(self, node: Node) -> list[Ref]:
        """All elements of a value."""
        return [self.element(node, at) for at in range(node.type.size)]

    def element(self, node: Node, at: int) -> Ref:
        """One element, by its place in row-major order."""
        while node.op.name in SHARES:
            node = node.args[0]
        found = self.known((node, at))
        if found is not None:
            assert isinstance(found, Ref)
            return found
        array = self.known(("array", node))
        if array is not None:
            return self.let(0, node.dtype, Load(array.buffer, array.address + at))
        if node.op.name == "item":
            owner: Node = node.args[0]
            results = self.known(("results", owner)) or self.nested(owner)
            number: Any = node.attrs["index"]
            ref: Ref = results[number][at]
            return ref
        made = self.memo[-1][node, at] = self.made(node, at)
        return made

    def made(self, node: Node, at: int) -> Ref:
        """Compute one element."""
        if node.is_const:
            return self.const(node.attrs["value"].array.reshape(-1)[at], node.dtype)  # type: ignore[attr-defined]
        place = tuple(int(i) for i in np.unravel_index(at, node.shape)) if node.shape else ()
        if isinstance(node.op.lower, Reduce):
            return self.reduced(node, place)
        if node.op.name == "concatenate":
            return self.piece(node, place)
        return self.compute(node, tuple(Affine(i) for i in place), len(self.lists) - 1)

    def reduced(self, node: Node, place: tuple[int, ...]) -> Ref:
        """An element of a sum and the like: its terms one after the other."""
        (x,) = node.args
        axes: Any = node.attrs["axes"]
        combine = node.op.lower.combine  # type: ignore[union-attr]
        op = {"max": "maximum", "min": "minimum"}.get(combine, combine)
        rest = iter(place)
        fixed = [None if axis in axes else next(rest) for axis in range(len(x.shape))]
        total: Ref | None = None
        for inner in np.ndindex(*(x.shape[axis] for axis in axes)):
            along = iter(inner)
            index: Index_ = tuple(Affine(next(along) if i is None else i) for i in fixed)
            term = self.value(x, index)
            total = term if total is None else self.scalar(0, node.dtype, op, total, term)
        if total is None:
            return self.const(ir.identity(combine, node.dtype), node.dtype)
        return total

    def piece(self, node: Node, place: tuple[int, ...]) -> Ref:
        """An element of a concatenation."""
        axis: Any = node.attrs["axis"]
        at = place[axis]
        for arg in node.args:
            if at < arg.shape[axis]:
                return self.value(arg, tuple(Affine(at if i == axis else p) for i, p in enumerate(place)))
            at -= arg.shape[axis]
        raise IRError(f"{node!r} has no element {place}")

    # --------------------------------------------------------------------------------------------- loops

    def nested(self, node: Node) -> list[list[Ref]]:
        """A loop or a choice inside a body."""
        found = self.control(node, [None] * len(node.parts))
        self.memo[-1]["results", node] = found  # type: ignore[assignment]
        return found

    def control(self, node: Node, into: Sequence[Buffer | None]) -> list[list[Ref]]:
        """The elements of the results of a loop or a choice; those that are stacked go ``into`` memory, and
        have none here.
        """
        inner = graphs_of(node)
        if node.op.name == "cond":
            return self.choice(node, list(inner.values()))
        carried: Any = node.attrs["carried"]
        sliced: Any = node.attrs.get("sliced", node.attrs.get("tapes", 0))
        first = len(node.args) - carried - sliced
        starts = [self.elements(arg) for arg in node.args[first : first + carried]]
        axis = Axis(f"i{next(self._numbers)}")
        tapes = _Tapes(self, node, first + carried)
        place = self.enter()
        self.loops[axis] = place
        refs = [[self.handed(ref.dtype, place) for ref in refs] for refs in starts]
        tapes.begin(place)
        holds: Ref | None = tapes.more()
        if "test" in inner:
            self.stand_for(node, inner["test"], first, refs)
            holds = self.element(inner["test"].outputs[0], 0)
        test, self.lists[place] = tuple(self.lists[place]), []
        body = inner["body"]
        self.stand_for(node, body, first, refs)
        if node.op.name == "scan":
            self.slices(node, body, first + carried, axis)
        tapes.read(body.inputs)
        lefts = [self.elements(out) for out in body.outputs[:carried]]
        if node.op.name == "scan":
            self.stack(node, body, carried, axis, into)
        else:
            tapes.write([self.elements(out) for out in body.outputs[carried:]])
        handed = [
            Carried(ref, start, left)
            for k in range(carried)
            for ref, start, left in zip(refs[k], starts[k], lefts[k], strict=True)
        ]
        handed += tapes.carried()
        self.wrap(node, axis, handed, test, holds)
        made = [[ref] for ref in tapes.written] or [[] for _ in node.parts[carried:]]
        return [*refs, *made]

    def wrap(
        self,
        node: Node,
        axis: Axis,
        handed: Sequence[Carried],
        test: tuple[Statement, ...],
        holds: Ref | None,
    ) -> None:
        """Put a loop around the innermost list."""
        statements = self.leave()
        del self.loops[axis]
        length: Any = node.attrs.get("length", 0)
        if self.is_map(node, handed, statements):
            self.lists[-1].append(For(axis, length, statements))
        else:
            self.lists[-1].append(Repeat(axis, length, tuple(handed), statements, test, holds))
        self.home.update({c.ref: len(self.lists) - 1 for c in handed})

    def is_map(self, node: Node, handed: Sequence[Carried], statements: Sequence[Statement]) -> bool:
        """Whether steps are independent, so that they may run in lanes and on threads; tapes have one memory
        for all.
        """
        alone = node.op.name == "scan" and not handed and len(self.lists) == 1
        return alone and not any(isinstance(s, Push) for s in ir.walk(tuple(statements)))

    def word(self, node: Node) -> Ref:
        """A tape, as a number."""
        ref = self.element(node, 0)
        return ref if ref.dtype == I64 else self.scalar(0, I64, "convert", ref)

    def store(self, buffer: Buffer, address: Address, ref: Ref) -> None:
        """Store a value, a tape too."""
        if ref.dtype != buffer.dtype:
            ref = self.scalar(0, buffer.dtype, "convert", ref)
        self.lists[-1].append(Store(buffer, address, ref))

    def handed(self, dtype: np.dtype, place: int) -> Ref:
        """A value that is there when a list begins."""
        ref = self.fresh(dtype)
        self.home[ref] = place
        return ref

    def stand_for(self, node: Node, body: Graph, first: int, refs: Sequence[Sequence[Ref]]) -> None:
        """What the inputs of a body are: constants of the loop, then carries."""
        self.constants(node.args[:first], body.inputs[:first])
        for x, group in zip(body.inputs[first:], refs, strict=False):
            self.memo[-1].update({(x, at): ref for at, ref in enumerate(group)})

    def constants(self, args: Sequence[Node], inputs: Sequence[Node]) -> None:
        """Inputs that are values from outside."""
        for arg, x in zip(args, inputs, strict=True):
            array = self.known(("array", storage(arg)))
            if array is not None:
                self.lies_in_memory(x, array.buffer, array.address)
            else:
                self.memo[-1].update({(x, at): ref for at, ref in enumerate(self.elements(arg))})

    def slices(self, node: Node, body: Graph, first: int, axis: Axis) -> None:
        """Inputs that are elements of arrays."""
        for arg, x in zip(node.args[first:], body.inputs[first:], strict=True):
            array = self.known(("array", storage(arg)))
            self.lies_in_memory(x, array.buffer, array.address + _step(node, axis) * x.type.size)

    def stack(self, node: Node, body: Graph, carried: int, axis: Axis, into: Sequence[Buffer | None]) -> None:
        """Store what a step computes besides the carries."""
        for out, buffer in zip(body.outputs[carried:], into[carried:], strict=True):
            if buffer is not None:
                address = _step(node, axis) * out.type.size
                for at, ref in enumerate(self.elements(out)):
                    self.store(buffer, address + at, ref)

    def choice(self, node: Node, branches: Sequence[Graph]) -> list[list[Ref]]:
        """A choice between branches."""
        which = self.element(node.args[0], 0)
        floor, bodies, lefts = self.floor, [], []
        for branch in branches:
            self.floor = self.enter()
            self.constants(node.args[1:], branch.inputs)
            lefts.append([ref for out in branch.outputs for ref in self.elements(out)])
            bodies.append(self.leave())
        self.floor = floor
        flat = [self.handed(ref.dtype, len(self.lists) - 1) for ref in lefts[0]]
        results = tuple((ref, tuple(left[i] for left in lefts)) for i, ref in enumerate(flat))
        self.lists[-1].append(Choose(which, tuple(bodies), results))
        rest = iter(flat)
        return [[next(rest) for _ in range(part.size)] for part in node.parts]


class _Tapes:
    """The tapes that a loop reads and writes. Their words are handed on like carries."""

    def __init__(self, points: Points, node: Node, first: int) -> None:
        self.points = points
        self.starts: list[Ref] = []
        self.blank: list[Ref] = []
        if node.op.name == "unwind":
            self.starts = [points.word(arg) for arg in node.args[first:]]
        if node.op.name != "scan":
            carried: Any = node.attrs["carried"]
            self.blank = [points.const(0, I64) for _ in node.parts[carried:]]
        self.words: list[Ref] = []
        self.written: list[Ref] = []
        self.before: list[Ref] = []
        self.after: list[Ref] = []

    def begin(self, place: int) -> None:
        """In the list of the steps."""
        self.words = [self.points.handed(I64, place) for _ in self.starts]
        self.written = [self.points.handed(I64, place) for _ in self.blank]

    def more(self) -> Ref | None:
        """Whether there is something on the tapes; None for loops that read none."""
        if not self.words:
            return None
        return self.points.scalar(0, BOOL, "ne", self.words[0], self.points.const(0, I64))

    def read(self, inputs: Sequence[Node]) -> None:
        """The values that a step reads are the last inputs of the body."""
        for word, x in zip(self.words, inputs[len(inputs) - len(self.words) :], strict=True):
            for at in range(x.type.size):
                value = Peek(word, at)
                self.points.memo[-1][x, at] = self.points.let(0, I64 if x.type.record else x.dtype, value)
        self.before = [self.points.let(0, I64, Peek(word, -1)) for word in self.words]

    def write(self, values: Sequence[Sequence[Ref]]) -> None:
        """What a step computes besides carries."""
        if not values:
            return
        self.after = [self.points.handed(I64, len(self.points.lists) - 1) for _ in values]
        rows = zip(self.after, self.written, values, strict=True)
        writes = tuple(Write(ref, before, tuple(refs)) for ref, before, refs in rows)
        self.points.lists[-1].append(Push(TAPES, writes))

    def carried(self) -> list[Carried]:
        """What steps hand on."""
        rows = (
            *zip(self.words, self.starts, self.before, strict=True),
            *zip(self.written, self.blank, self.after, strict=True),
        )
        return [Carried(*row) for row in rows]


def _step(node: Node, axis: Axis) -> Address:
    """The number of a step among the elements of the arrays."""
    length: Any = node.attrs["length"]
    return -axis_index(axis) + (length - 1) if node.attrs["reverse"] else axis_index(axis)
