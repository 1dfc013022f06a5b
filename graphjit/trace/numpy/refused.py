"""NumPy functions that are not compiled although people reach for them, each with advice what to do instead.

For example ``np.sort(x)`` of a traced value raises and says to order the data outside of the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from graphjit.errors import TraceError, UnsupportedError
from graphjit.trace.recording.calls import public_name
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import implements


def _refuse(functions: list[Callable[..., Any]], kind: type[Exception], advice: str) -> None:
    """Bind functions to an error of this kind with this advice."""
    for function in functions:

        def refused(*args: Any, _name: str = public_name(function), **kwargs: Any) -> NoReturn:
            raise kind(f"{_name} of a traced value at {user_location()} is not compiled: {advice}")

        implements(function)(refused)


_refuse(
    [
        np.sort,
        np.argsort,
        np.lexsort,
        np.partition,
        np.argpartition,
        np.median,
        np.percentile,
        np.quantile,
        np.nanmedian,
    ],
    UnsupportedError,
    "sorting is not there yet; order the data outside the compiled function and pass it in",
)
_refuse(
    [np.unique, np.unique_values, np.intersect1d, np.union1d, np.setdiff1d, np.trim_zeros],
    TraceError,
    "the shape of the result depends on values; compute it outside the compiled function",
)
_refuse(
    [np.digitize, np.histogram, np.bincount],
    UnsupportedError,
    "np.searchsorted(edges, x, side='right') gives positions in edges that increase",
)
_refuse(
    [
        np.linalg.eig,
        np.linalg.eigvals,
        np.linalg.svd,
        np.linalg.svdvals,
        np.linalg.pinv,
        np.linalg.lstsq,
        np.linalg.matrix_rank,
        np.linalg.cond,
    ],
    UnsupportedError,
    "this decomposition is not there yet",
)
_refuse(
    [np.array_str, np.array_repr, np.array2string, np.save, np.savetxt],
    TraceError,
    "values are known only when the compiled code runs",
)
_refuse([np.put, np.put_along_axis, np.place], UnsupportedError, "assign with x[index] = value")
_refuse(
    [np.apply_along_axis, np.apply_over_axes, np.piecewise],
    UnsupportedError,
    "write it with np.where and whole-array functions",
)
