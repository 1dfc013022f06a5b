"""Read a graph from its printed form, the inverse of `graphjit.ir.printer.print_graph`.

Tests are written in this form, and what ``--dump-passes`` wrote can be read back.

Input: text; comments (from ``#``) and blank lines are ignored. Output: a `Graph` of fresh nodes in the order
of the text.
Invariants: nothing is simplified or merged on the way, so printing the result gives the same lines; what does
not parse, or does not have the type it says, is an `IRError` that names the line. The ops must have been
declared (``import graphjit.ops``).
"""

from __future__ import annotations

import ast
import base64
import binascii
import re
from collections.abc import Hashable
from typing import Any

import numpy as np

from graphjit.errors import GraphjitError, IRError
from graphjit.ir.names import WORD, name_text
from graphjit.ir.node import Body, ConstValue, Graph, Node
from graphjit.ir.opdef import REGISTRY, OpDef
from graphjit.ir.types import DTYPES, TYPE_TEXT, Type, parse_bundle, parse_type

_SPACE = re.compile(r"[ \t]*")
_REFERENCE = re.compile(r"%(\d+)")
_NUMBER = re.compile(r"-?(?:inf|nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)(?!\w)")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_BYTES = re.compile(r"base64:([A-Za-z0-9+/]*=*)")
_TYPE = re.compile(TYPE_TEXT)
_BUNDLE = re.compile(rf"\((?:{TYPE_TEXT}(?:, )?)*\)")
_WORDS: dict[str, Any] = {"True": True, "False": False, "None": None, **DTYPES}


