"""The function that ARCHITECTURE.md follows through the compiler."""

from __future__ import annotations

import numpy as np


def loss(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Mean squared error of one layer of tanh units."""
    return np.mean((np.tanh(x @ w) - y) ** 2)


EXAMPLES = {
    "loss": (np.linspace(-0.5, 0.5, 3), np.linspace(-1.0, 1.0, 24).reshape(8, 3), np.linspace(0.0, 1.0, 8))
}
