"""What graphjit is held to, as far as one run can tell: each figure with its limit, met or missed.

Input: a `Record`. Output: `report.Row`s. Invariant: a target is judged by its worst row, which is named;
where the run holds nothing to judge it by, it does not appear.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator

from benchmarks.reporting.report import Row
from benchmarks.results import Measurement, Record, geometric_mean

Figure = Callable[[Measurement], float | None]
NATIVE = "native"
FROM_256 = ("matmul_256", "matmul_512", "matmul_1024", "matmul_skinny_256x784x128")
BELOW_256 = ("matmul_8", "matmul_16", "matmul_32", "matmul_64", "matmul_128")
SINGLE_LIMIT = 1.05
TRANSFORMED = (
    *("projection_jacobians", "hand_tracking", "hand_jacobian", "rosenbrock_hessian", "hvp_mlp"),
    *("per_example_gradients", "bundle_adjustment"),
)
"""Families of what is made of a function by other transformations than its gradient."""
JACOBIANS, CHECKPOINTED = "projection_jacobians_1e5", "deep_network_checkpoint_50x256"


def targets(record: Record) -> list[Row]:
    """All targets that the record can answer, in the order of the suite's description."""
    return [row for row in _all(record) if row is not None]


def losers(record: Record) -> list[Measurement]:
    """Rows in which the best peer beats us by more than SINGLE_LIMIT allows, worst first."""
    slow = [
        (ratio, row) for row in record.rows if (ratio := row.ratio()) is not None and ratio > SINGLE_LIMIT
    ]
    return [row for _, row in sorted(slow, key=lambda pair: -pair[0])]


def _all(record: Record) -> Iterator[Row | None]:
    rivals = against()
    mean = geometric_mean(map(rivals, record.rows))
    yield None if mean is None else _mean("all workloads, geometric mean", mean, "best peer", 0.25)
    yield _worst(record, "any single workload", "*", rivals, "x best peer", at_most=SINGLE_LIMIT)
    for names, limit in (("scalar vector8", 0.05), ("pytree6 pytree60", 0.1)):
        yield _worst(record, f"call overhead, {names}", names, against("jax"), "x jax", at_most=limit)
    yield _worst(
        record, "call overhead, scalar vector8", "scalar vector8", rivals, "x best peer", at_most=0.15
    )
    first = geometric_mean(row.first_ratio("jax") for row in record.rows)
    yield None if first is None else _mean("first call, geometric mean", first, "jax", 0.25)
    greeks = "black_scholes_1e5 black_scholes_1e7"
    yield _worst(record, "Black-Scholes greeks", greeks, rivals, "x best peer", at_most=0.1)
    yield _worst(record, "Black-Scholes greeks", greeks, against(NATIVE), "x native", at_most=1.25)
    yield _worst(
        record, "Black-Scholes greeks", greeks, against("native-reused"), "x native-reused", at_most=1.25
    )
    rows = "softmax_cross_entropy_* layer_norm_*"
    yield _worst(record, "softmax cross-entropy, layer norm", rows, rivals, "x best peer", at_most=0.4)
    small = "pairwise_energy_* small_matrices_* rotations_* determinants_*"
    yield _worst(record, "pairwise energy, small matrices", small, rivals, "x best peer", at_most=0.15)
    yield from _products(record)
    yield from _transformations(record)
    for name, limit in (("mlp_16_32_32_4", 0.15), ("mlp_784_128_10", 0.75), ("mlp_784_512_512_10", 0.9)):
        yield _worst(record, name, name, rivals, "x best peer", at_most=limit)
    cache = record.machine["last_cache_bytes"]

    def of_bandwidth(row: Measurement) -> float | None:
        return row.fraction(record.limits) if row.traffic_bound(record.limits, cache) else None

    yield _worst(record, "memory-bound workloads", "*", of_bandwidth, "of bandwidth", at_least=0.8)
    yield _worst(record, "peak memory", "*", Measurement.memory_ratio, "x lowest peer", at_most=1.1)
    yield _worst(record, "native references", "*", against(NATIVE), "x native", at_most=1.2)


