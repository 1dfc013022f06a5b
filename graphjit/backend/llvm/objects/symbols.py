"""Which library code stands behind the ``gj_*`` functions that generated modules declare.

`provide` compiles what a module declares on first need, once in a process, and makes its address known. The
folders that hold such code are imported when a module first asks for it, since most programs need few of
them.
"""

from __future__ import annotations

from graphjit.backend.llvm.entry.interrupts import SYMBOL as SIGNALS
from graphjit.backend.llvm.threads.waiting import SYMBOL as POOL
from graphjit.backend.llvm.writing.text import Module

_MATH = "gj_math."
_ready: set[str] = set()


def provide(module: Module) -> None:
    """Compile the library code that ``module`` declares; what it shares a level of code generation with goes
    into one module.
    """
    names = [name for name in module.declared_names if name.startswith("gj_")]
    products = [name for name in names if name not in (POOL, SIGNALS) and not name.startswith(_MATH)]
    if products:
        _provide_products(products)
    functions = [name for name in names if name.startswith(_MATH)]
    if functions:
        from graphjit.backend.llvm.math import library

        library.provide(*functions)
    if POOL in names and POOL not in _ready:
        from graphjit.backend.llvm.threads import pool

        pool.ensure()
        _ready.add(POOL)
    if SIGNALS in names and SIGNALS not in _ready:
        from graphjit.backend.llvm.entry import interrupts

        interrupts.ensure()
        _ready.add(SIGNALS)


def _provide_products(names: list[str]) -> None:
    """Parts of matrix products, the products of any shape, and the memory that they borrow."""
    from graphjit.backend.llvm.products import parts

    parts.ensure_parts(part for name in names for part in parts.parts_for(name))
    for name in names:
        if name in parts.SYMBOL.values():
            parts.ensure_product(next(kind for kind, symbol in parts.SYMBOL.items() if symbol == name))
        elif name in (parts.TAKE, parts.GIVE):
            parts.ensure_workspace()
