"""Minimum cuts of small networks: the cheapest edges that part the source from the sink.

What is kept in memory and what is computed again is such a cut: `schedule.recompute`, and what a loop keeps
for the way back, `transforms.control.residuals`.

Job: Dinic's algorithm for the maximum flow, which gives the minimum cut.
Input: edges with capacities (None: never cut). Output: the vertices on the side of the source.
Invariant: of several minimum cuts it is the one next to the source, whatever the order of edges.
"""

from __future__ import annotations

from collections import deque


class Network:
    """A directed graph with capacities; vertices are numbers."""

    def __init__(self, vertices: int) -> None:
        self.leaving: list[list[int]] = [
            [] for _ in range(vertices)
        ]  # numbers of edges; an edge's reverse has its number xor 1
        self.head: list[int] = []
        self.room: list[int] = []
        self._unlimited: list[int] = []

    def vertex(self) -> int:
        """One more vertex."""
        self.leaving.append([])
        return len(self.leaving) - 1

    def edge(self, tail: int, head: int, capacity: int | None) -> None:
        """One more edge."""
        if capacity is None:
            self._unlimited.append(len(self.head))
        self.leaving[tail].append(len(self.head))
        self.leaving[head].append(len(self.head) + 1)
        self.head += [head, tail]
        self.room += [capacity or 0, 0]

    def cut(self, source: int, sink: int) -> list[bool]:
        """For each vertex whether it lies on the side of ``source``."""
        beyond = 1 + sum(self.room)
        for edge in self._unlimited:
            self.room[edge] = beyond
        while True:
            level = self._levels(source)
            if level[sink] < 0:
                return [distance >= 0 for distance in level]
            self._augment(source, sink, level)

    def _levels(self, source: int) -> list[int]:
        """Distances from ``source`` along edges with room; -1 where there is no way."""
        level = [-1] * len(self.leaving)
        level[source] = 0
        queue = deque([source])
        while queue:
            here = queue.popleft()
            for edge in self.leaving[here]:
                there = self.head[edge]
                if self.room[edge] and level[there] < 0:
                    level[there] = level[here] + 1
                    queue.append(there)
        return level

    def _augment(self, source: int, sink: int, level: list[int]) -> None:
        """Fill all shortest ways."""
        untried = [0] * len(self.leaving)
        path: list[int] = []
        here = source
        while True:
            if here == sink:
                flow = min(self.room[edge] for edge in path)
                for edge in path:
                    self.room[edge] -= flow
                    self.room[edge ^ 1] += flow
                path, here = [], source
                continue
            while untried[here] < len(self.leaving[here]):
                edge = self.leaving[here][untried[here]]
                if self.room[edge] and level[self.head[edge]] == level[here] + 1:
                    path.append(edge)
                    here = self.head[edge]
                    break
                untried[here] += 1
            else:
                if not path:
                    return
                here = self.head[path.pop() ^ 1]
                untried[here] += 1
