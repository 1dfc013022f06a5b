"""Reading with every kind of index against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from expressions.values import INDEXING
from numpy_harness import OPERANDS, check, check_expression, function_of, record, run, same

import graphjit
from graphjit.errors import TraceError


@pytest.mark.parametrize("expression", INDEXING)
def test_expression(expression: str) -> None:
    check_expression(expression)


def test_every_combination_of_three_kinds() -> None:
    """1 000 keys on a 4-d array: placement rules of integers, slices, new axes, lists and ellipses in every
    order.
    """
    x = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    parts = [0, slice(None), slice(None, None, -1), None, [0, 1], Ellipsis, [[1], [0]], -1, [True, False]]
    keys = []
    for key in itertools.product(parts, repeat=3):
        try:
            keys.append((key, x[key]))
        except IndexError:
            with pytest.raises(IndexError):
                record(lambda a, key=key: a[key], [x])
    assert len(keys) > 350
    found = run(lambda a: [a[key] for key, _ in keys], x)
    for value, (key, wanted) in zip(found, keys, strict=True):
        assert value.shape == wanted.shape, key
        np.testing.assert_array_equal(value, wanted, err_msg=str(key))


def test_traced_scalar_index() -> None:
    m = OPERANDS["m"]
    for index in (0, 2, -1):
        same(run(lambda x, k: x[k], m, np.int64(index))[0], m[index], exact=True)
        same(run(lambda x, k: x[1, k], m, np.int64(index))[0], m[1, index], exact=True)
        same(run(lambda x, k: x[:, k], m, np.int32(index))[0], m[:, index], exact=True)
        same(run(lambda x, k: x[k, [0, 1]], m, np.int64(index))[0], m[index, [0, 1]], exact=True)


@pytest.mark.parametrize(
    "expression",
    [
        "v[9]",
        "v[-5]",
        "m[0, 4]",
        "m[[0, 3]]",
        "m[:, [-5]]",
        "m[0, 0, 0]",
        "m[..., ...]",
        "m[1.5]",
        "m['a']",
        "m[[1.5]]",
        "m[[True, False]]",
        "m[[0, 1], [0, 1, 2]]",
        "s[0]",
        "m[m]",
        "np.take(m, [5], axis=0)",
    ],
)
def test_errors_are_numpys(expression: str) -> None:
    function, names = function_of(expression)
    arrays = [OPERANDS[name] for name in names]
    with pytest.raises(IndexError):
        function(*arrays)
    with pytest.raises(IndexError):
        record(function, arrays)


def test_masks_must_be_known() -> None:
    m = OPERANDS["m"]
    with pytest.raises(TraceError, match=r"traced mask.*\n?.*np\.where"):
        record(lambda x: x[x > 0], [m])
    large = np.zeros(100_000, bool)
    with pytest.raises(TraceError, match=r"indexing with a mask.*100000 bytes.*flags\.writeable = False"):
        graphjit.jit(lambda x: x[large])(np.zeros(100_000))
    writable = m > 0
    picked = graphjit.jit(lambda x: x[writable])
    assert picked(m).tolist() == m[writable].tolist()
    writable[:] = ~writable
    assert picked(m).tolist() == m[writable].tolist()  # other contents: another trace
    frozen = writable.copy()
    frozen.flags.writeable = False
    check(lambda x: x[frozen], m)
    check(lambda x: x[frozen[:, 0].tolist()], m)


def test_slice_bounds_must_be_known() -> None:
    with pytest.raises(TraceError, match="slice bound"):
        record(lambda x, k: x[:k], [OPERANDS["v"], np.array(2)])


def test_outside_index_arrays_are_read_at_each_call() -> None:
    """A writable index array from outside is an input by reference, not a baked constant."""
    index = np.array([0, 1])
    graph, captured, _ = record(lambda x: x[index], [OPERANDS["v"]])
    assert len(captured) == 1
    assert captured[0] is index
    assert len(graph.inputs) == 2
    with pytest.raises(IndexError):
        record(lambda x: x[np.array([7])], [OPERANDS["v"]])


def test_views_are_not_gathers() -> None:
    """Basic indexing is slices, flips and reshapes; constant index lists are one gather."""
    graph, _, _ = record(lambda x: x[1, ::-1, None, 2:], [OPERANDS["t"]])
    assert {node.op.name for node in graph.nodes()} <= {"input", "slice", "flip", "reshape"}
    graph, _, _ = record(lambda x: x[:, [0, 2]], [OPERANDS["t"]])
    assert [node.op.name for node in graph.nodes()].count("gather") == 1


def _stored(key, value):
    def f(x):
        x = x * 1
        x[key] = value
        return x

    return f


NONE = np.zeros((0, 1), int)
MASK = np.array([True, False, True])
ROWS, LINE = np.zeros((3, 2)), np.zeros(3)
EDGES = {
    "out of range beside an empty index array": (lambda x: x[:, NONE, np.array([7])], np.zeros((1, 4, 3))),
    "out of range beside an empty mask": (
        lambda x: x[np.array([False]), ..., np.array([[1], [3]])],
        np.zeros((1, 4, 3)),
    ),
    "integer out of range beside an empty index array": (lambda x: x[:, NONE, 7], np.zeros((1, 4, 3))),
    "out of range where nothing is picked": (lambda x: x[[5]], np.zeros((3, 0))),
    "mask with a matrix": (_stored(MASK, np.ones((1, 1))), LINE),
    "mask with a matrix of two": (_stored((MASK,), np.ones((1, 2))), LINE),
    "list as a mask": (_stored([True, False, True], np.ones((1, 2))), LINE),
    "mask of everything": (_stored(np.ones((3, 2), bool), np.ones((1, 6))), ROWS),
    "mask of rows": (_stored(MASK, np.ones((1, 2))), ROWS),
    "mask of rows with one more axis": (_stored(MASK, np.ones((1, 1, 2))), ROWS),
    "one value for each True": (_stored(MASK, np.array([1.0, 2.0])), LINE),
    "one row for each True": (_stored(MASK, np.arange(4.0).reshape(2, 2)), ROWS),
    "values for other numbers of True": (_stored(MASK, np.arange(3.0)), LINE),
    "nothing written with leading axes": (_stored((MASK, -1), np.zeros((3, 2, 0))), np.zeros((3, 2, 0))),
    "something written to nothing with leading axes": (
        _stored((NONE[:, 0], slice(None)), np.zeros((4, 1, 2))),
        ROWS,
    ),
    "added at a mask": (lambda x: np.add.at(x * 1, MASK, np.ones((1, 2))), LINE),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_of_masks_and_empty_indices(name):
    """Captured masks, too, take one value for each True: their values are read, and guarded, while
    tracing.
    """
    function, x = EDGES[name]
    try:
        expected = function(x.copy())
    except Exception as error:
        with pytest.raises(type(error)):
            graphjit.jit(function)(x.copy())
    else:
        np.testing.assert_array_equal(graphjit.jit(function)(x.copy()), expected)


def test_a_captured_mask_that_is_written_with_its_values_is_not_stale():
    mask = np.array([True, False, True])
    compiled = graphjit.jit(_stored(mask, np.array([1.0, 2.0])))
    assert compiled(np.zeros(3)).tolist() == [1, 0, 2]
    mask[:] = [False, True, True]
    assert compiled(np.zeros(3)).tolist() == [0, 1, 2]
