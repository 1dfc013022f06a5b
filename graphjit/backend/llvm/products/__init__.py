"""Matrix products: which code computes C = A B, and that code.

Read `plan.py` first.  A product reaches one of these ways, and this is where it is decided:

| way | taken when | decided in | code |
|---|---|---|---|
| in sweeps | the rows of A are those of a sweep, and B is small | `schedule/sweep.py` | `in_sweeps.py` |
| streamed | A has up to 24 rows, B comes from memory | `plan.py`, `streams` | `streamed.py` |
| dots | C has two or three columns, too few to fill a vector | `plan.py`, `dots_pay` | `dots.py` |
| written out | a batch of products of up to 8 terms | `plan.py`, `written_out_pays` | `direct.py` |
| tiles | B is small, or A has so few rows that packing B does not pay | `plan.py`, `tiles` | `direct.py` |
| packed | all others, where `plan` gives None | `plan.py`, `packing_pays` | `packed.py` |

`direct.py` writes the loops around streamed, dots, written out and tiles into the program, for their shape
(a *direct* product).  `packed.py` is one function for any shape, which packs B into panels and decides at run
time how it is cut.

Direct products, sweeps and the packed product call the same native parts: the register tile (`tile.py`;
`choose_tiles.py` decides its height and widths), copies of operands (`panels.py`), rows (`streamed.py`) and
dot products (`dots.py`).  `parts.py` compiles them on first need.  `workspace.py` lends them memory,
`vectors.py` and `extents.py` are what the writers of text share.  Every threshold stands in
`graphjit.limits`.
"""
