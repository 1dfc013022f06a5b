"""Printer of LLVM IR text.

Job: collect the pieces of one LLVM module and print it once.
Input: instruction text from the emitters.  Output: ``Module.render()``.
Invariant: every definition and declaration appears once, however often it was asked for.

Printing text is about forty times faster than building llvmlite's objects; the text is built from
the structure of the loop IR and never patched afterwards.
"""

from __future__ import annotations

from collections.abc import Callable


class Module:
    """One LLVM module under construction: globals, declarations and function bodies in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._declarations: dict[str, str] = {}
        self._globals: dict[str, str] = {}
        self._functions: dict[str, str | None] = {}

    def declare(self, name: str, line: str) -> None:
        """Add ``declare ...`` for an external function or intrinsic once; ``line`` is the whole text."""
        self._declarations.setdefault(name, line)

    def add_global(self, name: str, line: str) -> None:
        """Add a global variable or constant once; ``line`` is the whole text including ``@name = ``."""
        self._globals.setdefault(name, line)

    def ensure(self, name: str, make: Callable[[Module], str]) -> None:
        """Define function ``name`` once; ``make(module)`` returns its whole text."""
        if name not in self._functions:
            self._functions[name] = None
            self._functions[name] = make(self)

    def add_function(self, function: Function) -> None:
        """Add a finished function."""
        if self._functions.get(function.name) is not None:
            raise ValueError(f"LLVM function {function.name} defined twice")
        self._functions[function.name] = function.render()

    @property
    def global_names(self) -> tuple[str, ...]:
        """Names of global variables."""
        return tuple(self._globals)

    @property
    def declared_names(self) -> tuple[str, ...]:
        """Names of external functions."""
        return tuple(self._declarations)

    def render(self) -> str:
        """The module as LLVM assembly."""
        parts = [f"; ModuleID = '{self.name}'"]
        parts += self._globals.values()
        parts += [line for name, line in self._declarations.items() if name not in self._functions]
        parts += [text for text in self._functions.values() if text]
        return "\n".join(parts) + "\n"


class Phi:
    """A phi node whose incoming values become known while the loop body is printed."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self._kind = kind
        self._incoming: list[str] = []

    def add(self, value: str, block: str) -> None:
        """One more incoming edge."""
        self._incoming.append(f"[ {value}, %{block} ]")

    def __str__(self) -> str:
        return f"  {self.name} = phi {self._kind} {', '.join(self._incoming)}"


class Function:
    """One LLVM function under construction: a flat list of lines and fresh names."""

    def __init__(
        self,
        module: Module,
        name: str,
        result: str,
        parameters: list[tuple[str, str]],
        attributes: str = "nounwind",
    ) -> None:
        self.module = module
        self.name = name
        self._header = (
            f"define {result} @{name}("
            + ", ".join(f"{kind} {label}" for kind, label in parameters)
            + f") {attributes} {{"
        )
        self._lines: list[str | Phi] = ["entry:"]
        self._allocas: list[str] = []
        self._shared: dict[str, str] = {}
        self._count = 0
        self.current = "entry"
        self.instructions = 0

    def op(self, text: str) -> str:
        """Append ``%vN = text`` and return ``%vN``."""
        self._count += 1
        self.instructions += 1
        name = f"%v{self._count}"
        self._lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """Append an instruction without a result (store, br, ret, call void)."""
        self.instructions += 1
        self._lines.append("  " + text)

    def phi(self, kind: str) -> Phi:
        """A phi at the head of the current block; edges are added later."""
        self._count += 1
        phi = Phi(f"%v{self._count}", kind)
        self._lines.append(phi)
        return phi

    def alloca(self, kind: str, align: int = 8) -> str:
        """A stack slot in the entry block; returns its ``ptr`` name."""
        self._count += 1
        name = f"%v{self._count}"
        self._allocas.append(f"  {name} = alloca {kind}, align {align}")
        return name

    def shared_slot(self, kind: str, align: int = 8) -> str:
        """A stack slot for what is read before the next such slot is written: all of one kind are the same."""
        if kind not in self._shared:
            self._shared[kind] = self.alloca(kind, align)
        return self._shared[kind]

    def load_into(self, name: str, kind: str, pointer: str) -> None:
        """Append ``name = load kind, pointer`` for a name that later text knows."""
        self.instructions += 1
        self._lines.append(f"  {name} = load {kind}, ptr {pointer}")

    def label(self, hint: str) -> str:
        """A fresh block name (without ``%``)."""
        self._count += 1
        return f"{hint}{self._count}"

    def start(self, label: str) -> None:
        """Begin block ``label``; the previous block must already be terminated."""
        self._lines.append(f"{label}:")
        self.current = label

    def render(self) -> str:
        """The function's text."""
        return "\n".join([self._header, "entry:", *self._allocas, *map(str, self._lines[1:]), "}"])
