"""Schedules run step by step (`graphjit.schedule.interpret`): random graphs, every pass of the schedule, with
the thresholds of this machine and with none.
"""

from __future__ import annotations

import pytest
from compiled_harness import with_gradient
from random_graphs import random_graph, random_inputs, rng_for

from graphjit import pipeline
from graphjit.interpret import interpret
from graphjit.ir.node import Graph
from graphjit.limits import Limits, host_limits
from graphjit.running.instruments import first_difference, rounding
from graphjit.schedule.interpret import run_fusion, run_program

LIMITS = {
    "as they are": host_limits(),
    "sweeps everywhere": host_limits().changed(
        unstack={"points": 1},
        align={"rows": 1},
        sweeps={"min_rows": 2, "shared_bytes": 0, "min_batch": 2, "min_each": 2, "min_each_block": 1},
        contractions={"small": 0, "small_in_batch": 0},
    ),
    "nothing is near": host_limits().changed(
        recompute={"far_bytes": 0, "least_bytes": 0, "operation": 0},
        schedule={"worth": 1000, "small_arena": 0},
    ),
    "many small kernels": host_limits().changed(
        fusion={
            "inline_shared": 1,
            "inline": 10,
            "kernel_cost": 60,
            "kernel_values": 8,
            "look_back": 3,
            "tiny": 8,
        }
    ),
}


def check(graph: Graph, seed: int, limits: Limits) -> None:
    optimized = pipeline.optimize(graph, limits=limits)
    values = random_inputs(graph, rng_for(seed))
    wanted = interpret(optimized, *values)
    for donated in ((), range(len(values))):
        fusion, program = pipeline.schedule(optimized, donated, limits=limits)
        for outputs in (run_fusion(optimized, fusion, values), run_program(program, fusion, values)):
            for got, want in zip(outputs, wanted, strict=True):
                assert first_difference(got, want, rounding(optimized)) is None, seed


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", LIMITS)
def test_random_schedules(name: str) -> None:
    for seed in range(60_000, 60_012):
        check(random_graph(seed, 25), seed, LIMITS[name])
        check(with_gradient(random_graph(seed, 20, differentiable=True)), seed, LIMITS[name])
