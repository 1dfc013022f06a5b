"""Systems of linear equations: np.linalg.solve, inv, det, slogdet, cholesky, of matrices with up to 8 rows.

What is last are the matrices, all axes before are a stack of them. As NumPy does, all dtypes are computed in
float64; float32 is what the result becomes. Larger matrices are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.types import F32, F64
from graphjit.ops.elimination import LIMIT
from graphjit.trace.numpy.arguments import node_of, tracing, wrap
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, implements

SLOGDET = type(np.linalg.slogdet(np.eye(1)))
"""NumPy's named tuple of sign and logarithm."""


def _matrices(trace: Trace, name: str, a: Any) -> Node:
    """An argument that must be a stack of square matrices, as it is.

    Raises:
        LinAlgError: it is not, in NumPy's words.
        UnsupportedError: its matrices are too large.
    """
    node = node_of(trace, a)
    shape = node.shape
    if len(shape) < 2:
        raise np.linalg.LinAlgError(
            f"{len(shape)}-dimensional array given. Array must be at least two-dimensional"
            f" (in np.linalg.{name} at {user_location()})"
        )
    if shape[-1] != shape[-2]:
        raise np.linalg.LinAlgError(
            f"Last 2 dimensions of the array must be square (in np.linalg.{name} at {user_location()})"
        )
    if shape[-1] > LIMIT:
        raise UnsupportedError(
            f"np.linalg.{name} of {shape[-1]}x{shape[-1]} matrices at {user_location()} is not compiled: "
            f"{LIMIT}x{LIMIT} is the limit; compute it outside the compiled function and pass the result in"
        )
    return node


def _wide(trace: Trace, node: Node) -> Node:
    return trace.convert(node, F64)


def _result(trace: Trace, node: Node, *given: Node) -> Tracer:
    """A result in NumPy's dtype: float32 if all of ``given`` are."""
    return wrap(trace, trace.convert(node, F32 if all(x.dtype == F32 for x in given) else F64))


@implements(np.linalg.solve)
def solve(a: Any, b: Any) -> Tracer:
    """np.linalg.solve: a vector ``b`` is one right-hand side of all matrices, else its last two axes are
    matrices.
    """
    trace = tracing()
    matrix, rhs = _matrices(trace, "solve", a), node_of(trace, b)
    is_vector = len(rhs.shape) == 1
    if not rhs.shape:
        raise ValueError(
            "solve: Input operand 1 does not have enough dimensions (has 0, gufunc core with signature "
            f"(m,m),(m,n)->(m,n) requires 2) (at {user_location()})"
        )
    given = (matrix, rhs)
    column = trace.emit("reshape", rhs, shape=(*rhs.shape, 1)) if is_vector else rhs
    n, count = matrix.shape[-1], column.shape[-1]
    if column.shape[-2] != n:
        name, core = ("solve1", "(m,m),(m)->(m)") if is_vector else ("solve", "(m,m),(m,n)->(m,n)")
        raise ValueError(
            f"{name}: Input operand 1 has a mismatch in its core dimension 0, with gufunc signature {core} "
            f"(size {column.shape[-2]} is different from {n}) (at {user_location()})"
        )
    try:
        batch = np.broadcast_shapes(matrix.shape[:-2], column.shape[:-2])
    except ValueError:
        raise ValueError(
            f"solve: operands could not be broadcast together: stacks {matrix.shape[:-2]} and "
            f"{column.shape[:-2]} (at {user_location()})"
        ) from None
    found = trace.emit(
        "solve",
        trace.broadcast(_wide(trace, matrix), (*batch, n, n)),
        trace.broadcast(_wide(trace, column), (*batch, n, count)),
        transposed=False,
    )
    return _result(
        trace, trace.emit("reshape", found, shape=found.shape[:-1]) if is_vector else found, *given
    )


@implements(np.linalg.inv)
def inv(a: Any) -> Tracer:
    """np.linalg.inv."""
    trace = tracing()
    matrix = _matrices(trace, "inv", a)
    return _result(trace, trace.emit("inverse", _wide(trace, matrix), checked=True), matrix)


@implements(np.linalg.det)
def det(a: Any) -> Tracer:
    """np.linalg.det."""
    trace = tracing()
    matrix = _matrices(trace, "det", a)
    return _result(trace, trace.emit("det", _wide(trace, matrix)), matrix)


@implements(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    """np.linalg.slogdet."""
    trace = tracing()
    matrix = _matrices(trace, "slogdet", a)
    wide = _wide(trace, matrix)
    return SLOGDET(*(_result(trace, trace.emit(name, wide), matrix) for name in ("det_sign", "logabsdet")))


@implements(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Tracer:
    """np.linalg.cholesky: of the lower triangle, or of the upper one."""
    trace = tracing()
    matrix = _matrices(trace, "cholesky", a)
    ndim = len(matrix.shape)
    turned = (*range(ndim - 2), ndim - 1, ndim - 2)
    wide = _wide(trace, matrix)
    if not upper:
        return _result(trace, trace.emit("cholesky", wide), matrix)
    found = trace.emit("cholesky", trace.emit("transpose", wide, perm=turned))
    return _result(trace, trace.emit("transpose", found, perm=turned), matrix)
