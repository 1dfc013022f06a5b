"""Sums, products and running values keep or lose the sign of a zero as NumPy's do."""

from __future__ import annotations

import numpy as np
import pytest

import graphjit

SHAPES = [
    (),
    (0,),
    (1,),
    (2,),
    (7,),
    (16,),
    (17,),
    (100,),
    (3, 2),
    (3, 40),
    (40, 3),
    (2, 0),
    (0, 2),
    (1, 5),
    (5, 1),
    (2, 3, 9),
]


def along(name: str, shape: tuple[int, ...]):
    function = getattr(np, name)

    def every_axis(x):
        found = [function(x, axis=axis) for axis in (None, *range(len(shape)))]
        if shape:
            found += [
                np.flip(function(np.flip(x, -1), axis=-1), -1)
                if "cum" in name
                else function(x, axis=-1, keepdims=True)
            ]
        return found

    return every_axis


@pytest.mark.sample(3)
@pytest.mark.parametrize("backend", ["llvm", "numba"])
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "sum", "prod", "nancumsum", "mean"])
def test_zeros_have_numpys_signs(name: str, backend: str) -> None:
    for shape in SHAPES if backend == "llvm" else [(1,), (7,), (3, 2)]:
        if name == "mean" and 0 in shape:
            continue  # a NaN, whose sign means nothing
        function = along(name, shape)
        for dtype in (np.float64, np.float32) if backend == "llvm" else (np.float64,):
            x = np.full(shape, -0.0, dtype)
            mixed = x.copy()
            mixed.reshape(-1)[x.size // 2 :] = 0.5
            compiled = graphjit.jit(function, backend=backend)
            for argument in (x, mixed):
                for got, want in zip(compiled(argument), function(argument), strict=True):
                    assert np.asarray(got).dtype == want.dtype
                    np.testing.assert_array_equal(got, want)
                    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
