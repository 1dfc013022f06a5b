"""Ops with a graph of their own inside: ``custom``, and ``item``, which takes one of several results.

``custom`` is a function whose derivative is not simply that of what it computes: the user's own rule, a
region that the way back computes again, a solver. The compiler never sees it: the pass `open_bodies` puts the
body in the place of the node, after derivatives have been taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph
from graphjit.ir.opdef import ByRule, OverBody, Part, Special, op
from graphjit.ir.rule import Rule
from graphjit.ir.types import Bundle, Type
from graphjit.ops.samples import Case, Cases, Draw


def _infer_custom(*types: Type, body: Body, rule: Rule | str | None) -> Any:
    wanted = [node.type for node in body.graph.inputs]
    if list(types) != wanted:
        raise ShapeError(
            f"the body {body.graph.name} takes ({', '.join(map(str, wanted))}), not ({', '.join(map(str, types))})"
        )
    made = tuple(node.type for node in body.graph.outputs)
    return made[0] if len(made) == 1 else Bundle(made)


def _custom(*args: Any, body: Body, rule: Rule | str | None) -> Any:
    found = interpret(body.graph, *args)
    return found[0] if len(found) == 1 else tuple(found)


def _cases(rng: np.random.Generator, draw: Draw) -> list[Case]:
    """A body that multiplies two arrays and adds a sine."""
    b = Builder()
    x, y = (b.input(Type(draw().dtype, (3,)), name) for name in "xy")
    body = Body(Graph("sample", [x, y], [b.add(b.mul(x, y), b.sin(x))]))
    return [([draw(3), draw(3)], {"body": body, "rule": None})]


op(
    "custom",
    doc="What the graph `body` computes, differentiated as `rule` says.",
    arity=None,
    attrs=("body", "rule"),
    infer=_infer_custom,
    impl=_custom,
    grad=ByRule(),
    lower=Special("custom"),
    batch=OverBody(),
    samples=Cases(_cases),
)


def _infer_item(bundle: Any, *, index: int) -> Type:
    if not isinstance(bundle, Bundle) or not 0 <= index < len(bundle.types):
        raise ShapeError(f"{bundle} has no result {index}")
    return bundle.types[index]


op(
    "item",
    doc="One of the results of a node that has several.",
    attrs=("index",),
    infer=_infer_item,
    impl=lambda bundle, *, index: bundle[index],
    grad=Part(),
    lower=Special("item"),
    batch=lambda b, node, args, batched: b.item(args[0], index=node.attrs["index"]),
)
