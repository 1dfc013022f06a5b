"""Loops over batches whose elements never meet: each element takes all its steps, in lanes and on threads.

`axes` finds the axes, `join` makes one loop of several over one batch. `graphjit.loops.lowering.points` makes
loops of them.
"""