class _Line:
    """A position in a text of several lines, of which one is read."""

    def __init__(self, text: str) -> None:
        self.lines = enumerate(text.splitlines(), 1)
        self.number = 0
        self.text = ""
        self.at = 0

    def next(self) -> bool:
        """Go to the next line that is not empty; whether there is one."""
        for number, text in self.lines:
            self.number, self.text, self.at = number, text, 0
            self.skip()
            if not self.done():
                return True
        return False

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def done(self) -> bool:
        return self.at >= len(self.text) or self.text[self.at] == "#"

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The match at this position, passed over together with the spaces behind it."""
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            self.skip()
        return match

    def mark(self, text: str) -> bool:
        """Whether ``text`` comes next; passes over it if so."""
        if not self.text.startswith(text, self.at):
            return False
        self.at += len(text)
        self.skip()
        return True

    def expect(self, text: str) -> None:
        if not self.mark(text):
            raise self.error(f"{text!r} expected")

    def error(self, why: str) -> IRError:
        return IRError(f"line {self.number}, column {self.at + 1}: {why}: {self.text.strip()}")


def parse_graph(text: str) -> Graph:
    """The graph that ``text`` describes; inverse of `print_graph`.

    Raises:
        IRError: the text is not a graph; the message has the line.
    """
    line = _Line(text)
    if not line.next():
        raise IRError("no graph: the text is empty")
    graph = _graph(line)
    if line.next():
        raise line.error("nothing may follow the return")
    return graph


def _graph(line: _Line) -> Graph:
    """The graph whose header is the present line, up to its return."""
    name = _header(line)
    nodes: dict[int, Node] = {}
    inputs: list[Node] = []
    while True:
        if not line.done():
            raise line.error("unexpected text")
        if not line.next():
            raise IRError(f"graph {name_text(name)}: the return is missing")
        if (target := line.take(_REFERENCE)) is None:
            line.expect("return")
            outputs = _references(line, nodes)
            if not line.done():
                raise line.error("unexpected text")
            return Graph(name, inputs, outputs)
        if int(target[1]) in nodes:
            raise line.error(f"%{target[1]} is defined twice")
        line.expect("=")
        node = _node(line, nodes)
        nodes[int(target[1])] = node
        if node.op.name == "input":
            inputs.append(node)


def _header(line: _Line) -> str:
    line.expect("graph")
    match = line.take(_STRING)
    if match is not None:
        return str(ast.literal_eval(match[0]))
    match = line.take(WORD)
    if match is None:
        raise line.error("a name expected")
    return match[0]


def _references(line: _Line, nodes: dict[int, Node]) -> list[Node]:
    found = []
    while (match := line.take(_REFERENCE)) is not None:
        node = nodes.get(int(match[1]))
        if node is None:
            raise line.error(f"%{match[1]} is not defined before it is used")
        found.append(node)
    return found


def _node(line: _Line, nodes: dict[int, Node]) -> Node:
    match = line.take(WORD)
    op = REGISTRY.get(match[0]) if match is not None else None
    if op is None:
        raise line.error("the name of an op expected" if match is None else f"unknown op {match[0]!r}")
    args = tuple(_references(line, nodes))
    if op.arity is not None and len(args) != op.arity:
        raise line.error(f"{op.name} takes {op.arity} arguments, not {len(args)}")
    attrs: dict[str, Any] = {}
    while (match := line.take(WORD)) is not None:
        if match[0] in attrs:
            raise line.error(f"attribute {match[0]} is given twice")
        line.expect("=")
        attrs[match[0]] = _value(line)
    if set(attrs) != set(op.attrs):
        raise line.error(f"{op.name} takes attributes {op.attrs}, not {tuple(attrs)}")
    line.expect(":")
    match = line.take(_TYPE) or line.take(_BUNDLE)
    if match is None:
        raise line.error("a type such as f64[3,4] expected")
    try:
        type: Any = parse_bundle(match[0]) if match[0].startswith("(") else parse_type(match[0])
        if op.name == "const":
            attrs = {"value": ConstValue(_array(attrs["value"], type))}
        return _checked(op, args, {name: attrs[name] for name in op.attrs}, type)
    except (GraphjitError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise line.error(str(error)) from None


def _checked(op: OpDef, args: tuple[Node, ...], attrs: dict[str, Hashable], type: Type) -> Node:
    if op.name not in ("input", "const"):
        inferred = op.infer(*[arg.type for arg in args], **attrs)
        if inferred != type:
            raise IRError(f"{op.name} has type {inferred}, not {type}")
    return Node(op, args, attrs, type)


def _value(line: _Line) -> Any:
    """One attribute value; a nested constant stays a list (or bytes) until its type is known."""
    if line.mark("{"):
        if not line.done() or not line.next():
            raise line.error("a graph expected on the lines that follow")
        body = _graph(line)
        if not line.next():
            raise IRError(f"graph {name_text(body.name)}: the closing brace is missing")
        line.expect("}")
        return Body(body)
    for opening, closing, make in (("(", ")", tuple), ("[", "]", list)):
        if line.mark(opening):
            items = []
            while not line.mark(closing):
                items.append(_value(line))
                if not line.mark(","):
                    line.expect(closing)
                    break
            return make(items)
    if (match := line.take(_NUMBER)) is not None:
        is_integer = match[0].lstrip("-").isdecimal()
        return int(match[0]) if is_integer else float(match[0])
    if (match := line.take(_STRING)) is not None:
        return ast.literal_eval(match[0])
    if (match := line.take(_BYTES)) is not None:
        return base64.b64decode(match[1], validate=True)
    if (match := line.take(WORD)) is not None and match[0] in _WORDS:
        return _WORDS[match[0]]
    raise line.error("a value expected")


def _array(value: Any, type: Type) -> np.ndarray:
    if isinstance(value, bytes):
        array = np.frombuffer(value, dtype=type.dtype)
    else:
        flat: list[Any] = []
        _flatten(value, type.shape, flat)
        array = np.array(flat, dtype=type.dtype)
        exact = all(item == given or item != item for item, given in zip(array.tolist(), flat, strict=True))
        if type.dtype.kind != "f" and not exact:
            raise IRError(f"a constant of {type} cannot hold {value}")
    if array.size != type.size:
        raise IRError(f"{array.size} elements for a constant of {type}")
    return array.reshape(type.shape)


def _flatten(value: Any, shape: tuple[int, ...], flat: list[Any]) -> None:
    if not shape:
        if not isinstance(value, bool | int | float):
            raise IRError(f"a number expected, not {value!r}")
        flat.append(value)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise IRError(f"a list of {shape[0]} expected")
    for item in value:
        _flatten(item, shape[1:], flat)
