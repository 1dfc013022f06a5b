"""Everything the page shows, as one object of JSON.

Job: read the stages of a `Lowered`, and write them down so that the page need not compute much.
Input: a `Lowered`; the function itself besides its derivative. Output: a dictionary.
Invariants: texts are numbers of one table, since most repeat; a box lists its rows and edges, and all that is
in no box has the number -1 for it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphjit.ir.names import one_line
from graphjit.ir.node import Graph, Location, Node, with_bodies
from graphjit.loops.printer import print_kernel
from graphjit.lowered import Lowered
from graphjit.view.answers import answer
from graphjit.view.arena import Arena, arena_of
from graphjit.view.board import BACKWARD, TANGENT, TOP, Board, Edge, Item
from graphjit.view.graphs import add_graph, phase
from graphjit.view.groups import group
from graphjit.view.layout import place
from graphjit.view.sources import Spent, by_line, key_of, short_name, shown_lines
from graphjit.view.steps import step_board
from graphjit.view.work import node_costs

LOOPS = 1_000_000
"""Characters of loops that a page holds."""


def as_data(lowered: Lowered, trace: Graph | None = None) -> dict[str, Any]:
    """The object that the page reads; ``trace`` is the function itself if ``lowered`` is its derivative."""
    loops = lowered.loops
    costs = node_costs(lowered.program, loops)
    boards = [_recorded(lowered.graph, derived=trace is not None)]
    if trace is not None:
        boards.insert(0, graph_board("trace", "Trace", "What your function did, step by step.", trace, {}))
    note = "After all passes on graphs. What an operation takes is its share of the steps that compute it."
    boards.append(graph_board("optimized", "Optimized", note, lowered.optimized, costs))
    boards.append(step_board(lowered, costs))
    tables = _Tables(by_line(costs))
    stages = [tables.stage(board) for board in boards]
    arena = tables.arena(arena_of(lowered))
    total, memory = lowered.cost().total, lowered.memory()
    return {
        "name": one_line(lowered.graph.name),
        "total": {"bytes": total.nbytes, "flops": total.flops, "ns": total.nanoseconds},
        "memory": {
            name: getattr(memory, name)
            for name in ("arguments", "captured", "results", "constants", "arena", "total")
        },
        "stages": stages,
        "loops": _loops(lowered),
        "arena": arena,
        "files": tables.files(),
        "lines": tables.line_rows(),
        "other": round(tables.spent.get(None, Spent()).total, 2),
        "strings": list(tables.strings),
    }


def graph_board(key: str, title: str, note: str, graph: Graph, costs: Mapping[Node, float]) -> Board:
    """The board of a graph stage."""
    board = Board(key, title, note)
    answer(board, add_graph(board, graph, TOP, costs))
    return board


def _recorded(graph: Graph, derived: bool) -> Board:
    """The board of what was traced, derivatives included."""
    phases = {phase(node) for node in with_bodies(graph)}
    if BACKWARD in phases:
        note = "With the operations of the way back. Each is marked with the operation that it answers."
        return graph_board("gradient", "Gradient", note, graph, {})
    if derived or TANGENT in phases:
        note = "With the operations of the derivative. Each is marked with the operation that it answers."
        return graph_board("gradient", "Derivative", note, graph, {})
    return graph_board("trace", "Trace", "What your function did, step by step.", graph, {})


def _loops(lowered: Lowered) -> list[list[str]]:
    """Name and text of the loops of each step, as many as fit."""
    found: list[list[str]] = []
    room = LOOPS
    for name, kernel in lowered.loops.items():
        text = print_kernel(kernel)
        if len(text) <= room:
            room -= len(text)
        else:
            text = "not in this page, which would be too large: graphjit inspect --stage loops"
        found.append([name, text.rstrip("\n")])
    return found


class _Tables:
    """Texts and lines by number."""

    def __init__(self, spent: Mapping[tuple[str, int] | None, Spent]) -> None:
        self.spent = spent
        self.strings: dict[str, int] = {"": 0}
        self.lines: dict[tuple[str, int], int] = {}
        for key in spent:
            if key is not None:
                self.lines[key] = len(self.lines)

    def text(self, text: str) -> int:
        """The number of a text."""
        return self.strings.setdefault(text, len(self.strings))

    def line(self, loc: Location | None) -> int:
        """The number of a line."""
        key = key_of(loc)
        return -1 if key is None else self.lines.setdefault(key, len(self.lines))

    def stage(self, board: Board) -> dict[str, Any]:
        """One tab."""
        group(board)
        return {
            "key": board.key,
            "title": board.title,
            "note": board.note,
            "items": [self.item(item) for item in board.items],
            "boxes": self.boxes(board),
        }

    def item(self, item: Item) -> list[Any]:
        """One item as a row, without zeros and empty lists at its end. Lines and numbers count from 1."""
        row: list[Any] = [
            self.text(item.label),
            self.text(item.kind),
            item.parent,
            self.text(item.type),
            self.line(item.loc) + 1,
            item.args,
            item.number + 1,
            self.text(item.text),
            self.text(item.origin),
            self.text(item.phase),
            round(item.nanoseconds, 2),
            item.answers,
            int(item.hidden),
            [[self.text(name), self.text(value)] for name, value in item.facts],
        ]
        while len(row) > 3 and not row[-1]:
            row.pop()
        return row

    def boxes(self, board: Board) -> dict[str, Any]:
        """The rows and edges in each box."""
        order = _first_leaves(board)
        children = board.children()
        edges = _edges_by_box(board)
        found = {}
        for parent, members in children.items():
            members = sorted(members, key=lambda number: (order[number], number))
            index = {number: i for i, number in enumerate(members)}
            own = edges.get(parent, {})
            inputs = {index[n] for n in members if board.items[n].kind in ("input", "value", "group")}
            placed = place(len(members), [(index[a], index[b]) for a, b in own], inputs)
            found[str(parent)] = {
                "rows": [
                    [
                        part
                        for x, n in row
                        for part in (x, members[n] if n < len(members) else len(members) - n - 1)
                    ]
                    for row in placed.rows
                ],
                "edges": [
                    self.edge(pair, values, path, len(members))
                    for (pair, values), path in zip(own.items(), placed.paths, strict=True)
                ],
            }
        return found

    def edge(
        self, pair: tuple[int, int], values: Sequence[Edge], path: list[int] | None, count: int
    ) -> list[Any]:
        """An edge: from, to, what it carries, why, the points that it passes (0: it is not drawn)."""
        labels = list(dict.fromkeys(value.label for value in values))
        label = labels[0] if len(labels) == 1 else f"{len(labels)} values"
        several = [self.text(text) for text in labels] if len(labels) > 1 else []
        whys = dict.fromkeys(value.why for value in values if value.why)
        points = 0 if path is None else [count - point - 1 for point in path]
        row = [*pair, self.text(label), points, self.text("; ".join(whys)), several]
        while not row[-1] and len(row) > 4:
            row.pop()
        return row

    def arena(self, arena: Arena) -> dict[str, Any]:
        """The memory plan."""
        return {
            "bytes": arena.nbytes,
            "steps": arena.steps,
            "border": arena.border,
            "lives": [
                [
                    life.name,
                    life.offset,
                    life.nbytes,
                    life.first,
                    life.last,
                    life.type,
                    self.line(life.loc),
                    int(life.kept),
                ]
                for life in arena.lives
            ],
            "kept": [
                [
                    row.name,
                    row.kind,
                    row.nbytes,
                    row.type,
                    row.op,
                    self.line(row.loc),
                    row.made,
                    list(row.read),
                ]
                for row in arena.kept
            ],
        }

    def files(self) -> list[dict[str, Any]]:
        """The lines of each file that are shown."""
        return [
            {"path": one_line(file), "name": short_name(file), "lines": lines}
            for file, lines in shown_lines(self.lines).items()
        ]

    def line_rows(self) -> list[list[Any]]:
        """File, number, nanoseconds and the part of the way back of each line."""
        files = {file: i for i, file in enumerate(dict.fromkeys(file for file, _ in self.lines))}
        rows = []
        for file, number in self.lines:
            spent = self.spent.get((file, number), Spent())
            rows.append([files[file], number, round(spent.total, 2), round(spent.backward, 2)])
        return rows


def _first_leaves(board: Board) -> list[int]:
    """For each item the first that is in it: groups are made last, but stand where their first one stood."""
    order = list(range(len(board.items)))
    for number, item in enumerate(board.items):
        around = item.parent
        while around != TOP and board.items[around].kind == "group":
            order[around] = min(order[around], number)
            around = board.items[around].parent
    return order


def _edges_by_box(board: Board) -> dict[int, dict[tuple[int, int], list[Edge]]]:
    """For each box the edges between what is directly in it; values between the same two are one edge."""

    @functools.cache
    def boxes(number: int) -> tuple[int, ...]:
        """An item and the boxes around it, from the outermost on."""
        parent = board.items[number].parent
        return (number,) if parent == TOP else (*boxes(parent), number)

    found: dict[int, dict[tuple[int, int], list[Edge]]] = {}
    for edge in board.drawn_edges():
        pair = _apart(boxes(edge.source), boxes(edge.target))
        if pair is not None:
            parent = board.items[pair[0]].parent
            found.setdefault(parent, {}).setdefault(pair, []).append(edge)
    return found


def _apart(source: Iterable[int], target: Iterable[int]) -> tuple[int, int] | None:
    """Where two ways from the outermost box part; None where one is in the other."""
    return next(((a, b) for a, b in zip(source, target, strict=False) if a != b), None)
