"""What a loop keeps for the way back: vectors for each step, counted, and the least one can argue for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from control.programs import cond, scan, while_
from op_matrix import vjp_graph

from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, with_bodies
from graphjit.ir.types import F64, I64, Type

N, STEPS = 4, 5
Step = Callable[..., Sequence[Node]]


def matvec(b: Builder, w: Node, x: Node) -> Node:
    return b.contract(w, x, contract=((1,), (0,)), batch=((), ()))


def sigmoid(b: Builder, x: Node) -> Node:
    return b.div(1.0, b.add(b.exp(b.neg(x)), 1.0))


def rnn(b: Builder, w: Node, h: Node, x: Node) -> list[Node]:
    return [b.tanh(b.add(matvec(b, w, h), x))]


def lstm(b: Builder, w: Node, h: Node, c: Node, x: Node) -> list[Node]:
    z = [b.add(matvec(b, b.mul(w, float(k)), h), x) for k in (1, 2, 3, 4)]
    i, f, o, g = sigmoid(b, z[0]), sigmoid(b, z[1]), sigmoid(b, z[2]), b.tanh(z[3])
    c = b.add(b.mul(f, c), b.mul(i, g))
    return [b.mul(o, b.tanh(c)), c]


def gru(b: Builder, w: Node, h: Node, x: Node) -> list[Node]:
    r = sigmoid(b, b.add(matvec(b, w, h), x))
    z = sigmoid(b, b.add(matvec(b, b.mul(w, 2.0), h), x))
    n = b.tanh(b.add(b.mul(r, matvec(b, b.mul(w, 3.0), h)), x))
    return [b.add(b.mul(b.sub(1.0, z), n), b.mul(z, h))]


def rk4(b: Builder, w: Node, y: Node) -> list[Node]:
    """The field of Lotka and Volterra's kind: products, which cost nothing to compute again."""

    def field(y: Node) -> Node:
        return b.sub(b.mul(w, y), b.mul(y, y))

    k1 = field(y)
    k2 = field(b.add(y, b.mul(k1, 0.05)))
    k3 = field(b.add(y, b.mul(k2, 0.05)))
    k4 = field(b.add(y, b.mul(k3, 0.1)))
    both = b.mul(b.add(k2, k3), 2.0)
    return [b.add(y, b.mul(b.add(b.add(k1, both), k4), 0.1 / 6))]


def rk4_sine(b: Builder, w: Node, y: Node) -> list[Node]:
    """A field with a dear function at each of four points."""

    def field(y: Node) -> Node:
        return b.mul(w, b.sin(y))

    k1 = field(y)
    k2 = field(b.add(y, b.mul(k1, 0.05)))
    k3 = field(b.add(y, b.mul(k2, 0.05)))
    k4 = field(b.add(y, b.mul(k3, 0.1)))
    both = b.mul(b.add(k2, k3), 2.0)
    return [b.add(y, b.mul(b.add(b.add(k1, both), k4), 0.1 / 6))]


def program(step: Callable[..., list[Node]], shapes: dict[str, tuple[int, ...]], stacks: bool) -> Graph:
    b = Builder()
    inputs = {name: b.input(Type(F64, shape), name) for name, shape in shapes.items()}
    carries = [x for name, x in inputs.items() if name in "hcy"]
    slices = [x for name, x in inputs.items() if name == "x"]

    def body(*xs: Node) -> list[Node]:
        after = step(b, *xs)
        return [*after, *(after[:1] if stacks else [])]

    found = scan(b, body, carries, slices, [inputs["w"]], length=STEPS)
    return Graph(step.__name__, list(inputs.values()), found)


def kept(graph: Graph) -> float:
    """Numbers that its reverse mode keeps for each step, in vectors of N: what loops on the way there stack
    or put on tapes, besides what those of ``graph`` do.
    """
    own = {node.attrs["body"] for node in graph.nodes() if node.op.name in LOOPS}
    total = 0
    for node in vjp_graph(graph).nodes():
        if node.op.name in LOOPS and node.attrs["body"] not in own:
            body, carried = node.attrs["body"].graph, node.attrs["carried"]  # type: ignore[attr-defined]
            total += (
                0 if body.name.startswith("back_") else sum(x.type.nbytes for x in body.outputs[carried:])
            )
    return total / (8 * N)


LOOPS = ("scan", "while")
VECTOR, MATRIX, ROWS = (N,), (N, N), (STEPS, N)
WITH_X = {"w": MATRIX, "h": VECTOR, "x": ROWS}

CASES = [
    # h before (for the slope of w) and after (for that of tanh): one stack, shifted.
    (rnn, WITH_X, 1, 0),
    # i, f, o (each as its exp), g; h before, for w; c before, for f; tanh(c), which is dear to compute again.
    (lstm, {"w": MATRIX, "h": VECTOR, "c": VECTOR, "x": ROWS}, 7, 6),
    # r, z, n; h before; the product that r multiplies.
    (gru, WITH_X, 5, 4),
    # y: all else is products of it.
    (rk4, {"w": VECTOR, "y": VECTOR}, 1, 0),
    # At each of four points sine and cosine. The rest is sums of their products; y itself is not needed.
    (rk4_sine, {"w": VECTOR, "y": VECTOR}, 8, 8),
]


