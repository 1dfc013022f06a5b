"""Threads that run the blocks of parallel loops.

`fork_join.py` writes the native code: blocks are claimed one by one, workers spin briefly and then sleep.
`pool.py` compiles it, says how many threads there are, and survives `fork`; `waiting.py` says how long they
wait, and when they are woken.
"""
