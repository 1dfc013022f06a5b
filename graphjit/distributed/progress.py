"""How far a gradient over many blocks is, on stderr: after two seconds, as a bar on a terminal.

Input: `Progress` around a call, `advance` for each block. Output: text on stderr, or calls of the user's
function.
Invariant: what cannot be shown disturbs nothing; errors of the user's function are the user's.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from graphjit.progress import PATIENCE

Show = bool | Callable[[int, int], object]
"""Whether to show progress, or what to call with the numbers of blocks done and of all blocks."""

EVERY = 10.0
"""Seconds between two lines where stderr is no terminal."""


class Progress:
    """Counts blocks; several threads may count."""

    def __init__(self, name: str, total: int, show: Show) -> None:
        self.name, self.total, self.show = name, total, show
        self.done = 0
        self.next = time.monotonic() + PATIENCE
        self.lock = threading.Lock()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.lock, suppress(Exception):
            if self.bar is not None:
                self.bar.stop()

    def advance(self, blocks: int = 1) -> None:
        """So many more blocks are done."""
        if not blocks:
            return
        with self.lock:
            self.done += blocks
            if callable(self.show):
                self.show(self.done, self.total)
            elif self.show:
                with suppress(Exception):
                    self._tell()

    def _tell(self) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done)
        elif time.monotonic() >= self.next and sys.stderr is not None:
            self.next = time.monotonic() + EVERY
            if sys.stderr.isatty():
                self._start_bar()
            else:
                print(
                    f"graphjit: gradient of {self.name}: {self.done} of {self.total} blocks",
                    file=sys.stderr,
                    flush=True,
                )

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar

        self.bar = Bar(console=Console(file=sys.stderr), transient=True)
        self.bar.add_task(f"gradient of {self.name}", total=self.total, completed=self.done)
        self.bar.start()
