"""`graphjit.optim` against optax: its recorded numbers, and itself where it is installed."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
from optimisers.cases import COUNTS, OPTIMISERS, SCHEDULES, flat, gradients, recorded, start, trajectory

import graphjit
from graphjit import optim
from graphjit.trace.pytree import flatten

RECORDED = recorded()


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_all_cases_are_recorded():
    assert RECORDED["optimisers"].keys() == OPTIMISERS.keys()
    assert RECORDED["schedules"].keys() == SCHEDULES.keys()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_hundred_steps_are_optaxs(name):
    close(trajectory(optim, OPTIMISERS[name]), RECORDED["optimisers"][name])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_hundred_compiled_steps_are_optaxs(name):
    compiled = graphjit.jit(OPTIMISERS[name](optim).update)
    close(trajectory(optim, OPTIMISERS[name], compiled), RECORDED["optimisers"][name])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_optaxs(name):
    schedule = SCHEDULES[name](optim)
    compiled = graphjit.jit(schedule)
    for made in (int, np.int32, lambda count: np.array(count, np.int32)):
        close([float(schedule(made(count))) for count in COUNTS], RECORDED["schedules"][name])
    close([float(compiled(np.int32(count))) for count in COUNTS], RECORDED["schedules"][name])


def test_a_decay_that_begins_late_is_quiet_before():
    """No power of a large negative number, which overflows and warns."""
    decay = optim.exponential_decay(1.0, 1, 0.5, transition_begin=2000)
    later = optim.join_schedules([optim.constant_schedule(3.0), optim.exponential_decay(1.0, 1, 0.5)], [2000])
    assert [decay(count) for count in (0, 2000, 2001)] == [1.0, 1.0, 0.5]
    assert [later(count) for count in (0, 2000, 2001)] == [3.0, 1.0, 0.5]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optax_itself(name):
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    with jax.experimental.enable_x64():
        close(trajectory(optim, OPTIMISERS[name]), trajectory(optax, OPTIMISERS[name]))


# ------------------------------------------------------------------------------------------------- containers


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("compiled", [False, True])
def test_single_precision_stays(name, compiled):
    optimiser = OPTIMISERS[name](optim)
    params = {key: p.astype(np.float32) for key, p in start().items()}
    state = optimiser.init(params)
    update = graphjit.jit(optimiser.update) if compiled else optimiser.update
    for number in range(3):
        slopes = {key: g.astype(np.float32) for key, g in gradients(params, number).items()}
        updates, state = update(slopes, state, params)
        params = optim.apply_updates(params, updates)
    dtypes = {np.asarray(leaf).dtype for leaf in flatten((params, updates, state))[0]}
    assert dtypes <= {np.dtype(np.float32), np.dtype(np.int32)}


@pytest.mark.parametrize("rate", [0.05, np.float64(0.05), np.array(0.05), lambda count: np.float64(0.05)])
def test_a_rate_is_a_number_an_array_or_a_schedule(rate):
    params = np.ones(3, np.float32)
    optimiser = optim.sgd(rate)
    updates, _ = optimiser.update(2 * params, optimiser.init(params), params)
    assert updates.dtype == np.float32
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


def test_a_rate_may_be_an_argument_of_the_step():
    @graphjit.jit
    def step(params, state, rate):
        optimiser = optim.adam(rate)
        updates, state = optimiser.update(params, state, params)
        return optim.apply_updates(params, updates), state

    params = np.array([1.0, -2.0])
    state = optim.adam(0.1).init(params)
    np.testing.assert_allclose(step(params, state, 0.1)[0], [0.9, -1.9])
    np.testing.assert_allclose(step(params, state, np.array(0.5))[0], [0.5, -1.5])


def test_any_container():
    pair = namedtuple("pair", "a b")
    params = [pair(np.ones(2), None), OrderedDict(w=np.full((2, 2), 3.0), b=2.0)]
    optimiser = optim.adamw(0.1)
    updates, state = optimiser.update(params, optimiser.init(params), params)
    new = optim.apply_updates(params, updates)
    assert isinstance(new[0], pair)
    assert isinstance(new[1], OrderedDict)
    assert new[0].b is None
    assert new[1]["b"] == pytest.approx(1.9, abs=1e-4)
    assert state[0].mu[0].b is None


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_parameter_may_be_a_python_number(name):
    optimiser = OPTIMISERS[name](optim)
    params, grads = {"w": 2.0, "b": -1.0}, {"w": 0.5, "b": 3.0}
    arrays, array_grads = ({key: np.array([x]) for key, x in tree.items()} for tree in (params, grads))
    updates, _ = optimiser.update(grads, optimiser.init(params), params)
    want, _ = optimiser.update(array_grads, optimiser.init(arrays), arrays)
    new, wanted = optim.apply_updates(params, updates), optim.apply_updates(arrays, want)
    close([new["w"], new["b"]], [wanted["w"][0], wanted["b"][0]])


def test_moments_of_another_dtype():
    params = np.ones(3, np.float32)
    for optimiser in (optim.adam(0.1, mu_dtype=np.float64), optim.lion(0.1, mu_dtype=np.float64)):
        state = optimiser.init(params)
        for _ in range(2):
            _, state = optimiser.update(params, state, params)
        assert state[0].mu.dtype == np.float64
    momentum = optim.sgd(0.1, momentum=0.9, accumulator_dtype=np.float64)
    assert momentum.update(params, momentum.init(params))[1][0].trace.dtype == np.float64


def test_counts_are_int32_and_end_at_the_largest():
    step = optim.scale_by_schedule(lambda count: 1.0)
    state = step.init(None)
    assert state.count.dtype == np.int32
    last = type(state)(np.int32(2**31 - 1))
    assert step.update(1.0, last)[1].count == 2**31 - 1
    assert graphjit.jit(step.update)(1.0, last)[1].count == 2**31 - 1


def test_a_state_of_a_chain_is_the_tuple_of_states():
    params = start()
    state = optim.chain(optim.clip(1.0), optim.adam(0.1), optim.identity()).init(params)
    assert [type(part).__name__ for part in state] == ["EmptyState", "tuple", "EmptyState"]
    assert state[1][0]._fields == ("count", "mu", "nu")


def test_clipping_leaves_what_is_short():
    grads = {"a": np.array([3.0, 0.0]), "b": np.array(4.0)}
    step = optim.clip_by_global_norm(5.0)
    assert flat({"w": step.update(grads, ())[0]["a"], "b": step.update(grads, ())[0]["b"][None]}) == [3, 0, 4]
    assert optim.global_norm(step.update({"a": grads["a"] * 10, "b": 40.0}, ())[0]) == pytest.approx(5.0)
    zero = {"a": np.zeros(2)}
    assert step.update(zero, ())[0]["a"].tolist() == [0, 0]  # no division by zero, which would warn


def test_updates_have_derivatives():
    """A rate is found by descent on the loss after a step."""

    def after(rate):
        optimiser = optim.sgd(rate)
        x = np.array([1.0, 2.0])
        updates, _ = optimiser.update(2 * x, optimiser.init(x), x)
        return np.sum(optim.apply_updates(x, updates) ** 2)

    assert graphjit.grad(after)(0.25) == pytest.approx(-10.0)


def test_errors():
    params = {"w": np.ones(2)}
    with pytest.raises(ValueError, match="weight decay needs the parameters"):
        optim.adamw(0.1).update(params, optim.adamw(0.1).init(params))
    with pytest.raises(ValueError, match="chain of 2 steps got a state of 1"):
        optim.sgd(0.1).update(params, (optim.EmptyState(),))
    with pytest.raises(ValueError, match="containers of different structure"):
        optim.adam(0.1).update({"v": np.ones(2)}, optim.adam(0.1).init(params))
    with pytest.raises(ValueError, match=r"mask=.* does not fit"):
        optim.masked(optim.trace(0.9), {"v": True}).init(params)
    with pytest.raises(ValueError, match="decay_steps must be positive"):
        optim.cosine_decay_schedule(1.0, 0)
    with pytest.raises(ValueError, match="must be more than warmup_steps, not 10 and 10"):
        optim.warmup_cosine_decay_schedule(0.0, 1.0, 10, 10)
    with pytest.raises(ValueError, match="no factor may be negative"):
        optim.piecewise_constant_schedule(1.0, {3: -1.0})
    with pytest.raises(ValueError, match="2 schedules need 1 boundaries, not 2"):
        optim.join_schedules([abs, abs], [1, 2])
