"""Thresholds that follow from the machine, and records with other numbers."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest

from graphjit import limits
from graphjit.limits import Limits, host_limits, sensible_caches
from graphjit.machine import CACHES, RATES, machine

KB, MB = 1 << 10, 1 << 20


def limits_for(*caches: int) -> Limits:
    return Limits.of(replace(machine(), caches=caches))


def test_blocks_and_distances_follow_from_caches() -> None:
    limits = limits_for(32 * KB, MB, 32 * MB)
    assert limits.schedule.small_arena == 32 * KB
    assert (limits.recompute.far_bytes, limits.recompute.least_bytes) == (16 * MB, MB)
    sweeps = limits.sweeps
    assert (sweeps.block_bytes, sweeps.each_block_bytes) == (256 * KB, 512 * KB)
    assert (sweeps.shared_bytes, sweeps.thin_bytes, sweeps.partial_bytes) == (128 * KB, 128 * KB, 256 * KB)
    twice = limits_for(64 * KB, 2 * MB, 64 * MB)
    assert twice.sweeps.block_bytes == 2 * sweeps.block_bytes
    assert twice.recompute.far_bytes == 2 * limits.recompute.far_bytes


def test_weights_follow_from_rates() -> None:
    weights = Limits.of(replace(machine(), rates=RATES)).recompute
    assert (weights.far, weights.near, weights.store, weights.operation) == (5, 1, 2, 4)


@pytest.mark.parametrize(
    ("reported", "used"),
    [
        ((32 * KB, MB, 32 * MB), (32 * KB, MB, 32 * MB)),
        ((0, 0, 0), CACHES),
        ((48 * KB, 2 * MB, 0), (48 * KB, 2 * MB, CACHES[2])),
        ((32 * KB, 4 * MB, MB), (32 * KB, 4 * MB, 4 * MB)),
        ((64 * KB, 32 * KB, 16 * KB), (64 * KB, CACHES[1], CACHES[1])),
        ((128 * KB, 64 * KB, 16 * KB), (128 * KB, 128 * KB, 128 * KB)),
        ((32 * KB, 16 * MB, 32 * MB), (32 * KB, 4 * MB, 32 * MB)),
        ((-1, MB, 32 * MB), (CACHES[0], MB, 32 * MB)),
    ],
)
def test_nonsense_of_virtual_machines(reported: tuple[int, int, int], used: tuple[int, int, int]) -> None:
    assert sensible_caches(replace(machine(), caches=reported)) == used


def test_records_are_changed_by_section() -> None:
    limits = host_limits()
    other = limits.changed(fusion={"tiny": 0}, sweeps={"tasks": 3})
    assert (other.fusion.tiny, other.sweeps.tasks) == (0, 3)
    assert other.recompute is limits.recompute
    assert limits is host_limits()
    assert limits.fusion.tiny > 0
    with pytest.raises(TypeError, match="tinny"):
        limits.changed(fusion={"tinny": 0})


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        host_limits().vectors.min_lanes = 3  # type: ignore[misc]


def test_every_limit_is_explained() -> None:
    text = inspect.getsource(limits)
    for section in Limits._fields:
        record = getattr(host_limits(), section)
        assert type(record).__doc__
        for name in record._fields:
            at = text.index(f"    {name}: ", text.index(f"class {type(record).__name__}("))
            following = text[at:].split("\n", 2)[1].strip()
            assert following.startswith('"""'), (section, name)
