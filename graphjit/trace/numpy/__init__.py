"""NumPy functions on tracers, one file per family. ``registry`` imports them all, which fills
``tracer.FUNCTIONS``.
"""
