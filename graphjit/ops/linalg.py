"""Small dense systems: solve, triangular_solve, inverse, det, logabsdet, det_sign, cofactors, cholesky.

The matrices are the last two axes, all axes before them are a stack. Each op is taken apart into its elements
(`elimination`) after differentiation; ops of the same matrix share its factors then. Derivatives are those of
the solution, not of the elimination: that of ``solve`` is another ``solve``.

Choices (documented and tested): ``cholesky`` reads the lower triangle, and its derivative lies there; the
derivative of ``det`` holds at singular matrices; that of ``logabsdet`` is infinite or NaN there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Custom, Decompose, Linear, Scalar, ZeroDerivative, op
from graphjit.ir.types import BOOL, Type
from graphjit.ops.elimination import (
    FORMULA,
    LIMIT,
    Factors,
    Line,
    assembled,
    backward,
    cholesky,
    cofactors,
    columns_of,
    determinant,
    elements,
    forward,
    inverted,
    lu,
    odd,
    regular,
    solved,
    transposed,
)
from graphjit.ops.masking import scale
from graphjit.ops.reductions import spread
from graphjit.ops.samples import SHAPES, Case, Cases, Draw

Tangents = Sequence[Node | None]
FAILURES: dict[str, tuple[type[Exception], str]] = {
    "singular": (np.linalg.LinAlgError, "Singular matrix"),
    "indefinite": (np.linalg.LinAlgError, "Matrix is not positive definite"),
}
"""What `require` reports."""

# ---------------------------------------------------------------------------------------------------- require


def _infer_require(x: Type, condition: Type, *, failure: str) -> Type:
    if condition.dtype != BOOL or condition.shape != x.shape or failure not in FAILURES:
        raise ShapeError(f"require needs a bool of the shape of {x} and a known failure, not {condition}")
    return x


def _require(x: Any, condition: Any, *, failure: str) -> Any:
    if not np.all(condition):
        kind, message = FAILURES[failure]
        raise kind(message)
    return x


op(
    "require",
    doc="x; a run-time error where the condition does not hold.",
    arity=2,
    attrs=("failure",),
    infer=_infer_require,
    impl=_require,
    grad=Linear(lambda b, ct, out, x, condition: (ct, None)),
    lower=Scalar("copy"),
    samples=Cases(
        lambda rng, draw: [
            ([draw(*shape), np.ones(shape, bool)], {"failure": failure})
            for shape in SHAPES
            for failure in FAILURES
        ]
    ),
)

# ----------------------------------------------------------------------------------------- shapes and samples


def _square(x: Type) -> Type:
    if x.dtype.kind != "f" or x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"square matrices of floating-point numbers expected, not {x}")
    if x.shape[-1] > LIMIT:
        raise ShapeError(f"matrices of up to {LIMIT} rows expected, not {x}")
    return x


def _infer_solve(a: Type, rhs: Type, **attrs: bool) -> Type:
    _square(a)
    if rhs.dtype != a.dtype or rhs.ndim != a.ndim or rhs.shape[:-1] != a.shape[:-1]:
        raise ShapeError(f"right-hand sides {rhs} do not fit matrices {a}")
    return rhs


def _infer_number(a: Type) -> Type:
    return _square(a).with_shape(a.shape[:-2])


STACKS: tuple[tuple[int, ...], ...] = (
    (0, 0),
    (1, 1),
    (2, 2),
    (3, 3),
    (4, 4),
    (5, 5),
    (2, 3, 3),
    (2, 1, 2, 2),
)


def _regular(draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """Matrices that are far from singular, the largest elements below the diagonal."""
    x = draw(*shape)
    return np.roll(x / 6 + 3 * np.eye(shape[-1], dtype=x.dtype), 1, axis=-2)


def _positive(draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    x = draw(*shape)
    return np.asarray(x / 6 + 3 * np.eye(shape[-1], dtype=x.dtype))


def _matrices(rng: np.random.Generator, draw: Draw) -> list[Case]:
    return [([_regular(draw, shape)], {}) for shape in STACKS]


def _positive_matrices(rng: np.random.Generator, draw: Draw) -> list[Case]:
    return [([_positive(draw, shape)], {}) for shape in STACKS]


# ----------------------------------------------------------------------------------------- parts of the rules


def _turned(b: Builder, x: Node) -> Node:
    """Each matrix of a stack transposed."""
    ndim = len(x.shape)
    return b.transpose(x, perm=(*range(ndim - 2), ndim - 1, ndim - 2))


def _times(b: Builder, x: Node, y: Node) -> Node:
    """Products of the matrices of two stacks."""
    lead = tuple(range(len(x.shape) - 2))
    return b.contract(x, y, contract=((len(lead) + 1,), (len(lead),)), batch=(lead, lead))


def _lower(b: Builder, x: Node, diagonal: float = 1.0) -> Node:
    """The lower triangle, the diagonal times a factor."""
    n = x.shape[-1]
    below = b.broadcast_to(b.const(np.tri(n, dtype=bool), BOOL), shape=x.shape)
    if diagonal != 1.0:
        factor = np.where(np.eye(n, dtype=bool), diagonal, 1.0)
        x = b.mul(x, b.broadcast_to(b.const(factor, x.dtype), shape=x.shape))
    return b.select(below, x, b.full(0.0, x.type))


def _inner(b: Builder, x: Node, y: Node) -> Node:
    """The sum of the products of the elements, for each matrix."""
    ndim = len(x.shape)
    return b.sum(scale(b, x, y), axes=(ndim - 2, ndim - 1))


def _spread(b: Builder, x: Node, like: Node) -> Node:
    """A number for each matrix, in all of its elements; a mask stays outermost."""
    ndim = len(like.shape)
    return spread(b, x, like, (ndim - 2, ndim - 1))


# ------------------------------------------------------------------------------------------------------ solve


def _solve(a: Any, rhs: Any, *, transposed: bool) -> Any:
    return np.linalg.solve(np.swapaxes(a, -1, -2) if transposed else a, rhs)


def _solve_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Tangents) -> Node | None:
    (a, _), (da, rhs) = args, tangents
    turned: Any = out.attrs["transposed"]
    if da is not None:
        moved = b.neg(_times(b, _turned(b, da) if turned else da, out))
        rhs = moved if rhs is None else b.add(rhs, moved)
    return None if rhs is None else b.solve(a, rhs, transposed=turned)


def _solve_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node]:
    a, _ = args
    turned: Any = out.attrs["transposed"]
    back = b.solve(a, ct, transposed=not turned)
    left, right = (out, back) if turned else (back, out)
    return b.neg(_times(b, left, _turned(b, right))), back


def _expand_solve(b: Builder, out: Node, a: Node, rhs: Node) -> Node:
    if not out.type.size:
        return rhs
    factors = lu(b, elements(b, a))
    turned: Any = out.attrs["transposed"]
    return solved(b, factors, columns_of(b, rhs), turned, _checked_pivots(b, factors))


def _checked_pivots(b: Builder, factors: Factors) -> Line:
    """The pivots; everything that is divided by the last of them fails if one of them is zero."""
    *most, last = factors.pivots
    return [*most, b.require(last, regular(b, factors), failure="singular")]


op(
    "solve",
    doc="x in a x = b (a transposed, if `transposed`) for stacks of small matrices a and b; a run-time error if a is singular.",
    arity=2,
    attrs=("transposed",),
    infer=_infer_solve,
    impl=_solve,
    grad=Custom(_solve_jvp, _solve_vjp),
    lower=Decompose(_expand_solve),
    samples=Cases(
        lambda rng, draw: (
            [
                ([_regular(draw, shape), draw(*shape[:-1], count)], {"transposed": turned})
                for shape in STACKS
                for count, turned in ((1, False), (2, True))
            ]
            + [
                ([_regular(draw, (2, 2)), draw(2, LIMIT + 1)], {"transposed": turned})
                for turned in (False, True)
            ]
        )
    ),
)

# ------------------------------------------------------------------------------------------- triangular_solve


def _triangular_solve(factor: Any, rhs: Any, *, transposed: bool) -> Any:
    lower = np.tril(factor)
    return np.linalg.solve(np.swapaxes(lower, -1, -2) if transposed else lower, rhs)


def _triangular_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Tangents) -> Node | None:
    (factor, _), (change, rhs) = args, tangents
    turned: Any = out.attrs["transposed"]
    if change is not None:
        change = _lower(b, change)
        moved = b.neg(_times(b, _turned(b, change) if turned else change, out))
        rhs = moved if rhs is None else b.add(rhs, moved)
    return None if rhs is None else b.triangular_solve(factor, rhs, transposed=turned)


def _triangular_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node]:
    factor, _ = args
    turned: Any = out.attrs["transposed"]
    back = b.triangular_solve(factor, ct, transposed=not turned)
    left, right = (out, back) if turned else (back, out)
    return _lower(b, b.neg(_times(b, left, _turned(b, right)))), back


def _expand_triangular(b: Builder, out: Node, factor: Node, rhs: Node) -> Node:
    if not out.type.size:
        return rhs
    known = columns_of(b, rhs)
    rows = [[known.fit(x) for x in row] for row in elements(b, factor)]
    divisors = [row[i] for i, row in enumerate(rows)]
    if out.attrs["transposed"]:
        rows = transposed(rows)
        return known.join([backward(b, rows, column, divisors) for column in known.columns])
    return known.join([forward(b, rows, column, divisors) for column in known.columns])


op(
    "triangular_solve",
    doc="x in l x = b (l transposed, if `transposed`), where l is the lower triangle of small matrices.",
    arity=2,
    attrs=("transposed",),
    infer=_infer_solve,
    impl=_triangular_solve,
    grad=Custom(_triangular_jvp, _triangular_vjp),
    lower=Decompose(_expand_triangular),
    samples=Cases(
        lambda rng, draw: (
            [
                ([_positive(draw, shape), draw(*shape[:-1], count)], {"transposed": turned})
                for shape in STACKS
                for count, turned in ((2, False), (1, True))
            ]
            + [
                ([_positive(draw, (2, 2)), draw(2, LIMIT + 1)], {"transposed": turned})
                for turned in (False, True)
            ]
        )
    ),
)

# ---------------------------------------------------------------------------------------------------- inverse


def _inverse(a: Any, *, checked: bool) -> Any:
    try:
        return np.linalg.inv(a)
    except np.linalg.LinAlgError:
        if checked:
            raise
    regular_ones = np.linalg.det(a) != 0
    safe = np.where(regular_ones[..., None, None], a, np.eye(a.shape[-1], dtype=a.dtype))
    return np.where(regular_ones[..., None, None], np.linalg.inv(safe), a.dtype.type(np.nan))


def _inverse_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Tangents) -> Node | None:
    (change,) = tangents
    return None if change is None else b.neg(_times(b, _times(b, out, change), out))


def _inverse_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node]:
    back = _turned(b, out)
    return (b.neg(_times(b, _times(b, back, ct), back)),)


def _expand_inverse(b: Builder, out: Node, a: Node) -> Node:
    if not out.type.size:
        return a
    factors = lu(b, elements(b, a))
    pivots = _checked_pivots(b, factors) if out.attrs["checked"] else factors.pivots
    return assembled(b, inverted(b, factors, pivots))


op(
    "inverse",
    doc="Inverses of small matrices; that of a singular one is a run-time error if `checked`, else not finite.",
    attrs=("checked",),
    infer=lambda a, *, checked: _square(a),
    impl=_inverse,
    grad=Custom(_inverse_jvp, _inverse_vjp),
    lower=Decompose(_expand_inverse),
    samples=Cases(
        lambda rng, draw: [
            ([_regular(draw, shape)], {"checked": checked}) for shape in STACKS for checked in (True, False)
        ]
    ),
)

# ----------------------------------------------------------------------------------------------- determinants


def _cofactors_of(b: Builder, a: Node) -> Node:
    """The cofactors of each matrix: as elements, where their formulas are short, whose derivatives hold
    everywhere.
    """
    n = a.shape[-1]
    if not a.type.size:
        return a
    return assembled(b, cofactors(b, elements(b, a))) if n <= FORMULA else b.cofactors(a)


def _det_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Tangents) -> Node | None:
    (a,), (change,) = args, tangents
    return None if change is None else _inner(b, change, _cofactors_of(b, a))


def _det_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node]:
    (a,) = args
    return (scale(b, _spread(b, ct, a), _cofactors_of(b, a)),)


op(
    "det",
    doc="Determinants of small matrices.",
    infer=_infer_number,
    impl=lambda a: np.asarray(np.linalg.det(a)),
    grad=Custom(_det_jvp, _det_vjp),
    lower=Decompose(
        lambda b, out, a: determinant(b, elements(b, a)) if a.shape[-1] else b.full(1.0, out.type)
    ),
    samples=Cases(_matrices),
)


def _reference_cofactors(a: Any) -> Any:
    n = a.shape[-1]
    found = np.empty_like(a)
    for i, j in np.ndindex(n, n):
        minor = np.delete(np.delete(a, i, axis=-2), j, axis=-1)
        found[..., i, j] = (-1) ** (i + j) * np.linalg.det(minor)
    return found


def _cofactors_step(b: Builder, v: Node, out: Node, a: Node) -> Node:
    """(<c, v> c - c v' c) / det: the derivative is symmetric, so both modes use it."""
    along = _spread(b, _inner(b, v, out), out)
    moved = _times(b, _times(b, out, _turned(b, v)), out)
    return b.div(b.sub(b.mul(along, out), moved), _spread(b, b.det(a), out))


op(
    "cofactors",
    doc="Cofactors of small matrices: the derivative of det. Their own derivative is NaN where det is zero.",
    infer=_square,
    impl=_reference_cofactors,
    grad=Custom(
        lambda b, out, args, given: None if given[0] is None else _cofactors_step(b, given[0], out, *args),
        lambda b, ct, out, args: (_cofactors_step(b, ct, out, *args),),
    ),
    lower=Decompose(lambda b, out, a: assembled(b, cofactors(b, elements(b, a))) if out.type.size else a),
    samples=Cases(_matrices),
)


def _logabsdet_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Tangents) -> Node | None:
    (a,), (change,) = args, tangents
    return None if change is None else _inner(b, change, _turned(b, b.inverse(a, checked=False)))


