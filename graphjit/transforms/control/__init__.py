"""Derivatives and batches of control flow: the rules of `scan`, `while`, `unwind` and `cond`.

`loops` takes a loop apart and puts it together again. `forward`, `reverse` and `batches` make its derivatives
and its batches, `residuals` chooses what the way back through a loop reads of the way there, `branches` does
all of this for choices, `effects` keeps what rules tell, and `unused` drops what nobody reads.

Input: a node and tangents, cotangents or batches. Output: nodes. All of it is graph in, graph out, so it
composes to any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.rule import OP_RULES, OpRule
from graphjit.transforms.control.batches import Batches, loop_batch
from graphjit.transforms.control.branches import cond_batch, cond_jvp, cond_vjp
from graphjit.transforms.control.forward import loop_jvp
from graphjit.transforms.control.loops import Values
from graphjit.transforms.control.reverse import loop_vjp


class LoopRule(OpRule):
    """That of loops."""

    def jvp(self, b: Builder, node: Node, tangents: Sequence[Node | None]) -> Values:
        """`forward`."""
        return loop_jvp(b, node, tangents)

    def vjp(
        self, b: Builder, node: Node, cotangents: Sequence[Node | None], wanted: Sequence[bool]
    ) -> Values:
        """`reverse`."""
        return loop_vjp(b, node, cotangents, wanted)

    def batch(
        self,
        b: Builder,
        node: Node,
        args: Sequence[Node],
        batched: Sequence[bool],
        varying: Mapping[Node, Node],
    ) -> Batches:
        """`batches`."""
        return loop_batch(b, node, args, batched, varying)


class ChoiceRule(OpRule):
    """That of `cond`: `branches`."""

    def jvp(self, b: Builder, node: Node, tangents: Sequence[Node | None]) -> Values:
        """A choice between tangents."""
        return cond_jvp(b, node, tangents)

    def vjp(
        self, b: Builder, node: Node, cotangents: Sequence[Node | None], wanted: Sequence[bool]
    ) -> Values:
        """A choice between cotangents."""
        return cond_vjp(b, node, cotangents, wanted)

    def batch(
        self,
        b: Builder,
        node: Node,
        args: Sequence[Node],
        batched: Sequence[bool],
        varying: Mapping[Node, Node],
    ) -> Batches:
        """A choice between batches, or many choices."""
        return cond_batch(b, node, args, batched, varying)


OP_RULES |= {name: LoopRule() for name in ("scan", "while", "unwind")} | {"cond": ChoiceRule()}
