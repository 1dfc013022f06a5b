"""Replace nodes in everything that depends on them: a function traced on placeholders gets its arguments.

Input: roots and a mapping. Output: the roots rebuilt.
Invariant: what does not depend on a replaced node is shared, not copied; iterative and linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, reachable


def body_of(node: Node) -> Graph:
    """The graph inside a node that has one."""
    body = node.attrs["body"]
    assert isinstance(body, Body)
    return body.graph


def in_terms_of(b: Builder, values: Sequence[Node | None], mapping: Mapping[Node, Node]) -> list[Node | None]:
    """`substitute` where some values are zero."""
    found = iter(substitute(b, [value for value in values if value is not None], mapping))
    return [None if value is None else next(found) for value in values]


def substitute(b: Builder, roots: Sequence[Node], mapping: Mapping[Node, Node]) -> list[Node]:
    """``roots`` with every key of ``mapping`` replaced by its value."""
    if all(key is value for key, value in mapping.items()):
        return list(roots)
    first = min((node.serial for node in mapping), default=0)
    replaced: dict[Node, Node] = dict(mapping)
    for node in sorted(reachable(roots, mapping), key=lambda node: node.serial):
        if node.serial > first and any(arg in replaced for arg in node.args):
            replaced[node] = b.copy(node, tuple(replaced.get(arg, arg) for arg in node.args))
    return [replaced.get(node, node) for node in roots]
