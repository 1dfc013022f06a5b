"""What a type checker says about decorated functions. ``mypy`` checks this file in CI; nothing runs it.

Each call below has the type that ``assert_type`` names. Each wrong call is an error that its comment expects:
mypy warns of a comment that expects an error where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import graphjit

Vector = NDArray[np.float64]


def loss(w: Vector, x: Vector, *, scale: float = 1.0) -> float:
    return float(np.sum(w * x) * scale)


def with_count(w: Vector) -> tuple[float, int]:
    return loss(w, w), w.size


v = np.ones(3)

# jit, plain and with options: the function itself, keyword arguments too.
assert_type(graphjit.jit(loss)(v, v, scale=2.0), float)
assert_type(graphjit.jit(static_argnames="scale")(loss)(v, v, scale=2.0), float)
graphjit.jit(loss)(v)  # type: ignore[call-arg]
graphjit.jit(loss)(v, "x")  # type: ignore[arg-type]
graphjit.jit(static_argnames="scale")(loss)(v, v, size=2)  # type: ignore[call-arg]
graphjit.jit(loss, static_argnums="0")  # type: ignore[arg-type]
graphjit.jit(3)  # type: ignore[call-overload]


@graphjit.jit
def doubled(x: Vector) -> Vector:
    return 2.0 * x


@graphjit.jit(donate_argnums=0)
def advanced(x: Vector) -> Vector:
    return x + 1.0


assert_type(doubled(v), Vector)
assert_type(advanced(v), Vector)
doubled(v, v)  # type: ignore[call-arg]


class Model:
    @graphjit.jit(static_argnums=0)
    def predict(self, x: Vector) -> Vector:
        return x


assert_type(Model().predict(v), Vector)

# Gradients take the same arguments; the value keeps its type.
assert_type(graphjit.grad(loss)(v, v, scale=2.0), Any)
assert_type(graphjit.value_and_grad(loss)(v, v), tuple[float, Any])
assert_type(graphjit.value_and_grad(argnums=(0, 1))(loss)(v, v), tuple[float, Any])
assert_type(graphjit.value_and_grad(with_count, has_aux=True)(v), tuple[tuple[float, int], Any])
graphjit.grad(loss)(v)  # type: ignore[call-arg]
graphjit.grad(argnums=1)(loss)("w", v)  # type: ignore[arg-type]
graphjit.value_and_grad(doubled)(v, v)  # type: ignore[call-arg]

# Forward and reverse mode.
Pull = Callable[[Any], tuple[Any, ...]]
assert_type(graphjit.jvp(doubled, (v,), (v,)), tuple[Vector, Vector])
assert_type(graphjit.vjp(doubled, v), tuple[Vector, Pull])
assert_type(graphjit.vjp(with_count, v, has_aux=True), tuple[float, Pull, int])
