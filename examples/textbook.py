"""The classical worked cases of automatic differentiation, with the numbers that a textbook gives.

Input: none. Output: every case's value and derivatives, worked by hand in plain NumPy (functions that end in
`_by_hand`) and found by graphjit, printed; `cases()` returns them for the test that holds each number:
neurons and small networks, a ReLU that is dead, a parameter on several paths, a perceptron with all of its
intermediate derivatives, convolution, pooling, a recurrent network, a step of an LSTM, three steps of Adam.

At the end each function is differentiated in reverse mode, in forward mode and numerically. The two modes
agree to rounding. Central differences, (f(x + h) - f(x - h)) / 2h, agree to some digits: a large h is wrong
by what the curve does in between (nothing where it is a parabola), a small h by what is lost in the
subtraction. `--plot FILE.png` shows both; `--quick` tries five values of h only, `--no-progress` has no bar.

    pip install '.[examples]' && python examples/textbook.py --plot textbook.png

The functions are plain NumPy, without decorators, so that `graphjit inspect examples/textbook.py:loss --grad`
can show them at every stage; EXAMPLES has arguments for each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import graphjit
from graphjit import nn, optim

Parameters = dict[str, np.ndarray]


def loss(a: float, w: float, b: float, y: float) -> float:
    """Squared error of one linear neuron: L = (a w + b - y)^2."""
    return (a * w + b - y) ** 2


def relu_neuron(w: float, x: float, b: float) -> float:
    """y = max(w x + b, 0)."""
    return np.maximum(w * x + b, 0.0)


def several_paths(w: float, x: float) -> float:
    """w reaches the result on three paths, w x + w^2 + 3 w: its derivative is their sum, x + 2 w + 3."""
    return w * x + w * w + 3.0 * w


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def network(params: Parameters, x: np.ndarray) -> np.ndarray:
    """2-3-1: relu in the hidden layer, sigmoid at the end."""
    hidden = np.maximum(params["w1"] @ x + params["b1"], 0.0)
    return sigmoid(params["w2"] @ hidden + params["b2"])


def squared_error(params: Parameters, x: np.ndarray, y: np.ndarray) -> float:
    return np.mean((network(params, x) - y) ** 2)


def cross_entropy(params: Parameters, x: np.ndarray, y: np.ndarray) -> float:
    p = network(params, x)
    return -np.mean(y * np.log(p) + (1.0 - y) * np.log(1.0 - p))


def regularised(w1: np.ndarray, w2: np.ndarray, x: np.ndarray, y: np.ndarray, weight_decay: float) -> float:
    """J = L + (lambda/2)(|W1|^2 + |W2|^2) with z = W1 x, h = tanh(z), o = W2 h, L = |o - y|^2 / 2."""
    output = w2 @ np.tanh(w1 @ x)
    error = 0.5 * np.sum((output - y) ** 2)
    return error + 0.5 * weight_decay * (np.sum(w1 * w1) + np.sum(w2 * w2))


POINTS, LABELS = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0])


def relu_on_data(w: float, b: float) -> float:
    """A neuron that should learn y = x from four points, by its mean squared error."""
    return np.mean((nn.relu(w * POINTS + b) - LABELS) ** 2)


def leaky_relu_on_data(w: float, b: float) -> float:
    """The same, where a hundredth of what is below zero passes."""
    return np.mean((nn.leaky_relu(w * POINTS + b, 0.01) - LABELS) ** 2)


def convolution(image: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray) -> float:
    """Products of a kernel with all windows of an image, weighted: the weights are the cotangent G of Y."""
    y = nn.conv2d(image[None, :, :, None], kernel[:, :, None, None])
    return np.sum(cotangent * y[0, :, :, 0])


def max_pooling(image: np.ndarray, cotangent: np.ndarray) -> float:
    """The largest of each two by two numbers, weighted."""
    return np.sum(cotangent * nn.max_pool(image[None, :, :, None], 2)[0, :, :, 0])


def mean_pooling(image: np.ndarray, cotangent: np.ndarray) -> float:
    """The mean of each two by two numbers, weighted."""
    return np.sum(cotangent * nn.avg_pool(image[None, :, :, None], 2)[0, :, :, 0])


def recurrent(u: float, w: float, b: float, x: np.ndarray, y: float) -> float:
    """h_t = tanh(u x_t + w h_(t-1) + b) from h_0 = 0, and the error of the last one, (h_T - y)^2 / 2."""
    h = 0.0
    for x_t in x:
        h = np.tanh(u * x_t + w * h + b)
    return 0.5 * (h - y) ** 2


def lstm_step(w: np.ndarray, u: np.ndarray, b: np.ndarray, x: float, h: float, c: float) -> float:
    """One step of one cell, whose four gates have weights w, u, b in the order i, f, g, o. Returns h'."""
    a_i, a_f, a_g, a_o = w * x + u * h + b
    new_cell = nn.sigmoid(a_f) * c + nn.sigmoid(a_i) * np.tanh(a_g)
    return nn.sigmoid(a_o) * np.tanh(new_cell)


