"""The printed form of a graph: one line a node, in topological order, inputs first.

Input: a `Graph`. Output: text that `graphjit.ir.parser.parse_graph` reads back to a graph with an equal
`Graph.key()`.
Invariant: every value is exact (signed zeros, infinities, NaN with its bits); what follows ``#`` is for
people only, and stays on its line.

    graph loss
      %0 = input name='x' : f64[3]
      %1 = const value=2.0 : f64[]
      %2 = broadcast_to %1 shape=(3,) : f64[3]        # model.py:12  y = x * 2
      %3 = mul %0 %2 : f64[3]
      %4 = sum %3 axes=(0,) : f64[]                   # model.py:13  return y.sum()
      return %4

A node without a comment comes from the same line of the user's code as the one above it. A graph inside a
node stands between braces, with numbers of its own:

      %3 = custom %0 rule='f' body={
        graph f
          %0 = input name='x' : f64[]
          %1 = sin %0 : f64[]
          return %1
      } : f64[]
"""

from __future__ import annotations

import base64
import linecache
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.names import name_text, one_line
from graphjit.ir.node import Body, ConstValue, Graph, Location, Node
from graphjit.ir.rule import Rule
from graphjit.ir.types import short

LIST_LIMIT = 16
"""Elements up to which a constant array is written as nested lists; larger ones are base64 of their bytes."""

COMMENT_COLUMN = 56
"""Column up to which the comments of short lines are aligned."""


def print_graph(graph: Graph, *, locations: bool = True) -> str:
    """The text of ``graph``.

    Args:
        graph: the graph.
        locations: whether to add comments: the user's line with its source text where it is another than that
            of the nodes above, and the origin of each node.
    """
    numbers = number_nodes(graph)
    lines = [f"graph {name_text(graph.name)}"]
    shown: Location | None = None
    for node, number in numbers.items():
        line, *body = f"  %{number} = {node_text(node, numbers)}".splitlines()
        if locations:
            line = _commented(line, comment(node, after=shown))
            shown = node.loc or shown
        lines += [line, *(f"  {row}" for row in body)]
    lines.append("  return" + "".join(f" %{numbers[node]}" for node in graph.outputs))
    return "\n".join(lines) + "\n"


class ReadableGraph(Graph):
    """A graph that prints as its text form, as people get it from `graphjit.make_graph`."""

    __slots__ = ()

    @classmethod
    def of(cls, graph: Graph) -> ReadableGraph:
        """The same graph."""
        return cls(graph.name, graph.inputs, graph.outputs)

    def __str__(self) -> str:
        return print_graph(self)

    def __repr__(self) -> str:
        return print_graph(self)


def number_nodes(graph: Graph) -> dict[Node, int]:
    """The number of every node: inputs in order, then the rest in topological order."""
    numbers = {node: i for i, node in enumerate(graph.inputs)}
    for node in graph.nodes():
        if node not in numbers:
            numbers[node] = len(numbers)
    return numbers


def node_text(node: Node, numbers: Mapping[Node, int]) -> str:
    """``mul %0 %1 : f64[3]``: one node without its own number and without a comment. A body takes more
    lines.
    """
    parts = [node.op.name]
    parts += [f"%{numbers[arg]}" for arg in node.args]
    parts += [f"{name}={value_text(value)}" for name, value in node.attrs.items()]
    return f"{' '.join(parts)} : {node.type}"


def comment(node: Node, after: Location | None = None) -> str:
    """Where a node comes from: ``model.py:12  a * b  [vjp of mul]``, without the line if that is ``after``;
    empty when unknown.
    """
    parts = []
    if node.loc is not None and node.loc != after:
        parts.append(f"{one_line(os.path.basename(node.loc.file))}:{node.loc.line}")
        source = _source(node.loc)
        if source:
            parts.append(one_line(source))
    if node.origin:
        parts.append(f"[{node.origin}]")
    return "  ".join(parts)


def _source(loc: Location) -> str:
    try:
        return linecache.getline(loc.file, loc.line).strip().expandtabs(1)
    except ValueError:  # no file can have that name
        return ""


def value_text(value: Any) -> str:
    """An attribute as text: Python literals, short dtype names, constants.

    Raises:
        IRError: the value is of a kind that the text form does not know.
    """
    if isinstance(value, ConstValue):
        return _array_text(value.array)
    if isinstance(value, Body):
        rows = print_graph(value.graph, locations=False).splitlines()
        return "\n".join(["{", *(f"  {row}" for row in rows), "}"])
    if isinstance(value, Rule):
        return repr(value.name)
    if isinstance(value, np.dtype):
        return short(value)
    if isinstance(value, tuple):
        inner = ", ".join(value_text(item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if value is None or isinstance(value, bool | np.bool_):
        return str(value)
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float):
        if math.isnan(value) and np.float64(value).tobytes() != np.float64("nan").tobytes():
            raise IRError("an attribute may be the plain NaN only")
        return repr(float(value))
    if isinstance(value, str):
        return repr(value)
    raise IRError(f"no text form for an attribute of type {type(value).__name__}: {value!r}")


def _array_text(array: np.ndarray) -> str:
    if array.size <= LIST_LIMIT:
        texts = [_scalar_text(item) for item in array.reshape(-1)]
        if None not in texts:
            return _nested(iter(texts), array.shape)
    return f"base64:{base64.b64encode(array.tobytes()).decode('ascii')}"


def _nested(texts: Any, shape: tuple[int, ...]) -> str:
    if not shape:
        return str(next(texts))
    return f"[{', '.join(_nested(texts, shape[1:]) for _ in range(shape[0]))}]"


def _scalar_text(item: Any) -> str | None:
    """The shortest text that gives exactly these bits back, or None (NaN with other bits than NumPy's)."""
    if item.dtype.kind in "bui":
        return str(item.item())
    for text in (str(item), repr(item.item())):
        if item.dtype.type(float(text)).tobytes() == item.tobytes():
            return text
    return None


def _commented(line: str, text: str) -> str:
    return f"{line.ljust(COMMENT_COLUMN - 2)}  # {text}" if text else line
