"""Derivatives and batches of loops and choices, through the interpreter.

The oracle of derivatives is the same program without control flow (`straight_line`), whose own derivatives
are checked by complex steps; that of batches is one call for each element.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from control.programs import PROGRAMS, cond, repeat, scan, while_
from control.straight_line import straight_line
from op_matrix import batch_graph, check_derivative, jvp_graph, random_like, stack_of_calls, vjp_graph
from random_bodies import GraphRule

from graphjit.effects import Effect
from graphjit.errors import UnsupportedError
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, with_bodies
from graphjit.ir.parser import parse_graph
from graphjit.ir.printer import print_graph
from graphjit.ir.rule import Rule
from graphjit.ir.types import F64, I64, Type
from graphjit.ir.verify import verify
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents

SIZE = 3
NAMES = sorted(PROGRAMS)


def close(graph: Graph, got: list[np.ndarray], want: list[np.ndarray]) -> None:
    """``got`` are values of ``graph``, which may be rounded in another order than what is wanted."""
    single = any(node.dtype == np.float32 for node in with_bodies(graph) if not node.is_bundle)
    rtol = 1e-4 if single else 1e-11
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol)


def checked(graph: Graph) -> Graph:
    """``graph``, which is well formed and reads back."""
    verify(graph)
    assert parse_graph(print_graph(graph)).key() == graph.key()
    return graph


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_computes_the_same(name: str) -> None:
    graph, args = PROGRAMS[name]()
    straight = straight_line(checked(graph), args)
    close(graph, interpret(graph, *args), interpret(straight, *args))
    check_derivative(straight, args, np.random.default_rng(1))


@pytest.mark.parametrize("name", NAMES)
def test_first_order(name: str) -> None:
    graph, args = PROGRAMS[name]()
    straight, rng = straight_line(graph, args), np.random.default_rng(2)
    for derive in (jvp_graph, vjp_graph):
        made, wanted = checked(derive(graph)), derive(straight)
        given = [*args, *random_like(rng, list(made.inputs[len(args) :]))]
        close(made, interpret(made, *given), interpret(wanted, *given))


ORDERS = list(itertools.product((jvp_graph, vjp_graph), repeat=2))


def named(order: tuple) -> str:
    return "_".join(derive.__name__[:3] for derive in order)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ORDERS, ids=named)
def test_second_order(name: str, order: tuple) -> None:
    graph, args = PROGRAMS[name]()
    straight, rng = straight_line(graph, args), np.random.default_rng(3)
    first, second = order
    made, wanted = checked(second(first(graph))), second(first(straight))
    given = [*args, *random_like(rng, list(made.inputs[len(args) :]))]
    close(made, interpret(made, *given), interpret(wanted, *given))


def flags_of(graph: Graph, seed: int) -> list[list[bool]]:
    """All inputs of floats vary, or integers too, or some of them."""
    rng = np.random.default_rng(seed)
    some = [bool(rng.random() < 0.5) for _ in graph.inputs]
    some[int(rng.integers(len(some)))] = True
    return [[x.dtype.kind == "f" for x in graph.inputs], [True for _ in graph.inputs], some]


def batch_of(args: list[np.ndarray], flags: list[bool]) -> list[np.ndarray]:
    return [
        np.stack([x + i if x.dtype.kind in "iu" else x * (1 + 0.1 * i) for i in range(SIZE)]) if flag else x
        for x, flag in zip(args, flags, strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_stacks_of_calls(name: str) -> None:
    """Of the program, of both derivatives, and of a batch; derivatives of a batch too."""
    graph, args = PROGRAMS[name]()
    for derive in (lambda graph: graph, jvp_graph, vjp_graph, lambda graph: jvp_graph(vjp_graph(graph))):
        made, rng = derive(graph), np.random.default_rng(4)
        given = [*args, *random_like(rng, list(made.inputs[len(args) :]))]
        for flags in flags_of(made, 5):
            wide = checked(batch_graph(made, flags, SIZE))
            values = batch_of(given, flags)
            close(wide, interpret(wide, *values), stack_of_calls(made, values, flags, SIZE))


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_batches(name: str) -> None:
    graph, args = PROGRAMS[name]()
    for outer, inner in itertools.product(flags_of(graph, 6), repeat=2):
        wide = batch_graph(graph, inner, SIZE)
        twice = checked(batch_graph(wide, outer, SIZE))
        values = batch_of(batch_of(args, inner), outer)
        close(twice, interpret(twice, *values), stack_of_calls(wide, values, outer, SIZE))


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_batches(name: str) -> None:
    """Those of a batch are batches of those."""
    graph, args = PROGRAMS[name]()
    flags = [True for _ in args]
    wide = batch_graph(graph, flags, SIZE)
    for derive in (jvp_graph, vjp_graph):
        made, one = checked(derive(wide)), derive(graph)
        given = [
            *batch_of(args, flags),
            *random_like(np.random.default_rng(7), list(made.inputs[len(args) :])),
        ]
        wanted = stack_of_calls(one, given, [True for _ in given], SIZE)
        close(made, interpret(made, *given), wanted)
        twice = checked(vjp_graph(made))
        more = [*given, *random_like(np.random.default_rng(8), list(twice.inputs[len(given) :]))]
        wanted = stack_of_calls(vjp_graph(one), more, [True for _ in more], SIZE)
        close(twice, interpret(twice, *more), wanted)


# ----------------------------------------------------------------------------------------- rules and loops


def rule_over_loops() -> tuple[Graph, list[np.ndarray]]:
    """A function whose backward rule loops, and reads results of these loops that do not depend on the
    cotangent; such a function in a loop.
    """
    b = Builder()
    x, ct = b.input(Type(F64, (2,)), "x"), b.input(Type(F64, (2,)), "ct")
    body = Graph("square_of_sine", [x], [b.mul(b.sin(x), b.sin(x))])
    # The derivative is sin(2x): 2 sin(x) cos(x), with sin(x) stacked by the loop that also carries ct.
    carried, sines = scan(b, lambda x, ct: [b.mul(ct, b.sin(x)), b.sin(x)], [ct], constants=[x], length=1)
    which = b.const(1, I64)
    one, other = cond(
        b, which, [lambda x, c: [x, c], lambda x, c: [b.cos(x), b.mul(c, b.cos(x))]], [x, carried]
    )
    first = b.sub(b.reshape(sines, shape=(2,)), b.sin(x))  # zeros that depend on results of both
    second = b.sub(one, b.cos(x))
    pull = Graph("pull", [x, ct], [b.add(b.mul(other, 2.0), b.mul(ct, b.add(first, second)))])
    rule = GraphRule("squared", pull=Body(pull))
    b = Builder()
    y, rows = b.input(Type(F64, (2,)), "y"), b.input(Type(F64, (3, 2)), "rows")

    def step(h: Node, row: Node) -> list[Node]:
        return [b.mul(b.emit("custom", b.add(h, row), body=Body(body), rule=rule), row), h]

    return Graph("ruled", [y, rows], scan(b, step, [y], [rows])), [np.array([0.3, 0.8]), np.full((3, 2), 0.7)]


@pytest.mark.parametrize("order", [(jvp_graph,), (vjp_graph,), *ORDERS], ids=named)
def test_rules_in_loops_and_loops_in_rules(order: tuple) -> None:
    graph, args = rule_over_loops()
    plain = Graph(graph.name, graph.inputs, graph.outputs)
    made, wanted = graph, straight_line(plain, args)
    for derive in order:
        made, wanted = derive(made), derive(wanted)
    checked(made)
    given = [*args, *random_like(np.random.default_rng(9), list(made.inputs[len(args) :]))]
    close(made, interpret(made, *given), interpret(wanted, *given))


class Telling(Rule):
    """A rule that multiplies with a value from outside, and tells the tangent."""

    name = "telling"

    def __init__(self, outside: Node, heard: list[np.ndarray]) -> None:
        self.outside = outside
        self.heard = heard

    def jvp(self, b: Builder, node: Node, tangents: Sequence[Node | None]) -> Sequence[Node | None]:
        (t,) = tangents
        assert t is not None
        b.told.tell(Effect(lambda values: self.heard.append(values[0]), "heard", (t,)))
        return [b.mul(t, self.outside)]

    def vjp(
        self, b: Builder, node: Node, cotangents: Sequence[Node | None], wanted: Sequence[bool]
    ) -> Sequence[Node | None]:
        return self.jvp(b, node, cotangents)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_rules_read_from_outside_and_tell(mode: str) -> None:
    """What a rule in a loop reads becomes a constant of the loop; what it tells is told once a step, in the
    order of the steps.
    """
    b, heard = Builder(), list[np.ndarray]()
    x, outside, d = (b.input(Type(F64, ()), name) for name in ("x", "outside", "d"))
    inner = b.input(Type(F64, ()), "a")
    body, rule = Body(Graph("double", [inner], [b.mul(inner, 2.0)])), Telling(outside, heard)
    (y,) = scan(b, lambda h: [b.emit("custom", h, body=body, rule=rule)], [x], length=3)
    (found,) = tangents(b, {x: d}, [y]) if mode == "forward" else cotangents(b, {y: d}, [x])
    assert found is not None
    (effect,) = b.told.effects
    graph = checked(Graph("told", [x, outside, d], [found, *effect.nodes]))
    value, *stacks = interpret(graph, np.array(1.0), np.array(3.0), np.array(0.5))
    assert value == 0.5 * 27
    effect.happen(stacks)
    assert [float(t) for t in heard] == [0.5, 1.5, 4.5]


def test_effects_of_rules_in_loops_of_unknown_length_are_refused() -> None:
    b = Builder()
    x, d, n = b.input(Type(F64, ()), "x"), b.input(Type(F64, ()), "d"), b.input(Type(I64, ()), "n")
    inner = b.input(Type(F64, ()), "a")
    body, rule = Body(Graph("double", [inner], [b.mul(inner, 2.0)])), Telling(x, [])
    (y,) = repeat(b, n, lambda h: [b.emit("custom", h, body=body, rule=rule)], [x])
    with pytest.raises(UnsupportedError, match="inside a while loop"):
        tangents(b, {x: d}, [y])
    (z,) = cond(b, n, [lambda x: [b.emit("custom", x, body=body, rule=rule)], lambda x: [x]], [x])
    with pytest.raises(UnsupportedError, match="inside a branch"):
        cotangents(b, {z: d}, [x])


# ------------------------------------------------------------------------------------ which way a batch goes


def ops_of(name: str, flags: list[bool], derive: Callable[[Graph], Graph] = lambda graph: graph) -> list[str]:
    """The loops and choices of a batch, those inside of others too."""
    wide = batch_graph(derive(PROGRAMS[name]()[0]), flags, SIZE)
    return [node.op.name for node in with_bodies(wide) if node.op.name in ("scan", "while", "unwind", "cond")]


def test_one_loop_where_all_elements_take_as_many_steps() -> None:
    """Also on the way back, whose tapes hold batches."""
    assert ops_of("counted", [True, False]) == ["while"]
    assert ops_of("counted", [True, False, True], vjp_graph) == ["while", "unwind"]
    assert ops_of("choice_in_while", [True, True]) == ["while", "cond"]


def test_a_loop_for_each_element_where_they_differ() -> None:
    assert ops_of("counted", [True, True]) == ["scan", "while"]
    assert ops_of("until_large", [True, False]) == ["scan", "while"]


def test_cheap_branches_are_selected_from_and_others_chosen_for_each_element() -> None:
    assert ops_of("while_in_choice", [False, False, True, False]).count("cond") == 1
    assert ops_of("first_branch", [True, True, True]) == ["scan", "cond"]  # exp and tanh are dear
    b = Builder()
    x, which = b.input(Type(F64, (2,)), "x"), b.input(Type(I64, ()), "which")
    found = cond(b, which, [lambda x: [b.sqrt(x)], lambda x: [b.mul(x, x)], lambda x: [x]], [x])
    wide = batch_graph(Graph("cheap", [x, which], found), [True, True], 4)
    assert not [node for node in wide.nodes() if node.is_bundle]
    values = [np.array([[4.0, 9.0], [-1.0, 2.0], [3.0, -3.0], [-5.0, 1.0]]), np.array([-3, 1, 2, 8])]
    np.testing.assert_array_equal(interpret(wide, *values)[0], [[2, 3], [1, 4], [3, -3], [-5, 1]])
    slopes = vjp_graph(wide)
    ones = np.ones((4, 2))
    np.testing.assert_array_equal(
        interpret(slopes, *values, ones)[0], [[1 / 4, 1 / 6], [-2, 4], [1, 1], [1, 1]]
    )  # no NaN from the root of a negative number


def test_a_result_that_does_not_vary_stays_so() -> None:
    """A counter that a choice hands back does not make the test of the loop around it vary."""
    b = Builder()
    x = b.input(Type(F64, ()), "x")

    def step(i: Node, x: Node) -> list[Node]:
        branches = [lambda i, x: [b.add(i, 1), b.sin(x)], lambda i, x: [b.add(i, 2), b.exp(b.sin(x))]]
        return cond(b, b.remainder(i, b.const(2, I64)), branches, [i, x])

    (_, out) = while_(b, lambda i, x: b.lt(i, b.const(5, I64)), step, [b.const(0, I64), x])
    graph = Graph("counts", [x], [out])
    wide = batch_graph(graph, [True], SIZE)
    assert [node.op.name for node in wide.nodes() if node.is_bundle] == ["while"]
    values = [np.array([0.1, 0.5, 2.0])]
    close(wide, interpret(wide, *values), stack_of_calls(graph, values, [True], SIZE))


def test_no_zero_cotangents_are_carried() -> None:
    """Of carries on which the result does not depend, and of those that depend on nothing asked for."""
    b = Builder()
    x, y, z = (b.input(Type(F64, ()), name) for name in "xyz")
    found = scan(b, lambda x, y, z: [b.sin(x), b.mul(y, b.cos(x)), b.mul(z, z)], [x, y, z], length=3)
    ct = b.input(Type(F64, ()), "ct")
    (of_y, of_z) = cotangents(b, {found[1]: ct}, [y, z])
    assert of_z is None
    assert of_y is not None
    (way,) = (node for node in Graph("y", [x, y, z, ct], [of_y]).nodes() if node.attrs.get("reverse"))
    assert way.attrs["carried"] == 1
