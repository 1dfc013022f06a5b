"""Which library code stands behind the ``gj_*`` functions that generated modules declare.

`provide` compiles what a module declares on first need, once in a process, and makes its address known.
"""

from __future__ import annotations

from collections.abc import Callable

from graphjit.backend.llvm.entry import interrupts
from graphjit.backend.llvm.math import library
from graphjit.backend.llvm.products import parts
from graphjit.backend.llvm.threads import pool, waiting
from graphjit.backend.llvm.writing.text import Module

PROVIDERS: dict[str, Callable[[], object]] = {
    waiting.SYMBOL: pool.ensure,
    waiting.WATCHED: pool.ensure,
    interrupts.SYMBOL: interrupts.ensure,
    parts.TAKE: parts.ensure_workspace,
    parts.GIVE: parts.ensure_workspace,
    parts.SYMBOL["f64"]: lambda: parts.ensure_product("f64"),
    parts.SYMBOL["f32"]: lambda: parts.ensure_product("f32"),
}
_ready: set[str] = set()


def provide(module: Module) -> None:
    """Compile the library code that ``module`` declares; what it shares a level of code generation with goes
    into one module.
    """
    names = module.declared_names
    parts.ensure_parts(part for name in names for part in parts.parts_for(name))
    library.provide(*filter(library.is_routine, names))
    for name in names:
        if name in PROVIDERS and name not in _ready:
            PROVIDERS[name]()
            _ready.add(name)
