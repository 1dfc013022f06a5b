"""Whether two libraries computed the same: asked before either of them is timed.

Input: results as pytrees of any library's arrays. Output: the largest relative difference, or the reason why
there is none. Invariant: NaN differs from everything, itself included.
"""

from __future__ import annotations

import numpy
import optree

from benchmarks.workload import Pytree


def leaves(tree: Pytree) -> list[numpy.ndarray]:
    """The leaves of any library's result as NumPy arrays, dicts in sorted key order."""
    return [numpy.asarray(leaf) for leaf in optree.tree_leaves(tree)]


def largest_difference(ours: Pytree, theirs: Pytree) -> float:
    """Largest entry of |ours - theirs| of any leaf, relative to the largest entry of that leaf of `theirs`.

    Raises ValueError when the trees differ in their number of leaves, or leaves in shape or dtype.
    """
    left, right = leaves(ours), leaves(theirs)
    if [(leaf.shape, leaf.dtype) for leaf in left] != [(leaf.shape, leaf.dtype) for leaf in right]:
        raise ValueError(f"results differ in shape or dtype: {_shapes(left)} against {_shapes(right)}")
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if a.size:
            scale = float(numpy.max(numpy.abs(b))) or 1.0
            difference = float(numpy.max(numpy.abs(a - b))) / scale
            # max() would keep the other number where one is NaN.
            worst = difference if difference != difference else max(worst, difference)
        if worst != worst:
            return worst
    return worst


def disagreement(ours: Pytree, theirs: Pytree, tolerance: float) -> str:
    """Why `theirs` may not be timed beside `ours`; empty where they agree."""
    try:
        difference = largest_difference(ours, theirs)
    except ValueError as error:
        return str(error)
    return "" if difference <= tolerance else f"differs from graphjit by {difference:.1e}"


def _shapes(arrays: list[numpy.ndarray]) -> str:
    return ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
