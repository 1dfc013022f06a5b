"""Work of the compiler that is counted: once for each node or place, however many there are."""

from __future__ import annotations

import numpy as np
import pytest

from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import Type
from graphjit.limits import host_limits
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.pieces import Destination
from graphjit.schedule.rewrite.align import align

F64 = np.dtype(np.float64)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The nodes that builders copy."""
    found: list[Node] = []
    original = Builder.copy

    def copy(self: Builder, node: Node, args: tuple[Node, ...]) -> Node:
        found.append(node)
        return original(self, node, args)

    monkeypatch.setattr(Builder, "copy", copy)
    return found


def pairs(symmetric: bool) -> Graph:
    """Sums of a table of pairs along its columns and rows, and what follows from them."""
    b = Builder()
    x = b.input(Type(F64, (40,)), "x")
    left = b.broadcast_to(b.reshape(x, shape=(40, 1)), shape=(40, 40))
    right = b.broadcast_to(x, shape=(40, 40))
    table = b.sub(left, right)
    table = b.mul(table, table) if symmetric else b.mul(table, left)
    down, along = b.sum(table, axes=(0,)), b.sum(table, axes=(1,))
    return Graph("pairs", (x,), [b.exp(b.neg(down)), b.sin(along)])


def test_aligning_rebuilds_what_follows_from_a_change_and_no_more(copies: list[Node]) -> None:
    graph = pairs(symmetric=True)
    found = align(graph, host_limits())
    assert {node.attrs["axes"] for node in found.nodes() if node.op.name == "sum"} == {(1,)}
    assert len(copies) == len(graph.nodes()) + 2  # exp and neg
    x = np.linspace(-1, 2, 40)
    for ours, wanted in zip(interpret(found, x), interpret(graph, x), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)


def test_aligning_leaves_a_graph_without_change(copies: list[Node]) -> None:
    graph = pairs(symmetric=False)
    assert align(graph, host_limits()) is graph
    assert len(copies) == len(graph.nodes())


class Counted(dict[Node, list[Destination]]):
    walks = 0

    def items(self):
        self.walks += 1
        return super().items()

    __iter__ = None  # type: ignore[assignment]


def test_first_writes_are_found_in_one_walk() -> None:
    b = Builder()
    x = b.input(Type(F64, (4,)), "x")
    parts = [b.mul(x, float(i + 2)) for i in range(60)]
    joined = [b.concatenate(*parts[i : i + 3], axis=0) for i in range(0, 60, 3)]
    destinations = Counted((part, [Destination(joined[i // 3], (1,), 0)]) for i, part in enumerate(parts))
    position = {part: 100 - i for i, part in enumerate(parts)} | dict.fromkeys(joined, 200) | {x: 7}
    fusion = Fusion([], set(), position, destinations=destinations)
    assert [fusion.first_write(node) for node in joined] == [100 - i - 2 for i in range(0, 60, 3)]
    assert fusion.first_write(x) == 7
    assert destinations.walks == 1
