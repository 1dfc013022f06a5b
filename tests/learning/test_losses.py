"""Losses beside loops over single numbers in extended precision, and at extreme arguments."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from layers_harness import assert_layer, assert_near, values

import graphjit
from graphjit import nn

RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(4, 3)) * 2, RNG.normal(size=(4, 3))
REDUCE = {"mean": np.mean, "sum": np.sum, "none": lambda losses: losses}
each = pytest.mark.parametrize("reduction", REDUCE)


def formula(name: str, x: float, y: float) -> float:
    d = x - y
    return {
        "mse": d * d,
        "mae": abs(d),
        "huber": d * d / 2 if abs(d) <= 0.7 else 0.7 * (abs(d) - 0.35),
        "hinge": max(0.0, 1 - x * y),
    }[name]


@pytest.mark.sample(4)
@each
@pytest.mark.parametrize("name", ["mse", "mae", "huber", "hinge"])
def test_losses_of_numbers(name: str, reduction: Any) -> None:
    options = {"delta": 0.7} if name == "huber" else {}
    loss = lambda x, y: getattr(nn, name)(x, y, reduction=reduction, **options)
    y = np.sign(Y) if name == "hinge" else Y
    each_one = np.array([[formula(name, a, b) for a, b in zip(*rows)] for rows in zip(X, y)])
    assert_layer(loss, (X, y), REDUCE[reduction](each_one), order=2)


def test_huber_is_smooth_at_zero_and_at_its_bound() -> None:
    loss = lambda d: nn.huber(d, 0.0, delta=0.5, reduction="sum")
    d = np.array([0.0, 0.5, -0.5, 1e200])
    assert_near(graphjit.grad(loss)(d), np.array([0.0, 0.5, -0.5, 0.5]))
    curvature = graphjit.grad(lambda d: np.sum(graphjit.grad(loss)(d)))(d)
    assert curvature[[0, 3]].tolist() == [1.0, 0.0]
    assert np.all((curvature >= 0) & (curvature <= 1))


def test_kinks_of_losses() -> None:
    assert graphjit.grad(nn.mae)(2.0, 2.0) == 0.0
    assert graphjit.grad(nn.hinge)(0.5, 2.0) == 0.0


def probabilities(*shape: int) -> np.ndarray:
    p = RNG.random(shape)
    return p / p.sum(axis=-1, keepdims=True)


@pytest.mark.sample(6)
@each
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("log_targets", [False, True])
def test_kl_divergence(reduction: Any, axis: int, log_targets: bool) -> None:
    p, q = probabilities(4, 3), probabilities(4, 3)
    if not log_targets:
        p[1] = [0.0, 0.25, 0.75]
    terms = [[float(mpmath.mpf(a) * mpmath.log(a / b)) if a else 0.0 for a, b in zip(*r)] for r in zip(p, q)]
    p, q = (np.moveaxis(a, -1, axis) for a in (np.log(p) if log_targets else p, np.log(q)))
    loss = lambda q, p: nn.kl_divergence(q, p, log_targets=log_targets, axis=axis, reduction=reduction)
    expected = REDUCE[reduction](np.sum(terms, axis=-1))
    assert_layer(lambda q: loss(q, p.astype(q.dtype)), (q,), expected, order=2, batched=False)
    if log_targets:
        graphjit.check_grads(loss, (q, p), 2)


def test_kl_divergence_of_the_impossible() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([math.log(0.5), math.log(0.5), -np.inf])
    for log_targets in (False, True):
        with np.errstate(divide="ignore"):
            given = np.log(p) if log_targets else p
        loss = lambda q: nn.kl_divergence(q, given, log_targets=log_targets)  # noqa: B023
        assert values(loss, (q,), "d") == 0.0
        assert graphjit.grad(loss)(q).tolist() == [-0.5, -0.5, 0.0]


def binary(x: float, t: float, heavier: float) -> float:
    """In 500 digits."""
    with mpmath.workdps(500):
        p = 1 / (1 + mpmath.exp(-mpmath.mpf(x)))
        return float(-heavier * t * mpmath.log(p) - (1 - t) * mpmath.log(1 - p))


@pytest.mark.sample(8)
@each
@pytest.mark.parametrize("options", ["", "weight", "pos_weight", "label_smoothing", "all"])
def test_binary_cross_entropy(reduction: Any, options: str) -> None:
    t = RNG.random((4, 3))
    t[0] = [0.0, 1.0, 0.0]
    every = {"weight": RNG.random(3), "pos_weight": RNG.random((4, 1)) + 1, "label_smoothing": 0.3}
    chosen = {key: value for key, value in every.items() if options in (key, "all")}
    smoothed = t * 0.7 + 0.15 if "label_smoothing" in chosen else t
    heavier = np.broadcast_to(chosen.get("pos_weight", 1.0), (4, 3))
    each_one = np.array([[binary(*z) for z in zip(*rows)] for rows in zip(X, smoothed, heavier)])
    expected = REDUCE[reduction](each_one * chosen.get("weight", 1.0))
    arrays = {key: value for key, value in chosen.items() if key != "label_smoothing"}
    smoothing = chosen.get("label_smoothing", 0.0)

    def loss(x: Any, t: Any, arrays: Any) -> Any:
        return nn.binary_cross_entropy_with_logits(
            x, t, label_smoothing=smoothing, reduction=reduction, **arrays
        )

    assert_layer(loss, (X, t, arrays), expected, order=2)


def test_binary_cross_entropy_far_away() -> None:
    """Small losses are accurate, large ones do not overflow."""
    x = np.array([-1000.0, -30.0, 0.0, 30.0, 1000.0])
    for t in (0, 1):
        loss = lambda x: nn.binary_cross_entropy_with_logits(x, np.full(5, t), reduction="sum")  # noqa: B023
        found = values(lambda x: nn.binary_cross_entropy_with_logits(x, t, reduction="none"), (x,), "d")  # noqa: B023
        np.testing.assert_allclose(found, [binary(a, t, 1.0) for a in x], rtol=1e-14, atol=1e-300)
        slopes = [(1 - 2 * t) / (1 + mpmath.exp((2 * t - 1) * a)) for a in x]
        slopes = [float(slope) for slope in slopes]
        np.testing.assert_allclose(graphjit.grad(loss)(x), slopes, rtol=1e-13, atol=1e-300)


LOGITS, LABELS = RNG.normal(size=(2, 4, 5)) * 3, RNG.integers(0, 5, (2, 4))


def categorical(logits: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Element by element, in double precision, from probabilities."""
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    out = np.zeros(p.shape[:-1])
    for place in np.ndindex(out.shape):
        out[place] = sum(-t * w * math.log(q) for t, w, q in zip(targets[place], weight, p[place]))
    return out


