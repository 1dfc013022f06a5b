"""Native functions written the way a C programmer reads them.

Values carry types and operators, brackets read and write memory, variables change, and `if_`, `loop` and
`switch` are blocks of Python. What a C programmer would write as ::

    i64 count(object *list, object *wanted) {
        i64 found = 0;
        if (list->type != &PyList_Type) return -1;
        for (i64 i = 0; i < list->size; i++)
            if (list->list_items[i] == wanted) found = found + 1;
        return found;
    }

is written here as ::

    with source.function("count", "i64", list="object", wanted="object") as (w, list, wanted):
        found = w.variable("found", "i64", 0)
        with w.if_(list["type"] != w.symbol("PyList_Type")):
            w.ret(-1)
        with w.loop(0, list["size"]) as i:
            with w.if_(list["list_items"][i] == wanted):
                found.set(found + 1)
        w.ret(found)

Types are strings: ``i1`` to ``i64``; ``u64``, which compares and divides without a sign; the name of a struct
for a pointer to one; ``T[]`` for a pointer to the first of several ``T``; ``ptr`` for any other pointer.

The text holds no stack slots for variables: where control flow meets, phi nodes join their values (`ssa.py`).
So it needs no optimisation afterwards, and which Python function wrote what makes no difference to the
machine code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import EllipsisType
from typing import Any

from graphjit.backend.llvm.writing.fields import GLOBAL, WORD, Fields
from graphjit.backend.llvm.writing.ssa import Block, Blocks, Branch
from graphjit.backend.llvm.writing.text import Module

_SIZES = {"i1": 1, "i8": 1, "i32": 4, "i64": 8, "u64": 8}


class Source:
    """The text of a module whose functions know each other's types."""

    def __init__(self, name: str, externals: Mapping[str, str], structs: Mapping[str, Fields]) -> None:
        """Begin a module.

        Args:
            externals: what stands outside: name -> signature, ``i64 (ptr, object)``, or `GLOBAL`.
            structs: name -> fields.
        """
        self.module = Module(name)
        self.structs = structs
        self._externals = externals
        self._signatures: dict[str, str] = {}

    @contextmanager
    def function(
        self,
        name: str,
        result: str = "void",
        attributes: str = "nounwind",
        linkage: str = "",
        /,
        **parameters: str,
    ) -> Iterator[tuple[Any, ...]]:
        """Define a function: yields its body, under construction, and its arguments."""
        self._signatures[name] = f"{result} ({', '.join(parameters.values())})"
        body = Body(self, result)
        yield body, *(Value(body, type, f"%{label}") for label, type in parameters.items())
        if body.open and result == "void":
            body.ret()
        listed = ", ".join(f"{self.kind(type)} %{label}" for label, type in parameters.items())
        head = f"define {linkage} {self.kind(result)} @{name}({listed}) {attributes} {{"
        text = f"{head}\n{body.text()}\n}}"
        self.module.ensure(name, lambda _: text)

    def add_global(self, name: str, definition: str) -> None:
        """Define a global: ``add_global("count", "internal global i64 0")``."""
        self.module.add_global(name, f"@{name} = {definition}")

    def render(self) -> str:
        """The module as LLVM assembly."""
        return self.module.render()

    def kind(self, type: str) -> str:
        """How LLVM writes a type."""
        if type in self.structs or type.endswith("[]"):
            return "ptr"
        return "i64" if type == "u64" else type

    def signature(self, name: str) -> tuple[str, list[str]]:
        """Result and parameters of a function; what stands outside is declared on first use."""
        text = self._signatures.get(name)
        if text is None:
            text = self._signatures[name] = self._externals[name]
            result, parameters = _parts(text)
            listed = ", ".join(map(self.kind, parameters))
            self.module.declare(name, f"declare {self.kind(result)} @{name}({listed})")
        return _parts(text)

    def refer(self, name: str) -> str:
        """The name of a function or global in the text; what stands outside is declared on first use."""
        if self._externals.get(name) == GLOBAL:
            self.module.add_global(name, f"@{name} = external global i8")
        elif name in self._externals:
            self.signature(name)
        return f"@{name}"


