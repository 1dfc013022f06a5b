"""Random programs of assignments, views and reductions see the same as NumPy (``python
tests/harness/random_views.py N --seed S`` runs more).
"""

from __future__ import annotations

import numpy as np
import pytest
from random_views import Program, Step, compare, draw

BLOCKS = 20


@pytest.mark.sample(4)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_programs(block: int) -> None:
    refused = 0
    for seed in range(100 * block, 100 * (block + 1)):
        found = compare(draw(seed))
        if found is not None and found.startswith("refused"):
            refused += 1
        else:
            assert found is None, f"seed {seed}: {found}"
    assert refused < 5


@pytest.mark.slow
def test_more_random_programs() -> None:
    for seed in range(10_000, 30_000):
        found = compare(draw(seed))
        assert found is None or found.startswith("refused"), f"seed {seed}: {found}"


def test_a_lost_write_is_seen() -> None:
    lost = Step(
        "lost",
        lambda variables: variables.append(
            np.array([1.0]) if isinstance(variables[0], np.ndarray) and variables[0].flags.owndata else 0
        ),
        (),
    )
    assert compare(Program([np.zeros(3)], [lost])) is None

    def write_a_copy(variables: list[np.ndarray]) -> None:
        view = variables[0][1:]
        (view if type(variables[0]) is np.ndarray else view.copy())[0] = 5.0

    assert "values of variable 0" in (
        compare(Program([np.zeros(3)], [Step("write", write_a_copy, ())])) or ""
    )
