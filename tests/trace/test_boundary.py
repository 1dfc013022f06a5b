"""What a call returns and which arguments it changes: memory order, classes, writes that the caller sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphjit

M = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.T,
        lambda x: x.T * 2,
        lambda x: x * 2,
        lambda x: x.reshape(2, 6, order="F"),
        lambda x: np.asfortranarray(x),
        lambda x: x[:, [0, 2]],
        lambda x: np.stack([x, x], axis=-1).transpose(2, 0, 1),
        lambda x: x.sum(axis=0, keepdims=True).T,
        lambda x: np.moveaxis(x[None] + x[:, None], 0, 2),
    ],
)
@pytest.mark.parametrize(
    "lay", [np.ascontiguousarray, np.asfortranarray, lambda x: np.repeat(x, 2, 1)[:, ::2]]
)
def test_results_have_numpys_memory_order(function: Any, lay: Any) -> None:
    x = lay(M)
    want = np.array(function(x), order="K")
    compiled = graphjit.jit(function)
    for _ in range(3):  # traced, by the slow way, by the native entry
        got = compiled(x)
        np.testing.assert_array_equal(got, want)
        assert got.strides == want.strides
        assert got.flags.owndata
        assert not np.shares_memory(got, x)


def test_arrays_without_axes_and_scalars_are_told_apart() -> None:
    def f(x: Any) -> Any:
        return np.where(x[0] > 0, 1.0, 2.0), x[0], x[0, ...], np.sum(x), np.squeeze(x[:1]), np.array(x[0])

    wanted = f(M[1])
    compiled = graphjit.jit(f)
    for _ in range(2):
        assert [type(y) for y in compiled(M[1])] == [type(y) for y in wanted]


def test_arguments_changed_in_place_hold_the_new_values() -> None:
    def procedure(x: Any, y: Any) -> None:
        x[0] = 0
        x *= 2
        y[...] = x.sum()

    for make in (
        np.copy,
        np.asfortranarray,
        lambda x: np.repeat(x, 2, 1)[:, ::2],
        lambda x: x[::-1].copy()[::-1],
    ):
        want, found = [make(M.copy()), np.zeros(())], [make(M.copy()), np.zeros(())]
        procedure(*want)
        compiled = graphjit.jit(procedure)
        assert compiled(*found) is None
        compiled(np.ones((3, 4)), np.zeros(()))
        for a, b in zip(found, want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_changed_argument_that_is_returned_is_the_result() -> None:
    @graphjit.jit
    def add(x: Any, y: Any) -> Any:
        x += y
        return x, x + 1, x[1:]

    x = np.ones(3)
    same, fresh, part = add(x, np.full(3, 2.0))
    assert same is x
    assert not np.shares_memory(part, x)
    np.testing.assert_array_equal(fresh, [4, 4, 4])
    np.testing.assert_array_equal(x, [3, 3, 3])


def test_nothing_is_written_where_the_call_raises() -> None:
    @graphjit.jit
    def f(x: Any, i: Any) -> Any:
        x[0] = 7.0
        return x[i]

    x = np.zeros(3)
    with pytest.raises(IndexError):
        f(x, np.array([9]))
    np.testing.assert_array_equal(x, [0, 0, 0])


def test_arguments_that_cannot_be_written() -> None:
    @graphjit.jit
    def f(x: Any, y: Any) -> Any:
        x += y
        return y * 1

    x = np.ones(4)
    for a, b in ((x, x), (x[1:], x[:-1])):
        with pytest.raises(ValueError, match=r"overlaps.*copy"):
            f(a, b)
    np.testing.assert_array_equal(x, 1)
    f(x[::2], x[1::2])  # side by side
    np.testing.assert_array_equal(x, [2, 1, 2, 1])
    x.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only.*test_boundary.py:\d+"):
        f(x, np.ones(4))


def test_overlap_with_a_captured_array_is_seen() -> None:
    w = np.ones(4)
    f = graphjit.jit(lambda x: np.add(x, w, out=x))
    with pytest.raises(ValueError, match="overlaps"):
        f(w)


def test_under_derivatives_a_write_to_an_argument_is_an_error() -> None:
    def loss(w: Any, x: Any) -> Any:
        x *= 2
        return np.sum(w * x)

    ones = np.ones(3)
    for call in (
        lambda: graphjit.grad(loss)(ones, ones + 1),
        lambda: graphjit.grad(loss, argnums=1)(ones, ones + 1),
        lambda: graphjit.jit(lambda w, x: graphjit.grad(loss)(w, x))(ones, ones + 1),
        lambda: graphjit.jvp(lambda x: loss(2.0, x), (ones,), (ones,)),
        lambda: graphjit.vjp(lambda x: loss(2.0, x), ones),
    ):
        with pytest.raises(graphjit.DerivativeError, match=r"test_boundary.py:\d+.*x = x.copy\(\)"):
            call()

    def local(w: Any, x: Any) -> Any:
        x = x.copy()
        x *= 2
        return np.sum(w * x)

    np.testing.assert_array_equal(graphjit.grad(local)(ones, ones), 2 * ones)


def test_sums_of_arrays_without_elements_lie_as_numpys() -> None:
    """NumPy calls every array without elements contiguous, yet its sum follows the strides."""

    def f(x: np.ndarray) -> list[np.ndarray]:
        return [
            np.sum(np.moveaxis(x[4:2:-1], 1, 2), 0),
            np.sum(x[0:0].transpose(0, 2, 1), 0),
            np.max(x[:, :0].T, 1, initial=0.0),
        ]

    x = np.zeros((3, 2, 4))
    assert [y.strides for y in graphjit.jit(f)(x)] == [y.strides for y in f(x)]
