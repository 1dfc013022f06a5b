"""What one step of a loop hands to the next, and how it has to agree with what the step returns.

Job: the dtype of each carried leaf. Python numbers are weak: ``0`` beside a body that computes floats becomes
a float. All else that changes from step to step is an error that names both types, the leaf and the line.
Input: values as users write them, traced or not. Output: `Carry`; errors.
Invariant: what is decided here of traced values is decided of NumPy's values alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.node import Node
from graphjit.ir.types import Type
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import TreeSpec, texts
from graphjit.trace.recording.answers import complex_needed
from graphjit.trace.recording.tracer import (
    Array,
    Number,
    Scalar,
    Trace,
    Tracer,
    check_dtype,
    is_python_number,
    kind_of,
)
from graphjit.trace.transformed.bodies import Leaves, is_number
from graphjit.trace.transformed.control_bodies import nodes_of, returned_at

ZEROS: dict[str, Any] = {"b": False, "i": 0, "f": 0.0}
"""Python's numbers by the kind of their dtype."""


Name = str | tuple[str, ...]
"""What a tree is called in messages, or each item of a tuple."""


class Kind(NamedTuple):
    """What promotion knows of a value."""

    type: Type
    weak: bool
    """Whether it is a Python number."""

    def __str__(self) -> str:
        return f"a Python {type(ZEROS[self.type.dtype.kind]).__name__}" if self.weak else str(self.type)


def kind_of_leaf(leaf: Any) -> Kind:
    """The kind of a traced value, an array or a number.

    Raises:
        UnsupportedError: a dtype that is not compiled.
    """
    if isinstance(leaf, Tracer):
        return Kind(leaf._node.type, isinstance(leaf, Number))
    array = np.asarray(leaf)
    check_dtype(array.dtype)
    return Kind(Type(array.dtype, array.shape), is_python_number(leaf))


def joined(one: Kind, other: Kind, grows: bool = False) -> Kind | None:
    """The kind of a value that is either of two, by NumPy's promotion of Python numbers.

    None: there is none, since what is no Python number keeps its dtype. With ``grows`` the first one becomes
    what the other makes of it if it is a Python number.
    """
    if one.type.shape != other.type.shape or (one.type != other.type and not (one.weak or other.weak)):
        return None
    dtype = np.result_type(*(ZEROS[x.type.dtype.kind] if x.weak else x.type.dtype for x in (one, other)))
    found = Kind(one.type.with_dtype(dtype), one.weak and other.weak)
    if found.weak or (grows and one.weak):
        return found
    return found if all(x.weak or x.type == found.type for x in (one, other)) else None


def structure(spec: TreeSpec) -> str:
    """A structure for people: ``(*, {'w': *})``."""
    return re.sub(
        r"^PyTreeSpec\((.*?)(, NoneIsLeaf)?(, namespace='\w*')?\)$", r"\1", str(spec), flags=re.DOTALL
    )


def refuse_structure(
    what: str, name: Name, before: TreeSpec, after: TreeSpec, rule: str, between: str = "into"
) -> None:
    """Compare two structures of the tree ``name``. ``what`` begins the message, ``rule`` ends it.

    Raises:
        ShapeError: they differ.
    """
    if isinstance(name, tuple):
        for part, a, b in zip(name, before.children(), after.children(), strict=True):
            refuse_structure(what, part, a, b, rule, between)
    elif before != after:
        old, new = texts(before, name), texts(after, name)
        parts = [f"only the first has {path}" for path in old if path not in new][:1]
        parts += [f"only the second has {path}" for path in new if path not in old][:1]
        shown = f" ({', '.join(parts)})" if parts else ""
        raise ShapeError(f"{what} {name} = {structure(before)} {between} {structure(after)}{shown}: {rule}")


def paths_of(spec: TreeSpec, name: Name) -> list[str]:
    """The leaves of a tree for people; a tuple may have a name for each of its items."""
    if isinstance(name, str):
        return texts(spec, name)
    return [text for part, child in zip(name, spec.children(), strict=True) for text in texts(child, part)]


