"""Derivatives inside a trace.

Job: `grad`, `jvp` and `vjp` of a Python function whose arguments are traced values, as nodes of the same
builder.
Input: the active trace, a function, arguments.  Output: results and derivatives as tracers.
Invariants: the function sees fresh placeholder inputs, which are replaced by the actual arguments afterwards:
a value that it captured is never mistaken for an argument, so nested transforms need no levels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit import config
from graphjit.errors import DerivativeError
from graphjit.ir.node import Node
from graphjit.trace.arrays.buffers import token_of
from graphjit.trace.marks import attribute
from graphjit.trace.pytree import TreeSpec, flatten, texts, unflatten
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import (
    Array,
    Number,
    Trace,
    Tracer,
    any_tracer,
    assemble,
    is_python_number,
    kind_of,
)
from graphjit.trace.results import changed_under_derivative
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents
from graphjit.transforms.substitute import substitute


def is_constant(leaf: Any) -> bool:
    """Leaves of a differentiated tree that are left alone: they stand in the gradient as they are."""
    return leaf is None or isinstance(leaf, str)


class Placeholders:
    """Fresh inputs that stand for the differentiated leaves of one or several arguments."""

    def __init__(self, trace: Trace, trees: Sequence[Any], names: Sequence[str], what: str) -> None:
        self.trace = trace
        self.specs: list[TreeSpec] = []
        self.leaves: list[list[Any]] = []
        self.actual: list[Node] = []
        self.inputs: list[Node] = []
        self.values: list[Any] = []
        fresh, trace.fresh = trace.fresh, False
        for tree, name in zip(trees, names, strict=True):
            leaves, spec = flatten(tree)
            if leaves and all(map(is_constant, leaves)):
                raise DerivativeError(
                    f"{what} with respect to {name}: it holds {leaves[0]!r}, which is not an array, and nothing else"
                )
            tracers: list[Any] = []
            for leaf, path in zip(leaves, texts(spec, ""), strict=True):
                if is_constant(leaf):
                    tracers.append(leaf)
                    continue
                node = self._differentiable(leaf, name + (f", part {path}" if path else ""), what)
                own = fresh and isinstance(leaf, Tracer) and leaf._node is node
                placeholder = node if own else trace.builder.input(node.type, name)
                if trace.values is not None:
                    trace.values.known[placeholder] = trace.values.of(node)
                    trace.values.differentiated.add(placeholder)
                self.actual.append(node)
                self.inputs.append(placeholder)
                tracers.append(kind_of(leaf)(trace, placeholder))
            self.specs.append(spec)
            self.leaves.append(leaves)
            self.values.append(unflatten(spec, tracers))

    def _differentiable(self, leaf: Any, name: str, what: str) -> Node:
        if not isinstance(leaf, Tracer | np.ndarray | np.generic | int | float | complex):
            raise DerivativeError(
                f"{what} with respect to {name}: it holds {leaf!r}, which is not an array; choose other arguments with argnums (of a method, self "
                "is argument 0)"
            )
        node = self.trace.node(leaf)
        if node.dtype.kind == "f":
            return node
        number = isinstance(leaf, Number) or is_python_number(leaf)
        bool_, kind = node.dtype.kind == "b", f"its dtype is {node.dtype}"
        if number:
            kind = "it is a Python bool" if bool_ else "it is a Python int"
        advice = (
            "choose other arguments with argnums"
            if bool_
            else "pass 3.0 instead of 3, or float(x)"
            if number
            else "pass x.astype(float)"
        )
        raise DerivativeError(
            f"{what} with respect to {name}: {kind} and only floating point has a derivative (at {user_location()}); {advice}"
        )

    def resolve(self, nodes: Sequence[Node]) -> list[Node]:
        """``nodes`` in terms of the actual arguments."""
        return substitute(self.trace.builder, nodes, dict(zip(self.inputs, self.actual, strict=True)))

    def trees(self, found: Sequence[Any]) -> list[Any]:
        """Flat values of all placeholders back in the shape of the arguments; what is no number stands there
        as it is.
        """
        rest = iter(found)
        return [
            unflatten(spec, [leaf if is_constant(leaf) else next(rest) for leaf in leaves])
            for spec, leaves in zip(self.specs, self.leaves, strict=True)
        ]


def output_nodes(trace: Trace, tree: Any, what: str) -> tuple[list[Node], TreeSpec]:
    """Nodes of a function's result."""
    leaves, spec = flatten(tree)
    nodes = []
    for leaf in leaves:
        if isinstance(leaf, str) or leaf is None or callable(leaf):
            raise DerivativeError(f"{what}: the function returned {leaf!r}, which is not an array")
        nodes.append(trace.node(assemble(trace, leaf) if any_tracer(leaf) else leaf))
    return nodes, spec


