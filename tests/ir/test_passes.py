"""The passes: every rule fires, does not fire on its near miss and keeps the value; folding, merging,
expansion; instruments.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from rules.array_cases import CONTRACTION, INDEXING, REDUCTIONS, SHAPES
from rules.case import Case
from rules.narrowing_cases import NARROWING
from rules.slice_cases import SLICES
from rules.value_cases import ARITHMETIC, LOGIC

import graphjit.ops  # noqa: F401 (fills the registry)
from graphjit.errors import IRError
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Location, Node
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.parser import parse_graph
from graphjit.ir.printer import print_graph
from graphjit.ir.types import DTYPES, F32, F64, I64, Type
from graphjit.ir.verify import verify
from graphjit.passes.decompose import decompose
from graphjit.passes.fold import SIZE_LIMIT, fold
from graphjit.passes.join_embeds import join_embeds
from graphjit.passes.rewrite import rewrite
from graphjit.passes.rules import ALL, Rule
from graphjit.passes.simplify import simplify, simplify_with
from graphjit.running.instruments import Compare, Dump, StopAfter, Time, Verify
from graphjit.running.runner import run

CASES = (*ARITHMETIC, *LOGIC, *REDUCTIONS, *CONTRACTION, *SHAPES, *SLICES, *INDEXING, *NARROWING)
RULES = {rule.name: rule for rule in ALL}
SPECIAL = (0.0, -0.0, 1.5, -2.25, float("inf"), float("-inf"), float("nan"))
EXTREME = (5e-324, -5e-324, 1.7e308, 2.2250738585072014e-308)


def read(text: str, dtype: str = "f64") -> Graph:
    graph = parse_graph("graph g\n" + text.replace("T[", f"{dtype}[").replace("dtype=T", f"dtype={dtype}"))
    verify(graph)
    return graph


def with_dtypes(cases: tuple[Case, ...]) -> list[object]:
    counts: dict[str, int] = {}
    params = []
    for case in cases:
        counts[case.rule] = counts.get(case.rule, 0) + 1
        params += [
            pytest.param(case, dtype, id=f"{case.rule}-{counts[case.rule]}-{dtype}") for dtype in case.dtypes
        ]
    return params


# ------------------------------------------------------------------------------------------------------ rules


def test_every_rule_has_a_case_and_a_near_miss() -> None:
    assert {case.rule for case in CASES} == set(RULES)
    assert {case.rule for case in CASES if case.misses} == set(RULES)
    assert len(RULES) == len(ALL)
    assert all(rule.doc for rule in ALL)


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_rule_fires(case: Case, dtype: str) -> None:
    made, fired = simplify_with(read(case.before, dtype), [RULES[case.rule]])
    assert fired[case.rule] >= 1
    assert print_graph(made) == print_graph(read(case.after, dtype))
    verify(made)


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_rule_leaves_near_misses(case: Case, dtype: str) -> None:
    for text in case.misses:
        graph = read(text, dtype)
        made, fired = simplify_with(graph, [RULES[case.rule]])
        assert not fired[case.rule], print_graph(made)


@pytest.mark.parametrize(("case", "dtype"), with_dtypes(CASES))
def test_rule_keeps_the_value(case: Case, dtype: str) -> None:
    """Bit for bit where the rule says so, on every pairing of special values; else within a few ULP, specials
    included.
    """
    before, rule = read(case.before, dtype), RULES[case.rule]
    after, _ = simplify_with(before, [rule])
    rng = np.random.default_rng(7)
    trials = [[plain_values(rng, node) for node in before.inputs] for _ in range(3)]
    finite = case.rule in FINITE
    trials += [
        [special_values(rng, node, exact=rule.exact, finite=finite) for node in before.inputs]
        for _ in range(60)
    ]
    for args in trials:
        for got, wanted in zip(interpret(after, *args), interpret(before, *args), strict=True):
            if rule.exact:
                assert bits(got) == bits(wanted), (args, got, wanted)
            elif wanted.dtype.kind == "f":
                ulp = np.finfo(wanted.dtype).eps
                scale = np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted))
                np.testing.assert_allclose(got, wanted, rtol=4 * ulp, atol=16 * ulp * scale, equal_nan=True)
            else:
                np.testing.assert_array_equal(got, wanted)


def plain_values(rng: np.random.Generator, node: Node) -> np.ndarray:
    if node.dtype.kind == "f":
        return np.asarray(rng.normal(size=node.shape)).astype(node.dtype)
    if node.dtype.kind == "b":
        return np.asarray(rng.random(node.shape) < 0.5)
    info = np.iinfo(node.dtype)
    return np.asarray(rng.integers(info.min, info.max, size=node.shape, dtype=node.dtype, endpoint=True))


FINITE = {"contract_one_hot"}
"""Rules that keep finite values only: zeros are left out, which an infinite factor would make NaN."""


def special_values(rng: np.random.Generator, node: Node, exact: bool, finite: bool) -> np.ndarray:
    if node.dtype.kind != "f":
        return plain_values(rng, node)
    if finite:
        return np.asarray(rng.choice([x for x in SPECIAL if np.isfinite(x)], size=node.shape)).astype(
            node.dtype
        )
    with np.errstate(over="ignore", under="ignore"):
        values = np.array(SPECIAL + EXTREME if exact else SPECIAL).astype(node.dtype)
    return np.asarray(rng.choice(values, size=node.shape))


def bits(array: np.ndarray) -> bytes:
    """The bytes of an array, all NaN alike."""
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type("nan"), array)
    return array.tobytes()


def test_pow_rules_against_exact_powers() -> None:
    """x*x and 1/x are correctly rounded, x*x*x is within the 1.5 ULP that its rule states."""
    rng = np.random.default_rng(3)
    for name, dtype, wide in (("f32", np.float32, np.float64), ("f64", np.float64, np.longdouble)):
        if np.finfo(wide).nmant <= np.finfo(dtype).nmant:
            continue  # no wider type on this machine
        x = rng.uniform(-3, 3, 4000).astype(dtype)
        for value, bound in ((2, 0.501), (3, 1.5), (-1, 0.501)):
            b = Builder()
            base = b.input(Type(DTYPES[name], (4000,)), "x")
            made = simplify(Graph("g", [base], [b.pow(base, float(value))]))
            assert not any(node.op.name == "pow" for node in made.nodes())
            (got,) = interpret(made, x)
            exact = x.astype(wide) ** value
            error = np.abs(got.astype(wide) - exact) / np.spacing(np.abs(exact.astype(dtype)))
            assert error.max() <= bound


def test_rules_do_not_touch_inexact_algebra() -> None:
    """What would change a special value stays: x + 0.0, x * 0, x - x, x / x, -(x - y)."""
    text = """graph g
      %0 = input name='x' : f64[6]
      %1 = input name='y' : f64[6]
      %2 = const value=0.0 : f64[]
      %3 = broadcast_to %2 shape=(6,) : f64[6]
      %4 = add %0 %3 : f64[6]
      %5 = mul %0 %3 : f64[6]
      %6 = sub %0 %0 : f64[6]
      %7 = div %0 %0 : f64[6]
      %8 = sub %0 %1 : f64[6]
      %9 = neg %8 : f64[6]
      return %4 %5 %6 %7 %9
    """
    graph = parse_graph(text)
    assert simplify(graph).key() == graph.key()


def test_rules_work_together() -> None:
    """A sign moves through a product and a quotient into the sum that absorbs it; dead nodes do not count as
    readers.
    """
    text = """graph g
      %0 = input name='x' : f64[6]
      %1 = input name='y' : f64[6]
      %2 = neg %0 : f64[6]
      %3 = mul %2 %1 : f64[6]
      %4 = div %3 %1 : f64[6]
      %5 = add %1 %4 : f64[6]
      return %5
    """
    want = """graph g
      %0 = input name='x' : f64[6]
      %1 = input name='y' : f64[6]
      %2 = mul %0 %1 : f64[6]
      %3 = div %2 %1 : f64[6]
      %4 = sub %1 %3 : f64[6]
      return %4
    """
    made = simplify(parse_graph(text))
    assert made.key() == parse_graph(want).key()


# -------------------------------------------------------------------------------------------------- rewriting


def chain(length: int) -> Graph:
    b = Builder()
    x = b.input(Type(F64, (3,)), "x")
    y = x
    for i in range(length):
        y = b.mul(b.tanh(y), x) if i % 2 else b.add(y, b.exp(y))
    return Graph("chain", [x], [y])


def test_passes_do_not_recurse_and_visit_each_node_once() -> None:
    """5 000 operations deep; wall-clock scaling is benchmarked elsewhere."""
    graph = chain(5000)
    visits = 0

    def count(b: Builder, node: Node) -> Node | None:
        nonlocal visits
        visits += 1
        return None

    rewrite(graph, count)
    assert visits == len(graph)
    for step in (fold, simplify, decompose, join_embeds):
        assert step(graph) is graph  # nothing to do, nothing copied


def test_what_stands_before_the_first_change_is_kept() -> None:
    graph = chain(10)
    (x,), (y,) = graph.inputs, graph.outputs
    b = Builder()
    late = Graph("late", [x], [b.cos(b.add(y, b.neg(x))), b.sin(y)])
    made = simplify(late)
    assert [node.op.name for node in made.nodes()][-3:] == ["sub", "cos", "sin"]
    assert set(graph.nodes()) <= set(made.nodes())
    assert not {late.outputs[0], late.outputs[1]} & set(made.nodes())


def test_endless_rules_are_caught() -> None:
    def grow(b: Builder, node: Node) -> Node | None:
        return b.exp(b.sin(node.args[0])) if node.op.name == "exp" else None

    with pytest.raises(IRError, match="does not come to an end"):
        rewrite(chain(1), grow)


def test_a_replacement_may_not_depend_on_what_it_replaces() -> None:
    def wrap(b: Builder, node: Node) -> Node | None:
        return b.sin(node) if node.op.name == "exp" else None

    with pytest.raises(IRError, match="depend on the node it replaces"):
        rewrite(chain(1), wrap)


def test_two_rules_that_undo_each_other_end() -> None:
    def swap(b: Builder, node: Node) -> Node | None:
        return b.emit("add", node.args[1], node.args[0]) if node.op.name == "add" else None

    graph = read("%0 = input name='x' : f64[2]\n%1 = exp %0 : f64[2]\n%2 = add %0 %1 : f64[2]\nreturn %2")
    made = rewrite(graph, swap)
    assert [node.op.name for node in made.nodes()] == ["input", "exp", "add"]


def test_a_rewrite_of_another_type_is_refused() -> None:
    def wrong(b: Builder, node: Node) -> Node | None:
        return b.convert(node.args[0], dtype=F32) if node.op.name == "exp" else None

    graph = read("%0 = input name='x' : f64[2]\n%1 = exp %0 : f64[2]\nreturn %1")
    with pytest.raises(IRError, match="turned"):
        rewrite(graph, wrong)


def test_rewrites_keep_lines_and_origins() -> None:
    b = Builder()
    x = b.input(Type(F64, (2,)), "x")
    b.loc, b.origin = Location("model.py", 12, "loss"), "vjp of tanh"
    y = b.add(x, b.neg(b.exp(x)))
    made = simplify(Graph("g", [x], [y]))
    (sub,) = (node for node in made.nodes() if node.op.name == "sub")
    assert sub.loc == Location("model.py", 12, "loss")
    assert sub.origin == "vjp of tanh"


# -------------------------------------------------------------------------------------------- fold, interning


def test_fold_computes_constants() -> None:
    graph = read("""
      %0 = input name='x' : f64[3]
      %1 = const value=[1.0, 2.0, 4.0] : f64[3]
      %2 = const value=3.0 : f64[]
      %3 = broadcast_to %2 shape=(3,) : f64[3]
      %4 = mul %1 %3 : f64[3]
      %5 = sqrt %3 : f64[3]
      %6 = sum %4 axes=(0,) : f64[]
      %7 = broadcast_to %6 shape=(3,) : f64[3]
      %8 = add %5 %7 : f64[3]
      %9 = add %0 %8 : f64[3]
      return %9 %4
    """)
    made = fold(graph)
    assert [node.op.name for node in made.nodes()] == ["input", "const", "const", "broadcast_to", "add"]
    np.testing.assert_array_equal(interpret(made, np.zeros(3))[0], np.full(3, np.sqrt(3.0) + 21.0))
    x = np.array([1.0, -2.0, 0.5])
    for got, wanted in zip(interpret(made, x), interpret(graph, x), strict=True):
        assert bits(got) == bits(wanted)


@pytest.mark.parametrize(
    "lines",
    [
        "%1 = const value=[1, 2] : i64[2]\n%2 = const value=[1, 0] : i64[2]\n%3 = floor_divide %1 %2 : i64[2]\nreturn %3",
        "%1 = const value=2 : i64[]\n%2 = const value=0 : i64[]\n%3 = remainder %1 %2 : i64[]\nreturn %3",
        "%1 = const value=2 : i64[]\n%2 = const value=-1 : i64[]\n%3 = pow %1 %2 : i64[]\nreturn %3",
        "%1 = const value=[1.0, 2.0] : f64[2]\n%2 = const value=[5] : i64[1]\n%3 = gather %1 %2 axes=(0,) : f64[1]\nreturn %3",
        "%1 = const value=[nan, 1.0] : f64[2]\n%2 = convert %1 dtype=i64 : i64[2]\nreturn %2",
    ],
)
def test_fold_leaves_what_may_raise(lines: str) -> None:
    graph = read(f"%0 = input name='x' : f64[2]\n{lines}")
    assert fold(graph).key() == graph.key()
    assert simplify(graph).key() == graph.key()


def test_fold_does_not_grow_the_program() -> None:
    n = SIZE_LIMIT + 1
    b = Builder()
    x = b.const(np.arange(float(n)), F64)
    y = b.const(np.arange(3.0), F64)
    outer = b.contract(x, y, contract=((), ()), batch=((), ()))
    same = b.mul(x, x)
    made = fold(Graph("g", [], [outer, same]))
    assert made.outputs[0].op.name == "contract"
    assert made.outputs[1].is_const


def test_fold_keeps_signed_zeros_and_nan() -> None:
    graph = read("""
      %0 = const value=[0.0, -0.0, nan, inf] : f64[4]
      %1 = neg %0 : f64[4]
      %2 = const value=-0.0 : f32[]
      %3 = broadcast_to %2 shape=(2,) : f32[2]
      %4 = mul %3 %3 : f32[2]
      %5 = neg %4 : f32[2]
      return %1 %4 %5
    """)
    made = fold(graph)
    assert all(node.op.name in ("const", "broadcast_to") for node in made.nodes())
    for got, wanted in zip(interpret(made), interpret(graph), strict=True):
        assert bits(got) == bits(wanted)


def test_fold_spreads_uniform_arrays() -> None:
    b = Builder()
    graph = Graph(
        "g",
        [],
        [
            b.const(np.full(5, 2.5), F64),
            b.const(np.array([0.0, -0.0]), F64),
            b.const(np.array([np.nan] * 3), F64),
        ],
    )
    assert [node.op.name for node in fold(graph).outputs] == ["broadcast_to", "const", "const"]


def test_fold_of_every_foldable_op_is_the_interpreter() -> None:
    """Each op with random constant arguments: the folded graph gives the interpreter's bits."""
    rng = np.random.default_rng(5)
    folded = 0
    for op, name in itertools.product(REGISTRY.values(), ("f64", "f32", "i64", "bool")):
        if op.attrs or op.arity not in (1, 2, 3):
            continue
        b = Builder()
        args = [
            b.const(plain_values(rng, b.input(Type(DTYPES[name], (5,)), "x")), DTYPES[name])
            for _ in range(op.arity)
        ]
        try:
            node = Node(op, tuple(args), {}, op.infer(*[arg.type for arg in args]))
        except Exception:
            continue  # not an op for this dtype
        graph = Graph("g", [], [node])
        made = fold(graph)
        if made.outputs[0].op is op:
            continue
        folded += 1
        assert bits(interpret(made)[0]) == bits(interpret(graph)[0]), op.name
    assert folded > 80


