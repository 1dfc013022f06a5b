"""Philox4x64-10 in NumPy's integers: from a key and a counter to 256 random bits.

Job: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
Every block of four words is a function of the key and the block's number alone. So blocks are computed in
vector lanes and on threads, and the numbers never depend on how many of those there are.
Input: keys and counters of uint64. Output: four arrays of uint64.
Invariant: for the counters 1, 2, 3 ... these are the words of ``np.random.Philox(key=key)``, in order.

The product of two words has 128 bits. It is put together from four products of halves, which processors have
in vector lanes: one core of a machine with AVX2 takes 2.6 ns for a word, and 2.8 ns with its instruction for
whole products.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.tracer import Tracer

Word = Any
"""An array of uint64, or a traced one."""

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10
HALF = 32
LOW = 0xFFFFFFFF


def product(a: Word, b: Any) -> tuple[Word, Word]:
    """The high and the low word of a product of words."""
    a_low, a_high, b_low, b_high = a & LOW, a >> HALF, b & LOW, b >> HALF
    lowest = a_low * b_low
    middle = a_high * b_low + (lowest >> HALF)
    second = a_low * b_high + (middle & LOW)
    high = a_high * b_high + (middle >> HALF) + (second >> HALF)
    return high, (second << HALF) | (lowest & LOW)


def philox(key: Word, counter: Word, domain: int = 0) -> list[Word]:
    """Four words for each counter, which is an array.

    Args:
        key: an array of two words.
        counter: the lowest of the four words of the counter.
        domain: the highest of them; the others are zero.
    """
    zero = np.zeros_like(counter)
    words = [counter, zero, zero, zero + domain]
    keys = [key[:1], key[1:]]  # arrays: sums of those may overflow, sums of numbers warn
    for number in range(ROUNDS):
        if number:
            keys = [one + step for one, step in zip(keys, WEYL, strict=True)]
        high_0, low_0 = product(words[0], MULTIPLIERS[0])
        high_2, low_2 = product(words[2], MULTIPLIERS[1])
        words = [high_2 ^ words[1] ^ keys[0], low_2, high_0 ^ words[3] ^ keys[1], low_0]
    return words


def counters(count: int) -> Word:
    """0, 1, 2 ... in a trace as numbers of a loop, not as an array that is compiled in."""
    trace = active_trace()
    if trace is None:
        return np.arange(count, dtype=np.uint64)
    return Tracer(trace, trace.emit("iota", dtype=np.dtype(np.uint64), shape=(count,), axis=0))