def _parts(signature: str) -> tuple[str, list[str]]:
    """``i64 (ptr, i32)`` taken apart."""
    result, rest = signature.split(" ", 1)
    return result, [part for part in rest[1:-1].split(", ") if part]


class Value:
    """A value of a type; operators write instructions, brackets access memory."""

    __hash__ = object.__hash__

    def __init__(self, body: Body, type: str, name: str) -> None:
        self.body = body
        self.type = type
        self._name = name

    @property
    def name(self) -> str:
        """What stands for it in the text."""
        return self._name

    def __getitem__(self, key: str | Operand) -> Value:
        """Read a field of the struct, or an item, that this pointer points to."""
        place = self.address(key)
        return self.body.load(place.type.removesuffix("[]"), place)

    def __setitem__(self, key: str | Operand, value: Operand) -> None:
        """Write a field of the struct, or an item, that this pointer points to."""
        place = self.address(key)
        self.body.store(place.type.removesuffix("[]"), value, place)

    def address(self, key: str | Operand) -> Value:
        """Where a field or an item stands."""
        body = self.body
        if isinstance(key, str):
            type, offset = body.source.structs[self.type][key]
            moved = f"getelementptr i8, ptr {self.name}, i64 {offset}"
            return body.op(type + "[]", moved) if offset else Value(body, type + "[]", self.name)
        item = body.source.kind(self.type.removesuffix("[]"))
        if not isinstance(key, Value) and key == 0:
            return Value(body, self.type, self.name)
        return body.op(self.type, f"getelementptr {item}, ptr {self.name}, i64 {body.operand(key, 'i64')}")

    def offset(self, count: Operand) -> Value:
        """This pointer moved by ``count`` bytes."""
        if not isinstance(count, Value) and count == 0:
            return Value(self.body, self.type, self.name)
        moved = f"getelementptr i8, ptr {self.name}, i64 {self.body.operand(count, 'i64')}"
        return self.body.op(self.type, moved)

    def to(self, type: str) -> Value:
        """The same bits seen as another type; integers are cut, or widened by zeros."""
        old, new = self.body.source.kind(self.type), self.body.source.kind(type)
        if old == new:
            return Value(self.body, type, self.name)
        if old == "ptr" or new == "ptr":
            how = "ptrtoint" if old == "ptr" else "inttoptr"
        else:
            how = "trunc" if int(old[1:]) > int(new[1:]) else "zext"
        return self.body.op(type, f"{how} {old} {self.name} to {new}")

    def is_null(self) -> Value:
        """Whether this is the null pointer."""
        return self == None  # noqa: E711

    def __invert__(self) -> Value:
        return self._with("xor", 1 if self.type == "i1" else -1)

    def _with(self, how: str, other: Operand) -> Value:
        kind = self.body.source.kind(self.type)
        return self.body.op(self.type, f"{how} {kind} {self.name}, {self.body.operand(other, self.type)}")

    def _compared(self, relation: str, other: Operand) -> Value:
        kind = self.body.source.kind(self.type)
        if relation not in ("eq", "ne"):
            relation = ("u" if self.type == "u64" else "s") + relation
        test = f"icmp {relation} {kind} {self.name}, {self.body.operand(other, self.type)}"
        return self.body.op("i1", test)

    def __add__(self, other: Operand) -> Value:
        return self._with("add", other)

    def __sub__(self, other: Operand) -> Value:
        return self._with("sub", other)

    def __mul__(self, other: Operand) -> Value:
        return self._with("mul", other)

    def __floordiv__(self, other: Operand) -> Value:
        return self._with("udiv" if self.type == "u64" else "sdiv", other)

    def __and__(self, other: Operand) -> Value:
        return self._with("and", other)

    def __or__(self, other: Operand) -> Value:
        return self._with("or", other)

    def __xor__(self, other: Operand) -> Value:
        return self._with("xor", other)

    def __lshift__(self, other: Operand) -> Value:
        return self._with("shl", other)

    def __rshift__(self, other: Operand) -> Value:
        return self._with("lshr", other)

    def __eq__(self, other: Operand) -> Value:  # type: ignore[override]
        return self._compared("eq", other)

    def __ne__(self, other: Operand) -> Value:  # type: ignore[override]
        return self._compared("ne", other)

    def __lt__(self, other: Operand) -> Value:
        return self._compared("lt", other)

    def __le__(self, other: Operand) -> Value:
        return self._compared("le", other)

    def __gt__(self, other: Operand) -> Value:
        return self._compared("gt", other)

    def __ge__(self, other: Operand) -> Value:
        return self._compared("ge", other)


