"""Loops between a schedule and machine code: a small language, how kernels become loops, and passes on them.

- `ir.py`: the language; `printer.py`, `verify.py`, `signature.py` (are two kernels the same code?).
- `lowering`: a step of the schedule as a loop nest.
- `passes`: which loop gets the lanes, where threads take over, how sums are cut, how code is made.
- `estimate.py`: how long a loop will take; `cost.py`: what a step moves and computes, for people.
"""
