"""Products and norms: matmul, dot, vdot, inner, outer, tensordot, multi_dot, kron, cross, vecdot, matvec,
vecmat, matrix_power, norm, vector_norm, matrix_norm.

A product is a `contract` node, with axes to sum over and batch axes. A batch axis that broadcasts is left out
of the operand that lacks it; nothing is repeated in memory.
"""

from __future__ import annotations

import string
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from graphjit.errors import UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.types import BOOL, I64
from graphjit.trace.numpy.arguments import (
    ABSENT,
    aligned,
    inexact,
    integers,
    node_of,
    promoted,
    promoted_arrays,
    refuse,
    tracing,
    wrap,
    wrap_array,
)
from graphjit.trace.numpy.einsum import contract_subscripts
from graphjit.trace.numpy.reductions import finish, max_
from graphjit.trace.numpy.shapes import flattened, moveaxis, sliced
from graphjit.trace.numpy.systems import inv
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, implements


def product(
    trace: Trace, x: Node, y: Node, contract: tuple[Any, Any], batch: tuple[Any, Any] = ((), ())
) -> Node:
    """`contract` for any of our dtypes: bool products are "any of ands"."""
    if x.dtype.kind == "b":
        whole = trace.emit(
            "contract", trace.convert(x, I64), trace.convert(y, I64), contract=contract, batch=batch
        )
        return trace.convert(whole, BOOL)
    return trace.emit("contract", x, y, contract=contract, batch=batch)


def _core_error(name: str, x: Node, y: Node) -> ValueError:
    return ValueError(f"{name}: shapes {x.shape} and {y.shape} do not fit together (at {user_location()})")


def batched(trace: Trace, name: str, x: Node, y: Node, x_core: str, y_core: str, out_core: str) -> Node:
    """A product with core axes named by letters at the end and broadcasting batch axes in front."""
    for letter in set(x_core) & set(y_core):
        n, m = (
            x.shape[len(x.shape) - len(x_core) + x_core.index(letter)],
            y.shape[len(y.shape) - len(y_core) + y_core.index(letter)],
        )
        if n != m:
            raise _core_error(name, x, y)
    x_batch, y_batch = x.shape[: len(x.shape) - len(x_core)], y.shape[: len(y.shape) - len(y_core)]
    try:
        batch = np.broadcast_shapes(x_batch, y_batch)
    except ValueError:
        raise _core_error(name, x, y) from None
    letters = string.ascii_uppercase[: len(batch)]
    sides = []
    for node, own_batch, core in ((x, x_batch, x_core), (y, y_batch, y_core)):
        missing = len(batch) - len(own_batch)
        names = letters[missing:]
        # an axis of length 1 that broadcasts is absent from this operand's product
        gone = {i for i, n in enumerate(own_batch) if n == 1 and batch[missing + i] != 1}
        if gone:
            node = trace.emit(
                "reshape", node, shape=tuple(n for i, n in enumerate(node.shape) if i not in gone)
            )
        sides.append((node, "".join(c for i, c in enumerate(names) if i not in gone) + core))
    (x, x_names), (y, y_names) = sides
    return contract_subscripts(trace, [x, y], [x_names, y_names], letters + out_core)


def matmul_nodes(trace: Trace, x: Node, y: Node) -> Node:
    """x @ y of one dtype."""
    if not x.shape or not y.shape:
        raise ValueError(
            f"matmul: Input operand {0 if not x.shape else 1} does not have enough dimensions (at {user_location()})"
        )
    if len(x.shape) <= 2 and len(y.shape) <= 2:
        last, first = len(x.shape) - 1, max(len(y.shape) - 2, 0)
        if x.shape[last] != y.shape[first]:
            raise ValueError(
                f"matmul: Input operand 1 has a mismatch in its core dimension 0 (size {y.shape[first]} is different from "
                f"{x.shape[last]}) (at {user_location()})"
            )
        return product(trace, x, y, ((last,), (first,)))
    x_core = "ij" if len(x.shape) > 1 else "j"
    y_core = "jk" if len(y.shape) > 1 else "j"
    return batched(trace, "matmul", x, y, x_core, y_core, x_core[:-1] + y_core[1:])


def matmul(trace: Trace, x1: Any, x2: Any) -> Tracer:
    """np.matmul (a ufunc)."""
    return wrap(trace, matmul_nodes(trace, *promoted(trace, x1, x2)))


