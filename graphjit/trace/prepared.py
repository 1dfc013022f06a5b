"""One run of a traced call, by the way of calls that the native entry does not take.

Job: make arguments ready for the code, run it, make the calls of Python that belong to the run, look for NaNs
where that was asked for, and put the result together.
Input: a `Staged` call, its code, concrete leaves. Output: the result.
Invariant: arguments that the function changes in place are written last, so they keep their values when
anything raises an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.backend.donation import results_in_place
from graphjit.errors import TraceError
from graphjit.trace import nonfinite
from graphjit.trace.results import check_writable
from graphjit.trace.stage import Leaf, Staged

if TYPE_CHECKING:
    from graphjit.compilation import Code


@dataclass
class Prepared:
    """One specialisation: the traced call and its code."""

    staged: Staged
    code: Code

    def run(self, leaves: Sequence[Any], kinds: Sequence[Leaf], whole: bool) -> Any:
        """Run on concrete leaves; ``whole`` is whether all results are the user's."""
        given, arrays = arguments(self.staged, leaves, kinds)
        results, name = self.staged.results, self.staged.graph.name
        if results.written:
            check_writable(results, given, self.staged.captured, name)
        outputs = self.computed(given, arrays)
        own = outputs[: len(results.nodes)]
        self.staged.told.happen(outputs[len(own) :])
        if whole and nonfinite.watched():
            nonfinite.check(arrays, own, name, lambda: (self.staged.graph, arrays))
        return results.deliver(own, given)

    def computed(self, given: Sequence[Any], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for ``given`` arguments, made ready as ``arrays``."""
        # Who looks for a NaN afterwards needs the arguments once more.
        donated = {} if nonfinite.watched() else results_in_place(self.code.in_place, given, arrays)
        try:
            return self.code.run(arrays, donated | self.staged.results.arrays_in_order(self.code.outputs))
        except Exception:
            if self.staged.told and not donated:  # what was donated may be overwritten
                self.staged.told.happen_before_error(self.staged.graph, arrays)
            raise


def arguments(
    staged: Staged, leaves: Sequence[Any], kinds: Sequence[Leaf]
) -> tuple[list[Any], list[np.ndarray]]:
    """The dynamic ones among the leaves of a call, and arrays for all inputs of its graph.

    Raises:
        TraceError: a captured array has another type now.
    """
    types = [kind.type for kind in kinds if kind.type is not None]
    given = [leaf for leaf, kind in zip(leaves, kinds, strict=True) if kind.type is not None]
    arrays = [np.require(leaf, type.dtype, ("C", "A")) for leaf, type in zip(given, types, strict=True)]
    for array, node in zip(staged.captured, staged.graph.inputs[len(arrays) :], strict=True):
        if array.shape != node.shape or array.dtype != node.dtype:
            raise TraceError(f"a captured array changed from {node.type} to {array.dtype}{list(array.shape)}")
        arrays.append(np.require(array, array.dtype, ("C", "A")))
    return given, arrays
