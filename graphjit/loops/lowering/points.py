"""Loops and choices in registers: every element of every value is a value of its own.

Job: one kernel of a loop whose steps work on a few numbers (`graphjit.schedule.registers` says which).
Carries are handed on in registers, elements of arrays are loaded and stored where a step needs them.
Input: a program, a step. Output: a loop kernel.
Invariants: a value is computed as far outside as what it depends on allows, but never before a branch is
taken; nothing that can fail moves. Arrays that steps change lie in memory (`graphjit.schedule.versions`):
each version is read before the next is written over it.

    scan f64[2] of 100 steps       ->    t0 = load in0[0]; t1 = load in0[1]
      h = h * w + x                      repeat i0 in 0..100 from t2 = t0, t3 = t1:
                                           t4 = mul t2 w0 ... t8 = add t4 (load in2[2*i0])
                                           next t2 = t8, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    Positions,
    Push,
    Ref,
    Repeat,
    Statement,
    Store,
    Write,
)
from graphjit.loops.lowering.conditions import Where
from graphjit.loops.lowering.kernels import Index_, Nest
from graphjit.schedule.access import SHARES, storage
from graphjit.schedule.control import graphs_of, scratch, tapes_end_in
from graphjit.schedule.program import Control, Program
from graphjit.schedule.versions import (
    ADDED,
    Versions,
    changed_carries,
    changed_in_place,
    changed_results,
    order,
)
from graphjit.transforms.control.loops import kinds_of


def lower_in_registers(program: Program, step: Control) -> LoopKernel:
    """Loop IR of a loop or a choice that runs in registers."""
    points = Points(program)
    for arg in step.node.args:
        points.lies_in_memory(storage(arg), Array(program.buffers[storage(arg)]))
    into = [None if item is None else program.buffers[item] for item in step.results]
    homes: dict[int, Array] = {}
    for number, place in changed_in_place(step.node).items():
        part, home = step.node.parts[number], into[number]
        if home is None:
            offset = step.scratch + scratch(step).homes[number]
            home = Buffer(f"own{number}", part.dtype, part.size, "arena", offset)
        homes[number] = points.begin(step.node.args[place], home)
        into[number] = None
    found = points.control(step.node, into, homes)
    for buffer, refs in zip(into, found, strict=True):
        for at, ref in enumerate(refs if buffer is not None else ()):
            assert buffer is not None
            points.store(buffer, Affine(at), ref)
    return LoopKernel(step.name, tuple(points.lists[0]), comment=f"{step.node.op.name} in registers")


NOWHERE: Address = Affine()
"""No distance."""


@dataclass(frozen=True)
class Array:
    """A value in memory: element ``at`` lies at ``address + at``.

    One that steps change is there from list ``since`` on, until the next ``version`` is written over it.
    """

    buffer: Buffer
    address: Address = NOWHERE
    version: object = None
    since: int = 0

    def next(self, version: object, since: int) -> Array:
        """What the array becomes."""
        return replace(self, version=version, since=since)


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
        return self.once(
            (value.value.tobytes() if isinstance(value, Const) else value, dtype), dtype, value, 0
        )

    def once(self, key: Any, dtype: np.dtype, value: ir.Expression, since: int) -> Ref:
        """``value``, known as ``key``, as far outside as it can be; but not outside of list ``since``."""
        found = self.known(key)
        if found is None:
            place = max(self.place(value), since)
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

    def lies_in_memory(self, node: Node, array: Array) -> None:
        """Say where a value lies."""
        self.memo[-1]["array", node] = array  # type: ignore[assignment]

    def array(self, node: Node) -> Array | None:
        """Where a value lies, if it lies in memory."""
        found: Any = self.known(("array", storage(node)))
        return found  # type: ignore[no-any-return]

    def load(self, array: Array, address: Address, dtype: np.dtype, dynamic: Positions = ()) -> Ref:
        """An element of a value in memory."""
        value = Load(array.buffer, array.address + address, dynamic)
        if array.version is None:
            return self.let(0, dtype, value)
        return self.once(("load", array.version, value), dtype, value, array.since)

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
        array = self.array(node)
        if array is not None:
            return self.load(array, Affine(at), node.dtype)
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
        homes: dict[int, Array] = {}
        for number, place in changed_in_place(node).items():
            array = self.array(node.args[place])
            assert array is not None
            homes[number] = array
        found = self.control(node, [None] * len(node.parts), homes)
        self.memo[-1]["results", node] = found  # type: ignore[assignment]
        return found

    def control(
        self, node: Node, into: Sequence[Buffer | None], homes: Mapping[int, Array]
    ) -> list[list[Ref]]:
        """The elements of the results of a loop or a choice. Those that are stacked go ``into`` memory, and
        those that are changed in place have ``homes``: these have none here.
        """
        inner = graphs_of(node)
        if node.op.name == "cond":
            return self.choice(node, list(inner.values()), homes)
        carried: Any = node.attrs["carried"]
        first = kinds_of(node)[1].start
        starts = self.handed_on(node.args[first : first + carried], homes)
        axis = Axis(f"i{next(self._numbers)}")
        tapes = _Tapes(self, node, first + carried)
        place = self.enter()
        self.loops[axis] = place
        refs = [[self.handed(ref.dtype, place) for ref in refs] for refs in starts]
        tapes.begin(place)
        holds: Ref | None = tapes.more()
        if "test" in inner:
            self.stand_for(node, inner["test"], first, refs, homes)
            holds = self.element(inner["test"].outputs[0], 0)
        test, self.lists[place] = tuple(self.lists[place]), []
        body = inner["body"]
        self.stand_for(node, body, first, refs, homes)
        if node.op.name == "scan":
            self.slices(node, body, first + carried, axis)
        tapes.read(body.inputs)
        self.arrange(body, changed_carries(node) if homes else {}, homes)
        lefts = self.handed_on(body.outputs[:carried], homes)
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
        self.wrap(node, axis, handed, test, holds, bool(homes))
        made = [[ref] for ref in tapes.written] or [[] for _ in node.parts[carried:]]
        return [*refs, *made]

    def handed_on(self, carries: Sequence[Node], homes: Mapping[int, Array]) -> list[list[Ref]]:
        """The elements of carries; of arrays that are changed in place none."""
        return [[] if k in homes else self.elements(x) for k, x in enumerate(carries)]

    def wrap(
        self,
        node: Node,
        axis: Axis,
        handed: Sequence[Carried],
        test: tuple[Statement, ...],
        holds: Ref | None,
        changes: bool,
    ) -> None:
        """Put a loop around the innermost list."""
        statements = self.leave()
        del self.loops[axis]
        length: Any = node.attrs.get("length", 0)
        if not changes and self.is_map(node, handed, statements):
            self.lists[-1].append(For(axis, length, statements))
        else:
            lends = tapes_end_in(graphs_of(node)["body"])
            self.lists[-1].append(Repeat(axis, length, tuple(handed), statements, test, holds, lends))
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

    def stand_for(
        self,
        node: Node,
        body: Graph,
        first: int,
        refs: Sequence[Sequence[Ref]],
        homes: Mapping[int, Array],
    ) -> None:
        """What the inputs of a body are: constants of the loop, then carries."""
        self.constants(node.args[:first], body.inputs[:first])
        for k, (x, group) in enumerate(zip(body.inputs[first:], refs, strict=False)):
            if k in homes:
                self.lies_in_memory(x, homes[k].next(x, len(self.lists) - 1))
            else:
                self.memo[-1].update({(x, at): ref for at, ref in enumerate(group)})

    def constants(self, args: Sequence[Node], inputs: Sequence[Node]) -> None:
        """Inputs that are values from outside."""
        for arg, x in zip(args, inputs, strict=True):
            array = self.array(arg)
            if array is not None:
                self.lies_in_memory(x, array)
            else:
                self.memo[-1].update({(x, at): ref for at, ref in enumerate(self.elements(arg))})

    # ------------------------------------------------------------------------------------- arrays that change

    def begin(self, start: Node, home: Buffer) -> Array:
        """Copy an array to where steps change it."""
        array = self.array(start)
        assert array is not None
        axis, found = Axis(f"i{next(self._numbers)}"), self.fresh(home.dtype)
        load = Let(found, Load(array.buffer, array.address + axis_index(axis)))
        copy = (load, Store(home, axis_index(axis), found))
        self.lists[0].append(For(axis, home.size, copy))
        return Array(home)

    def arrange(self, graph: Graph, arrays: Mapping[int, Versions], homes: Mapping[int, Array]) -> None:
        """Read the versions of arrays that a body changes, and write the next ones, in order."""
        versions = {version: homes[k] for k, found in arrays.items() for version in found}
        for node in (order(graph, list(arrays.values())) or ()) if versions else ():
            if node in versions:
                if node not in graph.inputs:
                    self.write(node, versions[node])
            elif not any(arg in versions for arg in node.args):
                continue
            elif node.is_bundle:
                self.nested(node)
            else:
                self.elements(node)

    def write(self, node: Node, array: Array) -> None:
        """Make a version of an array: write what it changes. Loops and choices have done that."""
        if node.op.name == "scatter_set":
            self.scatter(node, node.args[1], node.args[2:], array)
        elif node.op.name == "add":
            added = next(arg for arg in node.args if arg.op.name in ADDED and arg.args[0].type.size == 1)
            if added.op.name == "embed":
                starts: Any = added.attrs["starts"]
                address = array.address + linear(node.shape, tuple(map(Affine, starts)))
                self.lists[-1].append(Store(array.buffer, address, self.element(added.args[0], 0), (), "add"))
            else:
                self.scatter(added, added.args[0], added.args[1:], array, "add")
        self.lies_in_memory(node, array.next(node, len(self.lists) - 1))

    def scatter(
        self, node: Node, updates: Node, indices: tuple[Node, ...], array: Array, combine: str = ""
    ) -> None:
        """Write ``updates`` at positions."""
        axes: Any = node.attrs["axes"]
        for at in np.ndindex(*updates.shape):
            index: Index_ = tuple(map(Affine, at))
            dynamic, rest = self.positions(node, indices, axes, node.shape, index, 0)
            value = self.value(updates, index)
            self.lists[-1].append(Store(array.buffer, array.address + rest, value, dynamic, combine))

    def check(self, level: int, ok: Ref, code: int) -> None:
        """Report ``code`` unless ``ok`` holds: here, unless that was done on the way here."""
        key = ("check", ok, code)
        if self.known(key) is None:
            self.memo[-1][key] = ok
            self.lists[-1].append(ir.Check(ok, code))

    def picked(self, x: Node, dynamic: Positions, rest: Address, level: int, where: Where) -> Ref:
        """The element of ``x`` at a checked place."""
        array = self.array(x)
        if array is None:
            raise IRError(f"{x!r} is in registers, which have no places")
        return self.load(array, rest, x.dtype, dynamic)

    # ------------------------------------------------------------------------------------- parts of a node

    def slices(self, node: Node, body: Graph, first: int, axis: Axis) -> None:
        """Inputs that are elements of arrays."""
        for arg, x in zip(node.args[first:], body.inputs[first:], strict=True):
            array, number = self.array(arg), _step(node, axis)
            if array is not None:
                self.lies_in_memory(x, replace(array, address=array.address + number * x.type.size))
            else:
                for at, place in enumerate(np.ndindex(*x.shape)):
                    self.memo[-1][x, at] = self.compute(arg, (number, *map(Affine, place)), 0)

    def stack(self, node: Node, body: Graph, carried: int, axis: Axis, into: Sequence[Buffer | None]) -> None:
        """Store what a step computes besides the carries."""
        for out, buffer in zip(body.outputs[carried:], into[carried:], strict=True):
            if buffer is not None:
                address = _step(node, axis) * out.type.size
                for at, ref in enumerate(self.elements(out)):
                    self.store(buffer, address + at, ref)

    def choice(self, node: Node, branches: Sequence[Graph], homes: Mapping[int, Array]) -> list[list[Ref]]:
        """A choice between branches."""
        which = self.element(node.args[0], 0)
        floor, bodies, lefts = self.floor, [], []
        changed = changed_results(node) if homes else {}
        for number, branch in enumerate(branches):
            self.floor = self.enter()
            self.constants(node.args[1:], branch.inputs)
            for k, (at, _) in changed.items():
                self.lies_in_memory(branch.inputs[at - 1], homes[k].next(branch.inputs[at - 1], self.floor))
            self.arrange(branch, {k: chains[number] for k, (_, chains) in changed.items()}, homes)
            outs = [out for k, out in enumerate(branch.outputs) if k not in homes]
            lefts.append([ref for out in outs for ref in self.elements(out)])
            bodies.append(self.leave())
        self.floor = floor
        flat = [self.handed(ref.dtype, len(self.lists) - 1) for ref in lefts[0]]
        results = tuple((ref, tuple(left[i] for left in lefts)) for i, ref in enumerate(flat))
        self.lists[-1].append(Choose(which, tuple(bodies), results))
        rest = iter(flat)
        return [
            [] if k in homes else [next(rest) for _ in range(part.size)] for k, part in enumerate(node.parts)
        ]


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
