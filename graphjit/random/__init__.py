"""Random numbers as functions of a key, with JAX's names and arguments: Philox4x64-10, in NumPy's integers.

A key is an array of two numbers of uint64. It may be an argument, be traced, and be mapped over by `vmap`.
All of it also runs untraced, with the same numbers.
"""

from __future__ import annotations

from graphjit.random.distributions import bernoulli, bits, categorical, normal, randint, uniform
from graphjit.random.keys import fold_in, key, split

__all__ = ["bernoulli", "bits", "categorical", "fold_in", "key", "normal", "randint", "split", "uniform"]
