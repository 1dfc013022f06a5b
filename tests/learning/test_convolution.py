"""Convolutions, their transposes and pooling beside loops over positions and taps, and SciPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.signal
from layers_harness import assert_layer, assert_near, values

import graphjit
from graphjit import nn

RNG = np.random.default_rng(17)


def loops(x: Any, w: Any, stride: Any, around: Any, dilation: Any, groups: int) -> np.ndarray:
    """Channels last, two axes: position by position, tap by tap, on zeros that are really there."""
    x = np.pad(x, ((0, 0), *around, (0, 0)))
    (kh, kw, into, out), (_, height, width, _) = w.shape, x.shape
    rows = (height - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    columns = (width - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    found = np.zeros((len(x), rows, columns, out))
    for i, j, k, m in itertools.product(range(rows), range(columns), range(kh), range(kw)):
        pixel = x[:, i * stride[0] + k * dilation[0], j * stride[1] + m * dilation[1]]
        for o in range(out):
            first = o // (out // groups) * into
            found[:, i, j, o] += pixel[:, first : first + into] @ w[k, m, :, o]
    return found


def same(sizes: Any, taps: Any, stride: Any, dilation: Any) -> list[tuple[int, int]]:
    """So that there is a result for each stride."""
    found = []
    for n, k, s, d in zip(sizes, taps, stride, dilation):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        found.append((total // 2, total - total // 2))
    return found


def both(value: Any) -> Any:
    return value if isinstance(value, tuple) else (value, value)


CASES: list[tuple[Any, Any, dict[str, Any]]] = [  # shape of x, of w, options
    ((2, 5, 6, 3), (3, 3, 3, 4), {}),
    ((2, 5, 6, 3), (3, 2, 3, 4), {"padding": 1}),
    ((1, 7, 6, 2), (3, 3, 2, 3), {"padding": "same", "stride": (2, 3)}),
    ((1, 6, 7, 2), (2, 4, 2, 3), {"padding": "same", "dilation": (2, 1)}),
    ((2, 7, 8, 1), (2, 3, 1, 2), {"padding": ((0, 2), (3, 1)), "stride": (3, 1), "dilation": (1, 2)}),
    ((1, 5, 5, 2), (1, 1, 2, 3), {"stride": 2}),
    ((1, 5, 5, 2), (5, 5, 2, 3), {"padding": "valid"}),
    ((1, 5, 4, 6), (3, 2, 2, 9), {"groups": 3, "padding": (1, 0)}),
    ((2, 6, 5, 4), (3, 3, 1, 4), {"groups": 4, "padding": "same"}),  # depthwise
    ((2, 6, 5, 4), (3, 3, 1, 8), {"groups": 4, "stride": 2, "dilation": (1, 2)}),
]


@pytest.mark.sample(8)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CASES)
def test_conv2d(x_shape: Any, w_shape: Any, options: dict[str, Any], layout: str) -> None:
    x, w, b = RNG.normal(size=x_shape), RNG.normal(size=w_shape), RNG.normal(size=w_shape[-1])
    stride, dilation = both(options.get("stride", 1)), both(options.get("dilation", 1))
    padding = options.get("padding", 0)
    if padding == "same":
        around: Any = same(x_shape[1:3], w_shape[:2], stride, dilation)
    else:
        around = [both(one) for one in both(0 if padding == "valid" else padding)]
    expected = loops(x, w, stride, around, dilation, options.get("groups", 1)) + b
    if layout == "NCHW":
        x, w, expected = np.moveaxis(x, -1, 1), np.transpose(w, (3, 2, 0, 1)), np.moveaxis(expected, -1, 1)
    layer = lambda x, w, b: nn.conv2d(x, w, b, layout=layout, **options)
    assert_layer(layer, (x, w, b), expected, order=2)


def test_conv2d_is_scipys_correlation() -> None:
    x, w = RNG.normal(size=(9, 8)), RNG.normal(size=(3, 4))
    found = values(nn.conv2d, (x[None, :, :, None], w[:, :, None, None]), "d")
    assert_near(found[0, :, :, 0], scipy.signal.correlate(x, w, mode="valid"), 10)


@pytest.mark.sample(6)
@pytest.mark.parametrize("layout", ["NWC", "NCW"])
@pytest.mark.parametrize(
    ("options", "around"),
    [
        ({"stride": 2}, (0, 0)),
        ({"padding": (2, 1), "dilation": 2}, (2, 1)),
        ({"padding": "same", "groups": 2}, (1, 1)),
        ({"padding": [(0, 3)]}, (0, 3)),
        ({"padding": 2, "groups": 4}, (2, 2)),
    ],
)
def test_conv1d(layout: str, options: dict[str, Any], around: tuple[int, int]) -> None:
    groups = options.get("groups", 1)
    x, w, b = RNG.normal(size=(2, 9, 4)), RNG.normal(size=(3, 4 // groups, 8)), RNG.normal(size=8)
    stride, dilation = (options.get("stride", 1), 1), (options.get("dilation", 1), 1)
    expected = loops(x[:, :, None], w[:, None], stride, [around, (0, 0)], dilation, groups)[:, :, 0] + b
    if layout == "NCW":
        x, w, expected = np.moveaxis(x, -1, 1), np.transpose(w, (2, 1, 0)), np.moveaxis(expected, -1, 1)
    layer = lambda x, w, b: nn.conv1d(x, w, b, layout=layout, **options)
    assert_layer(layer, (x, w, b), expected)


def transposed(x: Any, w: Any, stride: Any, cut: Any, dilation: Any, groups: int, more: Any) -> np.ndarray:
    """Channels last: each element adds its kernel to the result."""
    kh, kw, split, into = w.shape
    rows = (x.shape[1] - 1) * stride[0] + (kh - 1) * dilation[0] + 1 + more[0]
    columns = (x.shape[2] - 1) * stride[1] + (kw - 1) * dilation[1] + 1 + more[1]
    found = np.zeros((len(x), rows, columns, split * groups))
    for i, j, k, m in itertools.product(range(x.shape[1]), range(x.shape[2]), range(kh), range(kw)):
        at = found[:, i * stride[0] + k * dilation[0], j * stride[1] + m * dilation[1]]
        for c, o in itertools.product(range(into), range(split)):
            at[:, c // (into // groups) * split + o] += x[:, i, j, c] * w[k, m, o, c]
    return found[:, cut[0][0] : rows - cut[0][1], cut[1][0] : columns - cut[1][1]]


TRANSPOSED: list[tuple[Any, Any, dict[str, Any]]] = [
    ((2, 3, 4, 3), (3, 3, 2, 3), {}),
    ((2, 3, 4, 3), (3, 2, 2, 3), {"stride": 2, "padding": 1}),
    ((1, 3, 2, 2), (2, 3, 2, 2), {"stride": (3, 2), "dilation": (1, 3), "output_padding": (2, 1)}),
    ((1, 3, 3, 2), (2, 2, 1, 2), {"stride": 4, "dilation": 6}),  # phases without taps
    ((1, 4, 3, 2), (4, 3, 3, 2), {"stride": (2, 1), "padding": ((3, 0), (0, 2))}),
    ((1, 2, 2, 1), (1, 1, 1, 1), {"stride": 3, "padding": ((2, 1), 1)}),  # elements that are cut off
    ((1, 3, 4, 4), (3, 3, 3, 4), {"groups": 2, "stride": 2}),
    ((1, 3, 4, 4), (3, 2, 1, 4), {"groups": 4, "stride": (1, 2), "dilation": 2}),
]


@pytest.mark.sample(8)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), TRANSPOSED)
def test_conv_transpose2d(x_shape: Any, w_shape: Any, options: dict[str, Any], layout: str) -> None:
    groups = options.get("groups", 1)
    x, w, b = RNG.normal(size=x_shape), RNG.normal(size=w_shape), RNG.normal(size=w_shape[2] * groups)
    stride, dilation = both(options.get("stride", 1)), both(options.get("dilation", 1))
    cut = [both(one) for one in both(options.get("padding", 0))]
    expected = transposed(x, w, stride, cut, dilation, groups, both(options.get("output_padding", 0))) + b
    if layout == "NCHW":
        x, w, expected = np.moveaxis(x, -1, 1), np.transpose(w, (3, 2, 0, 1)), np.moveaxis(expected, -1, 1)
    layer = lambda x, w, b: nn.conv_transpose2d(x, w, b, layout=layout, **options)
    assert_layer(layer, (x, w, b), expected, order=2)


@pytest.mark.sample(40)
@pytest.mark.parametrize("taps", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 6))
@pytest.mark.parametrize("dilation", range(1, 6))
@pytest.mark.parametrize("cut", range(4))
def test_every_stride_dilation_and_size(taps: int, stride: int, dilation: int, cut: int) -> None:
    """The transpose is that of the convolution: of the same strides, dilations and padding."""
    x, w = RNG.normal(size=(1, 4, 3, 2)), RNG.normal(size=(taps, 1, 3, 2))
    size = 3 * stride + (taps - 1) * dilation + 1 - 2 * cut
    options = {"stride": (stride, 1), "dilation": (dilation, 1), "padding": (cut, 0)}
    if size < 1:
        with pytest.raises(graphjit.ShapeError, match="cuts off all there is"):
            nn.conv_transpose2d(x, w, **options)
        return
    y = RNG.normal(size=(1, size, 3, 3))
    there, back = nn.conv2d(y, w, **options), nn.conv_transpose2d(x, w, **options)
    assert there.shape == x.shape
    np.testing.assert_allclose(np.sum(there * x), np.sum(y * back), rtol=1e-10)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transpose_of_same_is_as_much_larger(stride: int) -> None:
    x, w = RNG.normal(size=(1, 4, 5, 2)), RNG.normal(size=(2, 3, 1, 2))
    found = nn.conv_transpose2d(x, w, stride=stride, padding="same")
    assert found.shape == (1, 4 * stride, 5 * stride, 1)
    y = RNG.normal(size=found.shape)
    there = nn.conv2d(y, w, stride=stride, padding="same")
    np.testing.assert_allclose(np.sum(there * x), np.sum(y * found), rtol=1e-12)


POOLS: list[tuple[int | tuple[int, int], dict[str, Any]]] = [
    (2, {}),
    ((3, 2), {"stride": (1, 2)}),
    (3, {"stride": 2, "padding": 1}),
    ((2, 3), {"padding": ((1, 0), (0, 2))}),
    (3, {"padding": "same", "stride": 2}),
]


@pytest.mark.sample(6)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(("window", "options"), POOLS)
@pytest.mark.parametrize("kind", ["max", "mean", "inner mean"])
def test_pooling_of_images(window: Any, options: dict[str, Any], layout: str, kind: str) -> None:
    x = RNG.permutation(2 * 6 * 7 * 3).reshape(2, 6, 7, 3) / 50.0
    (kh, kw), stride = both(window), both(options.get("stride", window))
    padding = options.get("padding", 0)
    around: Any = (
        same(x.shape[1:3], (kh, kw), stride, (1, 1))
        if padding == "same"
        else [both(n) for n in both(padding)]
    )
    fill = 0.0 if kind == "mean" else np.nan
    wide = np.pad(x, ((0, 0), *around, (0, 0)), constant_values=fill)
    rows, columns = ((n - k) // s + 1 for n, k, s in zip(wide.shape[1:3], (kh, kw), stride))
    expected = np.zeros((2, rows, columns, 3))
    for i, j in np.ndindex(rows, columns):
        part = wide[:, i * stride[0] : i * stride[0] + kh, j * stride[1] : j * stride[1] + kw]
        expected[:, i, j] = np.nanmax(part, axis=(1, 2)) if kind == "max" else np.nanmean(part, axis=(1, 2))
    if layout == "NCHW":
        x, expected = np.moveaxis(x, -1, 1), np.moveaxis(expected, -1, 1)
    if kind == "max":
        layer: Any = lambda x: nn.max_pool(x, window, layout=layout, **options)
    else:
        layer = lambda x: nn.avg_pool(x, window, count_include_pad=kind == "mean", layout=layout, **options)
    assert_layer(layer, (x,), expected, order=1 if kind == "max" else 2)


def test_pooling_of_series_and_of_integers() -> None:
    x = RNG.normal(size=(2, 6, 3))
    assert_near(
        values(lambda x: nn.max_pool(x, 2, layout="NWC"), (x,), "d"), x.reshape(2, 3, 2, 3).max(axis=2)
    )
    turned = np.swapaxes(x, 1, 2)
    assert_near(values(lambda x: nn.avg_pool(x, 6, layout="NCW"), (turned,), "d")[..., 0], x.mean(axis=1))
    whole = np.arange(-4, 0).reshape(1, 4, 1)
    assert nn.max_pool(whole, 2, padding=1, layout="NWC").ravel().tolist() == [-4, -2, -1]


def test_ties_share_the_gradient() -> None:
    x = np.array([1.0, 1.0, 0.0, 1.0]).reshape(1, 2, 2, 1)
    slopes = graphjit.grad(lambda x: nn.max_pool(x, 2)[0, 0, 0, 0])(x)
    assert_near(slopes.ravel(), np.array([1, 1, 0, 1]) / 3)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_global_avg_pool(layout: str) -> None:
    x = RNG.normal(size=(2, 3, 4, 5))
    expected = x.mean(axis=(1, 2) if layout == "NHWC" else (2, 3))
    assert_layer(lambda x: nn.global_avg_pool(x, layout=layout), (x,), expected)


def test_what_does_not_fit_is_an_error() -> None:
    x, w = np.ones((1, 5, 5, 4)), np.ones((3, 3, 4, 2))
    cases: list[tuple[Any, str]] = [
        (lambda: nn.conv2d(x[0], w), r"conv2d: x has shape \(5, 5, 4\), which is not of layout NHWC"),
        (lambda: nn.conv2d(x, w, layout="HWC"), "layout is NHWC or NCHW"),
        (lambda: nn.conv1d(x, w, layout="NHWC"), "layout is NWC or NCW"),
        (lambda: nn.conv2d(x, w[0]), "not 4 axes"),
        (lambda: nn.conv2d(x, w[:, :, :3]), r"for 4 channels of x it is \(taps..., 4, out\)"),
        (lambda: nn.conv2d(x, w, groups=3), "3 groups do not divide 4 channels"),
        (lambda: nn.conv2d(x, w, np.ones(3)), "b has shape"),
        (lambda: nn.conv2d(x, w, stride=0), "stride is an integer or 2 of them, of at least 1, not 0"),
        (lambda: nn.conv2d(x, w, stride=1.5), "stride is an integer"),
        (lambda: nn.conv2d(x, w, dilation=(1, 2, 3)), "dilation is an integer"),
        (lambda: nn.conv2d(x, w, padding=(1, 2, 3)), 'padding is "same", "valid"'),
        (lambda: nn.conv2d(x, w, padding="full"), 'padding is "same", "valid"'),
        (lambda: nn.conv2d(x, w, dilation=3), r"a window spans \(7, 7\), more than x"),
        (lambda: nn.conv_transpose2d(x, w), r"\(taps..., out / groups, 4\)"),
        (lambda: nn.conv_transpose2d(x, np.ones((1, 1, 1, 4)), padding=3), "cuts off all there is"),
        (lambda: nn.max_pool(x, 2, padding=2), "as wide as a window"),
        (lambda: nn.max_pool(x, 6), "a window spans"),
    ]
    for call, said in cases:
        with pytest.raises(graphjit.ShapeError, match=said):
            call()
