"""Benchmarks: workloads written once, run under graphjit, its peers and hand-written C.

Begin with `graphjit bench --quick`, or `python -m benchmarks` for the same.
"""
