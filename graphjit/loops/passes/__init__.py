"""Passes on loop IR, in the order of `pipeline.LOOP_PASSES`.

- `collapse.py`: nested loops that walk memory as one become one.
- `vectorize.py`: which loop runs in SIMD lanes, and how far it is unrolled.
- `parallel.py`, `scans.py`: where loops are cut into blocks for threads (`blocks.py`: how).
- `sums.py`: long sums in blocks, so that rounding errors stay small.
- `calls.py`, `prefetch.py`, `stream.py`, `tails.py`: how code is made; no value depends on these.
"""
