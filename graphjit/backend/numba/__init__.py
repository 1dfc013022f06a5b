"""Programs as Python text: for ``numba.njit`` (``backend="numba"``), and for CPython as a check.

The runner's `Compare` executes loop IR this way. `emit.py` prints loops, `scalar.py` operations, `runtime.py`
has the functions that Numba lacks, `executable.py` compiles and runs.
"""
