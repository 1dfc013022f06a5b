"""From a graph to a program: which nodes share a loop nest, what is kept in memory, and where.

In the order in which they run (`pipeline.schedule`):

- `rewrite`: the graph is first brought into forms that schedule well; `pieces.py` and `memory.py` add copies.
- `roots.py`: which values get a place of their own; all others are computed where they are read.
- `fuse.py`: which roots share a kernel (`constraints.py`: what forbids it, in words).
- `recompute.py`: of large values, which are computed again after all.
- `sweep.py`: which kernels and products run block by block of rows.
- `memory.py`: where in the arena each value lies (`inplace.py`: over which other one).

`program.py` is what comes out. `access.py` says what a node reads, `printer.py` shows a program,
`interpret.py` runs one as it stands, slowly, to check it.
"""
