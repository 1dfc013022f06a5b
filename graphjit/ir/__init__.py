"""The graph: what it consists of, and everything that makes, prints, reads and checks one.

Begin with `node` (nodes and graphs), `opdef` (what an op is) and `builder` (how nodes are made).
"""
