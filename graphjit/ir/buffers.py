"""Where a value lives: a named piece of contiguous storage.

The scheduler assigns buffers to values, the loop IR addresses them, the back ends allocate them.

Invariant: contiguous, row-major, addressed in elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

BufferKind = Literal["input", "output", "arena", "const", "local", "scratch", "tapes"]


@dataclass(frozen=True, eq=False, slots=True)
class Buffer:
    """Contiguous storage of ``size`` elements: an argument, a result, a part of the arena, a constant, a
    local of a kernel, scratch of one task, or what is free of the memory of tapes.
    """

    name: str
    dtype: np.dtype
    size: int
    kind: BufferKind
    slot: int = 0  # position in the argument or result table, byte offset in the arena, or constant number

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return self.name


TAPES = Buffer("tapes", np.dtype(np.uint8), 0, "tapes")
"""Stands for the memory of tapes among the buffers of a kernel that writes some."""
