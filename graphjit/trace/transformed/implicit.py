"""Solutions of equations as nodes of a trace: the body is the user's solver, the derivative a linear solve.

For ``f(x, p) = 0`` the tangent of the solution is that of ``A dx = -df/dp dp`` with ``A = df/dx``, at the
solution. Its transpose serves reverse mode.

Input: the active trace, the equation, solvers. Output: the solution, traced.
Invariants: what the equation reads from outside is an argument of the node; no derivative goes through the
solver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.errors import DerivativeError
from graphjit.ir.node import Node
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import flatten, unflatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.tracer import Trace, Tracer
from graphjit.trace.transformed.bodies import (
    Closed,
    Leaves,
    TracedRule,
    call_as_node,
    closed,
    results_of_node,
)
from graphjit.transforms import jacobian
from graphjit.transforms.bodies import transposed_jvp
from graphjit.transforms.effects import retold
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents, or_zeros, summed
from graphjit.transforms.substitute import in_terms_of, substitute

Solve = Callable[[Callable[[Any], Any], Any], Any]
Linear = Callable[[Sequence[Node]], Sequence[Node]]
"""A linear function of a vector, both as nodes."""
DENSE = 8
"""Unknowns up to which the matrix of a linear function is made, where no solver is given."""


def residual(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``f(x) - x``, leaf by leaf: zero at a fixed point."""

    def difference(x: Any) -> Any:
        before, spec = flatten(x)
        trace = active_trace()
        after, other = flatten((f if trace is None else trace.user(f))(x))
        if other != spec:
            raise DerivativeError(f"fixed_point: {name_of(f)} returned {other} for {spec}")
        return unflatten(spec, [a - b for a, b in zip(after, before, strict=True)])

    difference.__qualname__ = difference.__name__ = name_of(f)
    return difference


def root(
    trace: Trace,
    f: Callable[[Any], Any],
    guess: Any,
    solve: Solve,
    tangent_solve: Solve | None,
    has_aux: bool,
) -> Any:
    """The solution of ``f(x) = 0`` that ``solve(f, guess)`` finds."""
    f, solve, tangent_solve = map(trace.user, (f, solve, tangent_solve))
    with trace.builder.told.silence():  # what happens, happens where the solver calls it
        guess, equation = _equation(trace, f, guess, "custom_root")
    given = Leaves.of(guess)

    def solution(x: Any) -> Any:
        return solved_like(solve(f, x), given, has_aux, f"custom_root of {name_of(f)}: solve")

    solution.__qualname__ = solution.__name__ = name_of(f)
    result, _ = call_as_node(
        trace,
        solution,
        (guess,),
        lambda body, _: _RootRule(equation, given, tangent_solve),
        equation.outside,
    )
    return result


def linear_solve(
    trace: Trace,
    matvec: Callable[[Any], Any],
    b: Any,
    solve: Solve,
    transpose_solve: Solve | None,
    has_aux: bool,
) -> Any:
    """The solution of ``matvec(x) = b`` that ``solve(matvec, b)`` finds."""
    matvec, solve, transpose_solve = map(trace.user, (matvec, solve, transpose_solve))
    with trace.builder.told.silence():  # as in `root`
        b, equation = _equation(trace, matvec, b, "custom_linear_solve")
    given = Leaves.of(b)

    def solution(b: Any) -> Any:
        return solved_like(
            solve(matvec, b), given, has_aux, f"custom_linear_solve of {name_of(matvec)}: solve"
        )

    solution.__qualname__ = solution.__name__ = name_of(matvec)
    result, _ = call_as_node(
        trace,
        solution,
        (b,),
        lambda body, _: _LinearRule(equation, given, solve, transpose_solve, has_aux),
        equation.outside,
    )
    return result


