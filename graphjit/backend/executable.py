"""A compiled program that can be called.

Job: turn a compiled graph into native code, run it on arrays, raise what it reports.
Input: `Compiled`.  Output: `Executable`.
Invariant: native code lives exactly as long as an `Executable` refers to it; the same graph is compiled once
per process while it is in use.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphjit.backend.donation import allocate
from graphjit.backend.failures import exception
from graphjit.backend.llvm.objects.link import link
from graphjit.backend.llvm.objects.symbols import provide
from graphjit.backend.llvm.tapes import KEPT

if TYPE_CHECKING:
    from graphjit.backend.llvm.writing.text import Module
    from graphjit.schedule.program import Failure, Program

_PROGRAM = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
_free = ctypes.CDLL(None).free
_free.argtypes = [ctypes.c_void_p]


class Executable:
    """Native code of one program."""

    def __init__(self, program: Program, module: Module, nanoseconds: int) -> None:
        self.nanoseconds = nanoseconds
        self.failures = tuple(program.errors)
        # The code holds the addresses of constants.
        self.constants = [array for inner in program.with_inner() for array in inner.constants]
        self.inputs = tuple(node.type for node in program.graph.inputs)
        self.outputs = tuple(node.type for node in program.graph.outputs)
        self.in_place = program.in_place
        self._kept = [name for name in ("arena", KEPT) if name in module.global_names]
        provide(module)
        self.native = link(module, nanoseconds)
        self.address = self.native.address("program")
        self._call = _PROGRAM(self.address)

    def run(
        self,
        arrays: Sequence[np.ndarray],
        into: Mapping[int, np.ndarray] | None = None,
        failures: Sequence[Failure] | None = None,
    ) -> list[np.ndarray]:
        """Outputs for contiguous arrays of the declared types (the way of calls that the native entry does
        not take).

        ``into`` holds arrays that serve as outputs, by output number (`graphjit.backend.donation`).
        ``failures`` are those of the caller's own graph (`graphjit.backend.failures`).

        Raises:
            the exception that the program reports, with the user's line.
        """
        outputs = allocate(self.outputs, into or {})
        status = self._call(_table(arrays), _table(outputs))
        if status:
            raise exception(self.failures if failures is None else failures, status)
        return outputs

    def __del__(self) -> None:
        native = self.__dict__.get("native")
        # At exit the process frees everything at once; `sys` may be gone by then.
        if native is not None and sys is not None and not sys.is_finalizing():
            for name in self._kept:
                cell = ctypes.c_void_p.from_address(native.address(name))
                _free(cell.value)
                cell.value = None
            native.close()


def _table(arrays: Sequence[np.ndarray]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * max(1, len(arrays)))(*[array.ctypes.data for array in arrays])
