"""Shape, joining, selection, creation, padding, calculus and product functions and ndarray methods on tracers
against NumPy.
"""

from __future__ import annotations

import numpy as np
import pytest
from expressions.shapes import ALL
from numpy_harness import OPERANDS, check_expression, function_of, lines, record, run

from graphjit.errors import TraceError, UnsupportedError


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
