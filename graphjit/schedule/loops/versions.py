"""Which arrays that a loop hands on are changed where they lie.

``A[i, j] -= A[i, k] * A[k, j]`` in a loop makes a new array in every step: the one before, but for an
element. Where nobody reads the one before any more, the element is written where the array lies. So a step
costs what it changes, however large the array is.

    A1 = scatter_set(A0, v, i, j)      A0 and A1 are *versions* of one array: they lie in one place
    x  = gather(A0, k, j)              reads A0: has to come before A1 is made

Input: graphs inside loops and choices. Output: which carries lie in one place; an order of nodes in which
every version is read before the next is made.
Invariant: an array counts only if there is such an order, for all arrays of the graph together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from graphjit.ir.node import Body, Graph, Node, in_order, users
from graphjit.ir.opdef import View
from graphjit.transforms.control.loops import kinds_of

ADDED = ("scatter_add", "embed")
"""Ops that make an array of zeros but for what is added to another one."""

Versions = list[Node]
"""What one array becomes, from an input of a graph to one of its outputs."""


Found = TypeVar("Found")


def once(work: Callable[[Node], Found]) -> Callable[[Node], Found]:
    """``work``, done once for each node: who asks about a loop asks about those inside, again and again."""
    known: WeakKeyDictionary[Node, Found] = WeakKeyDictionary()

    @functools.wraps(work)
    def found(node: Node) -> Found:
        if node not in known:
            known[node] = work(node)
        return known[node]

    return found


@once
def changed_carries(node: Node) -> dict[int, Versions]:
    """The carries of a loop that its body changes where they lie: their versions in the body, by number."""
    body: Any = node.attrs.get("body")
    if not isinstance(body, Body):
        return {}
    graph, found = body.graph, dict[int, Versions]()
    for k, (x, after) in enumerate(zip(graph.inputs[kinds_of(node)[1]], graph.outputs, strict=False)):
        versions = _versions(x, after)
        if versions is not None:
            found[k] = versions
    return found if found and order(graph, list(found.values())) is not None else {}


@once
def changed_results(node: Node) -> dict[int, tuple[int, list[Versions]]]:
    """The results of a choice that its branches make of an argument where it lies: by number the argument,
    and the versions in each branch.
    """
    branches: Any = node.attrs["branches"]
    found: dict[int, tuple[int, list[Versions]]] = {}
    for k in range(len(node.parts)):
        for at in range(len(node.args) - 1):
            chains = [
                _versions(branch.graph.inputs[at], branch.graph.outputs[k], True) for branch in branches
            ]
            if all(chain is not None for chain in chains) and any(map(_changed, chains)):
                found[k] = at + 1, [chain for chain in chains if chain is not None]
    for number, branch in enumerate(branches):
        if order(branch.graph, [chains[number] for _, chains in found.values()]) is None:
            return {}
    return found


def changed_in_place(node: Node) -> dict[int, int]:
    """Which results of a loop or a choice lie where an argument lay: the number of the argument, by that of
    the result.
    """
    if node.op.name == "cond":
        return {k: at for k, (at, _) in changed_results(node).items()}
    return {k: kinds_of(node)[1].start + k for k in changed_carries(node)}


def before(node: Node) -> Node | None:
    """The array that ``node`` is but for some elements; None if it is another one."""
    if node.op.name in ("scatter_set", "copy"):
        return node.args[0]
    if node.op.name == "add":
        for x, added in (node.args, node.args[::-1]):
            if added.op.name in ADDED and added.args[0].type.size == 1:
                return x
    if node.op.name == "item":
        owner, number = node.args[0], node.attrs["index"]
        argument = changed_in_place(owner).get(number)  # type: ignore[call-overload]
        return None if argument is None else owner.args[argument]
    return None


def _versions(start: Node, end: Node, unchanged: bool = False) -> Versions | None:
    """The versions from an input to an output; None where the output is no version of it, or, unless it may
    be ``unchanged``, the input itself.
    """
    if start.type != end.type:
        return None
    found, node = [end], end
    while node is not start:
        earlier = before(node)
        if earlier is None:
            return None
        node = earlier
        found.append(node)
    return found[::-1] if unchanged or _changed(found) else None


def _changed(versions: Versions | None) -> bool:
    """Whether a version is more than a copy of the one before."""
    return any(node.op.name not in ("copy", "input") for node in versions or ())


def maker(node: Node) -> Node:
    """The node that makes a version: the loop or choice of an item."""
    return node.args[0] if node.op.name == "item" else node


def order(graph: Graph, arrays: Sequence[Versions]) -> list[Node] | None:
    """The nodes of a graph in an order in which each version of ``arrays`` is read before the next is made.

    None: there is none, or something reads a version other than element by element.
    """
    nodes = graph.nodes()
    readers = users(nodes)
    after: dict[Node, list[Node]] = {}
    for versions in arrays:
        if [out for out in graph.outputs if out in versions] != versions[-1:]:
            return None
        for version, following in zip(versions, [*versions[1:], None], strict=True):
            next_ = None if following is None else maker(following)
            for reader in readers.get(version, ()):
                if reader is next_:
                    if reader.args.count(version) != 1:
                        return None
                elif not _picks(reader, version):
                    return None
                elif next_ is not None:
                    after.setdefault(next_, []).append(reader)
    return in_order(nodes, after)


def _picks(reader: Node, version: Node) -> bool:
    """Whether a node reads elements of an array, or hands it to a graph inside that does."""
    if reader.args.count(version) != 1:
        return False
    if reader.is_bundle:
        constants = kinds_of(reader)[0] if "carried" in reader.attrs else slice(None)
        return version in reader.args[constants]
    return reader.args[0] is version and (reader.op.name == "gather" or isinstance(reader.op.lower, View))
