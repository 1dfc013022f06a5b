"""Reverse mode: cotangents of chosen nodes from those of outputs, as ordinary nodes beside the forward ones.

Input: nodes and output cotangents. Output: one cotangent node per requested node, None where it does not
depend.
Invariants: all paths are summed; a zero cotangent is never built; forward and backward stay one graph, so
every later pass sees both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphjit.errors import DerivativeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node, reachable
from graphjit.ir.opdef import (
    Bilinear,
    ByRule,
    Custom,
    Linear,
    NonDifferentiable,
    Part,
    Partials,
    ZeroDerivative,
)
from graphjit.ir.rule import rule_of
from graphjit.transforms.effects import retold
from graphjit.transforms.masked import lift_mask, scale
from graphjit.transforms.substitute import body_of, in_terms_of
from graphjit.transforms.tapes import plus, zeros_like


def active_nodes(outputs: Iterable[Node], wrt: Iterable[Node]) -> list[Node]:
    """Nodes on a differentiable path from ``wrt`` to ``outputs``, in topological order."""
    active = set(wrt)
    order = sorted(reachable(outputs), key=lambda node: node.serial)
    for node in order:
        if not active.isdisjoint(_varying_arguments(node)) and _has_derivative(node):
            active.add(node)
    return [node for node in order if node in active]


def _has_derivative(node: Node) -> bool:
    """Whether a result of a node is floating point, and no constant for derivatives."""
    if isinstance(node.op.derivative, ZeroDerivative):
        return False
    return any(t.has_derivative for t in node.parts) if node.is_bundle else node.type.has_derivative


def _varying_arguments(node: Node) -> Sequence[Node]:
    """The arguments on which a node's value depends."""
    rule = node.op.derivative
    if isinstance(rule, Partials) and None in rule.formulas:
        return [arg for arg, formula in zip(node.args, rule.formulas, strict=True) if formula is not None]
    return node.args


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
    several: dict[Node, list[Node | None]] = {}
    """The cotangents of nodes with several results, result by result."""
    active = active_nodes(seeds, wrt)
    inside = set(active)
    keep = set(wrt)
    for node in reversed(active):
        ct = found.get(node) if node in keep else found.pop(node, None)
        if (ct is None and node not in several) or not any(arg in inside for arg in node.args):
            continue
        b.like(node, origin=f"vjp of {node.op.name}")
        if isinstance(node.op.derivative, Part):
            _add_part(b, several, node, ct)
            continue
        if isinstance(node.op.derivative, ByRule):
            parts = pull_by_rule(b, node, several.pop(node, [ct]), [arg in inside for arg in node.args])
        else:
            assert ct is not None
            parts = pull(b, node, ct, inside)
        for arg, part in zip(node.args, parts, strict=True):
            if part is not None and arg in inside:
                part = lift_mask(b, part)
                before = found.get(arg)
                found[arg] = part if before is None else lift_mask(b, plus(b, before, part))
    return [found.get(node) for node in wrt]


def _add_part(b: Builder, several: dict[Node, list[Node | None]], item: Node, ct: Node | None) -> None:
    """Add the cotangent of one result to those of its node."""
    (node,) = item.args
    parts = several.setdefault(node, [None] * len(node.parts))
    index: Any = item.attrs["index"]
    before = parts[index]
    parts[index] = ct if before is None or ct is None else lift_mask(b, plus(b, before, ct))


def pull_by_rule(
    b: Builder, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]
) -> Sequence[Node | None]:
    """Cotangents of the arguments of a node with a body."""
    rule = rule_of(node)
    return body_vjp(b, node, given, wanted) if rule is None else rule.vjp(b, node, given, wanted)


def body_vjp(
    b: Builder,
    node: Node,
    given: Sequence[Node | None],
    wanted: Sequence[bool],
    known: Mapping[Node, Node] | None = None,
) -> list[Node | None]:
    """Cotangents of the arguments of a node by reverse mode through its body.

    ``known`` says what stands for nodes of the body; by default the node's arguments for its inputs.
    """
    graph, start = body_of(node), len(b.told)
    inputs = [x for x, flag in zip(graph.inputs, wanted, strict=True) if flag]
    found = iter(cotangents(b, summed(b, graph.outputs, given), inputs))
    values = [next(found) if flag else None for flag in wanted]
    actual = known or dict(zip(graph.inputs, node.args, strict=True))
    retold(b, start, actual)
    return in_terms_of(b, values, actual)


def summed(b: Builder, nodes: Sequence[Node], given: Sequence[Node | None]) -> dict[Node, Node]:
    """Seeds of `cotangents`: of a node that stands there twice, the sum."""
    seeds: dict[Node, Node] = {}
    for node, ct in zip(nodes, given, strict=True):
        if ct is not None:
            seeds[node] = plus(b, seeds[node], ct) if node in seeds else ct
    return seeds


def or_zeros(b: Builder, nodes: Sequence[Node], derivatives: Sequence[Node | None]) -> list[Node]:
    """The derivative that belongs to each node; where there is none, zeros of the node's type."""
    return [zeros_like(b, x) if d is None else d for x, d in zip(nodes, derivatives, strict=True)]


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
