"""Attention and positions beside loops over queries; what a mask hides; derivatives of empty rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from layers_harness import assert_layer, assert_near, values

import graphjit
from graphjit import nn

RNG = np.random.default_rng(5)
Q, K = RNG.normal(size=(2, 3, 4, 6)), RNG.normal(size=(2, 3, 5, 6))
V = RNG.normal(size=(2, 3, 5, 2))
attend = nn.scaled_dot_product_attention


def loops(q: Any, k: Any, v: Any, added: Any = 0.0, scale: float | None = None) -> np.ndarray:
    """Query by query; ``added`` holds -inf at what is hidden."""
    q, k, v = (np.broadcast_to(x, (2, 3, *x.shape[-2:])) for x in (q, k, v))
    added = np.broadcast_to(added, (2, 3, q.shape[-2], k.shape[-2]))
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    for i in np.ndindex(q.shape[:-1]):
        seen = [j for j in range(k.shape[-2]) if added[i][j] > -np.inf]
        powers = [math.exp(scale * q[i] @ k[i[:-1]][j] + added[i][j]) for j in seen]
        for power, j in zip(powers, seen):
            out[i] += power / sum(powers) * v[i[:-1]][j]
    return out


@pytest.mark.sample(4)
@pytest.mark.parametrize("case", ["plain", "scale", "causal", "bools", "numbers", "one", "all of them"])
def test_attention(case: str) -> None:
    bools = RNG.random((4, 5)) < 0.5
    bools[1] = False
    numbers = np.where(RNG.random((2, 1, 4, 5)) < 0.3, -np.inf, RNG.normal(size=(2, 1, 4, 5)))
    numbers[0, 0, 2] = -np.inf
    past = np.where(np.tri(4, 5) > 0, 0.0, -np.inf)
    hidden = np.where(bools, 0.0, -np.inf)
    options, added = {
        "plain": ({}, 0.0),
        "scale": ({"scale": 0.3}, 0.0),
        "causal": ({"is_causal": True}, past),
        "bools": ({"mask": bools}, hidden),
        "numbers": ({"mask": numbers}, numbers),
        "one": ({"mask": bools[..., :1]}, hidden[..., :1]),
        "all of them": ({"mask": bools, "is_causal": True, "scale": 0.5}, hidden + past),
    }[case]

    def layer(q: Any, k: Any, v: Any) -> Any:
        given = {key: x.astype(q.dtype) if x is numbers else x for key, x in options.items()}
        return attend(q, k, v, **given)

    assert_layer(layer, (Q, K, V), loops(Q, K, V, added, options.get("scale")), order=2)


def test_axes_in_front_broadcast() -> None:
    one = K[0, 0]
    assert_layer(attend, (Q, one, V[:, :1]), loops(Q, one, V[:, :1]), batched=False)
    assert_near(values(attend, (Q[0, 0], one, V[0, 0]), "d"), loops(Q, K, V)[0, 0])


def test_a_batch_may_be_empty() -> None:
    layer = lambda q, k, v: attend(q, k, v, is_causal=True)
    assert values(layer, (Q[:0], K[:0], V[:0]), "d").shape == (0, 3, 4, 2)


@pytest.mark.parametrize("added", [False, True])
def test_nothing_leaves_an_empty_row(added: bool) -> None:
    """Query 1 may look at nothing: zeros, no derivative of its own, and none in keys and values by it."""
    mask = np.ones((4, 5), bool)
    mask[1] = False
    given: Any = np.where(mask, 0.0, -np.inf) if added else mask
    both = lambda q, k, v: np.sum(attend(q, k, v, mask=given) ** 2)
    others = lambda q, k, v: np.sum(attend(q[:, :, [0, 2, 3]], k, v) ** 2)
    found = graphjit.grad(both, argnums=(0, 1, 2))(Q, K, V)
    expected = graphjit.grad(others, argnums=(0, 1, 2))(Q, K, V)
    assert not np.any(found[0][:, :, 1])
    assert_near(found, expected, 10)
    assert not np.any(attend(Q, K, V, mask=given)[:, :, 1])


def test_a_mask_may_be_traced_and_learnt() -> None:
    bias = RNG.normal(size=(3, 4, 5))
    layer = lambda q, bias: attend(q, K.astype(q.dtype), V.astype(q.dtype), mask=bias)
    assert_layer(layer, (Q, bias), loops(Q, K, V, bias), order=2, batched=False)
    lengths = np.array([2, 5])
    padded = lambda lengths: attend(Q, K, V, mask=(np.arange(5) < lengths[:, None])[:, None, None, :])
    compiled = graphjit.jit(padded)(lengths)
    assert_near(compiled[0], attend(Q[0], K[0, :, :2], V[0, :, :2]), 4)
    assert_near(compiled[1], attend(Q[1], K[1], V[1]), 4)


@pytest.mark.sample(2)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_several_heads(shifted: bool, masked: bool) -> None:
    x, y = RNG.normal(size=(2, 4, 5)), RNG.normal(size=(2, 3, 7))
    w = [RNG.normal(size=shape) / 2 for shape in ((5, 6), (7, 6), (7, 6), (6, 4))]
    b = [RNG.normal(size=n) for n in (6, 6, 6, 4)] if shifted else []
    mask = np.array([[True, True, False], [True, False, True]])[:, None, None, :] if masked else None
    shifts = b or [0.0] * 4
    expected = np.zeros((2, 4, 4)) + shifts[3]
    for sample in range(2):
        for head in range(3):
            cols = slice(2 * head, 2 * head + 2)
            q, k, v = (a[sample] @ wi + bi for a, wi, bi in zip((x, y, y), w, shifts))
            seen = mask[sample, 0, 0] if masked else slice(None)
            scores = np.exp(q[:, cols] @ k[seen][:, cols].T / math.sqrt(2))
            expected[sample] += scores / scores.sum(axis=1, keepdims=True) @ v[seen][:, cols] @ w[3][cols]
    layer = lambda x, y, w, b: nn.multi_head_attention(x, y, y, *w, *b, num_heads=3, mask=mask)
    assert_layer(layer, (x, y, w, b), expected, batched=not masked)


def test_sinusoidal_positions() -> None:
    for dtype in "fd":
        found = nn.sinusoidal_positions(7, 6, base=100.0, dtype=dtype)
        assert found.dtype.char == dtype
        for t, i in np.ndindex(7, 3):
            angle = t / 100.0 ** (2 * i / 6)
            assert_near(found[t, 2 * i : 2 * i + 2], np.array([math.sin(angle), math.cos(angle)]))


@pytest.mark.sample(2)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("placed", [False, True])
def test_rotary_positions(interleaved: bool, placed: bool) -> None:
    at = RNG.integers(0, 100, (3, 4)) if placed else np.broadcast_to(np.arange(4), (3, 4))
    expected = np.empty_like(Q)
    for b, h, t, i in np.ndindex(2, 3, 4, 3):
        pair = [2 * i, 2 * i + 1] if interleaved else [i, i + 3]
        angle = at[h, t] / 10000.0 ** (2 * i / 6)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        expected[b, h, t, pair] = turn @ Q[b, h, t, pair]
    if placed:
        layer = lambda x, at: nn.rotary_positions(x, at, interleaved=interleaved)
        assert_layer(layer, (Q, at), expected)
    else:
        assert_layer(lambda x: nn.rotary_positions(x, interleaved=interleaved), (Q,), expected)


def test_rotated_products_depend_on_distances() -> None:
    q, k = Q[0, 0, :1], K[0, 0, :1]
    turned = lambda x, t: nn.rotary_positions(x, np.array([t]))
    products = [float((turned(q, t) @ turned(k, t + 7).T)[0, 0]) for t in (0, 3, 1000)]
    assert_near(np.array(products), np.full(3, products[0]), 1e3)


def test_what_does_not_fit_is_an_error() -> None:
    w = [np.ones((6, 6))] * 4
    cases: list[tuple[Any, str]] = [
        (lambda: attend(Q[0, 0, 0], K, V), r"q has shape \(6,\)"),
        (lambda: attend(Q, K[..., :3], V), "queries and keys have one width"),
        (lambda: attend(Q, K, V[:, :, :2]), "one number of positions"),
        (lambda: attend(Q, K, V, mask=np.ones((4, 5), int)), "mask holds bools, or numbers to add"),
        (lambda: nn.multi_head_attention(Q, K, K, *w, num_heads=4), "4 heads do not divide 6 columns"),
        (lambda: nn.sinusoidal_positions(3, 5), "the width is 5"),
        (lambda: nn.rotary_positions(Q[..., :3]), "the width is 3"),
    ]
    for call, said in cases:
        with pytest.raises(graphjit.ShapeError, match=said):
            call()
