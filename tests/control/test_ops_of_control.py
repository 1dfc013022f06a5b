"""Ops of control flow: printed, parsed, verified, interpreted."""

from __future__ import annotations

import re

import numpy as np
import pytest

from graphjit.errors import GraphjitError, IRError
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.export import to_dot, to_json
from graphjit.ir.node import Body, Graph, with_bodies
from graphjit.ir.parser import parse_graph
from graphjit.ir.printer import print_graph
from graphjit.ir.types import F64, I64, Bundle, Type, parse_bundle, parse_type, tape_of
from graphjit.ir.verify import verify
from graphjit.loops.lowering.kernels import CHECKED
from graphjit.ops.failing import OF_INTEGERS, may_fail

SCAN_AND_COND = """graph f
  %0 = input name='w' : f64[3]
  %1 = input name='h' : f64[3]
  %2 = input name='x' : f64[4,3]
  %3 = input name='which' : i64[]
  %4 = scan %0 %1 %2 body={
    graph step
      %0 = input name='w' : f64[3]
      %1 = input name='h' : f64[3]
      %2 = input name='x' : f64[3]
      %3 = mul %0 %1 : f64[3]
      %4 = add %3 %2 : f64[3]
      return %4 %4
  } carried=1 sliced=1 length=4 reverse=False : (f64[3], f64[4,3])
  %5 = item %4 index=1 : f64[4,3]
  %6 = cond %3 %5 branches=({
    graph a
      %0 = input name='x' : f64[4,3]
      return %0
  }, {
    graph b
      %0 = input name='x' : f64[4,3]
      %1 = neg %0 : f64[4,3]
      return %1
  }) : (f64[4,3])
  %7 = item %6 index=0 : f64[4,3]
  return %7
"""

WHILE_AND_UNWIND = """graph f
  %0 = input name='x' : f64[]
  %1 = const value=0 : i64[]
  %2 = while %1 %0 test={
    graph t
      %0 = input name='i' : i64[]
      %1 = input name='x' : f64[]
      %2 = const value=3 : i64[]
      %3 = lt %0 %2 : bool[]
      return %3
  } body={
    graph step
      %0 = input name='i' : i64[]
      %1 = input name='x' : f64[]
      %2 = const value=1 : i64[]
      %3 = add %0 %2 : i64[]
      %4 = mul %1 %1 : f64[]
      return %3 %4 %1
  } carried=2 taped=1 : (i64[], f64[], tape(f64[])[])
  %3 = item %2 index=1 : f64[]
  %4 = item %2 index=2 : tape(f64[])[]
  %5 = const value=1.0 : f64[]
  %6 = unwind %5 %4 body={
    graph back
      %0 = input name='ct' : f64[]
      %1 = input name='x' : f64[]
      %2 = mul %0 %1 : f64[]
      %3 = add %2 %2 : f64[]
      return %3
  } carried=1 tapes=1 : (f64[])
  %7 = item %6 index=0 : f64[]
  return %3 %7
"""


@pytest.mark.parametrize("text", [SCAN_AND_COND, WHILE_AND_UNWIND])
def test_text_is_read_back(text: str) -> None:
    graph = parse_graph(text)
    verify(graph)
    assert print_graph(graph) == text
    assert graph.key() == parse_graph(text).key()
    assert len(list(with_bodies(graph))) == len(re.findall(r"^ +%\d+ = ", text, re.M))
    assert "branches" in to_dot(graph) or "body" in to_dot(graph)
    assert '"inputs"' in to_json(graph)


def test_scan_and_cond_compute() -> None:
    graph = parse_graph(SCAN_AND_COND)
    w, h, x = np.full(3, 0.5), np.ones(3), np.arange(12.0).reshape(4, 3)
    wanted = []
    for row in x:
        h = w * h + row
        wanted.append(h)
    for which, sign in ((0, 1.0), (1, -1.0), (-7, 1.0), (9, -1.0)):  # the nearest branch
        (found,) = interpret(graph, w, np.ones(3), x, np.array(which))
        np.testing.assert_array_equal(found, sign * np.array(wanted))


def test_while_and_unwind_compute() -> None:
    value, slope = interpret(parse_graph(WHILE_AND_UNWIND), np.array(1.1))
    assert value == pytest.approx(1.1**8, rel=1e-14)
    assert slope == pytest.approx(8 * 1.1**7, rel=1e-14)


def test_types_of_tapes() -> None:
    """They are read back, differ by what is on the tape, and have derivatives where that has."""
    inner = tape_of(Type(F64, (3,)))
    outer = tape_of(inner.with_shape((2,))).with_shape((5, 1))
    assert str(outer) == "tape(tape(f64[3])[2])[5,1]"
    assert parse_type(str(outer)) == outer
    assert outer.record == inner.with_shape((2,))
    assert outer.nbytes == 5 * 8
    assert inner != tape_of(Type(F64, (4,)))
    assert outer.has_derivative
    assert not tape_of(Type(I64, ())).has_derivative
    assert parse_bundle(f"({outer}, i64[])") == Bundle((outer, Type(I64, ())))
    for text in ("tape[]", "tape()[]", "tape(f64[3])", "tape(f64[3][]"):
        with pytest.raises(IRError):
            parse_type(text)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (SCAN_AND_COND, "return %4 %4\n", "return %2 %4\n      return %4\n"),
        (SCAN_AND_COND, "length=4", "length=5"),
        (SCAN_AND_COND, "carried=1", "carried=2"),
        (SCAN_AND_COND, "return %1\n", "return %1 %0\n"),
        (WHILE_AND_UNWIND, "return %3 %4 %1", "return %3 %4"),
        (WHILE_AND_UNWIND, "return %3\n  }", "return %2\n  }"),
        (WHILE_AND_UNWIND, "unwind %5 %4", "unwind %5 %5"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, old: str, new: str) -> None:
    assert old in text
    with pytest.raises(GraphjitError):
        parse_graph(text.replace(old, new))


def test_what_kernels_check_may_fail() -> None:
    """`may_fail` and the operations that compiled code checks agree."""
    assert set(CHECKED) == OF_INTEGERS
    b = Builder()
    x, i = b.input(Type(I64, (3,)), "x"), b.input(Type(I64, ()), "i")
    assert may_fail(b.floor_divide(x, x))
    assert may_fail(b.gather(x, i, axes=(0,)))
    assert not may_fail(b.gather(x, b.const(1, I64), axes=(0,)))
    assert not may_fail(b.add(x, x))
    y = b.input(Type(F64, (3,)), "y")
    assert not may_fail(b.fmod(y, y))
    inner = Body(Graph("inner", [i], [b.floor_divide(i, i)]))
    assert may_fail(b.cond(i, i, branches=(inner,)))
