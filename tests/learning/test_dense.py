"""Linear layers, embeddings, dropout, initial weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layers_harness import assert_layer, assert_near, values

import graphjit
from graphjit import nn

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("shifted", [False, True])
def test_linear(shifted: bool) -> None:
    x, w, b = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(4, 5)), RNG.normal(size=5)
    expected = np.einsum("abi,io->abo", x, w) + (b if shifted else 0.0)
    assert_layer(nn.linear, (x, w, b) if shifted else (x, w), expected)


def test_embedding_adds_up() -> None:
    table, words = RNG.normal(size=(6, 3)), np.array([[1, 4, 1], [0, 1, -1]])
    expected = np.array([[table[word] for word in row] for row in words])
    assert_layer(lambda table, words: nn.embedding(words, table), (table, words), expected)
    counts = graphjit.grad(lambda table: np.sum(nn.embedding(words, table)))(table)[:, 0]
    assert counts.tolist() == [1.0, 3.0, 0.0, 0.0, 1.0, 1.0]
    for call in (nn.embedding, graphjit.jit(nn.embedding)):
        with pytest.raises(IndexError):
            call(np.array([6]), table)


def test_dropout_that_drops_nothing_or_all() -> None:
    x = RNG.normal(size=(3, 4))
    assert_near(values(lambda x: nn.dropout(None, x, 0.5, training=False), (x,), "f"), x.astype("f"))
    assert_near(values(lambda x: nn.dropout(None, x, 0.0), (x,), "d"), x)
    assert not np.any(values(lambda x: nn.dropout(None, x, 1.0), (x,), "d"))
    for wrong in (-0.1, 1.5):
        with pytest.raises(graphjit.ShapeError, match="rate is between 0 and 1"):
            nn.dropout(None, x, wrong)
    with pytest.raises(graphjit.ShapeError, match="there is no axis 2"):
        nn.dropout(None, x, 0.5, broadcast_axes=2)


@pytest.mark.parametrize("axes", [(), 1, (-1, 1)])
def test_dropout(axes: Any) -> None:
    key = graphjit.random.key(3)
    x = RNG.random((40, 30, 20)) + 1.0
    kept = values(lambda x: nn.dropout(key, x, 0.25, broadcast_axes=axes), (x,), "f") != 0
    for dtype in "fd":
        out = values(lambda x: nn.dropout(key, x, 0.25, broadcast_axes=axes), (x,), dtype)
        assert_near(out, np.where(kept, x / 0.75, 0.0).astype(dtype))
    slopes = graphjit.grad(lambda x: np.sum(nn.dropout(key, x, 0.25, broadcast_axes=axes)))(x)
    assert_near(slopes, np.where(kept, 1 / 0.75, 0.0))
    shared = [i % 3 for i in ((axes,) if isinstance(axes, int) else axes)]
    decisions = kept[tuple(slice(1) if i in shared else slice(None) for i in range(3))]
    assert np.all(kept == decisions)
    spread = np.sqrt(0.25 * 0.75 / decisions.size)
    assert abs(decisions.mean() - 0.75) < 4 * spread
    other = nn.dropout(graphjit.random.key(4), x, 0.25, broadcast_axes=axes) != 0
    assert np.any(other != kept)


VARIANCES = {
    "glorot": lambda into, out: 2 / (into + out),
    "he": lambda into, out: 2 / into,
    "lecun": lambda into, out: 1 / into,
}


@pytest.mark.parametrize("dtype", "fd")
@pytest.mark.parametrize("name", VARIANCES)
@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_variances_of_initial_weights(name: str, distribution: str, dtype: str) -> None:
    draw = getattr(nn, f"{name}_{distribution}")
    layouts = [((60, 50), {}, 60, 50), ((3, 3, 20, 30), {}, 180, 270)]
    layouts.append(((30, 20, 3, 3), {"in_axis": 1, "out_axis": 0}, 180, 270))
    for shape, axes, into, out in layouts:
        w = draw(np.random.default_rng(1), shape, dtype, **axes)
        assert w.shape == shape
        assert w.dtype.char == dtype
        expected = VARIANCES[name](into, out)
        kurtosis = 1.8 if distribution == "uniform" else 3.0
        assert abs(w.mean()) < 5 * np.sqrt(expected / w.size)
        assert abs(w.var() / expected - 1) < 5 * np.sqrt((kurtosis - 1) / w.size)
        assert abs(((w / w.std()) ** 4).mean() - kurtosis) < 0.4
        assert distribution == "normal" or np.abs(w).max() <= np.sqrt(3 * expected) * (1 + 1e-7)


@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 3), -1), ((3, 5), -1), ((4, 4), 0), ((2, 3, 4), 1), ((8, 2, 3), 0)]
)
def test_orthogonal_weights(shape: tuple[int, ...], axis: int) -> None:
    w = nn.orthogonal(np.random.default_rng(0), shape, scale=3.0, column_axis=axis)
    assert w.shape == shape
    matrix = np.moveaxis(w, axis, -1).reshape(-1, shape[axis])
    small = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    assert_near(small, 9.0 * np.eye(len(small)), 10)
    assert nn.orthogonal(np.random.default_rng(0), shape, "f").dtype.char == "f"


def test_signs_of_orthogonal_weights_are_even() -> None:
    """Without the signs of R, some places of Q would never be positive."""
    rng = np.random.default_rng(0)
    signs = np.mean([nn.orthogonal(rng, (3, 3)) > 0 for _ in range(400)], axis=0)
    assert np.all(np.abs(signs - 0.5) < 0.12)


def test_initialisers_that_draw_nothing() -> None:
    assert nn.zeros(None, (2, 3), "f").dtype.char == "f"
    assert not np.any(nn.zeros(None, [2, 3]))
    assert np.all(nn.ones(None, (2, 3)) == 1.0)


def test_weights_are_not_drawn_in_a_trace() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(graphjit.TraceError, match="draws from a random generator"):
        graphjit.jit(lambda x: x @ nn.he_normal(rng, (3, 2)))(np.ones(3))
    with pytest.raises(graphjit.ShapeError, match="no axes of inputs and outputs"):
        nn.he_normal(rng, (3,))
    with pytest.raises(graphjit.ShapeError, match="two axes or more"):
        nn.orthogonal(rng, (3,))