def rebuilt(graph: Graph) -> Graph:
    """The same graph through a builder, which makes equal nodes one."""
    b = Builder()
    inputs = [b.copy(node, ()) for node in graph.inputs]
    return Graph(graph.name, inputs, b.inline(graph, tuple(inputs)))


def test_a_builder_merges_equal_nodes_only() -> None:
    graph = read("""
      %0 = input name='x' : f64[2]
      %1 = exp %0 : f64[2]
      %2 = exp %0 : f64[2]
      %3 = const value=[0.0, 1.0] : f64[2]
      %4 = const value=[-0.0, 1.0] : f64[2]
      %5 = const value=[0.0, 1.0] : f64[2]
      %6 = add %1 %3 : f64[2]
      %7 = add %2 %5 : f64[2]
      %8 = add %2 %4 : f64[2]
      return %6 %7 %8
    """)
    made = rebuilt(graph)
    assert made.outputs[0] is made.outputs[1]
    assert made.outputs[2] is not made.outputs[0]
    assert len(made) == 6


def test_a_builder_does_not_merge_types() -> None:
    b = Builder()
    consts = [
        b.const(1, F64),
        b.const(1, F32),
        b.const(1, I64),
        b.const(True, DTYPES["bool"]),
        b.const([1.0], F64),
    ]
    assert len(set(rebuilt(Graph("g", [], consts)).outputs)) == 5


