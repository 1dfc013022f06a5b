"""What a rewrite rule is: a name, the ops at which it is tried, what it makes of a node, how exact that is.

Invariant: ``apply`` returns a node of the same type that computes the same value within ``bound``, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import OpDef


@dataclass(frozen=True)
class Rule:
    """One named rewrite.

    Attributes:
        name: unique, for dumps and tests.
        ops: names of the ops at whose nodes the rule is tried.
        apply: ``(b, node) -> Node | None``.
        doc: pattern and replacement, ``f(g(x)) -> h(x)``, and why it helps.
        bound: how far the value may move; empty for a rule that keeps every value bit for bit (the sign and
            payload of NaN apart).
        consumes: names of argument ops that the rewrite replaces. It fires only when such an argument has no
            other reader, so that it never leaves two computations where there was one.
        kinds: lowering kinds at whose nodes the rule is tried as well.
    """

    name: str
    ops: tuple[str, ...]
    apply: Callable[[Builder, Node], Node | None]
    doc: str
    bound: str = ""
    consumes: tuple[str, ...] = ()
    kinds: tuple[type, ...] = ()

    def matches(self, op: OpDef) -> bool:
        """Whether the rule is tried at nodes of ``op``."""
        return op.name in self.ops or isinstance(op.lower, self.kinds)

    @property
    def exact(self) -> bool:
        """Whether the value is kept bit for bit."""
        return not self.bound
