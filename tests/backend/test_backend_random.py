"""Random graphs through the whole pipeline: compiled = interpreted, forward and gradient; failures shrink to
IR text.
"""

from __future__ import annotations

import pytest
from compiled_harness import examine, with_gradient
from random_graphs import random_graph


@pytest.mark.sample(4)
@pytest.mark.parametrize("chunk", range(10))
def test_forward(chunk):
    for seed in range(chunk * 12, chunk * 12 + 12):
        examine(random_graph(seed, 25), seed)


@pytest.mark.sample(2)
@pytest.mark.parametrize("chunk", range(10))
def test_gradient(chunk):
    for seed in range(1000 + chunk * 8, 1000 + chunk * 8 + 8):
        examine(with_gradient(random_graph(seed, 20, differentiable=True)), seed)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(20))
def test_many(chunk):
    for seed in range(5000 + chunk * 30, 5000 + chunk * 30 + 30):
        examine(random_graph(seed, 40), seed)
        examine(with_gradient(random_graph(seed, 30, differentiable=True)), seed)


@pytest.mark.sample(2)
@pytest.mark.parametrize("chunk", range(5))
def test_loops_and_choices(chunk):
    for seed in range(2000 + chunk * 8, 2000 + chunk * 8 + 8):
        examine(random_graph(seed, 14, control=True), seed)
        examine(with_gradient(random_graph(seed, 10, differentiable=True, control=True)), seed)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(25))
def test_many_loops_and_choices(chunk):
    for seed in range(20_000 + chunk * 40, 20_000 + chunk * 40 + 40):
        examine(random_graph(seed, 20, control=True), seed)
        examine(with_gradient(random_graph(seed, 12, differentiable=True, control=True)), seed)
