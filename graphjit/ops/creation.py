"""Ops without arguments: inputs, constants, and the ramp of indices along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import IRError, ShapeError
from graphjit.ir.node import ConstValue
from graphjit.ir.opdef import NonDifferentiable, Special, ZeroDerivative, op
from graphjit.ir.types import Type
from graphjit.ops.samples import ALL, Cases


def _no_infer(*args: Type, **attrs: Any) -> Type:
    raise IRError("inputs and constants are made by Builder.input and Builder.const")


def _no_value(**attrs: Any) -> np.ndarray:
    raise IRError("an input has no value of its own")


op(
    "input",
    doc="An argument of the graph.",
    arity=0,
    attrs=("name",),
    infer=_no_infer,
    impl=_no_value,
    grad=NonDifferentiable("transforms treat inputs themselves"),
    lower=Special("input"),
)


def _const(value: ConstValue) -> np.ndarray:
    return value.array


op(
    "const",
    doc="A value known while tracing.",
    arity=0,
    attrs=("value",),
    infer=_no_infer,
    impl=_const,
    grad=ZeroDerivative("a constant does not vary"),
    lower=Special("const"),
)


def _infer_iota(*, dtype: np.dtype, shape: tuple[int, ...], axis: int) -> Type:
    if not 0 <= axis < len(shape):
        raise ShapeError(f"iota: axis {axis} is not an axis of shape {shape}")
    return Type(np.dtype(dtype), shape)


def _iota(*, dtype: np.dtype, shape: tuple[int, ...], axis: int) -> np.ndarray:
    ramp = np.arange(shape[axis], dtype=dtype)
    return np.broadcast_to(ramp.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


op(
    "iota",
    doc="The index along one axis: 0, 1, 2 ...",
    arity=0,
    attrs=("dtype", "shape", "axis"),
    infer=_infer_iota,
    impl=_iota,
    grad=ZeroDerivative("an index does not vary"),
    lower=Special("iota"),
    samples=Cases(
        lambda rng, draw: [
            ([], {"dtype": draw().dtype, "shape": (5,), "axis": 0}),
            ([], {"dtype": draw().dtype, "shape": (2, 3), "axis": 1}),
        ],
        ALL[:-1],
    ),
)
