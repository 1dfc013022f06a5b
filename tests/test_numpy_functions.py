"""Shape, joining, selection, creation, padding, calculus and product functions and ndarray methods on tracers against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy_harness import OPERANDS, check_expression, function_of, lines, record, run

from graphjit.errors import TraceError, UnsupportedError

SHAPES = lines(
    """
    np.reshape(m, (4, 3))
    np.reshape(m, -1)
    np.reshape(m, (2, -1))
    np.reshape(m, [2, 6])
    np.reshape(m, (4, 3), order='F')
    np.reshape(t, (-1, 4), 'F')
    m.reshape(4, 3)
    m.reshape((4, 3))
    m.reshape(-1)
    m.reshape(2, -1, order='F')
    z.reshape(3, 0)
    z.reshape(0, 5)
    s.reshape(1, 1)
    np.ravel(m)
    np.ravel(m, 'F')
    m.ravel()
    m.flatten()
    m.flatten('F')
    m.flat[2]
    z.ravel()
    np.transpose(m)
    np.transpose(t, (2, 0, 1))
    np.transpose(t, (-1, 0, 1))
    np.permute_dims(t, (1, 0, 2))
    m.T
    t.T
    s.T
    v.T
    t.mT
    t.transpose()
    t.transpose(1, 0, 2)
    t.transpose((1, 0, 2))
    t.transpose(None)
    np.matrix_transpose(t)
    np.swapaxes(t, 0, -1)
    t.swapaxes(1, 2)
    np.moveaxis(t, 0, -1)
    np.moveaxis(t, [0, 1], [-1, -2])
    np.moveaxis(t, (2, 0), (0, 1))
    np.rollaxis(t, 2)
    np.rollaxis(t, 0, 3)
    np.rollaxis(t, -1, 1)
    np.expand_dims(m, 0)
    np.expand_dims(m, (0, -1))
    np.expand_dims(s, 0)
    np.squeeze(one)
    np.squeeze(one, 0)
    np.squeeze(one, (0, -1))
    one.squeeze()
    np.broadcast_to(v, (3, 4))
    np.broadcast_to(s, (2, 2))
    np.broadcast_to(one, (2, 3, 5))
    np.broadcast_arrays(m, v, s)
    np.broadcast_arrays(w[:, None], v)
    np.meshgrid(v, w)
    np.meshgrid(v, w, indexing='ij')
    np.meshgrid(v, w, sparse=True)
    np.meshgrid(v, [1.0, 2.0], w)
    np.atleast_1d(s)
    np.atleast_1d(s, v)
    np.atleast_2d(v)
    np.atleast_2d(s)
    np.atleast_3d(s)
    np.atleast_3d(v)
    np.atleast_3d(m)
    np.flip(m)
    np.flip(m, 0)
    np.flip(t, (0, 2))
    np.fliplr(m)
    np.flipud(m)
    np.rot90(m)
    np.rot90(m, 2)
    np.rot90(m, -1)
    np.rot90(t, 3, (1, 2))
    np.roll(v, 1)
    np.roll(m, 2)
    np.roll(m, -1, axis=1)
    np.roll(m, (1, 2), axis=(0, 1))
    np.roll(m, 7, axis=0)
    np.roll(m, 1, axis=(0, 1))
    np.roll(z, 1, axis=0)
    """
)
JOINING = lines(
    """
    np.concatenate([m, n])
    np.concatenate([m, n], axis=1)
    np.concatenate((m, np.ones((3, 2))), 1)
    np.concatenate([m, n], axis=None)
    np.concatenate([v, [1.0, 2.0]])
    np.concatenate([m, i])
    np.concatenate([f, m])
    np.concatenate([i8, u8])
    np.concatenate([m, n], dtype=np.float32)
    np.concatenate([v, np.zeros(0)])
    np.concatenate(m)
    np.stack([v, v * 2])
    np.stack([m, n], axis=-1)
    np.stack([m, n], 1)
    np.stack((v, [1, 2, 3, 4]))
    np.stack(m, axis=1)
    np.vstack([v, v])
    np.vstack([m, v])
    np.hstack([v, w])
    np.hstack([m, n])
    np.hstack([s, v])
    np.dstack([v, v])
    np.dstack([m, n])
    np.column_stack([v, v])
    np.column_stack([m, w])
    np.append(v, w)
    np.append(m, n, axis=0)
    np.append(v, 1.0)
    np.block([[q, m], [n, q]])
    np.block([v, w])
    np.block([[s, s], [s, s]])
    np.split(v, 2)
    np.split(m, [1, 3], axis=1)
    np.split(v, [2, 9])
    np.array_split(v, 3)
    np.array_split(m, 2, axis=0)
    np.hsplit(m, 2)
    np.vsplit(m, 3)
    np.dsplit(t, 2)
    np.hsplit(v, 2)
    np.unstack(m)
    np.unstack(t, axis=1)
    np.tile(v, 2)
    np.tile(v, (2, 1))
    np.tile(m, (2, 3))
    np.tile(m, (2, 1, 2))
    np.tile(s, 3)
    np.tile(t, 2)
    np.repeat(v, 2)
    np.repeat(m, 3, axis=1)
    np.repeat(m, 2)
    np.repeat(v, [1, 0, 2, 3])
    np.repeat(m, [1, 2, 0], axis=0)
    np.repeat(v, 0)
    m.repeat(2, axis=0)
    np.resize(v, (2, 3))
    np.resize(m, 5)
    """
)
DIAGONALS = lines(
    """
    np.diag(v)
    np.diag(v, 1)
    np.diag(v, -2)
    np.diag(m)
    np.diag(m, 1)
    np.diag(m, -2)
    np.diag(m, 9)
    np.diag(i[0])
    np.diag(b[0])
    np.diag(m.T, 2)
    np.diagflat(m)
    np.diagflat(v, 1)
    np.diagonal(m)
    np.diagonal(t, 1, 1, 2)
    np.diagonal(t, axis1=2, axis2=0)
    m.diagonal(1)
    np.linalg.diagonal(t, offset=1)
    np.trace(m)
    np.trace(t, 1, 2, 1)
    np.trace(i8)
    np.linalg.trace(t)
    m.trace()
    np.tril(m)
    np.tril(m, 1)
    np.triu(m, -1)
    np.triu(t)
    np.tril(t, -1)
    np.triu(i)
    np.tril(v)
    np.vander(v)
    np.vander(v, 3, increasing=True)
    """
)
SELECTION = lines(
    """
    np.where(b, m, n)
    np.where(m > 0, m, 0)
    np.where(m > 0, m, 0.0)
    np.where(f > 0, f, 0.0)
    np.where(f > 0, f, 1)
    np.where(i > 0, i, 2)
    np.where(i > 0, i, 2.5)
    np.where(i8 > 0, i8, 3)
    np.where(b, 1, 0) + m
    np.where(m, 1.0, n)
    np.where(b, v, w[:, None])
    np.where([True, False, True, True], v, 0)
    np.where(s > 0, m, n)
    np.clip(m, -1, 1)
    np.clip(m, None, 0.5)
    np.clip(m, 0, None)
    np.clip(m, n, 1.0)
    np.clip(m, min=0)
    np.clip(m, max=v)
    np.clip(i, -1, 2)
    np.clip(i, -0.5, 2)
    np.clip(f, 0.0, 1.0)
    np.clip(nan, -1, 1)
    np.clip(m, 1, -1)
    m.clip(0, 1)
    m.clip(min=0)
    m.clip(max=0.25)
    np.nan_to_num(nan)
    np.nan_to_num(nan, nan=1.0, posinf=9.0, neginf=-9.0)
    np.nan_to_num(nan.astype(np.float32))
    np.nan_to_num(i)
    np.select([m > 1, m > 0], [m, n])
    np.select([m > 1, b], [m * 2, n], default=-1.0)
    np.select([b, c], [v, i])
    np.choose(abs(i) % 3, [m, n, 0.5], mode='clip')
    np.choose(i, [m, n, p], mode='wrap')
    np.choose([0, 1, 0, 1], [v, v * 2])
    np.take(v, [0, 2])
    np.take(m, [0, -1], axis=1)
    np.take(m, j, axis=1)
    np.take(m, [[0, 1], [2, 3]], axis=1)
    np.take(m, 5)
    np.take(m, -1, axis=0)
    np.take(m, [7, -9], axis=1, mode='clip')
    np.take(m, [7, -9], axis=1, mode='wrap')
    np.take(m, j * 3, axis=0, mode='wrap')
    np.take(m, j * 3 - 4, axis=0, mode='clip')
    m.take([1, 1], axis=0)
    np.take_along_axis(m, np.argsort([[3, 1, 2, 0]] * 3), axis=1)
    np.take_along_axis(m, np.argmax(m, axis=1, keepdims=True), axis=1)
    np.take_along_axis(m, abs(i) % 3, axis=0)
    np.take_along_axis(v, j, axis=0)
    np.take_along_axis(m, j, axis=None)
    np.compress([True, False, True], m, axis=0)
    np.compress([False, False], v)
    m.compress([True, False, True, False], axis=1)
    np.extract([True, False, True, False], v)
    np.delete(v, 1)
    np.delete(m, [0, 2], axis=1)
    np.delete(m, slice(1), axis=0)
    np.isclose(m, m + 1e-9)
    np.isclose(nan, nan)
    np.isclose(nan, nan, equal_nan=True)
    np.isclose(m, n, rtol=1.0)
    np.allclose(m, m)
    np.allclose(m, n)
    np.array_equal(m, m)
    np.array_equal(m, v)
    np.array_equal(nan, nan, equal_nan=True)
    """
)
CREATION = lines(
    """
    np.zeros_like(m)
    np.zeros_like(m, dtype=int)
    np.zeros_like(i, shape=(2, 2))
    np.ones_like(f)
    np.ones_like(b)
    np.full_like(m, 2.5)
    np.full_like(i, 2.7)
    np.full_like(m, s)
    np.full_like(m, v)
    np.empty_like(m) * 0
    np.copy(m)
    m.copy()
    np.astype(m, np.float32)
    m.astype(int)
    m.astype('float32')
    i.astype(float)
    b.astype(np.int8)
    m.astype(bool)
    np.real(m)
    np.imag(m)
    m.real
    m.imag
    np.isreal(m)
    np.iscomplex(m)
    np.round(m)
    np.round(m, 2)
    np.round(m * 100, -1)
    np.round(f, 1)
    np.round(i, 2)
    np.around(m, 1)
    m.round(1)
    round(1.5) * m
    np.fix(m)
    np.float32(2) * f
    np.conj(m)
    m.conj()
    np.eye(3) @ q
    np.identity(3) * w
    np.arange(4) * v
    np.linspace(0, 1, 4) + v
    np.tri(3) * q
    np.linspace(s, 3, 5)
    np.linspace(0, v, 4)
    np.linspace(v, 1.0, 3, axis=1)
    np.linspace(s, 3, 5, endpoint=False)
    np.linspace(s, 3, 5, retstep=True)
    np.linspace(s, 3, 1)
    np.linspace(f[0], 3, 4)
    np.linspace(s, 9, 5, dtype=int)
    """
)
PADDING = lines(
    """
    np.pad(v, 2)
    np.pad(m, 1)
    np.pad(m, ((1, 0), (2, 3)))
    np.pad(m, (1, 2))
    np.pad(v, 2, constant_values=-1)
    np.pad(m, 1, constant_values=((1, 2), (3, 4)))
    np.pad(v, (1, 2), constant_values=s)
    np.pad(i, 1, constant_values=7)
    np.pad(b, 1)
    np.pad(f, 1, mode='constant', constant_values=0.1)
    np.pad(v, 3, mode='edge')
    np.pad(m, ((2, 1), (0, 3)), 'edge')
    np.pad(v, 2, mode='reflect')
    np.pad(v, 9, mode='reflect')
    np.pad(m, ((2, 0), (1, 3)), mode='reflect')
    np.pad(v, 3, mode='reflect', reflect_type='odd')
    np.pad(v, (8, 5), mode='reflect', reflect_type='odd')
    np.pad(v[:1], 2, mode='reflect')
    np.pad(v, 2, mode='symmetric')
    np.pad(v, 11, mode='symmetric')
    np.pad(m, 1, mode='symmetric', reflect_type='odd')
    np.pad(v, 2, mode='wrap')
    np.pad(v, (9, 6), mode='wrap')
    np.pad(m, 1, mode='wrap')
    np.pad(v, 3, mode='linear_ramp')
    np.pad(m, ((1, 2), (0, 3)), mode='linear_ramp', end_values=(5, -4))
    np.pad(i, 2, mode='linear_ramp', end_values=3)
    np.pad(v, 2, mode='maximum')
    np.pad(m, 1, mode='minimum')
    np.pad(v, 2, mode='mean')
    np.pad(m, 1, mode='mean')
    np.pad(m, {1: (1, 2)})
    np.pad(m, {-1: 2, 0: 1}, mode='edge')
    """
)
CALCULUS = lines(
    """
    np.diff(v)
    np.diff(m)
    np.diff(m, axis=0)
    np.diff(m, n=2)
    np.diff(v, n=9)
    np.diff(m, n=0)
    np.diff(b)
    np.diff(u8)
    np.diff(m, prepend=0)
    np.diff(m, axis=0, append=n[:1])
    np.ediff1d(m)
    np.ediff1d(v, to_begin=-99, to_end=[1, 2])
    np.gradient(v)
    np.gradient(v, 0.5)
    np.gradient(v, edge_order=2)
    np.gradient(m)
    np.gradient(m, 2.0, axis=0)
    np.gradient(m, 2.0, 3.0)
    np.gradient(m, axis=1, edge_order=2)
    np.gradient(v, [0.0, 1.0, 3.0, 7.0])
    np.gradient(v, np.cumsum(p[0]), edge_order=2)
    np.gradient(m, [0.0, 1.0, 3.0, 7.0], axis=1)
    np.gradient(i, axis=0)
    np.gradient(f, axis=0)
    np.trapezoid(v)
    np.trapezoid(m, dx=0.5)
    np.trapezoid(m, [0.0, 1.0, 3.0, 7.0])
    np.trapezoid(m, n, axis=0)
    np.trapezoid(m, w, axis=0)
    np.convolve(v, w)
    np.convolve(v, w, 'same')
    np.convolve(v, w, 'valid')
    np.convolve(w, v, 'same')
    np.convolve(w, v, 'valid')
    np.convolve(v, [1, 2])
    np.convolve(i[0], j)
    np.convolve(v, s)
    np.correlate(v, w)
    np.correlate(v, w, 'full')
    np.correlate(w, v, 'full')
    np.correlate(v, w, 'same')
    np.correlate(w, v, 'same')
    np.polyval(w, v)
    np.polyval([1, 2, 3], m)
    np.polyval(w, 2.0)
    np.polyval([1, 2], i)
    np.sinc(m)
    np.sinc(i)
    np.sinc(np.zeros(2) * s)
    """
)
ALL = SHAPES + JOINING + DIAGONALS + SELECTION + CREATION + PADDING + CALCULUS


@pytest.mark.parametrize("expression", ALL)
def test_function(expression: str) -> None:
    check_expression(expression)


ERRORS = lines(
    """
    np.reshape(m, (5, 5))
    np.reshape(m, (-1, -1))
    np.transpose(m, (0, 0))
    np.transpose(m, (0,))
    np.squeeze(m, 0)
    np.broadcast_to(m, (4, 3))
    np.concatenate([m, v])
    np.concatenate([m, k])
    np.concatenate([s, s])
    np.stack([m, v])
    np.split(v, 3)
    np.repeat(v, [1, 2])
    np.repeat(v, -1)
    np.take(v, 9)
    np.expand_dims(m, 5)
    np.swapaxes(m, 0, 3)
    np.moveaxis(m, 0, (0, 1))
    np.diag(t)
    np.trace(v)
    np.pad(v, -1)
    np.pad(m, 1, mode='edge', constant_values=1)
    np.convolve(m, v)
    np.where(b, m)
    np.choose([5, 0], [v[:2], v[2:]])
    np.atleast_3d(m)[9]
    m.astype(int, casting='safe')
    np.subtract(b, c)
    """
)


@pytest.mark.parametrize("expression", ERRORS)
def test_errors_are_numpys(expression: str) -> None:
    function, names = function_of(expression)
    arrays = [OPERANDS[name] for name in names]
    with pytest.raises(Exception) as wanted:
        function(*arrays)
    with pytest.raises(wanted.type):
        record(function, arrays)


@pytest.mark.parametrize(
    ("expression", "kind", "words"),
    [
        ("np.nonzero(m)", TraceError, "np.where"),
        ("np.where(m > 0)", TraceError, "depends on values"),
        ("m.nonzero()", TraceError, "np.where"),
        ("np.sort(m)", UnsupportedError, "outside"),
        ("m.sort()", UnsupportedError, "outside"),
        ("np.unique(m)", TraceError, "outside"),
        ("np.linalg.svd(m)", UnsupportedError, "np.linalg.svd"),
        ("np.linalg.norm(m, 2)", UnsupportedError, "singular"),
        ("np.pad(v, 1, mode='median')", UnsupportedError, "edge"),
        ("np.reshape(m, (s, 3))", TraceError, "shape"),
        ("np.tile(v, j)", TraceError, "reps"),
        ("np.fft.fft(v)", UnsupportedError, "fft"),
        ("m.tobytes()", UnsupportedError, "memory"),
        ("m.ctypes", TraceError, "memory"),
        ("m.nothing", AttributeError, "nothing"),
        ("np.maximum.at(m, [0], 1)", UnsupportedError, "at"),
        ("np.frexp(m)", UnsupportedError, "frexp"),
        ("np.add(m, 1, where=b)", UnsupportedError, "np.where"),
    ],
)
def test_what_is_not_compiled_says_so(expression: str, kind: type[Exception], words: str) -> None:
    function, names = function_of(expression)
    with pytest.raises(kind, match=words):
        record(function, [OPERANDS[name] for name in names])


def test_static_questions_have_python_answers() -> None:
    def ask(m: np.ndarray, f: np.ndarray) -> np.ndarray:
        assert np.shape(m) == (3, 4)
        assert np.ndim(m) == 2
        assert np.size(m) == 12
        assert np.size(m, 0) == 3
        assert np.result_type(m, f) == np.float64
        assert np.result_type(f, 1.0) == np.float32
        assert np.can_cast(f, np.float64)
        assert not np.iscomplexobj(m)
        assert np.isrealobj(m)
        assert np.common_type(f) is np.float32
        assert not np.shares_memory(m, f + 1)
        assert np.shares_memory(m, m.T[1:])
        assert not np.shares_memory(m[0], m[1])
        assert len(m) == 3
        assert m.shape == (3, 4)
        assert m.dtype == np.float64
        assert np.einsum_path("ij,jk->ik", m, m.T)[0][0] == "einsum_path"
        return m

    run(ask, OPERANDS["m"], OPERANDS["f"])


def test_lists_of_tracers_become_arrays() -> None:
    s = OPERANDS["s"]
    for function in (
        lambda s: np.array([s, s * 2]) * np.ones(2) + s,
        lambda s: np.sin(np.array([s, s + 1])) + s,
        lambda s: np.stack([[s, 1.0], [0.0, s]]),
        lambda s: np.concatenate([[s], [2.0, 3.0]]),
        lambda s: np.dot(np.array([[s, 1.0], [2.0, s]]), np.stack([s, s])),
        lambda s: np.sum(np.array([s, s])) + np.array([s, 2 * s])[1],
        lambda s: np.mean(np.stack([s, s, 1.0])),
        lambda s: np.where(s > 0, [s, 1.0], [1.0, 2.0]),
    ):
        (found,) = run(function, s)
        wanted = np.asarray(function(float(s)), dtype=np.float64)
        np.testing.assert_allclose(found, wanted, rtol=1e-13)
