"""The text of an LLVM module, collected piece by piece.

`Module` holds globals, declarations and functions; `Function` is a list of instructions with fresh names.
Every definition and declaration appears once, however often it was asked for. ``Module.render()`` gives the
whole.

Printing text is about forty times faster than building llvmlite's objects. The text is built from the
structure of the loop IR and never patched afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from graphjit.ir.names import one_line
from graphjit.limits import Limits, host_limits

_SYMBOL = re.compile(r"@([\w.$]+)")


def c_string(text: str) -> str:
    """Type and value of a constant with that text and the zero at its end."""
    content = text.encode() + b"\0"
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:02X}" for byte in content
    )
    return f'[{len(content)} x i8] c"{plain}"'


class Module:
    """One LLVM module under construction: globals, declarations and function bodies in order.

    ``limits`` are the thresholds of what is written into it: those of this machine, unless a test gives
    others.
    """

    def __init__(self, name: str, limits: Limits | None = None) -> None:
        self.name = one_line(name)  # that of a user's function, in a comment
        self.limits = limits or host_limits()
        self._declarations: dict[str, str] = {}
        self._globals: dict[str, str] = {}
        self._functions: dict[str, str | None] = {}
        self._drivers: set[str] = set()

    def declare(self, name: str, line: str) -> None:
        """Add ``declare ...`` for an external function or intrinsic once; ``line`` is the whole text."""
        assert f"@{name}(" in line, f"{name} is not what is declared: {line}"
        self._declarations.setdefault(name, line)

    def add_global(self, name: str, line: str) -> None:
        """Add a global variable or constant once; ``line`` is the whole text including ``@name = ``."""
        self._globals.setdefault(name, line)

    def ensure(self, name: str, make: Callable[[Module], str], driver: bool = False) -> None:
        """Define function ``name`` once; ``make(module)`` returns its whole text. ``driver`` as in
        `Function`.
        """
        if name not in self._functions:
            if driver:
                self._drivers.add(name)
            self._functions[name] = None
            self._functions[name] = make(self)

    def add_function(self, function: Function) -> None:
        """Add a finished function."""
        if function.driver:
            self._drivers.add(function.name)
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

    def drivers(self) -> tuple[str, ...]:
        """Names of the functions that decide and call."""
        return tuple(name for name in self._functions if name in self._drivers)

    def kernels(self) -> tuple[str, ...]:
        """Names of all other functions."""
        return tuple(name for name in self._functions if name not in self._drivers)

    def symbols(self, names: Collection[str]) -> set[str]:
        """Everything global that some functions refer to."""
        return {symbol for name in names for symbol in _SYMBOL.findall(self._functions[name] or "")}

    def reached(self, names: Collection[str]) -> list[str]:
        """Some functions and all others of this module that they call, directly or not."""
        found = dict.fromkeys(names)
        pending = list(names)
        while pending:
            for symbol in sorted(self.symbols([pending.pop()])):
                if symbol not in found and self._functions.get(symbol):
                    found[symbol] = None
                    pending.append(symbol)
        return list(found)

    def lines(self, names: Collection[str]) -> int:
        """How long some functions are."""
        return sum((self._functions[name] or "").count("\n") for name in names)

    def render_only(self, names: Collection[str], addresses: Mapping[str, int]) -> str:
        """Some functions and what they use; functions that are not among them stand at known
        ``addresses``.
        """
        used = self.symbols(names)
        parts = [f"; ModuleID = '{self.name}'"]
        parts += [line for name, line in self._globals.items() if name in used]
        parts += [
            line
            for name, line in self._declarations.items()
            if name not in self._functions and _SYMBOL.findall(line)[0] in used
        ]
        texts = "\n".join(filter(None, (self._functions[name] for name in names)))
        if addresses:
            texts = _SYMBOL.sub(
                lambda found: (
                    f"inttoptr (i64 {addresses[found[1]]} to ptr)" if found[1] in addresses else found[0]
                ),
                texts,
            )
        return "\n".join([*parts, texts]) + "\n"


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
        self.driver = False
        """Whether it only decides and calls: better code would be no faster."""

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
        """A stack slot for what is read before the next such slot is written: all of one kind are the
        same.
        """
        if kind not in self._shared:
            self._shared[kind] = self.alloca(kind, align)
        return self._shared[kind]

    def zeroed_slot(self) -> str:
        """A stack slot for a number that is zero when the function begins: always the same."""
        if "zeroed" not in self._shared:
            self._shared["zeroed"] = self.alloca("i64")
            self._allocas.append(f"  store i64 0, ptr {self._shared['zeroed']}")
        return self._shared["zeroed"]

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

    def branches(self, which: str, count: int) -> list[str]:
        """Go to the block with the number ``which`` of ``count``, or to the nearest; their labels."""
        labels = [self.label("branch") for _ in range(count)]
        below = self.op(f"icmp slt i64 {which}, 0")
        which = self.op(f"select i1 {below}, i64 0, i64 {which}")
        cases = " ".join(f"i64 {i}, label %{label}" for i, label in enumerate(labels[:-1]))
        self.do(f"switch i64 {which}, label %{labels[-1]} [ {cases} ]")
        return labels

    @contextmanager
    def now_and_then(self, counter: str, every: int) -> Iterator[None]:
        """What is written meanwhile is done in the last of each ``every`` steps, a power of two.

        So short loops never do it.
        """
        due, go_on = self.label("due"), self.label("next")
        rest = self.op(f"and i64 {counter}, {every - 1}")
        self.do(f"br i1 {self.op(f'icmp eq i64 {rest}, {every - 1}')}, label %{due}, label %{go_on}")
        self.start(due)
        yield
        self.do(f"br label %{go_on}")
        self.start(go_on)

    def render(self) -> str:
        """The function's text."""
        return "\n".join([self._header, "entry:", *self._allocas, *map(str, self._lines[1:]), "}"])
