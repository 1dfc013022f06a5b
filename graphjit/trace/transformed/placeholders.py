"""What all transformations of a Python function inside a trace share: fresh inputs that stand for arguments,
and what the function may return.

Job: call the function on placeholders, so that its result is nodes that depend on them; later put the actual
arguments in their place.
Input: the active trace, a function, its arguments. Output: nodes, and trees of traced values.
Invariants: a value that the function captured is never mistaken for an argument, and nested transformations
need no levels; a function that changes its arguments in place cannot be transformed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.errors import DerivativeError
from graphjit.ir.node import Node
from graphjit.trace.arrays.buffers import token_of
from graphjit.trace.pytree import TreeSpec, flatten, texts, unflatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import (
    Array,
    Number,
    Trace,
    Tracer,
    any_tracer,
    is_python_number,
    kind_of,
)
from graphjit.trace.results import changed_by_transformed
from graphjit.trace.rolling import rolled
from graphjit.transforms.effects import retold
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
        self.told = len(trace.builder.told)
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
        """``nodes`` in terms of the actual arguments, and so all effects since the placeholders were made."""
        actual = dict(zip(self.inputs, self.actual, strict=True))
        retold(self.trace.builder, self.told, actual)
        return substitute(self.trace.builder, nodes, actual)

    def rolled(self, nodes: Sequence[Node]) -> list[Node]:
        """``nodes`` of what the function returned, with its loops rolled up again."""
        return rolled(self.trace, nodes, self.inputs, self.told)

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
        nodes.append(trace.node(leaf))
    return nodes, spec


def unchanging(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], what: str = ""
) -> Any:
    """The result of a function that must not change its arguments in place.

    Raises:
        DerivativeError: it does (TraceError if ``what`` is "vmap").
    """
    arrays = [leaf for leaf in flatten((tuple(args), kwargs))[0] if isinstance(leaf, Array)]
    before = [token_of(x) for x in arrays]
    trace = active_trace()
    called = function if trace is None else trace.user(function)
    result = called(*args, **kwargs)
    for x, token in zip(arrays, before, strict=True):
        if token_of(x) is not token:
            raise changed_by_transformed(x, what)
    return result


def with_aux(result: Any, has_aux: bool, what: str) -> tuple[Any, Any]:
    """``(value, aux)`` of what a function returned; without ``has_aux`` all of it is the value.

    Raises:
        DerivativeError: it should be a pair and is not.
    """
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise DerivativeError(f"{what} with has_aux=True: the function must return a pair (value, aux)")
    return result


class Auxiliary:
    """What a function with ``has_aux`` returns beside its value: given back as it is, with traced leaves in
    terms of the actual arguments.
    """

    def __init__(self, trace: Trace, tree: Any) -> None:
        self.leaves, self.spec = flatten(tree)
        self.traced = [i for i, x in enumerate(self.leaves) if any_tracer(x)]
        self.nodes = [trace.node(self.leaves[i]) for i in self.traced]

    def tree(self, resolved: Sequence[Tracer]) -> Any:
        """The result, with these values for ``nodes``."""
        for i, value in zip(self.traced, resolved, strict=True):
            self.leaves[i] = value
        return unflatten(self.spec, self.leaves)
