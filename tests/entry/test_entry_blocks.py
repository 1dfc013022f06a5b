"""Memory of large results is used again, and never by two arrays at once."""

from __future__ import annotations

import ctypes
import sys
import threading

import numpy as np
import pytest
from entry_harness import F64, function

from graphjit.backend.llvm.entry import callable as native
from graphjit.backend.llvm.entry import cpython
from graphjit.backend.llvm.entry import large_results as module
from graphjit.backend.signature import ArrayOut, Tuple

handler_name = np._core.multiarray.get_handler_name
SMALLEST = module.SMALLEST


@pytest.fixture
def blocks():
    native.blocks().set_limit(0)
    native.blocks().set_limit(module.LIMIT)
    yield native.blocks()
    native.blocks().set_limit(0)
    native.blocks().set_limit(module.LIMIT)


def maker(*nbytes):
    return function([], Tuple(tuple(ArrayOut(F64, (n // 8,), i) for i, n in enumerate(nbytes))))


def test_large_results_use_memory_again(blocks):
    fn = maker(SMALLEST, SMALLEST - 8)
    large, small = fn()
    assert (handler_name(large), handler_name(small)) == ("graphjit", "default_allocator")
    assert large.flags.owndata
    assert large.flags.writeable
    assert large.ctypes.data % 64 == 0
    address = large.ctypes.data
    del large, small
    assert blocks.held == (1, SMALLEST)
    again = fn()[0]
    assert again.ctypes.data == address
    assert blocks.held == (0, 0)
    assert fn()[0].ctypes.data != address
    assert handler_name(np.empty(SMALLEST)) == "default_allocator"


def test_only_equal_sizes_are_used_again(blocks):
    a, b = maker(SMALLEST), maker(SMALLEST + 8)
    address = a()[0].ctypes.data
    assert b()[0].ctypes.data != address
    assert blocks.held == (2, 2 * SMALLEST + 8)
    assert a()[0].ctypes.data == address


def test_views_and_references_keep_memory(blocks):
    fn = maker(SMALLEST)
    view = fn()[0][1:3]
    view[:] = 5
    other = fn()[0]
    other[:] = 6
    assert blocks.held == (0, 0)
    assert list(view) == [5, 5]
    exported = memoryview(other)
    del other, view
    assert blocks.held == (1, SMALLEST)
    assert exported[0] == 6


def test_limit_drops_the_oldest_first(blocks):
    fn = maker(SMALLEST, SMALLEST + 8, SMALLEST + 16)
    blocks.set_limit(2 * SMALLEST + 24)
    arrays = list(fn())
    while arrays:
        del arrays[0]
    assert blocks.held == (2, 2 * SMALLEST + 24)
    kept = fn()
    assert blocks.held == (0, 0)
    del kept
    blocks.set_limit(SMALLEST + 16)
    assert blocks.held[0] == 1
    blocks.set_limit(SMALLEST - 1)
    fn()
    assert blocks.held == (0, 0)


def test_the_number_of_blocks_is_bounded(blocks):
    many = maker(*[SMALLEST] * 200)
    results = many()
    assert len({array.ctypes.data for array in results}) == 200
    del results
    count, total = blocks.held
    assert total == count * SMALLEST
    assert 0 < count < 200
    assert len({array.ctypes.data for array in many()}) == 200


def test_results_may_be_resized(blocks):
    fn = maker(SMALLEST)
    array = fn()[0]
    array[:] = np.arange(SMALLEST // 8)
    array.resize(2 * array.size, refcheck=False)
    np.testing.assert_array_equal(array[: SMALLEST // 8], np.arange(SMALLEST // 8))
    assert not array[SMALLEST // 8 :].any()
    del array
    assert blocks.held == (1, 2 * SMALLEST)
    array = fn()[0]
    array.resize(4, refcheck=False)
    del array
    assert blocks.held == (1, 2 * SMALLEST)


def test_failure_restores_the_policy_and_keeps_nothing(blocks):
    fn = maker(SMALLEST, 1 << 50)
    before = sys.getrefcount(blocks.policy)
    for _ in range(100):
        with pytest.raises(MemoryError):
            fn()
    after = sys.getrefcount(blocks.policy)
    assert after == before
    assert blocks.held == (1, SMALLEST)
    assert handler_name(np.empty(SMALLEST)) == "default_allocator"


def test_a_policy_that_the_user_chose_stands(blocks):
    names = ("malloc", "calloc", "realloc", "free")
    handler = module._Handler(b"user", 1, None, *(getattr(blocks._handler, name) for name in names))
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
        ("PyCapsule_New", ctypes.pythonapi)
    )
    capsule = make(ctypes.addressof(handler), blocks._name, None)
    swap = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(cpython.numpy_api()[304])
    fn = maker(SMALLEST)
    before = swap(capsule)
    try:
        result = fn()[0]
        assert handler_name(result) == "user"
        assert handler_name(np.empty(3)) == "user"
        del result
    finally:
        swap(before)
    assert handler_name(fn()[0]) == "graphjit"


def test_threads_never_share_a_block(blocks):
    fn, failures = maker(SMALLEST, SMALLEST, SMALLEST + 8), []

    def work(number):
        for i in range(300):
            results = fn()
            for array in results:
                array[:] = number
            kept = results[i % 3]
            del results
            if not (kept == number).all():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
