"""How compiled functions are pickled: by name or by their Python function and options, never as native code.

Input: a compiled function. Output: what ``__reduce__`` returns.
Invariant: who unpickles gets a function that computes the same, and compiles it on its first call.

Example: ``pickle.dumps(graphjit.grad(f))`` holds the name of ``f`` and the options of `grad`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from graphjit.dispatch import METHODS, Fixed


def reduce(self: Any) -> Any:
    """By name where the name leads back here (a decorated function), else by recipe.

    Raises:
        TypeError: it was compiled for one signature (`Fixed`), so there is nothing but native code.
    """
    if isinstance(self.dispatcher, Fixed):
        raise TypeError(f"{self!r} cannot be pickled: pickle the function, and lower it again")
    if not _is_its_name(self):
        return self.recipe
    library = sys.modules.get("cloudpickle")
    if library is not None and _travels(self, library) and tell_cloudpickle(library, type(self)):
        # cloudpickle may be who asks, and it looked before it was told.
        return library.loads, (library.dumps(self),)
    return self.__qualname__


METHODS["__reduce__"] = reduce


def tell_cloudpickle(library: ModuleType, kind: type) -> bool:
    """Let cloudpickle carry functions of ``__main__`` by value, as it does with plain ones: other processes
    have another program there. Whether that is news to it.
    """
    table = library.CloudPickler.dispatch_table
    if kind in table:
        return False
    table[kind] = lambda function: (
        function.recipe if _is_its_name(function) and _travels(function, library) else function.__reduce__()
    )
    return True


def _is_its_name(function: Any) -> bool:
    found: Any = sys.modules.get(getattr(function, "__module__", ""))
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is function


def _travels(function: Any, library: ModuleType) -> bool:
    """Whether the module of a function is one that cloudpickle sends along."""
    return function.__module__ == "__main__" or function.__module__ in library.list_registry_pickle_by_value()
