"""All workloads by name. One module per family; each exports `WORKLOADS`, a tuple of `Workload`."""

from __future__ import annotations

from benchmarks.workload import Workload
from benchmarks.workloads import (
    attention,
    black_scholes,
    bundle_adjustment,
    call_overhead,
    convolutions,
    cumulative,
    deep_network,
    determinants,
    elementwise_chain,
    embedding,
    filters,
    hand_tracking,
    hessian_product,
    integrators,
    jacobian_products,
    linear_regression,
    log_sum_exp,
    logistic_regression,
    matmul,
    mlp,
    nested_descent,
    networks,
    newton,
    pairwise_energy,
    per_example_gradients,
    periodic_stencil,
    projection_jacobians,
    python_loop,
    recurrent,
    rosenbrock,
    rotations,
    row_norms,
    scalar_loops,
    skipped_layers,
    small_matrices,
    softmax_cross_entropy,
    stencil,
    train_step,
)

_FAMILIES = (
    call_overhead,
    black_scholes,
    elementwise_chain,
    log_sum_exp,
    softmax_cross_entropy,
    row_norms,
    logistic_regression,
    linear_regression,
    matmul,
    pairwise_energy,
    rosenbrock,
    mlp,
    train_step,
    attention,
    convolutions,
    networks,
    small_matrices,
    rotations,
    determinants,
    stencil,
    embedding,
    cumulative,
    hessian_product,
    jacobian_products,
    projection_jacobians,
    hand_tracking,
    per_example_gradients,
    bundle_adjustment,
    deep_network,
    python_loop,
    recurrent,
    skipped_layers,
    filters,
    integrators,
    newton,
    nested_descent,
    scalar_loops,
    periodic_stencil,
)

WORKLOADS: dict[str, Workload] = {
    workload.name: workload for family in _FAMILIES for workload in family.WORKLOADS
}


def suite(name: str) -> list[Workload]:
    """The workloads of one suite (see `benchmarks.workload`), in the order of the families."""
    return [workload for workload in WORKLOADS.values() if name in workload.suites]
