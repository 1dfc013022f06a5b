"""Loops and choices in registers: every element of every value is a value of its own.

Job: one kernel of a loop whose steps work on a few numbers (`graphjit.schedule.loops.registers` says which).
Carries are handed on in registers, elements of arrays are loaded and stored where a step needs them.
Input: a program, a step. Output: a loop kernel.
Invariants: a value is computed as far outside as what it depends on allows, but never before a branch is
taken; nothing that can fail moves. Arrays that steps change lie in memory
(`graphjit.schedule.loops.versions`): each version is read before the next is written over it.

    scan f64[2] of 100 steps       ->    t0 = load in0[0]; t1 = load in0[1]
      h = h * w + x                      repeat i0 in 0..100 from t2 = t0, t3 = t1:
                                           t4 = mul t2 w0 ... t8 = add t4 (load in2[2*i0])
                                           next t2 = t8, ...
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.affine import Affine, axis_index, linear
from graphjit.ir.buffers import Buffer
from graphjit.ir.node import Graph, Node, with_bodies
from graphjit.ir.opdef import Reduce
from graphjit.ir.scalars import identity
from graphjit.ir.types import I64
from graphjit.loops import ir
from graphjit.loops.ir import (
    Address,
    Axis,
    Carried,
    Choose,
    For,
    Let,
    Load,
    LoopKernel,
    Positions,
    Push,
    Ref,
    Repeat,
    Statement,
    Store,
)
from graphjit.loops.lowering.conditions import Where
from graphjit.loops.lowering.kernels import Index_
from graphjit.loops.lowering.open_loops import OpenLoops
from graphjit.loops.lowering.stacks import Layout
from graphjit.loops.lowering.tapes import Tapes
from graphjit.schedule.access import SHARES, storage
from graphjit.schedule.batches.axes import Batch, shared_loop, shared_results
from graphjit.schedule.loops.control import graphs_of, scratch, tapes_end_in
from graphjit.schedule.loops.registers import batches_in_registers, is_stack, is_stacked
from graphjit.schedule.loops.versions import (
    ADDED,
    Versions,
    changed_carries,
    changed_in_place,
    changed_results,
    order,
)
from graphjit.schedule.program import Control, Program
from graphjit.transforms.control.loops import kinds_of


def lower_in_registers(program: Program, step: Control) -> LoopKernel:
    """Loop IR of a loop or a choice that runs in registers."""
    node, batches = step.node, batches_in_registers(step.node)
    points = Points(program, [(Axis(f"b{i}"), batch) for i, batch in enumerate(batches)])
    for arg in node.args:
        points.lies_in_memory(storage(arg), Array(program.buffers[storage(arg)]))
    into = [None if item is None else program.buffers[item] for item in step.results]
    if batches:
        points.over_batches(node, into)
    else:
        points.whole(node, into, {k: step.scratch + at for k, at in scratch(step).homes.items()})
    comment = f"{node.op.name} in registers"
    return LoopKernel(step.name, tuple(points.lists[0]), comment, locals=tuple(points.stacks))


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
    layout: Layout | None = None
    """Of what is kept for a block of a batch only."""

    def next(self, version: object, since: int) -> Array:
        """What the array becomes."""
        return replace(self, version=version, since=since)

    def place(self, at: Address) -> Address:
        """Where an element lies."""
        return self.address + at if self.layout is None else self.layout.where(self.address + at)

    def step(self, node: Node, number: int, axis: Axis) -> Array:
        """Of an array with an element for each step of a loop: the element of this step."""
        size = math.prod(node.parts[number].shape[1:])
        return replace(self, address=self.address + _step(node, axis) * size)


class Points(OpenLoops):
    """Statements of nested loops and branches, filled from inside out.

    The lists of `Nest` are those of the loops that are open. ``home`` has the number of the list in which a
    ref is defined.
    """

    def __init__(self, program: Program, batches: Sequence[tuple[Axis, Batch]] = ()) -> None:
        super().__init__(program, batches)
        self.kept: dict[tuple[Node, int], Array] = {}
        """Where loops inside stack what is an element of a stack itself."""

    # -------------------------------------------------------------------------------------------------- whole

    def whole(self, node: Node, into: Sequence[Buffer | None], spare: Mapping[int, int]) -> None:
        """A loop or a choice, whose results go ``into`` memory. Arrays that it changes and that nobody reads
        lie at ``spare`` places of the arena.
        """
        rest, homes = list(into), dict[int, Array]()
        for number, place in changed_in_place(node).items():
            part, home = node.parts[number], into[number]
            if home is None:
                home = Buffer(f"own{number}", part.dtype, part.size, "arena", spare[number])
            homes[number] = self.begin(node.args[place], home)
            rest[number] = None
        self.store_results(node, rest, homes)

    def over_batches(self, node: Node, into: Sequence[Buffer | None]) -> None:
        """A loop for each element of a batch. What is the same for all of them a loop before computes."""
        around, shared = self.batches, shared_results(node, [batch for _, batch in self.batches])
        alone = shared_loop(node, [batch for _, batch in around])
        if alone is not None and any(into[k] is not None for k in shared):
            self.batches = ()
            self.whole(alone, [into[k] for k in shared], {})
            self.batches = around
        self.open_batches(in_blocks=any(map(is_stack, with_bodies(graphs_of(node)["body"]))))
        rest = [None if k in shared else buffer for k, buffer in enumerate(into)]
        self.store_results(node, rest, {})
        self.close_batches()

    def store_results(self, node: Node, into: Sequence[Buffer | None], homes: Mapping[int, Array]) -> None:
        """A loop or a choice whose results go ``into`` memory."""
        stacks = {k: Array(home) for k, home in enumerate(into) if home is not None and is_stacked(node, k)}
        found = self.control(node, stacks, homes)
        for k, (buffer, refs) in enumerate(zip(into, found, strict=True)):
            if buffer is not None and k not in stacks:
                for at, ref in zip(self.result_places(node, k), refs, strict=True):
                    self.store(buffer, at, ref)

    # ------------------------------------------------------------------------------------------------- values

    def lies_in_memory(self, node: Node, array: Array) -> None:
        """Say where a value lies."""
        self.memo[-1]["array", node] = array  # type: ignore[assignment]

    def array(self, node: Node) -> Array | None:
        """Where a value lies, if it lies in memory."""
        node = storage(node)
        found: Any = self.known(("array", node))
        if found is None and self.batches and is_stack(node):
            key = "stack", node.args[0], node.attrs["index"]
            if self.known(key) is None:
                self.nested(node.args[0])
            found = self.known(key)
        return found  # type: ignore[no-any-return]

    def load(self, array: Array, address: Address, dtype: np.dtype, dynamic: Positions = ()) -> Ref:
        """An element of a value in memory."""
        value = Load(array.buffer, array.place(address), dynamic)
        if array.version is None:
            return self.let(0, dtype, value)
        return self.once(("load", array.version, value), dtype, value, array.since)

    def value(self, node: Node, index: Index_, where: Where = ()) -> Ref:
        """The element of ``node`` at ``index``: known numbers, and loops over the batch."""
        return self.element(node, linear(node.shape, index))

    def elements(self, node: Node) -> list[Ref]:
        """All elements of a value."""
        return [self.element(node, at) for at in self.places(node)]

    def result(self, owner: Node, number: int, node: Node) -> list[Ref]:
        """All elements of ``node``, which becomes a result of a loop or a choice; of a tape its number."""
        if owner.parts[number].record is not None:
            return [self.word(node)]
        return [self.element(node, at) for at in self.result_places(owner, number)]

    def element(self, node: Node, at: Address = NOWHERE) -> Ref:
        """One element, by its place in row-major order."""
        while node.op.name in SHARES:
            node = node.args[0]
        found = self.known((node, at))
        if found is not None:
            assert isinstance(found, Ref)
            return found
        array = self.array(node)
        if array is not None:
            return self.load(array, at, node.dtype)
        if node.op.name == "item":
            owner: Node = node.args[0]
            results = self.known(("results", owner)) or self.nested(owner)
            number: Any = node.attrs["index"]
            ref: Ref = results[number][at]
            return ref
        made = self.memo[-1][node, at] = self.made(node, at)
        return made

    def made(self, node: Node, at: Address) -> Ref:
        """Compute one element."""
        if node.is_const:
            return self.const(node.attrs["value"].array.reshape(-1)[at.offset], node.dtype)  # type: ignore[attr-defined]
        place = self.index_of(node.shape, at)
        if isinstance(node.op.lower, Reduce):
            return self.reduced(node, place)
        if node.op.name == "concatenate":
            return self.piece(node, place)
        return self.compute(node, place, len(self.lists) - 1)

    def reduced(self, node: Node, place: Index_) -> Ref:
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
            index: Index_ = tuple(Affine(next(along)) if i is None else i for i in fixed)
            term = self.value(x, index)
            total = term if total is None else self.scalar(0, node.dtype, op, total, term)
        if total is None:
            return self.const(identity(combine, node.dtype), node.dtype)
        return total

    def piece(self, node: Node, place: Index_) -> Ref:
        """An element of a concatenation."""
        axis: Any = node.attrs["axis"]
        at = place[axis].offset
        for arg in node.args:
            if at < arg.shape[axis]:
                return self.value(arg, (*place[:axis], Affine(at), *place[axis + 1 :]))
            at -= arg.shape[axis]
        raise IRError(f"{node!r} has no element {place}")

    # --------------------------------------------------------------------------------------------- loops

    def nested(self, node: Node) -> list[dict[Address, Ref]]:
        """A loop or a choice inside a body: its results, by their places."""
        homes: dict[int, Array] = {}
        for number, place in changed_in_place(node).items() if not self.batches else ():
            array = self.array(node.args[place])
            assert array is not None
            homes[number] = array
        stacks = {k: self.stacked(node, k) for k in range(len(node.parts)) if is_stacked(node, k)}
        refs = self.control(node, stacks, homes)
        self.memo[-1].update((("stack", node, k), array) for k, array in stacks.items())  # type: ignore[misc]
        found = [
            dict(zip(self.result_places(node, k), group, strict=True)) if group else {}
            for k, group in enumerate(refs)
        ]
        self.memo[-1]["results", node] = found  # type: ignore[assignment]
        return found

    def stacked(self, node: Node, number: int) -> Array:
        """Memory for what a loop inside stacks: that of an element of a stack around, or for a block of the
        batch.
        """
        part, since = node.parts[number], len(self.lists) - 1
        if (node, number) in self.kept:
            return replace(self.kept[node, number], version=node, since=since)
        _, batch = self.batches[-1]
        layout = Layout(part.shape, batch.results[node, number], self.width, self.block)
        buffer = Buffer(f"s{len(self.stacks)}", part.dtype, math.prod(layout.narrow), "scratch")
        self.stacks.append(buffer)
        return Array(buffer, version=node, since=since, layout=layout)

    def control(self, node: Node, stacks: Mapping[int, Array], homes: Mapping[int, Array]) -> list[list[Ref]]:
        """The elements of the results of a loop or a choice. Those that are stacked go to ``stacks``, and
        those that are changed in place have ``homes``: these have none here.
        """
        inner = graphs_of(node)
        if node.op.name == "cond":
            return self.choice(node, list(inner.values()), homes)
        carried: Any = node.attrs["carried"]
        first = kinds_of(node)[1].start
        starts = self.handed_on(node, node.args[first : first + carried], homes)
        axis = Axis(f"i{next(self._numbers)}")
        tapes = Tapes(
            self, node, [self.word(x) for x in node.args[first + carried :] if node.op.name == "unwind"]
        )
        place = self.enter()
        self.loops[axis], self.extents[axis] = place, node.attrs.get("length", 0)  # type: ignore[assignment]
        refs = [[self.handed(ref.dtype, place) for ref in refs] for refs in starts]
        tapes.begin(place)
        holds: Ref | None = tapes.more()
        if "test" in inner:
            self.stand_for(node, inner["test"], first, refs, homes)
            holds = self.element(inner["test"].outputs[0])
        test, self.lists[place] = tuple(self.lists[place]), []
        body = inner["body"]
        self.stand_for(node, body, first, refs, homes)
        if node.op.name == "scan":
            self.slices(node, body, first + carried, axis)
            stacks = {k: array.step(node, k, axis) for k, array in stacks.items()}
            self.place_stacks(body, stacks)
        tapes.read(body.inputs)
        self.arrange(body, changed_carries(node) if homes else {}, homes)
        lefts = self.handed_on(node, body.outputs[:carried], homes)
        if node.op.name == "scan":
            self.stack(node, body, stacks)
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

    def handed_on(self, node: Node, carries: Sequence[Node], homes: Mapping[int, Array]) -> list[list[Ref]]:
        """The elements of carries; of arrays that are changed in place none."""
        return [[] if k in homes else self.result(node, k, x) for k, x in enumerate(carries)]

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
        if length == 1 and not handed and not changes:
            self.lists[-1] += statements
        elif not changes and self.is_map(node, handed, statements):
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
        ref = self.element(node)
        return ref if ref.dtype == I64 else self.scalar(0, I64, "convert", ref)

    def store(self, buffer: Buffer, address: Address, ref: Ref) -> None:
        """Store a value, a tape too."""
        if ref.dtype != buffer.dtype:
            ref = self.scalar(0, buffer.dtype, "convert", ref)
        self.lists[-1].append(Store(buffer, address, ref))

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
                self.memo[-1].update(
                    {(x, at): ref for at, ref in zip(self.result_places(node, k), group, strict=True)}
                )

    def constants(self, args: Sequence[Node], inputs: Sequence[Node]) -> None:
        """Inputs that are values from outside."""
        for arg, x in zip(args, inputs, strict=True):
            array = self.array(arg)
            if array is not None:
                self.lies_in_memory(x, array)
            elif not self.batches or all(x in batch.values for _, batch in self.batches):
                self.memo[-1].update({(x, at): self.element(arg, at) for at in self.places(x)})

    # ------------------------------------------------------------------------------------- arrays that change

    def begin(self, start: Node, home: Buffer) -> Array:
        """Copy an array to where steps change it, unless it lies there."""
        array = self.array(start)
        assert array is not None
        if array.buffer is home:
            return Array(home)
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
                self.lists[-1].append(Store(array.buffer, address, self.element(added.args[0]), (), "add"))
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
                for index in self.indices(x.shape, [batch.values.get(x) for _, batch in self.batches]):
                    self.memo[-1][x, linear(x.shape, index)] = self.compute(arg, (number, *index), 0)

    def place_stacks(self, body: Graph, stacks: Mapping[int, Array]) -> None:
        """Say where loops inside stack what is an element of a stack of the loop around."""
        for k, array in stacks.items():
            out = storage(body.outputs[k])
            if self.batches and is_stack(out):
                self.kept[out.args[0], out.attrs["index"]] = array  # type: ignore[index]

    def stack(self, node: Node, body: Graph, stacks: Mapping[int, Array]) -> None:
        """Store what a step computes besides the carries; what loops inside stack they store there."""
        for k, array in stacks.items():
            out = storage(body.outputs[k])
            if self.batches and is_stack(out):
                self.array(out)
                continue
            for at in self.result_places(node, k):
                self.store(array.buffer, array.place(at), self.element(out, at))

    def choice(self, node: Node, branches: Sequence[Graph], homes: Mapping[int, Array]) -> list[list[Ref]]:
        """A choice between branches."""
        which = self.element(node.args[0])
        floor, bodies, lefts = self.floor, [], []
        changed = changed_results(node) if homes else {}
        for number, branch in enumerate(branches):
            self.floor = self.enter()
            self.constants(node.args[1:], branch.inputs)
            for k, (at, _) in changed.items():
                self.lies_in_memory(branch.inputs[at - 1], homes[k].next(branch.inputs[at - 1], self.floor))
            self.arrange(branch, {k: chains[number] for k, (_, chains) in changed.items()}, homes)
            outs = [(k, out) for k, out in enumerate(branch.outputs) if k not in homes]
            lefts.append([ref for k, out in outs for ref in self.result(node, k, out)])
            bodies.append(self.leave())
        self.floor = floor
        flat = [self.handed(ref.dtype, len(self.lists) - 1) for ref in lefts[0]]
        results = tuple((ref, tuple(left[i] for left in lefts)) for i, ref in enumerate(flat))
        self.lists[-1].append(Choose(which, tuple(bodies), results))
        rest = iter(flat)
        return [
            [] if k in homes else [next(rest) for _ in self.result_places(node, k)]
            for k in range(len(node.parts))
        ]


def _step(node: Node, axis: Axis) -> Address:
    """The number of a step among the elements of the arrays."""
    length: Any = node.attrs["length"]
    if length == 1:
        return NOWHERE
    return -axis_index(axis) + (length - 1) if node.attrs["reverse"] else axis_index(axis)