@pytest.mark.parametrize(
    ("step", "shapes", "least", "beside"), CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_the_least_is_kept(
    step: Callable[..., list[Node]], shapes: dict[str, tuple[int, ...]], least: int, beside: int
) -> None:
    """``beside`` what is stacked anyway, where the results hold all states."""
    assert kept(program(step, shapes, stacks=False)) == least
    assert kept(program(step, shapes, stacks=True)) == beside


def loop(step: Callable[[Builder, Node, Node], list[Node]], taped: bool = False) -> Graph:
    """A while loop of three steps on a vector y and a constant w."""
    b = Builder()
    w, y = (b.input(Type(F64, VECTOR), name) for name in "wy")
    found = while_(
        b,
        lambda w, i, y: b.lt(i, b.const(3, I64)),
        lambda w, i, y: [b.add(i, 1), *step(b, w, y)],
        [b.const(0, I64), y],
        [w],
        taped=1 if taped else 0,
    )
    return Graph("loop", [w, y], found[1:2])


def test_a_while_keeps_each_carry_once() -> None:
    """tanh needs its value after the step, the product that before it. The latter goes to the tape, the
    former is what the step behind read.
    """
    assert kept(loop(lambda b, w, y: [b.tanh(b.mul(w, y))])) == 1


def test_a_linear_while_keeps_nothing() -> None:
    """Its way back counts down."""
    graph = loop(lambda b, w, y: [b.add(b.mul(y, 0.5), w)])
    assert kept(graph) == 0
    back = vjp_graph(graph)
    assert {node.op.name for node in back.nodes()} >= {"while"}
    assert "unwind" not in {node.op.name for node in back.nodes()}


def test_values_on_a_tape_are_not_kept_again() -> None:
    """The loop's own tape holds y."""
    assert kept(loop(lambda b, w, y: [b.mul(w, b.mul(y, y)), y], taped=True)) == 0


def test_invariant_values_are_computed_outside() -> None:
    """exp(w) is computed once for the way back, and not stacked."""
    b = Builder()
    w, h, x = (b.input(Type(F64, shape), name) for name, shape in WITH_X.items())
    (out,) = scan(b, lambda w, h, x: [b.add(b.mul(h, b.sum(b.exp(w), axes=(0,))), x)], [h], [x], [w])
    graph = Graph("invariant", [w, h, x], [out])
    assert kept(graph) == 1  # h, which w is multiplied with
    names = [node.op.name for node in vjp_graph(graph).nodes()]
    assert "exp" in names
    (back,) = (
        node.attrs["body"].graph  # type: ignore[attr-defined]
        for node in vjp_graph(graph).nodes()
        if node.op.name == "scan" and node.attrs["reverse"]
    )
    assert "exp" not in {node.op.name for node in back.nodes()}


def test_what_can_fail_stays_in_a_loop_that_may_run_no_step() -> None:
    """A position out of range is an error of the steps; without steps there is none."""
    b = Builder()
    w, y = (b.input(Type(F64, VECTOR), name) for name in "wy")
    n, place = (b.input(Type(I64, ()), name) for name in ("n", "place"))
    (_, out) = while_(
        b,
        lambda w, n, place, i, y: b.lt(i, n),
        lambda w, n, place, i, y: [
            b.add(i, 1),
            b.mul(b.sin(y), b.broadcast_to(b.gather(w, place, axes=(0,)), shape=VECTOR)),
        ],
        [b.const(0, I64), y],
        [w, n, place],
    )
    back = vjp_graph(Graph("gathers", [w, y, n, place], [out]))
    assert "gather" not in {node.op.name for node in back.nodes()}
    assert "gather" in {node.op.name for node in with_bodies(back)}
    args = [np.ones(N), np.ones(N), np.array(0), np.array(99), np.full(N, 2.0)]
    np.testing.assert_array_equal(interpret(back, *args), [np.zeros(N), np.full(N, 2.0)])


def test_branches_share_their_places() -> None:
    """Each branch keeps two cosines, in the same two places; sines that are results are not kept at all."""
    b = Builder()
    x, which = b.input(Type(F64, VECTOR), "x"), b.input(Type(I64, ()), "which")

    def branch(scale: float) -> Step:
        return lambda x: [b.mul(b.sin(b.sin(x)), scale), b.exp(b.mul(x, scale))]

    found = cond(b, which, [branch(2.0), branch(3.0)], [x])
    back = vjp_graph(Graph("branches", [x, which], found))
    first, second, third = (node for node in back.nodes() if node.op.name == "cond")
    assert len(first.parts) == 2
    assert len(second.parts) == 2
    assert len(third.parts) == 1
