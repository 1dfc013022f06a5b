"""A whole step of training as one program: written in place, every number moved once."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import graphjit
from graphjit import optim
from graphjit.backend.llvm.entry.callable import blocks, specialisations
from graphjit.trace.pytree import flatten


def loss(p, x, y):
    hidden = np.tanh(x @ p["w1"] + p["b1"])
    return np.mean((hidden @ p["w2"] + p["b2"] - y) ** 2)


def network(dtype=np.float64, hidden=300):
    rng = np.random.default_rng(1)
    shapes = {"w1": (200, hidden), "b1": (hidden,), "w2": (hidden, 7), "b2": (7,)}
    params = {name: 0.1 * rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    return params, rng.normal(size=(16, 200)).astype(dtype), rng.normal(size=(16, 7)).astype(dtype)


def step_of(optimiser, **options):
    def step(params, state, x, y):
        value, gradient = graphjit.value_and_grad(loss)(params, x, y)
        updates, state = optimiser.update(gradient, state, params)
        return optim.apply_updates(params, updates), state, value

    return graphjit.jit(step, **options)


RATE = optim.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
# The optimiser; how many arrays of its state are as large as the parameters; how often it must read all
# gradients before it can use them.
CASES = {
    "sgd": (optim.sgd(0.1), 0, 0),
    "momentum": (optim.sgd(RATE, momentum=0.9, nesterov=True), 1, 0),
    "adagrad": (optim.adagrad(RATE), 1, 0),
    "rmsprop": (optim.rmsprop(RATE, centered=True, momentum=0.9), 3, 0),
    "adam": (optim.adam(1e-3), 2, 0),
    "adamw": (optim.adamw(RATE, mask=lambda tree: {k: k[0] == "w" for k in tree}, nesterov=True), 2, 0),
    "lion": (optim.lion(RATE), 1, 0),
    "clipped": (optim.chain(optim.clip_by_global_norm(1.0), optim.adam(RATE)), 2, 1),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_parameters_moments_and_gradients_are_moved_once(name, dtype):
    optimiser, moments, passes = CASES[name]
    params, x, y = network(dtype)
    step = step_of(optimiser, donate_argnums=(0, 1))
    lowered = step.lower(params, optimiser.init(params), x, y)
    size = sum(p.nbytes for p in params.values())
    # Parameters and moments are read and written, gradients written and read, weights read on the way there
    # and some of them on the way back. The rest is activations: of 16 rows.
    least = 2 * (1 + moments) + 2 + passes + 1
    assert least * size < lowered.cost().total.nbytes < (least + 1) * size
    memory = lowered.memory()
    assert memory.results - memory.donated < 100  # the value of the loss, the count
    assert memory.arena < 1.2 * size


@pytest.mark.parametrize("name", CASES)
def test_states_are_written_where_they_lie(name):
    optimiser = CASES[name][0]
    params, x, y = network()
    state = optimiser.init(params)
    plain, donated = step_of(optimiser), step_of(optimiser, donate_argnums=(0, 1))
    mine = copy.deepcopy((params, state))
    large = lambda trees: [leaf for leaf in flatten(trees)[0] if leaf.ndim]
    objects = large(mine)
    for _ in range(5):
        *mine, value = donated(*mine, x, y)
        params, state, wanted = plain(params, state, x, y)
        assert value == wanted
        for got, want in zip(large(mine), large((params, state)), strict=True):
            np.testing.assert_array_equal(got, want)
        assert all(now is before for now, before in zip(large(mine), objects, strict=True))
    assert len(specialisations(donated)) == 1
    held = blocks().held
    for _ in range(3):
        *mine, value = donated(*mine, x, y)
    assert blocks().held == held


def test_numbers_are_compiled_once_too():
    optimiser = optim.rmsprop(RATE, initial_scale=1.0, centered=True, momentum=0.5)
    step = graphjit.jit(lambda p, s: optimiser.update(graphjit.grad(lambda p: p["a"] ** 2)(p), s, p))
    params = {"a": 3.0}
    state = optimiser.init(params)
    for _ in range(3):
        _, state = step(params, state)
    assert len(specialisations(step)) == 1


def test_what_an_optimiser_holds_on_to_is_never_stale():
    """Its rate may be an array that changes, its schedule may read names that are bound again."""
    factor, array = 1.0, np.array(0.5)
    scheduled, constant = optim.sgd(lambda count: factor * 0.5), optim.sgd(array)
    first = graphjit.jit(lambda g: scheduled.update(g, scheduled.init(g))[0])
    second = graphjit.jit(lambda g: constant.update(g, constant.init(g))[0])
    assert (first(1.0), second(1.0)) == (-0.5, -0.5)
    factor, array[...] = 2.0, 0.75
    assert (first(1.0), second(1.0)) == (-1.0, -0.75)


def test_a_loss_goes_down_as_untraced():
    params, x, y = network(hidden=20)
    optimiser = optim.adamw(RATE)
    step = step_of(optimiser)
    compiled = untraced = (params, optimiser.init(params))
    values = []
    for _ in range(30):
        *compiled, value = step(*compiled, x, y)
        gradient = graphjit.grad(loss)(untraced[0], x, y)
        updates, state = optimiser.update(gradient, untraced[1], untraced[0])
        untraced = optim.apply_updates(untraced[0], updates), state
        values.append(value)
    assert values[-1] < 0.2 * values[0]
    for got, want in zip(flatten(compiled)[0], flatten(untraced)[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


def test_operations_of_an_optimiser_name_the_users_line():
    """And no line of the library that walks over containers."""
    params, x, y = network()
    optimiser = CASES["clipped"][0]
    step = step_of(optimiser)
    places = {node.loc for node in step.lower(params, optimiser.init(params), x, y).graph.nodes()}
    assert {place.file for place in places - {None}} == {__file__}
