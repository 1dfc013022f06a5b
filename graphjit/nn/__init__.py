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
from graphjit.nn.attention import multi_head_attention, scaled_dot_product_attention
from graphjit.nn.convolution import conv1d, conv2d, conv_transpose2d
from graphjit.nn.dense import dropout, embedding, linear
from graphjit.nn.initialisers import (
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    ones,
    orthogonal,
    zeros,
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
from graphjit.nn.normalisation import batch_norm, group_norm, layer_norm, rms_norm
from graphjit.nn.pooling import avg_pool, global_avg_pool, max_pool
from graphjit.nn.positions import rotary_positions, sinusoidal_positions
from graphjit.nn.recurrent import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell
from graphjit.nn.regularisation import l1_penalty, l2_penalty

__all__ = [
    "avg_pool",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "global_avg_pool",
    "glorot_normal",
    "glorot_uniform",
    "group_norm",
    "gru",
    "gru_cell",
    "hard_tanh",
    "he_normal",
    "he_uniform",
    "hinge",
    "huber",
    "kl_divergence",
    "l1_penalty",
    "l2_penalty",
    "layer_norm",
    "leaky_relu",
    "lecun_normal",
    "lecun_uniform",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "lstm",
    "lstm_cell",
    "mae",
    "max_pool",
    "mse",
    "multi_head_attention",
    "one_hot",
    "ones",
    "orthogonal",
    "relu",
    "relu6",
    "rms_norm",
    "rnn",
    "rnn_cell",
    "rotary_positions",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "sinusoidal_positions",
    "softmax",
    "softplus",
    "tanh",
    "zeros",
]
