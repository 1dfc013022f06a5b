"""Loader of the hand-written C references: each kernel as a function of NumPy arrays.

Input: the shared library that the top-level CMakeLists.txt builds (`cmake -B build && cmake --build build`).
Output: `KERNELS[name].function(fast)`, which takes the arguments of the workload of the same name and returns
what that asks for, mostly (value, gradients), in freshly allocated arrays, as every other library does; with
`reuse` in the arrays of the first call. Invariant: arrays reach C as C-contiguous float64, or the call is
refused.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy

Pytree = Any
Empty = Callable[..., numpy.ndarray]
Pointer = ctypes.POINTER(ctypes.c_double)
SIZE, NUMBER = ctypes.c_size_t, ctypes.c_double
LIBRARY_NAMES = ("libgraphjit_native.so", "libgraphjit_native.dylib", "graphjit_native.dll")
STENCIL_SWEEPS = 10
RK4_STEPS = (9, 100, 500, 1_000, 2_000)

_libraries: dict[Path, ctypes.CDLL] = {}


def find() -> Path:
    """The library under `build/` of the source tree; FileNotFoundError says how to build it."""
    build = Path(__file__).resolve().parents[2] / "build"
    for name in LIBRARY_NAMES:
        for candidate in (build / name, build / "Release" / name):
            if candidate.exists():
                return candidate
    raise FileNotFoundError("native references are not built: cmake -B build && cmake --build build")


def load(path: Path | None = None) -> ctypes.CDLL:
    """The library at `path` (default: `find()`), opened once."""
    path = (path or find()).resolve()
    if path not in _libraries:
        _libraries[path] = ctypes.CDLL(str(path))
    return _libraries[path]


class Recycled:
    """Like `numpy.empty_like`, but the n-th array asked for in one call is the n-th of the call before."""

    def __init__(self) -> None:
        self._arrays: list[numpy.ndarray] = []
        self._next = 0

    def begin(self) -> None:
        """The next array asked for is the first again."""
        self._next = 0

    def __call__(self, array: numpy.ndarray, shape: tuple[int, ...] | None = None) -> numpy.ndarray:
        if self._next == len(self._arrays):
            self._arrays.append(numpy.empty_like(array, shape=shape))
        self._next += 1
        return self._arrays[self._next - 1]


@dataclass(frozen=True)
class Kernel:
    """`call(symbol, empty, *arguments)` runs the C function `name`; gradients lie in what `empty` gives.
    `result` is what the function itself returns.
    """

    name: str
    call: Callable[..., Pytree]
    arguments: tuple[Any, ...]
    result: Any = NUMBER

    def function(self, fast: bool, path: Path | None = None, reuse: bool = False) -> Callable[..., Pytree]:
        """A function of the workload's arguments; `fast` chooses the build with -ffast-math. With `reuse`
        every call overwrites the gradients of the call before.
        """
        symbol = load(path)[f"{self.name}_fast" if fast else self.name]
        symbol.restype = self.result
        symbol.argtypes = self.arguments
        call = self.call
        if not reuse:
            return lambda *arguments: call(symbol, numpy.empty_like, *arguments)
        empty = Recycled()

        def recycling(*arguments: Pytree) -> Pytree:
            empty.begin()
            return call(symbol, empty, *arguments)

        return recycling


def _pointer(array: numpy.ndarray) -> Any:
    if array.dtype != numpy.float64 or not array.flags.c_contiguous:
        raise ValueError(
            f"native kernels take C-contiguous float64 arrays, got {array.dtype}, {array.strides}"
        )
    return ctypes.cast(array.ctypes.data, Pointer)


def _pointers(*arrays: numpy.ndarray) -> list[Any]:
    return [_pointer(array) for array in arrays]


def _black_scholes(symbol: Any, empty: Empty, *inputs: numpy.ndarray) -> tuple[Any, Pytree]:
    gradients = tuple(map(empty, inputs))
    value = symbol(inputs[0].size, *_pointers(*inputs), *_pointers(*gradients))
    return numpy.float64(value), gradients


def _mlp(symbol: Any, empty: Empty, params: Pytree, x: numpy.ndarray, y: numpy.ndarray) -> tuple[Any, Pytree]:
    def interleaved(tree: Pytree) -> list[numpy.ndarray]:
        return [leaf for pair in zip(tree["weights"], tree["biases"], strict=True) for leaf in pair]

    gradients = {key: [empty(leaf) for leaf in params[key]] for key in ("weights", "biases")}
    value = symbol(len(x), *_pointers(*interleaved(params), x, y), *_pointers(*interleaved(gradients)))
    return numpy.float64(value), gradients


def _log_sum_exp(symbol: Any, empty: Empty, x: numpy.ndarray) -> tuple[Any, Pytree]:
    gradient = empty(x)
    return numpy.float64(symbol(*x.shape, *_pointers(x, gradient))), gradient


def _elementwise_chain(symbol: Any, empty: Empty, x: numpy.ndarray, y: numpy.ndarray) -> tuple[Any, Pytree]:
    gradients = tuple(map(empty, (x, y)))
    return numpy.float64(symbol(x.size, *_pointers(x, y, *gradients))), gradients


def _logistic_regression(
    symbol: Any, empty: Empty, w: numpy.ndarray, b: numpy.ndarray, x: numpy.ndarray, y: numpy.ndarray
) -> tuple[Any, Pytree]:
    gradients = tuple(map(empty, (w, b)))
    value = symbol(*x.shape, _pointer(w), float(b), *_pointers(x, y, *gradients))
    return numpy.float64(value), gradients


def _small_matrices(symbol: Any, empty: Empty, a: numpy.ndarray, v: numpy.ndarray) -> tuple[Any, Pytree]:
    gradients = tuple(map(empty, (a, v)))
    return numpy.float64(symbol(len(a), *_pointers(a, v, *gradients))), gradients


def _stencil(symbol: Any, empty: Empty, u: numpy.ndarray, c: numpy.ndarray) -> tuple[Any, Pytree]:
    gradients = tuple(map(empty, (u, c)))
    return numpy.float64(symbol(*u.shape, STENCIL_SWEEPS, *_pointers(u, c, *gradients))), gradients


def _pairwise_energy(symbol: Any, empty: Empty, p: numpy.ndarray, q: numpy.ndarray) -> tuple[Any, Pytree]:
    gradients = tuple(map(empty, (p, q)))
    return numpy.float64(symbol(len(p), *_pointers(p, q, *gradients))), gradients


def _projection_jacobians(
    symbol: Any, empty: Empty, camera: numpy.ndarray, points: numpy.ndarray
) -> numpy.ndarray:
    jacobians = empty(points, shape=(len(points), 2, 3))
    symbol(len(points), *_pointers(camera, points, jacobians))
    return jacobians


def _rnn(symbol: Any, empty: Empty, params: Pytree, x: numpy.ndarray, y: numpy.ndarray) -> tuple[Any, Pytree]:
    gradients = {key: empty(params[key]) for key in ("w", "u", "b", "v")}
    arrays = _pointers(*(params[key] for key in gradients), x, y, *gradients.values())
    return numpy.float64(symbol(len(x), y[0].size, x.shape[-1], *arrays)), gradients


def _kalman(
    symbol: Any,
    empty: Empty,
    noise: numpy.ndarray,
    transition: numpy.ndarray,
    sensor: numpy.ndarray,
    series: numpy.ndarray,
) -> tuple[Any, Pytree]:
    gradient = empty(noise)
    value = symbol(len(series), *_pointers(noise, transition, sensor, series, gradient))
    return numpy.float64(value), gradient


def _rk4(
    steps: int, symbol: Any, empty: Empty, rates: numpy.ndarray, start: numpy.ndarray
) -> tuple[Any, Pytree]:
    gradients = tuple(map(empty, (rates, start)))
    return numpy.float64(symbol(steps, *_pointers(rates, start, *gradients))), gradients


def _newton(symbol: Any, empty: Empty, a: numpy.ndarray) -> tuple[Any, Pytree]:
    gradient = empty(a)
    return numpy.float64(symbol(a.size, *_pointers(a, gradient))), gradient


def _newton_value(symbol: Any, empty: Empty, a: numpy.ndarray) -> numpy.float64:
    return numpy.float64(symbol(a.size, _pointer(a)))


KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("black_scholes", _black_scholes, (SIZE, *[Pointer] * 10)),
        Kernel("mlp_16_32_32_4", _mlp, (SIZE, *[Pointer] * 14)),
        Kernel("log_sum_exp", _log_sum_exp, (SIZE, SIZE, *[Pointer] * 2)),
        Kernel("elementwise_chain", _elementwise_chain, (SIZE, *[Pointer] * 4)),
        Kernel("logistic_regression", _logistic_regression, (SIZE, SIZE, Pointer, NUMBER, *[Pointer] * 4)),
        Kernel("small_matrices", _small_matrices, (SIZE, *[Pointer] * 4)),
        Kernel("stencil", _stencil, (SIZE, SIZE, SIZE, *[Pointer] * 4)),
        Kernel("pairwise_energy", _pairwise_energy, (SIZE, *[Pointer] * 4)),
        Kernel("projection_jacobians", _projection_jacobians, (SIZE, *[Pointer] * 3), None),
        Kernel("rnn", _rnn, (SIZE, SIZE, SIZE, *[Pointer] * 10)),
        Kernel("kalman", _kalman, (SIZE, *[Pointer] * 5)),
        Kernel("newton", _newton, (SIZE, *[Pointer] * 2)),
        Kernel("newton_value", _newton_value, (SIZE, Pointer)),
    )
}
# How many steps there are is no argument of the workload.
KERNELS |= {
    f"rk4_{steps}": Kernel("rk4", partial(_rk4, steps), (SIZE, *[Pointer] * 4)) for steps in RK4_STEPS
}
