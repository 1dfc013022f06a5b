"""From a scheduled program to code that runs, and what both back ends have in common.

- `llvm`: the back end that is used: machine code made by LLVM.
- `numba`: the same programs as Python for ``numba.njit``, or for the interpreter, as a check.
- `executable.py`: runs native code on arrays (the slow way of a call; the fast one is `llvm/entry`).
- `signature.py`: which arguments a piece of code was made for, and how a call's are compared with them.
- `donation.py`: arguments whose memory results may take over.
- `failures.py`: from an error number of native code to an exception with the user's line.
"""
