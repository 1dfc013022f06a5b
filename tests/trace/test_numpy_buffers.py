"""Assignment while tracing: buffers, views, in-place operators, known values."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_harness import OPERANDS, check, record, run

from graphjit.errors import TraceError

M, N, V, W, T = (OPERANDS[name] for name in "mnvwt")

# ------------------------------------------------------------------------------------------------- assignment

KEYS: list[Any] = [
    0,
    -1,
    (1, 2),
    slice(None),
    ...,
    slice(1, None),
    slice(None, None, 2),
    slice(None, None, -1),
    (slice(None), 1),
    (slice(None), slice(1, 3)),
    (slice(0, 2), slice(1, 4, 2)),
    (slice(None, None, -2), slice(None, None, -1)),
    (..., 0),
    (None, 1),
    [0, 2],
    [[0, 1], [1, 2]],
    (slice(None), [0, 3]),
    ([0, 1], [1, 2]),
    ([0, 1], slice(1, 3)),
    ([2, 0], 1),
    (1, [3, 0]),
    ([True, False, True],),
    ([True, False, True], slice(None, None, -1)),
    (slice(None), [True, False, False, True]),
    slice(2, 1),
    [],
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_assignment(key: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        x = x.copy()
        x[key] = y[key] * 2
        first = x * 1.0
        x[key] = 7
        return first, x

    check(f, M, N)


@pytest.mark.parametrize("key", KEYS[:20], ids=str)
def test_in_place_on_a_part(key: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        x = x + 0
        x[key] += y[key]
        x[key] *= 2
        return x

    check(f, M, N)


@pytest.mark.parametrize(
    "key", [[0, 0, 1], [[0, 1], [1, 1]], (slice(None), [1, 1, -1]), slice(0, 2), 1, (1, [2, 2])], ids=str
)
def test_add_at(key: Any) -> None:
    def f(x: Any, s: Any) -> Any:
        out = np.zeros((3, 4))
        np.add.at(out, key, s)
        x = x.copy()
        np.subtract.at(x, key, 2 * s)
        return out, x

    check(f, M, np.float64(1.5))


def test_values_broadcast_and_convert_as_in_numpy() -> None:
    def f(x: Any, v: Any, w: Any, i: Any) -> Any:
        x, i = x.copy(), i.copy()
        x[0] = v
        x[:, 1] = w
        x[1:, 2:] = [[1.0, 2.0]]
        x[2] = v[None, None]
        i[0] = v  # truncates
        i[1, 1] = 2.9
        return x, i

    check(f, M, V, W, OPERANDS["i"])
    with pytest.raises(ValueError, match="broadcast"):
        record(_assign(0, np.ones(3)), [M])
    with pytest.raises(IndexError):
        record(_assign(5, 1.0), [M])


def _assign(key: Any, value: Any) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        x = x.copy()
        x[key] = value
        return x

    return f


def test_masks() -> None:
    def f(x: Any, y: Any, v: Any) -> Any:
        x = x.copy()
        x[x < 0] = 0
        x[y > 1] = np.sum(y)
        x[np.sum(y, axis=1) > 0] = v
        y = y.copy()
        y[...] = np.where(y < 0, -y, y)
        return x, y

    check(f, M, N, V)
    with pytest.raises(TraceError, match=r"np\.where"):
        record(lambda x: x.__setitem__(x > 0, np.ones(5)), [M])
    with pytest.raises(IndexError):
        record(lambda x: x.__setitem__(x[0] > 0, 1.0), [M])


def test_every_name_sees_a_write() -> None:
    def f(x: Any) -> Any:
        x = x * 1.0
        other = x
        x[0] = 1.0
        other += 1
        return x, other

    check(f, M)


def test_arguments_are_never_written() -> None:
    given = M.copy()

    def f(x: Any) -> Any:
        x[0] = 5.0
        x += 1
        return x

    (found,) = run(f, given)
    np.testing.assert_array_equal(given, M)
    np.testing.assert_array_equal(found, f(M.copy()))


# ------------------------------------------------------------------------------------------------------ views


def test_views_write_through_and_see_writes() -> None:
    def f(x: Any, v: Any) -> Any:
        x = x * 1.0
        row, column, block = x[0], x[:, 1], x[1:, ::2]
        row[2] = 9.0
        x[0, 0] = 3.0
        column += 1
        block[:, 0] = v[:2]
        block[0][1] = -4.0
        flipped = x[::-1]
        flipped[0] *= 2
        return x, row, column, block, flipped, row.sum()

    check(f, M, V)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.T,
        lambda x: x.reshape(-1),
        lambda x: x.reshape(2, 6),
        lambda x: x.ravel(),
        lambda x: np.ravel(x),
        lambda x: np.reshape(x, (4, 3)),
        lambda x: np.transpose(x),
        lambda x: x.swapaxes(0, 1),
        lambda x: np.moveaxis(x, 0, 1),
        lambda x: np.expand_dims(x, 1),
        lambda x: x[None].squeeze(),
        lambda x: x.T.reshape(-1),
        lambda x: x[::2].reshape(-1),
        lambda x: x[:2].reshape(-1),
        lambda x: x[:, 1:].ravel(),
        lambda x: x.T.T,
        lambda x: x.reshape(2, 2, 3).transpose(2, 0, 1),
        lambda x: x.reshape(-1, order="F"),
        lambda x: x.T.reshape(-1, order="F"),
        lambda x: x.flatten(),
        lambda x: x.T.ravel(),
        lambda x: x[1:][:, ::-1].T,
        lambda x: x[[0, 1]],
        lambda x: np.atleast_2d(x),
        lambda x: np.atleast_3d(x)[0],
        lambda x: np.atleast_1d(x, x)[1],
        lambda x: np.flip(x),
        lambda x: np.fliplr(x),
        lambda x: np.flipud(x),
    ],
)
def test_views_where_numpy_has_views_and_copies_where_it_copies(change: Callable[[Any], Any]) -> None:
    def f(x: Any, s: Any) -> Any:
        x = x * 1.0
        seen = change(x)
        seen[0] = s
        x[1, 1] = 2 * s
        return x, seen

    check(f, M, np.float64(0.5))

    def known(x: Any, s: Any) -> Any:
        buffer = np.zeros((3, 4))
        seen = change(buffer)
        seen[0] = 1.0
        seen[-1] = s
        return buffer * x, seen

    check(known, M, np.float64(0.5))


def test_flat_and_fill_diagonal() -> None:
    def f(x: Any, s: Any) -> Any:
        x = x * 1.0
        x.flat[3] = s
        x.T.flat[::5] = 2.0
        np.fill_diagonal(x, s * 3)
        q = np.zeros((3, 3))
        np.fill_diagonal(q, x[0, :3])
        tall = np.ones((7, 2))
        np.fill_diagonal(tall, s, wrap=True)
        return x, q, tall

    check(f, M, np.float64(0.5))


# ---------------------------------------------------------------------------------------------------- buffers


def test_filling_buffers() -> None:
    def f(x: Any, v: Any) -> Any:
        out = np.zeros((3, 4))
        for i in range(3):
            for j in range(4):
                out[i, j] = x[i, j] * v[j]
        rows = np.empty_like(x)
        for i in range(3):
            rows[i] = x[i] + out[i]
        some = np.ones(6)
        some[1] = v[0]
        some[4:] = v[:2]
        path = np.zeros(5)
        path[0] = v[0]
        for k in range(4):
            path[k + 1] = np.sin(path[k]) + path[k - 1]
        return out, rows, some, path

    check(f, M, V)


def test_filling_in_changing_grain() -> None:
    def f(x: Any) -> Any:
        out = np.full((3, 4), 2.0)
        out[1] = x[0]
        out[1, 2] = 5.0
        out[1, 2] += x[2, 2]
        first = out[1] * 2
        out[0, 0] = x[0, 0]
        middle = out[0, 0] + out[0, 1] + out[1, 1]
        out[2] = out[1] + out[0]
        out[1][3] = 11.0
        return out, first, middle, out.sum(axis=0)

    check(f, M)


def test_filling_is_linear_in_nodes() -> None:
    def f(v: Any, n: int) -> Any:
        path = np.zeros(n)
        path[0] = v[0]
        for k in range(n - 1):
            path[k + 1] = path[k] * 0.5 + v[1]
        return path

    counts = [len(record(lambda v, n=n: f(v, n), [V])[0]) for n in (100, 200)]
    assert counts[1] < 2.1 * counts[0]
    graph = record(lambda v: f(v, 50), [V])[0]
    assert [node.op.name for node in graph.nodes()].count("concatenate") == 1
    check(lambda v: f(v, 50), V)


def test_buffers_of_every_creation() -> None:
    def f(x: Any, s: Any) -> Any:
        made = [
            np.zeros(3),
            np.ones((3,)),
            np.full(3, 2.0),
            np.array([1.0, 2.0, 3.0]),
            np.zeros_like(np.ones(3)),
            np.arange(3.0),
            np.linspace(0, 1, 3),
            np.eye(3)[0],
            np.zeros(3) + 1,
            np.copy(np.ones(3)),
            np.zeros((2, 3)).sum(axis=0),
            np.asarray([1.0, 2.0, 3.0]),
            np.zeros(3, np.float32),
            np.zeros(3, int),
            np.zeros_like(x[0, :3]),
            np.empty(3),
            np.ones((3, 1)).reshape(3),
            np.concatenate([np.zeros(1), np.ones(2)]),
            np.array([1, 2, 3], dtype=float),
        ]
        for array in made:
            array[:2] = 4.0
            array[1] = s
            array[2] = 0
        return made

    check(f, M, np.float64(2.25))


def test_in_place_operators() -> None:
    def f(x: Any, y: Any, i: Any) -> Any:
        x = x * 1.0
        same = x
        x += y
        x -= 1
        x *= y
        x /= 2.5
        x **= 2
        x %= 3
        x //= 0.5
        j = i + 0
        j &= 3
        j |= 8
        j ^= 1
        j <<= 2
        j >>= 1
        total = 0.0
        total += x.sum()
        m = np.eye(3)
        m @= y[:, :3]
        z = np.zeros(3)
        z += 1
        z += y[:, 0]
        f32 = np.ones(4, np.float32)
        f32 += y[0]
        part = z[1:]
        part *= 2
        scalar = x[0, 0]
        kept = scalar
        scalar += 1
        return x, same, j, total, m, z, f32, part, scalar, kept

    check(f, M, N, OPERANDS["i"])
    for bad in (
        lambda i: i.__itruediv__(2),
        lambda i: i.__iadd__(0.5),
        lambda i: i.__iadd__(np.ones((2, 3, 4), int)),
    ):
        with pytest.raises((TypeError, ValueError)):
            bad(OPERANDS["i"].copy())
        with pytest.raises((TypeError, ValueError)):
            record(bad, [OPERANDS["i"]])


def test_out_arguments() -> None:
    def f(x: Any, y: Any) -> Any:
        out = np.empty((3, 4))
        np.add(x, y, out=out)
        np.multiply(out, 2, out=out)
        masked = np.zeros((3, 4))
        np.exp(x, out=masked, where=x > 0)
        np.maximum(masked, y, out=masked[:])
        np.copyto(out[0], y[1])
        np.copyto(out, 5.0, where=y > 1)
        np.putmask(out, x > 1, -1.0)
        quotient, rest = np.empty((3, 4)), np.empty((3, 4))
        np.divmod(x, 2, out=(quotient, rest))
        whole = np.zeros(3)
        whole.fill(x[0, 0])
        return out, masked, quotient, rest, whole

    check(f, M, N)
    outside = np.zeros((3, 4))
    with pytest.raises(TraceError, match="outside"):
        record(lambda x: np.add(x, 1, out=outside), [M])

    def in_place(x: Any) -> Any:
        nonlocal outside
        outside += x
        return outside

    with pytest.raises(TraceError, match="outside"):
        record(in_place, [M])


def test_gathering_writes() -> None:
    def f(x: Any, j: Any) -> Any:
        x = x * 1.0
        x[0, j] = 5.0
        x[:, j] += 1.0
        x[j % 3, j] = x[0]
        k = np.zeros(4)
        k[j] = x[1]
        k[j[0]] += 2
        return x, k

    check(f, M, OPERANDS["j"])


# ----------------------------------------------------------------------------------------------- known values


def test_known_arrays_stay_static() -> None:
    def f(x: Any) -> Any:
        order = np.argsort(np.array([3, 1, 2]))
        mask = np.array([True, False, True])
        mask[1] = True
        mask[0] = False
        sizes = np.array([2, 2])
        count = np.zeros(3, int)
        count[1] = 2
        assert int(count.sum()) == 2
        assert float(np.ones(1)[0]) == 1.0
        assert bool(np.all(count >= 0))
        assert [int(c) for c in count] == [0, 2, 0]
        assert count.tolist() == [0, 2, 0]
        assert count[1] == 2
        assert (count == np.array([0, 2, 0])).all()
        assert 2 in count
        assert len(count) == 3
        assert np.asarray(count).dtype == int
        assert (count * 2 + 1).max() == 5
        assert sum(1 for c in count if c > 0) == 1
        assert copy.deepcopy(count).sum() == 2
        assert pickle.loads(pickle.dumps(np.asarray(count))).sum() == 2
        assert "0, 2, 0" in repr(count)
        for _ in range(count[1]):
            x = x + 1
        upper = np.triu(np.ones((4, 4), bool))
        return x[order], x[mask], x.reshape((*sizes, 3)), np.tile(x, sizes), x[:, upper[1]], np.pad(x, sizes)

    check(f, M)


def test_arrays_from_outside_are_never_computed_with_while_tracing() -> None:
    """A buffer plus an outside array is recorded: the array is an input, read at each call."""
    outside = np.array([1.0, 2.0, 3.0])

    def f(s: Any) -> Any:
        total = np.zeros(3) + outside
        kept = np.array(outside)
        other = np.full(3, outside)
        buffer = np.zeros(3)
        buffer += outside
        buffer[0] = outside[0]
        return total * s, kept, other, buffer, np.copy(outside)

    graph, captured, _ = record(f, [np.float64(2.0)])
    assert captured == [outside] or captured[0] is outside
    assert len(graph.inputs) == 1 + len(captured)


def test_known_buffers_are_constants_and_uniform_ones_are_broadcasts() -> None:
    graph, captured, _ = record(lambda x: x * np.ones((3, 4)) + np.zeros((3, 4)), [M])
    assert not captured
    assert all(node.type.size == 1 for node in graph.nodes() if node.op.name == "const")
