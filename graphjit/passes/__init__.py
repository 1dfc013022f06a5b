"""Graph passes: each takes a graph and returns one that computes the same values.

`graphjit.pipeline` lists which run, and in what order; `rules` holds the rewrites that `simplify` applies.
"""
