"""Check that a graph is well formed; the runner does so after every pass when asked to.

Input: a graph. Output: nothing; what is wrong raises `IRError` with the node and the user's line.
Invariant: a graph that passes can be interpreted, differentiated, printed, parsed and lowered.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import GraphjitError, IRError
from graphjit.ir.node import ConstValue, Graph, Node, bodies
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.types import DTYPES, Type

_NATIVE = frozenset(DTYPES.values())


def verify(graph: Graph) -> None:
    """Check ``graph``.

    Raises:
        IRError: what is wrong, with the node and the user's line.
    """
    inputs = set(graph.inputs)
    if len(inputs) != len(graph.inputs):
        twice = next(node for i, node in enumerate(graph.inputs) if node in graph.inputs[:i])
        raise fault(twice, "is an input twice")
    for node in (*graph.inputs, *graph.outputs):
        if not isinstance(node, Node):
            raise IRError(f"graph {graph.name}: {node!r} is no node")
    for node in graph.inputs:
        if node.op is not REGISTRY["input"]:
            raise fault(node, "stands among the inputs but is no input")
    for node in graph.nodes():
        verify_node(node)
        if node.op.name == "input" and node not in inputs:
            raise fault(node, f"is an input of another graph, reached from the outputs of {graph.name}")


def verify_node(node: Node) -> None:
    """Check one node by itself (its arguments are taken as they are).

    Raises:
        IRError: what is wrong with it.
    """
    op, args, attrs = node.op, node.args, node.attrs
    if REGISTRY.get(op.name) is not op:
        raise fault(node, "has an op that is not declared")
    if op.arity is not None and len(args) != op.arity:
        raise fault(node, f"has {len(args)} arguments, not {op.arity}")
    for arg in args:
        if arg.serial >= node.serial:
            raise fault(node, f"was made before its argument {arg!r}")
    if tuple(attrs) != op.attrs:
        raise fault(node, f"has attributes {tuple(attrs)}, not {op.attrs}")
    _verify_type(node)
    if op.name == "const":
        _verify_const(node)
        return
    try:
        hash(tuple(attrs.values()))
    except TypeError:
        raise fault(node, f"has an attribute that cannot be hashed: {attrs}") from None
    for body in bodies(node):
        verify(body.graph)
    if op.name == "input":
        if not isinstance(attrs["name"], str):
            raise fault(node, f"has a name that is no string: {attrs['name']!r}")
        return
    try:
        inferred = op.infer(*[arg.type for arg in args], **attrs)
    except GraphjitError as error:
        raise fault(node, f"is refused by its type rule: {error}") from None
    if inferred != node.type:
        raise fault(node, f"should have type {inferred}")


def fault(node: Any, what: str) -> IRError:
    """The error for one node, with the user's line and what made it."""
    where = f" at {node.loc}" if node.loc is not None else ""
    made = f" ({node.origin})" if node.origin else ""
    known = all(_is_known(type) for type in node.parts)
    shown = repr(node) if known else f"<{node.op.name} #{node.serial} : {tuple(node.type)}>"
    return IRError(f"{shown}{where}{made} {what}")


def _verify_type(node: Node) -> None:
    for type in node.parts:
        _verify_part(node, type)


def _verify_part(node: Node, type: Type) -> None:
    if not _is_known(type):
        raise fault(node, "has a dtype that the IR does not know")
    if not type.dtype.isnative:
        raise fault(node, "has foreign byte order")
    if not isinstance(type.shape, tuple) or any(
        not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in type.shape
    ):
        raise fault(node, f"has an ill-formed shape: {type.shape!r}")


def _is_known(type: Any) -> bool:
    """Whether values of this type may occur: of a known dtype, or tapes of such values."""
    if not isinstance(type, Type) or not isinstance(type.dtype, np.dtype):
        return False
    try:
        return type.dtype in _NATIVE or (type.dtype.names is not None and type.record is not None)
    except IRError:  # another structure
        return False


def _verify_const(node: Node) -> None:
    value = node.attrs["value"]
    if not isinstance(value, ConstValue):
        raise fault(node, "has a value that is no ConstValue")
    array = value.array
    if array.dtype != node.dtype or array.shape != node.shape:
        raise fault(node, f"has a value of dtype {array.dtype} and shape {array.shape}")
    if array.flags.writeable or not array.flags.c_contiguous:
        raise fault(node, "has a value that is writeable or not contiguous")
