"""What every layer, activation and loss must do: the same values in plain NumPy, compiled, and over a batch;
the dtype of its arguments; arguments left as they are; derivatives in both modes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphjit
from graphjit.trace.pytree import flatten, tree_map

RTOL = {"f": 5e-6, "d": 1e-13}
"""Relative error by the dtype's letter; the same times the largest number is the absolute error."""


def assert_near(found: Any, expected: Any, factor: float = 1.0) -> None:
    """Equal trees of arrays, up to rounding of the dtype found."""
    for a, b in zip(flatten(found)[0], flatten(expected)[0], strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        rtol = factor * RTOL.get(a.dtype.char, 0.0)
        finite = np.abs(b[np.isfinite(b)])
        np.testing.assert_allclose(a, b, rtol, atol=rtol * float(finite.max(initial=1e-300)))


def values(f: Callable[..., Any], args: Sequence[Any], dtype: str) -> Any:
    """``f(*args)`` with floating-point arrays of the dtype, in plain NumPy; compiled it is the same."""
    given = tree_map(lambda x: cast(x, dtype), tuple(args))
    kept = tree_map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, given)
    plain, compiled = f(*given), graphjit.jit(f)(*given)
    for leaf in (*flatten(plain)[0], *flatten(compiled)[0]):
        assert np.asarray(leaf).dtype.char in (dtype, "l", "?")
    assert_near(compiled, plain, 4)
    for now, before in zip(flatten(given)[0], flatten(kept)[0], strict=True):
        np.testing.assert_array_equal(now, before)
    return plain


def cast(x: Any, dtype: str) -> Any:
    """Floating-point arrays in another dtype; everything else as it is."""
    floating = isinstance(x, np.ndarray) and x.dtype.kind == "f"
    return x.astype(dtype) if floating else x


def assert_layer(
    f: Callable[..., Any], args: Sequence[Any], expected: Any, order: int = 1, batched: bool = True
) -> None:
    """Values in both dtypes, over a batch of two, and derivatives up to an order."""
    for dtype in "fd":
        assert_near(values(f, args, dtype), expected)
    if batched:
        both = graphjit.vmap(f)(*tree_map(lambda x: np.stack([x, x]), tuple(args)))
        assert_near(both, tree_map(lambda x: np.stack([x, x]), expected), 4)
    graphjit.check_grads(f, tuple(args), order)
