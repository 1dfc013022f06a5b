"""`grad`, `jvp` and `vjp` of a Python function inside a trace.

Job: take the derivative of the nodes that the function returned for placeholders (`placeholders`).
Input: the active trace, a function, its arguments. Output: results and derivatives as traced values.
Invariant: only placeholders are differentiated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit import config
from graphjit.errors import DerivativeError
from graphjit.ir.node import Node
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import flatten, unflatten
from graphjit.trace.recording.tracer import Trace, Tracer, is_python_number
from graphjit.trace.transformed.placeholders import (
    Auxiliary,
    Placeholders,
    is_constant,
    output_nodes,
    unchanging,
    with_aux,
)
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents, or_zeros


def value_and_grad(
    trace: Trace,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argnums: Sequence[int],
    argnames: Sequence[str],
    has_aux: bool,
) -> tuple[Any, Any, list[Any]]:
    """``(value, aux, gradients)``: one gradient tree per entry of ``argnums`` and ``argnames``."""
    names = [f"argument {i}" for i in argnums] + [f"argument {name!r}" for name in argnames]
    trees = [args[i] for i in argnums] + [kwargs[name] for name in argnames]
    placeholders = Placeholders(trace, trees, names, "grad")
    values = iter(placeholders.values)
    new_args = list(args)
    for i in argnums:
        new_args[i] = next(values)
    new_kwargs = kwargs | {name: next(values) for name in argnames}
    result, aux = with_aux(unchanging(function, new_args, new_kwargs), has_aux, "grad")
    auxiliary = Auxiliary(trace, aux)
    value, *others = placeholders.rolled([_one_number(trace, function, result), *auxiliary.nodes])
    b = trace.builder
    found = cotangents(b, {value: b.full(1.0, value.type)}, placeholders.inputs)
    if "grad" in config.log_topics:
        _say_independent(function, placeholders.inputs, found)
    gradients = or_zeros(b, placeholders.inputs, found)
    nodes = placeholders.resolve([value, *gradients, *others])
    first, *rest = [Tracer(trace, node) for node in nodes]
    count = len(gradients)
    return first, auxiliary.tree(rest[count:]), placeholders.trees(rest[:count])


def _one_number(trace: Trace, function: Callable[..., Any], result: Any) -> Node:
    """The node of a result that has a gradient.

    Raises:
        DerivativeError: it is not one floating-point number.
    """
    (value, *more), _ = output_nodes(trace, result, "grad")
    if more or value.shape != () or value.dtype.kind != "f":
        kind = f"{1 + len(more)} arrays" if more else str(value.type)
        raise DerivativeError(
            f"grad needs a function that returns one floating-point number; {name_of(function)} returned {kind}. For other "
            "results use graphjit.vjp, or reduce to a number, for example with np.sum"
        )
    return value


def _say_independent(
    function: Callable[..., Any], inputs: Sequence[Node], derivatives: Sequence[Node | None]
) -> None:
    """Log the inputs on which the result does not depend."""
    for i, (node, derivative) in enumerate(zip(inputs, derivatives, strict=True)):
        if derivative is None:
            text = f"the result of {name_of(function)} does not depend on differentiated leaf {i} ({node.type}): its gradient is zero"
            print(f"graphjit: {text}", file=sys.stderr)


def jvp(
    trace: Trace, function: Callable[..., Any], primals: Sequence[Any], tangent_trees: Sequence[Any]
) -> tuple[Any, Any]:
    """``(out, tangent of out)``."""
    names = [f"argument {i}" for i in range(len(primals))]
    placeholders = Placeholders(trace, primals, names, "jvp")
    leaves = _tangent_leaves(placeholders, tangent_trees)
    seeds = {
        node: _tangent_like(trace, node, leaf) for node, leaf in zip(placeholders.inputs, leaves, strict=True)
    }
    found, spec = output_nodes(trace, unchanging(function, placeholders.values, {}), "jvp")
    outs = placeholders.rolled(found)
    out_tangents = or_zeros(trace.builder, outs, tangents(trace.builder, seeds, outs))
    resolved = [Tracer(trace, node) for node in placeholders.resolve([*outs, *out_tangents])]
    return unflatten(spec, resolved[: len(outs)]), unflatten(spec, resolved[len(outs) :])


def _tangent_leaves(placeholders: Placeholders, trees: Sequence[Any]) -> list[Any]:
    """The tangent of each placeholder.

    Raises:
        DerivativeError: the trees of tangents are not built like those of the primals.
    """
    flat, specs = [], []
    for tree in trees:
        leaves, spec = flatten(tree)
        flat += leaves
        specs.append(spec)
    if specs != placeholders.specs:
        raise DerivativeError(f"jvp: primals have structure {placeholders.specs} and tangents {specs}")
    primals = [leaf for leaves in placeholders.leaves for leaf in leaves]
    for primal, tangent in zip(primals, flat, strict=True):
        if is_constant(primal) and not (tangent is None or tangent == primal):
            raise DerivativeError(f"jvp: the tangent of {primal!r}, which is no number, must be None")
    return [tangent for primal, tangent in zip(primals, flat, strict=True) if not is_constant(primal)]


def _tangent_like(trace: Trace, primal: Node, leaf: Any) -> Node:
    """A tangent in the dtype of its primal.

    Raises:
        DerivativeError: it has another shape, or no dtype of a number.
    """
    tangent = trace.node(leaf)
    other = tangent.dtype != primal.dtype and not is_python_number(leaf)
    if tangent.shape != primal.shape or (other and tangent.dtype.kind not in "fi"):
        raise DerivativeError(
            f"jvp: a tangent of dtype and shape {tangent.type} was given for a primal of {primal.type}"
        )
    return trace.convert(tangent, primal.dtype)


def linearize(
    trace: Trace, function: Callable[..., Any], primals: Sequence[Any], has_aux: bool
) -> tuple[Any, Callable[..., Any], Any, list[Any]]:
    """``(out, pushforward, aux, primals)``; the pushforward takes one tree for each primal, and the last are
    the primals as traced values.
    """
    placeholders = Placeholders(trace, primals, [f"argument {i}" for i in range(len(primals))], "linearize")
    result, aux = with_aux(unchanging(function, placeholders.values, {}), has_aux, "linearize")
    found, spec = output_nodes(trace, result, "linearize")
    auxiliary = Auxiliary(trace, aux)
    nodes = placeholders.rolled([*found, *auxiliary.nodes])
    outs = nodes[: len(found)]
    resolved = [Tracer(trace, node) for node in placeholders.resolve(nodes)]

    def pushforward(*trees: Any) -> Any:
        leaves = _tangent_leaves(placeholders, trees)
        seeds = {
            node: _tangent_like(trace, node, leaf)
            for node, leaf in zip(placeholders.inputs, leaves, strict=True)
        }
        found = placeholders.resolve(or_zeros(trace.builder, outs, tangents(trace.builder, seeds, outs)))
        return unflatten(spec, [Tracer(trace, node) for node in found])

    given = placeholders.trees([Tracer(trace, node) for node in placeholders.actual])
    out = unflatten(spec, resolved[: len(outs)])
    return out, pushforward, auxiliary.tree(resolved[len(outs) :]), given


def hvp(
    trace: Trace, function: Callable[..., Any], primals: Sequence[Any], tangent_trees: Sequence[Any]
) -> tuple[Any, ...]:
    """The derivative of the gradient along a direction: one tree for each primal."""

    def gradients(*args: Any) -> tuple[Any, ...]:
        return tuple(value_and_grad(trace, function, args, {}, range(len(args)), [], False)[2])

    products: tuple[Any, ...] = jvp(trace, gradients, primals, tangent_trees)[1]
    return products


def check_derivative(leaf: Any, name: str, what: str, like: str) -> None:
    """Refuse what NumPy would convert to NaN or to a string.

    Raises:
        DerivativeError: a cotangent (or a tangent) that is neither an array nor a number.
    """
    if not isinstance(leaf, Tracer | np.ndarray | np.generic | int | float):
        raise DerivativeError(f"{name}: a {what} must be an array or a number like the {like}, not {leaf!r}")


def vjp(
    trace: Trace, function: Callable[..., Any], primals: Sequence[Any], has_aux: bool
) -> tuple[Any, Callable[[Any], Any], Any]:
    """``(out, pullback, aux)``; the pullback takes a tree like ``out`` and returns one tree per primal."""
    placeholders = Placeholders(trace, primals, [f"argument {i}" for i in range(len(primals))], "vjp")
    result, aux = with_aux(unchanging(function, placeholders.values, {}), has_aux, "vjp")
    results, spec = output_nodes(trace, result, "vjp")
    auxiliary = Auxiliary(trace, aux)
    rolled = placeholders.rolled([*results, *auxiliary.nodes])
    outs = rolled[: len(results)]
    resolved = [Tracer(trace, node) for node in placeholders.resolve(rolled)]

    def pullback(tree: Any) -> tuple[Any, ...]:
        leaves, structure = flatten(tree)
        if structure != spec:
            raise DerivativeError(f"pullback: the cotangent has structure {structure}, the result {spec}")
        seeds = _cotangent_seeds(trace, outs, leaves)
        found = cotangents(trace.builder, seeds, placeholders.inputs)
        nodes = placeholders.resolve(or_zeros(trace.builder, placeholders.inputs, found))
        return tuple(placeholders.trees([Tracer(trace, node) for node in nodes]))

    out = unflatten(spec, resolved[: len(outs)])
    return out, pullback, auxiliary.tree(resolved[len(outs) :])


def _cotangent_seeds(trace: Trace, outs: Sequence[Node], leaves: Sequence[Any]) -> dict[Node, Node]:
    """The cotangent of each output, in its dtype; of an output that is returned twice their sum.

    Raises:
        DerivativeError: a cotangent of another shape.
    """
    seeds: dict[Node, Node] = {}
    for out, leaf in zip(outs, leaves, strict=True):
        check_derivative(leaf, "pullback", "cotangent", "result")
        cotangent = trace.node(leaf)
        if cotangent.shape != out.shape:
            raise DerivativeError(
                f"pullback: a cotangent of shape {cotangent.shape} was given for a result of shape {out.shape}"
            )
        if out.dtype.kind == "f":
            cotangent = trace.convert(cotangent, out.dtype)
            seeds[out] = trace.emit("add", seeds[out], cotangent) if out in seeds else cotangent
    return seeds
