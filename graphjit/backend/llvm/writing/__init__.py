"""How LLVM text is written.

- `text.py`: modules and functions as text; `kernels` and `math` print into them line by line.
- `vector.py`: vectors of one width, for elementary functions.
- `writer.py`: functions on matrices, for `products`.
- `fields.py`: structs that native code and Python both know.
- `native.py`: code that reads like C (variables, fields, ``if``, loops), for `entry` and `threads`; `ssa.py`
  finds the phis; `clock.py` is the one clock.
"""