def _logabsdet_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node]:
    (a,) = args
    return (scale(b, _spread(b, ct, a), _turned(b, b.inverse(a, checked=False))),)


def _expand_logabsdet(b: Builder, out: Node, a: Node) -> Node:
    if not a.shape[-1]:
        return b.full(0.0, out.type)
    factors = lu(b, elements(b, a))
    first, *rest = [b.log(b.abs(pivot)) for pivot in factors.pivots]
    total = first
    for logarithm in rest:
        total = b.add(total, logarithm)
    return b.select(regular(b, factors), total, b.full(-np.inf, out.type))


op(
    "logabsdet",
    doc="log(|det|) of small matrices; -inf of singular ones, where the derivative is not finite.",
    infer=_infer_number,
    impl=lambda a: np.asarray(np.linalg.slogdet(a)[1]),
    grad=Custom(_logabsdet_jvp, _logabsdet_vjp),
    lower=Decompose(_expand_logabsdet),
    samples=Cases(_matrices),
)


def _expand_det_sign(b: Builder, out: Node, a: Node) -> Node:
    one = b.full(1.0, out.type)
    if not a.shape[-1]:
        return one
    factors = lu(b, elements(b, a))
    negative = odd(b, factors)
    for pivot in factors.pivots:
        negative = b.emit("xor", negative, b.lt(pivot, 0.0))
    return b.select(regular(b, factors), b.select(negative, b.neg(one), one), b.full(0.0, out.type))


