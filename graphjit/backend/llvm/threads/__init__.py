"""Threads that run the blocks of parallel loops.

`fork_join.py` writes the native code: blocks are claimed one by one, workers spin briefly and then sleep.
`pool.py` starts and counts the threads, and survives `fork`.
"""