def vecdot(trace: Trace, x1: Any, x2: Any) -> Tracer:
    """np.vecdot (a ufunc)."""
    return wrap(trace, _vectors(trace, "vecdot", x1, x2, "j", "j", ""))


def matvec(trace: Trace, x1: Any, x2: Any) -> Tracer:
    """np.matvec (a ufunc)."""
    return wrap(trace, _vectors(trace, "matvec", x1, x2, "ij", "j", "i"))


def vecmat(trace: Trace, x1: Any, x2: Any) -> Tracer:
    """np.vecmat (a ufunc)."""
    return wrap(trace, _vectors(trace, "vecmat", x1, x2, "i", "ij", "j"))


def _vectors(trace: Trace, name: str, x1: Any, x2: Any, x_core: str, y_core: str, out_core: str) -> Node:
    """A product with core axes named by letters, whose operands must have at least these axes."""
    x, y = promoted(trace, x1, x2)
    if len(x.shape) < len(x_core) or len(y.shape) < len(y_core):
        raise ValueError(f"{name}: an input operand does not have enough dimensions (at {user_location()})")
    return batched(trace, name, x, y, x_core, y_core, out_core)


@implements(np.linalg.matmul)
def linalg_matmul(x1: Any, x2: Any, /) -> Tracer:
    """np.linalg.matmul."""
    return matmul(tracing(), x1, x2)


@implements(np.linalg.vecdot)
def linalg_vecdot(x1: Any, x2: Any, /, *, axis: Any = -1) -> Tracer:
    """np.linalg.vecdot."""
    return vecdot(tracing(), moveaxis(x1, axis, -1), moveaxis(x2, axis, -1))


@implements(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Tracer:
    """np.dot."""
    refuse("dot", out=out)
    trace = tracing()
    x, y = promoted_arrays(trace, a, b)
    if not x.shape or not y.shape:
        return trace.ufunc(np.multiply, wrap(trace, x), wrap(trace, y))  # type: ignore[no-any-return]
    last, first = len(x.shape) - 1, max(len(y.shape) - 2, 0)
    if x.shape[last] != y.shape[first]:
        raise ValueError(
            f"shapes {x.shape} and {y.shape} not aligned: {x.shape[last]} (dim {last}) != {y.shape[first]} (dim {first}) "
            f"(at {user_location()})"
        )
    return wrap(trace, product(trace, x, y, ((last,), (first,))))


@implements(np.vdot)
def vdot(a: Any, b: Any, /) -> Tracer:
    """np.vdot."""
    trace = tracing()
    x, y = (flattened(trace, node) for node in promoted_arrays(trace, a, b))
    if x.shape != y.shape:
        raise ValueError(f"cannot reshape array of size {y.type.size} into shape {x.shape}")
    return wrap(trace, product(trace, x, y, ((0,), (0,))))


@implements(np.inner)
def inner(a: Any, b: Any, /) -> Tracer:
    """np.inner."""
    trace = tracing()
    x, y = promoted_arrays(trace, a, b)
    if not x.shape or not y.shape:
        return trace.ufunc(np.multiply, wrap(trace, x), wrap(trace, y))  # type: ignore[no-any-return]
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"shapes {x.shape} and {y.shape} not aligned: {x.shape[-1]} != {y.shape[-1]} (at {user_location()})"
        )
    return wrap(trace, product(trace, x, y, ((len(x.shape) - 1,), (len(y.shape) - 1,))))


@implements(np.outer)
def outer(a: Any, b: Any, out: Any = None) -> Tracer:
    """np.outer."""
    refuse("outer", out=out)
    trace = tracing()
    x, y = promoted_arrays(trace, a, b)
    column = trace.emit("reshape", x, shape=(x.type.size, 1))
    row = trace.emit("reshape", y, shape=(1, y.type.size))
    return trace.ufunc(np.multiply, wrap(trace, column), wrap(trace, row))  # type: ignore[no-any-return]


@implements(np.linalg.outer)
def linalg_outer(x1: Any, x2: Any, /) -> Tracer:
    """np.linalg.outer."""
    if np.ndim(x1) != 1 or np.ndim(x2) != 1:
        raise ValueError(
            f"Input arrays must be one-dimensional, but they are x1.ndim={np.ndim(x1)} and x2.ndim={np.ndim(x2)}."
        )
    return outer(x1, x2)


