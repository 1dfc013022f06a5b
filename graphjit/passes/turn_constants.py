"""Matrices whose rows the steps of a loop multiply, laid out for lanes.

In ``W @ h`` the elements of the result are neighbours if those of each column of ``W`` are, but NumPy's
matrices are stored by rows. The way back of ``h @ W`` has the same product, ``g @ W.T``, for one ``g`` or for
a batch of them. One product would not pay for another order; a loop makes many with the same matrix. So a
matrix that does not change in a loop is transposed before it, once.

Input and output: a graph; its loops get further constants.
Invariant: the same products, of the same numbers, summed in the same order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, reachable
from graphjit.passes.bodies import inside, remade
from graphjit.transforms.control.loops import Parts, Values, opened, run
from graphjit.transforms.substitute import body_of

LEAST = 64
"""Elements of a matrix from which it is transposed."""
STEPS = 4
"""Steps of a loop from which that pays."""


def turn_constants(graph: Graph) -> Graph:
    """``graph`` whose loops read such matrices in the other order."""
    if not any(node.is_bundle for node in graph.nodes()):
        return graph
    return remade(inside(graph, turn_constants), _turned)


def _turned(b: Builder, node: Node, args: list[Node], read: Collection[int]) -> Values | None:
    """A loop with the matrices that its body wants in the other order among its constants."""
    if node.op.name == "cond" or (node.op.name == "scan" and node.attrs["length"] < STEPS):  # type: ignore[operator]
        return None
    if all(_wanted(inner) is None for inner in body_of(node).nodes()):
        return None
    loop = opened(b, node, args)
    value = dict(zip(loop.inputs.constants, loop.args.constants, strict=True))
    turned: dict[Node, Node] = {}
    replaced: dict[Node, Node] = {}
    for inner in sorted(reachable(loop.roots), key=lambda node: node.serial):
        args = [replaced.get(arg, arg) for arg in inner.args]
        which = _wanted(inner)
        if which is not None and (x := inner.args[which]) in value:
            if x not in turned:
                turned[x] = b.input(x.type.with_shape(x.shape[::-1]), "turned")
            args[which] = turned[x]
            summed = list(inner.attrs["contract"])  # type: ignore[call-overload]
            summed[which] = (0,)
            replaced[inner] = b.like(inner).contract(*args, contract=tuple(summed), batch=((), ()))
        elif any(arg in replaced for arg in inner.args):
            replaced[inner] = b.copy(inner, tuple(args))
    if not turned:
        return None
    b.like(node)
    new = Parts([b.transpose(value[x], perm=(1, 0)) for x in turned], [], [])
    loop = replace(
        loop,
        args=loop.args.joined(new),
        inputs=loop.inputs.joined(Parts(list(turned.values()), [], [])),
    )
    results = run(b, loop.with_roots([replaced.get(root, root) for root in loop.roots]))
    return [*results.carries.values(), *results.made]


def _wanted(node: Node) -> int | None:
    """Which operand of a product is a matrix whose rows are multiplied, so that neighbours in the result come
    from elements a row apart; None: neither is.
    """
    if node.op.name != "contract" or node.attrs["batch"] != ((), ()):
        return None
    summed: Any = node.attrs["contract"]
    for which, x in enumerate(node.args):
        last = which == 1 or len(node.args[1].shape) == 1
        if last and len(x.shape) == 2 and x.type.size >= LEAST and summed[which] == (1,):
            return which
    return None
