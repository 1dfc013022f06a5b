"""`checkpoint`: the same derivatives with less memory, and what a policy keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled_harness import traced

import graphjit
from graphjit import pipeline
from graphjit.ir.node import Graph

RNG = np.random.default_rng(14)
DEPTH, WIDTH, BATCH = 12, 64, 128
WEIGHTS = [RNG.normal(size=(WIDTH, WIDTH)) / 8 for _ in range(DEPTH)]
X = RNG.normal(size=(BATCH, WIDTH))


def layer(w: Any, x: Any) -> Any:
    z = x @ w
    z = z - np.mean(z, axis=1, keepdims=True)
    z = z / np.sqrt(np.mean(z * z, axis=1, keepdims=True) + 1e-5)
    return z / (1.0 + np.exp(-z))


def block(ws: Any, x: Any) -> Any:
    for w in ws:
        x = layer(w, x)
    return x


def loss_of(one: Any, size: int) -> Any:
    def loss(ws: Any, x: Any) -> Any:
        for first in range(0, DEPTH, size):
            x = one(ws[first : first + size], x)
        return np.mean(x * x)

    return loss


PLAIN = loss_of(block, DEPTH)
SAVED = loss_of(graphjit.checkpoint(block), 3)


def arena(loss: Any) -> int:
    return pipeline.compile_graph(traced(graphjit.value_and_grad(loss), WEIGHTS, X)).program.arena


def products(graph: Graph) -> int:
    return sum(node.op.name == "contract" for node in pipeline.optimize(graph).nodes())


def test_gradients_are_the_same() -> None:
    value, gradients = graphjit.value_and_grad(SAVED)(WEIGHTS, X)
    wanted, others = graphjit.value_and_grad(PLAIN)(WEIGHTS, X)
    assert value == wanted
    for g, h in zip(gradients, others, strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-12, atol=1e-15)


def test_memory_is_that_of_blocks() -> None:
    assert arena(SAVED) < 0.55 * arena(PLAIN)


def test_the_way_back_computes_each_block_once_more() -> None:
    plain, saved = (traced(graphjit.value_and_grad(loss), WEIGHTS, X) for loss in (PLAIN, SAVED))
    assert products(saved) - products(plain) == DEPTH


def small(w: Any, x: Any) -> Any:
    return np.tanh(w @ np.sin(x))


W, V = RNG.normal(size=(3, 3)), RNG.normal(size=3)


def test_every_mode_and_order() -> None:
    saved = graphjit.checkpoint(small)

    def number(f: Any) -> Any:
        return lambda w, x: np.sum(f(w, f(w, x)) ** 2)

    for transform in (
        lambda f: graphjit.grad(f, argnums=(0, 1)),
        lambda f: graphjit.hessian(f, argnums=1),
        lambda f: graphjit.jacrev(graphjit.jacrev(f, argnums=1), argnums=1),
        lambda f: lambda w, x: graphjit.jvp(f, (w, x), (w, x)),
        lambda f: lambda w, x: graphjit.hvp(f, (w, x), (w, x)),
        lambda f: lambda w, x: graphjit.linearize(f, w, x)[1](w, x),
        lambda f: graphjit.vmap(graphjit.grad(f), in_axes=(None, None), axis_size=2),
        lambda f: graphjit.grad(lambda w, x: np.sum(graphjit.vmap(f, (None, 0))(w, np.stack([x, 2 * x])))),
    ):
        got, want = transform(number(saved))(W, V), transform(number(small))(W, V)
        for g, h in zip(
            got if isinstance(got, tuple) else (got,),
            want if isinstance(want, tuple) else (want,),
            strict=True,
        ):
            np.testing.assert_allclose(g, h, rtol=1e-11, atol=1e-13)


def test_keywords_trees_and_nesting() -> None:
    @graphjit.checkpoint
    def scaled(p: Any, *, scale: Any = 1.0) -> Any:
        return {"y": np.exp(p["x"]) * scale, "n": 3}

    outer = graphjit.checkpoint(lambda p: scaled(p, scale=2.0)["y"] * scaled(p)["n"])
    got = graphjit.grad(lambda p: np.sum(outer(p)))({"x": V})
    np.testing.assert_allclose(got["x"], 6 * np.exp(V))
    assert outer({"x": 0.0}) == 6.0


@pytest.mark.parametrize(
    ("policy", "exps", "sines"),
    [
        (None, 2, 2),
        (graphjit.checkpoint_policies.nothing_saveable, 2, 2),
        (graphjit.checkpoint_policies.everything_saveable, 1, 1),
        (graphjit.checkpoint_policies.save_only_these_names("middle"), 1, 2),
        (graphjit.checkpoint_policies.save_anything_except_these_names("middle"), 1, 1),
        (graphjit.checkpoint_policies.save_smaller_than(8 * 3 + 1), 1, 1),
        (graphjit.checkpoint_policies.save_smaller_than(8), 2, 2),
    ],
)
def test_a_policy_says_what_is_kept(policy: Any, exps: int, sines: int) -> None:
    """``exp`` lies before the named value and ``sin`` behind it; how often the program computes each is
    counted.
    """

    @graphjit.checkpoint(policy=policy)
    def region(x: Any) -> Any:
        middle = graphjit.checkpoint_name(np.exp(x), "middle")
        inner = np.sin(middle)
        return inner * inner * middle

    graph = pipeline.optimize(traced(graphjit.value_and_grad(lambda x: np.sum(region(x))), V))
    names = [node.op.name for node in graph.nodes()]
    assert (names.count("exp"), names.count("sin")) == (exps, sines)
    want = graphjit.grad(lambda x: np.sum(np.sin(np.exp(x)) ** 2 * np.exp(x)))(V)
    np.testing.assert_allclose(graphjit.grad(lambda x: np.sum(region(x)))(V), want, rtol=1e-12)


def test_products_can_be_kept() -> None:
    policy = graphjit.checkpoint_policies.dots_saveable
    kept = loss_of(graphjit.checkpoint(block, policy=policy), 3)
    graph = traced(graphjit.value_and_grad(kept), WEIGHTS, X)
    assert products(graph) == products(traced(graphjit.value_and_grad(PLAIN), WEIGHTS, X))


def test_misuse() -> None:
    with pytest.raises(TypeError, match="checkpoint takes a function"):
        graphjit.checkpoint(3)
    with pytest.raises(TypeError, match="the name is a string"):
        graphjit.checkpoint_name(V, 3)
