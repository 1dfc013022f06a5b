"""Nodes with several results and graphs inside: text, verifier, interpreter, keys, passes, derivatives."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.errors import IRError, ShapeError
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.export import to_dot, to_json
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.parser import parse_graph
from graphjit.ir.printer import print_graph
from graphjit.ir.types import F64, I64, Bundle, Type, parse_bundle
from graphjit.ir.verify import verify
from graphjit.passes.open_bodies import open_bodies
from graphjit.transforms.batch import batch
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents

TEXT = """\
graph outer
  %0 = input name='x' : f64[3]
  %1 = input name='n' : i64[]
  %2 = custom %0 %1 body={
    graph pair
      %0 = input name='a' : f64[3]
      %1 = input name='k' : i64[]
      %2 = custom %0 body={
        graph square
          %0 = input name='u' : f64[3]
          %1 = mul %0 %0 : f64[3]
          return %1
      } rule='checked' : f64[3]
      %3 = sum %2 axes=(0,) : f64[]
      return %2 %3 %1
  } rule=None : (f64[3], f64[], i64[])
  %3 = item %2 index=0 : f64[3]
  %4 = item %2 index=1 : f64[]
  return %3 %4
"""


def test_text_reads_back() -> None:
    graph = parse_graph(TEXT)
    verify(graph)
    assert print_graph(graph, locations=False) == TEXT
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)
    x = np.array([1.0, 2.0, 3.0])
    square, total = interpret(graph, x, np.int64(4))
    np.testing.assert_array_equal(square, x * x)
    assert total == 14.0


def test_bodies_are_equal_by_what_they_compute() -> None:
    first, second = parse_graph(TEXT), parse_graph(TEXT.replace("graph square", "graph other"))
    assert first.key() == second.key()
    assert first.key() != parse_graph(TEXT.replace("mul %0 %0", "add %0 %0")).key()
    assert first.key() == parse_graph(TEXT.replace("rule='checked'", "rule=None")).key()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("body={\n    graph pair", "body={ graph pair\n", "a graph expected on the lines that follow"),
        ("      return %2 %3 %1\n  }", "      return %2 %3 %1\n  )", "'}' expected"),
        ("(f64[3], f64[], i64[])", "(f64[3], f64[])", "has type"),
        ("index=1 : f64[]", "index=3 : f64[]", "has no result 3"),
        ("item %2 index=0", "item %0 index=0", "has no result 0"),
        ("%2 = custom %0 %1 body", "%2 = custom %1 %0 body", "takes"),
        ("      %3 = sum %2", "      %3 = sum %7", "not defined"),
    ],
)
def test_wrong_text_is_told_with_its_line(old: str, new: str, message: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(IRError, match=message):
        parse_graph(TEXT.replace(old, new))


def test_a_bundle_as_text() -> None:
    assert parse_bundle("(f64[3,4], i64[])") == Bundle((Type(F64, (3, 4)), Type(I64, ())))
    assert str(Bundle((Type(F64, ()),))) == "(f64[])"
    with pytest.raises(IRError, match="several types"):
        parse_bundle("f64[3]")


def test_the_verifier_looks_into_bodies() -> None:
    graph = parse_graph(TEXT)
    (outer,) = (node for node in graph.nodes() if node.op.name == "custom")
    body = outer.attrs["body"]
    assert isinstance(body, Body)
    broken = Node(REGISTRY["mul"], (body.graph.inputs[0],), {}, Type(F64, (3,)))
    with pytest.raises(IRError, match="has 1 arguments, not 2"):
        verify(
            Graph(
                "broken",
                graph.inputs,
                [
                    Node(
                        outer.op,
                        outer.args,
                        {"body": Body(Graph("b", body.graph.inputs, [broken])), "rule": None},
                        broken.type,
                    )
                ],
            )
        )
    b = Builder()
    with pytest.raises(ShapeError, match="the body pair takes"):
        b.emit("custom", graph.inputs[0], body=body, rule=None)


def test_other_tools_see_bodies() -> None:
    graph = parse_graph(TEXT)
    data = json.loads(to_json(graph))
    node = data["nodes"][2]
    assert node["dtype"] == ["float64", "float64", "int64"]
    assert node["shape"] == [[3], [], []]
    assert [inner["op"] for inner in node["attrs"]["body"]["nodes"]] == ["input", "input", "custom", "sum"]
    assert "body=graph pair" in to_dot(graph)


def test_bodies_are_opened() -> None:
    graph = parse_graph(TEXT)
    opened = open_bodies(graph)
    verify(opened)
    assert {node.op.name for node in opened.nodes()} == {"input", "mul", "sum"}
    x = np.array([1.0, 2.0, 3.0])
    for got, want in zip(interpret(opened, x, 4), interpret(graph, x, 4), strict=True):
        np.testing.assert_array_equal(got, want)
    assert open_bodies(opened) is opened


def test_derivatives_and_batches_part_by_part() -> None:
    graph = parse_graph(TEXT)
    x, n = graph.inputs
    b = Builder()
    ct = b.input(Type(F64, ()), "ct")
    (only_sum,) = cotangents(b, {graph.outputs[1]: ct}, [x])
    (both,) = cotangents(b, {graph.outputs[1]: ct, graph.outputs[0]: b.full(1.0, x.type)}, [x])
    dx = b.input(x.type, "dx")
    pushed = tangents(b, {x: dx}, graph.outputs)
    assert only_sum is not None
    assert both is not None
    given = np.array([1.0, 2.0, 3.0])
    got = interpret(Graph("d", [x, n, ct], [only_sum, both]), given, 4, 5.0)
    np.testing.assert_array_equal(got[0], 10 * given)
    np.testing.assert_array_equal(got[1], 12 * given)
    made = [t for t in pushed if t is not None]
    got = interpret(Graph("d", [x, n, dx], made), given, 4, np.ones(3))
    np.testing.assert_array_equal(got[0], 2 * given)
    assert got[1] == 12.0
    wide = b.input(Type(F64, (2, 3)), "batch")
    rows = [node for node in batch(b, graph.outputs, {x: wide}) if node is not None]
    got = interpret(Graph("b", [wide, n], rows), np.stack([given, -2 * given]), 4)
    np.testing.assert_array_equal(got[0], np.stack([given**2, 4 * given**2]))
    np.testing.assert_array_equal(got[1], [14.0, 56.0])


def test_bodies_that_differ_in_a_rule_are_two() -> None:
    def square(scale: float) -> Any:
        @graphjit.custom_jvp
        def f(x: Any) -> Any:
            return x * x

        @f.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            return f(*primals), scale * primals[0] * tangents[0]

        return f

    def both(x: Any) -> Any:
        first, _ = graphjit.scan(lambda c, _: (c + square(2.0)(x), None), 0.0, length=3)
        second, _ = graphjit.scan(lambda c, _: (c + square(20.0)(x), None), 0.0, length=3)
        return first + second

    assert graphjit.grad(both)(1.5) == pytest.approx(3 * 22.0 * 1.5)
