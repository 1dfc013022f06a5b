"""Sliding windows and convolutions written with them: values, gradients by phases of the step, order two."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from compiled_harness import run
from numpy.lib.stride_tricks import sliding_window_view
from threads_harness import same_bits

import graphjit
from graphjit import pipeline
from graphjit.backend.llvm.products.runs import plan_runs
from graphjit.backend.llvm.products.tile import Tile
from graphjit.backend.llvm.products.workspace import PIECE_BYTES
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.interpret import interpret
from graphjit.ir.parser import parse_graph
from graphjit.limits import host_limits
from graphjit.loops.ir import For, loads, walk
from graphjit.schedule.program import Product

LENGTH, CHANNELS, FILTERS = 11, 2, 3


def convolution(x: Any, w: Any, step: int, spread: int, padding: int) -> Any:
    """(n, length, channels) by (size, channels, filters)."""
    x = np.pad(x, ((0, 0), (padding, padding), (0, 0)))
    windows = sliding_window_view(x, (w.shape[0] - 1) * spread + 1, axis=1)
    return np.einsum("nlck,kcf->nlf", windows[:, ::step, :, ::spread], w)


def matrix(size: int, step: int, spread: int, padding: int) -> np.ndarray:
    """``[position, tap, i]``: whether a tap of the window at a position lies at element i."""
    count = (LENGTH + 2 * padding - (size - 1) * spread - 1) // step + 1
    found = np.zeros((count, size, LENGTH))
    for position, tap in itertools.product(range(count), range(size)):
        i = position * step + tap * spread - padding
        if 0 <= i < LENGTH:
            found[position, tap, i] = 1.0
    return found


@pytest.mark.sample(3)
@pytest.mark.parametrize("padding", range(6))
@pytest.mark.parametrize("size", range(1, 6))
@pytest.mark.parametrize("step", range(1, 6))
def test_every_step_size_spread_and_padding(step: int, size: int, padding: int) -> None:
    """Value, both gradients, and the derivative of a gradient, against the explicit matrix."""
    rng = np.random.default_rng(1)
    for spread in range(1, 6):
        if (size - 1) * spread >= LENGTH + 2 * padding:
            continue
        x, w = rng.normal(size=(2, LENGTH, CHANNELS)), rng.normal(size=(size, CHANNELS, FILTERS))
        where = matrix(size, step, spread, padding)
        ct, dx = rng.normal(size=(2, len(where), FILTERS)), rng.normal(size=x.shape)

        def both(x: Any, w: Any, ct: Any, dx: Any, spread: int = spread) -> Any:
            value, pull = graphjit.vjp(lambda x, w: convolution(x, w, step, spread, padding), x, w)
            of_x, of_w = pull(ct)
            again = graphjit.grad(
                lambda w: np.sum(
                    dx * graphjit.vjp(lambda x: convolution(x, w, step, spread, padding), x)[1](ct)[0]
                )
            )(w)
            return value, of_x, of_w, again

        found = interpret(graphjit.make_graph(both)(x, w, ct, dx), x, w, ct, dx)
        wanted = (
            np.einsum("pki,nic,kcf->npf", where, x, w),
            np.einsum("pki,npf,kcf->nic", where, ct, w),
            np.einsum("pki,npf,nic->kcf", where, ct, x),
            np.einsum("pki,npf,nic->kcf", where, ct, dx),
        )
        for one, two in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)


def convolution2d(x: Any, w: Any, step: int, spread: int, padding: int) -> Any:
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    spans = tuple((k - 1) * spread + 1 for k in w.shape[:2])
    windows = sliding_window_view(x, spans, axis=(1, 2))[:, ::step, ::step, :, ::spread, ::spread]
    return np.einsum("nhwckl,klcf->nhwf", windows, w)


SHAPES = [
    ((2, 9, 8, 3), (3, 2, 3, 4)),
    ((1, 12, 12, 1), (5, 5, 1, 8)),
    ((3, 8, 10, 16), (3, 3, 16, 24)),
    ((2, 6, 6, 5), (1, 1, 5, 7)),
    ((2, 7, 7, 20), (3, 3, 20, 1)),
    ((5, 13, 17, 33), (3, 4, 33, 41)),
]


@pytest.mark.sample(4)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("step", "spread", "padding"), [(1, 1, 0), (1, 1, 1), (2, 1, 1), (3, 2, 2)])
@pytest.mark.parametrize(("x_shape", "w_shape"), SHAPES)
def test_two_axes_compiled(
    x_shape: Any, w_shape: Any, step: int, spread: int, padding: int, dtype: str
) -> None:
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=x_shape).astype(dtype), rng.normal(size=w_shape).astype(dtype)
    if max(w_shape[:2]) * spread > min(x_shape[1:3]) + 2 * padding:
        return

    def loss(x: Any, w: Any) -> Any:
        return np.mean(np.tanh(convolution2d(x, w, step, spread, padding)) ** 2)

    value, gradients = graphjit.value_and_grad(loss, argnums=(0, 1))(x, w)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(value, loss(x.astype(float), w.astype(float)), rtol=tolerance)
    graph = graphjit.make_graph(graphjit.value_and_grad(loss, argnums=(0, 1)))(x, w)
    for one, two in zip(gradients, interpret(graph, x, w)[1:], strict=True):
        assert one.dtype == x.dtype
        np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance * np.abs(two).max())


def pooled(x: Any, size: int, step: int) -> Any:
    return sliding_window_view(x, (size, size), axis=(1, 2))[:, ::step, ::step].max(axis=(-2, -1))


@pytest.mark.parametrize(("size", "step"), [(2, 2), (3, 2), (3, 1), (2, 3)])
def test_pooling(size: int, step: int) -> None:
    x = np.random.default_rng(3).permutation(2 * 9 * 8 * 3).reshape(2, 9, 8, 3) / 100.0
    np.testing.assert_array_equal(
        graphjit.jit(pooled, static_argnums=(1, 2))(x, size, step), pooled(x, size, step)
    )
    gradient = graphjit.grad(lambda x: np.sum(pooled(x, size, step) ** 2))(x)
    wanted = np.zeros_like(x)
    for at in np.ndindex(*pooled(x, size, step).shape):
        n, i, j, c = at
        part = x[n, i * step : i * step + size, j * step : j * step + size, c]
        a, b = np.unravel_index(part.argmax(), part.shape)
        wanted[n, i * step + a, j * step + b, c] += 2 * part.max()
    np.testing.assert_allclose(gradient, wanted, rtol=1e-14)
    graphjit.check_grads(lambda x: np.sum(np.sin(pooled(x, size, step))), (x,), order=1)


def test_slices_of_windows_are_windows() -> None:
    """Steps, spreads and what is left out do not survive as slices: no gradient passes through zeros."""
    x = np.arange(30.0)

    def some(x: Any) -> Any:
        return sliding_window_view(x, 9)[2:20:3, 1::2]

    (node,) = [node for node in graphjit.make_graph(some)(x).nodes() if node.op.name == "window"]
    assert (node.attrs["steps"], node.attrs["spreads"], node.attrs["sizes"]) == ((3,), (2,), (4,))
    assert "slice" in {arg.op.name for arg in node.args}
    np.testing.assert_array_equal(graphjit.jit(some)(x), some(x))


def test_windows_see_later_writes() -> None:
    def f(x: Any) -> Any:
        x = x.copy()
        windows = sliding_window_view(x, 3)
        x[2] = 10.0
        return windows.sum(axis=1)

    x = np.arange(6.0)
    np.testing.assert_array_equal(graphjit.jit(f)(x), f(x))


def test_errors_are_numpys() -> None:
    for call, message in (
        (lambda x: sliding_window_view(x, 7), "larger than input"),
        (lambda x: sliding_window_view(x, -1), "negative"),
        (lambda x: sliding_window_view(x, (2, 2)), "must provide window_shape"),
    ):
        with pytest.raises(ValueError, match=message):
            graphjit.jit(call)(np.zeros(5))
        with pytest.raises(ValueError, match=message):
            call(np.zeros(5))


def test_windows_are_read_where_they_lie() -> None:
    """Forward and in both gradients of a convolution: nothing as large as all windows is stored."""
    x, w = np.ones((8, 14, 14, 16), np.float32), np.ones((3, 3, 16, 24), np.float32)

    def loss(x: Any, w: Any) -> Any:
        return np.sum(convolution2d(x, w, 1, 1, 1) ** 2)

    lowered = graphjit.value_and_grad(loss, argnums=(0, 1)).lower(x, w)
    products = [step for step in lowered.program.steps if isinstance(step, Product)]
    assert len(products) == 3
    assert all(step.in_runs for step in products)
    assert lowered.memory().arena < 5 * x.nbytes * 24 / 16


def test_numba_gives_the_same() -> None:
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(2, 9, 8, 8)), rng.normal(size=(3, 2, 8, 16))
    graph = graphjit.make_graph(
        graphjit.value_and_grad(lambda x, w: np.sum(np.sin(convolution2d(x, w, 2, 1, 1))), argnums=(0, 1))
    )(x, w)
    compiled = pipeline.compile_graph(graph)
    for one, two in zip(
        NumbaExecutable(compiled.program, compiled.kernels).run([x, w]), interpret(graph, x, w), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-11)


def test_results_do_not_depend_on_threads() -> None:
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(16, 14, 14, 16)), rng.normal(size=(3, 3, 16, 32))
    function = graphjit.value_and_grad(
        lambda x, w: np.sum(np.sin(convolution2d(x, w, 1, 1, 1))), argnums=(0, 1)
    )
    same_bits(function, x, w)


def test_weights_in_any_order() -> None:
    """Weights whose columns lie apart are packed by panels, or copied where that is not enough."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2, 9, 8, 12))
    windows = "nhwckl"
    for order in ("oklc", "klco", "ockl", "cokl", "lkoc"):
        sizes = {"k": 3, "l": 2, "c": 12, "o": 20}
        w = rng.normal(size=[sizes[letter] for letter in order])

        def f(x: Any, w: Any, order: str = order) -> Any:
            return np.einsum(f"{windows},{order}->nhwo", sliding_window_view(x, (3, 2), axis=(1, 2)), w)

        np.testing.assert_allclose(graphjit.jit(f)(x, w), f(x, w), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("vectors", [2, 4])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_packed_panels_fit_their_workspace(vectors: int, lanes: int) -> None:
    """Whatever the widest panel of a machine is: few rows take the widest, transposed weights are packed."""
    kind = "f32" if lanes == 16 else "f64"
    tile = Tile(kind, 6, vectors, lanes, True)
    for length, runs in ((1, 900), (7, 300), (170, 3), (171, 3), (300, 4), (383, 2), (900, 3), (5000, 1)):
        step = Product(
            None,
            4,
            640,
            length * runs,
            (3, 1),
            (1, length * runs),
            outer_rows=((2, 99),),
            outer_terms=((runs, 9),),
        )  # type: ignore[arg-type]
        plan = plan_runs(step, tile, host_limits())
        assert plan.packs
        widest = max(panel.width for panel in plan.tiling.panels) * tile.vector.nbytes
        assert plan.turns * plan.term_block * widest <= PIECE_BYTES
        assert plan.turns == 1 or plan.term_block == length


def test_depthwise_convolutions_run_in_lanes_of_channels() -> None:
    x, w = np.ones((2, 10, 10, 24), np.float32), np.ones((5, 5, 24), np.float32)

    def depthwise(x: Any, w: Any) -> Any:
        x = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        return np.einsum("nhwckl,klc->nhwc", sliding_window_view(x, (5, 5), axis=(1, 2)), w)

    lowered = graphjit.value_and_grad(lambda x, w: np.sum(depthwise(x, w) ** 2), argnums=(0, 1)).lower(x, w)
    simd = [
        s
        for kernel in lowered.loops.values()
        for s in walk(kernel.body)
        if isinstance(s, For) and s.kind == "simd"
    ]
    assert len(simd) >= 3  # forward, by x and by w
    assert all(load.address[loop.axis] in (0, 1) for loop in simd for load in loads(loop.body))


def test_windows_of_frames_of_frames_are_proved_to_stay_inside() -> None:
    """A tap that reads zeros on one axis says which taps there are: the verifier combines both conditions."""
    text = """
graph folded
  %0 = input name='x' : f64[5,2]
  %1 = embed %0 shape=(5, 3) starts=(0, 0) steps=(1, 1) : f64[5,3]
  %2 = fold %1 axes=(0,) lengths=(15,) steps=(2,) spreads=(3,) : f64[15]
  return %2
"""
    graph, x = parse_graph(text), np.arange(10.0).reshape(5, 2)
    (found,) = run(graph, [x])
    np.testing.assert_array_equal(found, interpret(graph, x)[0])
