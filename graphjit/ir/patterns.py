"""Questions that many rules ask about a node: is it zero everywhere, is it one number in every element?

Input: a node. Output: what was found, or None.
"""

from __future__ import annotations

from typing import Any

from graphjit.ir.node import Node


def strip_broadcast(node: Node) -> Node:
    """The value behind broadcasts and reshapes."""
    while node.op.name in ("broadcast_to", "reshape"):
        node = node.args[0]
    return node


def splat(node: Node) -> Any:
    """The one number that fills ``node``, as a NumPy scalar, or None when its elements are not one known
    number.
    """
    node = strip_broadcast(node)
    if node.op.name == "const" and node.type.size == 1:
        return node.attrs["value"].array.reshape(())[()]  # type: ignore[attr-defined]
    return None


def is_zero(node: Node) -> bool:
    """Whether every element is known to be zero (of either sign)."""
    value = splat(node)
    return value is not None and value == 0
