"""Benchmarks: workloads written once, run under graphjit, its peers and hand-written C (`python -m benchmarks.spine`)."""
