"""Loops and choices without results that nobody reads, and without what only those need.

Example: of a scan that carries a cotangent and counts its steps only the count is read. It becomes a scan
that counts, which does not depend on the cotangent any more.

Input: nodes. Output: nodes of the same values. Invariant: what does not change is shared, not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node, reachable
from graphjit.ir.rule import OP_RULES
from graphjit.transforms.control.branches import chosen_results
from graphjit.transforms.control.loops import Results, opened, pruned, run

Made = Callable[[Sequence[Node]], dict[int, Node]]
"""From arguments to results by their number."""


def without_unused(b: Builder, roots: Sequence[Node]) -> list[Node]:
    """``roots``, from loops and choices that compute what ``roots`` need and no more."""
    order = sorted(reachable(roots), key=lambda node: node.serial)
    alive, read = set(roots), dict[Node, set[int]]()
    plans: dict[Node, tuple[Sequence[Node], Made]] = {}
    for node in reversed(order):
        if node not in alive:
            continue
        if node.op.name in OP_RULES:
            plans[node] = _narrowed(b, node, read[node])
            alive.update(plans[node][0])
            continue
        alive.update(node.args)
        if node.op.name == "item":
            read.setdefault(node.args[0], set()).add(node.attrs["index"])  # type: ignore[arg-type]
    replaced: dict[Node, Node] = {}
    several: dict[Node, dict[int, Node]] = {}
    for node in (node for node in order if node in alive):
        if node in plans:
            args, made = plans[node]
            several[node] = made([replaced.get(arg, arg) for arg in args])
        elif node.op.name == "item" and node.args[0] in several:
            replaced[node] = several[node.args[0]][node.attrs["index"]]  # type: ignore[index]
        elif any(arg in replaced for arg in node.args):
            replaced[node] = b.copy(node, tuple(replaced.get(arg, arg) for arg in node.args))
    return [replaced.get(node, node) for node in roots]


def _narrowed(b: Builder, node: Node, read: Collection[int]) -> tuple[Sequence[Node], Made]:
    """The arguments that a loop or a choice needs for the results that are ``read``, and how it is made."""
    if node.op.name == "cond":
        return chosen_results(b, node, sorted(read))
    loop = opened(b, node)
    count = len(loop.after)
    stacked = [k for k in range(count, len(node.parts)) if k in read]
    loop = replace(loop, made=[loop.made[k - count] for k in stacked])
    loop, kept = pruned(loop, [i for i in read if i < count])

    def made(args: Sequence[Node]) -> dict[int, Node]:
        results: Results = run(b.like(node), replace(loop, args=loop.split(args)))
        return {kept[i]: x for i, x in results.carries.items()} | dict(
            zip(stacked, results.made, strict=True)
        )

    return loop.args.all, made
