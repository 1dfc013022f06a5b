"""The op ``copy``: the same values in storage of their own, so that results alias nothing."""

from __future__ import annotations

import numpy as np

from graphjit.ir.opdef import Partials, Scalar, op
from graphjit.ir.types import Type
from graphjit.ops.samples import ALL, Cases


def _infer(x: Type, *, slot: int) -> Type:
    return x


op(
    "copy",
    doc="The same values in storage of their own (one per `slot`): results never alias arguments or each other.",
    attrs=("slot",),
    infer=_infer,
    impl=lambda x, *, slot: np.copy(x),
    grad=Partials(1),
    lower=Scalar("copy"),
    samples=Cases(
        lambda rng, draw: [([draw(*shape)], {"slot": 0}) for shape in [(), (0,), (5,), (2, 3)]], ALL
    ),
)