def _transformations(record: Record) -> Iterator[Row | None]:
    rivals, jax = against(), against("jax")
    yield _worst(record, "small Jacobians", JACOBIANS, jax, "x jax", at_most=0.1)
    yield _worst(record, "small Jacobians", JACOBIANS, against(NATIVE), "x native", at_most=1.0)
    for what, names in (("gradient", "hand_tracking_*"), ("Jacobian", "hand_jacobian_*")):
        yield _worst(record, f"hand tracking, {what}", names, jax, "x jax", at_most=0.5)
    for what, names, limit in (
        ("Hessian of Rosenbrock", "rosenbrock_hessian_*", 0.2),
        ("Hessian products of networks", "hvp_mlp_*", 0.7),
        ("gradients of each example", "per_example_gradients_*", 0.5),
    ):
        yield _worst(record, what, names, rivals, "x best peer", at_most=limit)
    first = geometric_mean(row.first_ratio("jax") for row in record.rows if row.family in TRANSFORMED)
    what = "first call of these and bundle adjustment, geometric mean"
    yield None if first is None else _mean(what, first, "jax", 0.25)
    plain = {row.name: row for row in record.rows}

    def of_plain(amount: Figure) -> Figure:
        def figure(row: Measurement) -> float | None:
            beside = plain.get(row.name.replace("_checkpoint", ""))
            ours, theirs = amount(row), None if beside is None else amount(beside)
            return ours / theirs if ours is not None and theirs else None

        return figure

    arena, time = of_plain(lambda row: row.arena), of_plain(Measurement.median)
    yield _worst(record, "checkpoint, arena", CHECKPOINTED, arena, "of the plain one", at_most=0.25)
    yield _worst(record, "checkpoint, time", CHECKPOINTED, time, "of the plain one", at_most=1.4)


def _products(record: Record) -> Iterator[Row | None]:
    def of_peak(row: Measurement) -> float | None:
        median = row.median()
        return None if median is None else row.flops / median / record.limits.best_arithmetic(row.dtype)

    def of_cores(row: Measurement) -> float | None:
        """Of the peak of as many cores as the product kept busy; the time of one that shares a core is not
        its own.
        """
        median, peaks = row.median(), record.limits.arithmetic[row.dtype]
        cores = max((count for count in peaks if count <= max(1.0, round(row.cores))), default=1)
        return None if median is None else row.flops / median / peaks[cores]

    blas = against("torch", "numpy")
    large, small = " ".join(FROM_256), " ".join(BELOW_256)
    yield _worst(record, "products from 256^3", large, of_peak, "of FMA peak", at_least=0.75)
    yield _worst(record, "products from 256^3", large, blas, "x best BLAS", at_most=1.0)
    yield _worst(record, "products below 256^3", small, of_cores, "of peak of cores used", at_least=0.65)
    yield _worst(record, "product 64^3", "matmul_64", against("torch"), "x torch", at_most=0.6)
    yield _worst(record, "product 8^3", "matmul_8", against("numpy"), "x numpy", at_most=0.3)


def against(*peers: str) -> Figure:
    """Our time over that of the fastest of `peers` (default: the rivals)."""
    return lambda row: row.ratio(*peers)


def _mean(what: str, mean: float, peer: str, limit: float) -> Row:
    return Row(what, "", "", f"{mean:.3g}x {peer}", f"<= {limit:g}x", mean <= limit)


def _worst(
    record: Record,
    what: str,
    names: str,
    figure: Figure,
    unit: str,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row | None:
    """The worst figure among the workloads that match one of `names` (patterns, blanks between), held to its
    limit.
    """
    found = [
        (value, row)
        for row in record.rows
        if any(fnmatch.fnmatchcase(row.workload, pattern) for pattern in names.split())
        and (value := figure(row)) is not None
    ]
    if not found:
        return None
    if at_most is not None:
        met = sum(value <= at_most for value, _ in found)
        value, row = max(found, key=lambda pair: pair[0])
        limit = f"<= {at_most:g}"
    else:
        assert at_least is not None, "a target has a limit"
        met = sum(value >= at_least for value, _ in found)
        value, row = min(found, key=lambda pair: pair[0])
        limit = f">= {at_least:g}"
    beside = f"worst of {len(found)}: {row.name}" if len(found) > 1 else row.name
    return Row(
        what,
        f"{met} of {len(found)} met",
        beside,
        f"{value:.3g}{'' if unit[0] == 'x' else ' '}{unit}",
        limit,
        met == len(found),
    )
