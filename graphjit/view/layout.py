"""Where boxes stand: rows and columns of the boxes inside each box, by igraph's Sugiyama layout.

Job: give what is drawn in one box its row, and its place in the row, so that edges lead downwards and cross
little. Long edges go through rows as points, which get places too.
Input: the boxes in one box, and edges between them. Output: a `Placed`. Sizes are the page's: it knows which
boxes are open.
Invariants: an edge goes from a row to a later one, unless it belongs to a circle of groups; places in one row
differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from graphjit.view.libraries import library

MOST_POINTS = 3_000
"""Points of long edges in one box; beyond that the longest ones are drawn as mere names."""


@dataclass
class Placed:
    """The rows of one box.

    Attributes:
        rows: in each row (column, number) from left to right; numbers beyond those of the members are points
            of edges.
        paths: for each edge the numbers of its points, from its source on; None where it is not drawn.
    """

    rows: list[list[tuple[float, int]]]
    paths: list[list[int] | None]


def place(count: int, edges: Sequence[tuple[int, int]], inputs: Collection[int] = ()) -> Placed:
    """Place ``count`` boxes; edges are pairs of them, ``inputs`` what they are computed from."""
    igraph = library("igraph", "places the boxes")
    layers = _layers(count, edges, inputs)
    paths: list[list[int] | None] = [None] * len(edges)
    layer = list(layers)
    pieces: list[tuple[int, int]] = []
    by_length = sorted(range(len(edges)), key=lambda e: abs(layers[edges[e][1]] - layers[edges[e][0]]))
    for e in by_length:
        source, target = edges[e]
        step = 1 if layers[target] >= layers[source] else -1
        between = range(layers[source] + step, layers[target], step)
        if len(layer) - count + len(between) > MOST_POINTS:
            continue
        points = list(range(len(layer), len(layer) + len(between)))
        layer.extend(between)
        paths[e] = points
        chain = [source, *points, target]
        pieces += [(a, b) if step > 0 else (b, a) for a, b in itertools.pairwise(chain)]
    graph = igraph.Graph(n=len(layer), edges=pieces, directed=True)
    columns = [x for x, _ in graph.layout_sugiyama(layers=layer, hgap=1, vgap=1)]
    rows: list[list[tuple[float, int]]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for number, at in enumerate(layer):
        rows[at].append((round(columns[number], 2), number))
    return Placed([sorted(row) for row in rows], paths)


def _layers(count: int, edges: Sequence[tuple[int, int]], inputs: Collection[int]) -> list[int]:
    """The row of each box: below all that it reads. What depends on no input stands right above who reads it,
    and so do the inputs.

    Groups may read each other: of a circle, edges to an earlier box do not count.
    """
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for edge in edges:
        a, b = sorted(edge)
        before[b].append(a)
        after[a].append(b)
    rows = [0] * count
    depends = [number in inputs for number in range(count)]
    for number in range(count):
        rows[number] = max((rows[a] + 1 for a in before[number]), default=0)
        depends[number] |= any(depends[a] for a in before[number])
    for number in reversed(range(count)):
        if after[number] and (not depends[number] or not before[number]):
            rows[number] = min(rows[b] for b in after[number]) - 1
    lowest = min(rows, default=0)
    return [row - lowest for row in rows]
