"""Short axes as separate values: a 3-vector is three numbers in registers, not an array to loop over.

Job: where a short axis is summed over (or otherwise reduced) beside long ones, compute the components along
it as nodes of their own.  Of 1000 points in space, ``sum(p * p, axis=1)`` becomes ``x * x + y * y + z * z``
over 1000 elements: one loop, with the long axis in SIMD lanes.
Input and output: a graph without composite ops.
Invariants: every element is computed from the same terms, sums along a short axis are taken from left to
right; what leaves the region is stacked again, which costs nothing where `pieces` applies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, users
from graphjit.ir.opdef import Reduce, Scalar
from graphjit.limits import Limits, UnstackLimits
from graphjit.schedule.access import is_thin_reshape

COMBINE = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum", "and": "and", "or": "or"}

Axes = tuple[int, ...]
Point = tuple[int, ...]


def unstack(graph: Graph, limits: Limits) -> Graph:
    """``graph`` with short axes taken apart where they are reduced."""
    nodes = graph.nodes()
    region = _region(nodes, limits.unstack)
    return _Unstacker(region, limits.unstack).graph(graph, nodes) if region else graph


def _short_axes(node: Node, limits: UnstackLimits) -> Axes:
    """The short axes of a value that has long ones beside them; empty when it does not pay to take it
    apart.
    """
    short = tuple(a for a, n in enumerate(node.shape) if 1 < n <= limits.short_axis)
    count = math.prod(node.shape[a] for a in short)
    pays = count <= limits.components and node.type.size >= limits.points * count
    return short if short and pays else ()


def _follows(node: Node, limits: UnstackLimits) -> bool:
    """Whether components of the result come from components of the arguments one by one."""
    name = node.op.name
    return (
        isinstance(node.op.lower, Scalar | Reduce)
        or name in ("broadcast_to", "transpose")
        or _is_stack(node, limits)
        or _is_thin(node)
    )


def _is_thin(node: Node) -> bool:
    return node.op.name == "reshape" and is_thin_reshape(node)


def _is_stack(node: Node, limits: UnstackLimits) -> bool:
    """Whether a concatenation joins pieces along a short axis."""
    return node.op.name == "concatenate" and node.attrs["axis"] in _short_axes(node, limits)


def _region(nodes: Sequence[Node], limits: UnstackLimits) -> set[Node]:
    """Values to take apart: arguments of reductions over short axes, and what elementwise operations connect
    with them.
    """
    seeds = []
    for node in nodes:
        if isinstance(node.op.lower, Reduce):
            x = node.args[0]
            long = [a for a in _axes(node) if x.shape[a] != 1]
            if long and set(long) <= set(_short_axes(x, limits)):
                seeds.append(x)
    if not seeds:
        return set()
    readers = users(nodes)
    region: set[Node] = set()
    pending = seeds
    while pending:
        node = pending.pop()
        if node in region or not _short_axes(node, limits):
            continue
        region.add(node)
        if _follows(node, limits):
            pending += node.args
        pending += [user for user in readers.get(node, ()) if _follows(user, limits)]
    return region


def _axes(node: Node) -> Axes:
    axes: Any = node.attrs["axes"]
    return tuple(axes)


class _Unstacker:
    """Rebuilds a graph; every old node has components along its apart axes, the whole value, or both."""

    def __init__(self, region: set[Node], limits: UnstackLimits) -> None:
        self.region = region
        self.limits = limits
        self.b = Builder()
        self.apart: dict[Node, Axes] = {}
        self.components: dict[Node, dict[Point, Node]] = {}
        self.whole: dict[Node, Node] = {}

    def graph(self, graph: Graph, nodes: Sequence[Node]) -> Graph:
        for node in nodes:
            self.b.like(node)
            if not self.split(node):
                self.whole[node] = self.b.copy(node, tuple(self.joined(arg) for arg in node.args))
        return Graph(graph.name, graph.inputs, [self.joined(node) for node in graph.outputs])

    # --------------------------------------------------------------------------------------------- both forms

    def set(self, node: Node, axes: Axes, components: dict[Point, Node]) -> None:
        """What an old node became; without axes it has one component, which is the whole."""
        if axes:
            self.apart[node], self.components[node] = axes, components
        else:
            self.whole[node] = components[()]

    def joined(self, node: Node) -> Node:
        """The whole value."""
        if node not in self.whole:
            axes, parts = self.apart[node], self.components[node]
            shape = tuple(1 if a in axes else n for a, n in enumerate(node.shape))
            parts = {point: self.b.reshape(part, shape=shape) for point, part in parts.items()}
            for depth in range(len(axes) - 1, -1, -1):
                rows = itertools.groupby(sorted(parts), key=lambda point: point[:depth])
                parts = {
                    key: self.b.concatenate(*(parts[point] for point in row), axis=axes[depth])
                    for key, row in rows
                }
            self.whole[node] = parts[()]
        return self.whole[node]

    def at(self, node: Node, axes: Axes, point: Point) -> Node:
        """The component of ``node`` at ``point`` along ``axes``, which are gone from its shape; an axis of
        length 1 repeats.
        """
        point = tuple(p if node.shape[a] != 1 else 0 for a, p in zip(axes, point, strict=True))
        shape = tuple(n for a, n in enumerate(node.shape) if a not in axes)
        apart = self.apart.get(node)
        if apart is not None and set(apart) <= set(axes):
            chosen = tuple(p for a, p in zip(axes, point, strict=True) if a in apart)
            return self.b.reshape(self.components[node][chosen], shape=shape)
        starts, limits = [0] * len(node.shape), list(node.shape)
        for a, p in zip(axes, point, strict=True):
            starts[a], limits[a] = p, p + 1
        x = self.joined(node)
        piece = self.b.slice(x, starts=tuple(starts), limits=tuple(limits), steps=(1,) * len(starts))
        return self.b.reshape(piece, shape=shape)

    # -------------------------------------------------------------------------------------------------- rules

    def split(self, node: Node) -> bool:
        """Compute the components of ``node``, if it is in the region or reduces something that is."""
        if isinstance(node.op.lower, Reduce):
            x = node.args[0]
            apart = self.apart.get(x) or (_short_axes(x, self.limits) if x in self.region else ())
            if apart:
                self.reduction(node, apart)
            return bool(apart)
        if node not in self.region or not _follows(node, self.limits):
            return False
        axes = _short_axes(node, self.limits)
        points = list(itertools.product(*(range(node.shape[a]) for a in axes)))
        self.set(node, axes, {point: self.component(node, axes, point) for point in points})
        return True

    def component(self, node: Node, axes: Axes, point: Point) -> Node:
        shape = tuple(n for a, n in enumerate(node.shape) if a not in axes)
        if isinstance(node.op.lower, Scalar):
            return self.b.emit(node.op, *(self.at(arg, axes, point) for arg in node.args), **node.attrs)
        x = node.args[0]
        if node.op.name == "broadcast_to":
            lead = len(node.shape) - len(x.shape)
            inner = [(a - lead, p) for a, p in zip(axes, point, strict=True) if a >= lead]
            return self.b.broadcast_to(
                self.at(x, tuple(a for a, _ in inner), tuple(p for _, p in inner)), shape=shape
            )
        if node.op.name == "transpose":
            perm: Any = node.attrs["perm"]
            pairs = sorted((perm[a], p) for a, p in zip(axes, point, strict=True))
            part = self.at(x, tuple(a for a, _ in pairs), tuple(p for _, p in pairs))
            kept = [a for a in range(len(x.shape)) if a not in dict(pairs)]
            return self.b.transpose(
                part, perm=tuple(kept.index(perm[a]) for a in range(len(perm)) if a not in axes)
            )
        if node.op.name == "concatenate":
            return self.piece(node, axes, point)
        inner_axes = _same_axes(node.shape, x.shape, axes)
        return self.b.reshape(self.at(x, inner_axes, point), shape=shape)

    def piece(self, node: Node, axes: Axes, point: Point) -> Node:
        """The component of a concatenation, from the piece that it lies in."""
        axis: Any = node.attrs["axis"]
        which = axes.index(axis)
        left = point[which]
        for arg in node.args:
            if left < arg.shape[axis]:
                return self.at(arg, axes, (*point[:which], left, *point[which + 1 :]))
            left -= arg.shape[axis]
        raise AssertionError("a component lies in no piece")

    def reduction(self, node: Node, apart: Axes) -> None:
        """A reduction over axes of its argument that are apart, over others, or both."""
        x = node.args[0]
        assert isinstance(node.op.lower, Reduce)
        combine = COMBINE[node.op.lower.combine]
        axes = _axes(node)
        long = [a for a in axes if a not in apart]
        kept = [a for a in range(len(x.shape)) if a not in apart]
        inner = tuple(kept.index(a) for a in long)
        totals: dict[Point, Node] = {}
        for point in itertools.product(*(range(x.shape[a]) for a in apart)):
            part = self.at(x, apart, point)
            key = tuple(p for a, p in zip(apart, point, strict=True) if a not in axes)
            totals[key] = self.b.emit(combine, totals[key], part) if key in totals else part
        if inner:
            totals = {key: self.b.emit(node.op, part, axes=inner) for key, part in totals.items()}
        left = [a for a in range(len(x.shape)) if a not in axes]
        self.set(node, tuple(left.index(a) for a in apart if a not in axes), totals)


def _same_axes(shape: Sequence[int], inner: Sequence[int], axes: Axes) -> Axes:
    """The axes of ``inner`` that are ``axes`` of ``shape``, when the two differ in axes of length 1 only."""
    long = [a for a, n in enumerate(shape) if n != 1]
    inner_long = [a for a, n in enumerate(inner) if n != 1]
    return tuple(inner_long[long.index(a)] for a in axes)
