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
from graphjit.ir.opdef import Bilinear, ByRule, Custom, Linear, Part, Partials
from graphjit.ir.patterns import is_zero
from graphjit.ir.rule import rule_of
from graphjit.transforms.effects import retold
from graphjit.transforms.masked import SINGULAR, lift_mask, masked_where_zero, scale
from graphjit.transforms.reverse import active_nodes, no_derivative
from graphjit.transforms.substitute import body_of, in_terms_of


def tangents(b: Builder, seeds: Mapping[Node, Node], outputs: Sequence[Node]) -> list[Node | None]:
    """Tangents of ``outputs`` given the tangents ``seeds`` of some nodes.

    Raises:
        DerivativeError: an op on the way has no derivative.
    """
    found: dict[Node, Node] = dict(seeds)
    several: dict[Node, Sequence[Node | None]] = {}
    """The tangents of nodes with several results, result by result."""
    for node in active_nodes(outputs, seeds):
        if node not in found and any(arg in found or arg in several for arg in node.args):
            b.like(node, origin=f"jvp of {node.op.name}")
            if node.is_bundle:
                several[node] = push_by_rule(b, node, [found.get(arg) for arg in node.args])
                continue
            if isinstance(node.op.derivative, Part):
                tangent = several[node.args[0]][node.attrs["index"]]  # type: ignore[call-overload]
            else:
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
    if isinstance(rule, ByRule):
        (tangent,) = push_by_rule(b, node, given)
        return tangent
    raise no_derivative(node)


def push_by_rule(b: Builder, node: Node, given: Sequence[Node | None]) -> Sequence[Node | None]:
    """Tangents of the results of a node with a body."""
    rule = rule_of(node)
    return body_jvp(b, node, given) if rule is None else rule.jvp(b, node, given)


def body_jvp(b: Builder, node: Node, given: Sequence[Node | None]) -> list[Node | None]:
    """Tangents of the results of a node by forward mode through its body."""
    graph, start = body_of(node), len(b.told)
    seeds = {x: t for x, t in zip(graph.inputs, given, strict=True) if t is not None}
    found = tangents(b, seeds, graph.outputs)
    actual = dict(zip(graph.inputs, node.args, strict=True))
    retold(b, start, actual)
    return in_terms_of(b, found, actual)


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
