"""Matrix products: which code computes C = A B, and that code.

Two decisions are made before a product comes here.  Contractions of few multiply-adds become loops of kernels
(`schedule/rewrite/contractions.py`); products that share rows with their neighbours become parts of a sweep,
whose loops call `in_sweeps.py` for a block of rows (`schedule/sweep.py`).  All others reach `plan.py`, the
file to read first; it takes the first row of this table that fits:

| way | taken when | function of `plan.py` | code |
|---|---|---|---|
| streamed | wide B from memory (4 MB; 128 KB for one row), A of up to 24 rows | `streams` | `streamed.py` |
| dots | C has two columns or more, but fewer than fill half a vector | `dots_pay` | `dots.py` |
| packed | a large B, rows of A enough to repay a copy; not `panels_pay` | `packing_pays` | `packed.py` |
| written out | a batch of 32 or more, of up to 8 rows and 8 terms each | `written_out_pays` | `direct.py` |
| tiles | all others: B is read where it lies, or packed (`Packing`) | `tiles` | `direct.py` |

(The sizes are those of a machine with 1 MB of second-level cache; each stands in `graphjit.limits`.)

A *direct* product is any but the packed one: `direct.py` writes the loops around it into the program, for its
shape.  `packed.py` is one function for any shape, compiled once per process, which copies B into panels and
decides when it runs how it is cut.

All of them call the same native parts: the register tile (`tile.py`; `choose_tiles.py` decides its height and
widths), copies of operands (`panels.py`), rows (`streamed.py`) and dot products (`dots.py`).  `parts.py`
compiles parts on first need.  `workspace.py` lends memory to blocks; `vectors.py` and `extents.py` spell what
the other modules write.
"""
