"""Apply the rewrite rules of `graphjit.passes.rules`, and constant folding, until none fires any more.

Input and output: a graph.
Invariants: exact rules keep every bit, the others stay within the bound that they state; a rule that consumes
an argument fires only when nothing else reads that argument.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, users
from graphjit.ir.opdef import OpDef
from graphjit.passes.fold import fold_node
from graphjit.passes.rewrite import Rewriter
from graphjit.passes.rules import ALL, Rule


def simplify(graph: Graph) -> Graph:
    """``graph`` simplified by every rule."""
    return simplify_with(graph, ALL)[0]


def simplify_with(graph: Graph, rules: Iterable[Rule]) -> tuple[Graph, Counter[str]]:
    """``graph`` simplified by ``rules`` (and constant folding), and how often each rule fired."""
    chosen = tuple(rules)
    table: dict[OpDef, list[Rule]] = {}
    fired: Counter[str] = Counter()
    old_reads = users(graph.nodes())
    reads: dict[Node, int] = {}

    def step(b: Builder, node: Node) -> Node | None:
        made = fold_node(b, node)
        if made is not None:
            fired["fold"] += 1
            return made
        tried = table.get(node.op)
        if tried is None:
            tried = table[node.op] = [rule for rule in chosen if rule.matches(node.op)]
        for rule in tried:
            if rule.consumes and any(
                arg.op.name in rule.consumes and reads.get(arg, 0) > 1 for arg in node.args
            ):
                continue
            made = rule.apply(b, node)
            if made is not None and made is not node:
                fired[rule.name] += 1
                return made
        return None

    outputs = set(graph.outputs)

    def settled(old: Node, new: Node) -> None:
        reads[new] = reads.get(new, 0) + len(old_reads.get(old, ())) + (1 if old in outputs else 0)

    return Rewriter(step, settled).run(graph), fired
