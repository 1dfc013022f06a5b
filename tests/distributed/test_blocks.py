"""Where rows are cut, in which order blocks are summed, and what a flat buffer holds."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from processes.model import arguments, digest

import graphjit
from graphjit.distributed.blocks import bounds, fold
from graphjit.distributed.flat import packed, summed
from graphjit.trace.pytree import flatten


def test_blocks_cover_all_rows_in_two_shapes() -> None:
    for rows in range(1, 40):
        for blocks in range(1, 12):
            cuts = bounds(rows, blocks)
            assert [row for start, stop in cuts for row in range(start, stop)] == list(range(rows))
            assert len(cuts) == min(rows, blocks)
            sizes = [stop - start for start, stop in cuts]
            assert max(sizes) - min(sizes) <= 1
    assert bounds(0, 3) == []


def test_the_tree_is_binary_and_in_order() -> None:
    def text(count: int) -> str:
        return fold(count, str, lambda left, right: f"({left}{right})")

    assert [text(n) for n in range(1, 6)] == ["0", "(01)", "((01)2)", "((01)(23))", "(((01)(23))4)"]
    assert text(8) == "(((01)(23))((45)(67)))"


def test_a_buffer_holds_everything_of_a_result() -> None:
    result = (np.float32(1.5), arguments(3), None, "text", np.array(2.0), np.zeros((0, 3)), 1j * np.ones(2))
    flat = packed(result, 1.0, "mean")
    assert digest(flat.tree()) == digest(result)
    assert digest(pickle.loads(pickle.dumps(flat)).tree()) == digest(result)
    assert len(flat.layout.stretches) == 3
    assert flat.__sizeof__() >= sum(
        np.asarray(leaf).nbytes for leaf in flatten(result)[0] if leaf is not None
    )


@pytest.mark.parametrize("in_place", [False, True])
def test_sums_are_those_of_the_arrays(in_place: bool) -> None:
    left, right = (packed((np.float32(w), {"a": np.arange(3.0)}), w, "mean") for w in (0.25, 0.5))
    before = left.data.copy()
    value, rest = summed(left, right, in_place).tree()
    assert value == np.float32(0.25 * 0.25 + 0.5 * 0.5)
    assert type(value) is np.float32
    np.testing.assert_array_equal(rest["a"], 0.75 * np.arange(3.0))
    assert np.array_equal(left.data, before) is not in_place


def test_unlike_results_are_not_summed() -> None:
    with pytest.raises(graphjit.ShapeError, match="number of rows"):
        summed(packed(np.ones(2), 1.0, "mean"), packed(np.ones(3), 1.0, "mean"))
