"""Which nodes can raise an exception when they run, or run forever.

Job: say what must not be computed where the program would not have computed it: before a loop that may run no
step, outside of a branch that is not taken.
Input: a node. Output: a bool.
Invariant: it may say yes of a node that never fails, and never no of one that can.
"""

from __future__ import annotations

from graphjit.ir.node import Node, bodies

OF_INTEGERS = frozenset({"floor_divide", "remainder", "fmod", "pow"})
"""Ops that can raise where they compute with integers."""
FAILING = frozenset({"narrow", "require", "inverse", "solve", "cholesky", "while"})
"""Ops that can raise, or never end."""
POSITIONS = {"gather": 1, "scatter_add": 1, "scatter_set": 2}
"""Ops that check positions, with the number of arguments in front of those."""


def may_fail(node: Node) -> bool:
    """Whether a node can raise or never end, or one inside of it."""
    name = node.op.name
    if name in POSITIONS:
        return not all(index.is_const for index in node.args[POSITIONS[name] :])
    if name in OF_INTEGERS:
        return node.dtype.kind in "iu"
    return name in FAILING or any(may_fail(inner) for body in bodies(node) for inner in body.graph.nodes())
