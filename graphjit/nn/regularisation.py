"""What large parameters cost: sums over all arrays of a container."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.trace.pytree import flatten


def l1_penalty(params: Any, weight: float = 1.0) -> Any:
    """The sum of all absolute values in a container.

    Parameters
    ----------
    params : array or container of arrays
        Parameters. Leaves that are not floating point, such as counters, strings or None, do not count.
    weight : float, optional
        A factor of the sum.

    Returns
    -------
    number
        ``weight * sum(abs(x))``; the derivative at 0 is 0.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> float(graphjit.nn.l1_penalty({"w": np.array([1.0, -2.0]), "b": np.array(3.0)}, 0.5))
    3.0
    """
    return _summed(np.abs, params, weight)


def l2_penalty(params: Any, weight: float = 1.0) -> Any:
    """The sum of all squares in a container.

    Parameters
    ----------
    params : array or container of arrays
        Parameters. Leaves that are not floating point, such as counters, strings or None, do not count.
    weight : float, optional
        A factor of the sum: 1/2 makes the gradient the parameters themselves.

    Returns
    -------
    number
        ``weight * sum(x**2)``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> float(graphjit.nn.l2_penalty({"w": np.array([1.0, -2.0]), "b": np.array(3.0)}, 0.5))
    7.0
    """
    return _summed(np.square, params, weight)


def _summed(function: Callable[[Any], Any], params: Any, weight: float) -> Any:
    """A weighted sum over all elements of all floating-point leaves."""
    leaves = [leaf for leaf in flatten(params)[0] if _floating(leaf)]
    return weight * sum(np.sum(function(leaf)) for leaf in leaves)


def _floating(leaf: Any) -> bool:
    """Whether a leaf holds floating-point numbers."""
    return leaf.dtype.kind == "f" if hasattr(leaf, "dtype") else isinstance(leaf, float)
