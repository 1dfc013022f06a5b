"""np.linalg.solve, inv, det, slogdet, cholesky of small matrices against NumPy: values, shapes, dtypes,
errors.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from compiled_harness import compiled
from grids import part, parts

import graphjit
from graphjit import UnsupportedError
from graphjit.limits import host_limits
from graphjit.loops.ir import For, walk
from graphjit.schedule.program import kernels_of

SIZES = range(9)
STACKS = [(), (1,), (5,), (2, 3), (0,), (37,)]
FUNCTIONS = [np.linalg.inv, np.linalg.det, np.linalg.slogdet, np.linalg.cholesky]


def upper_cholesky(a):
    return np.linalg.cholesky(a, upper=True)


def matrices(*shape: int, dtype=np.float64, seed: int = 0) -> np.ndarray:
    """Matrices of which most have pivots below the diagonal; integers where the dtype has no others."""
    rng = np.random.default_rng([seed, *shape])
    return np.asarray(rng.normal(size=shape) * (3 if np.dtype(dtype).kind == "f" else 9)).astype(dtype)


def positive(*shape: int) -> np.ndarray:
    x = matrices(*shape)
    return np.asarray(x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1]))


def agree(found, wanted, scale: float = 1.0) -> None:
    """Same class, dtype, shape and memory order; values to some units of the largest element."""
    assert type(found) is type(wanted)
    if isinstance(wanted, tuple):
        for x, y in zip(found, wanted, strict=True):
            agree(x, y, scale)
        return
    assert found.dtype == wanted.dtype
    assert np.shape(found) == np.shape(wanted)
    assert np.asarray(found).strides == np.asarray(wanted).strides or not np.size(wanted)
    unit = 64 * np.finfo(wanted.dtype).eps * scale
    np.testing.assert_allclose(found, wanted, rtol=unit, atol=unit * np.max(np.abs(wanted), initial=0.0))


def condition(a: np.ndarray) -> float:
    return float(np.max(np.linalg.cond(a), initial=1.0)) if a.shape[-1] else 1.0


@pytest.mark.sample(6)
@pytest.mark.parametrize("number", parts(2))
@pytest.mark.parametrize("n", SIZES)
def test_values(n: int, number: int) -> None:
    stacks = STACKS if n < 5 else STACKS[::3] + STACKS[-1:]
    right_sides = [(n, count) for count in ((1, 9) if n > 4 else (1, 3, 8, 9))]
    for stack, what in part(number, 2, stacks, [*FUNCTIONS, upper_cholesky, *right_sides, (n,)]):
        a = matrices(*stack, n, n)
        if callable(what):
            x = positive(*stack, n, n) if what in (np.linalg.cholesky, upper_cholesky) else a
            agree(graphjit.jit(what)(x), what(x), condition(x))
        else:
            rhs = matrices(*stack, *what, seed=1) if len(what) > 1 else matrices(n, seed=2)
            agree(graphjit.jit(np.linalg.solve)(a, rhs), np.linalg.solve(a, rhs), condition(a))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int8, np.uint16, bool])
def test_dtypes(dtype) -> None:
    """float32 is computed in float64 and rounded once; everything else becomes float64."""
    a = matrices(6, 3, 3, dtype=dtype)
    a = a if dtype is not bool else np.array([np.eye(3, dtype=bool), np.tri(3, dtype=bool)])
    a = a[np.abs(np.linalg.det(a)) > 1e-3]
    for function in FUNCTIONS[:3]:
        agree(graphjit.jit(function)(a), function(a))
    s = np.abs(a) @ np.swapaxes(np.abs(a), -1, -2) if dtype is np.float32 else np.eye(3).astype(dtype)
    agree(graphjit.jit(np.linalg.cholesky)(s), np.linalg.cholesky(s))
    for other in (dtype, np.float32, np.float64, np.int32):
        rhs = matrices(len(a), 3, 2, dtype=other)
        agree(graphjit.jit(np.linalg.solve)(a, rhs), np.linalg.solve(a, rhs), condition(a))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((4, 4), (5, 4, 2)),
        ((5, 4, 4), (4, 2)),
        ((5, 1, 4, 4), (3, 4, 2)),
        ((1, 4, 4), (7, 4, 1)),
        ((2, 3, 4, 4), (4,)),
        ((0, 4, 4), (4, 2)),
        ((4, 4), (4, 0)),
        ((3, 3), (3, 500)),
        ((2, 3, 3), (2, 3, 40)),
    ],
)
def test_stacks_broadcast(first, second) -> None:
    a, rhs = matrices(*first), matrices(*second, seed=1)
    agree(graphjit.jit(np.linalg.solve)(a, rhs), np.linalg.solve(a, rhs), condition(a))


def test_one_matrix_is_factored_once_for_all_right_hand_sides() -> None:
    graph = compiled(np.linalg.solve, matrices(4, 4), matrices(1000, 4, 1)).optimized
    comparisons = [node for node in graph.nodes() if node.op.name == "gt"]
    assert len(comparisons) == 4 * 3 / 2
    assert {node.shape for node in comparisons} == {()}


def test_lists_and_numbers() -> None:
    def f(x):
        return np.linalg.det([[x, 1.0], [2.0, x]]), np.linalg.solve([[x, 1], [1, -x]], [x, 2.0])

    for found, wanted in zip(graphjit.jit(f)(3.0), f(3.0), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14)


def test_memory_order_is_numpys() -> None:
    a = matrices(2, 3, 4, 4).transpose(1, 0, 2, 3)
    s = positive(2, 3, 4, 4).transpose(1, 0, 2, 3)
    for function, x in [(np.linalg.inv, a), (np.linalg.det, a), (np.linalg.slogdet, a), (upper_cholesky, s)]:
        agree(graphjit.jit(function)(x), function(x), condition(x))
    for rhs in (a[..., :2], np.ones(4), np.asfortranarray(matrices(4, 2))):
        agree(graphjit.jit(np.linalg.solve)(a, rhs), np.linalg.solve(a, rhs), condition(a))
    agree(graphjit.jit(np.linalg.inv)(np.asfortranarray(a[0, 0])), np.linalg.inv(a[0, 0]), condition(a))


def test_cholesky_reads_one_triangle() -> None:
    s = positive(3, 5, 5)
    spoilt = np.where(np.tri(5, dtype=bool), s, np.nan)
    agree(graphjit.jit(np.linalg.cholesky)(spoilt), np.linalg.cholesky(s), condition(s))
    spoilt = np.swapaxes(spoilt, -1, -2)
    agree(graphjit.jit(upper_cholesky)(spoilt), upper_cholesky(s), condition(s))


# --------------------------------------------------------------------------------------------------- pivoting


@pytest.mark.sample(2)
@pytest.mark.parametrize("n", range(2, 9))
def test_zeros_on_the_diagonal_and_every_order_of_rows(n: int) -> None:
    rng = np.random.default_rng(n)
    a = np.stack([np.eye(n)[rng.permutation(n)] * rng.uniform(1, 2, n) for _ in range(50)])
    agree(graphjit.jit(np.linalg.inv)(a), np.linalg.inv(a))
    agree(graphjit.jit(np.linalg.det)(a), np.linalg.det(a))
    agree(graphjit.jit(np.linalg.slogdet)(a), np.linalg.slogdet(a))


@pytest.mark.parametrize("n", [3, 5, 8])
def test_ill_conditioned(n: int) -> None:
    """The residual is that of LAPACK: small for the matrix, whatever its condition."""
    i = np.arange(n)
    hilbert = 1.0 / (i[:, None] + i + 1)
    graded = matrices(20, n, n) * 10.0 ** -(2.0 * i)[:, None]
    small_pivot = matrices(20, n, n)
    small_pivot[:, 0, 0] = 1e-18
    for a in (hilbert, graded, small_pivot, 1e-150 * matrices(20, n, n), 1e150 * matrices(20, n, n)):
        b = matrices(*a.shape[:-1], 2, seed=5)
        x = graphjit.jit(np.linalg.solve)(a, b)
        size = np.abs(a) @ np.abs(x) + np.abs(b)
        assert np.max(np.abs(a @ x - b) / size) < 50 * n * 2.2e-16


def test_elements_too_small_for_a_reciprocal() -> None:
    a, b = 1e-310 * np.eye(3), np.full(3, 1e-310)
    np.testing.assert_array_equal(graphjit.jit(np.linalg.solve)(a, b), np.linalg.solve(a, b))


# ----------------------------------------------------------------------------------------------------- errors


def raised(function, *args) -> Exception:
    with pytest.raises(Exception) as error:
        function(*args)
    return error.value


@pytest.mark.sample(6)
@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("stack", [(), (13,), (3000,)])
def test_singular_and_indefinite(n: int, stack) -> None:
    """One matrix of a stack is enough; determinants are 0 then, of this one alone."""
    a = positive(*stack, n, n)
    last = a[-1] if stack else a
    last[n // 2] = 2.0 * last[0] if n > 2 else 0.0
    if n > 2:
        last[:] = np.round(last)  # LAPACK and we meet the same zero then
        last[n // 2] = 2.0 * last[0]
    for function in (np.linalg.inv, lambda a: np.linalg.solve(a, np.ones(n))):
        error = raised(graphjit.jit(function), 0.0 * a)
        assert type(error) is np.linalg.LinAlgError
        assert str(error).startswith("Singular matrix (at ")
    error = raised(graphjit.jit(np.linalg.cholesky), np.where(np.eye(n) > 0, -1.0, a))
    assert type(error) is np.linalg.LinAlgError
    assert str(error).startswith("Matrix is not positive definite (at ")
    for function in (np.linalg.det, np.linalg.slogdet):
        found, wanted = graphjit.jit(function)(0.0 * a), function(0.0 * a)
        agree(found, wanted)


@pytest.mark.parametrize("n", range(2, 9))
def test_exactly_singular_matrices_of_every_rank(n: int) -> None:
    """Permuted triangles with zeros on the diagonal: no rounding, so a zero is a zero for everybody."""
    rng = np.random.default_rng(n)
    a = np.triu(rng.integers(1, 4, (40, n, n))).astype(float)
    for k, each in enumerate(a):
        each[range(k % n + 1), range(k % n + 1)] = 0.0
        each[:] = each[rng.permutation(n)]
    np.testing.assert_array_equal(np.linalg.det(a), 0.0)
    np.testing.assert_array_equal(graphjit.jit(np.linalg.det)(a), 0.0)
    sign, log = graphjit.jit(np.linalg.slogdet)(a)
    np.testing.assert_array_equal(sign, 0.0)
    np.testing.assert_array_equal(log, -np.inf)
    inverse = graphjit.jit(np.linalg.inv)
    for each in a:
        assert type(raised(inverse, each)) is np.linalg.LinAlgError


def test_errors_name_the_line_and_leave_other_calls_alone() -> None:
    def f(a):
        b = np.linalg.inv(a)  # this line
        return b + 1.0

    line = f.__code__.co_firstlineno + 1
    compiled_f = graphjit.jit(f)
    assert f"test_small_systems.py:{line}" in str(raised(compiled_f, np.zeros((20, 3, 3))))
    agree(compiled_f(matrices(20, 3, 3)), f(matrices(20, 3, 3)), 100)
    assert f"test_small_systems.py:{line}" in str(raised(compiled_f, np.zeros((20, 3, 3))))


def test_only_what_is_singular_fails() -> None:
    """Padding lanes and the value of a determinant report nothing."""
    for count in range(1, 20):
        a = matrices(count, 4, 4)
        agree(graphjit.jit(np.linalg.inv)(a), np.linalg.inv(a), condition(a))


def test_not_a_number_is_no_error() -> None:
    a = matrices(4, 3, 3)
    a[1, 2, 2] = np.nan
    for function in FUNCTIONS[:3]:
        with np.errstate(invalid="ignore"):
            wanted = function(a)
        found = graphjit.jit(function)(a)
        last = (found[-1], wanted[-1]) if isinstance(wanted, tuple) else (found, wanted)
        assert np.isnan(last[0][1]).any()
        np.testing.assert_allclose(last[0][[0, 2, 3]], last[1][[0, 2, 3]], rtol=1e-12)
    s = positive(3, 3, 3)
    s[1, 2, 2] = np.nan
    np.testing.assert_allclose(graphjit.jit(np.linalg.cholesky)(s), np.linalg.cholesky(s), rtol=1e-12)


def test_a_singular_constant_fails_when_it_runs() -> None:
    def f(x):
        return x + np.linalg.inv(np.zeros((2, 2)) * np.sum(0 * x))

    assert type(raised(graphjit.jit(f), np.ones((2, 2)))) is np.linalg.LinAlgError


def test_without_compilation() -> None:
    with graphjit.disable_jit():
        agree(graphjit.jit(np.linalg.inv)(matrices(3, 3)), np.linalg.inv(matrices(3, 3)))
        assert type(raised(graphjit.jit(np.linalg.inv), np.zeros((3, 3)))) is np.linalg.LinAlgError


@pytest.mark.parametrize("function", [*FUNCTIONS, lambda a: np.linalg.solve(a, a)])
def test_wrong_shapes_are_numpys_errors(function) -> None:
    for shape in ((), (3,), (2, 3), (4, 3, 2), (9, 8)):
        wanted, found = raised(function, np.ones(shape)), raised(graphjit.jit(function), np.ones(shape))
        assert type(found) is type(wanted)
        assert str(wanted) in str(found)
        assert "test_small_systems.py" in str(found) or function in FUNCTIONS


@pytest.mark.parametrize(
    ("first", "second"),
    [((2, 2), (3,)), ((2, 2), ()), ((2, 2), (3, 1)), ((4, 2, 2), (3, 2, 1)), ((4, 2, 2), (4, 2))],
)
def test_right_hand_sides_that_do_not_fit(first, second) -> None:
    a, b = np.ones(first), np.ones(second)
    wanted, found = raised(np.linalg.solve, a, b), raised(graphjit.jit(np.linalg.solve), a, b)
    assert type(found) is type(wanted)
    assert str(wanted).partition(" (has")[0].partition(" together")[0] in str(found)


@pytest.mark.parametrize("function", [*FUNCTIONS, lambda a: np.linalg.solve(a, a[..., 0])])
def test_large_matrices_are_refused(function) -> None:
    error = raised(graphjit.jit(function), np.eye(9))
    assert type(error) is UnsupportedError
    assert re.search(r"np\.linalg\.\w+ of 9x9 matrices at .* is not compiled: 8x8 is the limit", str(error))


# ----------------------------------------------------------------------------------------------- what is made


def lanes(made) -> int:
    loops = [s for kernel in made.kernels.values() for s in walk(kernel.body) if isinstance(s, For)]
    return sum(loop.kind == "simd" for loop in loops)


@pytest.mark.parametrize("n", [3, 6, 8])
def test_a_batch_is_one_loop_in_lanes(n: int) -> None:
    a, b, s = np.empty((100_000, n, n)), np.empty((100_000, n)), np.empty((100_000, n, n))
    cases = [
        (lambda a, b: np.linalg.solve(a, b[..., None])[..., 0], (a, b)),
        (np.linalg.inv, (a,)),
        (np.linalg.det, (a,)),
        (np.linalg.slogdet, (a,)),
        (np.linalg.cholesky, (s,)),
    ]
    for function, args in cases:
        made = compiled(function, *args)
        assert sum(len(kernels_of(step)) for step in made.program.steps) == len(made.program.steps) == 1
        assert made.program.arena == 0
        assert lanes(made) == 1


def test_functions_of_one_matrix_share_its_factors() -> None:
    def f(a, b):
        return np.linalg.solve(a, b), np.linalg.inv(a), *np.linalg.slogdet(a), np.linalg.det(a)

    made = compiled(f, np.empty((1000, 5, 5)), np.empty((1000, 5, 1)))
    names = [node.op.name for node in made.optimized.nodes()]
    assert names.count("gt") == 5 * 4 / 2  # comparisons of pivots


def test_gradient_shares_the_factors_of_the_value() -> None:
    def loss(a, b):
        return np.sum(np.linalg.solve(a, b) ** 2)

    function = graphjit.value_and_grad(loss, argnums=(0, 1))
    graph = function.dispatcher.staged(np.empty((1000, 6, 6)), np.empty((1000, 6, 1))).graph
    made = graphjit.pipeline.compile_graph(graph, limits=host_limits())
    names = [node.op.name for node in made.optimized.nodes()]
    assert names.count("gt") == 6 * 5 / 2
    assert sum(len(kernels_of(step)) for step in made.program.steps) == 3
    assert made.program.arena == 1000 * 6 * 8  # what the gradient by b is, doubled: nothing of the factors
