"""Random NumPy programs that tell every value: the same values in the same order as NumPy, under every
transformation; and `check_grads` and `debug_nans` find no fault in them.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.special as sp
from random_programs import random_program

import graphjit
from graphjit import debug

SEEDS = range(40, 52)


def telling(seed: int):
    """A random program that tells each of its values, its arguments, and the list of what it told."""
    source, args = random_program(seed)
    source = re.sub(r"(?m)^    (t\d+)(.*)$", r"    \1\2\n    debug.callback(tell, '\1', \1)", source)
    told: list[tuple[str, np.ndarray]] = []
    scope = {
        "np": np,
        "sp": sp,
        "debug": debug,
        "tell": lambda name, value: told.append((name, np.asarray(value))),
    }
    exec(source, scope)
    return scope["program"], args, told


def same(told, expected) -> None:
    assert [name for name, _ in told] == [name for name, _ in expected]
    for (name, found), (_, value) in zip(told, expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-12, err_msg=name)
    told.clear()


@pytest.mark.sample(3)
@pytest.mark.parametrize("seed", SEEDS)
def test_values_are_told_once_and_in_order(seed):
    program, args, told = telling(seed)
    with np.errstate(all="ignore"):
        program(*args)
    expected = list(told)
    told.clear()
    assert expected
    tangents = tuple(np.ones_like(a) for a in args)
    for call in (
        lambda: graphjit.jit(program)(*args),
        lambda: graphjit.grad(program, (0, 1))(*args),
        lambda: graphjit.jit(graphjit.grad(graphjit.checkpoint(program)))(*args),
        lambda: graphjit.jvp(program, args, tangents),
        lambda: graphjit.hvp(program, args, tangents),
        lambda: graphjit.vjp(program, *args)[1](1.0),
    ):
        call()
        same(told, expected)
    with graphjit.disable_jit(), np.errstate(all="ignore"):
        graphjit.grad(program)(*args)
        same(told, expected)


@pytest.mark.sample(2)
@pytest.mark.parametrize("seed", SEEDS)
def test_batches_tell_statement_by_statement(seed):
    program, args, told = telling(seed)
    others = tuple(a * 0.9 + 0.01 for a in args)
    runs = []
    with np.errstate(all="ignore"):
        for given in (args, others):
            program(*given)
            runs.append(list(told))
            told.clear()
    stacked = tuple(np.stack(pair) for pair in zip(args, others, strict=True))
    by_statement = [element for statement in zip(*runs, strict=True) for element in statement]
    for f in (graphjit.vmap(program), graphjit.vmap(graphjit.grad(program))):
        f(*stacked)
        same(told, by_statement)
    # The first argument is the same for both elements: what depends on it alone is told once.
    graphjit.grad(lambda x, y: np.sum(graphjit.vmap(program, in_axes=(None, 0))(x, y)))(args[0], stacked[1])
    names = [name for name, _ in told]
    assert set(names) == {name for name, _ in runs[0]}
    assert all(names.count(name) in (1, 2) for name in names)


@pytest.mark.sample(2)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_wrong_with_good_programs(seed):
    program, args, _ = telling(seed)
    value = graphjit.value_and_grad(program)
    with graphjit.debug_nans():
        watched = value(*args)
    for a, b in zip(watched, value(*args), strict=True):
        np.testing.assert_array_equal(a, b)
    graphjit.check_grads(program, args, 1, rtol=1e-4, eps=1e-6)
