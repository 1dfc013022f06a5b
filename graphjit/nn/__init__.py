"""Layers, activations, losses and initialisers of neural networks, written in plain NumPy.

They hold no state: parameters are arrays that you pass, in containers of your own. Each function runs as it
is, and inside of everything that graphjit compiles. Names and conventions are those of ``jax.nn`` and
``torch.nn.functional``, where these have the function; where they differ, the docstring says which one it is.
"""

from __future__ import annotations

from graphjit.nn.activations import (
    celu,
    elu,
    gelu,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    one_hot,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from graphjit.nn.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    hinge,
    huber,
    kl_divergence,
    mae,
    mse,
)
from graphjit.nn.regularisation import l1_penalty, l2_penalty

__all__ = [
    "binary_cross_entropy_with_logits",
    "celu",
    "cross_entropy",
    "elu",
    "gelu",
    "hard_tanh",
    "hinge",
    "huber",
    "kl_divergence",
    "l1_penalty",
    "l2_penalty",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mae",
    "mse",
    "one_hot",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]
