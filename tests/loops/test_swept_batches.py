"""Batched products inside sweeps: rows of attention stay in cache between its two products, and on the way
back.
"""

from __future__ import annotations

import numpy as np
import pytest
from compiled_harness import run_function
from threads_harness import same_bits

import graphjit
from graphjit import pipeline
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.interpret import interpret
from graphjit.limits import host_limits
from graphjit.pipeline import GRAPH_PASSES
from graphjit.schedule.program import Kernel, Product, Sweep
from graphjit.schedule.rewrite.merge_batches import merge_batches
from graphjit.schedule.sweep import sums_over_rows


def attention(q, k, v):
    """Over (batch, length, width)."""
    scores = q @ np.swapaxes(k, 1, 2)
    weights = np.exp(scores - np.max(scores, axis=2, keepdims=True))
    return np.sum(np.tanh((weights / np.sum(weights, axis=2, keepdims=True)) @ v))


def heads_inside(q, k, v):
    """Over (length, heads, width), as a projection leaves it."""
    q, k, v = (np.transpose(x, (1, 0, 2)) for x in (q, k, v))
    return attention(q * 0.5, k, v)


def layers(x, w, v):
    """A network for each element of the batch."""
    hidden = np.tanh(x @ w)
    return np.sum(np.exp(-((hidden @ np.swapaxes(v, 1, 2)) ** 2)))


def turned(x, w, v):
    """Products that sum over the rows, of values made in the rows."""
    hidden = np.tanh(x @ w)
    return np.sum(np.swapaxes(hidden, 1, 2) @ (hidden * v[:, :1, :1])) + np.sum(np.swapaxes(x, 1, 2) @ hidden)


def shifted(x, w, v):
    """What reads the next row of a product is no part of its sweep."""
    hidden = np.tanh(x @ w)
    return np.sum((hidden[:, 1:] * hidden[:, :-1]) @ np.swapaxes(v, 1, 2)[:, : hidden.shape[2], :1])


def normed(x, w, v):
    """Statistics of rows, and of whole elements, beside products."""
    hidden = x @ w
    centred = hidden - np.mean(hidden, axis=2, keepdims=True)
    scaled = centred / np.sqrt(np.mean(hidden * hidden, axis=(1, 2), keepdims=True) + 1.0)
    return np.sum(np.exp(scaled) @ np.swapaxes(v, 1, 2))


def square(x, w, v):
    """Squares of a batch, read by rows and by columns (where rows are as many as columns)."""
    hidden = np.tanh(x @ w)
    hidden = hidden @ np.swapaxes(hidden, 1, 2)
    return (
        np.sum(np.exp(np.swapaxes(hidden, 1, 2)) @ hidden)
        + np.sum(np.swapaxes(hidden, 1, 2) @ x)
        + np.sum(np.tanh(hidden @ hidden))
    )


def flips(x, w, v):
    """What another row made is no part of a sweep, whatever order rows and columns are read in."""
    hidden = np.tanh(x @ w)
    return np.sum(hidden[:, ::-1] @ v) + np.sum(np.exp(hidden[:, :, ::-1]) @ w + hidden)


def following(x, w, v):
    """The next row beside one's own."""
    hidden = x @ w
    return np.sum((np.tanh(hidden) * np.pad(hidden, ((0, 0), (0, 1), (0, 0)))[:, 1:]) @ v)


def first(x, w, v):
    """The first row beside one's own."""
    hidden = x @ w
    return np.sum((np.exp(hidden) * hidden[:, :1]) @ v)


def last(x, w, v):
    """The last row in place of one's own."""
    hidden = x @ w
    return np.sum(np.tanh(np.broadcast_to(hidden[:, -1:], hidden.shape) * x[:, :, :1]) @ v)


def crossed(x, w, v):
    """Elements and rows of another order (where they are equally many)."""
    hidden = np.tanh(x @ w)
    n = min(hidden.shape[:2])
    crossed = np.swapaxes(np.exp(hidden), 0, 1)
    return np.sum(np.tanh(crossed[:n, :n] @ w[:n] if crossed.shape[0] != hidden.shape[0] else crossed @ w))


def running(x, w, v):
    """Running sums along rows go on from block to block, those within a row do not."""
    hidden = np.tanh(x @ w)
    return np.sum(np.exp(np.cumsum(hidden, axis=2) / 9) @ v) + np.sum((np.cumsum(hidden, axis=1) / 9) @ v)


