"""Loops and choices of random graphs: scans, whiles with a bounded count, conds, inside of each other too.

Input: a maker of `random_graphs`. Output: whether nodes were added to it.
Invariant: as for all random graphs, values are tame, also after the last step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from random_bodies import add_node, inner_maker

from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.types import F64, I64, Type

MOST_STEPS = 3


def add_control(maker: Any) -> int:
    """A loop or a choice, and items of its results."""
    return maker.pick((_add_scan, _add_while, _add_cond))(maker)


def _some(maker: Any, most: int, least: int = 0) -> list[Node]:
    """Recent nodes, each once."""
    found = [maker.recent() for _ in range(maker.rng.integers(least, most + 1))]
    return [node for node in dict.fromkeys(found) if node is not None]


def _body(maker: Any, name: str, values: list[np.ndarray], carries: slice, results: int) -> Graph | None:
    """A random body whose first results have the types of the inputs in ``carries``; a few come behind."""
    inner = inner_maker(maker, values)
    inputs = list(inner.nodes)
    for _ in range(int(maker.rng.integers(3, 10))):
        inner.grow()
    after = [inner.matching(x.type) or x for x in inputs[carries]]
    made = [node for node in inner.nodes if node not in inputs and node.op.name != "const"]
    more = made[len(made) - results :] if results and len(made) >= results else []
    return Graph(name, inputs, [*after, *more]) if after or more else None


def _add_scan(maker: Any) -> int:
    constants, carries = _some(maker, 2), _some(maker, 3)
    first = maker.recent(lambda node: bool(node.shape))
    if first is None:
        return 0
    length = first.shape[0]
    arrays = [first, maker.recent(lambda node: node.shape[:1] == (length,))]
    slices = arrays[: int(maker.rng.integers(1, 3))]
    values = [maker.values[x] for x in (*constants, *carries)]
    values += [np.asarray(maker.values[x][0]) if length else np.ones(x.shape[1:], x.dtype) for x in slices]
    own = slice(len(constants), len(constants) + len(carries))
    graph = _body(maker, "step", values, own, int(maker.rng.integers(0, 3)))
    if graph is None:
        return 0
    attrs = {
        "body": Body(graph),
        "carried": len(carries),
        "sliced": len(slices),
        "length": length,
        "reverse": bool(maker.rng.random() < 0.5),
    }
    return add_node(maker, REGISTRY["scan"], [*constants, *carries, *slices], attrs)


def _add_while(maker: Any) -> int:
    count = _number(maker, MOST_STEPS)
    if count is None:
        return 0
    constants, carries = _some(maker, 2), _some(maker, 3, least=1)
    steps = maker.const(np.zeros((), np.int64))
    values = [maker.values[x] for x in (*constants, *carries)]
    own = slice(len(constants), len(values))
    inner = _body(maker, "step", values, own, 0)
    if inner is None:
        return 0
    n, i = (Node(REGISTRY["input"], (), {"name": name}, Type(I64, ())) for name in ("n", "i"))
    one = Node(REGISTRY["const"], (), dict(maker.const(np.ones((), np.int64)).attrs), Type(I64, ()))
    following = Node(REGISTRY["add"], (i, one), {}, Type(I64, ()))
    ordered = [n, *inner.inputs[: own.start], i, *inner.inputs[own.start :]]
    body = Graph("step", ordered, [following, *inner.outputs])
    below = Node(REGISTRY["lt"], (i, n), {}, Type(np.dtype(bool), ()))
    attrs = {
        "test": Body(Graph("test", ordered, [below])),
        "body": Body(body),
        "carried": 1 + len(carries),
        "taped": 0,
    }
    return add_node(maker, REGISTRY["while"], [count, *constants, steps, *carries], attrs)


def _add_cond(maker: Any) -> int:
    which = _number(maker, 2)
    args = _some(maker, 3, least=1)
    if which is None or not args:
        return 0
    types: list[Type] = []
    branches = []
    for k in range(3):
        inner = inner_maker(maker, [maker.values[x] for x in args])
        inputs = list(inner.nodes)
        for _ in range(int(maker.rng.integers(2, 8))):
            inner.grow()
        if k == 0:
            outputs = [x for x in inner.nodes if x.op.name != "const"][-int(maker.rng.integers(1, 4)) :]
            types = [x.type for x in outputs]
        else:
            found = [inner.matching(type) for type in types]
            outputs = [
                inner.filled(1.0, type) if x is None else x for x, type in zip(found, types, strict=True)
            ]
        branches.append(Body(Graph(f"branch{k}", inputs, outputs)))
    return add_node(maker, REGISTRY["cond"], [which, *args], {"branches": tuple(branches)})


def _number(maker: Any, most: int) -> Node | None:
    """An integer from 0 to ``most``: known, or one that depends on values."""
    if maker.rng.random() < 0.5:
        return maker.const(np.array(int(maker.rng.integers(0, most + 1)), np.int64))
    x = maker.recent(lambda node: node.type in (Type(I64, ()), Type(F64, ())))
    if x is None:
        return None
    if x.dtype == F64:
        limit = maker.const(np.array(maker.pick([0.3, 0.7, 1.2])))
        bools = maker.add(REGISTRY["lt"], [limit, x], {})
        return None if bools is None else maker.add(REGISTRY["convert"], [bools], {"dtype": I64})
    low = maker.add(REGISTRY["maximum"], [x, maker.const(np.array(0))], {})
    return None if low is None else maker.add(REGISTRY["minimum"], [low, maker.const(np.array(most))], {})
