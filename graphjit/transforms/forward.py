"""Forward mode: tangents of outputs from tangents of inputs, as ordinary nodes beside the others.

Input: nodes and input tangents. Output: one tangent node per output, None where it is zero.
Invariants: both modes read the same derivative record of an op; a zero tangent is never built unless an op
needs all of its tangents; tangents that a selection makes zero stay zero whatever they are multiplied with,
as in reverse mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Bilinear, Custom, Linear, Partials
from graphjit.ir.patterns import is_zero
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
            if tangent is not None and not is_zero(tangent):
                found[node] = lift_mask(b, tangent)
    return [found.get(node) for node in outputs]


def push(b: Builder, node: Node, given: Sequence[Node | None]) -> Node | None:
    """Tangent of one node from the tangents of its arguments."""
    rule = node.op.derivative
    if isinstance(rule, Partials):
        return _sum(b, _scaled_tangents(b, node, given, rule))
    if isinstance(rule, Linear):
        return _applied_to_tangents(b, node, given, rule)
    if isinstance(rule, Bilinear):
        (x, y), (dx, dy) = node.args, given
        terms = [] if dx is None else [b.emit(node.op, dx, y, **node.attrs)]
        terms += [] if dy is None else [b.emit(node.op, x, dy, **node.attrs)]
        return _sum(b, terms)
    if isinstance(rule, Custom):
        return rule.jvp(b, node, node.args, given)
    raise no_derivative(node)


def _scaled_tangents(b: Builder, node: Node, given: Sequence[Node | None], rule: Partials) -> list[Node]:
    """Each tangent times the partial derivative of its argument; those that are zero are left out."""
    terms = []
    for tangent, formula in zip(given, rule.formulas, strict=True):
        if tangent is None or formula is None:
            continue
        if isinstance(formula, int):
            terms.append(tangent if formula == 1 else b.neg(tangent))
            continue
        local = formula(b, node, *node.args)
        if local is not None:
            factor = masked_where_zero(b, tangent) if node.op.name in SINGULAR else tangent
            terms.append(scale(b, factor, local))
    return terms


def _applied_to_tangents(b: Builder, node: Node, given: Sequence[Node | None], rule: Linear) -> Node | None:
    """The op itself with the tangents in place of the arguments in which it is linear."""
    linear = range(len(node.args)) if rule.args is None else rule.args
    if all(given[i] is None for i in linear):
        return None
    args = list(node.args)
    for i in linear:
        args[i] = given[i] or b.full(0.0, node.args[i].type)
    return b.emit(node.op, *args, **node.attrs)


def _sum(b: Builder, terms: Sequence[Node]) -> Node | None:
    """Their sum, masks outermost; None without any."""
    total: Node | None = None
    for term in terms:
        total = term if total is None else b.add(lift_mask(b, total), term)
    return total
