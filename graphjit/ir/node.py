"""What a graph is: nodes, their arguments and attributes, inputs and outputs.

A node is one operation with one result. (A result may have several parts: its type is a `Bundle` then, and
``item`` nodes take the parts.) A `Graph` is its inputs, its outputs, and all nodes that the outputs need. A
graph inside a node is an attribute, `Body`.

Invariants: a node never changes after it was made, and equals only itself; its arguments were made before
it, so ordering by ``serial`` is a topological order; ``loc`` and ``origin`` are for people and never part of
a key.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from graphjit.ir.names import one_line
from graphjit.ir.opdef import OpDef
from graphjit.ir.types import Bundle, Type

_serial = itertools.count()

# Kept by name: while a function is traced, another object stands in NumPy's module, which looks at who calls.
_array = np.array


class Location(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{one_line(self.file)}:{self.line}"


class ConstValue:
    """The value of a constant, compared by dtype, shape and bytes (0.0 and -0.0 differ, NaN equals
    itself).
    """

    __slots__ = ("_key", "array")

    def __init__(self, value: np.ndarray) -> None:
        array = _array(value, order="C", copy=True)
        array.flags.writeable = False
        self.array = array
        self._key = (array.dtype.str, array.shape, array.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstValue) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class Body:
    """A graph as an attribute of a node: what ``custom`` computes. Compared by what it computes, and by how
    the nodes in it are differentiated.

    It is closed: all that it reads comes in through its inputs, which are the node's arguments.
    """

    __slots__ = ("_key", "graph", "structure")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.structure = graph.key()
        """What it computes."""
        rules = tuple(node.attrs["rule"] for node in with_bodies(graph) if "rule" in node.attrs)
        self._key = (self.structure, rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class Node:
    """One operation and its one result."""

    __slots__ = ("__weakref__", "args", "attrs", "loc", "op", "origin", "serial", "type")

    def __init__(
        self,
        op: OpDef,
        args: tuple[Node, ...],
        attrs: dict[str, Hashable],
        type: Type,
        loc: Location | None = None,
        origin: str = "",
    ) -> None:
        self.op = op
        self.args = args
        self.attrs = attrs
        self.type = type
        """A `Bundle` of a node with several results; who reads those asks `parts`."""
        self.loc = loc
        self.origin = origin
        self.serial = next(_serial)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self.type.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the result."""
        return self.type.dtype

    @property
    def parts(self) -> tuple[Type, ...]:
        """Types of the results: one, or those of a `Bundle`."""
        kind: Any = self.type
        return kind.types if isinstance(kind, Bundle) else (self.type,)

    @property
    def is_bundle(self) -> bool:
        """Whether it has several results."""
        return isinstance(self.type, Bundle)

    @property
    def is_const(self) -> bool:
        """Whether the value is known."""
        return self.op.name == "const"

    def __repr__(self) -> str:
        return f"<{self.op.name} #{self.serial} : {self.type}>"


class Graph:
    """A function: inputs in order, outputs in order, and every node they reach."""

    __slots__ = ("inputs", "name", "outputs")

    def __init__(self, name: str, inputs: Iterable[Node], outputs: Iterable[Node]) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)

    def nodes(self) -> list[Node]:
        """Inputs and every node that an output needs, in topological order."""
        seen = set(self.inputs)
        return sorted(itertools.chain(seen, reachable(self.outputs, seen)), key=lambda node: node.serial)

    def __len__(self) -> int:
        return len(self.nodes())

    def key(self) -> tuple[Hashable, ...]:
        """A hashable value that two graphs share exactly when they compute the same thing in the same
        order. How a node is differentiated (`Rule`) is no part of it.
        """
        number = {node: i for i, node in enumerate(self.inputs)}
        rows: list[Hashable] = [node.type for node in self.inputs]
        for node in self.nodes():
            if node not in number:
                number[node] = len(number)
                attrs = tuple([_structure(value) for name, value in node.attrs.items() if name != "rule"])
                rows.append((node.op.name, tuple(number[a] for a in node.args), attrs, node.type))
        rows.append(tuple(number[node] for node in self.outputs))
        return tuple(rows)


def _structure(value: Any) -> Hashable:
    """An attribute as it stands in a key: of bodies what they compute."""
    if isinstance(value, tuple) and value and isinstance(value[0], Body):
        return tuple(body.structure for body in value)
    return value.structure if isinstance(value, Body) else value  # type: ignore[no-any-return]


def with_bodies(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.nodes():
        yield node
        for body in bodies(node):
            yield from with_bodies(body.graph)


def bodies(node: Node) -> list[Body]:
    """The graphs inside a node."""
    found: list[Body] = []
    for value in node.attrs.values():
        found += [
            part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, Body)
        ]
    return found


def reachable(roots: Iterable[Node], stop: Iterable[Node] = ()) -> Iterator[Node]:
    """Every node that ``roots`` depend on (themselves included), without entering ``stop``; in no order."""
    seen = set(stop)
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.args)
            yield node


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """For every argument of ``nodes``: the nodes that read it (once per read)."""
    found: dict[Node, list[Node]] = {}
    for node in nodes:
        for arg in node.args:
            found.setdefault(arg, []).append(node)
    return found


def in_order(nodes: Iterable[Node], after: dict[Node, list[Node]]) -> list[Node] | None:
    """Nodes in an order in which each follows its arguments, and those ``after`` which it comes. None: there
    is none.
    """
    found: dict[Node, None] = {}
    open_: set[Node] = set()
    for root in nodes:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in found:
                stack.pop()
                open_.discard(node)
                continue
            waits = [each for each in (*node.args, *after.get(node, ())) if each not in found]
            if not waits:
                found[node] = None
                continue
            if any(each in open_ for each in waits):
                return None
            open_.add(node)
            stack += waits
    return list(found)