def _equation(trace: Trace, f: Callable[[Any], Any], given: Any, what: str) -> tuple[Any, Closed]:
    """The unknowns in the dtypes that the equation has, and the equation.

    A guess of integers, or of float32 beside float64 parameters, is converted: a solution is what the
    equation makes of it.
    """
    leaves = Leaves.of(given)
    nodes = leaves.nodes(trace)
    equation = closed(trace, f, Leaves.of((given,)), nodes)
    _check_like(equation, leaves, name_of(f), what)
    dtypes = [node.dtype for node in equation.graph.outputs]
    if dtypes == [node.dtype for node in nodes]:
        return given, equation
    wide = [
        trace.convert(node, np.promote_types(node.dtype, dtype))
        for node, dtype in zip(nodes, dtypes, strict=True)
    ]
    converted = leaves.filled([Tracer(trace, node) for node in wide])
    equation = closed(trace, f, Leaves.of((converted,)), wide)
    made = [node.dtype for node in equation.graph.outputs]
    if made != [node.dtype for node in wide]:
        raise DerivativeError(
            f"{what}: {name_of(f)} returns {', '.join(map(str, made))} for unknowns of "
            f"{', '.join(str(node.dtype) for node in wide)}; give the guess the dtype of the equation"
        )
    return converted, equation


def solved_like(answer: Any, given: Leaves, has_aux: bool, what: str) -> Any:
    """What a solver returned, which must be built like the unknowns.

    Raises:
        DerivativeError: it is not.
    """
    if has_aux and (not isinstance(answer, tuple) or len(answer) != 2):
        raise DerivativeError(f"{what} must return a pair (solution, aux) with has_aux=True, not {answer!r}")
    leaves, spec = flatten(answer[0] if has_aux else answer)
    if spec != given.spec:
        raise DerivativeError(f"{what} must return what it was given, {given.spec}, not {spec}")
    for leaf, like in zip(leaves, given.leaves, strict=True):
        if np.shape(leaf) != np.shape(like):
            raise DerivativeError(
                f"{what} returned shape {np.shape(leaf)} for an unknown of shape {np.shape(like)}"
            )
    return answer


def nodes_of_solution(
    trace: Trace, answer: Any, given: Leaves, right: Sequence[Node], what: str
) -> list[Node]:
    """The nodes of the solution of a linear system, in the dtypes of its right-hand side."""
    solved_like(answer, given, False, what)
    nodes = Leaves.of(answer).nodes(trace)
    return [trace.convert(node, like.dtype) for node, like in zip(nodes, right, strict=True)]


def _check_like(equation: Closed, given: Leaves, name: str, what: str) -> None:
    """Refuse an equation that has other unknowns than it has equations.

    Raises:
        DerivativeError: it has.
    """
    types = [node.type for node in equation.graph.inputs[: len(given.numbers)]]
    made = [node.type for node in equation.graph.outputs]
    if equation.result.spec != given.spec or [t.shape for t in types] != [t.shape for t in made]:
        shown = ", ".join(map(str, made))
        raise DerivativeError(
            f"{what}: {name} must return what it takes, ({', '.join(map(str, types))}), not ({shown})"
        )


