"""What `inspect` says that steps cost, against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from compiled_harness import compiled

from graphjit.loops.cost import costs
from graphjit.machine import machine
from graphjit.schedule.program import Cost


def total(function, *args) -> Cost:
    found = compiled(function, *args)
    each = costs(found.program, found.kernels)
    assert list(each) == [step.name for step in found.program.steps]
    whole = sum(each.values(), Cost())
    assert whole.nanoseconds == found.nanoseconds
    return whole


@pytest.mark.parametrize("n", [1, 7, 64, 5_000, 100_000, 100_001])
def test_elementwise(n):
    cost = total(lambda x, y: np.tanh(x) * y + 1.0, np.ones(n), np.ones(n))
    assert (cost.nbytes, cost.flops) == (3 * 8 * n, 3 * n)


@pytest.mark.parametrize("n", [7, 5_000, 100_001])
def test_sums_read_once_and_write_one_number(n):
    cost = total(lambda x: np.sum(x * x), np.ones(n, np.float32))
    assert cost.nbytes == 4 * n + 4
    # Blocks keep what they round away, and are shorter where vectors are; the last loop adds partial sums.
    assert 2 * n <= cost.flops <= 2 * n + n // 256 * (64 // machine().vector_bytes) + 256


def test_a_value_read_twice_in_one_step_moves_once():
    assert total(lambda x: (x + 1.0, x * 2.0, x - 3.0), np.ones((50, 20))).nbytes == 4 * 8 * 1000
    assert total(lambda x: x + x[::-1], np.ones(100)).nbytes == 2 * 8 * 100


def test_only_what_is_touched_moves():
    assert total(lambda x: x[10:20] * 2.0, np.ones(100_000)).nbytes == 2 * 8 * 10
    assert total(lambda x, i: x[i], np.ones(100_000), np.zeros(3, np.int64)).nbytes == 3 * (8 + 8 + 8)


def test_a_broadcast_operand_moves_once_and_costs_once_a_row():
    cost = total(lambda x, b: x + (b * 3.0)[:, None], np.ones((30, 40)), np.ones(30))
    assert cost.nbytes == 8 * (2 * 30 * 40 + 30)
    assert cost.flops == 30 * 40 + 30


@pytest.mark.parametrize("batch", [(), (5,)])
def test_products(batch):
    m, k, n = 40, 50, 60
    cost = total(np.matmul, np.ones((*batch, m, k)), np.ones((*batch, k, n)))
    size = math.prod(batch)
    rate = machine().rates.multiply_adds * machine().vector_bytes // 8  # multiply-adds in a nanosecond
    assert cost == Cost(8 * size * (m * k + k * n + m * n), 2 * size * m * n * k, size * m * n * k // rate)


def test_integer_work_is_no_flop():
    assert total(lambda x: x * 3 + 1, np.ones(50, np.int64)).flops == 0


def test_intermediate_values_are_written_and_read():
    found = compiled(lambda x: np.cumsum(np.exp(x) * 2.0) / 3.0, np.ones(100))
    each = costs(found.program, found.kernels)
    assert [cost.nbytes for cost in each.values()] == [1600] * len(each)
