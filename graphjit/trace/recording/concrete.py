"""Running without compiling: `disable_jit`, and the values of a trace that computes each node while it
records.

Job: say whether compilation is switched off in this thread; give nodes their values (by the ops' reference
implementations), so that ``if``, ``print`` and a debugger see numbers while a derivative is taken.
Input: nodes of such a trace. Output: ndarrays.
Invariant: a node is computed once; what depends on an input without a value has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from graphjit import config
from graphjit.backend.llvm.entry.callable import calls_fall_back
from graphjit.interpret import evaluate
from graphjit.ir.node import Node

_disabled: ContextVar[bool] = ContextVar("graphjit_disable_jit", default=config.disable_jit)


def jit_disabled() -> bool:
    """Whether calls of this thread run in plain NumPy."""
    return _disabled.get()


@contextmanager
def disable_jit(disable: bool = True) -> Iterator[None]:
    """Compile nothing inside a ``with`` block, so that print, pdb and breakpoints see numbers.

    What `jit` made calls the function itself, line by line in plain NumPy. Derivatives are taken of the
    operations that NumPy performs in this one call; ``float(x)`` and ``x.item()`` of a value that is
    differentiated are errors there. ``GRAPHJIT_DISABLE_JIT=1`` does the same for a whole process.

    Parameters
    ----------
    disable : bool, optional
        False compiles again inside another ``disable_jit()``.

    Examples
    --------
    >>> import graphjit
    >>> @graphjit.jit
    ... def halved(x):
    ...     print("x is", x)
    ...     return x / 2
    >>> with graphjit.disable_jit():
    ...     halved(3.0)
    x is 3.0
    1.5
    """
    before = _disabled.set(disable)
    try:
        # Native code would be entered without asking anybody.
        with calls_fall_back():
            yield
    finally:
        _disabled.reset(before)


class Values:
    """Values of the nodes of one trace."""

    def __init__(self) -> None:
        self.arrays: dict[Node, np.ndarray | None] = {}
        """None: it depends on an input without a value."""
        self.differentiated: set[Node] = set()

    def of(self, node: Node) -> np.ndarray | None:
        """The value of ``node``, None where it depends on an input without one."""
        with np.errstate(all="ignore"):
            return self.computed(node)

    def computed(self, node: Node) -> np.ndarray | None:
        """`of`, with the floating-point warnings and errors that the user asked for."""
        arrays, pending = self.arrays, [node]
        while pending:
            top = pending[-1]
            missing = [arg for arg in top.args if arg not in arrays]
            if missing:
                pending += missing
                continue
            pending.pop()
            if top not in arrays:
                args = [arrays[arg] for arg in top.args]
                without = top.op.name == "input" or any(arg is None for arg in args)
                arrays[top] = None if without else evaluate(top, args)
        return arrays[node]
