"""Normalisation beside loops over rows, groups and channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layers_harness import assert_layer, assert_near, values

import graphjit
from graphjit import nn

RNG = np.random.default_rng(11)
X = RNG.normal(size=(3, 4, 6)) * 2 + 1


def standard(rows: np.ndarray, eps: float) -> np.ndarray:
    """All elements of one array as a whole."""
    return (rows - rows.mean()) / np.sqrt(rows.var() + eps)


@pytest.mark.sample(4)
@pytest.mark.parametrize("axis", [-1, 1, (1, 2), (-1, 0), 0])
@pytest.mark.parametrize("given", [(), ("weight",), ("weight", "bias")])
def test_layer_norm(axis: Any, given: tuple[str, ...]) -> None:
    axes = tuple(sorted(i % 3 for i in (axis if isinstance(axis, tuple) else (axis,))))
    parameters = {name: RNG.normal(size=[X.shape[i] for i in axes]) for name in given}
    expected = np.empty_like(X)
    others = [i for i in range(3) if i not in axes]
    for place in np.ndindex(*[X.shape[i] for i in others]):
        at: list[Any] = [slice(None)] * 3
        for i, k in zip(others, place):
            at[i] = k
        row = standard(X[tuple(at)], 1e-3)
        expected[tuple(at)] = row * parameters.get("weight", 1.0) + parameters.get("bias", 0.0)
    layer = lambda x, parameters: nn.layer_norm(x, **parameters, axis=axis, eps=1e-3)
    assert_layer(layer, (X, parameters), expected, order=2)


@pytest.mark.sample(2)
@pytest.mark.parametrize("axis", [-1, (0, 1)])
def test_rms_norm(axis: Any) -> None:
    weight = RNG.normal(size=6 if axis == -1 else (3, 4))
    shaped = weight if axis == -1 else weight[..., None]
    expected = X / np.sqrt((X * X).mean(axis=axis, keepdims=True) + 1e-4) * shaped
    layer = lambda x, weight: nn.rms_norm(x, weight, axis=axis, eps=1e-4)
    assert_layer(layer, (X, weight), expected, order=2)


@pytest.mark.sample(3)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("axis", [1, 2])
def test_group_norm(groups: int, axis: int) -> None:
    x = RNG.normal(size=(3, 4, 5)) if axis == 1 else RNG.normal(size=(3, 5, 4))
    weight, bias = RNG.normal(size=4), RNG.normal(size=4)
    channels_last = np.moveaxis(x, axis, -1)
    expected = np.empty_like(channels_last)
    for sample in range(3):
        for group in np.split(np.arange(4), groups):
            expected[sample][:, group] = standard(channels_last[sample][:, group], 1e-5)
    expected = np.moveaxis(expected * weight + bias, -1, axis)
    layer = lambda x, w, b: nn.group_norm(x, groups, w, b, axis=axis)
    assert_layer(layer, (x, weight, bias), expected, order=2)


@pytest.mark.sample(2)
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(axis: int, training: bool) -> None:
    channels = X.shape[axis]
    mean, var, weight, bias = (
        RNG.normal(size=channels),
        RNG.random(channels) + 0.5,
        *RNG.normal(size=(2, channels)),
    )
    rows = np.moveaxis(X, axis, -1).reshape(-1, channels)
    used = (rows.mean(axis=0), rows.var(axis=0)) if training else (mean, var)
    out = np.moveaxis(
        (np.moveaxis(X, axis, -1) - used[0]) / np.sqrt(used[1] + 1e-5) * weight + bias, -1, axis
    )
    new = (
        (0.8 * mean + 0.2 * rows.mean(axis=0), 0.8 * var + 0.2 * rows.var(axis=0, ddof=1))
        if training
        else (mean, var)
    )
    layer = lambda *given: nn.batch_norm(*given, training=training, momentum=0.2, axis=axis)
    assert_layer(layer, (X, mean, var, weight, bias), (out, *new), order=2)


def test_constant_rows_have_finite_derivatives() -> None:
    x = np.full((2, 3), 4.0)
    for layer in (nn.layer_norm, lambda x: nn.group_norm(x, 1), lambda x: nn.rms_norm(0.0 * x)):
        assert not np.any(values(layer, (x,), "d"))
        slopes = graphjit.jacobian(layer)(x)
        assert np.isfinite(slopes).all()
    assert_near(
        graphjit.grad(lambda x: nn.layer_norm(x)[0, 0])(x)[0], np.array([2, -1, -1]) / 3 / np.sqrt(1e-5)
    )


def test_far_from_zero_nothing_is_lost() -> None:
    """The variance is that of differences: a large mean does not swallow it."""
    x = (np.arange(8.0) + 1e8)[None]
    assert_near(values(nn.layer_norm, (x,), "d"), nn.layer_norm(np.arange(8.0)[None]))


def test_what_does_not_fit_is_an_error() -> None:
    cases: list[tuple[Any, str]] = [
        (lambda: nn.layer_norm(X, np.ones(4)), r"layer_norm: weight has shape \(4,\), for x of shape"),
        (lambda: nn.layer_norm(X, bias=np.ones((1, 6))), "bias has shape"),
        (lambda: nn.layer_norm(X, axis=3), "there is no axis 3 in an array of 3 axes"),
        (lambda: nn.group_norm(X, 4), "4 groups do not divide 6 channels"),
        (lambda: nn.group_norm(X, 1, axis=0), "first axis is that of samples"),
        (lambda: nn.batch_norm(X, np.zeros(4), np.ones(6)), "running_mean has shape"),
        (lambda: nn.batch_norm(X[:1, :1], np.zeros(6), np.ones(6), training=True), "has no variance"),
    ]
    for call, said in cases:
        with pytest.raises(graphjit.ShapeError, match=said):
            call()
