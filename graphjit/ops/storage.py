"""Ops about storage, not values."""

from __future__ import annotations

import numpy as np

from graphjit.ir.opdef import Partials, Scalar, op
from graphjit.ops.infer import elementwise
from graphjit.ops.samples import ALL, uniform

op(
    "copy",
    doc="The same values in storage of their own: results never alias arguments or each other.",
    infer=elementwise,
    impl=np.copy,
    grad=Partials(1),
    lower=Scalar("copy", cost=0),
    samples=uniform((-3, 3), dtypes=ALL),
)
