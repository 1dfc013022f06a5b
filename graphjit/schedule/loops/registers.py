"""Which loops and choices run in registers.

A loop whose steps work on a few numbers would spend its time calling kernels and moving carries through
memory. It becomes one kernel instead, in which every element of every value is a value in a register
(`graphjit.loops.lowering.points`). ``x = x - f(x) / df(x)`` in a ``while`` is such a loop; a recurrent
network of 32 neurons is not: its steps are loops over lanes.

Where the elements of a batch never meet (`graphjit.schedule.batches.axes`), a few numbers of each count.

Input: a node of control flow. Output: yes or no, and the axes of a batch.
Invariant: the decision depends on shapes and operations only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphjit.ir.node import Graph, Node, bodies, users
from graphjit.ir.opdef import Reduce, Scalar, View
from graphjit.ops.control import SMALL
from graphjit.schedule.access import is_framed, operands, storage
from graphjit.schedule.batches.axes import Batch, batches_of, shared_loop
from graphjit.schedule.loops.versions import ADDED, Versions, changed_carries, changed_results, once
from graphjit.schedule.roots import CONTROL
from graphjit.transforms.control.loops import kinds_of

CARRIED = 32
"""Elements of all carries together."""
WORK = 1_500
"""Operations of one step."""
READ, WRITE = 6, 6
"""Operations that an element at a place takes which only the step knows: the place is checked."""
OTHERS = ("input", "const", "iota", "reshape", "recompute", "concatenate", "item")
"""Ops besides elementwise ones, views and reductions that have a meaning element by element."""


def runs_in_registers(node: Node) -> bool:
    """Whether a loop or a choice is small enough."""
    return bool(batches_in_registers(node)) or _is_small(_Steps(), node)


@once
def batches_in_registers(node: Node) -> tuple[Batch, ...]:
    """The axes of a loop whose elements run one by one, or in lanes, each all its steps in registers; none
    where the loop does not run so.
    """
    batches = batches_of(node) if node.op.name in CONTROL else ()
    if not batches or not _is_small(_Steps(batches), node):
        return ()
    shared = shared_loop(node, batches)
    return batches if shared is None or _is_small(_Steps(), shared) else ()


def _is_small(steps: _Steps, node: Node) -> bool:
    work = steps.control(node, [True] * len(node.args), [True] * len(node.args))
    return work is not None and work <= WORK


class _Steps:
    """Operations of the steps of loops, for each element of a batch; of choices too."""

    def __init__(self, batches: Sequence[Batch] = ()) -> None:
        self.batches = batches

    def value(self, node: Node) -> int:
        """Elements of a value."""
        shared = [b.extent for b in self.batches if b.values.get(node) is not None]
        return node.type.size // math.prod(shared)

    def part(self, node: Node, number: int) -> int:
        """Elements of a result of a loop or a choice."""
        shared = [b.extent for b in self.batches if b.results.get((node, number)) is not None]
        return node.parts[number].size // math.prod(shared)

    def control(self, node: Node, memory: Sequence[bool], owned: Sequence[bool]) -> int | None:
        """Operations of one step of a loop or a choice; None where it is not for registers. ``memory`` says
        which arguments lie in memory, and ``owned`` which of these are there to be changed.
        """
        if node.op.name not in CONTROL or node.attrs.get("length") == 0:
            return None
        if any(
            part.record is not None and part.record.size not in range(1, SMALL + 1) for part in node.parts
        ):
            return None
        found = (self.choice if node.op.name == "cond" else self.loop)(node, memory, owned)
        return None if None in found else sum(work for work in found if work is not None)

    def loop(self, node: Node, memory: Sequence[bool], owned: Sequence[bool]) -> list[int | None]:
        """Operations of the graphs of a loop."""
        carried: Any = node.attrs["carried"]
        # An array that steps change where it lies is one for the whole batch.
        first, held = kinds_of(node)[1].start, {} if self.batches else changed_carries(node)
        rest = [k for k in range(carried) if k not in held]
        if sum(self.part(node, k) for k in rest) > CARRIED or not all(owned[first + k] for k in held):
            return [None]
        sliced = range(first + carried, len(node.args)) if node.op.name == "scan" else range(0)
        if not self.batches and not all(memory[at] or node.args[at].op.name == "iota" for at in sliced):
            return [None]
        there = [*np.flatnonzero(memory[:first]), *(first + k for k in held), *sliced]
        return [
            self.graph(graph, {graph.inputs[at] for at in there if at < len(graph.inputs)}, held.values())
            for graph in (body.graph for body in bodies(node))
        ]

    def choice(self, node: Node, memory: Sequence[bool], owned: Sequence[bool]) -> list[int | None]:
        """Operations of the branches of a choice."""
        held = {} if self.batches else changed_results(node)
        big = any(self.part(node, k) > SMALL for k in range(len(node.parts)) if k not in held)
        if big or not all(owned[at] for at, _ in held.values()):
            return [None]
        branches = [body.graph for body in bodies(node)]
        return [
            self.graph(
                graph,
                {x for x, lies in zip(graph.inputs, memory[1:], strict=True) if lies},
                [chains[number] for _, chains in held.values()],
            )
            for number, graph in enumerate(branches)
        ]

    def graph(self, graph: Graph, memory: set[Node], held: Iterable[Versions]) -> int | None:
        """Operations of a body; None where it is not for registers. What lies in ``memory`` may have any
        size, and so may the versions of arrays that are ``held`` there.
        """
        owned = {version for versions in held for version in versions}
        memory = memory | owned
        added = {arg for node in memory if node.op.name == "add" for arg in node.args if arg.op.name in ADDED}
        if any(self.value(x) > SMALL for x in graph.inputs if x not in memory):
            return None
        total, by_step = 0, dict[Node, int]()
        stacks = [storage(out) for out in graph.outputs if is_stack(storage(out))]
        if len(set(stacks)) < len(stacks):  # each lies in one place
            return None
        if self.batches:
            memory |= {node for node in graph.nodes() if is_stack(node)}
            by_step = self.by_step(graph, memory)
        for node in graph.nodes():
            if node in by_step:
                work: int | None = by_step[node]
            else:
                work = (
                    _written(node) if node in memory or node in added else self.computed(node, memory, owned)
                )
            if work is None:
                return None
            total += work
        return total

    def by_step(self, graph: Graph, memory: set[Node]) -> dict[Node, int]:
        """Arrays that loops inside read slice by slice and nobody else: each step computes its own, with so
        many operations.
        """
        found: dict[Node, int] = {}
        readers = users(graph.nodes())
        for node in reversed(graph.nodes()):
            if node in memory or node in graph.outputs or not (is_pointwise(node) and node.shape):
                continue
            if all(reader in found or _slices(reader, node) for reader in readers.get(node, ())):
                found[node] = self.value(node) // node.shape[0] if isinstance(node.op.lower, Scalar) else 0
        return found

    def inner(self, node: Node, memory: set[Node], owned: set[Node]) -> int | None:
        """The same for a loop or a choice inside a body. What it stacks has a place where elements run one by
        one.
        """
        if self.batches and node.op.name == "scan":
            if not all(_computed_by_step(x, memory) for x in node.args[kinds_of(node)[2]]):
                return None
        elif any(is_stacked(node, k) for k in range(len(node.parts))):
            return None
        there = [storage(arg) in memory for arg in node.args]
        return self.control(node, there, [arg in owned for arg in node.args])

    def computed(self, node: Node, memory: set[Node], owned: set[Node]) -> int | None:
        """Operations of a value in registers; None where it cannot be one."""
        lower, name = node.op.lower, node.op.name
        if node.is_bundle:
            return self.inner(node, memory, owned)
        if self.value(node) > SMALL and node.args:
            return None
        if name == "gather":
            return READ * self.value(node) if node.args[0] in memory else None
        if isinstance(lower, Scalar):
            return self.value(node)
        if isinstance(lower, Reduce):
            return self.value(node.args[0])
        return 0 if isinstance(lower, View) or is_framed(node) or name in OTHERS else None


def is_stack(node: Node) -> bool:
    """Whether a value is what the steps of a `scan` stacked."""
    return node.op.name == "item" and is_stacked(node.args[0], node.attrs["index"])  # type: ignore[arg-type]


def is_stacked(owner: Node, number: int) -> bool:
    """Whether a result of a loop or a choice is what the steps of a `scan` stacked."""
    return owner.op.name == "scan" and number >= owner.attrs["carried"]  # type: ignore[operator]


def is_pointwise(node: Node) -> bool:
    """Whether an array is computed where it is read."""
    return isinstance(node.op.lower, Scalar | View) or node.op.name == "const"


def _computed_by_step(array: Node, memory: set[Node]) -> bool:
    """Whether each step can compute its own slice of an array from what lies in memory."""
    pending, seen = [array], set[Node]()
    while pending:
        node = pending.pop()
        number = node.is_const and node.type.size == 1
        if node in seen or storage(node) in memory or number or node.op.name == "iota":
            continue
        if not isinstance(node.op.lower, Scalar | View):
            return False
        seen.add(node)
        pending += operands(node)
    return True


def _slices(reader: Node, array: Node) -> bool:
    """Whether a loop reads an array slice by slice only."""
    return reader.op.name == "scan" and array not in reader.args[: kinds_of(reader)[2].start]


def _written(node: Node) -> int:
    """Operations of what is written into memory."""
    updates = {"scatter_add": 0, "scatter_set": 1}.get(node.op.name)
    return 0 if updates is None else WRITE * node.args[updates].type.size
