"""The thread pool, as Python sees it.

It compiles the pool (`fork_join.py`) on first need, which defines the native symbol ``gj_parallel_for``; says
how many threads it may use; and resets it after a fork. There is one pool in a process. The number of threads
is what the caller configured, else what the environment says, else all cores of the affinity mask.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from graphjit import config
from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.threads.waiting import SPIN_NS, SYMBOL, WATCHED, has_workers
from graphjit.machine import cores


@dataclass(frozen=True)
class _Pool:
    """The compiled pool and the entries that Python calls."""

    module: jit.NativeModule
    address: int
    configure: Callable[..., int] | None
    forget: Callable[..., int] | None
    running: Callable[..., int] | None
    awake: Callable[..., int] | None


_pool: _Pool | None = None
_threads: int | None = None
_lock = threading.RLock()


def num_threads() -> int:
    """Threads that a parallel kernel may use, the caller included: what was configured, else the
    environment's word, else all cores.
    """
    return _threads or config.num_threads or cores()


def configure(threads: int) -> None:
    """Use ``threads`` threads, the caller included, from now on; more than there are cores is allowed."""
    global _threads
    if threads < 1:
        raise ValueError(f"the number of threads must be at least 1, not {threads}")
    with _lock:
        _threads = threads
        if _pool is not None:
            _apply(_pool)


def active_workers() -> int:
    """Worker threads started in this process so far; they live, mostly asleep, until it ends."""
    return int(_pool.running()) if _pool is not None and _pool.running is not None else 0


def awake_workers() -> int:
    """Worker threads that run or poll for work at this moment."""
    return int(_pool.awake()) if _pool is not None and _pool.awake is not None else 0


def ensure() -> None:
    """Compile the pool and make its entries known to modules compiled later; workers start with the
    first job worth it.
    """
    global _pool
    if _pool is not None:
        return
    with _lock:
        if _pool is None:
            _pool = _build()


def _build() -> _Pool:
    from graphjit.backend.llvm.threads.fork_join import source  # not needed to import graphjit

    # System calls and waiting: better code would be no faster.
    module = jit.NativeModule(source(), opt=0, library=True)
    # Workers poll this code until the very end of the process: the interpreter's shutdown must not unmap it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))
    address = module.address(SYMBOL)
    jit.add_symbol(SYMBOL, address)
    jit.add_symbol(WATCHED, module.address(WATCHED))
    if not has_workers():
        return _Pool(module, address, None, None, None, None)
    pool = _Pool(
        module,
        address,
        ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(module.address("gj_threads_configure")),
        ctypes.CFUNCTYPE(None, ctypes.c_int32)(module.address("gj_threads_forget")),
        ctypes.CFUNCTYPE(ctypes.c_int64)(module.address("gj_threads_running")),
        ctypes.CFUNCTYPE(ctypes.c_int64)(module.address("gj_threads_awake")),
    )
    assert pool.forget is not None
    pool.forget(os.getpid())
    _apply(pool)
    os.register_at_fork(after_in_child=_after_fork)
    return pool


def _apply(pool: _Pool) -> None:
    if pool.configure is not None:
        threads = num_threads()
        # With more threads than cores a polling worker would only keep others from working.
        pool.configure(threads - 1, SPIN_NS if threads <= cores() else 0)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    if _pool is not None and _pool.forget is not None:
        _pool.forget(os.getpid())
