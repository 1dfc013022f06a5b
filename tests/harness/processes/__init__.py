"""What tests run in several processes: a model with its data, and the program of each process."""

HUNG = 1200
"""Seconds after which a test hangs: twice what processes wait for each other unless they are told otherwise,
so their own errors come first, however slow the machine is.
"""
