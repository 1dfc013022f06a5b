"""Which elements of which stored values does a node read?

Job: follow what is inlined (elementwise operations and views) from a root down to values that lie in storage,
and say at which address each is read.  In ``y = exp(x[:, None] + z)`` over (i, j) the root ``y`` reads ``x``
at ``i`` and ``z`` at ``i * columns + j``.  Fusion, sweeps and the memory plan decide by these addresses.
Input: a root and the set of stored nodes. Output: (stored node, element address) pairs over the axes of the
root.
Invariant: an address is affine in the axis numbers of the root's space, or None when it depends on data.
"""

from __future__ import annotations

from typing import Any

from graphjit.ir.affine import Affine, linear, own_index, reshape_index
from graphjit.ir.node import Node
from graphjit.ir.opdef import Reduce, Scalar, Scan, Special, View
from graphjit.ir.types import without_ones
from graphjit.ops.splicing import runs

Address = Affine[int]
Read = tuple[Node, Address | None]

SHARES = ("reshape", "recompute")
"""Ops whose result lies where their argument lies."""


def storage(node: Node) -> Node:
    """The node whose storage a (chain of) reshape or recompute shares."""
    while node.op.name in SHARES:
        node = node.args[0]
    return node


def operands(node: Node) -> tuple[Node, ...]:
    """What a node is computed from. (The second argument of `recompute` only says when.)"""
    return node.args[:1] if isinstance(node.op.lower, View) else node.args


def is_thin_reshape(node: Node) -> bool:
    """Whether a reshape only adds or drops axes of length 1."""
    return without_ones(node.shape) == without_ones(node.args[0].shape)


def is_window(node: Node) -> bool:
    """Whether a node is an embed without gaps: reading it is reading its argument, or zero outside."""
    if node.op.name != "embed":
        return False
    steps: Any = node.attrs["steps"]
    return all(step == 1 or n <= 1 for step, n in zip(steps, node.args[0].shape, strict=True))


def is_framed(node: Node) -> bool:
    """Whether reading a node is reading one of several values, or zero: that depends on the point."""
    return node.op.name == "splice" or is_window(node)


def space(root: Node) -> tuple[int, ...]:
    """Iteration space of a root: the argument's shape for a reduction, else its own."""
    return root.args[0].shape if isinstance(root.op.lower, Reduce) else root.shape


def start(root: Node) -> list[tuple[Node, tuple[Address, ...]]]:
    """What a root evaluates at each point of its space."""
    index = own_index(space(root))
    if isinstance(root.op.lower, Reduce):
        return [(root.args[0], index)]
    return expand(root, index)


def expand(node: Node, index: tuple[Affine[Any], ...]) -> list[tuple[Node, tuple[Affine[Any], ...]]]:
    """One step down from a computed node."""
    lower = node.op.lower
    if isinstance(lower, Scalar | Scan):
        return [(arg, index) for arg in node.args]
    if isinstance(lower, View):
        return [(node.args[0], lower.index_map(node, index))]
    if isinstance(lower, Special) and lower.kind == "reshape":
        inner = reshape_index(node.args[0].shape, node.shape, index)
        assert inner is not None, f"{node!r} must read storage"
        return [(node.args[0], inner)]
    if is_window(node):
        starts: Any = node.attrs["starts"]
        return [(node.args[0], tuple(i - s for i, s in zip(index, starts, strict=True)))]
    if node.op.name == "splice":
        axis: Any = node.attrs["axis"]
        return [(run.source, (*index[:axis], run.at(index[axis]), *index[axis + 1 :])) for run in runs(node)]
    if isinstance(lower, Special) and lower.kind == "gather":
        depth = len(node.args[1].shape)
        return [(arg, index[:depth]) for arg in node.args[1:]]
    return []


def framed_reads(root: Node, stored: set[Node]) -> set[Node]:
    """The stored values that ``root`` reads through windows or splices: by loads that hang on a condition,
    which nobody else shares.
    """
    framed_values: set[Node] = set()
    seen: set[tuple[Node, bool]] = set()
    stack = [(node, False) for node, _ in start(root)]
    while stack:
        node, framed = stack.pop()
        if (node, framed) in seen:
            continue
        seen.add((node, framed))
        base = storage(node)
        if base in stored:
            framed_values |= {base} if framed else set()
        else:
            stack += [(arg, framed or is_framed(node)) for arg in node.args]
    return framed_values


def waits_for(root: Node, stored: set[Node]) -> set[Node]:
    """The stored values that must be there before ``root`` is computed, though it does not read them: what
    `recompute` nodes on its way name.
    """
    found: set[Node] = set()
    seen: set[Node] = set()
    stack = list(operands(root))
    while stack:
        node = stack.pop()
        if node in seen or node in stored:
            continue
        seen.add(node)
        if node.op.name == "recompute":
            after = node.args[1]
            base = storage(after)
            found |= {base} if base in stored else {value for value, _ in reads(after, stored)}
        stack += operands(node)
    return found


def reads(root: Node, stored: set[Node]) -> list[Read]:
    """Every stored value that ``root`` reads, with its addresses (a value read twice at one address counts
    once).
    """
    loads: dict[tuple[Node, Address | None], None] = {}
    seen: set[tuple[Node, tuple[Address, ...]]] = set()
    stack = start(root)
    if root.op.name == "gather":
        loads[(storage(root.args[0]), None)] = None
    while stack:
        node, index = stack.pop()
        if (node, index) in seen:
            continue
        seen.add((node, index))
        base = storage(node)
        if base in stored:
            loads[(base, linear(node.shape, index))] = None
        elif node.op.name not in ("const", "iota"):
            if node.op.name == "gather":
                loads[(storage(node.args[0]), None)] = None
            stack.extend(expand(node, index))
    return list(loads)
