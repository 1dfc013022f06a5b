"""Gradients through compositions of the NumPy front end: reverse mode and forward mode against central
differences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_harness import OPERANDS, function_of, lines, record

from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents

TABLE = lines(
    """
    np.sum(m * m)
    np.mean(np.tanh(m @ k) ** 2)
    np.var(m)
    np.std(m, axis=0)
    np.std(m, axis=1, ddof=1)
    np.prod(m, axis=1)
    np.max(m, axis=1)
    np.ptp(m, axis=0)
    np.cumsum(m, axis=1) * n
    np.cumprod(m, axis=0)
    np.average(m, axis=1, weights=p[0])
    np.linalg.norm(m)
    np.linalg.norm(m, axis=1)
    np.linalg.norm(m, 3, axis=0)
    np.linalg.norm(m, 1)
    sp.logsumexp(m, axis=1)
    sp.logsumexp(m, axis=1, b=p)
    sp.softmax(m, axis=1) * n
    sp.log_softmax(m, axis=0) * n
    np.logaddexp.reduce(m, axis=1)
    np.maximum.accumulate(m, axis=1)
    np.where(m > 0, m, 0.1 * m)
    np.clip(m, -1, 1) * n
    np.nan_to_num(m) * n
    np.select([m > 1, m > 0], [m * m, np.sin(m)], m)
    np.einsum('ij,jk,ik->i', m, k, m @ k)
    np.einsum('ii->i', q) * w
    np.einsum('ij,ij->', m, n)
    np.einsum('bij,bkj->bik', t, u)
    np.tensordot(t, u, axes=((2, 0), (2, 0)))
    t @ u.mT
    t @ v
    np.linalg.multi_dot([q, m, k])
    np.linalg.matrix_power(q, 3)
    np.linalg.matrix_power(q, -2)
    np.linalg.solve(q, m) @ np.linalg.inv(k[:, :4])
    np.linalg.det(q) * np.linalg.slogdet(q)[1]
    np.linalg.cholesky(q @ q.T) @ np.linalg.cholesky(q @ q.T, upper=True)
    np.kron(m, q)
    np.cross(q, q.T)
    np.outer(v, w)
    np.trace(q @ q)
    np.diag(v) @ np.diag(v * 2, 0)
    np.tril(q) @ np.triu(q, 1)
    np.concatenate([m, n], axis=1) @ np.concatenate([k, k])
    np.stack([v, v * v]).T
    np.split(m, 2, axis=1)[1] * 2
    np.tile(m, (2, 2)) * 1.5
    np.repeat(v, [1, 0, 2, 3]) ** 2
    np.roll(m, 1, axis=1) * m
    np.pad(m, 2, mode='reflect') ** 2
    np.pad(m, 1, mode='linear_ramp') ** 2
    np.pad(v, 3, mode='wrap') ** 2
    np.pad(v, 2, mode='mean') ** 2
    np.diff(m, axis=1) ** 2
    np.gradient(m, axis=1) ** 2
    np.convolve(v, w) ** 2
    np.trapezoid(m * m, axis=1)
    np.polyval(w, v)
    np.sinc(m)
    np.cov(m)
    np.take(m, [0, 2, 2], axis=1) ** 2
    np.take_along_axis(m, abs(i) % 3, axis=0) ** 2
    m[[0, 1, 0], 1:] ** 2
    m[::-1, ::2] * m[:, :2]
    t[:, [0, 2], 1] ** 2
    np.broadcast_to(v, (3, 4)) * m
    np.swapaxes(t, 0, 2) ** 2
    np.reshape(m, (4, 3), order='F') @ m
    np.float_power(p, m)
    p ** m
    np.modf(m)[0] * 3
    np.remainder(m, 0.7) * m
    np.linspace(s, v, 3) ** 2
    np.full_like(m, s) * m
    sp.rel_entr(p, p * p + 1)
    sp.entr(p)
    sp.huber(1.0, m)
    sp.boxcox(p, 0.3)
    np.hypot(m, n)
    np.arctan2(m, n)
    np.nansum(m * m, axis=0)
    np.nanmean(m * m)
    """
)


def buffered(x: Any, v: Any) -> Any:
    """Assignment in every form."""
    out = np.zeros((3, 4))
    for i in range(3):
        out[i] = x[i] * v
        for j in range(1, 4):
            out[i, j] += out[i, j - 1] ** 2
    out[x < 0] = v[0] * v[1]
    out[1:, ::2] *= 2
    out[[0, 2], [1, 1]] = v[2:] ** 2
    np.add.at(out, ([0, 0], [1, 1]), x[0, :2])
    out.T[0] += np.sin(v[:3])
    return out


def recurrence(x: Any, v: Any) -> Any:
    """A path filled step by step."""
    path = np.empty(6)
    path[0] = x[0, 0]
    for k in range(5):
        path[k + 1] = np.tanh(path[k] * v[k % 4]) + path[k - 1 if k else 0]
    return path


FUNCTIONS: list[tuple[str, Callable[..., Any], list[str]]] = [
    *((text, *function_of(text)) for text in TABLE),
    ("buffered", buffered, ["m", "v"]),
    ("recurrence", recurrence, ["m", "v"]),
]


@pytest.mark.parametrize(
    ("function", "names"), [row[1:] for row in FUNCTIONS], ids=[row[0] for row in FUNCTIONS]
)
def test_gradient(function: Callable[..., Any], names: list[str]) -> None:
    arrays = [OPERANDS[name] for name in names]
    with np.errstate(all="ignore"):
        graph, captured, _ = record(function, arrays)
    assert not captured
    (out,) = graph.outputs
    rng = np.random.default_rng(3)
    weight = rng.normal(size=out.shape)
    wrt = [node for node in graph.inputs if node.dtype.kind == "f"]
    builder = _builder(graph)
    seed = builder.const(weight, out.dtype)
    back = cotangents(builder, {out: seed}, wrt)
    assert all(node is not None for node in back)
    found = interpret(Graph("back", graph.inputs, back), *arrays)
    directions = [rng.normal(size=node.shape) for node in wrt]
    moved = tangents(
        builder, {node: builder.const(d, node.dtype) for node, d in zip(wrt, directions, strict=True)}, [out]
    )
    (forward,) = interpret(Graph("forward", graph.inputs, moved), *arrays)
    step = 1e-6
    ends = []
    for sign in (1, -1):
        shifted = iter(directions)
        near = [a + sign * step * next(shifted) if a.dtype.kind == "f" else a for a in arrays]
        ends.append(np.asarray(function(*[a.copy() if a.ndim else a[()] for a in near])))
    difference = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(forward, difference, rtol=2e-6, atol=2e-7)
    adjoint = sum(float(np.sum(g * d)) for g, d in zip(found, directions, strict=True))
    np.testing.assert_allclose(adjoint, np.sum(weight * forward), rtol=1e-10, atol=1e-12)


def _builder(graph: Graph) -> Builder:
    builder = Builder()
    for node in graph.nodes():
        builder.adopt(node)
    return builder


def test_masked_branches_have_finite_gradients() -> None:
    """The usual safe-norm and safe-division idioms at the singular point."""
    zero = np.array([[0.0, 0.0], [3.0, 4.0]])
    for function in (
        lambda x: np.where(np.sum(x * x, axis=1) > 0, np.sqrt(np.sum(x * x, axis=1)), 0.0),
        lambda x: np.where(x > 0, np.log(x), 0.0),
        lambda x: np.where(x != 0, 1 / x, 0.0),
        lambda x: np.sinc(x),
        lambda x: np.where(x > 0, x**1.5, 0.0),
    ):
        with np.errstate(all="ignore"):
            graph, _, _ = record(function, [zero])
            (out,) = graph.outputs
            builder = _builder(graph)
            back = cotangents(builder, {out: builder.full(1.0, out.type)}, graph.inputs)
            (found,) = interpret(Graph("back", graph.inputs, back), zero)
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found[0], 0.0)