# ------------------------------------------------------------------------------------------------ join_embeds


def reads_gradient(
    shape: tuple[int, ...], boxes: list[tuple[slice, ...]], extra: bool = False
) -> tuple[Graph, np.ndarray, list[np.ndarray]]:
    """The sum of embedded pieces as reverse mode leaves it, its value, and its arguments."""
    rng = np.random.default_rng(len(boxes))
    b = Builder()
    wanted, total, args, nodes = np.zeros(shape), None, [], []
    if extra:
        nodes.append(b.input(Type(F64, shape), "whole"))
        args.append(rng.normal(size=shape))
        total, wanted = b.exp(nodes[0]), np.exp(args[0])
    for i, box in enumerate(boxes):
        value = rng.normal(size=np.empty(shape)[box].shape)
        node = b.input(Type(F64, value.shape), f"g{i}")
        part = b.embed(node, shape=shape, starts=tuple(s.start for s in box), steps=(1,) * len(shape))
        total = part if total is None else b.add(total, part)
        args.append(value)
        nodes.append(node)
        wanted[box] += value
    assert total is not None
    return Graph("g", nodes, [total]), wanted, args


def names(graph: Graph) -> list[str]:
    return sorted(
        node.op.name for node in graph.nodes() if node.op.name not in ("input", "const", "broadcast_to")
    )


