"""The graph IR: nodes, builder, types, text form and back, verifier, Graphviz and JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from random_graphs import random_graph

import graphjit.ops  # noqa: F401 (fills the registry)
from graphjit.errors import IRError, ShapeError
from graphjit.interpret import interpret
from graphjit.ir.affine import Affine, axis_index
from graphjit.ir.builder import Builder
from graphjit.ir.export import to_dot, to_json
from graphjit.ir.node import ConstValue, Graph, Location, Node, reachable, users
from graphjit.ir.opdef import REGISTRY, Linear, Partials, Reduce, Scalar, View, ZeroDerivative, op
from graphjit.ir.parser import parse_graph
from graphjit.ir.patterns import is_zero, splat
from graphjit.ir.printer import print_graph, value_text
from graphjit.ir.types import BOOL, DTYPES, F32, F64, I64, Type, parse_type
from graphjit.ir.verify import verify


def small() -> Graph:
    b = Builder()
    x = b.input(Type(F64, (2, 3)), "x")
    y = b.input(Type(F64, (3,)), "weights['w']")
    b.loc = Location(__file__, 1, "loss")
    product = b.mul(x, b.broadcast_to(y, shape=(2, 3)))
    b.origin = "vjp of mul"
    return Graph("loss", [x, y], [b.sum(product, axes=(0, 1)), product])


# ---------------------------------------------------------------------------------------------- types, affine


@pytest.mark.parametrize("text", ["f64[256,784]", "f32[8]", "i64[]", "bool[0,3]", "u8[1]"])
def test_types_print_and_parse(text: str) -> None:
    assert str(parse_type(text)) == text
    assert parse_type(f" {text} ") == parse_type(text)


@pytest.mark.parametrize("text", ["f64", "float64[3]", "f64[-1]", "f64[3", "[3]", "f16[2]", ""])
def test_bad_types_are_refused(text: str) -> None:
    with pytest.raises(IRError, match="not a type"):
        parse_type(text)


def test_type_sizes() -> None:
    type = Type(F32, (2, 3))
    assert (type.ndim, type.size, type.nbytes) == (2, 6, 24)
    assert type.with_dtype(F64).nbytes == 48
    assert type.with_shape(()).size == 1


def test_affine_arithmetic() -> None:
    i, j = axis_index("i"), axis_index("j")
    index = i * 3 + 2 * j - (i + 4) + 1
    assert index == Affine(-3, {"i": 2, "j": 2})
    assert hash(index) == hash(Affine(-3, {"j": 2, "i": 2}))
    assert 5 - i == Affine(5, {"i": -1})
    assert (i - i).terms == {}
    assert (index["i"], index["k"]) == (2, 0)
    assert repr(2 * i - 3) == "2*i - 3"


# ------------------------------------------------------------------------------------------ nodes and builder


def test_equal_requests_give_one_node() -> None:
    b = Builder()
    x = b.input(Type(F64, (3,)), "x")
    assert b.exp(x) is b.exp(x)
    assert b.sum(x, axes=(0,)) is b.sum(x, axes=(0,))
    assert Builder().exp(x) is not b.exp(x)
    assert b.input(Type(F64, (3,)), "x") is not b.input(Type(F64, (3,)), "x")


def test_location_and_origin_are_no_part_of_identity() -> None:
    b = Builder()
    x = b.input(Type(F64, (3,)), "x")
    first = b.exp(x)
    b.loc, b.origin = Location("model.py", 3, "f"), "vjp of exp"
    assert b.exp(x) is first
    assert first.loc is None
    assert b.sin(x).loc == Location("model.py", 3, "f")


def test_constants_are_compared_by_bits() -> None:
    b = Builder()
    assert b.const(0.0, F64) is not b.const(-0.0, F64)
    assert b.const(math.nan, F64) is b.const(math.nan, F64)
    assert b.const(1, I64) is not b.const(1.0, F64)
    assert b.const(True, BOOL) is not b.const(1, I64)
    assert b.const([1.0], F64) is not b.const(1.0, F64)


def test_constants_do_not_alias_the_users_array() -> None:
    array = np.array([1.0, 2.0])
    node = Builder().const(array, F64)
    array[0] = 7.0
    value: Any = node.attrs["value"]
    assert value.array.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        value.array[0] = 1.0


def test_numbers_take_the_type_of_the_node_beside_them() -> None:
    b = Builder()
    x = b.input(Type(F32, (3,)), "x")
    y = b.mul(x, 2.0)
    assert y.type == Type(F32, (3,))
    assert splat(y.args[1]) == np.float32(2)
    assert splat(b.div(1.0, x).args[0]).dtype == F32
    with pytest.raises(IRError, match="at least one node"):
        b.add(1.0, 2.0)


def test_builder_refuses_nonsense() -> None:
    b = Builder()
    x = b.input(Type(F64, (3,)), "x")
    with pytest.raises(IRError, match="takes attributes"):
        b.argmax(x)
    with pytest.raises(IRError, match="takes attributes"):
        b.exp(x, axes=(0,))
    with pytest.raises(AttributeError, match="no op 'frobnicate'"):
        b.frobnicate(x)
    b.loc = Location("model.py", 3, "f")
    with pytest.raises(ShapeError, match=r"in add at model\.py:3"):
        b.add(x, b.input(Type(F64, (4,)), "y"))


def test_attribute_order_does_not_matter() -> None:
    b = Builder()
    x = b.input(Type(F64, (4,)), "x")
    first = b.slice(x, starts=(0,), limits=(2,), steps=(1,))
    assert b.slice(x, steps=(1,), limits=(2,), starts=(0,)) is first
    assert tuple(first.attrs) == ("starts", "limits", "steps")


def test_slices_side_by_side_are_joined_and_others_are_not() -> None:
    b = Builder()
    x, y, z = b.input(Type(F64, (7,)), "x"), b.input(Type(F64, (7,)), "y"), b.input(Type(F64, (2, 4)), "z")

    def cut(array: Node, *ends: tuple[int, int], step: int = 1) -> Node:
        starts, limits = zip(*ends, strict=True)
        return b.slice(array, starts=starts, limits=limits, steps=(step,) * len(ends))

    assert b.concatenate(cut(x, (0, 3)), cut(x, (3, 5)), cut(x, (5, 7)), axis=0) is x
    assert b.concatenate(cut(x, (1, 3)), cut(x, (3, 5)), axis=0) is cut(x, (1, 5))
    assert b.concatenate(y, cut(x, (0, 3)), cut(x, (3, 7)), y, axis=0).args == (y, x, y)
    assert b.concatenate(cut(z, (0, 2), (1, 2)), cut(z, (0, 2), (2, 4)), axis=1) is cut(z, (0, 2), (1, 4))
    assert b.concatenate(x, axis=0) is x
    apart = [
        (cut(x, (3, 7)), cut(x, (0, 3))),
        (cut(x, (0, 3)), cut(y, (3, 7))),
        (cut(x, (0, 3)), cut(x, (4, 7))),
        (cut(x, (0, 2), step=2), cut(x, (2, 7), step=2)),
    ]
    for pair in apart:
        assert b.concatenate(*pair, axis=0).args == pair
    corners = cut(z, (0, 1), (0, 2)), cut(z, (1, 2), (2, 4))
    assert b.concatenate(*corners, axis=1).args == corners


def test_inline_copies_a_body() -> None:
    graph = small()
    b = Builder()
    x, y = b.input(Type(F64, (2, 3)), "a"), b.input(Type(F64, (3,)), "b")
    total, product = b.inline(graph, (x, y))
    made = Graph("outer", [x, y], [total, product])
    verify(made)
    assert made.key() == graph.key()
    assert not set(made.nodes()) & set(graph.nodes())


def test_graph_lists_inputs_and_what_outputs_reach() -> None:
    b = Builder()
    x, y = b.input(Type(F64, ()), "x"), b.input(Type(F64, ()), "y")
    dead = b.exp(x)
    out = b.sin(x)
    graph = Graph("g", [y, x], [out])
    assert graph.nodes() == [x, y, out]
    assert dead not in graph.nodes()
    assert set(reachable([out])) == {x, out}
    assert users([b.mul(x, x)])[x] == [b.mul(x, x)] * 2


def test_key_tells_graphs_apart() -> None:
    def build(first: str, second: str, swap: bool = False, value: float = 1.5) -> Graph:
        b = Builder()
        x, y = b.input(Type(F64, (2,)), first), b.input(Type(F64, (2,)), second)
        z = b.sub(y, x) if swap else b.sub(x, y)
        return Graph("g", [x, y], [b.mul(z, value)])

    assert build("x", "y").key() == build("a", "b").key()
    assert build("x", "y").key() != build("x", "y", swap=True).key()
    assert build("x", "y").key() != build("x", "y", value=2.5).key()
    graph = build("x", "y")
    assert Graph("g", graph.inputs[::-1], graph.outputs).key() != graph.key()
    assert Graph("g", graph.inputs, graph.outputs * 2).key() != graph.key()


def test_patterns() -> None:
    b = Builder()
    x = b.input(Type(F64, (2,)), "x")
    assert splat(b.full(2.5, Type(F64, (2, 2)))) == 2.5
    assert splat(b.reshape(b.full(2.5, Type(F64, (2, 2))), shape=(4,))) == 2.5
    assert splat(x) is None
    assert splat(b.const([1.0, 1.0], F64)) is None
    assert is_zero(b.full(-0.0, x.type))
    assert not is_zero(b.full(1.0, x.type))
    assert not is_zero(x)


# ----------------------------------------------------------------------------------------------- declarations


def declare(**changes: Any) -> None:
    record: dict[str, Any] = {
        "doc": "x.",
        "infer": lambda x: x,
        "impl": np.copy,
        "grad": Partials(1),
        "lower": Scalar("copy"),
        "samples": (0, 1),
        **changes,
    }
    op(record.pop("name", "nonsense"), **record)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "exp"}, "the name is taken"),
        ({"doc": "  "}, "no doc"),
        ({"grad": Partials(1, 1)}, "2 partials for 1 arguments"),
        ({"grad": ZeroDerivative("")}, "needs its reason"),
        ({"lower": Reduce("add")}, "needs the attribute axes"),
        (
            {"lower": View(lambda node, index: index), "arity": 0, "grad": Linear(lambda *a: a)},
            "first argument",
        ),
        ({"lower": View(lambda node, index: index)}, "no batching rule"),
        ({"samples": None}, "no samples"),
    ],
)
def test_incomplete_declarations_are_refused(changes: dict[str, Any], why: str) -> None:
    before = dict(REGISTRY)
    with pytest.raises(IRError, match=f"test_ir.*refused: .*{why}"):
        declare(**changes)
    assert before == REGISTRY


# -------------------------------------------------------------------------------------------------- text form


def test_printed_form() -> None:
    text = print_graph(small(), locations=False)
    assert text == (
        "graph loss\n"
        "  %0 = input name='x' : f64[2,3]\n"
        "  %1 = input name=\"weights['w']\" : f64[3]\n"
        "  %2 = broadcast_to %1 shape=(2, 3) : f64[2,3]\n"
        "  %3 = mul %0 %2 : f64[2,3]\n"
        "  %4 = sum %3 axes=(0, 1) : f64[]\n"
        "  return %4 %3\n"
    )


def test_comments_have_line_source_and_origin() -> None:
    lines = print_graph(small()).splitlines()
    assert lines[1] == "  %0 = input name='x' : f64[2,3]"
    assert lines[3].startswith("  %2 = broadcast_to %1 shape=(2, 3) : f64[2,3]   ")
    assert lines[3].endswith(
        '# test_ir.py:1  """The graph IR: nodes, builder, types, text form and back, verifier, Graphviz and JSON."""'
    )
    assert lines[4] == "  %3 = mul %0 %2 : f64[2,3]"
    assert lines[5].endswith("   # [vjp of mul]")
    assert parse_graph("\n".join(lines)).key() == small().key()


def test_a_source_line_is_shown_where_it_changes() -> None:
    b = Builder()
    given = x = b.input(Type(F64, ()), "x")
    for line in (1, 1, 3, 3, 1):
        b.loc = Location("nosuch.py", line, "f")
        x = b.mul(x, x)
    lines = print_graph(Graph("g", [given], [x])).splitlines()
    assert [line.partition("# ")[2] for line in lines[2:-1]] == [
        "nosuch.py:1",
        "",
        "nosuch.py:3",
        "",
        "nosuch.py:1",
    ]


def test_inputs_come_in_the_order_of_the_signature() -> None:
    b = Builder()
    x, y = b.input(Type(F64, ()), "x"), b.input(Type(F64, ()), "y")
    graph = Graph("g", [y, x], [b.sub(x, y)])
    text = print_graph(graph)
    assert text.splitlines()[1] == "  %0 = input name='y' : f64[]"
    assert "sub %1 %0" in text
    assert parse_graph(text).key() == graph.key()


VALUES: list[tuple[str, list[Any]]] = [
    ("f64", [0.0, -0.0, math.inf, -math.inf, math.nan, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -1e22]),
    ("f32", [0.0, -0.0, math.inf, -math.inf, math.nan, 0.1, 1 / 3, 1e-45, 3.4028235e38, 16777217.0]),
    ("i64", [0, -1, 2**63 - 1, -(2**63)]),
    ("u64", [0, 2**64 - 1]),
    ("i8", [-128, 127]),
    ("bool", [True, False]),
]


@pytest.mark.parametrize(("name", "values"), VALUES)
def test_constants_read_back_bit_for_bit(name: str, values: list[Any]) -> None:
    dtype = DTYPES[name]
    b = Builder()
    outs = [b.const(value, dtype) for value in values]
    outs += [b.const(values, dtype), b.const([values, values[::-1]], dtype), b.const(values * 20, dtype)]
    outs += [b.const(np.zeros((0, 3)), dtype), b.const(np.zeros((2, 0)), dtype)]
    graph = Graph("g", [], outs)
    text = print_graph(graph)
    assert parse_graph(text).key() == graph.key(), text
    assert "base64:" in text


def test_nan_keeps_its_bits() -> None:
    odd = np.array([0x7FF8000000000001, 0xFFF8000000000000], dtype=np.uint64).view(np.float64)
    b = Builder()
    graph = Graph("g", [], [b.const(odd, F64), b.const(odd[0], F64), b.const(math.nan, F64)])
    text = print_graph(graph)
    assert parse_graph(text).key() == graph.key()
    assert text.count("base64:") == 2
    assert "value=nan" in text


def test_float32_prints_short() -> None:
    b = Builder()
    assert "value=0.1 : f32[]" in print_graph(Graph("g", [], [b.const(0.1, F32)]))


def test_constants_print_as_nested_lists() -> None:
    b = Builder()
    text = print_graph(Graph("g", [], [b.const([[1.0, -0.0], [math.inf, math.nan]], F64), b.const([], I64)]))
    assert "value=[[1.0, -0.0], [inf, nan]] : f64[2,2]" in text
    assert "value=[] : i64[0]" in text


@pytest.mark.parametrize("name", ["<lambda>", "a b", "it's", "", "for#all"])
def test_any_name_reads_back(name: str) -> None:
    b = Builder()
    x = b.input(Type(F64, ()), name)
    graph = parse_graph(print_graph(Graph(name, [x], [x])))
    assert graph.name == name
    assert graph.inputs[0].attrs["name"] == name


def test_attribute_values() -> None:
    for value, text in [
        (F64, "f64"),
        ((), "()"),
        ((1,), "(1,)"),
        (((1, 2), ()), "((1, 2), ())"),
        (True, "True"),
        (None, "None"),
        (-0.0, "-0.0"),
        ("it's", '"it\'s"'),
        (np.int64(3), "3"),
    ]:
        assert value_text(value) == text
    for bad in (object(), [1], {1: 2}, 1j):
        with pytest.raises(IRError, match="no text form"):
            value_text(bad)


def test_parser_keeps_duplicates_and_order() -> None:
    text = "graph g\n  %0 = input name='x' : f64[]\n  %1 = exp %0 : f64[]\n  %2 = exp %0 : f64[]\n  %3 = neg %1 : f64[]\n  %4 = neg %3 : f64[]\n  return %4 %2\n"
    graph = parse_graph(text)
    assert graph.outputs[1] is not graph.outputs[0]
    assert print_graph(graph) == text


HEAD = "graph g\n%0 = input name='x' : f64[2]\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the text is empty"),
        ("grph g\nreturn", "line 1.*'graph' expected"),
        ("graph 3\nreturn", "line 1.*a name expected"),
        (HEAD, "return is missing"),
        (HEAD + "%1 = frobnicate %0 : f64[2]\nreturn %1", "line 3.*unknown op 'frobnicate'"),
        (HEAD + "%1 = %0 : f64[2]\nreturn %1", "line 3.*name of an op"),
        (HEAD + "%1 = exp %7 : f64[2]\nreturn %1", "line 3.*%7 is not defined"),
        (HEAD + "%1 = exp %1 : f64[2]\nreturn %1", "line 3.*%1 is not defined"),
        (HEAD + "%0 = exp %0 : f64[2]\nreturn %0", "line 3.*defined twice"),
        (HEAD + "%1 = add %0 : f64[2]\nreturn %1", "line 3.*takes 2 arguments, not 1"),
        (HEAD + "%1 = sum %0 : f64[]\nreturn %1", "line 3.*takes attributes"),
        (HEAD + "%1 = sum %0 axes=(0,) axes=(0,) : f64[]\nreturn %1", "line 3.*given twice"),
        (HEAD + "%1 = sum %0 axes=(0 : f64[]\nreturn %1", "line 3.*expected"),
        (HEAD + "%1 = sum %0 axes=? : f64[]\nreturn %1", "line 3.*a value expected"),
        (HEAD + "%1 = exp %0\nreturn %1", "line 3.*':' expected"),
        (HEAD + "%1 = exp %0 : f64\nreturn %1", "line 3.*a type"),
        (HEAD + "%1 = exp %0 : f63[2]\nreturn %1", "line 3.*not a type"),
        (HEAD + "%1 = exp %0 : f64[3]\nreturn %1", r"line 3.*has type f64\[2\], not f64\[3\]"),
        (HEAD + "%1 = sum %0 axes=(5,) : f64[]\nreturn %1", "line 3.*do not fit"),
        (HEAD + "%1 = const value=[1.0, 2.0] : f64[3]\nreturn %1", "line 3.*a list of 3"),
        (HEAD + "%1 = const value=1.5 : i64[]\nreturn %1", "line 3.*cannot hold"),
        (HEAD + "%1 = const value=300 : i8[]\nreturn %1", "line 3"),
        (HEAD + "%1 = const value='a' : f64[]\nreturn %1", "line 3.*a number expected"),
        (HEAD + "%1 = const value=base64:AAAA : f64[]\nreturn %1", "line 3"),
        (HEAD + "%1 = const value=base64:AAAAAAAAAAA= : f64[2]\nreturn %1", "line 3.*1 elements"),
        (HEAD + "%1 = exp %0 : f64[2] junk\nreturn %1", "line 3.*unexpected text"),
        (HEAD + "exp %0\nreturn %0", "line 3.*'return' expected"),
        (HEAD + "return %0\nreturn %0", "line 4.*nothing may follow"),
    ],
)
def test_bad_text_names_its_line(text: str, why: str) -> None:
    with pytest.raises(IRError, match=why):
        parse_graph(text)


def test_comments_and_blank_lines_are_ignored() -> None:
    text = "# a graph\n\ngraph 'a # b' # name\n %0 = input name='#' : f64[2] # model.py:3  x # y\n\n return %0 # done\n"
    graph = parse_graph(text)
    assert (graph.name, graph.inputs[0].attrs["name"]) == ("a # b", "#")


# --------------------------------------------------------------------------------------------------- verifier


def raw(name: str, /, *args: Node, type: Type, loc: Location | None = None, **attrs: Any) -> Node:
    return Node(REGISTRY[name], args, attrs, type, loc)


def test_verify_accepts_what_the_builder_makes() -> None:
    verify(small())
    for seed in range(20):
        verify(random_graph(seed))


def test_verify_names_node_line_and_reason() -> None:
    b = Builder()
    x = b.input(Type(F64, (2,)), "x")
    where = Location("model.py", 12, "loss")
    with pytest.raises(IRError, match=r"<exp #\d+ : f32\[2\]> at model\.py:12 should have type f64\[2\]"):
        verify(Graph("g", [x], [raw("exp", x, type=Type(F32, (2,)), loc=where)]))


def test_verify_finds_every_kind_of_fault() -> None:
    b = Builder()
    x = b.input(Type(F64, (2,)), "x")
    t = x.type
    late = b.exp(x)
    early = raw("exp", x, type=t)
    early.args = (raw("sin", x, type=t),)
    undeclared = Node(type("Fake", (), {"name": "exp", "arity": 1, "attrs": ()})(), (x,), {}, t)  # type: ignore[arg-type]
    writeable = ConstValue(np.zeros(2))
    writeable.array.flags.writeable = True
    foreign = Node(REGISTRY["exp"], (x,), {}, Type(np.dtype(">f8"), (2,)))
    half = Node(REGISTRY["exp"], (x,), {}, Type(np.dtype(np.float16), (2,)))
    faults: list[tuple[Graph, str]] = [
        (Graph("g", [x, x], [late]), "is an input twice"),
        (Graph("g", [late], [late]), "is no input"),
        (Graph("g", [], [late]), "input of another graph"),
        (Graph("g", [x], [early]), "was made before its argument"),
        (Graph("g", [x], [undeclared]), "not declared"),
        (Graph("g", [x], [raw("add", x, type=t)]), "has 1 arguments, not 2"),
        (Graph("g", [x], [raw("sum", x, type=Type(F64, ()))]), "has attributes"),
        (Graph("g", [x], [raw("slice", x, type=t, limits=(2,), starts=(0,), steps=(1,))]), "has attributes"),
        (Graph("g", [x], [raw("sum", x, type=Type(F64, ()), axes=[0])]), "cannot be hashed"),
        (Graph("g", [x], [raw("sum", x, type=Type(F64, ()), axes=(3,))]), "refused by its type rule"),
        (Graph("g", [x], [raw("exp", x, type=Type(F64, (3,)))]), "should have type"),
        (Graph("g", [x], [raw("exp", x, type=Type(F64, (2.0,)))]), "ill-formed shape"),  # type: ignore[arg-type]
        (Graph("g", [x], [foreign]), "dtype that the IR does not know|byte order"),
        (Graph("g", [x], [half]), "dtype that the IR does not know"),
        (Graph("g", [], [raw("const", type=t, value=np.zeros(2))]), "no ConstValue"),
        (
            Graph("g", [], [raw("const", type=t, value=ConstValue(np.zeros(3)))]),
            "has a value of dtype float64 and shape",
        ),
        (Graph("g", [], [raw("const", type=t, value=writeable)]), "writeable"),
        (Graph("g", [raw("input", type=t, name=3)], []), "no string"),
        (Graph("g", ["x"], []), "is no node"),  # type: ignore[list-item]
    ]
    for graph, why in faults:
        with pytest.raises(IRError, match=why):
            verify(graph)


# ---------------------------------------------------------------------------------------------- other formats


def test_dot() -> None:
    text = to_dot(small())
    assert text.startswith('digraph "loss" {')
    assert text.rstrip().endswith("}")
    assert 'label="sum\\naxes=(0, 1)\\nf64[]"' in text
    assert "n0 -> n3;" in text
    assert "n2 -> n3;" in text
    assert "n4 -> out0;" in text
    assert text.count("->") == 6
    assert '\\"\\"\\"The graph IR' in text


def test_dot_shortens_constants() -> None:
    b = Builder()
    text = to_dot(Graph("g", [], [b.const(np.arange(100.0), F64)]))
    assert "..." in text
    assert max(map(len, text.splitlines())) < 200


def test_json() -> None:
    data = json.loads(to_json(small()))
    assert (data["name"], data["inputs"], data["outputs"]) == ("loss", [0, 1], [4, 3])
    assert data["nodes"][4] == {
        "number": 4,
        "op": "sum",
        "args": [3],
        "attrs": {"axes": "(0, 1)"},
        "dtype": "float64",
        "shape": [],
        "file": __file__,
        "line": 1,
        "origin": "vjp of mul",
    }
    assert data["nodes"][0]["file"] is None


# ------------------------------------------------------------------------------------------------ interpreter


def test_interpreter_checks_arguments_and_values() -> None:
    graph = small()
    x, y = np.ones((2, 3)), np.arange(3.0)
    total, product = interpret(graph, x, y)
    assert total == 6.0
    np.testing.assert_array_equal(product, [y, y])
    with pytest.raises(IRError, match="takes 2 inputs, not 1"):
        interpret(graph, x)
    with pytest.raises(IRError, match="float32"):
        interpret(graph, x.astype(np.float32), y)
    with pytest.raises(IRError, match=r"shape \(3, 2\)"):
        interpret(graph, x.T, y)
