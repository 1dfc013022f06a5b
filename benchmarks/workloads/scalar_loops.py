"""Textbook algorithms in plain Python loops, element by element, traced out in full: LU and Cholesky
factorisation, substitution, Gram and Schmidt, shortest paths, Seidel's sweeps. Value and gradient.

JAX runs the same algorithms as it wants them: its own loops over whole rows or matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, TEST, UNROLLED, Namespace, Pytree, Workload
from benchmarks.workloads.recurrent import TOO_SLOW

SWEEPS = 20


# -------------------------------------------------------------------------------- logarithm of a determinant


def make_lu(ns: Namespace) -> Callable[..., Any]:
    np, put = ns.np, ns.set_at

    def f(a: Any) -> Any:
        n, a = len(a), np.array(a)
        for k in range(n):
            for i in range(k + 1, n):
                factor = a[i, k] / a[k, k]
                for j in range(k + 1, n):
                    a = put(a, (i, j), a[i, j] - factor * a[k, j])
        total = 0.0
        for k in range(n):
            total = total + np.log(np.abs(a[k, k]))
        return total

    return f


def make_lu_by_matrices(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(a: Any) -> Any:
        places = np.arange(len(a))

        def step(a: Any, k: Any) -> Any:
            factors = np.where(places > k, a[:, k] / a[k, k], 0.0)
            return a - factors[:, None] * a[k], a[k, k]

        _, pivots = ns.loops.scan(step, a, places)
        return np.sum(np.log(np.abs(pivots)))

    return f


def torch_lu(torch: Any, a: Any) -> Any:
    pivots = []
    while len(a):
        pivots.append(a[0, 0])
        a = a[1:, 1:] - torch.outer(a[1:, 0] / a[0, 0], a[0, 1:])
    return torch.sum(torch.log(torch.abs(torch.stack(pivots))))


def make_cholesky(ns: Namespace) -> Callable[..., Any]:
    np, put = ns.np, ns.set_at

    def f(a: Any) -> Any:
        n, factor, total = len(a), np.zeros(a.shape), 0.0
        for j in range(n):
            rest = a[j, j]
            for k in range(j):
                rest = rest - factor[j, k] * factor[j, k]
            pivot = np.sqrt(rest)
            total = total + 2.0 * np.log(pivot)
            factor = put(factor, (j, j), pivot)
            for i in range(j + 1, n):
                rest = a[i, j]
                for k in range(j):
                    rest = rest - factor[i, k] * factor[j, k]
                factor = put(factor, (i, j), rest / pivot)
        return total

    return f


def make_cholesky_by_matrices(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(a: Any) -> Any:
        places = np.arange(len(a))

        def step(a: Any, k: Any) -> Any:
            column = np.where(places > k, a[:, k], 0.0)
            return a - column[:, None] * column / a[k, k], a[k, k]

        _, squares = ns.loops.scan(step, a, places)
        return np.sum(np.log(squares))

    return f


def torch_cholesky(torch: Any, a: Any) -> Any:
    squares = []
    while len(a):
        squares.append(a[0, 0])
        a = a[1:, 1:] - torch.outer(a[1:, 0], a[1:, 0]) / a[0, 0]
    return torch.sum(torch.log(torch.stack(squares)))


def lu_inputs(n: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return ((rng.normal(size=(n, n)) + 2.0 * n * numpy.eye(n)).astype(dtype),)


def cholesky_inputs(n: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    half = numpy.random.default_rng(seed).normal(size=(n, n))
    return ((half @ half.T / n + numpy.eye(n)).astype(dtype),)


# -------------------------------------------------------------------------------------------- substitution


def make_substitution(ns: Namespace) -> Callable[..., Any]:
    def f(factor: Any, right: Any) -> Any:
        found: list[Any] = []
        for i in range(len(right)):
            rest = right[i]
            for j in range(i):
                rest = rest - factor[i, j] * found[j]
            found.append(rest / factor[i, i])
        total = 0.0
        for x in found:
            total = total + x * x
        return total

    return f


def make_substitution_by_rows(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(factor: Any, right: Any) -> Any:
        places = np.arange(len(right))

        def step(found: Any, row: Any) -> Any:
            i, weights, number = row
            x = (number - weights @ found) / weights[i]
            return np.where(places == i, x, found), None

        found, _ = ns.loops.scan(step, np.zeros(right.shape), (places, factor, right))
        return np.sum(found * found)

    return f


def torch_substitution(torch: Any, factor: Any, right: Any) -> Any:
    found = right[:0]
    for i, row in enumerate(factor):
        found = torch.cat([found, ((right[i] - row[:i] @ found) / row[i])[None]])
    return torch.sum(found * found)


def substitution_inputs(n: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    factor = numpy.tril(rng.normal(size=(n, n)) / n) + numpy.diag(rng.uniform(1.0, 2.0, n))
    return factor.astype(dtype), rng.normal(size=n).astype(dtype)


# ---------------------------------------------------------------------------------------- Gram and Schmidt


def make_orthonormal(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(vectors: Any, weights: Any) -> Any:
        found: list[Any] = []
        total = 0.0
        for vector, weight in zip(vectors, weights):
            for q in found:
                vector = vector - (q @ vector) * q
            found.append(vector / np.sqrt(vector @ vector))
            total = total + weight @ found[-1]
        return total

    return f


def make_orthonormal_by_matrices(ns: Namespace) -> Callable[..., Any]:
    """At every step all later vectors lose their part along the newest one."""
    np = ns.np

    def f(vectors: Any, weights: Any) -> Any:
        places = np.arange(len(vectors))

        def step(vectors: Any, row: Any) -> Any:
            k, weight = row
            q = vectors[k] / np.sqrt(vectors[k] @ vectors[k])
            along = np.where(places > k, vectors @ q, 0.0)
            return vectors - along[:, None] * q, weight @ q

        return np.sum(ns.loops.scan(step, vectors, (places, weights))[1])

    return f


def torch_orthonormal(torch: Any, vectors: Any, weights: Any) -> Any:
    total = torch.zeros((), dtype=vectors.dtype)
    for weight in weights:
        q = vectors[0] / torch.sqrt(vectors[0] @ vectors[0])
        vectors = vectors[1:] - torch.outer(vectors[1:] @ q, q)
        total = total + weight @ q
    return total


def orthonormal_inputs(n: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return tuple(rng.normal(size=(n, 2 * n)).astype(dtype) for _ in range(2))


# ------------------------------------------------------------------------------------------- shortest paths


def make_paths(ns: Namespace) -> Callable[..., Any]:
    np, put = ns.np, ns.set_at

    def f(lengths: Any) -> Any:
        n, paths = len(lengths), np.array(lengths)
        for k in range(n):
            for i in range(n):
                for j in range(n):
                    paths = put(paths, (i, j), np.minimum(paths[i, j], paths[i, k] + paths[k, j]))
        return np.mean(paths)

    return f


def make_paths_by_matrices(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(lengths: Any) -> Any:
        def step(k: Any, paths: Any) -> Any:
            return np.minimum(paths, paths[:, k, None] + paths[k])

        return np.mean(ns.loops.fori_loop(0, len(lengths), step, lengths))

    return f


def torch_paths(torch: Any, lengths: Any) -> Any:
    for k in range(len(lengths)):
        lengths = torch.minimum(lengths, lengths[:, k, None] + lengths[k])
    return torch.mean(lengths)


def paths_inputs(n: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    return (numpy.random.default_rng(seed).uniform(0.1, 1.0, (n, n)).astype(dtype),)


# ----------------------------------------------------------------------------------------- Seidel's sweeps


def make_seidel(ns: Namespace) -> Callable[..., Any]:
    np, put = ns.np, ns.set_at

    def f(u: Any, source: Any) -> Any:
        n, u = len(u), np.array(u)
        for _ in range(SWEEPS):
            for i in range(1, n - 1):
                for j in range(1, n - 1):
                    around = u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1]
                    u = put(u, (i, j), 0.25 * (around + source[i, j]))
        return np.sum(u * u)

    return f


def make_seidel_by_rows(ns: Namespace) -> Callable[..., Any]:
    """A loop over the points of a row inside of one over rows, inside of one over sweeps."""
    np, loops = ns.np, ns.loops

    def f(u: Any, source: Any) -> Any:
        def point(left: Any, others: Any) -> Any:
            new = 0.25 * (left + others)
            return new, new

        def row(above: Any, rows: Any) -> Any:
            here, below, given = rows
            others = above[1:-1] + below[1:-1] + here[2:] + given[1:-1]
            inner = loops.scan(point, here[0], others)[1]
            new = np.concatenate([here[:1], inner, here[-1:]])
            return new, new

        def sweep(_: Any, u: Any) -> Any:
            inner = loops.scan(row, u[0], (u[1:-1], u[2:], source[1:-1]))[1]
            return np.concatenate([u[:1], inner, u[-1:]])

        u = loops.fori_loop(0, SWEEPS, sweep, u)
        return np.sum(u * u)

    return f


def seidel_inputs(n: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return tuple(rng.normal(size=(n, n)).astype(dtype) for _ in range(2))


# --------------------------------------------------------------------------------------------- the workloads


def _family(
    family: str,
    makes: tuple[Callable[[Namespace], Any], Callable[[Namespace], Any]],
    inputs: Callable[[int, int, str], tuple[Pytree, ...]],
    torch: Callable[..., Any] | None,
    sizes: Sequence[int],
    argnums: int | tuple[int, ...] = 0,
) -> list[Workload]:
    """One workload for tests, one for every run, and a large one."""
    plain, whole = makes
    return [
        Workload(
            f"{family}_{n}",
            plain,
            partial(inputs, n),
            argnums=argnums,
            family=family,
            size=n,
            suites=suites,
            torch=torch,
            jax=whole,
            absent={"torch.compile": TOO_SLOW},
        )
        for n, suites in zip(sizes, (TEST, BOTH, UNROLLED), strict=True)
    ]


WORKLOADS = (
    *_family("lu", (make_lu, make_lu_by_matrices), lu_inputs, torch_lu, (5, 12, 100)),
    *_family(
        "cholesky", (make_cholesky, make_cholesky_by_matrices), cholesky_inputs, torch_cholesky, (5, 12, 100)
    ),
    *_family(
        "substitution",
        (make_substitution, make_substitution_by_rows),
        substitution_inputs,
        torch_substitution,
        (5, 20, 100),
        (0, 1),
    ),
    *_family(
        "gram_schmidt",
        (make_orthonormal, make_orthonormal_by_matrices),
        orthonormal_inputs,
        torch_orthonormal,
        (4, 10, 60),
    ),
    *_family("paths", (make_paths, make_paths_by_matrices), paths_inputs, torch_paths, (4, 8, 60)),
    *_family("seidel", (make_seidel, make_seidel_by_rows), seidel_inputs, None, (5, 7, 40), (0, 1)),
)
