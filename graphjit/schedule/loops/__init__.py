"""Loops and choices as steps of a program: which run in registers, which programs others run, and which
arrays their steps change where they lie.
"""
