"""Evaluate a graph with NumPy, node by node: the oracle that every test compares with.

Input: a graph and one array per input. Output: one ndarray per output.
Invariant: every node is computed by its op's reference implementation alone, and its value has the inferred
type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.names import name_text
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import Type


def interpret(graph: Graph, *inputs: Any) -> list[np.ndarray]:
    """Values of the outputs for ``inputs`` (arrays of the declared dtypes and shapes).

    Raises:
        IRError: an argument or an intermediate value does not have its declared type.
    """
    if len(inputs) != len(graph.inputs):
        raise IRError(f"graph {name_text(graph.name)} takes {len(graph.inputs)} inputs, not {len(inputs)}")
    values: dict[Node, np.ndarray] = {}
    for node, given in zip(graph.inputs, inputs, strict=True):
        values[node] = _checked(node, np.asarray(given))
    with np.errstate(all="ignore"):
        for node in graph.nodes():
            if node not in values:
                values[node] = evaluate(node, [values[arg] for arg in node.args])
    return [values[node] for node in graph.outputs]


def evaluate(node: Node, args: Sequence[Any]) -> np.ndarray:
    """The value of one node for values of its arguments; of a node with several results a tuple."""
    found = node.op.impl(*args, **node.attrs)
    if not node.is_bundle:
        return _checked(node, np.asarray(found))
    for value, type in zip(found, node.parts, strict=True):
        _check(node, value, type)
    return found  # type: ignore[no-any-return]


def _checked(node: Node, value: np.ndarray) -> np.ndarray:
    _check(node, value, node.type)
    return value


def _check(node: Node, value: np.ndarray, type: Type) -> None:
    if value.dtype != type.dtype or value.shape != type.shape:
        raise IRError(f"{node!r}: its value has dtype {value.dtype} and shape {value.shape}")
