"""`graphjit.data.batches`: every row once an epoch, in an order of its own; what is a view."""

from __future__ import annotations

import numpy as np
import pytest

from graphjit import data

X = np.arange(22.0).reshape(11, 2)
Y = np.arange(11)


def epoch(loader):
    return [batch["y"].tolist() for batch in loader]


def rows_of(batches):
    return [row for batch in batches for row in batch]


def test_every_row_once_in_each_epoch_and_together():
    loader = data.batches({"x": X, "y": Y, "none": None}, 4, seed=3)
    seen = []
    for _ in range(3):
        sizes = []
        for batch in loader:
            np.testing.assert_array_equal(batch["x"], X[batch["y"]])
            assert batch["none"] is None
            sizes.append(len(batch["y"]))
        assert sizes == [4, 4, 3]
        seen.append(rows_of(epoch(loader)))
        assert sorted(seen[-1]) == Y.tolist()
    assert seen[0] != seen[1] != seen[2]


def test_orders_depend_on_seed_and_epoch_alone():
    first = [epoch(loader) for loader in [data.batches({"y": Y}, 4, 5)] for _ in range(3)]
    later = data.batches({"y": Y}, 4, 5)
    later.epoch = 2
    assert epoch(later) == first[2]
    assert later.epoch == 3
    assert epoch(data.batches({"y": Y}, 4, 6)) != first[0]
    rows = np.random.default_rng([5, 0]).permutation(11)
    assert rows_of(first[0]) == rows.tolist()


def test_epochs_side_by_side_do_not_share_an_order():
    loader = data.batches({"y": Y}, 11, 0)
    pairs = list(zip(loader, loader, strict=True))
    assert len(pairs) == 1
    assert pairs[0][0]["y"].tolist() != pairs[0][1]["y"].tolist()


@pytest.mark.parametrize("size", [1, 3, 4, 11, 20])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("seed", [None, 0])
def test_length_is_the_number_of_batches(size, drop_last, seed):
    loader = data.batches((X, Y), size, seed, drop_last)
    found = list(loader)
    assert len(found) == len(loader) == (11 // size if drop_last else -(-11 // size))
    assert all(len(y) == size for _, y in found[: -1 if not drop_last else None])


def test_without_a_seed_batches_are_views_in_order():
    loader = data.batches((X, Y), 4)
    assert [y.tolist() for _, y in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert all(np.shares_memory(x, X) and x.flags.c_contiguous for x, _ in loader)


def test_with_a_seed_batches_are_arrays_of_their_own():
    before = X.copy()
    found = list(data.batches((X, Y), 4, 0))
    for x, _ in found:
        assert x.flags.owndata
        assert x.flags.c_contiguous
        x[:] = -1.0
    np.testing.assert_array_equal(X, before)


def test_files_mapped_into_memory_stay_there(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert all(isinstance(x, np.memmap) for (x,) in data.batches((mapped,), 4))
    assert sum(x.sum() for (x,) in data.batches((mapped,), 4, 0)) == X.sum()


def test_errors():
    with pytest.raises(ValueError, match=r"arrays\['x'\] has 11, arrays\['y'\] has 10"):
        data.batches({"x": X, "y": Y[:10]}, 4)
    with pytest.raises(ValueError, match=r"arrays\[1\] is a single number"):
        data.batches((X, 3.0), 4)
    with pytest.raises(ValueError, match="size must be at least 1, not 0"):
        data.batches(X, 0)
    with pytest.raises(ValueError, match="seed must not be negative, not -1"):
        data.batches(X, 4, seed=-1)
    with pytest.raises(ValueError, match="there is none"):
        data.batches((None,), 4)
