"""Which loops and choices run in registers.

A loop whose steps work on a few numbers would spend its time calling kernels and moving carries through
memory. It becomes one kernel instead, in which every element of every value is a value in a register
(`graphjit.loops.lowering.points`). ``x = x - f(x) / df(x)`` in a ``while`` is such a loop; a recurrent
network of 32 neurons is not: its steps are loops over lanes.

Input: a node of control flow. Output: yes or no.
Invariant: the decision depends on shapes and operations only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphjit.ir.node import Graph, Node, bodies
from graphjit.ir.opdef import Reduce, Scalar, View
from graphjit.ops.control import SMALL
from graphjit.schedule.access import is_framed
from graphjit.schedule.roots import CONTROL
from graphjit.schedule.versions import ADDED, Versions, changed_carries, changed_results
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
    work = _step_work(node, [True] * len(node.args))
    return work is not None and work <= WORK


def _step_work(node: Node, memory: Sequence[bool]) -> int | None:
    """Operations of one step of a loop or a choice; None where it is not for registers. ``memory`` says which
    arguments lie in memory.
    """
    if node.op.name not in CONTROL or node.attrs.get("length") == 0:
        return None
    if any(part.record is not None and part.record.size not in range(1, SMALL + 1) for part in node.parts):
        return None
    found = _choice_work(node, memory) if node.op.name == "cond" else _loop_work(node, memory)
    return None if None in found else sum(work for work in found if work is not None)


def _loop_work(node: Node, memory: Sequence[bool]) -> list[int | None]:
    """Operations of the graphs of a loop."""
    carried: Any = node.attrs["carried"]
    first, held = kinds_of(node)[1].start, changed_carries(node)
    rest = [part for k, part in enumerate(node.parts[:carried]) if k not in held]
    if sum(part.size for part in rest) > CARRIED or not all(memory[first + k] for k in held):
        return [None]
    sliced = range(first + carried, len(node.args)) if node.op.name == "scan" else range(0)
    if not all(memory[at] or node.args[at].op.name == "iota" for at in sliced):
        return [None]
    there = [at for at in range(first) if memory[at]] + [first + k for k in held] + list(sliced)
    return [
        _work(graph, {graph.inputs[at] for at in there if at < len(graph.inputs)}, held.values())
        for graph in (body.graph for body in bodies(node))
    ]


def _choice_work(node: Node, memory: Sequence[bool]) -> list[int | None]:
    """Operations of the branches of a choice."""
    held = changed_results(node)
    big = any(part.size > SMALL for k, part in enumerate(node.parts) if k not in held)
    if big or not all(memory[at] for at, _ in held.values()):
        return [None]
    branches = [body.graph for body in bodies(node)]
    return [
        _work(
            graph,
            {x for x, lies in zip(graph.inputs, memory[1:], strict=True) if lies},
            [chains[number] for _, chains in held.values()],
        )
        for number, graph in enumerate(branches)
    ]


def _work(graph: Graph, memory: set[Node], held: Iterable[Versions]) -> int | None:
    """Operations of a body; None where it is not for registers. What lies in ``memory`` may have any size,
    and so may the versions of arrays that are ``held`` there.
    """
    memory = memory | {version for versions in held for version in versions}
    added = {arg for node in memory if node.op.name == "add" for arg in node.args if arg.op.name in ADDED}
    if any(x.type.size > SMALL for x in graph.inputs if x not in memory):
        return None
    total = 0
    for node in graph.nodes():
        work = _written(node) if node in memory or node in added else _computed(node, memory)
        if work is None:
            return None
        total += work
    return total


def _written(node: Node) -> int:
    """Operations of what is written into memory."""
    updates = {"scatter_add": 0, "scatter_set": 1}.get(node.op.name)
    return 0 if updates is None else WRITE * node.args[updates].type.size


def _computed(node: Node, memory: set[Node]) -> int | None:
    """Operations of a value in registers; None where it cannot be one."""
    lower, name = node.op.lower, node.op.name
    if node.is_bundle:
        stacks = name == "scan" and len(node.parts) > node.attrs["carried"]  # type: ignore[operator]
        return None if stacks else _step_work(node, [arg in memory for arg in node.args])
    if node.type.size > SMALL and node.args:
        return None
    if name == "gather":
        return READ * node.type.size if node.args[0] in memory else None
    if isinstance(lower, Scalar):
        return node.type.size
    if isinstance(lower, Reduce):
        return node.args[0].type.size
    return 0 if isinstance(lower, View) or is_framed(node) or name in OTHERS else None
