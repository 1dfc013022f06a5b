"""One page that shows a computation at every stage: ``graphjit inspect --html``, and notebooks.

Job: let people see which line of theirs costs what, what became of it, and what the way back keeps.
Input: a `graphjit.lowered.Lowered`. Output: one HTML file that needs nothing else, or figures.
Invariant: what is shown is read from the stages, never computed a second way.

The way of the data: `graphs` and `steps` make a `Board` of boxes of each stage, `groups` puts boxes that are
too many into boxes, `layout` places them, `page` writes all of it, with the scripts in ``assets/``, into one
file.
"""
