"""Derivative rules that are the user's Python functions: `custom_jvp` and `custom_vjp`.

Job: when a derivative of a node is asked for, call the user's function on traced values and check what it
returns.
Input: a node, tangents or cotangents. Output: nodes of derivatives.
Invariants: a rule runs inside the trace that made the node; what the function read from outside has no
derivative, which is an error and never a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphjit.errors import DerivativeError
from graphjit.ir.builder import Builder
from graphjit.ir.names import one_line
from graphjit.ir.node import Node
from graphjit.ir.types import Type
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import flatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.tracer import Trace, Tracer, any_tracer, is_number
from graphjit.trace.transformed.bodies import Closed, Leaves, TracedRule, call_as_node
from graphjit.transforms.bodies import transposed_jvp, transposed_vjp
from graphjit.transforms.reverse import or_zeros
from graphjit.transforms.substitute import body_of


class PythonRule(TracedRule):
    """What rules of the user's share: arguments and results of the function in their containers."""

    def __init__(self, function: Callable[..., Any], body: Closed, given: Leaves) -> None:
        self.name = name_of(function)
        self.given = given
        self.result = body.result
        self.count = len(given.numbers)
        """Arguments of the node that are the user's own."""

    @contextmanager
    def asking(self, b: Builder, kind: str) -> Iterator[None]:
        """Around the user's rule: what it records is derivative code."""
        before, b.asked = b.asked, f"{kind} of {one_line(self.name)}"
        try:
            with b.told.rule():
                yield
        finally:
            b.asked = before

    def own(self, node: Node, flags: Sequence[bool]) -> None:
        """Refuse derivatives with respect to what the function read from outside.

        Raises:
            DerivativeError: such a one is asked for.
        """
        if any(flags[self.count :]):
            at = f" (called at {node.loc})" if node.loc else ""
            raise DerivativeError(
                f"{self.name} has a derivative rule of its own for its arguments, but it also reads a differentiated value from outside{at}; "
                "pass that value as an argument"
            )


class JvpRule(PythonRule):
    """``rule(primals, tangents) -> (out, tangent of out)``."""

    def __init__(
        self, function: Callable[..., Any], rule: Callable[..., Any], body: Closed, given: Leaves
    ) -> None:
        super().__init__(function, body, given)
        self.rule = rule

    def jvp(self, b: Any, node: Node, given: Sequence[Node | None]) -> list[Node | None]:
        """By the user's function."""
        self.own(node, [t is not None for t in given])
        trace = self.trace()
        args = node.args[: self.count]
        primals = self.given.like(trace, args)
        tangents = self.given.like(trace, or_zeros(b, args, given[: self.count]))
        with self.asking(b, "jvp"):
            answer = self.rule(primals, tangents)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise DerivativeError(
                f"the rule of {self.name} must return a pair (out, tangent), not {answer!r}"
            )
        return _nodes_like(
            trace, answer[1], self.result, node.parts, f"the tangent that the rule of {self.name} returned"
        )

    def vjp(
        self, b: Any, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]
    ) -> list[Node | None]:
        """The transpose."""
        self.own(node, wanted)
        return transposed_jvp(b, self, node, given, wanted)


