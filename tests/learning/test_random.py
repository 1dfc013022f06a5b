"""`graphjit.random`: NumPy's bits, distributions, the same numbers however they are computed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import graphjit
from graphjit import random
from graphjit.random.philox import philox, product

KEYS = [random.key(0), random.key(123456789), random.key(2**100 + 17), random.key(-1)]


def both(function):
    """What a function of a key returns untraced and compiled, which must be the same."""
    plain, compiled = function(KEYS[1]), graphjit.jit(function)(KEYS[1])
    assert np.asarray(plain).dtype == np.asarray(compiled).dtype
    np.testing.assert_allclose(compiled, plain, rtol=2e-6 if plain.dtype == np.float32 else 1e-13, atol=1e-15)
    return plain


# ------------------------------------------------------------------------------------------------------ bits


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000, 4099])
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_bits_are_those_of_numpys_philox(key, size):
    want = np.random.Philox(key=key).random_raw(size)
    np.testing.assert_array_equal(random.bits(key, (size,)), want)
    np.testing.assert_array_equal(graphjit.jit(lambda key: random.bits(key, (size,)))(key), want)


@pytest.mark.parametrize("start", [0, 1, 2**63 + 5, 2**64 - 2])
def test_a_counter_is_numpys_after_its_first_step(start):
    before = np.array([start, 0, 0, 9], np.uint64)
    want = np.random.Philox(key=KEYS[1], counter=before).random_raw(4)
    np.testing.assert_array_equal(np.concatenate(philox(KEYS[1], before[:1] + 1, 9)), want)


def test_high_words_of_products():
    rng = np.random.default_rng(0)
    edges = np.array([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1], np.uint64)
    numbers = np.concatenate([edges, rng.integers(0, 2**64, 50, dtype=np.uint64, endpoint=False)])
    for a in numbers:
        high, low = product(numbers, a)
        want = [int(a) * int(b) for b in numbers]
        assert [(int(h) << 64) + int(w) for h, w in zip(high, low, strict=True)] == want


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_smaller_numbers_are_parts_of_words(bits):
    got = both(lambda key: random.bits(key, (7, 33), f"uint{bits}"))
    want = np.random.Philox(key=KEYS[1]).random_raw(7 * 33).astype("<u8").view(f"<u{bits // 8}")
    np.testing.assert_array_equal(got, want[: 7 * 33].reshape(7, 33))


def test_uniform_is_numpys_generator():
    for dtype in (np.float64, np.float32):
        got = both(lambda key: random.uniform(key, (5, 41), dtype))  # noqa: B023
        want = np.random.Generator(np.random.Philox(key=KEYS[1])).random((5, 41), dtype)
        np.testing.assert_array_equal(got, want)


# ------------------------------------------------------------------------------------------------------ keys


def test_seeds_make_keys():
    assert random.key(5).tolist() == [5, 0]
    assert random.key(2**64 + 5).tolist() == [5, 1]
    assert random.key(-1).tolist() == [2**64 - 1] * 2
    traced = graphjit.jit(random.key)
    for seed in (5, -1, -7, 2**40):
        np.testing.assert_array_equal(traced(seed), random.key(seed))
        np.testing.assert_array_equal(random.key(np.int64(seed)), random.key(seed))
    np.testing.assert_array_equal(random.key(np.uint64(2**64 - 1)), [2**64 - 1, 0])


def test_keys_differ_from_each_other_and_from_numbers():
    key = random.key(3)
    parts = [random.split(key, 100), np.stack([random.fold_in(key, i) for i in range(-50, 50)])]
    parts.append(random.bits(key, (100, 2)))
    words = np.concatenate(parts).ravel()
    assert len(set(words.tolist())) == len(words)
    np.testing.assert_array_equal(random.split(key, 3)[:2], random.split(key))
    np.testing.assert_array_equal(random.split(key, (2, 3)).reshape(6, 2), random.split(key, 6))


def test_keys_are_made_in_compiled_code():
    @graphjit.jit
    def made(key, i):
        return random.split(key, 5), random.fold_in(key, i)

    for i in (0, 3, -4):
        split, folded = made(KEYS[1], i)
        np.testing.assert_array_equal(split, random.split(KEYS[1], 5))
        np.testing.assert_array_equal(folded, random.fold_in(KEYS[1], i))


# ---------------------------------------------------------------------------------- however they are computed


DRAWS = {
    "bits": lambda key: random.bits(key, (6, 7)),
    "uniform": lambda key: random.uniform(key, (6, 7), minval=-2.0, maxval=3.0),
    "normal": lambda key: random.normal(key, (6, 7)),
    "normal_single": lambda key: random.normal(key, (6, 7), np.float32),
    "one": lambda key: random.normal(key),
    "bernoulli": lambda key: random.bernoulli(key, np.linspace(0.0, 1.0, 7), (6, 7)),
    "categorical": lambda key: random.categorical(key, np.arange(12.0).reshape(3, 4), axis=0),
    "randint": lambda key: random.randint(key, (6, 7), -5, np.arange(7), np.int32),
}


@pytest.mark.parametrize("name", DRAWS)
def test_traced_untraced_and_mapped(name):
    draw = DRAWS[name]
    both(draw)
    keys = random.split(KEYS[0], 9)
    want = np.stack([draw(key) for key in keys])
    np.testing.assert_allclose(graphjit.vmap(draw)(keys), want, rtol=2e-6 if want.dtype == "f" else 1e-13)


def test_the_same_numbers_on_any_number_of_threads():
    before = graphjit.get_num_threads()
    drawn = []
    try:
        for threads in (1, 2, 3):
            graphjit.set_num_threads(threads)
            drawn.append(graphjit.jit(lambda key: random.normal(key, (1 << 18,)))(KEYS[1]))
    finally:
        graphjit.set_num_threads(before)
    for other in drawn[1:]:
        np.testing.assert_array_equal(drawn[0], other)


def test_numbers_are_stored_once_and_nothing_is_compiled_in():
    lowered = graphjit.jit(lambda key: random.normal(key, (1000, 1000))).lower(KEYS[0])
    memory = lowered.memory()
    assert memory.results == 8_000_000
    assert memory.constants == 0
    assert memory.arena < 1000
    assert lowered.cost().total.nbytes < 8_010_000


def test_a_mask_in_a_step_has_a_byte_an_element():
    def dropped(key, x):
        return np.where(random.bernoulli(key, 0.5, x.shape), 2.0 * x, 0.0)

    x = np.ones((1000, 400))
    assert graphjit.jit(dropped).lower(KEYS[0], x).memory().arena <= 410_000
    assert graphjit.grad(lambda x: np.sum(dropped(KEYS[0], x)))(x).mean() == pytest.approx(1.0, abs=0.01)


# --------------------------------------------------------------------------------------------- distributions


def test_uniform_is_uniform():
    for dtype, grid in ((np.float64, 2.0**53), (np.float32, 2.0**24)):
        drawn = random.uniform(random.key(1), (200_000,), dtype)
        assert stats.kstest(drawn.astype(np.float64), "uniform").pvalue > 0.01
        assert np.all((drawn >= 0) & (drawn < 1))
        np.testing.assert_array_equal(drawn * grid % 1, 0.0)
    drawn = random.uniform(
        random.key(2), (10_000,), np.float32, minval=np.float64(2.0), maxval=np.arange(10_000) + 3
    )
    assert drawn.dtype == np.float32
    assert stats.kstest((drawn - 2) / (np.arange(10_000) + 1), "uniform").pvalue > 0.01


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_normal_is_normal(dtype):
    drawn = random.normal(random.key(1), (400_000,), dtype)
    assert drawn.dtype == dtype
    assert stats.kstest(drawn.astype(np.float64), "norm").pvalue > 0.01
    for bound in (2.0, 3.0, 4.0):  # both tails, with their counts' own deviations
        for tail in (drawn, -drawn):
            expected = len(drawn) * stats.norm.sf(bound)
            assert abs(np.sum(tail > bound) - expected) < 4 * np.sqrt(expected)
    assert abs(np.corrcoef(drawn[::2], drawn[1::2])[0, 1]) < 4 / np.sqrt(len(drawn) / 2)


def test_neighbouring_keys_are_independent():
    drawn = random.normal(random.key(0), (20_000,)), random.normal(random.key(1), (20_000,))
    assert abs(np.corrcoef(*drawn)[0, 1]) < 4 / np.sqrt(20_000)


def test_bytes_are_even():
    drawn = random.bits(random.key(4), (100_000,), np.uint8)
    assert stats.chisquare(np.bincount(drawn, minlength=256)).pvalue > 0.01


def test_bernoulli_has_its_probability():
    for p in (0.0, 0.25, np.float32(0.9), 1.0):
        drawn = random.bernoulli(random.key(5), p, (100_000,))
        assert drawn.dtype == bool
        spread = 4 * np.sqrt(100_000 * p * (1 - p))
        assert abs(drawn.sum() - 100_000 * p) <= spread + 0.01
    assert random.bernoulli(random.key(5), np.array([0.0, 1.0])).tolist() == [False, True]


def test_categorical_has_its_probabilities():
    logits = np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])) + 3.0
    drawn = random.categorical(random.key(6), logits, shape=(50_000, 2))
    assert drawn.shape == (50_000, 2)
    for column, row in zip(drawn.T, np.exp(logits - 3.0), strict=True):
        assert stats.chisquare(np.bincount(column), 50_000 * row).pvalue > 0.01
    assert np.all(random.categorical(random.key(6), np.array([-np.inf, 0.0]), shape=(100,)) == 1)
    assert random.categorical(random.key(6), logits.T, axis=0).shape == (2,)


def test_randint_is_even():
    drawn = random.randint(random.key(8), (60_000,), -3, 4, np.int8)
    assert drawn.dtype == np.int8
    assert stats.chisquare(np.bincount(drawn + 3, minlength=7)).pvalue > 0.01
    wide = random.randint(random.key(8), (10_000,), -(2**63), 2**63 - 1)
    assert stats.kstest(wide / 2.0**64 + 0.5, "uniform").pvalue > 0.01
    assert random.randint(random.key(8), (3,), 5, 5).tolist() == [5, 5, 5]
    assert random.randint(random.key(8), (100,), 0, 256, np.uint8).max() > 200


# ---------------------------------------------------------------------------------------------------- errors


def test_errors_name_the_function():
    with pytest.raises(TypeError, match=r"random\.normal takes one key.*not uint64\[3, 2\].*vmap"):
        random.normal(random.split(random.key(0), 3))
    with pytest.raises(TypeError, match=r"random\.bits takes one key.*not 7"):
        random.bits(7)
    with pytest.raises(TypeError, match=r"random\.randint takes one key"):
        random.randint(7, (3,), 0, np.arange(3))
    with pytest.raises(TypeError, match=r"random\.key takes one integer, not 1\.5"):
        random.key(1.5)
    with pytest.raises(TypeError, match=r"random\.fold_in takes one integer"):
        random.fold_in(random.key(0), 0.5)
    with pytest.raises(TypeError, match=r"random\.uniform: the dtype must be float32 or float64, not int64"):
        random.uniform(random.key(0), dtype=int)
    with pytest.raises(TypeError, match=r"random\.bits: the dtype must be an unsigned integer"):
        random.bits(random.key(0), dtype=float)
    with pytest.raises(TypeError, match=r"random\.randint: ends and dtype must be integers"):
        random.randint(random.key(0), (3,), 0.0, 5)
    for draw in (random.uniform, random.split):
        with pytest.raises(ValueError, match=rf"random\.{draw.__name__}: no axis may have a negative size"):
            draw(random.key(0), (-1, 4))
    with pytest.raises(ValueError, match=r"random\.categorical: shape \(4,\) does not end with \(2,\)"):
        random.categorical(random.key(0), np.zeros((2, 3)), shape=(4,))
