"""Comparisons, tests for NaN and infinity, logic on bool and bits, selection and conversion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Decompose, Linear, LocalRule, Scalar, ZeroDerivative, op
from graphjit.ir.patterns import splat
from graphjit.ir.types import BOOL, I64, Type
from graphjit.ops.infer import integral, predicate
from graphjit.ops.samples import ALL, BOOLS, EDGES, INTS, SHAPES, Cases, uniform

_STEP = ZeroDerivative("piecewise constant")
_function: Any

for _name, _function, _sign in (
    ("eq", np.equal, "=="),
    ("ne", np.not_equal, "!="),
    ("lt", np.less, "<"),
    ("le", np.less_equal, "<="),
    ("gt", np.greater, ">"),
    ("ge", np.greater_equal, ">="),
):
    op(
        _name,
        doc=f"x {_sign} y as bool.",
        arity=2,
        infer=predicate,
        impl=_function,
        grad=_STEP,
        lower=Scalar(_name),
        numpy=[_function],
        samples=uniform((-3, 3), (-3, 3), dtypes=ALL),
        special=EDGES,
    )


def _integers_are(value: bool) -> LocalRule:
    def rule(b: Builder, x: Node) -> Node | None:
        return b.full(value, x.type.with_dtype(BOOL)) if x.dtype.kind in "iub" else None

    rule.__doc__ = f"of an integer -> {value}."
    return rule


for _name, _function, _doc, _lower, _of_integers in (
    ("isnan", np.isnan, "Whether x is NaN.", Scalar("isnan"), False),
    (
        "isinf",
        np.isinf,
        "Whether x is infinite.",
        Decompose(lambda b, out, x: b.eq(b.abs(x), float("inf"))),
        False,
    ),
    (
        "isfinite",
        np.isfinite,
        "Whether x is neither NaN nor infinite.",
        Decompose(lambda b, out, x: b.lt(b.abs(x), float("inf"))),
        True,
    ),
):
    op(
        _name,
        doc=_doc,
        infer=predicate,
        impl=_function,
        grad=_STEP,
        lower=_lower,
        numpy=[_function],
        simplify=[_integers_are(_of_integers)],
        samples=uniform((-3, 3), dtypes=ALL),
        special=EDGES,
    )


def _infer_select(condition: Type, x: Type, y: Type) -> Type:
    if condition.dtype != BOOL or x != y or condition.shape != x.shape:
        raise ShapeError(f"select needs a bool and two equal types of one shape, not {condition}, {x}, {y}")
    return x


# Comparisons of x with a bound, and the place of x among the branches, that make max(x, bound) or
# min(x, bound). The result then compares with the bound as x does, also where they are equal or one is NaN.
_CUTS = {("le", 1), ("ge", 1), ("gt", 0), ("lt", 0)}
_TURNED = {"le": "ge", "ge": "le", "lt": "gt", "gt": "lt"}


def _is_same(x: Node, y: Node) -> bool:
    """Whether both are one value, or filled with one known number other than NaN."""
    return x is y or (x.type == y.type and splat(x) is not None and bool(splat(x) == splat(y)))


def _condition_of_result(b: Builder, out: Node, condition: Node, x: Node, y: Node) -> Node:
    """The condition, read off the result where that cuts off: the way back then needs not keep what was cut.

    ``where(z <= 0, 0, z)``, which is relu, keeps its result alone, which the next layer keeps anyway.
    """
    if condition.op.name not in _TURNED:
        return condition
    left, right = condition.args
    for name, z, bound in ((condition.op.name, left, right), (_TURNED[condition.op.name], right, left)):
        for place, branch, other in ((0, x, y), (1, y, x)):
            if (name, place) in _CUTS and branch is z and _is_same(other, bound):
                return getattr(b, name)(out, bound)
    return condition


def _select_transpose(
    b: Builder, ct: Node, out: Node, condition: Node, x: Node, y: Node
) -> Sequence[Node | None]:
    condition, zero = _condition_of_result(b, out, condition, x, y), b.full(0.0, ct.type)
    return None, b.select(condition, ct, zero), b.select(condition, zero, ct)


def _select_same(b: Builder, condition: Node, x: Node, y: Node) -> Node | None:
    """select(c, x, x) -> x; a known condition picks its branch."""
    if x is y:
        return x
    taken = splat(condition)
    return None if taken is None else x if taken else y


op(
    "select",
    doc="Elementwise `where(condition, x, y)`; the branch not taken contributes exactly zero to every derivative.",
    arity=3,
    infer=_infer_select,
    impl=np.where,
    grad=Linear(_select_transpose, args=(1, 2)),
    lower=Scalar("select"),
    simplify=[_select_same],
    samples=Cases(
        lambda rng, draw: [([rng.random(shape) < 0.5, draw(*shape), draw(*shape)], {}) for shape in SHAPES],
        ALL,
    ),
    special=EDGES,
)


def _infer_convert(x: Type, *, dtype: np.dtype) -> Type:
    return x.with_dtype(np.dtype(dtype))


def _convert_transpose(b: Builder, ct: Node, out: Node, x: Node) -> Sequence[Node | None]:
    return (b.convert(ct, dtype=x.dtype) if x.dtype.kind == "f" else None,)


def _convert_same(b: Builder, x: Node, *, dtype: np.dtype) -> Node | None:
    """convert to the dtype it has -> x."""
    return x if x.dtype == dtype else None


def _convert_const(b: Builder, x: Node, *, dtype: np.dtype) -> Node | None:
    """convert(broadcast(c)) -> broadcast(convert(c)) and a scalar constant is converted at once."""
    if x.op.name == "broadcast_to" and x.args[0].is_const:
        return b.broadcast_to(b.convert(x.args[0], dtype=dtype), shape=x.shape)
    if x.is_const and x.type.size == 1 and np.isfinite(x.attrs["value"].array).all():  # type: ignore[attr-defined]
        return b.const(x.attrs["value"].array.astype(dtype), dtype)  # type: ignore[attr-defined]
    return None


op(
    "convert",
    doc="astype.",
    attrs=("dtype",),
    infer=_infer_convert,
    impl=lambda x, *, dtype: np.asarray(x).astype(dtype),
    grad=Linear(_convert_transpose),
    lower=Scalar("convert"),
    simplify=[_convert_same, _convert_const],
    samples=Cases(
        lambda rng, draw: [
            ([draw(4)], {"dtype": np.dtype(name)})
            for name in ("float64", "float32", "int64", "int32", "bool")
        ],
        ALL,
    ),
)


def _infer_narrow(x: Type, *, dtype: np.dtype) -> Type:
    if x.dtype != I64 or np.dtype(dtype).kind not in "iu":
        raise ShapeError(f"narrow takes int64 to another integer dtype, not {x} to {dtype}")
    return x.with_dtype(np.dtype(dtype))


def _narrow(x: np.ndarray, *, dtype: np.dtype) -> np.ndarray:
    bounds = np.iinfo(dtype)
    if np.any(x < bounds.min) or np.any(x > bounds.max):
        raise OverflowError(f"Python integer out of bounds for {np.dtype(dtype).name}")
    return np.asarray(x).astype(dtype)


op(
    "narrow",
    doc="A Python integer as a smaller integer dtype; one that does not fit is a run-time error, as in NumPy.",
    attrs=("dtype",),
    infer=_infer_narrow,
    impl=_narrow,
    grad=ZeroDerivative("integers do not vary"),
    lower=Scalar("convert"),
    simplify=[_convert_same],
    samples=Cases(
        lambda rng, draw: [
            ([np.abs(draw(4))], {"dtype": np.dtype(name)}) for name in ("int8", "int32", "uint16")
        ],
        ("i64",),
    ),
)


def _idempotent(b: Builder, x: Node, y: Node) -> Node | None:
    """x & x -> x, x | x -> x."""
    return x if x is y else None


def _not_not(b: Builder, x: Node) -> Node | None:
    """~~x -> x."""
    return x.args[0] if x.op.name == "not" else None


_same: tuple[LocalRule, ...] = (_idempotent,)
for _name, _function, _doc, _rules in (
    ("and", np.bitwise_and, "Bitwise and; logical for bool.", _same),
    ("or", np.bitwise_or, "Bitwise or; logical for bool.", _same),
    ("xor", np.bitwise_xor, "Bitwise exclusive or; logical for bool.", ()),
):
    op(
        _name,
        doc=_doc,
        arity=2,
        infer=integral,
        impl=_function,
        grad=_STEP,
        lower=Scalar(_name),
        numpy=[_function],
        simplify=_rules,
        samples=uniform((0, 9), (0, 9), dtypes=INTS + BOOLS),
    )

op(
    "not",
    doc="Bitwise not; logical for bool.",
    infer=integral,
    impl=np.invert,
    grad=_STEP,
    lower=Scalar("not"),
    numpy=[np.invert],
    simplify=[_not_not],
    samples=uniform((0, 9), dtypes=INTS + BOOLS),
)
