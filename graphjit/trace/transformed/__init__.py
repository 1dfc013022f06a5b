"""Transformations of a Python function inside a trace: derivatives, batches, Jacobians.

Each calls the function on placeholders, hands the nodes that it returned to `graphjit.transforms` (graph in,
graph out), and puts the results together in the user's containers.
"""
