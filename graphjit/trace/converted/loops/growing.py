"""Lists to which every step of a loop appends, where the loop is recorded once (`whole.py`).

Job: let one recorded step stand for all: what it appends becomes stacked results of the loop, which are cut
into the items again afterwards.
Input: the list, and what a recorded body made of it. Output: the values to stack; the items of all steps.
Invariants: how long the list is while a step runs differs from step to step, so a body must not see it. While
one is recorded, the list holds items that cannot be read, but for the last one, which is a variable of the
loop. The body is recorded with lists of several lengths and has to be the same each time.

Example: in ``for t in range(n): hs.append(np.tanh(w @ hs[-1] + x[t]))`` the node has a variable, the last
item of ``hs``, and a stacked result, from which the ``n`` items are cut.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphjit.ir.node import Body, Graph, Node
from graphjit.trace.converted.containers import Contents, changed
from graphjit.trace.converted.journals import owners
from graphjit.trace.converted.loops.whole import NotWhole
from graphjit.trace.converted.values import same, trace_node
from graphjit.trace.pytree import flatten, unflatten
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.recorder import Within
from graphjit.trace.recording.tracer import Array, Outside, Trace, Tracer, kind_of


class Unread:
    """An item of a list that grows: which one it is depends on the step, so it cannot be read."""

    __slots__ = ("_grown",)

    def __init__(self, grown: Growing) -> None:
        object.__setattr__(self, "_grown", grown)

    def _read(self, *args: Any) -> Any:
        grown: Growing = object.__getattribute__(self, "_grown")
        grown.last_is_read |= bool(grown.shown) and grown.shown[-1] is self
        raise NotWhole(f"items of a list that grows are read at {user_location()}")

    __class__ = property(_read)  # type: ignore[assignment]
    __getattr__ = __setattr__ = __bool__ = __eq__ = __ne__ = __hash__ = __repr__ = __str__ = _read  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = __iter__ = __len__ = __getitem__ = __call__ = __index__ = (
        __float__
    ) = _read
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _read
    __matmul__ = __rmatmul__ = __pow__ = __rpow__ = __neg__ = __abs__ = __array__ = __array_ufunc__ = _read
    __array_function__ = __contains__ = __int__ = __complex__ = _read


@dataclass
class Growing:
    """One such list."""

    thing: list[Any]
    before: list[Any]
    """Its items before the loop."""
    last_is_read: bool = False
    """Whether a step reads the item that the step before appended."""
    shown: list[Any] = field(default_factory=list)
    """Its items as the body that is being recorded finds them; none: it holds its own."""

    @classmethod
    def of(cls, contents: Contents) -> Growing | None:
        """A list to which a body only appended; None: something else."""
        thing, before = contents.thing, contents.before
        grew = type(thing) is list and len(thing) > len(before) and all(map(operator.is_, thing, before))
        return cls(thing, before) if grew else None

    def show(self, more: int) -> None:
        """Let the list seem to have ``more`` items than before the loop, none of which can be read."""
        changed(self.thing)
        count = len(self.before) + more
        self.shown = [Unread(self)] * (count - 1) + [Unread(self)] * (count > 0)
        self.thing[:] = self.shown

    def added(self) -> list[Any]:
        """What the body appended.

        Raises:
            NotWhole: it did something else to the list.
        """
        count = len(self.shown)
        if len(self.thing) <= count or not all(map(operator.is_, self.thing, self.shown)):
            raise NotWhole("a list gets or loses items in another way than at its end, once in each step")
        return self.thing[count:]


@dataclass
class LastItem:
    """The last item of a list that grows, as a variable of the loop."""

    grown: Growing

    @property
    def thing(self) -> list[Any]:
        """The list."""
        return self.grown.thing

    key = -1
    name = "the last item of a list"

    def get(self) -> Any:
        """What it is now."""
        return self.thing[-1]

    def set(self, value: Any) -> None:
        """Let a body find this value. The list itself gets its items after the loop (`Items`)."""
        if self.grown.shown:
            self.grown.shown[-1] = value
            self.thing[-1] = value


@dataclass
class _Leaf:
    """One array or number that each step appends."""

    value: Any
    """That of the recorded step."""
    node: Node
    """Its elements at the end of the step: what is written into it meanwhile is undone after recording."""
    begin: int | None = None
    """The variable that it is at the beginning of the step: the first item is what it was before the loop."""
    end: int | None = None
    """The variable that it is at the end: after the loop that is the last item."""


@dataclass
class Items:
    """What a recorded step appends, to all lists."""

    lists: list[tuple[Growing, list[tuple[Any, list[Any]]]]] = field(default_factory=list)
    """For each list the structures of the values, with a place in ``leaves`` or a constant for each leaf."""
    leaves: list[_Leaf] = field(default_factory=list)

    def add(
        self, grown: Growing, start: dict[int, Any], end: dict[int, Any], around: Sequence[Within | None]
    ) -> None:
        """Take what the body appended to a list. ``start`` and ``end`` are the variables that change, as the
        step found and left them; ``around`` the bodies around.
        """
        found = []
        for value in grown.added():
            _refuse_containers(value)
            leaves, spec = flatten(value)
            found.append((spec, [self._leaf(leaf, start, end, around) for leaf in leaves]))
        self.lists.append((grown, found))

    def _leaf(
        self, leaf: Any, start: dict[int, Any], end: dict[int, Any], around: Sequence[Within | None]
    ) -> Any:
        if not isinstance(leaf, Tracer):
            return leaf
        for k, each in enumerate(self.leaves):
            if each.value is leaf:
                return _Place(k)
        made = _Leaf(leaf, trace_node(leaf), _held_by(leaf, start), _held_by(leaf, end))
        if isinstance(leaf, Array):
            self._refuse_aliases(made, start, end, around)
        self.leaves.append(made)
        return _Place(len(self.leaves) - 1)

    def _refuse_aliases(
        self, leaf: _Leaf, start: dict[int, Any], end: dict[int, Any], around: Sequence[Within | None]
    ) -> None:
        """Refuse arrays that are appended and stay reachable in other ways than those that `Items` knows: a
        later write would show in the list.
        """
        (mine,) = owners(leaf.value)
        others = [x for i, x in start.items() if i != leaf.begin] + [
            x for i, x in end.items() if i != leaf.end
        ]
        others += [each.value for each in self.leaves]
        kept = leaf.begin is not None and _shares(end[leaf.begin], list(start.values()))
        outside = isinstance(leaf.value, Outside) or mine.within in around
        if (
            outside
            or kept
            or (leaf.begin is not None and leaf.end is not None)
            or _shares(leaf.value, others)
        ):
            raise NotWhole("an array is appended to a list that other variables hold too, or a part of it")

    def stacked(self) -> tuple[Tracer, ...]:
        """The values to stack."""
        return tuple(kind_of(x.value)(x.value._trace, x.node) for x in self.leaves)

    def refuse_written(self, variables: Sequence[Any]) -> None:
        """Refuse arrays that some step writes into, ``variables`` that hold them."""
        if any(_shares(each.value, variables) for each in self.leaves):
            raise NotWhole("a step writes into an array that was appended to a list")

    def extend(
        self, trace: Trace, stacks: Sequence[Any], length: int, before: Sequence[Any]
    ) -> dict[int, Any]:
        """Append the items of all steps. ``stacks`` are the stacked values, ``before`` the variables before
        the loop.

        Returns:
            The variables that hold some of the items after the loop.
        """
        items: list[list[Any]] = []
        for leaf, stack in zip(self.leaves, stacks, strict=True):
            kind, node = kind_of(leaf.value), trace_node(stack)
            items.append([kind(trace, _row(trace, node, t)) for t in range(length)])
            if leaf.begin is not None:
                items[-1][0] = before[leaf.begin]
        for grown, values in self.lists:
            changed(grown.thing)
            for t in range(length):
                for spec, leaves in values:
                    found = [items[leaf.number][t] if type(leaf) is _Place else leaf for leaf in leaves]
                    grown.thing.append(unflatten(spec, found))
        return {
            leaf.end: rows[-1] for leaf, rows in zip(self.leaves, items, strict=True) if leaf.end is not None
        }

    def equals(self, other: Items) -> bool:
        """Whether another recording appends the same, as far as structures and constants go."""
        mine, its = ([(x.begin, x.end) for x in each.leaves] for each in (self, other))
        return mine == its and all(
            len(mine) == len(its)
            and all(
                s == t and all(a == b if type(a) is _Place else same(a, b) for a, b in zip(x, y, strict=True))
                for (s, x), (t, y) in zip(mine, its, strict=True)
            )
            for (_, mine), (_, its) in zip(self.lists, other.lists, strict=True)
        )


@dataclass(frozen=True)
class _Place:
    """Which of the stacked values stands here."""

    number: int


def _refuse_containers(value: Any) -> None:
    """Refuse what others may change later: each item would have to be the one that the step appended."""
    if isinstance(value, tuple):
        for part in value:
            _refuse_containers(part)
    elif not isinstance(value, Tracer | np.generic | bool | int | float | complex | str | None):
        raise NotWhole(f"a {type(value).__name__} is appended to a list")


def _held_by(leaf: Any, variables: dict[int, Any]) -> int | None:
    """The variable that is this very array."""
    return next((i for i, value in variables.items() if value is leaf), None)


def _shares(value: Any, others: Sequence[Any]) -> bool:
    """Whether arrays in a value have their elements where arrays in others have them."""
    mine = set(map(id, owners(value)))
    return any(id(owner) in mine for other in others for owner in owners(other))


def _row(trace: Trace, stack: Node, t: int) -> Node:
    """``stack[t]``."""
    rest = stack.shape[1:]
    lead = (0,) * len(rest)
    row = trace.emit("slice", stack, starts=(t, *lead), limits=(t + 1, *rest), steps=(1,) * (len(rest) + 1))
    return trace.emit("reshape", row, shape=rest)


def same_nodes(some: Sequence[Node], others: Sequence[Node]) -> bool:
    """Whether two recordings gave the same: one node, or nodes that differ in nothing but in being two."""
    if len(some) != len(others):
        return False
    pairs, known = [*zip(some, others, strict=True)], dict[Node, Node]()
    while pairs:
        one, other = pairs.pop()
        if one in known or one is other:
            if known.get(one, one) is not other:
                return False
        elif not _alike(one, other):
            return False
        else:
            known[one] = other
            for mine, its in zip(_bodies(one), _bodies(other), strict=True):
                known.update(zip(mine.inputs, its.inputs, strict=True))
                pairs += zip(mine.outputs, its.outputs, strict=True)
            pairs += zip(one.args, other.args, strict=True)
    return True


def _alike(one: Node, other: Node) -> bool:
    """Whether two nodes do the same with their arguments, the graphs inside apart."""
    if one.op.name == "input" or one.op is not other.op or one.type != other.type:
        return False
    plain = [[x for x in node.attrs.values() if not isinstance(x, Body)] for node in (one, other)]
    sizes = [[(len(x.inputs), len(x.outputs)) for x in _bodies(node)] for node in (one, other)]
    return plain[0] == plain[1] and sizes[0] == sizes[1] and len(one.args) == len(other.args)


def _bodies(node: Node) -> list[Graph]:
    """The graphs inside a node."""
    return [x.graph for x in node.attrs.values() if isinstance(x, Body)]