class _Equation(TracedRule):
    """What both rules share: the equation, closed over what it reads from outside."""

    def __init__(self, equation: Closed, given: Leaves) -> None:
        self.name = equation.graph.name
        self.equation = equation.graph
        self.given = given
        self.count = len(given.numbers)
        """Unknowns, counted in leaves."""

    def unknowns(self, v: Any) -> list[Node]:
        """A vector that a solver of the user's made, in the dtypes of the unknowns."""
        trace = self.trace()
        nodes = Leaves.of(v).nodes(trace)
        types = self.equation.inputs[: self.count]
        return [trace.convert(node, x.dtype) for node, x in zip(nodes, types, strict=True)]

    def outside(self, node: Node) -> Sequence[Node]:
        """What the equation reads from outside: the last arguments of the node."""
        return node.args[len(node.args) - (len(self.equation.inputs) - self.count) :]

    def solution(self, node: Node) -> list[Node]:
        """The solution, leaf by leaf; what the solver returned besides comes after it."""
        return results_of_node(self.trace(), node)[: self.count]

    def at(self, x: Sequence[Node], node: Node) -> dict[Node, Node]:
        """What stands for the inputs of the equation at a point."""
        return dict(zip(self.equation.inputs, (*x, *self.outside(node)), strict=True))

    def push(self, b: Any, point: dict[Node, Node], given: Sequence[Node | None], first: int) -> list[Node]:
        """Tangents of the equation for those of its inputs from ``first`` on."""
        inputs, start = self.equation.inputs[first : first + len(given)], len(b.told)
        seeds = {x: t for x, t in zip(inputs, given, strict=True) if t is not None}
        pushed = tangents(b, seeds, self.equation.outputs)
        retold(b, start, point)
        return or_zeros(b, self.equation.outputs, in_terms_of(b, pushed, point))

    def pull(
        self, b: Any, point: dict[Node, Node], given: Sequence[Node | None], first: int, count: int
    ) -> list[Node | None]:
        """Cotangents of ``count`` inputs of the equation from ``first`` on."""
        inputs, start = self.equation.inputs[first : first + count], len(b.told)
        pulled = cotangents(b, summed(b, self.equation.outputs, given), inputs)
        retold(b, start, point)
        return in_terms_of(b, pulled, point)

    def on_trees(self, matvec: Linear) -> Callable[[Any], Any]:
        """``matvec`` for a solver of the user's: vectors are in the containers of the unknowns."""

        def function(v: Any) -> Any:
            return self.given.like(self.trace(), matvec(self.unknowns(v)))

        function.__qualname__ = function.__name__ = self.name
        return function

    def spread(self, node: Node, values: Sequence[Node | None]) -> list[Node | None]:
        """Derivatives of the solution as those of all results of the node."""
        return [*values, *(None for _ in node.parts[len(values) :])]


class _RootRule(_Equation):
    """The derivative of a root."""

    def __init__(self, equation: Closed, given: Leaves, tangent_solve: Solve | None) -> None:
        super().__init__(equation, given)
        self.tangent_solve = tangent_solve

    def jvp(self, b: Any, node: Node, given: Sequence[Node | None]) -> list[Node | None]:
        """``A dx = -(df/dp) dp``."""
        moved = given[len(given) - len(self.outside(node)) :]
        if all(t is None for t in moved):
            return [None for _ in node.parts]
        point = self.at(self.solution(node), node)
        right = [b.neg(y) for y in self.push(b, point, moved, self.count)]
        solved = self.solved(lambda v: self.push(b, point, v, 0), right)
        return self.spread(node, solved)

    def vjp(
        self, b: Any, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]
    ) -> list[Node | None]:
        """The transpose, of the user's ``tangent_solve`` too."""
        first = len(node.args) - len(self.outside(node))
        return transposed_jvp(b, self, node, given, [w and i >= first for i, w in enumerate(wanted)])

    def solved(self, matvec: Linear, right: Sequence[Node]) -> list[Node]:
        """The solution of a linear system: by the user's solver, or directly."""
        trace = self.trace()
        if self.tangent_solve is None:
            return dense_solve(trace, matvec, right, self.name)
        answer = self.tangent_solve(self.on_trees(matvec), self.given.like(trace, right))
        return nodes_of_solution(trace, answer, self.given, right, f"tangent_solve of {self.name}")


