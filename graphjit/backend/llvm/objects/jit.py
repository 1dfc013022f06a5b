"""From LLVM text to native code.

`NativeModule` parses, verifies and compiles one module, gives the addresses of its functions, and frees them
again. No optimisation pipeline runs: the emitters print vector code already, so the time to compile is code
generation alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from graphjit.backend.llvm.objects import store
from graphjit.machine import machine

if TYPE_CHECKING:
    import llvmlite.binding as llvm

_lock = threading.RLock()

STACK = 8 << 20
"""Bytes of stack that LLVM is given on threads whose own may be small."""

if hasattr(os, "register_at_fork"):
    # Nobody may be inside LLVM when the process forks: its own locks would stay taken in the child.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@cache
def _llvm() -> ModuleType:
    """LLVM's binding, loaded on first need: it is a library of a hundred megabytes."""
    import llvmlite.binding

    return llvmlite.binding


@cache
def _version() -> str:
    import llvmlite

    return f"llvmlite {llvmlite.__version__}, LLVM {_llvm().llvm_version_info}"


@cache
def host() -> tuple[llvm.Target, str, str]:
    """Target, CPU name and feature list of `machine` (the name alone can be wrong in a VM)."""
    llvm = _llvm()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple(), machine().name, ",".join(machine().features)


def target_machine(opt: int = 2) -> llvm.TargetMachine:
    """A new target machine; an execution engine takes ownership of the one it is given."""
    target, cpu, features = host()
    return target.create_target_machine(
        cpu=cpu, features=features, opt=opt, reloc="default", codemodel="jitdefault", jit=True
    )


@cache
def _interrupts() -> set[int]:
    """Signals that people and timers send; not those that tell of a fault."""
    faults = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
    return {number for number in signal.valid_signals() if getattr(number, "name", "") not in faults}


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signal handlers wait: an exception between LLVM's taking an object over and llvmlite's noting it would
    free the object twice.

    Where another thread of the program takes signals, Python runs the handler all the same: then this is no
    protection.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _interrupts())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_deep_stack(work: Callable[[], None]) -> None:
    """Run ``work`` where LLVM has room: threads other than the main one may have small stacks."""
    if threading.get_ident() == threading.main_thread().ident:
        return work()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    helper = threading.Thread(target=run, name="graphjit-llvm")
    started = False
    with _lock:
        before = threading.stack_size(
            STACK
        )  # of every thread that starts in between: there is no setting for one
        try:
            helper.start()
            started = True
        except RuntimeError:  # no thread to be had, or the interpreter ends
            pass
        finally:
            threading.stack_size(before)
    if not started:
        return work()
    helper.join()
    if raised:
        raise raised[0]


def _parsed(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """The module of a text, for that machine."""
    module = _llvm().parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    return module


class NativeModule:
    """Executable code of one module; alive until `close`."""

    def __init__(
        self,
        text: str,
        opt: int = 2,
        below: NativeModule | None = None,
        library: bool = False,
    ) -> None:
        """Compile ``text``.

        Args:
            text: LLVM assembly.
            opt: the level of code generation: 0 is three to ten times faster to compile, for code that is no
                inner loop.
            below: a module whose addresses ``text`` holds; it lives and ends with this one.
            library: ``text`` is the same in every process and holds no address: its object code is kept on
                disk (`store`).
        """
        self._below = below
        _on_deep_stack(lambda: self._take(text, opt) if library else self._compile(text, opt))

    def _take(self, text: str, opt: int) -> None:
        if store.folder() is None:
            return self._compile(text, opt)
        llvm = _llvm()
        target, cpu, features = host()
        name = store.key(text, str(opt), _version(), target.triple, cpu, features)
        code = store.find(name)
        with _lock, _undisturbed():
            if code is None:
                # Not through LLVM's hook for caches: what a signal handler raises in a callback from C is
                # lost.
                machine = target_machine(opt)
                code = machine.emit_object(_parsed(text, machine))
                store.keep(name, code)
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine(opt))
            self._engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code))
            self._engine.finalize_object()

    def _compile(self, text: str, opt: int) -> None:
        with _lock, _undisturbed():
            machine = target_machine(opt)
            self._engine = _llvm().create_mcjit_compiler(_parsed(text, machine), machine)
            self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Address of function or global ``name``."""
        with _lock:
            found = self._engine.get_function_address(name) or self._engine.get_global_value_address(name)
        if not found:
            raise KeyError(f"no symbol {name} in the native module")
        return int(found)

    def close(self) -> None:
        """Free the native code; no pointer into it may be used afterwards."""
        with _lock:
            self._engine.close()
        if self._below is not None:
            self._below.close()


def assembly(text: str) -> str:
    """Machine code of a module as assembly text, for inspection."""
    with _lock:
        module = _llvm().parse_assembly(text)
        return str(target_machine().emit_assembly(module))


def add_symbol(name: str, address: int) -> None:
    """Make ``declare``d function ``name`` resolve to ``address`` in every module compiled later."""
    _llvm().add_symbol(name, address)
