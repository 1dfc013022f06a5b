"""Gradients and compiled functions over dask: ``graphjit.dask``.

Gradients over the rows of dask arrays are those of `graphjit.distributed`, bit for bit; dask decides where
blocks are computed, and computes them again when a worker dies.
"""

from __future__ import annotations

from graphjit.dask.chunks import map_blocks
from graphjit.dask.gradient import value_and_grad

__all__ = ["map_blocks", "value_and_grad"]