@pytest.mark.sample(16)
@each
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["labels", "ignored", "probabilities"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_cross_entropy(reduction: Any, smoothing: float, weighted: bool, kind: str, axis: int) -> None:
    weight = RNG.random(5) if weighted else np.ones(5)
    labels, counted = LABELS.copy(), np.ones((2, 4))
    if kind == "ignored":
        labels[0, 1], labels[1, 2] = -100, -100
        counted = np.where(labels == -100, 0.0, 1.0)
    soft = probabilities(2, 4, 5) if kind == "probabilities" else np.eye(5)[np.maximum(labels, 0)]
    losses = counted * categorical(LOGITS, soft * (1 - smoothing) + smoothing / 5, weight)
    expected = REDUCE[reduction](losses)
    if reduction == "mean" and kind != "probabilities":
        expected = losses.sum() / (counted * weight[np.maximum(labels, 0)]).sum()
    targets = np.moveaxis(soft, -1, axis) if kind == "probabilities" else labels
    ignored = -100 if kind == "ignored" else None

    def loss(logits: Any, weight: Any) -> Any:
        return nn.cross_entropy(
            logits,
            targets if targets.dtype.kind == "i" else targets.astype(logits.dtype),
            weight=weight if weighted else None,
            ignore_index=ignored,
            label_smoothing=smoothing,
            axis=axis,
            reduction=reduction,
        )

    assert_layer(loss, (np.moveaxis(LOGITS, -1, axis), weight), expected, order=2)


def test_cross_entropy_far_away_and_of_impossible_classes() -> None:
    z = np.array([[1000.0, 0.0, -np.inf], [-1000.0, -1000.0, 5e3], [-np.inf, 2.0, 2.0]])
    for targets in (np.array([0, 2, 1]), np.array([[1.0, 0, 0], [0, 0, 1.0], [0, 0.5, 0.5]])):
        loss = lambda z: nn.cross_entropy(z, targets, reduction="none")  # noqa: B023
        assert_near(values(loss, (z,), "d"), np.array([0.0, 0.0, math.log(2)]))
        slopes = graphjit.grad(lambda z: np.sum(loss(z)))(z)  # noqa: B023
        last = [0.0, -0.5, 0.5] if targets.ndim == 1 else [0.0, 0.0, 0.0]
        assert_near(slopes, np.array([[0.0] * 3, [0.0] * 3, last]))


def test_targets_may_vary_too() -> None:
    graphjit.check_grads(nn.cross_entropy, (LOGITS, probabilities(2, 4, 5)), 2)


def test_integers_are_targets_too() -> None:
    """Of float32 predictions the loss is float32, where NumPy's promotion would make float64."""
    whole = (Y > 0).astype(np.int64)
    for loss in (nn.mse, nn.mae, nn.huber, nn.hinge, nn.binary_cross_entropy_with_logits, nn.cross_entropy):
        for targets in (whole, Y > 0):
            found = values(loss, (X, targets), "f")
            assert_near(found, loss(X, whole.astype(float)).astype("f"))
    labels = np.eye(3, dtype=int)[[0, 2, 1, 1]]
    found = values(nn.kl_divergence, (X, labels), "f")
    assert_near(found, nn.kl_divergence(X, labels.astype(float)).astype("f"))
    assert nn.mse(3.0, np.array([1, 2])) == 2.5


def test_what_does_not_fit_is_an_error() -> None:
    cases: list[tuple[Any, str]] = [
        (lambda: nn.mse(X, Y, reduction="average"), 'nn.mse: reduction is "mean", "sum" or "none", not'),
        (lambda: nn.cross_entropy(X, np.zeros(3, int)), "targets have shape"),
        (lambda: nn.cross_entropy(X, Y.T), "targets have shape"),
        (lambda: nn.cross_entropy(X, np.zeros(4, int), weight=np.ones(4)), "for 3 classes it is"),
        (lambda: nn.cross_entropy(X, np.zeros(4, int), label_smoothing=2.0), "label_smoothing is between"),
        (lambda: nn.cross_entropy(X, Y, ignore_index=0), "ignore_index is a label"),
        (lambda: nn.cross_entropy(X, Y, axis=2), "there is no axis 2"),
    ]
    for call, said in cases:
        with pytest.raises(graphjit.ShapeError, match=said) as error:
            call()
        assert "test_losses.py" in str(error.value)


def test_penalties_of_containers() -> None:
    params = {"w": X, "rest": (Y[0], None, "name", np.arange(3))}
    assert_layer(nn.l1_penalty, (params,), np.abs(X).sum() + np.abs(Y[0]).sum(), order=2, batched=False)
    squares = (X**2).sum() + (Y[0] ** 2).sum()
    half = lambda params: nn.l2_penalty(params, 0.5)
    assert_layer(half, (params,), 0.5 * squares, order=2, batched=False)
    assert_near(half([params, 2.0]), 0.5 * squares + 2.0)
    tree = {"a": X, "b": [Y]}
    assert_near(graphjit.grad(half)(tree), tree)
    assert nn.l2_penalty({}) == 0
    assert graphjit.grad(nn.l1_penalty)(np.array([0.0, -1.0])).tolist() == [0.0, -1.0]
