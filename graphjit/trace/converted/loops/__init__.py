"""Loops in converted code: ``while`` and ``for``, and how one recording of a body stands for all steps."""
