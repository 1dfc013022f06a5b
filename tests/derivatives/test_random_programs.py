"""Random NumPy programs: value = NumPy's, grad = jvp = vjp = differences. `random_programs.py` runs any
number of them.
"""

from __future__ import annotations

import pytest
from grids import parts
from random_programs import random_program, verdict

CHUNK = 30


def check(seeds: range) -> None:
    unjudged = 0
    for seed in seeds:
        source, args = random_program(seed)
        found = verdict(source, args, seed)
        assert not found.why, f"seed {seed}: {found.why}\n{source}"
        unjudged += bool(found.unjudged)
    assert unjudged <= 0.1 * len(seeds), (
        f"finite differences judge too few programs: {unjudged} of {len(seeds)} are without"
    )


@pytest.mark.sample(2)
@pytest.mark.parametrize("chunk", parts(2))
def test_derivatives_agree(chunk: int) -> None:
    check(range(chunk * CHUNK, (chunk + 1) * CHUNK))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(20))
def test_derivatives_of_more_programs_agree(chunk: int) -> None:
    check(range(1000 + chunk * 50, 1000 + (chunk + 1) * 50))


def test_the_check_sees_a_wrong_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from graphjit.ir.opdef import REGISTRY, Partials

    wrong = Partials(lambda b, out, x: b.mul(b.cos(x), 1.01))
    monkeypatch.setitem(REGISTRY["sin"].__dict__, "derivative", wrong)
    source = "def program(x, y):\n    return np.sum(np.sin(x * 1.2345) * y)\n"
    assert "difference" in verdict(source, (np.array([0.3, 0.7]), np.array([1.0, 2.0])), 0).why