op(
    "det_sign",
    doc="The sign of the determinant of small matrices: -1, 0 or 1.",
    infer=_infer_number,
    impl=lambda a: np.asarray(np.linalg.slogdet(a)[0]),
    grad=ZeroDerivative("piecewise constant"),
    lower=Decompose(_expand_det_sign),
    samples=Cases(_matrices),
)

# --------------------------------------------------------------------------------------------------- cholesky


def _cholesky_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Tangents) -> Node | None:
    """l phi(inv(l) da inv(l)'): phi takes the lower triangle with half of the diagonal."""
    (change,) = tangents
    if change is None:
        return None
    half = _lower(b, change, 0.5)
    once = b.triangular_solve(out, b.add(half, _turned(b, half)), transposed=False)
    return _times(b, out, _lower(b, b.triangular_solve(out, _turned(b, once), transposed=False), 0.5))


def _cholesky_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node]:
    """phi(s + s') with s = inv(l)' phi(l' ct) inv(l) (I. Murray, arXiv 1602.07527, 2016)."""
    inner = _lower(b, _times(b, _turned(b, out), _lower(b, ct)), 0.5)
    once = b.triangular_solve(out, inner, transposed=True)
    twice = b.triangular_solve(out, _turned(b, once), transposed=True)
    return (_lower(b, b.add(twice, _turned(b, twice)), 0.5),)


def _expand_cholesky(b: Builder, out: Node, a: Node) -> Node:
    if not out.type.size:
        return a
    rows, positive = cholesky(b, elements(b, a))
    zero = b.full(0.0, rows[0][0].type)
    n = len(rows)
    checked = [[b.require(x, positive, failure="indefinite") for x in row] for row in rows]
    return assembled(b, [[*row, *(zero for _ in range(n - len(row)))] for row in checked])


op(
    "cholesky",
    doc="Lower Cholesky factors of small symmetric matrices, of which the lower triangle is read; a run-time error if one is not positive definite.",
    infer=_square,
    impl=np.linalg.cholesky,
    grad=Custom(_cholesky_jvp, _cholesky_vjp),
    lower=Decompose(_expand_cholesky),
    samples=Cases(_positive_matrices),
)