def rows(*spans: tuple[int, int]) -> list[tuple[slice, ...]]:
    return [(slice(start, end),) for start, end in spans]


@pytest.mark.parametrize(
    ("shape", "boxes", "extra", "left"),
    [
        ((6,), rows((0, 2), (2, 6)), False, ["concatenate"]),
        ((6,), rows((4, 6), (0, 2)), False, ["concatenate"]),
        ((6,), rows((1, 2), (3, 4)), False, ["concatenate", "embed"]),
        ((6,), rows((1, 3), (1, 3), (1, 3)), False, ["add", "add", "embed"]),
        ((6,), rows((0, 3), (3, 6), (2, 4)), False, ["add", "concatenate", "embed"]),
        ((6,), rows((0, 2), (2, 6)), True, ["add", "concatenate", "exp"]),
        (
            (2, 3),
            [(slice(i, i + 1), slice(j, j + 1)) for i in range(2) for j in range(3)],
            False,
            ["concatenate"] * 3,
        ),
        (
            (2, 3),
            [(slice(0, 2), slice(0, 1)), (slice(0, 1), slice(1, 3)), (slice(1, 2), slice(1, 3))],
            False,
            ["concatenate", "concatenate"],
        ),
        ((4,), rows((1, 3)), True, ["add", "embed", "exp"]),
    ],
)
def test_join_embeds(
    shape: tuple[int, ...], boxes: list[tuple[slice, ...]], extra: bool, left: list[str]
) -> None:
    graph, wanted, args = reads_gradient(shape, boxes, extra)
    made = run(graph, [join_embeds, simplify], [Verify()])
    np.testing.assert_allclose(interpret(made, *args)[0], wanted, rtol=1e-14, atol=1e-15)
    assert names(made) == left