def joined(x, w, v):
    """Pieces of a concatenation, which are written where they belong."""
    hidden = np.tanh(x @ w)
    both = np.concatenate([hidden, np.exp(hidden)], axis=2)
    return np.sum(both @ np.concatenate([v, w], axis=1)) + np.sum(np.concatenate([hidden, x], axis=1) @ v)


FUNCTIONS = {
    f.__name__: f
    for f in (
        attention,
        heads_inside,
        layers,
        turned,
        shifted,
        normed,
        square,
        flips,
        following,
        first,
        last,
        crossed,
        running,
        joined,
    )
}


def shapes(name: str, batch: int, rows: int, width: int) -> list[tuple[int, ...]]:
    if name == "attention":
        return [(batch, rows, width)] * 3
    if name == "heads_inside":
        return [(rows, batch, width)] * 3
    return [(batch, rows, width), (batch, width, width), (batch, width, width)]


def arguments(name: str, sizes: tuple[int, int, int], dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(sizes))
    return [(rng.normal(size=shape) / 2).astype(dtype) for shape in shapes(name, *sizes)]


def sweeps(program) -> list[Sweep]:
    return [step for step in program.steps if isinstance(step, Sweep) and step.batch > 1]


def scheduled(f, args, limits=None):
    graph = graphjit.value_and_grad(f, argnums=(0, 1, 2)).dispatcher.staged(*args).graph
    return graph, pipeline.schedule(pipeline.optimize(graph, limits=limits), limits=limits)[1]


EVERYWHERE = host_limits().changed(
    sweeps={
        "min_rows": 2,
        "shared_bytes": 0,
        "min_batch": 2,
        "min_each": 2,
        "min_each_block": 1,
        "each_block_bytes": 600,
        "whole_rows": 4,
    },
    contractions={"small": 0, "small_in_batch": 0},
    unstack={"short_axis": 0},
)
"""No size is too small."""


# Lengths that are prime, that blocks divide, and extents that only strides tell apart.
SIZES = [(3, 12, 5), (2, 7, 3), (5, 16, 8), (4, 4, 4), (8, 8, 3), (3, 9, 9), (2, 30, 17)]


@pytest.mark.sample(20)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients(name, sizes, dtype):
    f, args = FUNCTIONS[name], arguments(name, sizes, dtype)
    graph, program = scheduled(f, args, EVERYWHERE)
    kernels = pipeline.lower(program, limits=EVERYWHERE)
    value, *gradients = run_function(graphjit.value_and_grad(f, argnums=(0, 1, 2)), *args, limits=EVERYWHERE)
    wanted = interpret(graph, *args)
    printed = NumbaExecutable(program, kernels, python=True).run(args)
    (alone,) = run_function(f, *args, limits=EVERYWHERE)  # then nothing outlives its block of rows
    tolerance = 1e-11 if dtype == "float64" else 5e-5
    for found in ((value, *gradients), printed, (alone, *gradients)):
        for got, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(
                got, want, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(want).max()))
            )


def test_every_kind_of_product_is_swept():
    found = set()
    for name, f in FUNCTIONS.items():
        _, program = scheduled(f, arguments(name, (3, 12, 5), "float64"), EVERYWHERE)
        for step in sweeps(program):
            found |= {
                (sums_over_rows(part), part.rhs[1] == 1) for part in step.parts if isinstance(part, Product)
            }
            assert step.rows % step.block == 0
    assert found == {(False, True), (False, False), (True, True)}


def test_attention_stores_what_its_gradient_reads_and_no_more():
    _, program = scheduled(attention, arguments("attention", (4, 256, 16), "float64"))
    forward, backward = sweeps(program)
    assert [type(part) for part in forward.parts] == [Product, Kernel, Product]
    assert [type(part) for part in backward.parts].count(Product) == 4
    scratch = [buffer for buffer in program.buffers.values() if buffer.kind == "scratch"]
    assert {buffer.size for buffer in scratch} >= {backward.block * 256}
    squares = [
        buffer
        for buffer in program.buffers.values()
        if buffer.kind == "arena" and buffer.size == 4 * 256 * 256
    ]
    assert len(squares) <= 3


@pytest.mark.parametrize("sizes", [(3, 256, 16), (4, 127, 16), (4, 64, 16)])
def test_few_elements_and_few_rows_stay_steps(sizes):
    _, program = scheduled(attention, arguments("attention", sizes, "float64"))
    assert not sweeps(program)


def test_results_do_not_depend_on_threads():
    args = arguments("attention", (5, 160, 24), "float64")
    compiled = graphjit.value_and_grad(attention, argnums=(0, 1, 2))
    assert sweeps(scheduled(attention, args)[1])
    same_bits(compiled, *args)


