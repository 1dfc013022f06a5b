"""Derivatives where it is easy to be wrong: `where`, kinks, ties, zeros, tails, infinities.

Values in the numbers below are limits worked out by hand or by mpmath, never by the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mpmath
import numpy as np
import pytest
from op_matrix import check_derivative, jacobians, jvp_graph, random_like, vjp_graph

from graphjit.errors import DerivativeError
from graphjit.interpret import interpret
from graphjit.ir.batching import same_op
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import REGISTRY, NonDifferentiable, op
from graphjit.ir.types import F64, Type
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents

INF, NAN = float("inf"), float("nan")
Body = Callable[..., Node]


def traced(body: Body, *arrays: np.ndarray) -> Graph:
    """A graph of ``body(b, *nodes)``."""
    b = Builder()
    inputs = [b.input(Type(a.dtype, a.shape), f"x{i}") for i, a in enumerate(arrays)]
    return Graph("body", inputs, [body(b, *inputs)])


def f64(*values: object) -> list[np.ndarray]:
    """Arguments in float64."""
    return [np.asarray(v, np.float64) for v in values]


def gradients(body: Body, *values: object) -> list[np.ndarray]:
    """Cotangents of all arguments for a cotangent of ones; forward mode must agree wherever both are
    numbers.
    """
    arrays = f64(*values)
    graph = traced(body, *arrays)
    ones = np.ones(graph.outputs[0].shape)
    return interpret(vjp_graph(graph), *arrays, ones)


def forward(body: Body, wrt: int, *values: object) -> np.ndarray:
    """Tangent of the result for a tangent of ones in one argument."""
    arrays = f64(*values)
    return interpret(jvp_graph(traced(body, *arrays), only=wrt), *arrays, np.ones(arrays[wrt].shape))[0]


def hessian_times_one(body: Body, *values: object) -> list[np.ndarray]:
    """Derivative of the sum of all gradients, by reverse over reverse."""
    arrays = f64(*values)
    first = vjp_graph(traced(body, *arrays))
    ones = [np.ones(node.shape) for node in first.inputs[len(arrays) :]]
    second = vjp_graph(first)
    more = [np.ones(node.shape) for node in second.inputs[len(first.inputs) :]]
    return interpret(second, *arrays, *ones, *more)[: len(arrays)]


# ----------------------------------------------------------------------------------------------- subgradients

CHOICES: list[tuple[str, Body, Sequence[object], Sequence[object]]] = [
    ("abs at 0", lambda b, x: b.abs(x), [[0.0, -0.0, 2.0, -2.0]], [[0, 0, 1, -1]]),
    ("relu at 0", lambda b, x: b.maximum(x, 0.0), [[0.0, 1.0, -1.0]], [[0.5, 1, 0]]),
    ("maximum ties share", lambda b, x, y: b.maximum(x, y), [[1.0, 2], [1.0, 1]], [[0.5, 1], [0.5, 0]]),
    ("minimum ties share", lambda b, x, y: b.minimum(x, y), [[1.0, 2], [1.0, 1]], [[0.5, 0], [0.5, 1]]),
    (
        "fmax ignores NaN",
        lambda b, x, y: b.fmax(x, y),
        [[NAN, 2.0, 1], [1.0, NAN, 1]],
        [[0, 1, 0.5], [1, 0, 0.5]],
    ),
    (
        "fmin ignores NaN",
        lambda b, x, y: b.fmin(x, y),
        [[NAN, 2.0, 1], [1.0, NAN, 1]],
        [[0, 1, 0.5], [1, 0, 0.5]],
    ),
    ("maximum of NaN", lambda b, x, y: b.maximum(x, y), [[NAN], [1.0]], [[0], [0]]),
    ("max ties share", lambda b, x: b.max(x, axes=(0,)), [[3.0, 1, 3, 3]], [[1 / 3, 0, 1 / 3, 1 / 3]]),
    ("min ties share", lambda b, x: b.min(x, axes=(0,)), [[3.0, 1, 3, 1]], [[0, 0.5, 0, 0.5]]),
    ("max of NaN", lambda b, x: b.max(x, axes=(0,)), [[3.0, NAN]], [[0, 0]]),
    ("sqrt at 0", lambda b, x: b.sqrt(x), [[0.0, 4.0]], [[INF, 0.25]]),
    ("cbrt at 0", lambda b, x: b.cbrt(x), [[0.0, 8.0, -8.0]], [[INF, 1 / 12, 1 / 12]]),
    ("sign", lambda b, x: b.mul(b.sign(x), x), [[0.0, 3.0, -3.0]], [[0, 1, -1]]),
    ("floor", lambda b, x: b.mul(b.floor(x), x), [[2.5, -2.5]], [[2, -3]]),
    ("hypot at the origin", lambda b, x, y: b.hypot(x, y), [[0.0, 3], [0.0, 4]], [[0, 0.6], [0, 0.8]]),
    (
        "hypot of huge and tiny",
        lambda b, x, y: b.hypot(x, y),
        [[3e200, 3e-200], [4e200, 4e-200]],
        [[0.6] * 2, [0.8] * 2],
    ),
    ("arctan2 of huge", lambda b, y, x: b.arctan2(y, x), [[1e200], [1e200]], [[5e-201], [-5e-201]]),
    ("arctan2 of tiny", lambda b, y, x: b.arctan2(y, x), [[1e-200], [1e-200]], [[5e199], [-5e199]]),
    ("arctan2 at the origin", lambda b, y, x: b.arctan2(y, x), [[0.0], [0.0]], [[NAN], [NAN]]),
    ("copysign", lambda b, x, y: b.copysign(x, y), [[2.0, -2, 0], [-1.0, -1, 1]], [[-1, 1, 0], [0, 0, 0]]),
    ("heaviside", lambda b, x, y: b.heaviside(x, y), [[0.0, 1, -1], [0.5, 0.5, 0.5]], [[0, 0, 0], [1, 0, 0]]),
    ("remainder", lambda b, x, y: b.remainder(x, y), [[5.5, -5.5], [2.0, 2.0]], [[1, 1], [-2, 3]]),
    ("fmod", lambda b, x, y: b.fmod(x, y), [[5.5, -5.5], [2.0, 2.0]], [[1, 1], [-2, 2]]),
    (
        "power at 0: d/dx",
        lambda b, x, y: b.pow(x, y),
        [[0.0] * 5, [0.0, 0.5, 1, 2, 3]],
        [[0, INF, 1, 0, 0], [0] * 5],
    ),
    ("constant powers", lambda b, x: b.pow(x, b.full(1.0, x.type)), [[0.0, -1.0]], [[1, 1]]),
    ("constant power 0", lambda b, x: b.pow(x, b.full(0.0, x.type)), [[0.0, -1.0]], [[0, 0]]),
    ("constant power 2", lambda b, x: b.pow(x, b.full(2.0, x.type)), [[0.0, -3.0]], [[0, -6]]),
    ("constant power 3", lambda b, x: b.pow(x, b.full(3.0, x.type)), [[0.0, -3.0]], [[0, 27]]),
    ("constant power -1", lambda b, x: b.pow(x, b.full(-1.0, x.type)), [[-2.0]], [[-0.25]]),
    ("constant base", lambda b, y: b.pow(b.full(2.0, y.type), y), [[3.0, 0.0]], [[8 * np.log(2), np.log(2)]]),
    ("negative base, whole exponent", lambda b, x, y: b.pow(x, y), [[-2.0], [3.0]], [[12.0], [NAN]]),
    (
        "xlogy at 0",
        lambda b, x, y: b.xlogy(x, y),
        [[0.0, 0.0, 2], [0.0, 3.0, 4]],
        [[-INF, np.log(3), np.log(4)], [0, 0, 0.5]],
    ),
    ("xlog1py at 0", lambda b, x, y: b.xlog1py(x, y), [[0.0, 0.0], [-1.0, 3.0]], [[-INF, np.log(4)], [0, 0]]),
    (
        "logaddexp with infinities",
        lambda b, x, y: b.logaddexp(x, y),
        [[-INF, -INF, INF, INF, 1.0, 5.0], [-INF, 2.0, 2.0, INF, 1.0, -INF]],
        [[0, 0, 1, 1, 0.5, 1], [0, 1, 0, 1, 0.5, 0]],
    ),
    (
        "logaddexp2 with infinities",
        lambda b, x, y: b.logaddexp2(x, y),
        [[-INF, 1.0], [-INF, 1.0]],
        [[0, 0.5], [0, 0.5]],
    ),
    ("logsumexp of -inf", lambda b, x: b.logsumexp(x, axes=(0,)), [[-INF, -INF]], [[0, 0]]),
    ("logsumexp with one -inf", lambda b, x: b.logsumexp(x, axes=(0,)), [[-INF, 2.0, 2.0]], [[0, 0.5, 0.5]]),
    ("logsumexp with +inf", lambda b, x: b.logsumexp(x, axes=(0,)), [[INF, 2.0]], [[1, 0]]),
    ("log_expit in the tail", lambda b, x: b.log_expit(x), [[-800.0, 0, 800]], [[1, 0.5, 0]]),
    ("log1p close to -1", lambda b, x: b.log1p(x), [[-1.0]], [[INF]]),
    ("arccosh of huge", lambda b, x: b.arccosh(x), [[1e200, 1.0]], [[1e-200, INF]]),
    ("arcsinh of huge", lambda b, x: b.arcsinh(x), [[1e200, 0.0]], [[1e-200, 1]]),
    ("product without zeros", lambda b, x: b.prod(x, axes=(0,)), [[2.0, 3, 4]], [[12, 8, 6]]),
    ("product with one zero", lambda b, x: b.prod(x, axes=(0,)), [[2.0, 0, 4]], [[0, 8, 0]]),
    ("product with two zeros", lambda b, x: b.prod(x, axes=(0,)), [[0.0, 0, 4]], [[0, 0, 0]]),
    (
        "running product with a zero",
        lambda b, x: b.cumprod(x, axis=0, reverse=False),
        [[2.0, 0, 3]],
        [[1, 8, 0]],
    ),
    (
        "convert to int and back",
        lambda b, x: b.mul(x, b.convert(b.convert(x, dtype=np.dtype("i8")), dtype=F64)),
        [[2.5]],
        [[2]],
    ),
]


@pytest.mark.parametrize(
    ("body", "values", "expected"), [c[1:] for c in CHOICES], ids=[c[0] for c in CHOICES]
)
def test_choice(body: Body, values: Sequence[object], expected: Sequence[object]) -> None:
    """The documented derivative, the same in reverse and in forward mode."""
    got = gradients(body, *values)
    for i, want in enumerate(expected):
        np.testing.assert_allclose(
            got[i], np.asarray(want, np.float64), rtol=1e-14, atol=0, err_msg=f"argument {i}"
        )
    graph = traced(body, *f64(*values))
    if not {"max", "min", "prod", "cumprod", "logsumexp"} & {node.op.name for node in graph.nodes()}:
        for i, want in enumerate(expected):
            np.testing.assert_allclose(
                forward(body, i, *values), np.asarray(want, np.float64), rtol=1e-14, atol=0
            )
    else:
        by_columns, _ = jacobians(graph, f64(*values))
        np.testing.assert_allclose(by_columns.sum(axis=0), np.ravel(expected), rtol=1e-14, atol=0)


def test_second_derivatives_at_kinks_and_zeros() -> None:
    """Masks that guard a first derivative must not swallow the second one where that exists."""
    (square,) = hessian_times_one(lambda b, x: b.pow(x, b.full(2.0, x.type)), [0.0, 3.0])
    np.testing.assert_allclose(square, [2, 2])
    x, y = hessian_times_one(lambda b, x, y: b.pow(x, y), [0.0], [2.0])
    assert x[0] == 2  # y (y-1) x**(y-2) at 0, the mixed part is 0
    x, y = hessian_times_one(lambda b, x, y: b.pow(x, y), [3.0], [0.0])
    np.testing.assert_allclose(
        [x[0], y[0]], [1 / 3, 1 / 3 + np.log(3.0) ** 2]
    )  # d2/dxdy = 1/x, d2/dy2 = log(x)**2
    x, y = hessian_times_one(lambda b, x, y: b.xlogy(x, y), [0.0], [4.0])
    np.testing.assert_allclose([x[0], y[0]], [0.25, 0.25])
    x, y = hessian_times_one(lambda b, x, y: b.logaddexp(x, y), [1.0], [1.0])
    np.testing.assert_allclose([x[0], y[0]], [0, 0], atol=1e-16)  # 1/4 - 1/4
    (x,) = hessian_times_one(lambda b, x: b.prod(x, axes=(0,)), [0.0, 2.0, 3.0])
    np.testing.assert_allclose(x, [5, 3, 2])  # row sums of the matrix of products of the third factor
    (x,) = hessian_times_one(lambda b, x: b.prod(x, axes=(0,)), [0.0, 0.0, 3.0])
    np.testing.assert_allclose(x, [3, 3, 0])


def test_log_ndtr_far_in_the_tail() -> None:
    """First and second derivative against mpmath, down to where the density underflows."""
    points = [-1e6, -300.0, -50.0, -20.0, -5.0, -1.0, 0.0, 2.0, 8.0]
    with mpmath.workdps(60):
        hazard = [mpmath.npdf(x) / mpmath.ncdf(x) if x > -400 else None for x in points]
        first = [float(h) if h is not None else 1e6 + 1e-6 for h in hazard]  # -x - 1/x far out
        second = [
            float(-h * (x + h)) if h is not None else -1.0 + 1e-12
            for x, h in zip(points, hazard, strict=True)
        ]
    (got,) = gradients(lambda b, x: b.log_ndtr(x), points)
    np.testing.assert_allclose(got, first, rtol=2e-14)
    (got,) = hessian_times_one(lambda b, x: b.log_ndtr(x), points)
    np.testing.assert_allclose(got, second, rtol=1e-11)


def test_logsumexp_of_huge_values() -> None:
    """No overflow; the weights exp(x - out) are right to eps * |out|."""
    (got,) = gradients(lambda b, x: b.logsumexp(x, axes=(0,)), [1e4, 1e4, -1e4])
    np.testing.assert_allclose(got, [0.5, 0.5, 0], rtol=1e-11)


def test_gamma_functions_by_mpmath() -> None:
    """digamma, trigamma and polygamma as derivatives of gammaln, on both sides of zero."""
    points = [0.1, 0.5, 1.0, 3.7, 40.0, -0.4, -2.3]
    body: Body = lambda b, x: b.gammaln(x)
    (first,) = gradients(body, points)
    np.testing.assert_allclose(first, [float(mpmath.digamma(x)) for x in points], rtol=1e-12)
    (second,) = hessian_times_one(body, points)
    np.testing.assert_allclose(second, [float(mpmath.polygamma(1, x)) for x in points], rtol=1e-12)
    (third,) = hessian_times_one(lambda b, x: b.digamma(x), points)
    np.testing.assert_allclose(third, [float(mpmath.polygamma(2, x)) for x in points], rtol=1e-11)


# --------------------------------------------------------------------------------------------- NaN-safe where


def where(b: Builder, condition: Node, x: Node, y: Node | float) -> Node:
    """np.where."""
    return b.select(condition, x, y if isinstance(y, Node) else b.full(y, x.type))


def wide(b: Builder, row: Node, like: Node) -> Node:
    """A value per row in the shape of the rows."""
    return b.broadcast_to(b.reshape(row, shape=(*row.shape, 1)), shape=like.shape)


def unit_rows(b: Builder, x: Node) -> Node:
    """Each row divided by its length, zero rows left zero."""
    n = b.sqrt(b.sum(b.mul(x, x), axes=(1,)))
    return where(b, b.gt(wide(b, n, x), 0.0), b.div(x, wide(b, n, x)), 0.0)


def lengths(b: Builder, x: Node) -> Node:
    """Row lengths, taken only where they are positive."""
    s = b.sum(b.mul(x, x), axes=(1,))
    return where(b, b.gt(s, 0.0), b.sqrt(s), 0.0)


def huber_like(b: Builder, x: Node) -> Node:
    """Nested: sqrt above 1, log between 0 and 1, a line below, which all fail somewhere outside their
    range.
    """
    return where(b, b.gt(x, 1.0), b.sqrt(b.sub(x, 1.0)), where(b, b.gt(x, 0.0), b.log(x), b.mul(x, 2.0)))


def shared(b: Builder, x: Node) -> Node:
    """One intermediate value under two conditions that overlap and leave a gap."""
    root = b.sqrt(x)
    return b.add(where(b, b.gt(x, 2.0), b.mul(root, 3.0), 0.0), where(b, b.gt(x, 1.0), b.log(root), 0.0))


def both_sides(b: Builder, x: Node) -> Node:
    """One intermediate value read on both sides of one condition, inside another one."""
    root = b.sqrt(x)
    inside = where(b, b.gt(x, 2.0), b.mul(root, 3.0), b.mul(root, root))
    return where(b, b.gt(x, 0.0), inside, 0.0)


def inner_gap(b: Builder, x: Node) -> Node:
    """Taken on one side, and on the other side only under a second condition."""
    root = b.sqrt(x)
    return where(b, b.gt(x, 2.0), root, where(b, b.gt(x, 0.0), b.mul(root, 5.0), 7.0))


def entropy(b: Builder, x: Node) -> Node:
    """Sum of x log x over rows."""
    return b.sum(where(b, b.gt(x, 0.0), b.mul(x, b.log(x)), 0.0), axes=(1,))


def moved(b: Builder, x: Node) -> Node:
    """The singular value is transposed, flipped, sliced and reshaped before `where` sees it."""
    root = b.transpose(b.sqrt(x), perm=(1, 0))
    root = b.flip(root, axes=(0,))
    kept = b.slice(root, starts=(0, 0), limits=(2, 2), steps=(1, 1))
    mask = b.gt(
        b.slice(b.flip(b.transpose(x, perm=(1, 0)), axes=(0,)), starts=(0, 0), limits=(2, 2), steps=(1, 1)),
        0.0,
    )
    return b.reshape(where(b, mask, kept, 0.0), shape=(4,))


def finite_rows(b: Builder, x: Node) -> Node:
    """logsumexp of the rows that have one."""
    rows = b.logsumexp(x, axes=(1,))
    return where(b, b.isfinite(rows), rows, 0.0)


def softmax_rows(b: Builder, x: Node) -> Node:
    """softmax of the rows that have one."""
    top = b.max(x, axes=(1,))
    return where(b, b.isfinite(wide(b, top, x)), b.mul(b.softmax(x, axes=(1,)), x), 0.0)


def masked_attention(b: Builder, x: Node) -> Node:
    """softmax over entries that are not masked."""
    scores = where(b, b.gt(x, 0.0), x, -INF)
    return b.softmax(scores, axes=(1,))


Z = 0.0
SAFE: list[tuple[str, Body, object, object]] = [
    ("sqrt", lambda b, x: where(b, b.gt(x, 0.0), b.sqrt(x), 0.0), [4.0, 0, -1], [0.25, 0, 0]),
    (
        "sqrt, other side",
        lambda b, x: b.select(b.le(x, 0.0), b.full(0.0, x.type), b.sqrt(x)),
        [4.0, 0, -1],
        [0.25, 0, 0],
    ),
    ("log", lambda b, x: where(b, b.gt(x, 0.0), b.log(x), 0.0), [4.0, 0, -1], [0.25, 0, 0]),
    ("division", lambda b, x: where(b, b.ne(x, 0.0), b.div(1.0, x), 0.0), [2.0, 0], [-0.25, 0]),
    (
        "division by an expression",
        lambda b, x: where(b, b.ne(x, 0.0), b.div(x, b.mul(x, x)), 0.0),
        [2.0, 0],
        [-0.25, 0],
    ),
    (
        "power",
        lambda b, x: where(b, b.gt(x, 0.0), b.pow(x, b.full(0.5, x.type)), 0.0),
        [4.0, 0, -1],
        [0.25, 0, 0],
    ),
    ("arccos", lambda b, x: where(b, b.lt(x, 1.0), b.arccos(x), 0.0), [0.0, 1, 2], [-1, 0, 0]),
    ("overflow", lambda b, x: where(b, b.lt(x, 1.0), b.exp(b.exp(x)), 0.0), [0.0, 1000], [np.e, 0]),
    (
        "long chain",
        lambda b, x: where(b, b.gt(x, 0.0), b.log(b.neg(b.neg(b.sqrt(b.mul(x, x))))), 0.0),
        [4.0, 0],
        [0.25, 0],
    ),
    ("nested", huber_like, [5.0, 0.5, -1, 0, 1], [0.25, 2, 2, 2, 1]),
    ("shared value", shared, [4.0, 1.5, 1, 0, -1], [0.75 + 0.125, 1 / 3, 0, 0, 0]),
    ("both sides", both_sides, [4.0, 1, 0, -1], [0.75, 1, 0, 0]),
    ("inner gap", inner_gap, [4.0, 1, 0, -1], [0.25, 2.5, 0, 0]),
    ("unit rows", unit_rows, [[3.0, 4], [0, 0]], [[(1 - 0.36 - 0.48) / 5, (1 - 0.64 - 0.48) / 5], [0, 0]]),
    ("row lengths", lengths, [[3.0, 4], [0, 0]], [[0.6, 0.8], [0, 0]]),
    ("entropy", entropy, [[1.0, 0], [np.e, -1]], [[1, 0], [2, 0]]),
    ("moved", moved, [[4.0, 0], [0, 1.0]], [[0.25, 0], [0, 0.5]]),
    (
        "logsumexp rows",
        finite_rows,
        [[1.0, 1], [-INF, -INF], [NAN, 1], [INF, 0]],
        [[0.5, 0.5], [0, 0], [0, 0], [0, 0]],
    ),
    ("softmax rows", softmax_rows, [[0.0, 0], [-INF, -INF], [NAN, 1]], [[0.5, 0.5], [0, 0], [0, 0]]),
    ("attention mask", masked_attention, [[1.0, 2, -1]], [[0, 0, 0]]),
]


@pytest.mark.parametrize(("body", "at", "expected"), [c[1:] for c in SAFE], ids=[c[0] for c in SAFE])
def test_where_is_nan_safe(body: Body, at: object, expected: object) -> None:
    """Right where the branch is taken, exactly zero elsewhere; second order and forward mode are finite
    too.
    """
    (got,) = gradients(body, at)
    np.testing.assert_allclose(got, np.asarray(expected, np.float64), rtol=1e-14, atol=1e-16)
    (x,) = f64(at)
    graph = traced(body, x)
    # forward mode with a tangent in one element at a time, rows of NaN and inf left alone
    tangent = interpret(jvp_graph(graph), x, np.where(np.isfinite(x), 1.0, 0.0))[0]
    backward = vjp_graph(graph)
    u = np.ones(graph.outputs[0].shape)
    reverse_over_reverse = interpret(vjp_graph(backward), x, u, np.where(np.isfinite(x), 1.0, 0.0))
    forward_over_reverse = interpret(jvp_graph(backward, only=0), x, u, np.where(np.isfinite(x), 1.0, 0.0))
    reverse_over_forward = interpret(vjp_graph(jvp_graph(graph)), x, np.where(np.isfinite(x), 1.0, 0.0), u)
    assert np.isfinite(tangent).all()
    np.testing.assert_allclose(tangent.sum(), got[np.isfinite(x)].sum(), rtol=1e-13, atol=1e-14)
    finite = np.isfinite(x)
    for each in (reverse_over_reverse[0], forward_over_reverse[0], reverse_over_forward[0]):
        assert np.isfinite(each[finite]).all()
        np.testing.assert_allclose(each[finite], reverse_over_reverse[0][finite], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("body", [huber_like, shared, both_sides, inner_gap], ids=lambda f: f.__name__)
def test_where_second_order_numbers(body: Body) -> None:
    """Second derivatives against differences of the first, away from the borders."""
    x = np.array([5.0, 2.6, 1.7, 0.4, 0.7])
    graph = traced(body, x)
    rng = np.random.default_rng(3)
    check_derivative(graph, [x], rng)
    check_derivative(vjp_graph(graph), [x, np.ones(5)], rng)


def test_a_chain_of_selections_stays_linear() -> None:
    """Each step adds a bounded number of nodes, however many masks came before."""

    def size(n: int) -> int:
        def body(b: Builder, x: Node) -> Node:
            for k in range(n):
                x = where(b, b.gt(x, 0.001 * k), b.sqrt(x), 0.0)
            return x

        return len(vjp_graph(traced(body, np.array([2.0, 0.0]))))

    small, large = size(50), size(200)
    assert large < 4.2 * small


def test_value_used_outside_where_keeps_its_own_gradient() -> None:
    """The mask covers what reaches an operation through `where` alone."""

    def body(b: Builder, x: Node) -> Node:
        root = b.sqrt(x)
        return b.add(where(b, b.gt(x, 0.0), root, 0.0), root)

    (got,) = gradients(body, [4.0, 0.0])
    np.testing.assert_array_equal(got, [0.5, INF])


# ------------------------------------------------------------------------------------ indexing, paths, errors


def test_scatter_set_with_repeated_places() -> None:
    """Only the last write to a place gets its cotangent, and the overwritten element gets none."""
    places = np.array([1, 1, 3])

    def body(b: Builder, x: Node, updates: Node) -> Node:
        index = b.const(places, np.dtype(np.int64))
        return b.mul(b.scatter_set(x, updates, index, axes=(0,)), b.const([1.0, 10, 100, 1000], F64))

    x, updates = gradients(body, [0.0, 0, 0, 0], [5.0, 6, 7])
    np.testing.assert_array_equal(x, [1, 0, 100, 0])
    np.testing.assert_array_equal(updates, [0, 10, 1000])


def test_gather_sums_repeated_reads() -> None:
    """Elements that are read twice get both cotangents."""

    def body(b: Builder, x: Node) -> Node:
        return b.gather(x, b.const([0, -1, -1], np.dtype(np.int64)), axes=(0,))

    (x,) = gradients(body, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(x, [1, 0, 2])


def test_paths_are_summed() -> None:
    """A value used three ways."""
    (x,) = gradients(lambda b, x: b.add(b.mul(x, x), b.sub(b.mul(x, 3.0), b.exp(x))), [0.5])
    np.testing.assert_allclose(x, [1.0 + 3.0 - np.exp(0.5)], rtol=1e-15)


def test_no_path_gives_no_cotangent() -> None:
    """Nothing is built where nothing flows: floor, comparisons, integers, an unused input."""
    b = Builder()
    x, y = b.input(Type(F64, (2,)), "x"), b.input(Type(F64, (2,)), "y")
    out = b.add(b.floor(x), b.convert(b.gt(x, 0.0), dtype=F64))
    ct = b.full(1.0, out.type)
    assert cotangents(b, {out: ct}, [x, y]) == [None, None]
    assert tangents(b, {x: ct}, [out]) == [None]


def test_an_op_without_derivative_says_why() -> None:
    """The error names the op and its reason."""
    b = Builder()
    x = b.input(Type(F64, ()), "x")
    opaque = op(
        "opaque_for_test",
        doc="An op without a derivative.",
        infer=lambda t: t,
        impl=np.copy,
        grad=NonDifferentiable("it is opaque"),
        lower=x.op.lower,
        batch=same_op,
    )
    try:
        out = b.emit(opaque, x)
        with pytest.raises(DerivativeError, match=r"opaque_for_test.*it is opaque"):
            cotangents(b, {out: b.full(1.0, out.type)}, [x])
        with pytest.raises(DerivativeError, match="it is opaque"):
            tangents(b, {x: b.full(1.0, x.type)}, [out])
    finally:
        del REGISTRY["opaque_for_test"]


def test_random_compositions_have_matching_modes() -> None:
    """Reductions, shapes, products and selections together: adjoint identity and numbers, first and second
    order.
    """

    def body(b: Builder, w: Node, x: Node) -> Node:
        h = b.tanh(b.contract(x, w, contract=((1,), (0,)), batch=((), ())))
        h = where(b, b.gt(h, 0.1), b.log1p(b.abs(h)), b.mul(h, 0.3))
        p = b.softmax(h, axes=(1,))
        return b.add(b.logsumexp(h, axes=(1,)), b.prod(p, axes=(1,)))

    rng = np.random.default_rng(11)
    w, x = rng.standard_normal((3, 4)), rng.standard_normal((5, 3))
    graph = traced(body, w, x)
    assert check_derivative(graph, [w, x], rng) == 3
    for derived in (vjp_graph(graph), jvp_graph(graph)):
        extra = random_like(rng, list(derived.inputs[2:]))
        assert check_derivative(derived, [w, x, *extra], rng) >= 3
