"""Ops without arguments: inputs, constants, the ramp of indices along an axis, and where two are equal."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import IRError, ShapeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import ConstValue, Node
from graphjit.ir.opdef import Decompose, NonDifferentiable, Special, ZeroDerivative, op
from graphjit.ir.types import BOOL, I64, Type
from graphjit.ops.samples import ALL, BOOLS, Cases


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


def _infer_diagonal(*, shape: tuple[int, ...], first: int, second: int, offset: int) -> Type:
    if not (0 <= first < len(shape) and 0 <= second < len(shape)) or first == second:
        raise ShapeError(f"diagonal: {first} and {second} are not two axes of shape {shape}")
    return Type(BOOL, shape)


def _diagonal(*, shape: tuple[int, ...], first: int, second: int, offset: int) -> np.ndarray:
    left, right = (_iota(dtype=I64, shape=shape, axis=axis) for axis in (first, second))
    return left + offset == right


def _expand_diagonal(b: Builder, out: Node) -> Node:
    shape, first, second, offset = out.attrs.values()
    left = b.iota(dtype=I64, shape=shape, axis=first)
    if offset:
        left = b.add(left, offset)  # type: ignore[arg-type]
    return b.eq(left, b.iota(dtype=I64, shape=shape, axis=second))


op(
    "diagonal",
    doc="Where the index along `first` plus `offset` is the index along `second`: the directions of a Jacobian.",
    arity=0,
    attrs=("shape", "first", "second", "offset"),
    infer=_infer_diagonal,
    impl=_diagonal,
    grad=ZeroDerivative("an index does not vary"),
    lower=Decompose(_expand_diagonal),
    samples=Cases(
        lambda rng, draw: [
            ([], {"shape": (4, 4), "first": 0, "second": 1, "offset": 0}),
            ([], {"shape": (2, 3, 5), "first": 2, "second": 0, "offset": -1}),
        ],
        BOOLS,
    ),
)
