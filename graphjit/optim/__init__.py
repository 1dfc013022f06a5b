"""Optimisers and schedules with optax's names, arguments and protocol, in plain NumPy over containers.

``init(params)`` makes a state, ``update(grads, state, params)`` returns updates and the next state,
`apply_updates` adds updates to parameters. All of it also runs untraced. Inside a compiled step it becomes
part of the one program; donated parameters and states are written where they lie.
"""

from __future__ import annotations

from graphjit.optim.base import (
    EmptyState,
    GradientTransformation,
    apply_updates,
    chain,
    identity,
    masked,
)
from graphjit.optim.minimizing import minimize
from graphjit.optim.moments import (
    scale_by_adam,
    scale_by_lion,
    scale_by_rms,
    scale_by_rss,
    scale_by_stddev,
    trace,
)
from graphjit.optim.optimisers import adagrad, adam, adamw, lion, rmsprop, sgd
from graphjit.optim.schedules import (
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    join_schedules,
    linear_schedule,
    piecewise_constant_schedule,
    polynomial_schedule,
    warmup_cosine_decay_schedule,
)
from graphjit.optim.steps import (
    add_decayed_weights,
    clip,
    clip_by_global_norm,
    global_norm,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "adagrad",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "chain",
    "clip",
    "clip_by_global_norm",
    "constant_schedule",
    "cosine_decay_schedule",
    "exponential_decay",
    "global_norm",
    "identity",
    "join_schedules",
    "linear_schedule",
    "lion",
    "masked",
    "minimize",
    "piecewise_constant_schedule",
    "polynomial_schedule",
    "rmsprop",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_stddev",
    "sgd",
    "trace",
    "warmup_cosine_decay_schedule",
]
