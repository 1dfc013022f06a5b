"""`grad`, `jvp` and `vjp` of a Python function inside a trace: with respect to what it may be differentiated,
and what it may return.

Job: call the function with a fresh placeholder input for each differentiated leaf, take the derivative of the
nodes that it returned (`transforms`), and put the actual arguments where the placeholders stand.
Input: the active trace, a function, its arguments. Output: results and derivatives as traced values.
Invariants: only placeholders are differentiated, so a value that the function captured is never mistaken for
an argument, and nested transforms need no levels; a function that changes its arguments in place has no
derivative.
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
from graphjit.trace.marks import name_of
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
                is_input = fresh and isinstance(leaf, Tracer) and leaf._node is node
                placeholder = node if is_input else trace.builder.input(node.type, name)
                if trace.values is not None:
                    trace.values.arrays[placeholder] = trace.values.of(node)
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

    def trees(self, values: Sequence[Any]) -> list[Any]:
        """One value for each placeholder, put together like the arguments; leaves that are no numbers stand
        there as they are.
        """
        rest = iter(values)
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


def or_zeros(trace: Trace, nodes: Sequence[Node], derivatives: Sequence[Node | None]) -> list[Node]:
    """The derivative that belongs to each node; where there is none, zeros of the node's type."""
    return [
        trace.builder.full(0.0, node.type) if derivative is None else derivative
        for node, derivative in zip(nodes, derivatives, strict=True)
    ]


class Auxiliary:
    """What a function with ``has_aux`` returns beside its value: given back as it is, with traced leaves in
    terms of the actual arguments.
    """

    def __init__(self, trace: Trace, tree: Any) -> None:
        self.leaves, self.spec = flatten(tree)
        self.traced = [i for i, x in enumerate(self.leaves) if isinstance(x, Tracer) or any_tracer(x)]
        self.nodes = [trace.node(self.leaves[i]) for i in self.traced]

    def tree(self, resolved: Sequence[Tracer]) -> Any:
        """The result, with these values for ``nodes``."""
        for i, value in zip(self.traced, resolved, strict=True):
            self.leaves[i] = value
        return unflatten(self.spec, self.leaves)


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
    result, aux = unchanging(function, new_args, new_kwargs), None
    if has_aux:
        if not isinstance(result, tuple) or len(result) != 2:
            raise DerivativeError("grad with has_aux=True: the function must return a pair (value, aux)")
        result, aux = result
    value = _one_number(trace, function, result)
    b = trace.builder
    found = cotangents(b, {value: b.full(1.0, value.type)}, placeholders.inputs)
    if "grad" in config.log_topics:
        _say_independent(function, placeholders.inputs, found)
    gradients = or_zeros(trace, placeholders.inputs, found)
    auxiliary = Auxiliary(trace, aux)
    nodes = placeholders.resolve([value, *gradients, *auxiliary.nodes])
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
    outs, spec = output_nodes(trace, unchanging(function, placeholders.values, {}), "jvp")
    out_tangents = or_zeros(trace, outs, tangents(trace.builder, seeds, outs))
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
    placeholders = Placeholders(trace, primals, [f"argument {i}" for i in range(len(primals))], "vjp")
    result, aux = unchanging(function, placeholders.values, {}), None
    if has_aux:
        result, aux = result
    outs, spec = output_nodes(trace, result, "vjp")
    auxiliary = Auxiliary(trace, aux)
    resolved = [Tracer(trace, node) for node in placeholders.resolve([*outs, *auxiliary.nodes])]

    def pullback(tree: Any) -> tuple[Any, ...]:
        leaves, structure = flatten(tree)
        if structure != spec:
            raise DerivativeError(f"pullback: the cotangent has structure {structure}, the result {spec}")
        seeds = _cotangent_seeds(trace, outs, leaves)
        found = cotangents(trace.builder, seeds, placeholders.inputs)
        nodes = placeholders.resolve(or_zeros(trace, placeholders.inputs, found))
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
        check_cotangent(leaf)
        cotangent = trace.node(leaf)
        if cotangent.shape != out.shape:
            raise DerivativeError(
                f"pullback: a cotangent of shape {cotangent.shape} was given for a result of shape {out.shape}"
            )
        if out.dtype.kind == "f":
            cotangent = trace.convert(cotangent, out.dtype)
            seeds[out] = trace.emit("add", seeds[out], cotangent) if out in seeds else cotangent
    return seeds
