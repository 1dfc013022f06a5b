"""Places in sorted numbers, and straight lines between them: searchsorted, interp.

A place is found by halving, for all numbers at once: as many steps as the table's length has bits, each of
which reads one entry of the table for each number. So the table may be traced too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import UnsupportedError
from graphjit.ir.types import F64, I64
from graphjit.trace.arrays.indexing import gathered
from graphjit.trace.numpy.arguments import full, node_of, promoted_arrays, tracing, wrap
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import METHODS, Trace, Tracer, implements


@implements(np.searchsorted)
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Tracer:
    """np.searchsorted. As there, nobody checks whether the table is sorted, and NaN stands at its end."""
    if sorter is not None:
        raise UnsupportedError(
            f"np.searchsorted(..., sorter=...) at {user_location()} is not compiled: pass a[sorter]"
        )
    if side not in ("left", "right"):
        raise ValueError(f"side must be one of 'left' or 'right' (got {side!r})")
    trace = tracing()
    table, values = promoted_arrays(trace, a, v)
    if len(table.shape) != 1:
        raise ValueError(
            f"object too deep for desired array: np.searchsorted looks into one axis, not {table.shape} "
            f"(at {user_location()})"
        )
    return _plain(_places(trace, wrap(trace, table), wrap(trace, values), side == "right"))


def _places(trace: Trace, table: Any, values: Any, beside: bool) -> Any:
    """How many entries are before each value; ``beside``: or equal to it."""
    length, shape = table.shape[0], values.shape
    count: Any = wrap(trace, full(trace, 0, I64, shape))
    step = 1 << (length.bit_length() - 1) if length else 0
    while step:
        more = count + step
        entry: Any = _at(trace, table, np.minimum(more, length) - 1)
        before = entry <= values if beside else entry < values
        if values.dtype.kind == "f":
            before = before | (np.isnan(values) & (True if beside else ~np.isnan(entry)))
        count = np.where((more <= length) & before, more, count)
        step >>= 1
    return count


def _at(trace: Trace, table: Any, places: Any) -> Tracer:
    """Entries of a table."""
    return wrap(trace, gathered(trace, table._node, [places._node], (0,)))


@implements(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Tracer:
    """np.interp. The derivative at a knot is that of the piece on its right, at the last one of the last
    piece; beyond the ends it is 0.
    """
    if period is not None:
        raise UnsupportedError(
            f"np.interp(..., period=...) at {user_location()} is not compiled: take x % period, and repeat a point "
            "of the table at either end"
        )
    trace = tracing()
    nodes = [trace.convert(node_of(trace, value), F64) for value in (x, xp, fp)]
    values, knots, heights = (wrap(trace, node) for node in nodes)
    if knots.ndim != 1 or heights.ndim != 1:
        raise ValueError(f"object of too small depth or too deep for desired array (at {user_location()})")
    length = knots.shape[0]
    if not length:
        raise ValueError(f"array of sample points is empty (at {user_location()})")
    if heights.shape[0] != length:
        raise ValueError(f"fp and xp are not of the same length. (at {user_location()})")
    found: Any = heights[0] if length == 1 else _between(trace, values, knots, heights)
    found = np.where(values < knots[0], heights[0] if left is None else left, found)
    return _plain(
        np.where(values > knots[length - 1], heights[length - 1] if right is None else right, found)
    )


def _between(trace: Trace, values: Any, knots: Any, heights: Any) -> Any:
    """The line through the knots on either side of each value; NaN stays."""
    last = knots.shape[0] - 1
    place: Any = np.clip(_places(trace, knots, values, True) - 1, 0, last - 1)
    x0, x1 = _at(trace, knots, place), _at(trace, knots, place + 1)
    y0, y1 = _at(trace, heights, place), _at(trace, heights, place + 1)
    slope: Any = (y1 - y0) / (x1 - x0)
    at_last: Any = values == knots[last]  # from there, so that its own height comes out
    found: Any = np.where(at_last, slope * (values - x1) + y1, slope * (values - x0) + y0)
    # Where heights are infinite, or the last two knots are one: a knot has its height, a flat piece is flat.
    steep: Any = ~np.isfinite(slope)
    beside = np.where(np.isnan(found), slope * (values - x1) + y1, found)
    beside = np.where(np.isnan(beside) & (y0 == y1) & ~np.isnan(values), y0, beside)
    beside = np.where(values == x0, y0, beside)
    return np.where(steep, np.where(at_last, y1, beside), found)


def _plain(x: Any) -> Tracer:
    """A single number as such, as functions of NumPy return it, and not as an array without axes."""
    return wrap(tracing(), x._node)


METHODS["searchsorted"] = searchsorted
