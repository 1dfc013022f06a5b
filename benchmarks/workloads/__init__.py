"""All workloads by name. One module per family; each exports `WORKLOADS`, a tuple of `Workload`."""

from __future__ import annotations

from benchmarks.workload import Workload
from benchmarks.workloads import (
    black_scholes,
    call_overhead,
    elementwise_chain,
    log_sum_exp,
    logistic_regression,
    mlp,
    pairwise_energy,
    python_loop,
    small_matrices,
    stencil,
)

_FAMILIES = (
    call_overhead,
    black_scholes,
    mlp,
    log_sum_exp,
    elementwise_chain,
    logistic_regression,
    small_matrices,
    stencil,
    pairwise_energy,
    python_loop,
)

WORKLOADS: dict[str, Workload] = {workload.name: workload for family in _FAMILIES for workload in family.WORKLOADS}
