"""`map` inside a trace: a scan without carries, by single elements or by batches of them.

Input: the active trace, a function of one element, arrays. Output: its results, stacked.
Invariant: the results do not depend on the size of the batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.trace.pytree import flatten, tree_map, unflatten
from graphjit.trace.recording.tracer import Trace
from graphjit.trace.transformed.batches import vmap
from graphjit.trace.transformed.control import scan
from graphjit.trace.transformed.control_bodies import stands_for


def map_each(trace: Trace, f: Callable[[Any], Any], xs: Any, length: int, batch_size: int | None) -> Any:
    """``f`` on each element along the first axes; ``batch_size`` elements at once."""

    f = trace.user(f)

    def one(carry: Any, x: Any) -> Any:
        return carry, f(x)

    def several(carry: Any, x: Any) -> Any:
        return carry, together(x)

    def together(x: Any) -> Any:
        return vmap(trace, f, (x,), {}, 0, 0, None)

    stands_for(one, f)
    stands_for(several, f)
    if batch_size is None:
        return scan(trace, one, (), xs, length, False, 1, "map")[1]
    count, rest = divmod(length, batch_size)
    if not count:
        return together(xs)
    whole = count * batch_size
    blocks = _each(xs, lambda x: np.reshape(x[:whole], (count, batch_size, *x.shape[1:])))
    found = _each(
        scan(trace, several, (), blocks, count, False, 1, "map")[1],
        lambda y: np.reshape(y, (whole, *y.shape[2:])),
    )
    if not rest:
        return found
    left, spec = flatten(together(_each(xs, lambda x: x[whole:])))
    pairs = zip(flatten(found)[0], left, strict=True)
    return unflatten(spec, [a if a is None else np.concatenate([a, b]) for a, b in pairs])


def _each(tree: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` on each array of a tree; None stays."""
    return tree_map(lambda leaf: None if leaf is None else function(leaf), tree)
