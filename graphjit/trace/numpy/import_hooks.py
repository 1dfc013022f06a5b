"""Run something right after a module is imported, without importing it.

SciPy and numpy.random load late or never, and what tracing changes in them must wait for them.
`when_imported` acts at once if the module is there, else when somebody imports it: until then a finder stands
on ``sys.meta_path``, answers for the awaited modules only, and leaves when none is left. ``importlib.abc`` is
not used, because it would bring half of the standard library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

_waiting: dict[str, Callable[[ModuleType], None]] = {}


def when_imported(name: str, action: Callable[[ModuleType], None]) -> None:
    """Run ``action(module)`` now if the module is there, else after its import. A second request for the same
    name replaces the first.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        action(module)
        return
    _waiting[name] = action
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


class _Loader:
    """Runs the real loader, then the action."""

    def __init__(self, inner: Any, action: Callable[[ModuleType], None]) -> None:
        self.inner = inner
        self.action = action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the real loader does."""
        return self.inner.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        """As the real loader does, then the action."""
        self.inner.exec_module(module)
        self.action(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _Finder:
    """Catches the imports that are waited for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The real spec with our loader around the real one."""
        action = _waiting.pop(fullname, None)
        if action is None:
            return None
        if not _waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in list(sys.meta_path):
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
                if spec is not None and spec.loader is not None:
                    spec.loader = _Loader(spec.loader, action)  # type: ignore[assignment]
                    return spec
        return None


_finder = _Finder()
