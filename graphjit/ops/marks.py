"""Ops that compute nothing and tell a transformation something: stop here, this has a name, compute it
again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.ir.batching import size_of
from graphjit.ir.opdef import Decompose, Partials, View, ZeroDerivative, op
from graphjit.ir.types import Type
from graphjit.ops.samples import ALL, Cases


def _same(x: Type, **attrs: Any) -> Type:
    return x


op(
    "stop_gradient",
    doc="x, taken for a constant by every derivative.",
    infer=_same,
    impl=np.copy,
    grad=ZeroDerivative("stop_gradient says so"),
    lower=Decompose(lambda b, out, x: x),
    samples=Cases(lambda rng, draw: [([draw(3)], {}), ([draw(2, 3)], {})], ALL),
)
op(
    "named",
    doc="x under a name, for the policy of a `checkpoint`.",
    attrs=("name",),
    infer=_same,
    impl=lambda x, *, name: np.copy(x),
    grad=Partials(1),
    lower=Decompose(lambda b, out, x: x),
    samples=Cases(lambda rng, draw: [([draw(3)], {"name": "x"})], ALL),
)


def _infer_recompute(x: Type, after: Type) -> Type:
    return x


def _recompute_batch(b: Any, node: Any, args: Any, batched: Any) -> Any:
    x, after = args
    size = size_of(args, batched)
    return b.recompute(x if batched[0] else b.broadcast_to(x, shape=(size, *x.shape)), after)


op(
    "recompute",
    doc="x, for computations that must not start before `after` is there, and so are not shared with earlier ones.",
    arity=2,
    infer=_infer_recompute,
    impl=lambda x, after: np.copy(x),
    grad=Partials(1, None),
    lower=View(lambda node, index: tuple(index)),
    batch=_recompute_batch,
    samples=Cases(lambda rng, draw: [([draw(3), draw(3)], {}), ([draw(2, 3), draw()], {})], ALL),
)
