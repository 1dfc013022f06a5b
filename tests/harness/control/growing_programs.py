"""Programs whose slices grow or shrink with the step, as people write them by hand, and random ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

Program = Callable[..., Any]


def forward_substitution(a: Any, b: Any) -> Any:
    x = np.zeros(len(b))
    for i in range(len(b)):
        x[i] = (b[i] - a[i, :i] @ x[:i]) / a[i, i]
    return x


def back_substitution(a: Any, b: Any) -> Any:
    x = np.zeros(len(b))
    for i in range(len(b) - 1, -1, -1):
        x[i] = (b[i] - a[i, i + 1 :] @ x[i + 1 :]) / a[i, i]
    return x


def substitution_by_columns(a: Any, b: Any) -> Any:
    b = b.copy()
    for j in range(len(b)):
        b[j] /= a[j, j]
        b[j + 1 :] -= a[j + 1 :, j] * b[j]
    return b


def several_right_hand_sides(a: Any, b: Any) -> Any:
    x = np.zeros((len(b), 3))
    for i in range(len(b)):
        x[i] = (b[i] * np.arange(1.0, 4.0) - a[i, :i] @ x[:i]) / a[i, i]
    return x


def lu(a: Any, b: Any) -> Any:
    a = a.copy()
    for k in range(len(b) - 1):
        a[k + 1 :, k] /= a[k, k]
        a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
    return a


def cholesky(a: Any, b: Any) -> Any:
    a = a @ a.T
    lower = np.zeros_like(a)
    for j in range(len(b)):
        lower[j, j] = np.sqrt(a[j, j] - lower[j, :j] @ lower[j, :j])
        lower[j + 1 :, j] = (a[j + 1 :, j] - lower[j + 1 :, :j] @ lower[j, :j]) / lower[j, j]
    return lower


def gram_schmidt(a: Any, b: Any) -> Any:
    q = np.zeros_like(a)
    for j in range(len(b)):
        v = a[:, j] - q[:, :j] @ (q[:, :j].T @ a[:, j])
        q[:, j] = v / np.linalg.norm(v)
    return q


def modified_gram_schmidt(a: Any, b: Any) -> Any:
    q = a.copy()
    for j in range(len(b)):
        q[:, j] = q[:, j] / np.sqrt(q[:, j] @ q[:, j])
        q[:, j + 1 :] -= np.outer(q[:, j], q[:, j] @ q[:, j + 1 :])
    return q


def householder(a: Any, b: Any) -> Any:
    r = a.copy()
    for k in range(len(b) - 1):
        v = r[k:, k].copy()
        v[0] += np.sign(v[0]) * np.linalg.norm(v)
        v /= np.linalg.norm(v)
        r[k:, k:] -= 2 * np.outer(v, v @ r[k:, k:])
    return r


def levinson(a: Any, b: Any) -> Any:
    c = np.zeros(len(b))
    c[0], error = 1.0, 90 + b[0]
    for i in range(1, len(b)):
        k = -(b[i] + c[1:i] @ b[1:i][::-1]) / error
        c[1:i] = c[1:i] + k * c[1:i][::-1]
        c[i] = k
        error = error * (1 - k * k)
    return c


def divided_differences(a: Any, b: Any) -> Any:
    c, x = b.copy(), np.cumsum(1 + a[0] ** 2)
    for j in range(1, len(b)):
        c[j:] = (c[j:] - c[j - 1 : -1]) / (x[j:] - x[:-j])
    return c


def polynomial_of_roots(a: Any, b: Any) -> Any:
    c = np.zeros(len(b))
    c[0] = 1.0
    for i in range(1, len(b)):
        c[1 : i + 1] = c[1 : i + 1] - 0.3 * b[i] * c[:i]
    return c


def volterra(a: Any, b: Any) -> Any:
    y, n = np.zeros(len(b)), len(b)
    for i in range(n):
        y[i] = b[i] + 0.1 * np.sum(b[:i][::-1] * y[:i]) + 0.01 * np.dot(b[n - i :], y[:i])
    return y


def shortest_so_far(a: Any, b: Any) -> Any:
    """What is not there yet is infinite, and must stay out of the derivative."""
    x = np.full(len(b), np.inf)
    x[0] = 0.0
    for i in range(1, len(b)):
        x[i] = np.min(x[:i] + (b[i] - b[:i]) ** 2)
    return x


def not_there_yet(a: Any, b: Any) -> Any:
    """NaN, logarithms of zero, divisions by zero and arcsines beyond one, were they computed."""
    x, y = np.full(len(b), np.nan), np.zeros(len(b))
    for i in range(len(b)):
        x[i] = b[i] + 0.1 * np.sum(np.sqrt(x[:i] ** 2 + 1))
        y[i] = np.exp(b[i]) + 0.01 * np.sum(np.log(y[:i]) + 1 / y[:i] + np.arctan2(1, y[:i]))
    return x + y


def only_pairs_that_belong_together(a: Any, b: Any) -> Any:
    """Each divisor is 1, and each logarithm of a number near 1; other pairs would raise, or give NaN."""
    n = len(b)
    up, known, whole = np.cumsum(1 + b**2), np.arange(float(n)), np.arange(n) + (b > 9)
    sums, total = up[:, None] - up + 0.02 * np.outer(b, b), np.zeros(n)
    for i in range(1, n):
        rows, columns = up[i:], up[: n - i]
        total[i] = np.sum(np.log(1 + sums[i:, : n - i] - (rows[:, None] - columns)))
        total[i] += np.sum(np.log(1 + (known[i:] + 0.1 * b[i:]) - np.arange(float(i), n)))
        total[i] += np.sum(np.log(1 + up[i:][::-1] - (up[i:] - 0.1 * b[i:])[::-1]))
        total[i] += np.sum(7 // (1 + whole[: n - i] - np.arange(n - i))) * b[i]
    return total


def equal_maxima(a: Any, b: Any) -> Any:
    x = np.zeros(len(b))
    for i in range(len(b)):
        x[i] = 0.5 * b[i] + np.max(np.round(x[: i + 1]) + 0.1 * x[: i + 1])
    return x


def statistics(a: Any, b: Any) -> Any:
    parts = [b[:i] for i in range(2, len(b) + 1)]
    return np.array([np.mean(p) + np.std(p) + np.cumsum(p)[-1] + np.prod(np.cos(p)) for p in parts])


def quadratic_forms(a: Any, b: Any) -> Any:
    return np.array([b[:i] @ a[:i, :i] @ b[:i] for i in range(1, len(b) + 1)])


def backwards(a: Any, b: Any) -> Any:
    return np.array([b[i::-1] @ np.tanh(b[: i + 1]) for i in range(len(b))])


def both_ends(a: Any, b: Any) -> Any:
    n = len(b)
    return np.array([np.sum(np.sin(a[3, i : n - i]) * np.cos(b[i : n - i])) for i in range(n // 2)])


def lists(a: Any, b: Any) -> Any:
    out = [b[0]]
    for i in range(1, len(b)):
        out.append(np.mean(np.stack(out)) * 0.5 + b[i])
    return np.stack(out)


def truths(a: Any, b: Any) -> Any:
    whole = np.cumsum(np.abs(b) * 10).astype(np.int64)
    parts = [(b[:i], whole[:i]) for i in range(1, len(b) + 1)]
    found = [np.any(p > 1) + 2 * np.all(p < 2) + np.max(p > 0) - np.min(p > 0) + np.max(w) for p, w in parts]
    return np.array(found) * b


def floyd_by_rows(a: Any, b: Any) -> Any:
    d = np.abs(a)
    for k in range(len(b)):
        d = np.minimum(d, d[:, k : k + 1] + d[k : k + 1, :])
    return d


def over_relaxation(a: Any, b: Any) -> Any:
    x = np.zeros(len(b))
    for _ in range(2):
        for i in range(len(b)):
            x[i] = (b[i] - a[i, :i] @ x[:i] - a[i, i + 1 :] @ x[i + 1 :]) / a[i, i]
    return x


PROGRAMS: tuple[Program, ...] = (
    forward_substitution,
    back_substitution,
    substitution_by_columns,
    several_right_hand_sides,
    lu,
    cholesky,
    gram_schmidt,
    modified_gram_schmidt,
    householder,
    levinson,
    divided_differences,
    polynomial_of_roots,
    volterra,
    shortest_so_far,
    not_there_yet,
    only_pairs_that_belong_together,
    equal_maxima,
    statistics,
    quadratic_forms,
    backwards,
    both_ends,
    lists,
    truths,
    floyd_by_rows,
    over_relaxation,
)


def arguments(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A matrix with a strong diagonal, and a vector."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n)) + n * np.eye(n), rng.normal(size=n)


class Source:
    """A random program: parts of arrays that grow, combined, summed and written."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random.choice
        self.part = pick([":i", "i:", "i + 1 :", ": i + 1", "n - i :", ": n - i", "i : n"])
        lines = ["def f(a, b):", "    n = len(b)", "    x, m, out = np.ones(n), a * 0.1, []"]
        lines.append(f"    for i in {pick(['range(2, n - 2)', 'range(n - 3, 1, -1)'])}:")
        for _ in range(self.random.randint(1, 3)):
            lines.append("        " + self.statement())
        lines.append("    return x, m, np.array(out)")
        self.text = "\n".join(lines)

    def value(self, depth: int = 2) -> str:
        """An array as long as the part."""
        pick = self.random.choice
        if not depth or self.random.random() < 0.2:
            p = self.part
            return pick(
                [f"b[{p}]", f"x[{p}]", f"m[i, {p}]", f"m[{p}, i]", f"a[i, {p}]", f"m[{p}, {p}].sum(0)"]
            )
        one, two = self.value(depth - 1), self.value(depth - 1)
        return pick(
            [
                f"np.tanh({one} + 0.5)",
                f"({one} * {two})",
                f"({one} - 0.3 * {two})",
                f"np.sqrt(1 + {one} ** 2)",
                f"{one}[::-1]",
                f"np.where({one} > 0, {one}, 0.1 * {two})",
                f"(m[{self.part}, {self.part}] @ {one} * 0.1)",
                f"np.cumsum({one} * 0.1)",
                f"({one} / (2 + np.cos({two})))",
            ]
        )

    def statement(self) -> str:
        pick, v = self.random.choice, self.value
        return pick(
            [
                f"out.append(np.sum({v()}))",
                f"out.append(np.max({v()}) + b[i])",
                f"x[i] = np.tanh({v()} @ {v()})",
                f"x[{self.part}] = {v()}",
                f"x[{self.part}] += 0.1 * {v()}",
                f"m[{self.part}, i] = {v()}",
                f"m[i, {self.part}] = 0.5 * {v()}",
                f"m[{self.part}, {self.part}] -= 0.1 * np.outer({v(1)}, {v(1)})",
                f"m[i, i] = 1 / (3 + np.sum({v()} ** 2))",
            ]
        )

    def function(self) -> Program:
        """The program, compiled by Python."""
        scope: dict[str, Any] = {"np": np}
        exec(compile(self.text, f"<growing {id(self)}>", "exec"), scope)
        found: Program = scope["f"]
        return found
