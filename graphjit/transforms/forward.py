"""Forward mode by source transformation: graph in, graph out.

Job: tangents of outputs from tangents of inputs, as ordinary nodes beside the primal ones.
Input: nodes and input tangents.  Output: one tangent node per output, None where it is zero.
Invariant: both modes read the same derivative record of an op; a zero tangent is never built unless an op
needs all of its tangents; tangents that a selection makes zero stay zero whatever they are multiplied with,
as in reverse mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Bilinear, Custom, Linear, Partials
from graphjit.transforms.masked import SINGULAR, lift_mask, masked_where_zero, scale
from graphjit.transforms.reverse import active_nodes, no_derivative


def tangents(b: Builder, seeds: Mapping[Node, Node], outputs: Sequence[Node]) -> list[Node | None]:
    """Tangents of ``outputs`` given the tangents ``seeds`` of some nodes.

    Raises:
        DerivativeError: an op on the way has no derivative.
    """
    found: dict[Node, Node] = dict(seeds)
    for node in active_nodes(outputs, seeds):
        if node not in found and any(arg in found for arg in node.args):
            b.like(node, origin=f"jvp of {node.op.name}")
            tangent = push(b, node, [found.get(arg) for arg in node.args])
            if tangent is not None:
                found[node] = lift_mask(b, tangent)
    return [found.get(node) for node in outputs]


def push(b: Builder, node: Node, given: Sequence[Node | None]) -> Node | None:
    """Tangent of one node from the tangents of its arguments."""
    rule = node.op.derivative
    terms: list[Node] = []
    if isinstance(rule, Partials):
        for tangent, formula in zip(given, rule.formulas, strict=True):
            if tangent is None or formula is None:
                continue
            if isinstance(formula, int):
                terms.append(tangent if formula == 1 else b.neg(tangent))
            else:
                local = formula(b, node, *node.args)
                if local is not None:
                    if node.op.name in SINGULAR:
                        tangent = masked_where_zero(b, tangent)
                    terms.append(scale(b, tangent, local))
    elif isinstance(rule, Linear):
        linear = range(len(node.args)) if rule.args is None else rule.args
        if all(given[i] is None for i in linear):
            return None
        args = list(node.args)
        for i in linear:
            args[i] = given[i] or b.full(0.0, node.args[i].type)
        terms.append(b.emit(node.op, *args, **node.attrs))
    elif isinstance(rule, Bilinear):
        x, y = node.args
        if given[0] is not None:
            terms.append(b.emit(node.op, given[0], y, **node.attrs))
        if given[1] is not None:
            terms.append(b.emit(node.op, x, given[1], **node.attrs))
    elif isinstance(rule, Custom):
        return rule.jvp(b, node, node.args, given)
    else:
        raise no_derivative(node)
    if not terms:
        return None
    total = terms[0]
    for term in terms[1:]:
        total = b.add(lift_mask(b, total), term)
    return total