def unchanging(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of a function that must not change its arguments in place.

    Raises:
        DerivativeError: it does.
    """
    arrays = [leaf for leaf in flatten((tuple(args), kwargs))[0] if isinstance(leaf, Array)]
    before = [token_of(x) for x in arrays]
    result = function(*args, **kwargs)
    for x, token in zip(arrays, before, strict=True):
        if token_of(x) is not token:
            raise changed_under_derivative(x)
    return result


def zeros(trace: Trace, node: Node) -> Node:
    """A true zero in the type of ``node``."""
    return trace.builder.full(0.0, node.type)


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
    held = Placeholders(trace, trees, names, "grad")
    values = iter(held.values)
    new_args = list(args)
    for i in argnums:
        new_args[i] = next(values)
    new_kwargs = kwargs | {name: next(values) for name in argnames}
    result = unchanging(function, new_args, new_kwargs)
    aux: Any = None
    if has_aux:
        if not isinstance(result, tuple) or len(result) != 2:
            raise DerivativeError("grad with has_aux=True: the function must return a pair (value, aux)")
        result, aux = result
    (value, *more), _ = output_nodes(trace, result, "grad")
    if more or value.shape != () or value.dtype.kind != "f":
        kind = f"{1 + len(more)} arrays" if more else str(value.type)
        raise DerivativeError(
            f"grad needs a function that returns one floating-point number; {_name(function)} returned {kind}. For other "
            "results use graphjit.vjp, or reduce to a number, for example with np.sum"
        )
    b = trace.builder
    found = cotangents(b, {value: b.full(1.0, value.type)}, held.inputs)
    if "grad" in config.log_topics:
        for node, ct, i in zip(held.inputs, found, range(len(found)), strict=True):
            if ct is None:
                text = f"the result of {_name(function)} does not depend on differentiated leaf {i} ({node.type}): its gradient is zero"
                print(f"graphjit: {text}", file=sys.stderr)
    gradients = [
        zeros(trace, node) if ct is None else ct for node, ct in zip(held.inputs, found, strict=True)
    ]
    aux_leaves, aux_spec = flatten(aux)
    traced = [i for i, leaf in enumerate(aux_leaves) if isinstance(leaf, Tracer) or any_tracer(leaf)]
    aux_nodes = [trace.node(aux_leaves[i]) for i in traced]
    resolved = held.resolve([value, *gradients, *aux_nodes])
    tracers = [Tracer(trace, node) for node in resolved]
    for i, tracer in zip(traced, tracers[1 + len(gradients) :], strict=True):
        aux_leaves[i] = tracer
    return tracers[0], unflatten(aux_spec, aux_leaves), held.trees(tracers[1 : 1 + len(gradients)])


def jvp(
    trace: Trace, function: Callable[..., Any], primals: Sequence[Any], given: Sequence[Any]
) -> tuple[Any, Any]:
    """``(out, tangent of out)``."""
    names = [f"argument {i}" for i in range(len(primals))]
    held = Placeholders(trace, primals, names, "jvp")
    flat, specs = [], []
    for tree in given:
        leaves, spec = flatten(tree)
        flat += leaves
        specs.append(spec)
    if specs != held.specs:
        raise DerivativeError(f"jvp: primals have structure {held.specs} and tangents {specs}")
    constants = [leaf for leaves in held.leaves for leaf in leaves]
    for leaf, tangent in zip(constants, flat, strict=True):
        if is_constant(leaf) and not (tangent is None or tangent == leaf):
            raise DerivativeError(f"jvp: the tangent of {leaf!r}, which is no number, must be None")
    flat = [tangent for leaf, tangent in zip(constants, flat, strict=True) if not is_constant(leaf)]
    seeds = {}
    for node, leaf in zip(held.inputs, flat, strict=True):
        tangent = trace.node(leaf)
        if tangent.shape != node.shape or (tangent.dtype != node.dtype and not is_python_number(leaf)):
            if tangent.shape != node.shape or tangent.dtype.kind not in "fi":
                raise DerivativeError(
                    f"jvp: a tangent of dtype and shape {tangent.type} was given for a primal of {node.type}"
                )
        seeds[node] = trace.convert(tangent, node.dtype)
    outs, spec = output_nodes(trace, unchanging(function, held.values, {}), "jvp")
    found = tangents(trace.builder, seeds, outs)
    dots = [zeros(trace, node) if dot is None else dot for node, dot in zip(outs, found, strict=True)]
    resolved = [Tracer(trace, node) for node in held.resolve([*outs, *dots])]
    return unflatten(spec, resolved[: len(outs)]), unflatten(spec, resolved[len(outs) :])


def check_cotangent(leaf: Any) -> None:
    """Refuse what NumPy would convert to NaN or to a string.

    Raises:
        DerivativeError: a cotangent that is neither an array nor a number.
    """
    if not isinstance(leaf, Tracer | np.ndarray | np.generic | int | float):
        raise DerivativeError(
            f"pullback: a cotangent must be an array or a number like the result, not {leaf!r}"
        )


def vjp(
    trace: Trace, function: Callable[..., Any], primals: Sequence[Any], has_aux: bool
) -> tuple[Any, Callable[[Any], Any], Any]:
    """``(out, pullback, aux)``; the pullback takes a tree like ``out`` and returns one tree per primal."""
    held = Placeholders(trace, primals, [f"argument {i}" for i in range(len(primals))], "vjp")
    result = unchanging(function, held.values, {})
    aux: Any = None
    if has_aux:
        result, aux = result
    outs, spec = output_nodes(trace, result, "vjp")
    aux_leaves, aux_spec = flatten(aux)
    traced = [i for i, leaf in enumerate(aux_leaves) if isinstance(leaf, Tracer) or any_tracer(leaf)]
    resolved = held.resolve([*outs, *[trace.node(aux_leaves[i]) for i in traced]])
    for i, node in zip(traced, resolved[len(outs) :], strict=True):
        aux_leaves[i] = Tracer(trace, node)

    def pullback(tree: Any) -> tuple[Any, ...]:
        leaves, given = flatten(tree)
        if given != spec:
            raise DerivativeError(f"pullback: the cotangent has structure {given}, the result {spec}")
        seeds: dict[Node, Node] = {}
        for out, leaf in zip(outs, leaves, strict=True):
            check_cotangent(leaf)
            ct = trace.node(leaf)
            if ct.shape != out.shape:
                raise DerivativeError(
                    f"pullback: a cotangent of shape {ct.shape} was given for a result of shape {out.shape}"
                )
            if out.dtype.kind == "f":
                ct = trace.convert(ct, out.dtype)
                seeds[out] = trace.emit("add", seeds[out], ct) if out in seeds else ct
        found = cotangents(trace.builder, seeds, held.inputs)
        nodes = [
            zeros(trace, node) if ct is None else ct for node, ct in zip(held.inputs, found, strict=True)
        ]
        return tuple(held.trees([Tracer(trace, node) for node in held.resolve(nodes)]))

    out = unflatten(spec, [Tracer(trace, node) for node in resolved[: len(outs)]])
    return out, pullback, unflatten(aux_spec, aux_leaves)


def _name(function: Callable[..., Any]) -> str:
    return attribute(function, "__qualname__", type(function).__name__)  # type: ignore[no-any-return]
