"""Donated arguments of one call: which arrays may become results.

Job: decide from the arrays themselves what the schedule could not know: whether they own writable memory and
whether that memory is anybody else's too.
Input: the pairs (result, argument) of a program and the arrays of a call. Output: the results that need no
memory of their own.
Invariant: the same decisions as the native entry makes (`backend.llvm.donation`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from graphjit.ir.types import Type


def results_in_place(
    in_place: Mapping[int, int], given: Sequence[Any], arrays: Sequence[np.ndarray]
) -> dict[int, np.ndarray]:
    """Result number -> the caller's array that it is written into.

    ``arrays`` are what the program reads: ``given`` (or a copy, where one had to be made), then captured
    arrays.
    """
    if not in_place or not apart(arrays, set(in_place.values())):
        return {}
    return {
        out: given[k]
        for out, k in in_place.items()
        if _address(given[k]) == _address(arrays[k]) and _owns_memory(given[k])
    }


def allocate(outputs: Sequence[Type], into: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    """An array for every output of a program: the one in ``into``, or a fresh one."""
    return [into[i] if i in into else np.empty(type.shape, type.dtype) for i, type in enumerate(outputs)]


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _owns_memory(array: np.ndarray) -> bool:
    return array.flags.owndata and array.flags.writeable


def apart(arrays: Sequence[np.ndarray], donated: Collection[int]) -> bool:
    """Whether the memory of each donated array is touched by no other array; all are contiguous."""
    ranges = sorted((_address(a), a.nbytes, k in donated) for k, a in enumerate(arrays) if a.nbytes)
    reach = reach_donated = 0
    for start, nbytes, given_up in ranges:
        if start < (reach if given_up else reach_donated):
            return False
        reach = max(reach, start + nbytes)
        if given_up:
            reach_donated = max(reach_donated, start + nbytes)
    return True
