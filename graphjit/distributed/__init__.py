"""Gradients over the rows of several processes: ``graphjit.distributed`` over MPI, `graphjit.dask` over dask.

Rows are cut into blocks whose number does not depend on how many processes there are (`blocks`). One compiled
program runs on every block (`call`). Its results lie in flat buffers (`flat`), which are summed in a fixed
binary tree. So the bits are those of one process, however many take part.
"""

from __future__ import annotations

from graphjit.distributed.mpi import rows, value_and_grad

__all__ = ["rows", "value_and_grad"]