@implements(np.tensordot, np.linalg.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Tracer:
    """np.tensordot."""
    trace = tracing()
    x, y = promoted_arrays(trace, a, b)
    if np.ndim(axes) == 0:
        count = int(axes)
        left: Any = tuple(range(len(x.shape) - count, len(x.shape)))
        right: Any = tuple(range(count))
    else:
        first, second = axes
        left = normalize_axis_tuple(integers(first, "axes"), len(x.shape))
        right = normalize_axis_tuple(integers(second, "axes"), len(y.shape))
    if len(left) != len(right) or any(x.shape[i] != y.shape[j] for i, j in zip(left, right, strict=False)):
        raise ValueError(
            f"shape-mismatch for sum: {x.shape} and {y.shape} over {left} and {right} (at {user_location()})"
        )
    return wrap_array(trace, product(trace, x, y, (left, right)))


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Any, *, out: Any = None) -> Tracer:
    """np.linalg.multi_dot in the cheapest order (the matrix chain problem, Cormen et al., section 15.2)."""
    refuse("linalg.multi_dot", out=out)
    trace = tracing()
    nodes = [node_of(trace, array) for array in arrays]
    if len(nodes) < 2:
        raise ValueError("Expecting at least two arrays.")
    if len(nodes) == 2:
        return dot(*(wrap(trace, node) for node in nodes))
    from_vector, to_vector = len(nodes[0].shape) == 1, len(nodes[-1].shape) == 1
    if from_vector:
        nodes[0] = trace.emit("reshape", nodes[0], shape=(1, *nodes[0].shape))
    if to_vector:
        nodes[-1] = trace.emit("reshape", nodes[-1], shape=(*nodes[-1].shape, 1))
    for node in nodes:
        if len(node.shape) != 2:
            raise np.linalg.LinAlgError(
                f"{len(node.shape)}-dimensional array given. Array must be two-dimensional"
            )
    sizes = [nodes[0].shape[0], *(node.shape[1] for node in nodes)]
    count = len(nodes)
    cost = {(i, i): 0 for i in range(count)}
    cut = {}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            options = {
                k: cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)
            }
            cut[i, j] = min(options, key=options.__getitem__)
            cost[i, j] = options[cut[i, j]]

    def chain(i: int, j: int) -> Tracer:
        return (
            wrap(trace, nodes[i]) if i == j else matmul(trace, chain(i, cut[i, j]), chain(cut[i, j] + 1, j))
        )

    whole = chain(0, count - 1)._node
    shape = tuple(n for n, gone in zip(whole.shape, (from_vector, to_vector), strict=True) if not gone)
    return wrap(trace, trace.emit("reshape", whole, shape=shape))


@implements(np.kron)
def kron(a: Any, b: Any) -> Tracer:
    """np.kron."""
    trace = tracing()
    x, y = promoted_arrays(trace, a, b)
    ndim = max(len(x.shape), len(y.shape))
    x_shape = (1,) * (ndim - len(x.shape)) + x.shape
    y_shape = (1,) * (ndim - len(y.shape)) + y.shape
    x = trace.emit("reshape", x, shape=tuple(n for size in x_shape for n in (size, 1)))
    y = trace.emit("reshape", y, shape=tuple(n for size in y_shape for n in (1, size)))
    both = trace.ufunc(np.multiply, wrap(trace, x), wrap(trace, y))._node
    return wrap(
        trace, trace.emit("reshape", both, shape=tuple(n * m for n, m in zip(x_shape, y_shape, strict=True)))
    )


@implements(np.cross)
def cross(a: Any, b: Any, axisa: Any = -1, axisb: Any = -1, axisc: Any = -1, axis: Any = None) -> Tracer:
    """np.cross of 3-vectors."""
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise ValueError(
            f"Both input arrays must be (arrays of) 3-dimensional vectors, but they are {x.shape[-1]} and {y.shape[-1]} dimensional instead."
        )
    trace = tracing()
    x_node, y_node = aligned(trace, x, y)
    last = len(x_node.shape) - 1
    u, v = ([wrap(trace, sliced(trace, node, last, i, i + 1)) for i in range(3)] for node in (x_node, y_node))
    parts = [u[(i + 1) % 3] * v[(i + 2) % 3] - u[(i + 2) % 3] * v[(i + 1) % 3] for i in range(3)]
    whole = trace.emit("concatenate", *[part._node for part in parts], axis=last)
    return moveaxis(wrap(trace, whole), -1, axisc)


