"""Library code that generated modules call: compiled on first need, once per process.

Job: see to it that every external ``gj_*`` symbol a module declares has an address.
Input: a module.  Output: registered symbols.
"""

from __future__ import annotations

from collections.abc import Callable

from graphjit.backend.llvm import gemm, interrupts, threads
from graphjit.backend.llvm.math import library
from graphjit.backend.llvm.text import Module

PROVIDERS: dict[str, Callable[[], object]] = {
    "gj_parallel_for": threads.ensure,
    interrupts.SYMBOL: interrupts.ensure,
    "gj_take_room": gemm.ensure_room,
    "gj_give_room": gemm.ensure_room,
    "gj_gemm_f64": lambda: gemm.ensure("f64"),
    "gj_gemm_f32": lambda: gemm.ensure("f32"),
}
_ready: set[str] = set()


def provide(module: Module) -> None:
    """Compile the library code that ``module`` declares; what it shares a level of code generation with goes into one module."""
    names = module.declared_names
    gemm.ensure_parts(part for name in names for part in gemm.needed(name))
    library.provide(*filter(library.is_routine, names))
    for name in names:
        if name in PROVIDERS and name not in _ready:
            PROVIDERS[name]()
            _ready.add(name)