def test_join_embeds_of_a_loop_is_one_assembly() -> None:
    """n reads of x[i], and n overlapping windows, cost a number of elements linear in n."""
    for boxes in (rows(*((i, i + 1) for i in range(300))), rows(*((i, i + 3) for i in range(298)))):
        graph, wanted, args = reads_gradient((300,), boxes)
        made = run(graph, [join_embeds, simplify], [Verify()])
        np.testing.assert_allclose(interpret(made, *args)[0], wanted, rtol=1e-14, atol=1e-15)
        work = sum(node.type.size for node in made.nodes() if node.op.name not in ("input", "const"))
        assert work <= 10 * 300


def test_join_embeds_keeps_sums_that_are_read_elsewhere() -> None:
    b = Builder()
    x, y, z = (b.input(Type(F64, (2,)), name) for name in "xyz")
    parts = [b.embed(node, shape=(6,), starts=(2 * i,), steps=(1,)) for i, node in enumerate((x, y, z))]
    first = b.add(parts[0], parts[1])
    graph = Graph("g", [x, y, z], [b.add(first, parts[2]), b.exp(first), first])
    made = run(graph, [join_embeds], [Verify(), Compare()])
    assert names(made).count("concatenate") == 1


def test_join_embeds_leaves_strides_alone() -> None:
    b = Builder()
    x, y = b.input(Type(F64, (3,)), "x"), b.input(Type(F64, (3,)), "y")
    even = b.embed(x, shape=(6,), starts=(0,), steps=(2,))
    odd = b.embed(y, shape=(6,), starts=(1,), steps=(2,))
    graph = Graph("g", [x, y], [b.add(even, odd)])
    assert join_embeds(graph).key() == graph.key()