# ------------------------------------------------------------------------------------ several axes of a batch


def of_heads(q, k, v):
    """Over (batch, heads, length, width), looking back only."""
    scores = q @ np.swapaxes(k, -1, -2) / 4
    later = np.triu(np.ones(scores.shape[-2:], bool), 1)
    weights = np.exp(np.where(later, -np.inf, scores))
    return np.sum(np.tanh((weights / np.sum(weights, axis=-1, keepdims=True)) @ v))


def heads_between(q, k, v):
    """Over (batch, length, heads, width), as a projection leaves it."""
    q, k, v = (np.swapaxes(x, 1, 2) for x in (q, k, v))
    return of_heads(q * 0.5, k, v)


def bias_of_each_head(q, k, v):
    """What differs from head to head is the same in the batch: axes that cannot be one."""
    slopes = np.arange(1.0, 1.0 + q.shape[1])[:, None, None]
    distance = np.arange(q.shape[2])[:, None] - np.arange(q.shape[2])
    weights = np.exp(q @ np.swapaxes(k, -1, -2) / 4 - slopes * abs(distance))
    return np.sum(np.tanh((weights / np.sum(weights, axis=-1, keepdims=True)) @ v))


def sums_of_heads(q, k, v):
    """Sums over one of the axes, over both, and in other orders."""
    scores = np.tanh(q @ np.swapaxes(k, -1, -2))
    mixed = scores @ v
    total = np.sum(np.sum(mixed, axis=1) ** 2) + np.sum(np.max(scores, axis=(0, 1)))
    return total + np.sum(np.swapaxes(mixed, 1, 2) * np.cumsum(np.swapaxes(v, 1, 2), axis=0))


def weights_kept(q, k, v):
    """The weights are read as a whole too, and the batch has one axis at one place, two at another."""
    weights = np.exp(q @ np.swapaxes(k, -1, -2) / 8)
    flat = np.reshape(weights, (-1, *weights.shape[2:]))
    return (
        np.sum(np.sin(flat @ np.reshape(v, (-1, *v.shape[2:]))))
        + np.sum((weights @ v)[0])
        + weights[0, 0, 0, 0]
    )


HEADS = {f.__name__: f for f in (of_heads, heads_between, bias_of_each_head, sums_of_heads, weights_kept)}


def heads_of(name, sizes):
    batch, heads, length, width = sizes
    shape = (batch, length, heads, width) if name == "heads_between" else sizes
    rng = np.random.default_rng(length)
    return [rng.normal(size=shape) / 2 for _ in range(3)]


@pytest.mark.sample(3)
@pytest.mark.parametrize("limits", [None, EVERYWHERE], ids=["as always", "everywhere"])
@pytest.mark.parametrize("sizes", [(2, 3, 12, 5), (4, 2, 7, 7), (3, 1, 16, 8), (1, 1, 4, 4)])
@pytest.mark.parametrize("name", HEADS)
def test_several_batch_axes(name, sizes, limits):
    f, args = HEADS[name], heads_of(name, sizes)
    graph, _ = scheduled(f, args, limits)
    wanted = interpret(graph, *args)
    found = run_function(graphjit.value_and_grad(f, argnums=(0, 1, 2)), *args, limits=limits)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11 * max(1.0, float(np.abs(want).max())))


@pytest.mark.parametrize("name", ["of_heads", "heads_between"])
def test_several_batch_axes_are_swept_as_one(name):
    _, program = scheduled(HEADS[name], heads_of(name, (3, 2, 128, 16)))
    forward, backward = sweeps(program)
    assert [type(part) for part in forward.parts] == [Product, Kernel, Product]
    assert [type(part) for part in backward.parts].count(Product) == 4
    assert forward.batch == backward.batch == 6


def test_what_cannot_be_merged_is_not_stored_for_it(monkeypatch):
    """A bias of each head would be spread over the whole batch."""
    args = heads_of("", (3, 2, 128, 16))
    merged = scheduled(bias_of_each_head, args)[1]
    passes = tuple(step for step in pipeline.GRAPH_PASSES if step is not merge_batches)
    monkeypatch.setattr(pipeline, "GRAPH_PASSES", passes)
    apart = scheduled(bias_of_each_head, args)[1]
    assert len(passes) + 1 == len(GRAPH_PASSES)
    assert merged.arena <= apart.arena
    assert len(merged.buffers) <= len(apart.buffers)
