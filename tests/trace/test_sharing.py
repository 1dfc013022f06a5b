"""Views, copies and writes: every bound function against NumPy, operands laid out in four ways, five kinds of
writes.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from expressions.shapes import ALL, DIAGONALS, JOINING, SHAPES
from expressions.ufuncs import UFUNCS
from expressions.values import EINSUM, INDEXING, PRODUCTS, REDUCTIONS
from grids import part, parts
from numpy_harness import OPERANDS, lines, record
from sharing_harness import ACTIONS, LAYOUTS, compare, gradient_compare

from graphjit.errors import GraphjitError
from graphjit.trace.recording.tracer import BOUND, FUNCTIONS
from graphjit.trace.recording.tracer import UFUNCS as UFUNCS_OF

MEMORY = lines(
    """
    np.asarray(m)
    np.asarray(m, dtype=np.float32)
    np.asarray(m, order='F')
    np.asarray(m, order='C')
    np.asarray(m, copy=True)
    np.asarray(s)
    np.asanyarray(t)
    np.array(m)
    np.array(m, copy=None)
    np.array(m, order='F')
    np.array(m, order='A')
    np.array(m, ndmin=3)
    np.array(m, copy=None, ndmin=3)
    np.array([v, v * 2])
    np.array(s)
    np.ascontiguousarray(m)
    np.ascontiguousarray(s)
    np.asfortranarray(m)
    np.asfortranarray(t)
    np.require(m, requirements=['F'])
    np.require(m, dtype=np.float32)
    np.float64(m)
    np.float32(m)
    np.int64(i)
    np.copy(m)
    np.copy(m, order='C')
    np.copy(s)
    m.copy()
    m.copy('K')
    m.copy('F')
    t.copy('A')
    copy.copy(m)
    copy.deepcopy(m)
    copy.deepcopy({'w': m})['w']
    m.astype(float)
    m.astype(float, copy=False)
    m.astype(np.float32, copy=False)
    m.astype(float, order='F', copy=False)
    m.astype(int, order='C')
    np.astype(m, float, copy=False)
    m.flatten()
    m.flatten('F')
    m.flatten('K')
    t.flatten('A')
    np.ravel(m, order='K')
    np.ravel(t.transpose(1, 0, 2), order='K')
    np.ravel((2 * m.T), order='K')
    np.ravel(m, order='A')
    m.T.ravel(order='A')
    m.reshape(-1, order='A')
    m.T.reshape(4, 3, order='A')
    np.reshape(m, (4, 3), copy=True)
    m.reshape(4, 3, copy=True)
    m.view()
    +m
    np.positive(m)
    m.real
    np.real(m)
    np.conj(m)
    m.conj()
    m.flat[:]
    m.flat[1:5]
    m.flat[[0, 3]]
    np.add(m.flat, 1)
    np.clip(m, None, None)
    m.clip(None, None)
    np.nan_to_num(nan)
    np.nan_to_num(nan, copy=False)
    np.linalg.matrix_power(q, 1)
    np.linalg.matrix_power(q, 2)
    np.einsum('ii->i', q)
    np.einsum('ij->ji', m)
    np.einsum('i...->...i', t)
    np.einsum('iji->ji', t[:, :, :2])
    np.broadcast_to(m, (3, 4))
    np.broadcast_arrays(m, n)
    np.meshgrid(v, w, copy=False)
    np.meshgrid(v, w, copy=False, sparse=True)
    np.meshgrid(v, w, copy=False, indexing='ij')
    np.rot90(m, 0)
    np.rot90(m, 2)
    np.diag(q)
    np.linalg.diagonal(t)
    np.split(m, 1)
    np.array_split(v, 1)
    np.atleast_1d(m)
    np.atleast_2d(v)
    np.atleast_3d(m)
    m.squeeze()
    m.transpose(0, 1)
    np.moveaxis(m, 0, 0)
    m[...]
    m[()]
    m[:]
    m[:, :, None]
    m[1:, ::2].T
    m[0]
    m[0, 1]
    m[0, 1, ...]
    m[::-1, ::-2]
    m[[0, 2]]
    m[:, [0, 1]]
    t[:, [0, 1], 1]
    t[[0, 1], :, [1, 2]]
    t[:, [0, 1], ..., [0, 1]]
    t[:, 0, ..., [0, 1, 2]]
    t[0, :, [0, 1]]
    m[[True, False, True]]
    np.round(i)
    i.round()
    np.round(m, 1)
    np.fix(m)
    np.trunc(m)
    np.where(s > 0, s, s)
    np.squeeze(one)
    np.reshape(one, 3)
    np.swapaxes(t, 0, 2).T
    np.real_if_close(m)
    np.zeros_like(m)
    np.ones_like(t, dtype=np.float32)
    np.full_like(m, 2, order='C')
    m.max(axis=0)
    m[0].sum()
    m.mean(axis=1, keepdims=True)
    """
)
BITS = ("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "invert")
CALLS = [
    f"np.{ufunc.__name__}({', '.join((['i', 'abs(i) % 3'] if ufunc.__name__ in BITS else ['p', 'n'])[: ufunc.nin])})"
    for ufunc in {**BOUND, **UFUNCS_OF}
    if getattr(np, ufunc.__name__, None) is ufunc
    and ufunc.nin < 3
    and ufunc.signature is None
    and ufunc not in (np.isnat, np.ldexp)
]
TABLE = list(dict.fromkeys([*MEMORY, *ALL, *PRODUCTS, *EINSUM, *REDUCTIONS, *UFUNCS, *INDEXING, *CALLS]))
STATIC = set(
    "shape ndim size iscomplexobj isrealobj result_type can_cast common_type min_scalar_type einsum_path shares_memory may_share_memory".split()
)
"""Functions whose result is no array."""
WRITERS = {"copyto", "putmask", "fill_diagonal"}
"""Functions that return nothing; `random_views` and other tests run them."""


@pytest.mark.sample(8)
@pytest.mark.parametrize("number", parts(4))
@pytest.mark.parametrize("expression", TABLE)
def test_values_sharing_classes_and_memory_order(expression: str, number: int) -> None:
    for layout, action in part(number, 4, LAYOUTS, ACTIONS):
        compare(expression, layout, action)


MOVING = [
    e
    for e in dict.fromkeys([*MEMORY, *SHAPES, *JOINING, *DIAGONALS, *INDEXING])
    if not any(
        word in e
        for word in (
            "trunc",
            "fix",
            "round",
            "nan",
            "matrix_power",
            "vander",
            "int",
            "max(",
            "astype",
            "float32",
            "where",
        )
    )
]
"""Expressions that only move elements, or are linear in them."""


@pytest.mark.sample(4)
@pytest.mark.parametrize("expression", MOVING)
def test_gradients_through_views_and_writes(expression: str) -> None:
    for layout in LAYOUTS:
        gradient_compare(expression, layout)


def test_every_bound_function_takes_part() -> None:
    text = "\n".join(TABLE)
    for function, implementation in FUNCTIONS.items():
        name = function.__name__
        if name in STATIC | WRITERS or re.search(rf"\b{re.escape(name)}\(", text):
            continue
        arguments = 1 if name in ("nonzero", "flatnonzero", "argwhere") else 2
        with pytest.raises(GraphjitError):  # refused whatever its arguments
            record(
                lambda x, implementation=implementation, n=arguments: implementation(*[x] * n),
                [OPERANDS["m"]],
            )
