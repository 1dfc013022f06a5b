"""Which loops and choices run in registers.

A loop whose steps work on a few numbers would spend its time calling kernels and moving carries through
memory. It becomes one kernel instead, in which every element of every value is a value in a register
(`graphjit.loops.lowering.points`). ``x = x - f(x) / df(x)`` in a ``while`` is such a loop; a recurrent
network of 32 neurons is not: its steps are loops over lanes.

Input: a node of control flow. Output: yes or no.
Invariant: the decision depends on shapes and operations only.
"""

from __future__ import annotations

from typing import Any

from graphjit.ir.node import Graph, Node, bodies
from graphjit.ir.opdef import Reduce, Scalar, View
from graphjit.schedule.access import is_window
from graphjit.schedule.roots import CONTROL

ELEMENTS = 16
"""Elements that a value may have."""
CARRIED = 32
"""Elements of all carries together."""
WORK = 1_500
"""Operations of one step."""
OTHERS = ("input", "const", "iota", "reshape", "recompute", "concatenate", "item")
"""Ops besides elementwise ones, views and reductions that have a meaning element by element."""


def runs_in_registers(node: Node) -> bool:
    """Whether a loop or a choice is small enough."""
    work = _step_work(node)
    return work is not None and work <= WORK


def _step_work(node: Node) -> int | None:
    """Operations of one step of a loop or a choice; None where it is not for registers."""
    carried: Any = node.attrs.get("carried", 0)
    sliced: Any = node.attrs.get("sliced", node.attrs.get("tapes", 0))
    first = len(node.args) - sliced - carried
    if node.op.name not in CONTROL or node.attrs.get("length") == 0:
        return None
    if sum(part.size for part in node.parts[:carried]) > CARRIED:
        return None
    if any(part.record is not None and part.record.size not in range(1, ELEMENTS + 1) for part in node.parts):
        return None
    if node.op.name == "cond" and any(part.size > ELEMENTS for part in node.parts):
        return None
    total = 0
    for graph in (body.graph for body in bodies(node)):
        constants = set(graph.inputs[:first]) if carried or node.op.name == "scan" else set(graph.inputs)
        work = _work(graph, constants)
        if work is None:
            return None
        total += work
    return total


def _work(graph: Graph, constants: set[Node]) -> int | None:
    """Operations of a body; None where it is not for registers. ``constants`` lie in memory, and may have any
    size.
    """
    total = 0
    for node in graph.nodes():
        if node.is_bundle:
            inner = _nested(node)
            if inner is None:
                return None
            total += inner
            continue
        if node.type.size > ELEMENTS and node not in constants and node.args:
            return None
        if isinstance(node.op.lower, Scalar):
            total += node.type.size
        elif isinstance(node.op.lower, Reduce):
            total += node.args[0].type.size
        elif not (isinstance(node.op.lower, View) or is_window(node) or node.op.name in OTHERS):
            return None
    if any(x.type.size > ELEMENTS for x in graph.inputs if x not in constants):
        return None
    return total


def _nested(node: Node) -> int | None:
    """Operations of a loop or a choice inside a body; it has no arrays to go through or to fill there."""
    carried: Any = node.attrs.get("carried", 0)
    stacks = node.op.name == "scan" and len(node.parts) > carried
    if node.attrs.get("sliced") or stacks:
        return None
    return _step_work(node)