@implements(np.linalg.cross)
def linalg_cross(x1: Any, x2: Any, /, *, axis: Any = -1) -> Tracer:
    """np.linalg.cross."""
    return cross(x1, x2, axis=axis)


# ------------------------------------------------------------------------------------------------------ norms


def _vector_norm(trace: Trace, x: Node, order: Any, axes: tuple[int, ...]) -> Node:
    """The norm of the given order along ``axes``. Roots are the op ``rooted``, whose derivative is 0 at 0."""
    value = wrap(trace, x)
    if order is None or order == 2:
        return trace.emit(
            "rooted", trace.emit("sum", trace.emit("mul", x, x), axes=axes), root=2.0, power=1.0
        )
    if order == np.inf:
        return max_(abs(value), axes, initial=ABSENT if x.type.size else 0)._node
    if order == -np.inf:
        return trace.emit("min", trace.emit("abs", x), axes=axes)
    if order == 0:
        return trace.emit("sum", trace.convert((value != 0)._node, x.dtype), axes=axes)
    if order == 1:
        return trace.emit("sum", trace.emit("abs", x), axes=axes)
    if isinstance(order, str):
        raise ValueError(f"Invalid norm order '{order}' for vectors")
    total = wrap(trace, trace.emit("sum", (abs(value) ** order)._node, axes=axes))
    if isinstance(order, int | float | np.integer | np.floating) and order > 1:
        return trace.emit("rooted", total._node, root=float(order), power=1.0)
    return (total ** (1 / order))._node  # type: ignore[no-any-return]


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Tracer:
    """np.linalg.norm: vector norms of any order; Frobenius, 1, -1, inf and -inf norms of matrices."""
    trace = tracing()
    node = inexact(trace, node_of(trace, x))
    ndim = len(node.shape)
    if axis is None and (ord is None or (ord in ("f", "fro") and ndim == 2) or (ord == 2 and ndim == 1)):
        root = _vector_norm(trace, flattened(trace, node), 2, (0,))
        return wrap(trace, trace.emit("reshape", root, shape=(1,) * ndim) if keepdims else root)
    axes = tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)
    if len(axes) == 1:
        return finish(trace, _vector_norm(trace, node, ord, axes), node.shape, axes, keepdims)
    if len(axes) != 2:
        raise ValueError("Improper number of dimensions to norm.")
    row, column = axes
    both = tuple(sorted(axes))
    if ord in (None, "f", "fro"):
        return finish(trace, _vector_norm(trace, node, 2, both), node.shape, both, keepdims)
    if ord in (1, -1, np.inf, -np.inf):
        summed, left = (row, column) if abs(ord) == 1 else (column, row)
        totals = trace.emit("sum", trace.emit("abs", node), axes=(summed,))
        position = left - (1 if left > summed else 0)
        extreme = trace.emit("max" if ord > 0 else "min", totals, axes=(position,))
        return finish(trace, extreme, node.shape, both, keepdims)
    raise UnsupportedError(
        f"np.linalg.norm(ord={ord!r}) of matrices is not compiled (at {user_location()}): it needs singular values; "
        "'fro', 1, -1, inf and -inf are"
    )


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Tracer:
    """np.linalg.vector_norm."""
    trace = tracing()
    node = inexact(trace, node_of(trace, x))
    axes = (
        tuple(range(len(node.shape)))
        if axis is None
        else tuple(sorted(normalize_axis_tuple(axis, len(node.shape))))
    )
    return finish(trace, _vector_norm(trace, node, ord, axes), node.shape, axes, keepdims)


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Tracer:
    """np.linalg.matrix_norm."""
    return norm(x, ord, (-2, -1), keepdims)


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Tracer:
    """np.linalg.matrix_power by repeated squaring; a negative power is one of the inverse."""
    trace = tracing()
    x = node_of(trace, a)
    if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
        raise np.linalg.LinAlgError("Last 2 dimensions of the array must be square")
    power = n.__index__()
    if power < 0:
        return matrix_power(inv(a), -power)
    if power == 0:
        eye = trace.builder.const(np.eye(x.shape[-1]), x.dtype)
        return wrap(trace, trace.broadcast(eye, x.shape))
    if power == 1 and isinstance(a, Tracer):
        return a
    square, result = wrap(trace, x), None
    while power:
        if power & 1:
            result = square if result is None else matmul(trace, result, square)
        power >>= 1
        if power:
            square = matmul(trace, square, square)
    assert result is not None
    return result
