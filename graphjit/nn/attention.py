"""Attention: weighted means of values, the weights being a softmax of products of queries and keys.

Input: arrays of shape (..., length, width); axes in front are batches and heads, swept as one batch.
Output: one mean for each query.
Invariant: a query that may look at nothing gets zeros, as in PyTorch, and no derivative leaves it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from graphjit.nn.activations import softmax
from graphjit.nn.checks import complain
from graphjit.nn.dense import linear


def scaled_dot_product_attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Any:
    """For each query the mean of values, weighted by how well their keys fit.

    Parameters
    ----------
    q : ndarray
        Queries of shape (..., length, width).
    k : ndarray
        Keys of shape (..., positions, width).
    v : ndarray
        Values of shape (..., positions, features).
    mask : ndarray, optional
        What broadcasts against (..., length, positions): bools, True where a query may look at a position, or
        numbers to add to the scores, such as -inf.
    is_causal : bool, optional
        Whether query i may look at positions up to i alone. With `mask`, both hold.
    scale : float, optional
        The factor of products; ``1 / sqrt(width)`` by default.

    Returns
    -------
    ndarray
        ``softmax(scale * q @ k.T) @ v``, of shape (..., length, features).

    Raises
    ------
    ShapeError
        Widths or numbers of positions differ, an array has less than two axes, or `mask` holds integers.

    Notes
    -----
    A query that may look at nothing gets zeros, as in PyTorch, and its derivatives are zero. (JAX gives it
    the mean of all values.) Hidden keys and values have the weight 0, but they are multiplied: what fills
    them up must be finite.

    Vaswani and others, "Attention Is All You Need", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> graphjit.nn.scaled_dot_product_attention(x, x, x, is_causal=True).round(3)
    array([[1.  , 0.  ],
           [0.33, 0.67]])
    """
    name = "scaled_dot_product_attention"
    for what, x in (("q", q), ("k", k), ("v", v)):
        if np.ndim(x) < 2:
            raise complain(name, f"{what} has shape {np.shape(x)}, not (..., length, width)")
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise complain(
            name,
            f"q, k and v have shapes {q.shape}, {k.shape} and {v.shape}: queries and keys have one width, keys and "
            "values one number of positions",
        )
    if mask is not None and mask.dtype.kind not in "bf":
        raise complain(name, f"mask holds bools, or numbers to add to scores, not {mask.dtype}")
    factor = 1.0 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale
    return np.matmul(_weights(np.matmul(q, np.swapaxes(k, -1, -2)) * factor, mask, is_causal), v)


def _weights(scores: Any, mask: Any, is_causal: bool) -> Any:
    """The softmax of scores over the positions that a query may look at."""
    allowed = _up_to_now(scores) if is_causal else None
    if mask is None:
        # a query may always look at the first position, so no row is empty
        return softmax(scores if allowed is None else np.where(allowed, scores, -np.inf))
    if mask.dtype == np.bool_:
        return softmax(scores, where=mask if allowed is None else np.logical_and(mask, allowed))
    seen = np.greater(mask, -np.inf)  # a row of -inf alone would be a row of NaN
    shifted = scores + np.where(seen, mask, 0)
    return softmax(shifted, where=seen if allowed is None else np.logical_and(seen, allowed))


def _up_to_now(scores: Any) -> Any:
    """True up to the diagonal. Traced, this is a comparison of positions, and no array that is read."""
    return np.tril(np.ones_like(scores, dtype=bool, shape=scores.shape[-2:]))


def multi_head_attention(
    query: Any,
    key: Any,
    value: Any,
    w_query: Any,
    w_key: Any,
    w_value: Any,
    w_out: Any,
    b_query: ArrayLike | None = None,
    b_key: ArrayLike | None = None,
    b_value: ArrayLike | None = None,
    b_out: ArrayLike | None = None,
    *,
    num_heads: int,
    mask: Any = None,
    is_causal: bool = False,
) -> Any:
    """Several attentions side by side, each on projections of its own, and a projection of all of them.

    Parameters
    ----------
    query : ndarray
        Of shape (..., length, features).
    key, value : ndarray
        Of shape (..., positions, features); for self-attention all three are the same array.
    w_query, w_key, w_value : ndarray
        Weights of shape (features, heads * width), as `linear` takes them: the transposed thirds of PyTorch's
        ``in_proj_weight``. Head h has the columns from ``h * width`` on.
    w_out : ndarray
        Weights of shape (heads * width, out).
    b_query, b_key, b_value, b_out : array_like, optional
        Shifts after each of these products.
    num_heads : int
        The number of heads.
    mask : ndarray, optional
        As in `scaled_dot_product_attention`; it broadcasts against (..., heads, length, positions). For a
        padding of shape (batch, positions) this is ``mask[:, None, None, :]``.
    is_causal : bool, optional
        Whether query i may look at positions up to i alone.

    Returns
    -------
    ndarray
        Of shape (..., length, out).

    Raises
    ------
    ShapeError
        The heads do not divide the columns, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> x = np.ones((5, 4))
    >>> graphjit.nn.multi_head_attention(x, x, x, *[np.eye(4)] * 4, num_heads=2).shape
    (5, 4)
    """

    def heads(x: Any, w: Any, b: Any) -> Any:
        columns = w.shape[-1]
        if num_heads < 1 or columns % num_heads:
            raise complain("multi_head_attention", f"{num_heads} heads do not divide {columns} columns")
        projected = linear(x, w, b)
        split = np.reshape(projected, (*projected.shape[:-1], num_heads, columns // num_heads))
        return np.swapaxes(split, -3, -2)

    mixed = scaled_dot_product_attention(
        heads(query, w_query, b_query),
        heads(key, w_key, b_key),
        heads(value, w_value, b_value),
        mask=mask,
        is_causal=is_causal,
    )
    joined = np.swapaxes(mixed, -3, -2)
    return linear(np.reshape(joined, (*joined.shape[:-2], -1)), w_out, b_out)
