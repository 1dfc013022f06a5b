"""Reverse mode: cotangents of chosen nodes from those of outputs, as ordinary nodes beside the forward ones.

Input: nodes and output cotangents. Output: one cotangent node per requested node, None where it does not
depend.
Invariants: all paths are summed; a zero cotangent is never built; forward and backward stay one graph, so
every later pass sees both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphjit.errors import DerivativeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node, reachable
from graphjit.ir.opdef import Bilinear, Custom, Linear, NonDifferentiable, Partials, ZeroDerivative
from graphjit.transforms.masked import lift_mask, scale


def active_nodes(outputs: Iterable[Node], wrt: Iterable[Node]) -> list[Node]:
    """Nodes on a differentiable path from ``wrt`` to ``outputs``, in topological order."""
    active = set(wrt)
    order = sorted(reachable(outputs), key=lambda node: node.serial)
    found = []
    for node in order:
        if node in active:
            found.append(node)
        elif node.dtype.kind == "f" and not isinstance(node.op.derivative, ZeroDerivative):
            if any(arg in active for arg in node.args):
                active.add(node)
                found.append(node)
    return found


def cotangents(b: Builder, seeds: Mapping[Node, Node], wrt: Sequence[Node]) -> list[Node | None]:
    """Cotangents of ``wrt``.

    Args:
        b: builder that made the forward nodes.
        seeds: cotangent of each output node (a node given twice must come in already summed).
        wrt: the nodes asked for.

    Returns:
        For each of ``wrt`` its cotangent, or None when no differentiable path leads to an output.

    Raises:
        DerivativeError: an op on the way has no derivative.
    """
    found: dict[Node, Node] = dict(seeds)
    active = active_nodes(seeds, wrt)
    inside = set(active)
    keep = set(wrt)
    for node in reversed(active):
        ct = found.get(node) if node in keep else found.pop(node, None)
        if ct is None or not node.args or not any(arg in inside for arg in node.args):
            continue
        b.like(node, origin=f"vjp of {node.op.name}")
        for arg, part in zip(node.args, pull(b, node, ct, inside), strict=True):
            if part is not None and arg in inside:
                part = lift_mask(b, part)
                before = found.get(arg)
                found[arg] = part if before is None else lift_mask(b, b.add(before, part))
    return [found.get(node) for node in wrt]


def pull(b: Builder, node: Node, ct: Node, inside: set[Node]) -> Sequence[Node | None]:
    """Cotangents of the arguments of one node."""
    rule = node.op.derivative
    if isinstance(rule, Partials):
        parts: list[Node | None] = []
        for arg, formula in zip(node.args, rule.formulas, strict=True):
            if formula is None or arg not in inside:
                parts.append(None)
            elif isinstance(formula, int):
                parts.append(ct if formula == 1 else b.neg(ct))
            else:
                local = formula(b, node, *node.args)
                parts.append(None if local is None else scale(b, ct, local))
        return parts
    if isinstance(rule, Linear):
        return rule.transpose(b, ct, node, *node.args)
    if isinstance(rule, Bilinear):
        x, y = node.args
        return (
            rule.lhs(b, ct, node, x, y) if x in inside else None,
            rule.rhs(b, ct, node, x, y) if y in inside else None,
        )
    if isinstance(rule, Custom):
        return rule.vjp(b, ct, node, node.args)
    raise no_derivative(node)


def no_derivative(node: Node) -> DerivativeError:
    """The error for an op that cannot be differentiated."""
    reason = node.op.derivative.reason if isinstance(node.op.derivative, NonDifferentiable) else "no rule"
    where = f" at {node.loc}" if node.loc else ""
    return DerivativeError(f"{node.op.name}{where} has no derivative: {reason}")
