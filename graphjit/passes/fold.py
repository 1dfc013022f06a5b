"""Constant folding: compute while compiling what depends on constants only.

Example: ``8.0 / 2.0`` becomes ``4.0``. An elementwise op on arrays that are filled with one number each is
computed once, and the number is spread.

Input and output: a graph.
Invariants: the value is what the interpreter gives, bit for bit; what could raise when the program runs, or
warns of an invalid integer operation, is left in place; constants never grow the program by more than
`SIZE_LIMIT` elements each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Decompose, Scalar
from graphjit.ir.types import Type
from graphjit.passes.rewrite import rewrite

SIZE_LIMIT = 1024
"""Elements up to which a folded constant may be larger than the constants it replaces."""

WORK_LIMIT = 1 << 20
"""Elements of argument or result above which nothing is folded: compile time counts too."""

NEVER = frozenset(("broadcast_to", "copy", "custom", "item", "scan", "while", "unwind", "cond"))
"""The op that only repeats (a spread scalar is cheaper than its array), the one that is about storage, and
those with bodies.
"""


def fold(graph: Graph) -> Graph:
    """``graph`` with constant subexpressions computed."""
    return rewrite(graph, fold_node)


def fold_node(b: Builder, node: Node) -> Node | None:
    """The constant that ``node`` is, or None."""
    if node.is_const:
        return _spread(b, node)
    if not node.args or node.op.name in NEVER or not all(is_constant(arg) for arg in node.args):
        return None
    if all(arg.is_const for arg in node.args):
        return _of_constants(b, node)
    if _is_elementwise(node) and all(constant_array(arg).size == 1 for arg in node.args):
        return _of_spread_numbers(b, node)
    if node.type.size <= SIZE_LIMIT and _work(node) <= SIZE_LIMIT:
        value = evaluate(node, [np.broadcast_to(constant_array(arg), arg.shape) for arg in node.args])
        return None if value is None else constant(b, value)
    return None


def _of_constants(b: Builder, node: Node) -> Node | None:
    """The value of a node whose arguments are constants as they stand, when it is small enough."""
    if node.type.size > max(SIZE_LIMIT, *(arg.type.size for arg in node.args)) or _work(node) > WORK_LIMIT:
        return None
    value = evaluate(node, [constant_array(arg) for arg in node.args])
    return None if value is None else constant(b, value)


def _of_spread_numbers(b: Builder, node: Node) -> Node | None:
    """The value of an elementwise node on arrays that are filled with one number each: computed once, and
    spread.
    """
    value = evaluate(node, [constant_array(arg).reshape(()) for arg in node.args])
    return None if value is None or value.shape else b.full(value.item(), node.type)


def constant(b: Builder, value: np.ndarray) -> Node:
    """``value`` as a constant; as a spread scalar when all of its elements have the same bits."""
    if value.size > 1 and is_uniform(value):
        return b.full(value.reshape(-1)[0].item(), Type(value.dtype, value.shape))
    return b.const(value, value.dtype)


def is_uniform(value: np.ndarray) -> bool:
    """Whether all elements have the same bits (NaN counts as different: its payload would not survive)."""
    flat = value.reshape(-1)
    if flat[0] != flat[-1] or not (flat == flat[0]).all():
        return False
    return flat.dtype.kind != "f" or bool((np.signbit(flat) == np.signbit(flat[0])).all())


def _spread(b: Builder, node: Node) -> Node | None:
    """A constant array filled with one number -> that number, spread."""
    value = constant_array(node)
    return constant(b, value) if value.size > 1 and is_uniform(value) else None


def is_constant(node: Node) -> bool:
    """Whether a node is a constant or a constant scalar spread over a shape."""
    return node.is_const or (
        node.op.name == "broadcast_to" and node.args[0].is_const and node.args[0].type.size == 1
    )


def constant_array(node: Node) -> np.ndarray:
    """The constant behind a node for which `is_constant` holds (one element where it is spread)."""
    value: Any = (node if node.is_const else node.args[0]).attrs["value"]
    array: np.ndarray = value.array
    return array


def evaluate(node: Node, args: list[np.ndarray]) -> np.ndarray | None:
    """The op's reference value on ``args``, or None where the compiled program could report an error."""
    quiet = node.dtype.kind == "f"
    try:
        with (
            np.errstate(all="ignore") if quiet else np.errstate(all="ignore", divide="raise", invalid="raise")
        ):
            value = np.asarray(node.op.impl(*args, **node.attrs))
    except (ArithmeticError, LookupError, ValueError):
        return None
    return value if value.dtype == node.dtype else None


def _is_elementwise(node: Node) -> bool:
    if isinstance(node.op.lower, Scalar):
        return True
    return (
        isinstance(node.op.lower, Decompose)
        and not node.op.attrs
        and all(arg.shape == node.shape for arg in node.args)
    )


def _work(node: Node) -> int:
    """Elements read and written, and products formed by a contraction or a correlation."""
    total = node.type.size + sum(arg.type.size for arg in node.args)
    if node.op.name == "contract":
        contracted: Any = node.attrs["contract"]
        for axis in contracted[0]:
            total *= node.args[0].shape[axis]
    if node.op.name == "correlate":
        total *= node.args[1].shape[-1]
    return total