# Weights with short decimals: hidden sums 0.5, 1.25 and -1.0 at the point below, so one hidden unit is off.
NETWORK: Parameters = {
    "w1": np.array([[0.5, -0.5], [1.0, 0.25], [-1.0, 0.5]]),
    "b1": np.array([0.5, 0.0, -0.5]),
    "w2": np.array([[1.0, -1.0, 2.0]]),
    "b2": np.array([0.5]),
}
POINT, LABEL = np.array([1.0, 1.0]), np.array([1.0])
PERCEPTRON = (
    np.array([[0.5, -1.0], [0.25, 0.75], [-0.5, 0.5]]),
    np.array([[1.0, -0.5, 0.25], [0.5, 0.5, -1.0]]),
    np.array([1.0, 0.5]),
    np.array([0.5, -0.25]),
    0.1,
)
LEARNING_RATE = 0.5
IMAGE = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [2.0, 1.0, 1.0]])
KERNEL = np.array([[1.0, 0.0], [-1.0, 2.0]])
LARGER_IMAGE = np.array(
    [[1.0, 3.0, 2.0, 1.0], [4.0, 2.0, 0.0, 1.0], [5.0, 5.0, 1.0, 2.0], [0.0, 1.0, 3.0, 7.0]]
)
COTANGENT = np.array([[1.0, 2.0], [-1.0, 1.0]])
SEQUENCE = (0.5, 0.8, 0.1, np.array([1.0, 0.5, -1.0]), 0.5)
GATES = (np.array([0.5, -0.5, 1.0, 0.25]), np.array([1.0, 0.5, -1.0, 2.0]), np.array([0.0, 1.0, 0.5, -0.5]))

EXAMPLES: dict[str, tuple[Any, ...]] = {
    "loss": (2.0, 3.0, 4.0, 11.0),
    "relu_neuron": (3.0, 2.0, -7.0),
    "several_paths": (2.0, 5.0),
    "network": (NETWORK, POINT),
    "squared_error": (NETWORK, POINT, LABEL),
    "cross_entropy": (NETWORK, POINT, LABEL),
    "regularised": PERCEPTRON,
    "relu_on_data": (1.0, -10.0),
    "leaky_relu_on_data": (1.0, -10.0),
    "convolution": (IMAGE, KERNEL, COTANGENT),
    "max_pooling": (LARGER_IMAGE, COTANGENT),
    "mean_pooling": (LARGER_IMAGE, COTANGENT),
    "recurrent": SEQUENCE,
    "lstm_step": (*GATES, 1.0, 0.5, 2.0),
}


