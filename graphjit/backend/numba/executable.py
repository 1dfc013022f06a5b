"""A program that runs as Python, with or without Numba.

Job: the second back end: the printed loop IR, executed by CPython or compiled by ``numba.njit``.
Input: a `Program` and its loop kernels.  Output: `NumbaExecutable`, called like the native one.
Invariant: Numba is imported only when code is compiled with it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.backend.donation import allocate
from graphjit.backend.failures import exception
from graphjit.backend.numba import runtime
from graphjit.backend.numba.control import DRIVERS, forget_tapes
from graphjit.backend.numba.emit import parameters, print_program
from graphjit.loops.estimate import estimate
from graphjit.loops.ir import For

if TYPE_CHECKING:
    from graphjit.loops.ir import LoopKernel
    from graphjit.schedule.program import Failure, Program

DRIVER = ("program", "product", "in_runs", *DRIVERS)
TAPED = frozenset(("push_tape", "peek_tape"))
"""What kernels call that stay Python: tapes are lists."""
_runtime: dict[str, Callable[..., Any]] = {}
"""Runtime functions compiled by Numba, by name."""


class NumbaExecutable:
    """Python code of one program; it has no native address."""

    def __init__(self, program: Program, kernels: Mapping[str, LoopKernel], python: bool = False) -> None:
        """Print and load the program; ``python`` runs it under CPython, without Numba."""
        loops = [s for kernel in kernels.values() for s in kernel.body if isinstance(s, For)]
        self.nanoseconds = sum(map(estimate, loops))
        self.failures = tuple(program.errors)
        self.constants = program.constants
        self.inputs = tuple(node.type for node in program.graph.inputs)
        self.outputs = tuple(node.type for node in program.graph.outputs)
        self.in_place = program.in_place
        self.source = print_program(program, kernels)
        self._parameters = parameters(program)
        self._arena = program.arena
        self._call = load(self.source, not python)

    def run(
        self,
        arrays: Sequence[np.ndarray],
        into: Mapping[int, np.ndarray] | None = None,
        failures: Sequence[Failure] | None = None,
    ) -> list[np.ndarray]:
        """Outputs for contiguous arrays of the declared types; ``into`` and ``failures`` as in
        `Executable.run`.

        Raises:
            the exception that the program reports, with the user's line.
        """
        outputs = allocate(self.outputs, into or {})
        tables: dict[str, Sequence[np.ndarray]] = {
            "input": arrays,
            "const": self.constants,
            "output": outputs,
        }
        given = [tables[buffer.kind][buffer.slot].reshape(-1) for buffer in self._parameters]
        status = np.zeros(1, np.int64)
        with np.errstate(all="ignore"):
            try:
                self._call(*given, np.empty(self._arena, np.uint8), status)
            finally:
                forget_tapes()
        if status[0]:
            raise exception(self.failures if failures is None else failures, int(status[0]))
        return outputs


def load(source: str, compiled: bool) -> Callable[..., Any]:
    """The function ``program`` of a printed module; with ``compiled`` its kernels go through Numba.

    The driver stays Python: compiling ``np.dot`` of strided views takes Numba 20 s, calling it from Python 2
    us.
    """
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, "<graphjit program>", "exec"), namespace)
    if compiled:
        from numba import njit  # takes 0.2 s to import, and only this back end needs it

        for name, value in list(namespace.items()):
            if name in DRIVER or name.startswith("run_"):  # `run_` are drivers of loops
                continue
            if name in runtime.FUNCTIONS:
                if name not in _runtime:
                    _runtime[name] = njit(value, error_model="numpy")
                namespace[name] = _runtime[name]
            elif isinstance(value, types.FunctionType) and TAPED.isdisjoint(value.__code__.co_names):
                value.__module__ = None  # type: ignore[assignment]  # Numba looks globals up in the module otherwise
                namespace[name] = njit(value, error_model="numpy")
    program: Callable[..., Any] = namespace["program"]
    return program
