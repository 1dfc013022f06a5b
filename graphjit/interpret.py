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
    """The value of one node for values of its arguments."""
    return _checked(node, np.asarray(node.op.impl(*args, **node.attrs)))


def _checked(node: Node, value: np.ndarray) -> np.ndarray:
    if value.dtype != node.dtype or value.shape != node.shape:
        raise IRError(f"{node!r}: its value has dtype {value.dtype} and shape {value.shape}")
    return value
