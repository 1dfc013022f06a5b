"""Which function of a program is compiled at which level of code generation.

`link` compiles the module of a program: kernels at the level that their running time is worth, drivers, which
only decide and call, at the lowest. The result is a `NativeModule` with the drivers, which keeps the kernels
alive. The code does the same at every level; only its speed and the time to make it differ.

A driver costs ten times less to compile at the lowest level. A module of its own costs as much as some tens
of lines, so a short driver stays with its kernels.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphjit.backend.llvm.objects.jit import NativeModule
from graphjit.backend.llvm.writing.text import Module

SHORT_DRIVERS = 40
"""Lines of drivers up to which they stay with their kernels."""

SHORT_NS = 1_000
"""Estimated time of a run up to which calling the program takes most of the time: what costs a tenth of the
compilation would save nanoseconds.
"""

LONG_MODULE = 4_000
"""Lines of kernels in one module at the most: some 0.2 s of code generation, after which Ctrl-C is heard. The
next module costs 2 ms.
"""


def link(module: Module, nanoseconds: int) -> NativeModule:
    """Compile ``module``, one run of which takes about so long; what it declares must be known already
    (`symbols.provide`).
    """
    opt = 1 if nanoseconds <= SHORT_NS else 2
    drivers, kernels = module.drivers(), module.kernels()
    if not kernels:
        return NativeModule(module.render(), opt=0)
    # By a program that also adds partial sums, by a sweep with products.
    called_from_below = module.symbols(kernels).intersection(drivers)
    if called_from_below or module.render_only(drivers, {}).count("\n") <= SHORT_DRIVERS:
        return NativeModule(module.render(), opt)
    called = module.symbols(drivers)
    native: NativeModule | None = None
    addresses: dict[str, int] = {}
    for group in _groups(module, [name for name in kernels if name in called]):
        native = NativeModule(module.render_only(group, {}), opt, below=native)
        addresses.update((name, native.address(name)) for name in group)
    return NativeModule(module.render_only(drivers, addresses), opt=0, below=native)


def _groups(module: Module, called: list[str]) -> Iterator[list[str]]:
    """The kernels that drivers call, and what those call, in groups that are compiled one after another."""
    group: dict[str, None] = {}
    length = 0
    for name in called:
        needed = module.reached([name])
        more = module.lines([other for other in needed if other not in group])
        if group and length + more > LONG_MODULE:
            yield list(group)
            group, length, more = {}, 0, module.lines(needed)
        group.update(dict.fromkeys(needed))
        length += more
    yield list(group)
