"""The native code of a program's module.

Job: compile each function at the level of code generation that it is worth.
Input: a `Module`.  Output: a `NativeModule` with the drivers, which keeps the kernels alive.
Invariant: the code does the same at every level; only its speed and the time to make it differ.

A driver costs ten times less to compile at the lowest level.  A module of its own costs as much as some tens of lines, so a short driver stays with its kernels.
"""

from __future__ import annotations

from graphjit.backend.llvm.jit import NativeModule
from graphjit.backend.llvm.text import Module

SHORT_DRIVERS = 40
"""Lines of drivers up to which they stay with their kernels."""


SHORT_NS = 1_000
"""Estimated time of a run up to which calling the program takes most of the time: what costs a tenth of the compilation would save nanoseconds."""


def link(module: Module, nanoseconds: int) -> NativeModule:
    """Compile ``module``, one run of which takes about so long; what it declares must be known already (`symbols.provide`)."""
    opt = 1 if nanoseconds <= SHORT_NS else 2
    drivers, kernels = module.drivers(), module.kernels()
    if not kernels:
        return NativeModule(module.render(), opt=0)
    # By a program that also adds partial sums, by a sweep with products.
    called_from_below = module.symbols(kernels).intersection(drivers)
    if called_from_below or module.render_only(drivers, {}).count("\n") <= SHORT_DRIVERS:
        return NativeModule(module.render(), opt)
    native = NativeModule(module.render_only(kernels, {}), opt)
    addresses = {name: native.address(name) for name in sorted(module.symbols(drivers).intersection(kernels))}
    return NativeModule(module.render_only(drivers, addresses), opt=0, below=native)
