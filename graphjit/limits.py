"""Thresholds: from where on a decision of the compiler goes the other way.

Job: hold every tuned number of the compiler, by the stage that reads it, with what was measured for it.
Input: the record of the machine, for the numbers that follow from cache sizes and vector width.
Output: `host_limits()`, the record for this machine, which `pipeline` passes down to every stage.
Invariant: nothing changes a record; a test that wants other numbers makes one and passes it:

    one_kernel = host_limits().changed(fusion={"tiny": 0})
    compile_graph(graph, limits=one_kernel)

What follows from the instruction set or the caches is computed in `Limits.of`; all other numbers stand beside
their explanation.  What an algorithm needs to be right (a table's size, the length of a series) is no limit
and stays where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from graphjit.machine import Machine, machine


class VectorLimits(NamedTuple):
    """`loops/vectorize.py`: which loop of a nest runs in SIMD lanes, and how far it is unrolled."""

    vector_bytes: int
    """Bytes of a vector register."""
    min_lanes: int = 4
    """Iterations from which lanes are worth their set-up."""
    chained: int = 3
    """Elementary functions, each waiting for the one before it, that make a chain: one vector at a time then
    leaves the processor idle."""
    chained_unroll: int = 4
    """Vectors that such a chain computes side by side (ten `tanh`: 1.77 to 0.80 ms a million)."""


class Limits(NamedTuple):
    """Every threshold, by stage."""

    vectors: VectorLimits

    @classmethod
    def of(cls, here: Machine) -> Limits:
        """The limits for a machine."""
        return cls(vectors=VectorLimits(vector_bytes=here.vector_bytes))

    def changed(self, **sections: Mapping[str, Any]) -> Limits:
        """A record with other numbers in some sections: ``changed(vectors={"min_lanes": 8})``."""
        return self._replace(
            **{name: getattr(self, name)._replace(**values) for name, values in sections.items()}
        )


@cache
def host_limits() -> Limits:
    """The limits for the machine that code is made for."""
    return Limits.of(machine())
