"""How a node with a body is differentiated, where its op alone does not say: the attribute ``rule``.

Input: a node, and tangents or cotangents of it. Output: nodes of derivatives.
Invariant: a rule is asked while derivatives are taken, never by the compiler; two graphs that differ in rules
alone compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Node = Any
Builder = Any


class Rule:
    """The interface. Tangents and cotangents are None where they are zero."""

    name: str = ""
    """What it is called in printed graphs."""

    def jvp(self, b: Builder, node: Node, tangents: Sequence[Node | None]) -> Sequence[Node | None]:
        """Tangents of the results from those of the arguments."""
        raise NotImplementedError

    def vjp(
        self, b: Builder, node: Node, cotangents: Sequence[Node | None], wanted: Sequence[bool]
    ) -> Sequence[Node | None]:
        """Cotangents of the arguments, as far as they are ``wanted``, from those of the results."""
        raise NotImplementedError

    def over_batch(
        self, node: Node, batched: Sequence[bool], size: int, varying: Mapping[Node, Node]
    ) -> Rule:
        """The rule of ``node`` over a batch in the arguments that are ``batched``; ``varying`` are the values
        of one element that the batch began with, and what they became.
        """
        raise NotImplementedError


class OpRule(Rule):
    """The rule of all nodes of one op; how such a node runs over a batch is part of it."""

    def batch(
        self,
        b: Builder,
        node: Node,
        args: Sequence[Node],
        batched: Sequence[bool],
        varying: Mapping[Node, Node],
    ) -> Sequence[tuple[Node, bool]]:
        """The results over a batch in the arguments that are ``batched``, and for each whether it varies: it
        has the axis of the batch in front then. ``varying`` as in `over_batch`.
        """
        raise NotImplementedError


OP_RULES: dict[str, OpRule] = {}
"""Those of control flow, by the name of the op; `graphjit.transforms.control` fills it."""


def rule_of(node: Node) -> Rule | None:
    """The rule of a node; None: its body is differentiated."""
    found = node.attrs.get("rule", OP_RULES.get(node.op.name))
    return found if isinstance(found, Rule) else None