Operand = Value | int | None
"""A value, or a constant that takes the type of what it meets; None is the null pointer."""


class Variable(Value):
    """A value that may be set again; what it stands for is looked up where it is used."""

    def __init__(self, body: Body, type: str, hint: str) -> None:
        super().__init__(body, type, hint)
        self.hint = hint
        self.kind = body.source.kind(type)

    @property
    def name(self) -> str:
        """What stands for its value at this point of the text."""
        return self.body.held(self)

    def now(self) -> Value:
        """Its value at this point, which stays when the variable changes."""
        return Value(self.body, self.type, self.name)

    def set(self, value: Operand) -> None:
        """Give it another value from here on."""
        self.body.hold(self, self.body.operand(value, self.type))


class Label:
    """A place further down to which `Body.goto` leads."""

    def __init__(self, block: Block) -> None:
        self.block = block


class Body(Blocks):
    """The body of a function under construction."""

    def __init__(self, source: Source, result: str) -> None:
        super().__init__()
        self.source = source
        self._result = result
        self._loops: list[tuple[Block, Block]] = []
        """Of each loop around this point: where `continue_` and `break_` lead."""
        self._ended: tuple[int, Branch, Block] | None = None
        """The last `if_`, to which an `else_` may belong: number of lines, branch, what follows."""

    # Plain instructions

    def op(self, type: str, text: str) -> Value:
        """Write an instruction with a result."""
        name = self.fresh("v")
        self.do(f"{name} = {text}")
        return Value(self, type, name)

    def operand(self, value: Operand, type: str) -> str:
        """What stands for an operand of that type in the text."""
        if isinstance(value, Value):
            kind = self.source.kind
            assert value.type == type or kind(value.type) == kind(type), f"this is {value.type}, not {type}"
            return value.name
        if type == "i1":
            return "true" if value else "false"
        return "null" if value is None else str(value)

    def symbol(self, name: str, type: str = "ptr") -> Value:
        """The address of a function or global."""
        return Value(self, type, self.source.refer(name))

    def constant(self, value: Operand, type: str) -> Value:
        """A constant of that type; an integer may stand for a pointer."""
        text = self.operand(value, type)
        number = self.source.kind(type) == "ptr" and value is not None
        return Value(self, type, f"inttoptr (i64 {text} to ptr)" if number else text)

    def load(self, type: str, place: Value, how: str = "") -> Value:
        """Read memory; ``how`` is an ordering, for what several threads access."""
        kind, size = self.source.kind(type), _SIZES.get(type, WORD)
        access = f"load atomic {kind}, ptr {place.name} {how}" if how else f"load {kind}, ptr {place.name}"
        return self.op(type, f"{access}, align {size}")

    def store(self, type: str, value: Operand, place: Value, how: str = "") -> None:
        """Write memory; ``how`` is an ordering, for what several threads access."""
        text, size = f"{self.source.kind(type)} {self.operand(value, type)}", _SIZES.get(type, WORD)
        access = f"store atomic {text}, ptr {place.name} {how}" if how else f"store {text}, ptr {place.name}"
        self.do(f"{access}, align {size}")

    def fetch(self, how: str, place: Value, operand: Operand, order: str) -> Value:
        """Change memory in one step, say by ``add`` or ``xchg``: what was there before."""
        type = place.type.removesuffix("[]")
        text = f"{self.source.kind(type)} {self.operand(operand, type)}"
        return self.op(type, f"atomicrmw {how} ptr {place.name}, {text} {order}")

    def swap_if(self, place: Value, expected: Operand, value: Operand) -> Value:
        """Write memory if it holds what is expected, in one step: whether it did."""
        type = place.type.removesuffix("[]")
        kind = self.source.kind(type)
        pair = f"{kind} {self.operand(expected, type)}, {kind} {self.operand(value, type)}"
        done = self.op("pair", f"cmpxchg ptr {place.name}, {pair} seq_cst seq_cst")
        return self.op("i1", f"extractvalue {{ {kind}, i1 }} {done.name}, 1")

    def choose(self, condition: Value, a: Value, b: Operand) -> Value:
        """``condition ? a : b``, both of which are computed."""
        kind = self.source.kind(a.type)
        pair = f"{kind} {a.name}, {kind} {self.operand(b, a.type)}"
        return self.op(a.type, f"select i1 {condition.name}, {pair}")

    def call(self, name: str, *arguments: Operand) -> Value:
        """Call a function by its name."""
        result, parameters = self.source.signature(name)
        return self._call(f"@{name}", result, parameters, arguments)

    def call_at(self, pointer: Value, signature: str, *arguments: Operand) -> Value:
        """Call the function that a pointer points to."""
        return self._call(pointer.name, *_parts(signature), arguments)

    def _call(self, callee: str, result: str, parameters: list[str], arguments: tuple[Operand, ...]) -> Value:
        kind = self.source.kind(result)
        if "..." in parameters:  # the rest are values, which have types of their own
            kind = f"{kind} ({', '.join(map(self.source.kind, parameters))})"
            rest = arguments[len(parameters) - 1 :]
            parameters = parameters[:-1] + [value.type for value in rest if isinstance(value, Value)]
        assert len(parameters) == len(arguments), f"{callee} takes {len(parameters)} arguments"
        pairs = zip(parameters, arguments, strict=True)
        listed = ", ".join(f"{self.source.kind(type)} {self.operand(value, type)}" for type, value in pairs)
        text = f"call {kind} {callee}({listed})"
        if result == "void":
            self.do(text)
            return Value(self, "void", "")
        return self.op(result, text)

    def local(self, type: str, count: int = 1) -> Value:
        """A pointer to memory on the stack, for what a call writes through a pointer."""
        kind = self.source.kind(type)
        shape = kind if count == 1 else f"[{count} x {kind}]"
        return Value(self, type + "[]", self.slot(f"{shape}, align {16 if count > 2 else WORD}"))

    def stack_bytes(self, count: Value) -> Value:
        """A pointer to so many bytes on the stack, which stay until the function returns."""
        return self.op("ptr", f"alloca i8, i64 {count.name}, align 16")

    # Variables

    def variable(self, hint: str, type: str, value: Operand | EllipsisType = ...) -> Variable:
        """A variable, with its first value if it has one already."""
        variable = Variable(self, type, hint)
        if not isinstance(value, EllipsisType):
            variable.set(value)
        return variable

    # Control flow

    def ret(self, value: Operand | EllipsisType = ...) -> None:
        """``return value;``"""
        if isinstance(value, EllipsisType):
            self.do("ret void")
        else:
            self.do(f"ret {self.source.kind(self._result)} {self.operand(value, self._result)}")
        self.leave()

    @contextmanager
    def if_(self, condition: Value) -> Iterator[None]:
        """``if (condition) { ... }``"""
        then, after = self.block("then"), self.block("after")
        branch = self.split(condition.name, then, after)
        self.enter(then)
        yield
        self.jump(after)
        self.enter(after)
        self._ended = self.length, branch, after

    @contextmanager
    def else_(self) -> Iterator[None]:
        """``else { ... }``, directly after an `if_`."""
        assert self._ended is not None, "no `if_` ends here"
        length, branch, after = self._ended
        assert length == self.length, "something stands between `if_` and `else_`"
        otherwise = self.block("else")
        self.redirect(branch, after, otherwise)
        self.enter(otherwise)
        yield
        self.jump(after)
        self.enter(after)

    @contextmanager
    def forever(self) -> Iterator[None]:
        """``while (true) { ... }``; `break_` leaves it, `continue_` begins it anew."""
        head, after = self.block("loop", sealed=False), self.block("left", sealed=False)
        self.jump(head)
        self.enter(head)
        self._loops.append((head, after))
        yield
        self._loops.pop()
        self.jump(head)
        self.seal(head)
        self.place_block(after)

    @contextmanager
    def loop(self, start: Operand, stop: Operand, step: Operand = 1, type: str = "i64") -> Iterator[Variable]:
        """``for (i = start; i < stop; i += step) { ... }``: yields i."""
        i, body = self.variable("i", type, start), self.block("body")
        head, again, after = (self.block(hint, sealed=False) for hint in ("loop", "again", "left"))
        self.jump(head)
        self.enter(head)
        self.split((i < stop).name, body, after)
        self.enter(body)
        self._loops.append((again, after))
        yield i
        self._loops.pop()
        if again.before:  # something continues
            self.place_block(again)
        if self.open:
            i.set(i + step)
            self.jump(head)
        self.seal(head)
        self.place_block(after)

    def break_(self) -> None:
        """Leave the loop."""
        self.jump(self._loops[-1][1])

    def break_if(self, condition: Value) -> None:
        """Leave the loop if the condition holds."""
        self._jump_if(condition, self._loops[-1][1])

    def continue_(self) -> None:
        """Begin the next turn of the loop."""
        self.jump(self._loops[-1][0])

    @contextmanager
    def switch(self, value: Value) -> Iterator[Callable[[int | None], AbstractContextManager[None]]]:
        """``switch (value) { ... }``: yields ``case``; each ``with case(3):`` ends with a ``break``.

        ``case(None)`` is the default.
        """
        kind, name, place = self.source.kind(value.type), value.name, self.length
        after, targets = self.block("after", sealed=False), dict[int | None, Block]()
        here = self.leave()

        @contextmanager
        def case(number: int | None) -> Iterator[None]:
            block = targets[number] = self.block("default" if number is None else f"case.{number}.")
            block.before.append(here)
            self.enter(block)
            yield
            self.jump(after)

        yield case
        if None not in targets:
            targets[None] = after
            after.before.append(here)
        listed = " ".join(f"{kind} {i}, label %{block.name}" for i, block in targets.items() if i is not None)
        self.insert(place, f"switch {kind} {name}, label %{targets[None].name} [{listed}]")
        self.place_block(after)

    def label(self, hint: str) -> Label:
        """A label that is placed further down."""
        return Label(self.block(hint, sealed=False))

    def goto(self, label: Label) -> None:
        """``goto label;``"""
        self.jump(label.block)

    def goto_if(self, condition: Value, label: Label) -> None:
        """``if (condition) goto label;``"""
        self._jump_if(condition, label.block)

    def goto_unless(self, condition: Value, label: Label) -> None:
        """``if (!condition) goto label;``"""
        follows = self.block("on")
        self.split(condition.name, follows, label.block)
        self.enter(follows)

    def place(self, label: Label) -> None:
        """``label:`` What leads here has been written by now."""
        self.place_block(label.block)

    def _jump_if(self, condition: Value, block: Block) -> None:
        follows = self.block("on")
        self.split(condition.name, block, follows)
        self.enter(follows)
