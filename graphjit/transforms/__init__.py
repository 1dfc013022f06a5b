"""Derivatives by source transformation: a graph in, the graph of its derivative out.

`reverse` and `forward` are the two modes. Both read the same derivative record of each op.
"""
