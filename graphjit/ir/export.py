"""Graphs for other tools: Graphviz text and JSON (``graphjit inspect --dot``, ``--json``).

Input: a graph. Output: text with the same facts as the printed IR.
Invariant: node numbers are those of `graphjit.ir.printer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from graphjit.ir.names import one_line
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.opdef import Decompose, Lowering, Reduce, Scalar, Scan, Special, View
from graphjit.ir.printer import comment, number_nodes, value_text
from graphjit.ir.types import Type, short

COLOURS: tuple[tuple[type, str], ...] = (
    (Scalar, "#dbe9f6"),
    (View, "#eeeeee"),
    (Reduce, "#fde0c5"),
    (Scan, "#fbd0a8"),
    (Decompose, "#e2d5ef"),
    (Special, "#d5ecd4"),
)
"""Fill of a node by its lowering kind."""

LABEL_LIMIT = 40
"""Characters of an attribute shown in a Graphviz label."""


def to_dot(graph: Graph) -> str:
    """Graphviz text of ``graph``; nodes that one line of user code made share a tooltip."""
    numbers = number_nodes(graph)
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        '  node [shape=box, style="rounded,filled", fontname="monospace", fontsize=10];',
    ]
    for node, number in numbers.items():
        attributes = [f"label={_quoted(_label(node))}", f'fillcolor="{_colour(node.op.lower)}"']
        where = comment(node)
        if where:
            attributes.append(f"tooltip={_quoted(where)}")
        lines.append(f"  n{number} [{', '.join(attributes)}];")
        lines.extend(f"  n{numbers[arg]} -> n{number};" for arg in node.args)
    for i, node in enumerate(graph.outputs):
        lines.append(f'  out{i} [label="output {i}", shape=plaintext, style=""];')
        lines.append(f"  n{numbers[node]} -> out{i};")
    return "\n".join([*lines, "}"]) + "\n"


def to_json(graph: Graph) -> str:
    """JSON of ``graph``: ``{"name", "inputs": [number], "nodes": [...], "outputs": [number]}``.

    A node is ``{"number", "op", "args", "attrs", "dtype", "shape", "file", "line", "origin"}``; attribute
    values are in the printer's text form, which keeps infinities, NaN and signed zeros. A graph inside a node
    is such an object. A node with several results has lists of dtypes and shapes.
    """
    return json.dumps(_as_object(graph), indent=1) + "\n"


def _as_object(graph: Graph) -> dict[str, Any]:
    numbers = number_nodes(graph)
    nodes = [
        {
            "number": number,
            "op": node.op.name,
            "args": _numbers(numbers, node.args),
            "attrs": {name: _attribute(value) for name, value in node.attrs.items()},
            "dtype": [_dtype(part) for part in node.parts] if node.is_bundle else _dtype(node.type),
            "shape": [list(part.shape) for part in node.parts] if node.is_bundle else list(node.shape),
            "file": node.loc.file if node.loc is not None else None,
            "line": node.loc.line if node.loc is not None else None,
            "origin": node.origin,
        }
        for node, number in numbers.items()
    ]
    return {
        "name": graph.name,
        "inputs": _numbers(numbers, graph.inputs),
        "nodes": nodes,
        "outputs": _numbers(numbers, graph.outputs),
    }


def _dtype(type: Type) -> str:
    return type.dtype.name if type.record is None else short(type.dtype)


def _attribute(value: Any) -> Any:
    if isinstance(value, tuple) and any(isinstance(part, Body) for part in value):
        return [_attribute(part) for part in value]
    return _as_object(value.graph) if isinstance(value, Body) else value_text(value)


def _numbers(numbers: dict[Node, int], nodes: Iterable[Node]) -> list[int]:
    return [numbers[node] for node in nodes]


def _label(node: Node) -> str:
    lines = [node.op.name]
    for name, value in node.attrs.items():
        text = f"graph {value.graph.name}" if isinstance(value, Body) else value_text(value)
        lines.append(f"{name}={text if len(text) <= LABEL_LIMIT else text[:LABEL_LIMIT] + '...'}")
    return "\n".join([*lines, str(node.type)])


def _colour(lower: Lowering) -> str:
    return next((colour for kind, colour in COLOURS if isinstance(lower, kind)), "#ffffff")


def _quoted(text: str) -> str:
    lines = [one_line(line).replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n")]
    return '"' + "\\n".join(lines) + '"'
