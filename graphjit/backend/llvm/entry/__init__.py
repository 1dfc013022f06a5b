"""Native code between Python's call of a function and its program.

A call reaches `callable.py`, a Python type whose objects are compiled functions. `matching.py` compares the
arguments with each specialisation (one set of shapes, dtypes, static values and guards), `delivery.py` runs
the program and builds what Python gets. What nobody knows goes to Python, which traces and compiles.

- `library.py`: the text of all that, as one module.
- `layout.py`: the record of one specialisation and its tables of operations; `specialise.py` fills them.
- `large_results.py`: memory of large results, kept for the next call. `donation.py`: memory of arguments.
- `interrupts.py`: Ctrl-C during a long program.
- `cpython.py`: where CPython and NumPy keep what we read, found out at run time, not assumed.
- `numpy_hooks.py`: `np.asarray` and kin while a function is traced.
"""