# ------------------------------------------------------------------------------------------------ instruments


def doubled(graph: Graph) -> Graph:
    """A wrong pass: multiplies the first output by two."""
    b = Builder()
    return Graph(graph.name, graph.inputs, [b.mul(graph.outputs[0], 2.0), *graph.outputs[1:]])


def test_instruments_see_every_pass(tmp_path: Path) -> None:
    timer, dumps = Time(), {}
    graph = read("%0 = input name='x' : f64[2]\n%1 = neg %0 : f64[2]\n%2 = add %0 %1 : f64[2]\nreturn %2")
    out = run(
        graph,
        [fold, simplify, decompose],
        [timer, Verify(), Compare(), Dump(dumps.__setitem__), Dump(tmp_path, locations=False)],
    )
    assert [node.op.name for node in out.nodes()] == ["input", "sub"]
    assert [(row[0], row[1], row[3], row[4]) for row in timer.rows] == [
        (1, "fold", 3, 3),
        (2, "simplify", 3, 2),
        (3, "decompose", 2, 2),
    ]
    assert "simplify" in timer.report()
    assert list(dumps) == ["00-input.txt", "02-simplify.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == list(dumps)
    assert parse_graph((tmp_path / "02-simplify.txt").read_text()).key() == out.key()


def test_stop_after() -> None:
    graph = read("%0 = input name='x' : f64[2]\n%1 = neg %0 : f64[2]\n%2 = add %0 %1 : f64[2]\nreturn %2")
    assert run(graph, [fold, simplify], [StopAfter(1)]).key() == graph.key()
    assert run(graph, [fold, simplify], [StopAfter(2)]).key() != graph.key()


def test_compare_names_the_wrong_pass() -> None:
    graph = read("%0 = input name='x' : f64[2]\n%1 = exp %0 : f64[2]\nreturn %1")
    with pytest.raises(IRError, match=r"pass 2 \(doubled\) changed output 0\[0\]"):
        run(graph, [fold, doubled], [Compare()])


def test_verify_names_the_wrong_pass() -> None:
    def retyped(graph: Graph) -> Graph:
        return Graph(graph.name, graph.inputs, [Builder().convert(graph.outputs[0], dtype=F32)])

    def broken(graph: Graph) -> Graph:
        return Graph(graph.name, graph.inputs, [Node(REGISTRY["exp"], graph.outputs, {}, Type(F32, (2,)))])

    def other_inputs(graph: Graph) -> Graph:
        x = Builder().input(Type(F64, (2,)), "z")
        return Graph(graph.name, [x], [Builder().exp(x)])

    graph = read("%0 = input name='x' : f64[2]\n%1 = exp %0 : f64[2]\nreturn %1")
    with pytest.raises(IRError, match=r"retyped\) changed the types"):
        run(graph, [retyped], [Verify()])
    with pytest.raises(IRError, match=r"after pass 1 \(broken\).*should have type"):
        run(graph, [broken], [Verify()])
    with pytest.raises(IRError, match="changed the inputs"):
        run(graph, [other_inputs], [Verify()])


def test_a_rule_can_be_left_out() -> None:
    graph = read("%0 = input name='x' : f64[2]\n%1 = neg %0 : f64[2]\n%2 = add %0 %1 : f64[2]\nreturn %2")
    others: list[Rule] = [rule for rule in ALL if rule.name != "add_neg"]
    assert simplify_with(graph, others)[0].key() == graph.key()
