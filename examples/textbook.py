"""The classical worked cases of automatic differentiation, with the numbers that a textbook gives.

Input: none. Output: every case's value and derivatives, printed; `cases()` returns them for the test that
holds each number. The functions are plain NumPy, without decorators, so that `graphjit inspect
examples/textbook.py:loss --grad` can show them at every stage; EXAMPLES has arguments for each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import graphjit

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

EXAMPLES: dict[str, tuple[Any, ...]] = {
    "loss": (2.0, 3.0, 4.0, 11.0),
    "relu_neuron": (3.0, 2.0, -7.0),
    "several_paths": (2.0, 5.0),
    "network": (NETWORK, POINT),
    "squared_error": (NETWORK, POINT, LABEL),
    "cross_entropy": (NETWORK, POINT, LABEL),
    "regularised": PERCEPTRON,
}


def gradient_step(objective: Any, params: Parameters, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Forward pass, gradients, and the parameters after one step against the gradient."""
    value, gradient = graphjit.value_and_grad(objective)(params, x, y)
    updated = {name: params[name] - LEARNING_RATE * gradient[name] for name in params}
    return {"value": value, "gradient": gradient, "updated": updated, "value_after": objective(updated, x, y)}


def regularised_by_formula(
    w1: np.ndarray, w2: np.ndarray, x: np.ndarray, y: np.ndarray, weight_decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """dJ/dW2 = (dL/do) h^T + lambda W2 and dJ/dW1 = ((W2^T dL/do) * phi'(z)) x^T + lambda W1."""
    hidden = np.tanh(w1 @ x)
    d_output = w2 @ hidden - y
    d_w2 = np.outer(d_output, hidden) + weight_decay * w2
    d_w1 = np.outer((w2.T @ d_output) * (1.0 - hidden**2), x) + weight_decay * w1
    return d_w1, d_w2


def cases() -> dict[str, Any]:
    """Every case by name; what each holds is printed by `main`."""
    relu_value, relu_pullback = graphjit.vjp(relu_neuron, *EXAMPLES["relu_neuron"])
    return {
        "loss": graphjit.value_and_grad(loss, argnums=(0, 1, 2, 3))(*EXAMPLES["loss"]),
        "relu_neuron": (relu_value, relu_pullback(5.0)),
        "several_paths": graphjit.value_and_grad(several_paths)(*EXAMPLES["several_paths"]),
        "squared_error": gradient_step(squared_error, *EXAMPLES["squared_error"]),
        "cross_entropy": gradient_step(cross_entropy, *EXAMPLES["cross_entropy"]),
        "regularised": graphjit.value_and_grad(regularised, argnums=(0, 1))(*PERCEPTRON),
    }


def plain(tree: Any) -> str:
    """Numbers as a textbook prints them."""
    if isinstance(tree, tuple):
        return "(" + ", ".join(plain(child) for child in tree) + ")"
    return np.array2string(np.asarray(tree), precision=6, suppress_small=True).replace("\n", "")


def main() -> None:
    results = cases()
    value, gradients = results["loss"]
    print(f"L = (a w + b - y)^2 at a=2, w=3, b=4, y=11:  L = {plain(value)}")
    print(f"    dL/d(a, w, b, y) = {plain(gradients)}")
    value, gradients = results["relu_neuron"]
    print(f"y = relu(w x + b) at w=3, x=2, b=-7:  y = {plain(value)}")
    print(f"    upstream cotangent 5 gives cotangents of (w, x, b) = {plain(gradients)}")
    value, gradient = results["several_paths"]
    print(f"f = w x + w^2 + 3 w at w=2, x=5:  f = {plain(value)},  df/dw = x + 2 w + 3 = {plain(gradient)}")
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
    for name, ours, formula in zip(("W1", "W2"), gradients, regularised_by_formula(*PERCEPTRON), strict=True):
        print(f"    dJ/d{name} = {plain(ours)}   formula: {plain(formula)}")


if __name__ == "__main__":
    main()
