"""How nodes are made: infer the type, try the op's own exact rules, find an equal node or make a new one.

Example: ``b.mul(x, 1.0)`` is ``x``, and a second ``b.mul(x, y)`` is the node that the first one made. So
common subexpressions are never computed twice, and no pass looks for them.

Input: an op (or its name), arguments, attributes. Output: a `Node`.
Invariant: within one builder equal (op, args, attrs) give the same node; what it remembers dies with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphjit.effects import Effects
from graphjit.errors import GraphjitError, IRError
from graphjit.ir.node import ConstValue, Graph, Location, Node
from graphjit.ir.opdef import REGISTRY, OpDef
from graphjit.ir.types import Bundle, Type, own

# Kept by name: while a function is traced, another object stands in NumPy's module, which looks at who calls.
_asarray = np.asarray

FOLDED = 256
"""Elements up to which `Builder.folding` computes a constant."""


class Builder:
    """Makes nodes. ``b.mul(x, y)`` is ``b.emit("mul", x, y)``; a Python number beside a node takes the node's
    type.
    """

    def __init__(self) -> None:
        self._interned: dict[Hashable, Node] = {}
        self.loc: Location | None = None
        self.origin = ""
        self.folds = False
        """Whether `folding` is on."""
        self.asked = ""
        """The derivative rule of the user's that is running, as nodes name it in ``origin``."""
        self.told = Effects()
        """What the program tells the outside."""

    def count(self) -> int:
        """How many different nodes it has made, inputs apart."""
        return len(self._interned)

    def input(self, type: Type, name: str) -> Node:
        """A new input; never interned."""
        return Node(REGISTRY["input"], (), {"name": name}, type, self.loc, self.origin)

    def const(self, value: Any, dtype: np.dtype) -> Node:
        """A constant array or scalar of ``dtype``."""
        array = _asarray(value, dtype=own(dtype))
        return self._intern(
            REGISTRY["const"], (), {"value": ConstValue(array)}, Type(array.dtype, array.shape)
        )

    def full(self, value: float | bool | int, type: Type) -> Node:
        """``value`` in every element of ``type``."""
        scalar = self.const(value, type.dtype)
        return self.emit("broadcast_to", scalar, shape=type.shape) if type.shape else scalar

    def emit(self, op: OpDef | str, *args: Node | float, **attrs: Hashable) -> Node:
        """Make (or find) the node ``op(*args, **attrs)``."""
        if isinstance(op, str):
            op = REGISTRY[op]
        nodes = self._lift(op, args)
        for rule in op.simplify:
            found: Node | None = rule(self, *nodes, **attrs)
            if found is not None:
                return found
        if tuple(attrs) != op.attrs:
            attrs = self._ordered(op, attrs)
        key = (op, nodes, tuple(attrs.values()))
        node = self._interned.get(key)
        if node is None and self.folds and (folded := self._folded(op, nodes, attrs)) is not None:
            node = self._interned[key] = folded
        if node is None:
            try:
                type = op.infer(*[node.type for node in nodes], **attrs)
            except GraphjitError as error:
                if self.loc is not None and str(self.loc) not in str(error):
                    raise located(error, op, self.loc) from None
                raise
            node = self._interned[key] = Node(op, nodes, attrs, type, self.loc, self.origin)
        return node

    @contextmanager
    def folding(self) -> Iterator[None]:
        """Compute what is made of constants alone, while seeds of a derivative are followed: so it is seen
        where they are zero. (Elsewhere the pass `fold` does it, once and at the end.)
        """
        before, self.folds = self.folds, True
        try:
            yield
        finally:
            self.folds = before

    @contextmanager
    def apart(self) -> Iterator[list[Node]]:
        """Forget afterwards what is recorded inside: later requests for equal nodes make new ones.

        So a node that was made in the branch of a condition is never taken for one that is there in any case.
        Yields the list of these nodes, which is filled at the end.
        """
        known, made = len(self._interned), list[Node]()
        try:
            yield made
        finally:
            while len(self._interned) > known:
                made.append(self._interned.popitem()[1])

    def _folded(self, op: OpDef, nodes: tuple[Node, ...], attrs: Mapping[str, Hashable]) -> Node | None:
        """The value of an op on constants: one number repeated, where all elements are the same. None if it
        is large, or no ordinary value.
        """
        if not nodes or any(not arg.is_const or arg.type.size > FOLDED for arg in nodes):
            return None
        type: Any = op.infer(*[arg.type for arg in nodes], **attrs)
        if (
            isinstance(type, Bundle)
            or type.size > FOLDED
            or (op.name == "broadcast_to" and nodes[0].type.size == 1)
        ):
            return None
        try:
            with np.errstate(all="raise", under="ignore"):
                values = [arg.attrs["value"].array for arg in nodes]  # type: ignore[attr-defined]
                value = np.asarray(op.impl(*values, **attrs))
        except (ArithmeticError, LookupError, ValueError):
            return None
        first = value.reshape(-1)[:1]
        if value.size > 1 and value.tobytes() == first.tobytes() * value.size:
            return self.full(first[0], type)
        return self.const(value, type.dtype)

    def existing(self, op: str, *args: Node) -> Node | None:
        """The node ``op(*args)`` without attributes, where it was made already."""
        return self._interned.get((REGISTRY[op], args, ()))

    def _lift(self, op: OpDef, args: tuple[Node | float, ...]) -> tuple[Node, ...]:
        for arg in args:
            if type(arg) is not Node:
                break
        else:  # the usual case, for which no generator is made
            return args  # type: ignore[return-value]
        like = next((arg.type for arg in reversed(args) if isinstance(arg, Node)), None)
        if like is None:
            raise IRError(f"{op.name} needs at least one node among its arguments")
        return tuple(arg if isinstance(arg, Node) else self.full(arg, like) for arg in args)

    def _ordered(self, op: OpDef, attrs: Mapping[str, Hashable]) -> dict[str, Hashable]:
        if set(attrs) != set(op.attrs):
            raise IRError(f"op {op.name} takes attributes {op.attrs}, not {tuple(attrs)}")
        return {name: attrs[name] for name in op.attrs}

    def _intern(self, op: OpDef, args: tuple[Node, ...], attrs: dict[str, Hashable], type: Type) -> Node:
        key = (op, args, tuple(attrs.values()))
        node = self._interned.get(key)
        if node is None:
            node = self._interned[key] = Node(op, args, attrs, type, self.loc, self.origin)
        return node

    def adopt(self, node: Node) -> None:
        """Let later equal requests find a node that another builder made."""
        if node.op.name != "input":
            self._interned.setdefault((node.op, node.args, tuple(node.attrs.values())), node)

    def like(self, node: Node, origin: str | None = None) -> Builder:
        """Attribute what is built next to ``node``'s line (and to ``origin``)."""
        self.loc = node.loc
        self.origin = node.origin if origin is None else origin
        return self

    def copy(self, node: Node, args: tuple[Node, ...]) -> Node:
        """``node`` rebuilt on other arguments, rules applied."""
        if node.op.name == "input":
            return node
        self.like(node)
        if node.op.name == "const":
            return self._intern(node.op, (), node.attrs, node.type)
        return self.emit(node.op, *args, **node.attrs)

    def inline(self, graph: Graph, args: tuple[Node, ...]) -> tuple[Node, ...]:
        """Copy a graph's body with ``args`` for its inputs; returns its outputs."""
        replaced = dict(zip(graph.inputs, args, strict=True))
        for node in graph.nodes():
            if node not in replaced:
                replaced[node] = self.copy(node, tuple(replaced[arg] for arg in node.args))
        return tuple(replaced[node] for node in graph.outputs)

    def __getattr__(self, name: str) -> Callable[..., Node]:
        op = REGISTRY.get(name)
        if op is None:
            raise AttributeError(f"Builder has no attribute and graphjit no op {name!r}")

        def emit(*args: Node | float, **attrs: Hashable) -> Node:
            return self.emit(op, *args, **attrs)

        self.__dict__[name] = emit
        return emit


def located(error: GraphjitError, op: OpDef, loc: Location) -> GraphjitError:
    """The same error with the operation and the user's line."""
    return type(error)(f"{error} (in {op.name} at {loc})")
