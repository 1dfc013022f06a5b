"""The syntax tree of a function of the user's, with its true lines and columns.

Input: a code object. Output: the tree of that function alone.
Invariant: what cannot be converted without changing what the program means is refused here, with the reason.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import linecache
from types import CodeType
from typing import Any

Definition = ast.FunctionDef | ast.Lambda

GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
FRAMES = frozenset({"locals", "vars", "eval", "exec", "dir"})
"""Built-in functions that look at the variables of whoever calls them."""
CHOICES = (ast.If, ast.While, ast.For, ast.IfExp, ast.BoolOp, ast.Assert, ast.Return)


class Refused(Exception):
    """Why a function is not converted."""


def definition_of(code: CodeType) -> Definition:
    """The tree of the function with this code.

    Raises:
        Refused: there is no source, or the function is of a kind that is not converted.
    """
    if code.co_flags & GENERATORS:
        raise Refused("it is a generator or a coroutine")
    if code.co_name == "<lambda>":
        found: Definition = _lambda_of(code)
    else:
        found = _def_of(code)
    _check(found)
    private = _class_of(code.co_qualname)
    if private is not None:
        found = _Private(private).visit(found)
    return found


def _lines_of(code: CodeType) -> list[str]:
    """The lines of the file with this code."""
    linecache.checkcache(code.co_filename)
    # Python 3.13 has lines for "<string>", of whatever was evaluated last.
    lines = [] if code.co_filename == "<string>" else linecache.getlines(code.co_filename)
    if not lines and not code.co_filename.startswith("<"):
        try:
            lines = inspect.findsource(code)[0]
        except (OSError, TypeError):
            lines = []
    if len(lines) < code.co_firstlineno:
        raise Refused("its source cannot be read")
    return lines


def _def_of(code: CodeType) -> ast.FunctionDef:
    """The tree of a function that begins where its code says."""
    lines = _lines_of(code)
    first = code.co_firstlineno - 1
    text = "".join(inspect.getblock(lines[first:]))
    indented = text[:1].isspace()
    before = "\n" * (first - 1) + "if 1:\n" if indented else "\n" * first
    try:
        tree = ast.parse(before + text)
    except (SyntaxError, ValueError) as error:
        raise Refused(f"its source cannot be read ({error})") from None
    node: Any = tree.body[0]
    if indented and isinstance(node, ast.If):
        node = node.body[0]
    if not isinstance(node, ast.FunctionDef) or not code.co_name.endswith(node.name):
        raise Refused("its source was changed since it was loaded")
    return node


_parsed: dict[str, tuple[int, ast.Module]] = {}
"""Files with lambdas: their trees, by name, with the hash of the text."""


def _lambda_of(code: CodeType) -> ast.Lambda:
    """The tree of a lambda, which its columns tell from others on the same line."""
    text = "".join(_lines_of(code))
    kept = _parsed.get(code.co_filename)
    if kept is None or kept[0] != hash(text):
        try:
            kept = _parsed[code.co_filename] = hash(text), ast.parse(text)
        except (SyntaxError, ValueError) as error:
            raise Refused(f"its source cannot be read ({error})") from None
    names = code.co_varnames[: code.co_argcount]
    places = [
        (line, column, end, end_column)
        for line, end, column, end_column in code.co_positions()
        if None not in (line, end, column, end_column) and end_column
    ]
    candidates = [
        node
        for node in ast.walk(kept[1])
        if isinstance(node, ast.Lambda)
        and node.lineno == code.co_firstlineno
        and tuple(arg.arg for arg in [*node.args.posonlyargs, *node.args.args]) == names
        and all(_inside(node.body, place) for place in places)
    ]
    if not candidates:
        raise Refused("its source was changed since it was loaded")
    if len(candidates) > 1 and not places:
        raise Refused("there are several lambdas on its line")
    found = max(candidates, key=lambda node: (node.body.lineno, node.body.col_offset))
    copy: ast.Lambda = _copy(found)
    return copy


def _inside(node: ast.expr, place: tuple[Any, ...]) -> bool:
    """Whether a place in the source lies in an expression."""
    begin, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
    return begin <= place[:2] and place[2:] <= end


def _copy(node: Any) -> Any:
    """A tree of its own, with the same places."""
    if isinstance(node, list):
        return [_copy(each) for each in node]
    if not isinstance(node, ast.AST):
        return node
    # Not all fields that the object names: the library marks nodes, also some that all trees share.
    fields = (name for name in type(node)._fields if hasattr(node, name))
    made = type(node)(**{name: _copy(getattr(node, name)) for name in fields})
    return ast.copy_location(made, node)


def _check(node: Definition) -> None:
    """Refuse what would mean something else after the conversion."""
    for each in ast.walk(node):
        if isinstance(each, ast.Global | ast.Nonlocal):
            kind = "global" if isinstance(each, ast.Global) else "nonlocal"
            raise Refused(f"it writes the {kind} variable {each.names[0]} (line {each.lineno})")
        if isinstance(each, ast.Yield | ast.YieldFrom | ast.Await | ast.AsyncFor | ast.AsyncWith):
            raise Refused(f"it holds a generator or a coroutine (line {each.lineno})")
        if isinstance(each, ast.NamedExpr):
            raise Refused(f"it assigns inside of an expression with := (line {each.lineno})")
        if isinstance(each, ast.Match):
            raise Refused(f"it uses match (line {each.lineno})")
        if isinstance(each, ast.ClassDef):
            raise Refused(f"it defines a class (line {each.lineno})")
        if isinstance(each, ast.Try | ast.TryStar) and _chooses(each):
            raise Refused(f"there is control flow inside of try (line {each.lineno})")
        if isinstance(each, ast.With) and _chooses(each) and _swallows(each):
            raise Refused(f"there is control flow inside of a with that swallows errors (line {each.lineno})")
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in FRAMES:
            raise Refused(f"it calls {each.func.id}() (line {each.lineno})")


def _chooses(node: ast.AST) -> bool:
    """Whether there is control flow inside of a statement."""
    return any(isinstance(each, CHOICES) for each in ast.walk(node) if each is not node)


def _swallows(node: ast.With) -> bool:
    """Whether a statement is ``with suppress(...)``, or pytest's ``raises``."""
    return any(
        ast.unparse(item.context_expr.func).rpartition(".")[2] in ("suppress", "raises")
        for item in node.items
        if isinstance(item.context_expr, ast.Call)
    )


def _class_of(qualname: str) -> str | None:
    """The class whose private names a function writes: ``C`` of ``f.<locals>.C.method``."""
    parts = qualname.split(".")
    for outer, inner in reversed(list(itertools.pairwise(parts))):
        if outer != "<locals>" and inner != "<locals>":
            return outer
    return None


class _Private(ast.NodeTransformer):
    """``self.__x`` as Python writes it inside of a class: ``self._C__x``."""

    def __init__(self, of: str) -> None:
        self.prefix = "_" + of.lstrip("_")

    def _name(self, name: str) -> str:
        private = name.startswith("__") and not name.endswith("__") and self.prefix != "_"
        return self.prefix + name if private else name

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = self._name(node.attr)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._name(node.id)
        return node