def agreement(
    what: str, name: Name, function: Callable[..., Any], given: Leaves, before: Sequence[Kind], made: Leaves
) -> list[Kind]:
    """The kinds of the leaves of ``given``, the tree ``name``, after a step that returned ``made``.

    Raises:
        ShapeError: structure, shape or dtype changed, or a leaf that is no number.
    """
    if given.spec == made.spec:
        kinds, found = iter(before), []
        for i, (old, new) in enumerate(zip(given.leaves, made.leaves, strict=True)):
            if i in given.numbers and i in made.numbers:
                agreed = joined(next(kinds), kind_of_leaf(new), grows=True)
                if agreed is None:
                    break
                found.append(agreed)
            elif i in given.numbers or i in made.numbers or (old is not new and old != new):
                break
        else:
            return found
    step = f"{what}: {name_of(function)} turns"
    rule = f"what a step hands to the next keeps its structure, shape and dtype (returned at {returned_at(function)})"
    refuse_structure(step, name, given.spec, made.spec, rule)
    path = paths_of(given.spec, name)[i]
    was = before[given.numbers.index(i)] if i in given.numbers else shown(old)
    raise ShapeError(f"{step} {path} from {was} into {shown(new)}: {rule}")


def shown(leaf: Any) -> str:
    """A leaf for people: the type of a number, else the object."""
    return str(kind_of_leaf(leaf)) if is_number(leaf) or isinstance(leaf, bool) else repr(leaf)


class Carry:
    """The values that steps hand on, with the nodes that they begin with."""

    def __init__(self, trace: Trace, tree: Any, what: str, name: Name) -> None:
        """``what`` is the function of control flow, ``name`` what the tree is called."""
        self.trace = trace
        self.what = what
        self.name = name
        self.leaves = leaves_of(tree)
        self.nodes = self.leaves.nodes(trace)
        self.classes = [kind_of(self.leaves.leaves[i]) for i in self.leaves.numbers]

    @property
    def types(self) -> list[Type]:
        """The types of the nodes."""
        return [node.type for node in self.nodes]

    def kinds(self) -> list[Kind]:
        """What promotion knows of them."""
        return [
            Kind(node.type, issubclass(kind, Number))
            for node, kind in zip(self.nodes, self.classes, strict=True)
        ]

    def tree(self, nodes: Sequence[Node]) -> Any:
        """Traced values of the same kinds."""
        made = [kind(self.trace, node) for kind, node in zip(self.classes, nodes, strict=True)]
        return self.leaves.filled(made)

    def after(self, function: Callable[..., Any], result: Any) -> list[Node] | None:
        """What a step returned, in the dtypes of the carry. None: Python numbers among the first values had
        to become what the step made of them, and it has to be recorded again.
        """
        made = leaves_of(result)
        nodes = nodes_of(self.trace, made, name_of(function))
        before = self.kinds()
        agreed = agreement(self.what, self.name, function, self.leaves, before, made)
        for i, number in enumerate(made.numbers):
            if not agreed[i].weak:  # as what it will be after the first step
                returned = kind_of(made.leaves[number])
                self.classes[i] = (
                    (Array if before[i].type.shape else Scalar) if returned is Number else returned
                )
            self.nodes[i] = converted(self.trace, self.nodes[i], agreed[i].type.dtype)
        if agreed != before:
            return None
        return [
            converted(self.trace, node, kind.type.dtype) for node, kind in zip(nodes, agreed, strict=True)
        ]


def leaves_of(tree: Any) -> Leaves:
    """A tree of arrays and numbers, Python's bools among them."""
    leaves = Leaves.of(tree, bools=True)
    for leaf in leaves.leaves:
        if isinstance(leaf, complex):
            raise complex_needed(leaf)
    return leaves


def converted(trace: Trace, node: Node, dtype: np.dtype) -> Node:
    """A Python number as what it is beside ``dtype``; all others have it already."""
    return trace.narrow(node, dtype)