class VjpRule(PythonRule):
    """``forward(*args) -> (out, residuals)`` and ``backward(residuals, cotangent) -> cotangents``."""

    def __init__(
        self,
        function: Callable[..., Any],
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        body: Closed,
        given: Leaves,
    ) -> None:
        super().__init__(function, body, given)
        self.forward = forward
        self.backward = backward

    def jvp(self, b: Any, node: Node, given: Sequence[Node | None]) -> list[Node | None]:
        """The transpose."""
        self.own(node, [t is not None for t in given])
        return transposed_vjp(b, self, node, given)

    def vjp(
        self, b: Any, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]
    ) -> list[Node | None]:
        """By the user's functions."""
        self.own(node, wanted)
        trace = self.trace()
        args = self.given.like(trace, node.args[: self.count])
        with self.asking(b, "vjp"):
            answer = self.forward(*args)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise DerivativeError(
                f"the forward rule of {self.name} must return a pair (out, residuals), not {answer!r}"
            )
        cts = or_zeros(b, body_of(node).outputs, given)
        with self.asking(b, "vjp"):
            pulled = self.backward(answer[1], self.result.filled([Tracer(trace, ct) for ct in cts]))
        if isinstance(pulled, list):
            pulled = tuple(pulled)
        if not isinstance(pulled, tuple) or len(pulled) != len(args):
            shown = f"{len(pulled)} values" if isinstance(pulled, tuple) else repr(pulled)
            raise DerivativeError(
                f"the backward rule of {self.name} must return a tuple with a cotangent for each of {len(args)} arguments, not {shown}"
            )
        found: list[Node | None] = []
        for number, (tree, arg) in enumerate(zip(pulled, args, strict=True)):
            leaves = Leaves.of(arg)
            types = [node.args[i + len(found)].type for i in range(len(leaves.numbers))]
            what = f"the cotangent of argument {number} that the backward rule of {self.name} returned"
            found += _nodes_like(trace, tree, leaves, types, what)
        found += [None] * (len(node.args) - self.count)
        return [ct if flag else None for ct, flag in zip(found, wanted, strict=True)]


def _nodes_like(trace: Trace, tree: Any, like: Leaves, types: Sequence[Type], what: str) -> list[Node | None]:
    """Nodes of a tree of derivatives, None where it is None.

    Raises:
        DerivativeError: it is built otherwise than ``like``, or a leaf has another shape.
    """
    if tree is None:
        return [None] * len(types)
    leaves, spec = flatten(tree)
    if spec != like.spec:
        raise DerivativeError(f"{what} has structure {spec}, not {like.spec}")
    nodes: list[Node | None] = []
    for i, type in zip(like.numbers, types, strict=True):
        leaf = leaves[i]
        if leaf is None or type.dtype.kind != "f":
            nodes.append(None)
            continue
        if not is_number(leaf) and not any_tracer(leaf):
            raise DerivativeError(f"{what} holds {leaf!r}, which is no array")
        node = trace.node(leaf)
        if node.shape != type.shape:
            raise DerivativeError(f"{what} has shape {node.shape}, not {type.shape}")
        nodes.append(trace.convert(node, type.dtype))
    return nodes


def with_nondiff(
    function: Callable[..., Any], args: Sequence[Any], nondiff: Sequence[int]
) -> tuple[Callable[..., Any], list[Any], list[Any]]:
    """``function`` of the other arguments alone, those, and the arguments in ``nondiff``."""
    fixed = {i: args[i] for i in nondiff}
    rest = [arg for i, arg in enumerate(args) if i not in fixed]

    def partial(*given: Any) -> Any:
        values, trace = iter(given), active_trace()
        called = function if trace is None else trace.user(function)
        return called(*[fixed[i] if i in fixed else next(values) for i in range(len(args))])

    partial.__qualname__ = partial.__name__ = name_of(function)
    return partial, rest, [args[i] for i in nondiff]


def call_with_jvp(
    trace: Trace,
    function: Callable[..., Any],
    rule: Callable[..., Any],
    args: Sequence[Any],
    nondiff: Sequence[int],
) -> Any:
    """The result of a function whose derivative is ``rule(*nondiff, primals, tangents)``."""
    rule = trace.user(rule)
    partial, rest, fixed = with_nondiff(function, args, nondiff)

    def on_pairs(primals: Any, tangents: Any) -> Any:
        return rule(*fixed, primals, tangents)

    return call_as_node(
        trace, partial, tuple(rest), lambda body, given: JvpRule(function, on_pairs, body, given)
    )[0]


def call_with_vjp(
    trace: Trace,
    function: Callable[..., Any],
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    args: Sequence[Any],
    nondiff: Sequence[int],
) -> Any:
    """The result of a function whose derivative is ``forward(*args)`` and ``backward(*nondiff, residuals,
    cotangent)``.
    """
    backward = trace.user(backward)
    partial, rest, fixed = with_nondiff(function, args, nondiff)
    first, _, _ = with_nondiff(forward, args, nondiff)

    def second(residuals: Any, ct: Any) -> Any:
        return backward(*fixed, residuals, ct)

    return call_as_node(
        trace, partial, tuple(rest), lambda body, given: VjpRule(function, first, second, body, given)
    )[0]
