"""Plain Python loops of many shapes, each a function of arrays, with arguments.

`PROGRAMS` has for each a function, arguments, and how many loops are left of it. All values are smooth in
their arguments, and stay of moderate size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

rng = np.random.default_rng(7)
STEPS = 70


def some(*shape: int) -> np.ndarray:
    return 0.3 * rng.normal(size=shape)


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def rnn(w: Any, u: Any, b: Any, x: Any, h: Any) -> Any:
    for t in range(len(x)):
        h = np.tanh(w @ x[t] + u @ h + b)
    return h


def rnn_over_rows(w: Any, u: Any, b: Any, x: Any, h: Any) -> Any:
    states = []
    for row in x:
        h = np.tanh(w @ row + u @ h + b)
        states.append(h)
    return np.array(states), h


def lstm_of_two_layers(layers: Any, x: Any) -> Any:
    states = [(np.zeros(4), np.zeros(4)) for _ in layers]
    for row in x:
        for k, (w, u, b) in enumerate(layers):
            h, c = states[k]
            i, f, g, o = np.split(w @ row + u @ h + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            states[k] = sigmoid(o) * np.tanh(c), c
            row = states[k][0]
    return states[-1][0]


def gru(w: Any, u: Any, x: Any) -> Any:
    h = np.zeros(4)
    for t in range(len(x)):
        (a, z, n), (ha, hz, hn) = np.split(w @ x[t], 3), np.split(u @ h, 3)
        update = sigmoid(z + hz)
        h = (1.0 - update) * np.tanh(n + sigmoid(a + ha) * hn) + update * h
    return h


def runge_kutta(y: Any, rate: Any) -> Any:
    def slope(y: Any) -> Any:
        return np.stack([y[1], -rate * np.sin(y[0])])

    step = rate / 20.0
    for _ in range(STEPS):
        k1 = slope(y)
        k2 = slope(y + step / 2 * k1)
        k3 = slope(y + step / 2 * k2)
        k4 = slope(y + step * k3)
        y = y + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def garch(p: Any, r: Any) -> Any:
    variance, total = p[0], 0.0
    for t in range(1, len(r)):
        variance = p[0] + p[1] * r[t - 1] ** 2 + p[2] * variance
        total = total + np.log(variance) + r[t] ** 2 / variance
    return total


def smoothed(x: Any, weight: Any) -> Any:
    out = np.zeros(len(x))
    out[0] = x[0]
    for t in range(1, len(x)):
        out[t] = weight * out[t - 1] + (1 - weight) * x[t]
    return out


def products(x: Any) -> Any:
    total = 1.0
    found = []
    for t in range(len(x)):
        total = total * (1.0 + x[t])
        found.append(total)
    return np.stack(found)


def kalman(a: Any, c: Any, q: Any, y: Any) -> Any:
    mean, cov, total = np.zeros(2), np.eye(2), 0.0
    for t in range(len(y)):
        mean, cov = a @ mean, a @ cov @ a.T + q
        s = c @ cov @ c + 0.1
        gain = cov @ c / s
        error = y[t] - c @ mean
        total = total + np.log(s) + error**2 / s
        mean = mean + gain * error
        cov = cov - np.outer(gain, c) @ cov
    return total, mean


def horner(p: Any, x: Any) -> Any:
    value = p[-1]
    for k in range(len(p) - 2, -1, -1):
        value = value * x + p[k]
    return value


def waves(u: Any, v: Any) -> Any:
    for _ in range(STEPS):
        new = u.copy()
        new[1:-1] = 2 * u[1:-1] - v[1:-1] + 0.2 * (u[2:] - 2 * u[1:-1] + u[:-2])
        u, v = new, u
    return u


def swapped(x: Any, y: Any) -> Any:
    for _ in range(STEPS):
        x, y = y, np.sin(x + 0.1 * y)
    return x + 2 * y


def from_two_steps_back(x: Any, y: Any) -> Any:
    for t in range(STEPS):
        x, y = np.tanh(0.5 * x + y), x + 0.01 * t
    return x * y


def fibonacci_like(x: Any) -> Any:
    found = [x, 0.5 * x, x * x]
    for _ in range(STEPS * 2):
        found.append(np.tanh(found[-1] + 0.5 * found[-3]))
    return found[-1]


def first_is_different(x: Any, w: Any) -> Any:
    for t in range(STEPS):
        x = np.tanh(w @ x) if t else np.cos(x)
        x = x + 0.1
    return x


def last_is_different(x: Any, w: Any) -> Any:
    for t in range(STEPS):
        x = np.tanh(w @ x) if t < STEPS - 1 else np.cos(x)
        x = x + 0.1
    return x


def every_second_row(x: Any, w: Any) -> Any:
    h = w[0]
    for t in range(1, len(x), 2):
        h = np.tanh(w @ h + x[t]) + 0.1 * h
    return h


def backwards(x: Any, w: Any) -> Any:
    h = w[0]
    for t in reversed(range(len(x))):
        h = np.tanh(w @ h + x[t]) + 0.1 * h
    return h


def columns(x: Any, w: Any) -> Any:
    h = w[0]
    for t in range(x.shape[1]):
        h = np.tanh(w @ h + x[:, t]) + 0.1 * h
    return h


def blocks(x: Any, w: Any) -> Any:
    h = w[0]
    for t in range(0, x.shape[1], 2):
        h = np.tanh(w @ h + x[:, t] * x[:, t + 1]) + np.sum(x[:, t : t + 2], axis=1)
    return h


def windows(x: Any, w: Any) -> Any:
    h = 0.0 * x[0]
    for t in range(len(x) - 3):
        h = np.tanh(np.sum(w[0, :3] * x[t : t + 3]) + 0.3 * h) + 0.1 * h
    return h


def diagonal(a: Any, h: Any) -> Any:
    for t in range(len(a)):
        h = np.tanh(a[t, t] * h) + 0.5 * h + a[t, 0]
    return h


def only_some_are_read(x: Any, w: Any) -> Any:
    found = []
    for t in range(len(x)):
        w = np.tanh(w + x[t]) + 0.1 * w
        found.append(np.sin(w))
    return found[3], found[17] + found[-1]


def weights_of_time(x: Any) -> Any:
    total = x
    for t in range(STEPS):
        total = np.tanh(total * (0.1 * t)) + np.cos(x * t) - total / (t + 2.0)
    return total


def one_after_the_other(x: Any, w: Any) -> Any:
    for t in range(len(x)):
        w = np.tanh(w + x[t]) + 0.1 * w
    found = []
    for t in range(len(x)):
        w = np.sin(w - x[t]) + 0.2 * w
        found.append(w)
    for t in range(len(x)):
        w = w * 0.9 + found[t] * np.cos(found[len(x) - 1 - t])
    return w


def called_twice(x: Any, w: Any) -> Any:
    def walk(w: Any) -> Any:
        for t in range(len(x)):
            w = np.tanh(w + x[t]) + 0.1 * w
        return w

    return walk(walk(w) + 1.0)


def nested(x: Any, w: Any) -> Any:
    h = x[0]
    for t in range(STEPS // 2):
        h = np.sin(h) + x[t]
        for k in range(len(w)):
            h = np.tanh(h * w[k] + w[k, 0]) + 0.1 * h - 0.2
            h = h + w[k, 1] * np.cos(h)
    return h


def a_number_of_each_row(x: Any, w: Any) -> Any:
    total, rows = 0.0, []
    for t in range(len(x)):
        total = total + np.sum(np.sin(x[t]) * w[0])
        rows.append(total * total)
    return total, np.array(rows)[::2]


def forward_substitution(a: Any, b: Any) -> Any:
    found: list[Any] = []
    for i in range(len(b)):
        rest = b[i]
        for j in range(i):
            rest = rest - a[i, j] * found[j]
        found.append(rest / (2.0 + a[i, i]))
    return np.array(found)


def backward_substitution(a: Any, b: Any) -> Any:
    found = np.zeros(len(b))
    for i in reversed(range(len(b))):
        rest = b[i]
        for j in range(i + 1, len(b)):
            rest = rest - a[i, j] * found[j]
        found[i] = rest / (2.0 + a[i, i])
    return found


def orthonormal(vectors: Any, weights: Any) -> Any:
    found: list[Any] = []
    total = 0.0
    for vector, weight in zip(vectors, weights, strict=True):
        for q in found:
            vector = vector - np.sum(q * vector) * q
        found.append(vector / np.sqrt(np.sum(vector * vector)))
        total = total + np.sum(weight * found[-1])
    return total, found[-1]


def every_pair(x: Any) -> Any:
    total = 0.0
    for i in range(len(x)):
        near = x[i]
        for j in range(i):
            near = np.tanh(near * x[j]) + 0.1 * near
        total = total + near
    return total


class Program(NamedTuple):
    function: Callable[..., Any]
    args: tuple[Any, ...]
    loops: int = 1


def _layer(size: int) -> tuple[np.ndarray, ...]:
    return some(16, size), some(16, 4), some(16)


PROGRAMS = [
    Program(rnn, (some(4, 3), some(4, 4), some(4), some(STEPS, 3), some(4))),
    Program(rnn_over_rows, (some(4, 3), some(4, 4), some(4), some(STEPS, 3), some(4))),
    Program(lstm_of_two_layers, ([_layer(4), _layer(4)], some(STEPS, 4))),
    Program(gru, (some(12, 3), some(12, 4), some(STEPS, 3))),
    Program(runge_kutta, (some(2), 1.5)),
    Program(garch, (np.array([0.1, 0.2, 0.3]), some(STEPS))),
    Program(smoothed, (some(3 * STEPS), 0.7)),
    Program(products, (some(3 * STEPS),)),
    Program(kalman, (some(2, 2), some(2), np.eye(2), some(STEPS))),
    Program(horner, (some(3 * STEPS), 0.9)),
    Program(waves, (some(12), some(12))),
    Program(swapped, (some(3), some(3))),
    Program(from_two_steps_back, (some(3), some(3))),
    Program(fibonacci_like, (some(3),)),
    Program(first_is_different, (some(4), some(4, 4))),
    Program(last_is_different, (some(4), some(4, 4))),
    Program(every_second_row, (some(2 * STEPS, 4), some(4, 4))),
    Program(backwards, (some(STEPS, 4), some(4, 4))),
    Program(columns, (some(4, STEPS), some(4, 4))),
    Program(blocks, (some(4, 2 * STEPS), some(4, 4))),
    Program(windows, (some(STEPS), some(4, 4))),
    Program(diagonal, (some(STEPS, STEPS), 0.4)),
    Program(only_some_are_read, (some(STEPS, 4), some(4))),
    Program(weights_of_time, (some(3),)),
    Program(one_after_the_other, (some(STEPS, 4), some(4)), 3),
    Program(called_twice, (some(STEPS, 4), some(4)), 2),
    Program(nested, (some(STEPS, 4), some(20, 4))),
    Program(forward_substitution, (some(36, 36), some(36))),
    Program(backward_substitution, (some(36, 36), some(36))),
    Program(orthonormal, (np.eye(34, 40) + 0.1 * some(34, 40), some(34, 40))),
    Program(every_pair, (some(36),)),
    Program(a_number_of_each_row, (some(2 * STEPS, 4), some(4, 4))),
]