def gradient_step(objective: Any, params: Parameters, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Forward pass, gradients, and the parameters after one step against the gradient."""
    value, gradient = graphjit.value_and_grad(objective)(params, x, y)
    updated = {name: params[name] - LEARNING_RATE * gradient[name] for name in params}
    return {"value": value, "gradient": gradient, "updated": updated, "value_after": objective(updated, x, y)}


# The same by hand.


def perceptron_by_hand(
    w1: np.ndarray, w2: np.ndarray, x: np.ndarray, y: np.ndarray, weight_decay: float
) -> dict[str, np.ndarray]:
    """`regularised` forward, and back by the chain rule: every number on the way, in order."""
    z = w1 @ x
    h = np.tanh(z)
    o = w2 @ h
    error = 0.5 * np.sum((o - y) ** 2)
    penalty = 0.5 * weight_decay * (np.sum(w1 * w1) + np.sum(w2 * w2))
    d_o = o - y
    d_w2 = np.outer(d_o, h) + weight_decay * w2  # W2 reaches J on two paths: through o, and in the penalty
    d_h = w2.T @ d_o
    d_z = d_h * (1.0 - h * h)  # tanh' = 1 - tanh^2, element by element
    d_w1 = np.outer(d_z, x) + weight_decay * w1
    return {
        "z = W1 x": z,
        "h = tanh(z)": h,
        "o = W2 h": o,
        "L = |o - y|^2 / 2": error,
        "s = lambda/2 (|W1|^2 + |W2|^2)": penalty,
        "J = L + s": error + penalty,
        "dJ/do = o - y": d_o,
        "dJ/dW2 = dJ/do h^T + lambda W2": d_w2,
        "dJ/dh = W2^T dJ/do": d_h,
        "dJ/dz = dJ/dh * (1 - h^2)": d_z,
        "dJ/dW1 = dJ/dz x^T + lambda W1": d_w1,
    }


def convolution_by_hand(
    image: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, and the cotangents of image and kernel. Y[i, j] = sum over a, b of K[a, b] X[i + a, j + b], so each
    product K[a, b] X[i + a, j + b] gives G[i, j] X[i + a, j + b] to K[a, b], and G[i, j] K[a, b] to
    X[i + a, j + b]: what was read from several windows gathers from all of them.
    """
    y, d_image, d_kernel = np.zeros_like(cotangent), np.zeros_like(image), np.zeros_like(kernel)
    for i, j in np.ndindex(*y.shape):
        for a, b in np.ndindex(*kernel.shape):
            y[i, j] += kernel[a, b] * image[i + a, j + b]
            d_kernel[a, b] += cotangent[i, j] * image[i + a, j + b]
            d_image[i + a, j + b] += cotangent[i, j] * kernel[a, b]
    return y, d_image, d_kernel


def pooling_by_hand(image: np.ndarray, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cotangents of the image under the maximum and the mean of each two by two numbers. A maximum hands all
    on to the largest number, in equal parts where several are largest; a mean a quarter to each.
    """
    d_max, d_mean = np.zeros_like(image), np.zeros_like(image)
    for i, j in np.ndindex(*cotangent.shape):
        window = np.s_[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        largest = image[window] == np.max(image[window])
        d_max[window] = cotangent[i, j] * largest / np.sum(largest)
        d_mean[window] = cotangent[i, j] / 4.0
    return d_max, d_mean


def recurrent_by_hand(u: float, w: float, b: float, x: np.ndarray, y: float) -> dict[str, Any]:
    """Back-propagation through time. All steps share u, w and b, so each step adds a term to their
    derivatives. From step to step dL/dh shrinks by the factor w (1 - h^2).
    """
    h = [0.0]
    for x_t in x:
        h.append(float(np.tanh(u * x_t + w * h[-1] + b)))
    d_u = d_w = d_b = 0.0
    d_h, d_hs, d_x = h[-1] - y, [], np.zeros(len(x))
    for t in range(len(x), 0, -1):
        d_hs.append(d_h)
        d_sum = d_h * (1.0 - h[t] ** 2)
        d_u, d_w, d_b = d_u + d_sum * x[t - 1], d_w + d_sum * h[t - 1], d_b + d_sum
        d_x[t - 1], d_h = d_sum * u, d_sum * w
    return {"h": h[1:], "L": 0.5 * (h[-1] - y) ** 2, "dL/dh": d_hs[::-1], "gradient": (d_u, d_w, d_b, d_x)}


def lstm_by_hand(
    w: np.ndarray, u: np.ndarray, b: np.ndarray, x: float, h: float, c: float
) -> tuple[dict[str, float], tuple[Any, ...]]:
    """All numbers of `lstm_step`, and the derivatives of h' with respect to each argument."""
    a = w * x + u * h + b
    i, f, o = 1.0 / (1.0 + np.exp(-a[[0, 1, 3]]))
    g = np.tanh(a[2])
    cell = f * c + i * g
    squashed = np.tanh(cell)
    d_cell = o * (1.0 - squashed**2)
    # Through each gate: what it is multiplied by, and the slope of sigmoid or tanh.
    d_i, d_f = d_cell * g * i * (1.0 - i), d_cell * c * f * (1.0 - f)
    d_g, d_o = d_cell * i * (1.0 - g * g), squashed * o * (1.0 - o)
    d_a = np.array([d_i, d_f, d_g, d_o])
    values = {"i": i, "f": f, "g": g, "o": o, "c'": cell, "h'": o * squashed, "dh'/dc'": d_cell}
    return values, (d_a * x, d_a * h, d_a, np.sum(d_a * w), np.sum(d_a * u), d_cell * f)


ADAM_RATE, ADAM_START = 0.1, 1.0


def adam_by_hand(steps: int) -> list[dict[str, float]]:
    """Adam on p^2 from p = 1. The means m and v of g and g^2 begin at zero; without the corrections
    1 - 0.9^t and 1 - 0.999^t the first steps would be far too short.
    """
    p, m, v, found = ADAM_START, 0.0, 0.0, []
    for t in range(1, steps + 1):
        g = 2.0 * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p -= ADAM_RATE * (m / (1.0 - 0.9**t)) / (np.sqrt(v / (1.0 - 0.999**t)) + 1e-8)
        found.append({"g": g, "m": m, "v": v, "p": p})
    return found


def adam_steps(steps: int) -> list[dict[str, float]]:
    """The same by `optim.adam`, a step being one compiled function. State and p stay where they lie."""
    optimiser = optim.adam(ADAM_RATE)

    def step(p: np.ndarray, state: Any) -> Any:
        g = graphjit.grad(lambda p: p**2)(p)
        updates, state = optimiser.update(g, state, p)
        return optim.apply_updates(p, updates), state, g

    compiled = graphjit.jit(step, donate_argnums=(0, 1))
    p, found = np.array(ADAM_START), []
    state = optimiser.init(p)
    for _ in range(steps):
        p, state, g = compiled(p, state)
        found.append({"g": float(g), "m": float(state[0].mu), "v": float(state[0].nu), "p": float(p)})
    return found


# Numerical differentiation against both modes.


STEPS, FEW_STEPS = np.logspace(-1, -13, 25), np.logspace(-1, -13, 5)


def of_vector(name: str) -> tuple[Callable[[np.ndarray], Any], np.ndarray]:
    """A function of EXAMPLES as one of a vector, with all numbers of its arguments, and that vector."""
    f, arguments = globals()[name], EXAMPLES[name]

    def of_numbers(vector: np.ndarray) -> Any:
        start = 0

        def take(like: Any) -> Any:
            nonlocal start
            start += np.size(like)
            return vector[start - np.size(like) : start].reshape(np.shape(like))

        taken = [
            {key: take(x) for key, x in argument.items()} if isinstance(argument, dict) else take(argument)
            for argument in arguments
        ]
        return np.sum(f(*taken))

    leaves = [x for a in arguments for x in (a.values() if isinstance(a, dict) else [a])]
    return of_numbers, np.concatenate([np.ravel(x) for x in leaves])


def central_differences(f: Callable[[np.ndarray], Any], x: np.ndarray, h: float) -> np.ndarray:
    """Two evaluations for each number."""
    return np.array([(f(x + step) - f(x - step)) / (2.0 * h) for step in h * np.eye(len(x))])


def compare(name: str, steps: np.ndarray) -> dict[str, Any]:
    """How far forward mode, and central differences for each of some steps, are from reverse mode: the
    largest difference, relative to the largest derivative (or to 1, where that is less).
    """
    f, x = of_vector(name)
    reverse, forward = graphjit.grad(f)(x), graphjit.jacfwd(f)(x)
    size = max(1.0, np.max(np.abs(reverse)))
    numerical = [np.max(np.abs(central_differences(f, x, h) - reverse)) / size for h in steps]
    return {"modes": np.max(np.abs(forward - reverse)) / size, "numerical": np.array(numerical)}


def with_bar(names: Iterable[str], bar: bool) -> Iterable[str]:
    """The names, with a bar of how many of them are done."""
    if not bar:
        return names
    from tqdm import tqdm  # `graphjit inspect` loads this file where there is none

    return tqdm(names, desc="functions")


def cases(steps: np.ndarray = STEPS, bar: bool = False) -> dict[str, Any]:
    """Every case by name; what each holds is printed by `main`."""
    relu_value, relu_pullback = graphjit.vjp(relu_neuron, *EXAMPLES["relu_neuron"])
    return {
        "loss": graphjit.value_and_grad(loss, argnums=(0, 1, 2, 3))(*EXAMPLES["loss"]),
        "relu_neuron": (relu_value, relu_pullback(5.0)),
        "several_paths": graphjit.value_and_grad(several_paths)(*EXAMPLES["several_paths"]),
        "squared_error": gradient_step(squared_error, *EXAMPLES["squared_error"]),
        "cross_entropy": gradient_step(cross_entropy, *EXAMPLES["cross_entropy"]),
        "regularised": graphjit.value_and_grad(regularised, argnums=(0, 1))(*PERCEPTRON),
        "relu_on_data": graphjit.value_and_grad(relu_on_data, argnums=(0, 1))(*EXAMPLES["relu_on_data"]),
        "leaky_relu_on_data": graphjit.value_and_grad(leaky_relu_on_data, argnums=(0, 1))(
            *EXAMPLES["leaky_relu_on_data"]
        ),
        "convolution": graphjit.grad(convolution, argnums=(0, 1))(*EXAMPLES["convolution"]),
        "max_pooling": graphjit.grad(max_pooling)(*EXAMPLES["max_pooling"]),
        "mean_pooling": graphjit.grad(mean_pooling)(*EXAMPLES["mean_pooling"]),
        "recurrent": graphjit.value_and_grad(recurrent, argnums=(0, 1, 2, 3))(*SEQUENCE),
        "lstm_step": graphjit.value_and_grad(lstm_step, argnums=range(6))(*EXAMPLES["lstm_step"]),
        "adam": adam_steps(3),
        "steps": steps,
        "compare": {name: compare(name, steps) for name in with_bar(EXAMPLES, bar)},
    }


def plain(tree: Any) -> str:
    """Numbers as a textbook prints them."""
    if isinstance(tree, tuple):
        return "(" + ", ".join(plain(child) for child in tree) + ")"
    return np.array2string(np.asarray(tree), precision=6, suppress_small=True).replace("\n", "")


def print_neurons(results: dict[str, Any]) -> None:
    value, gradients = results["loss"]
    print(f"L = (a w + b - y)^2 at a=2, w=3, b=4, y=11:  L = {plain(value)}")
    print(f"    dL/d(a, w, b, y) = {plain(gradients)}")
    value, gradients = results["relu_neuron"]
    print(f"y = relu(w x + b) at w=3, x=2, b=-7:  y = {plain(value)}")
    print(f"    upstream cotangent 5 gives cotangents of (w, x, b) = {plain(gradients)}")
    print("a neuron relu(w x + b) that should learn y = x from x = 1, 2, 3, 4, at w=1, b=-10:")
    for name, what in (("relu_on_data", "dead, no step moves it:"), ("leaky_relu_on_data", "leaky:")):
        value, gradients = results[name]
        print(f"    {what:23} mean squared error {plain(value)}, d/d(w, b) = {plain(gradients)}")
    value, gradient = results["several_paths"]
    print(f"f = w x + w^2 + 3 w at w=2, x=5:  f = {plain(value)},  df/dw = x + 2 w + 3 = {plain(gradient)}")


def print_networks(results: dict[str, Any]) -> None:
    print(
        f"2-3-1 network (relu, sigmoid) at x = {plain(POINT)}:  p = {plain(network(NETWORK, POINT))}, label 1"
    )
    for name in ("squared_error", "cross_entropy"):
        step = results[name]
        print(f"    {name.replace('_', ' ')} = {plain(step['value'])}")
        for parameter, gradient in step["gradient"].items():
            print(
                f"        d/d{parameter} = {plain(gradient)}   updated: {plain(step['updated'][parameter])}"
            )
        print(f"        after one step of {LEARNING_RATE}: {plain(step['value_after'])}")
    value, gradients = results["regularised"]
    print(f"perceptron with J = L + (lambda/2)(|W1|^2 + |W2|^2):  J = {plain(value)}")
    for name, found in zip(("W1", "W2"), gradients, strict=True):
        print(f"    dJ/d{name} = {plain(found)}")
    print("    by hand, step by step:")
    for formula, number in perceptron_by_hand(*PERCEPTRON).items():
        print(f"        {formula:32} = {plain(number)}")


def print_layers(results: dict[str, Any]) -> None:
    y, _, _ = convolution_by_hand(*EXAMPLES["convolution"])
    d_image, d_kernel = results["convolution"]
    print(f"convolution of X = {plain(IMAGE)} with K = {plain(KERNEL)}:  Y = {plain(y)}")
    print(f"    cotangent {plain(COTANGENT)} of Y gives that of K: {plain(d_kernel)}, of X: {plain(d_image)}")
    print(f"pooling of {plain(LARGER_IMAGE)}, two by two:")
    for name in ("max_pooling", "mean_pooling"):
        print(f"    {name.replace('_', ' ')} hands the same cotangent on as {plain(results[name])}")


def print_recurrences(results: dict[str, Any]) -> None:
    hand = recurrent_by_hand(*SEQUENCE)
    value, (*gradients, _) = results["recurrent"]
    print("h_t = tanh(u x_t + w h_(t-1) + b) at u=0.5, w=0.8, b=0.1, x = 1, 0.5, -1, L = (h_3 - 0.5)^2 / 2:")
    print(f"    h_t = {plain(tuple(hand['h']))}, L = {plain(value)}, dL/dh_t = {plain(tuple(hand['dL/dh']))}")
    print(f"    dL/d(u, w, b) = {plain(tuple(gradients))}: of each a sum over the steps")
    values, _ = lstm_by_hand(*EXAMPLES["lstm_step"])
    _, (d_w, d_u, d_b, *others) = results["lstm_step"]
    print("a step of an LSTM:  " + ", ".join(f"{name} = {plain(number)}" for name, number in values.items()))
    for name, found in (("w", d_w), ("u", d_u), ("b", d_b)):
        print(f"    dh'/d{name}, gates i f g o = {plain(found)}")
    print(f"    dh'/d(x, h, c) = {plain(tuple(others))}")


def print_adam(results: dict[str, Any]) -> None:
    print(f"Adam on p^2 from p = {ADAM_START}, learning rate {ADAM_RATE}:")
    for t, (ours, hand) in enumerate(zip(results["adam"], adam_by_hand(3), strict=True), 1):
        numbers = ", ".join(f"{name} = {plain(x)}" for name, x in ours.items())
        print(f"    step {t}: {numbers} (by hand p = {plain(hand['p'])})")


def print_comparison(results: dict[str, Any]) -> None:
    print("largest difference to reverse mode")
    print(f"    {'function':20}{'forward mode':>14}{'central differences':>22}  at their best step")
    for name, found in results["compare"].items():
        best = int(np.argmin(found["numerical"]))
        numbers = f"{found['modes']:14.1e}{found['numerical'][best]:22.1e}"
        print(f"    {name:20}{numbers}  {results['steps'][best]:.0e}")


def plot(results: dict[str, Any], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    shown = ("cross_entropy", "regularised", "recurrent", "lstm_step", "loss", "convolution")
    for name, marker in zip(shown, "osv^Dx", strict=True):
        # A difference of exactly zero has no place on a logarithmic axis.
        numerical = np.maximum(results["compare"][name]["numerical"], 1e-17)
        axis.loglog(results["steps"], numerical, f"{marker}-", markersize=4, label=name)
    modes = max(found["modes"] for found in results["compare"].values())
    axis.axhline(modes, color="black", linestyle=":", label="forward mode, worst of all functions")
    axis.set(xlabel="step h of the central difference", ylabel="largest relative difference to reverse mode")
    axis.set_title("Large steps: what the curve does in between. Small steps: what the subtraction loses")
    axis.legend()
    axis.grid(True, alpha=0.3)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five steps of differences instead of 25")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    options = parser.parse_args(arguments)
    results = cases(FEW_STEPS if options.quick else STEPS, bar=not options.no_progress)
    for show in (
        print_neurons,
        print_networks,
        print_layers,
        print_recurrences,
        print_adam,
        print_comparison,
    ):
        show(results)
    if options.plot:
        plot(results, options.plot)
        print(f"plot written to {options.plot}")


if __name__ == "__main__":
    main()
