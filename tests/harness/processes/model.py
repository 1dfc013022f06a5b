"""A small model with parameters in containers, of both precisions, and data for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.trace.pytree import flatten


@dataclass
class Params:
    """Two layers."""

    hidden: dict[str, np.ndarray]
    out: tuple[np.ndarray, float]
    activation: str = "tanh"


def predicted(p: Any, x: np.ndarray) -> np.ndarray:
    hidden = np.tanh(x @ p.hidden["w"] + p.hidden["b"])
    return hidden @ p.out[0] + p.out[1]


def loss(p: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """Mean squared error with a penalty, and the mean of each column."""
    return np.mean((predicted(p, x) - y) ** 2) + 0.1 * np.sum(p.out[0] ** 2), {"columns": np.mean(x, axis=0)}


def total(p: Any, x: np.ndarray, y: np.ndarray, power: float) -> Any:
    """A sum over rows."""
    return np.sum(np.abs(predicted(p, x) - y) ** power)


def arguments(rows: int) -> tuple[Params, np.ndarray, np.ndarray]:
    """Parameters and data; the same for each number of rows."""
    rng = np.random.default_rng(7)
    hidden = {"w": rng.normal(size=(5, 7)), "b": rng.normal(size=7).astype(np.float32)}
    params = Params(hidden, (rng.normal(size=7).astype(np.float32), 0.5))
    return params, rng.normal(size=(rows, 5)), rng.normal(size=rows)


def digest(tree: Any) -> str:
    """Of all bits, dtypes and shapes in a result, and of its containers."""
    leaves, spec = flatten(tree)
    text = hashlib.md5(str(spec).encode())
    for leaf in leaves:
        array = np.asarray(leaf)
        text.update(f"{type(leaf)} {array.dtype} {array.shape}".encode() + array.tobytes())
    return text.hexdigest()
