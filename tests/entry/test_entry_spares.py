"""Small results are handed out again when nobody holds them, and only if they are what they were."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from entry_harness import F64, function, program

from graphjit.backend.llvm.entry import callable as native
from graphjit.backend.llvm.entry.specialise import SPARE_BYTES, SPARES_BYTES
from graphjit.backend.signature import ArrayIn, ArrayOut, ScalarIn, ScalarOut, Tuple

SHAPE = (2, 4)


@pytest.fixture
def copy():
    return function([ArrayIn(F64, SHAPE)], ArrayOut(F64, SHAPE, 0), program(1, 64))


def given(number: float) -> np.ndarray:
    return np.full(SHAPE, float(number))


def spares(fn) -> set[int]:
    """Identities of the two arrays."""
    first = fn(given(0))
    second = fn(given(0))
    return {id(first), id(second)}


def test_results_alternate_while_one_is_held(copy):
    own = spares(copy)
    result = copy(given(0))
    for number in range(1, 7):
        last, result = result, copy(given(number))
        assert id(result) in own
        assert result is not last
        np.testing.assert_array_equal(last, given(number - 1))
        del last
    np.testing.assert_array_equal(result, given(6))


def test_results_that_are_kept_stay_apart(copy):
    kept = [copy(given(number)) for number in range(9)]
    views = [copy(given(number))[1, 1:] for number in range(9, 18)]
    buffers = [memoryview(copy(given(number))) for number in range(18, 27)]
    for number, result in enumerate([*kept, *views, *map(np.asarray, buffers)]):
        assert (result == number).all()
    assert len({array.ctypes.data for array in kept}) == 9


@pytest.mark.parametrize(
    "change",
    [
        lambda array: setattr(array, "shape", (4, 2)),
        lambda array: setattr(array, "shape", (8,)),
        lambda array: array.view(np.int64).fill(-1) or setattr(array.flags, "writeable", False),
        lambda array: array.resize((4, 4), refcheck=False),
        lambda array: array.resize((1, 2), refcheck=False),
    ],
    ids=["transposed", "flat", "constant", "grown", "shrunk"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_changed_arrays_are_not_handed_out(copy, change):
    own = spares(copy)
    for _ in range(4):
        change(copy(given(3)))
    for number in range(4):
        result = copy(given(number))
        assert id(result) not in own or (
            result.shape == SHAPE and result.flags.writeable and result.flags.owndata
        )
        assert result.shape == SHAPE
        assert result.flags.writeable
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, given(number))


def test_an_array_with_a_weak_reference_is_not_handed_out(copy):
    result = copy(given(1))
    reference = weakref.ref(result)
    del result
    others = [copy(given(2)) for _ in range(3)]
    found = reference()
    assert found is not None
    assert all(found is not other for other in others)
    np.testing.assert_array_equal(found, given(1))


@pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")  # of NumPy 2.5
def test_the_dtype_of_a_changed_array_is_noticed(copy):
    own = spares(copy)
    held = [copy(given(0)) for _ in range(2)]
    assert {id(array) for array in held} == own
    for array in held:
        array.dtype = np.int64
    del held, array
    result = copy(given(5))
    assert result.dtype == F64
    np.testing.assert_array_equal(result, given(5))


def test_scalars_that_are_kept_stay_what_they_were():
    fn = function([ScalarIn(F64, True)], ScalarOut(F64, 0), program(1, 8))
    kept = [fn(float(number)) for number in range(9)]
    assert kept == list(range(9))
    assert len({id(number) for number in kept}) == 9
    assert {type(number) for number in kept} == {np.float64}
    del kept
    gc.collect()
    seen = set()
    for number in range(9):
        result = fn(float(number))
        assert result == number
        seen.add(id(result))
    assert len(seen) == 2


def test_what_is_kept_is_bounded():
    most = SPARES_BYTES // (2 * SPARE_BYTES)
    sizes = [SPARE_BYTES + 8, *[SPARE_BYTES] * (most + 3)]
    fn = function([], Tuple(tuple(ArrayOut(F64, (size // 8,), i) for i, size in enumerate(sizes))))
    (specialisation,) = native.specialisations(fn)
    kept = [array for each in specialisation._kept if isinstance(each, list) for array in each]
    assert len(kept) == 2 * most
    assert {array.nbytes for array in kept} == {SPARE_BYTES}


def test_results_that_are_handed_out_again_are_not_resized_in_place(copy):
    result = copy(given(1))
    with pytest.raises(ValueError, match="refcheck"):
        result.resize((4, 4))
    result.resize((4, 4), refcheck=False)
    assert result.shape == (4, 4)


def test_an_array_goes_on_living_after_its_function(copy):
    result = copy(given(7))
    fn = function([ArrayIn(F64, SHAPE)], ArrayOut(F64, SHAPE, 0), program(1, 64))
    other = fn(given(8))
    del fn
    gc.collect()
    np.testing.assert_array_equal(other, given(8))
    np.testing.assert_array_equal(result, given(7))