class _LinearRule(_Equation):
    """The derivative of the solution of a linear system."""

    def __init__(
        self,
        equation: Closed,
        given: Leaves,
        solve: Solve,
        transpose_solve: Solve | None,
        has_aux: bool,
    ) -> None:
        super().__init__(equation, given)
        self.solve = solve
        self.transpose_solve = transpose_solve
        self.has_aux = has_aux

    def jvp(self, b: Any, node: Node, given: Sequence[Node | None]) -> list[Node | None]:
        """``A dx = db - dA x``."""
        moved = given[len(given) - len(self.outside(node)) :]
        right: list[Node | None] = list(given[: self.count])
        point = self.at(self.solution(node), node)
        if any(t is not None for t in moved):
            changed = self.push(b, point, moved, self.count)
            right = [b.neg(y) if t is None else b.sub(t, y) for t, y in zip(right, changed, strict=True)]
        if all(y is None for y in right):
            return [None for _ in node.parts]
        full = or_zeros(b, self.solution(node), right)

        def matvec(v: Sequence[Node]) -> list[Node]:
            return substitute(b, self.equation.outputs, self.at(v, node))

        solved = self.solved(matvec, full, self.solve, self.transpose_solve)
        return self.spread(node, solved)

    def vjp(
        self, b: Any, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]
    ) -> list[Node | None]:
        """``b_ct = A^-T ct``, and through ``A`` what ``-b_ct x^T`` gives."""
        cts = list(given[: self.count])
        if all(ct is None for ct in cts):
            return [None for _ in node.args]
        if self.transpose_solve is None:
            raise DerivativeError(
                f"custom_linear_solve of {self.name}: reverse mode solves the transposed system; pass transpose_solve, or symmetric=True"
            )
        outside = self.outside(node)
        point = self.at(self.solution(node), node)
        full = or_zeros(b, self.solution(node), cts)

        def vecmat(v: Sequence[Node]) -> list[Node]:
            return or_zeros(b, full, self.pull(b, point, v, 0, self.count))

        solved = self.solved(vecmat, full, self.transpose_solve, self.solve)
        pulled = self.pull(b, point, [b.neg(y) for y in solved], self.count, len(outside))
        between = len(node.args) - self.count - len(outside)
        found = [*solved, *[None] * between, *pulled]
        return [ct if flag else None for ct, flag in zip(found, wanted, strict=True)]

    def solved(
        self, matvec: Linear, right: Sequence[Node], solve: Solve, transpose_solve: Solve | None
    ) -> list[Node]:
        """The solution of a linear system by the user's solver: a `linear_solve` of its own, so that further
        derivatives do not go through the solver either.
        """
        trace = self.trace()
        given = self.given.like(trace, right)
        answer = linear_solve(trace, self.on_trees(matvec), given, solve, transpose_solve, self.has_aux)
        solution = answer[0] if self.has_aux else answer
        return nodes_of_solution(trace, solution, self.given, right, f"the solver of {self.name}")


def dense_solve(trace: Trace, matvec: Linear, right: Sequence[Node], name: str) -> list[Node]:
    """The solution of a small linear system, whose matrix is made column by column.

    Raises:
        DerivativeError: it has more than `DENSE` unknowns.
    """
    b = trace.builder
    size = sum(node.type.size for node in right)
    if size > DENSE:
        raise DerivativeError(
            f"the derivative of the solution of {name} is a linear system of {size} unknowns; up to {DENSE} are solved directly: "
            "pass tangent_solve, for example lambda g, y: np.linalg.solve(graphjit.jacfwd(g)(y), y)"
        )
    inputs = [b.input(node.type, "unknown") for node in right]
    blocks = jacobian.forward(b, inputs, matvec(inputs))
    rows = []
    for row, out in zip(blocks, right, strict=True):
        parts = []
        for block, x in zip(row, inputs, strict=True):
            shape = (out.type.size, x.type.size)
            zeros = b.full(0.0, out.type.with_shape(shape))
            parts.append(zeros if block is None else b.reshape(block, shape=shape))
        rows.append(b.concatenate(*parts, axis=1))
    matrix = Tracer(trace, b.concatenate(*rows, axis=0))
    flat = b.concatenate(*(b.reshape(node, shape=(node.type.size,)) for node in right), axis=0)
    solved: Any = np.linalg.solve(matrix, Tracer(trace, flat))  # type: ignore[call-overload]
    found, start = [], 0
    for node in right:
        stop = start + node.type.size
        part = b.slice(solved._node, starts=(start,), limits=(stop,), steps=(1,))
        found.append(b.reshape(part, shape=node.shape))
        start = stop
    return found
