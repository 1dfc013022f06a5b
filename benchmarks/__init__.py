"""Benchmarks: workloads written once, run under graphjit, its peers and hand-written C.

Begin with `python -m benchmarks.spine`.
"""
