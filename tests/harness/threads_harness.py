"""The same function on several numbers of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.backend.llvm.threads import pool


def same_bits(value_and_grad: Callable[..., Any], *args: np.ndarray) -> None:
    """Values and gradients have the same bits on 1, 2, 3 and 8 threads."""
    before = pool.num_threads()
    results = []
    try:
        for count in (1, 2, 3, 8):
            pool.configure(count)
            value, gradients = value_and_grad(*args)
            results.append([np.asarray(value).tobytes(), *(np.asarray(g).tobytes() for g in gradients)])
    finally:
        pool.configure(before)
    assert all(result == results[0] for result in results)
