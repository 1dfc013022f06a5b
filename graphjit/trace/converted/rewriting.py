"""Steps of a conversion that `diastatic-malt` does not do as we need them: calls, comparisons, errors, lines.

Input: syntax trees. Output: syntax trees.
Invariants: a function is called from the user's frame, with the user's expression around it, as before. An
operand is computed once.
"""

from __future__ import annotations

import ast
from typing import Any

from malt.pyct import anno, ast_util

Place = tuple[int, int, int, int]


def mark_places(tree: ast.AST) -> None:
    """Remember where each node stands, also in what is made of it. A statement of several lines stands where
    it begins.
    """
    for node in ast.walk(tree):
        if hasattr(node, "lineno"):
            found: Any = node
            end = found.end_lineno, found.end_col_offset
            if isinstance(node, ast.stmt) and end[0] != found.lineno:
                end = found.lineno, found.col_offset + 1
            anno.setanno(node, anno.Basic.ORIGIN, (found.lineno, found.col_offset, *end))


def place(tree: ast.AST, line: int) -> ast.AST:
    """A copy of a tree in which each node stands where the user wrote what it was made of: where it is known,
    else where the first node inside stands, else where the one around it does.
    """
    # The library's nodes may occur in several places.
    copy: ast.AST = ast_util.copy_clean(tree, preserve_annos={anno.Basic.ORIGIN})
    _find(copy)
    _place(copy, (line, 0, line, 0))
    return copy


_FOUND = "graphjit_place"


def _find(node: ast.AST) -> Place | None:
    """The place of a node, or of the first one inside that has one."""
    if _is_ours(node):
        return None
    inside = [found for child in ast.iter_child_nodes(node) if (found := _find(child)) is not None]
    own: Place | None = anno.getanno(node, anno.Basic.ORIGIN, default=None)
    place = own or next(iter(inside), None)
    if place is not None:
        anno.setanno(node, _FOUND, place)
    return place


def _place(node: Any, around: Place) -> None:
    found: Place = anno.getanno(node, _FOUND, default=around)
    if _is_ours(node):
        # Who looks for the name that is called where a call begins (`trace.numpy.patches`) finds the user's.
        found = *around[:2], *around[:2]
    if "lineno" in node._attributes:
        node.lineno, node.col_offset, node.end_lineno, node.end_col_offset = found
    for child in ast.iter_child_nodes(node):
        _place(child, found)


def operator(name: str, *args: ast.expr) -> ast.Call:
    """A call of one of our operators."""
    function = ast.Attribute(ast.Name("ag__", ast.Load()), name, ast.Load())
    return ast.Call(function, list(args), [])


def thunk(value: ast.expr) -> ast.Lambda:
    """``lambda: value``."""
    nothing = ast.arguments(
        posonlyargs=[], args=[], vararg=None, kwonlyargs=[], kw_defaults=[], kwarg=None, defaults=[]
    )
    return ast.Lambda(nothing, value)


def like(node: ast.AST, made: Any) -> Any:
    """``made``, at the place of ``node``."""
    found = anno.getanno(node, anno.Basic.ORIGIN, default=None)
    if found is not None:
        anno.setanno(made, anno.Basic.ORIGIN, found)
    return made


def prepared(node: Any) -> Any:
    """The tree without annotations, defaults and decorators, errors marked, ``assert`` as ``if``."""
    node = _Prepared().visit(node)
    node.args.defaults = [ast.Constant(None) for _ in node.args.defaults]
    node.args.kw_defaults = [each and ast.Constant(None) for each in node.args.kw_defaults]
    if isinstance(node, ast.FunctionDef):
        node.decorator_list = []
    return node


class _Prepared(ast.NodeTransformer):
    """What is done before anything is analysed."""

    def __init__(self) -> None:
        self.first: list[str | None] = []
        """The first parameters of the functions around."""

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return self._function(node)

    def _function(self, node: Any) -> ast.AST:
        args = [*node.args.posonlyargs, *node.args.args]
        self.first.append(args[0].arg if args else None)
        node = self.generic_visit(node)
        self.first.pop()
        return node  # type: ignore[no-any-return]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is None:
            return like(node, ast.Pass())  # type: ignore[no-any-return]
        return like(node, ast.Assign(targets=[node.target], value=node.value))  # type: ignore[no-any-return]

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self.generic_visit(node)
        if not __debug__:
            return like(node, ast.Pass())  # type: ignore[no-any-return]
        error = like(
            node, ast.Call(ast.Name("AssertionError", ast.Load()), [node.msg] if node.msg else [], [])
        )
        test = like(node.test, ast.UnaryOp(ast.Not(), node.test))
        return like(node, ast.If(test, [self.visit(like(node, ast.Raise(error, None)))], []))  # type: ignore[no-any-return]

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        for part in ast.walk(node):
            if isinstance(part, ast.FormattedValue):
                text = ast.Constant(ast.unparse(part.value))
                part.value = like(part.value, operator("shown", part.value, text))
        self.generic_visit(node)
        if node.exc is not None:
            node.exc = like(node.exc, operator("raised", node.exc))
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            target = like(node.target, ast.Name(node.target.id, ast.Load()))
            node.value = like(node.value, operator("added_to", target, node.value))
        return node

    def visit_withitem(self, node: ast.withitem) -> ast.AST:
        self.generic_visit(node)
        node.context_expr = like(node.context_expr, operator("asked", node.context_expr))
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self._target(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return self._target(node)

    def _target(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Store | ast.Del):
            node.value = like(node.value, operator("changed", node.value))
        return node  # type: ignore[no-any-return]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args and self.first[-1]:
            node.args = [ast.Name("__class__", ast.Load()), ast.Name(self.first[-1], ast.Load())]
        return node


class Calls(ast.NodeTransformer):
    """``f(x)`` becomes ``ag__.converted(f)(x)``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not _is_ours(node.func):
            node.func = like(node.func, operator("converted", node.func))
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        decorators, node.decorator_list = node.decorator_list, []
        self.generic_visit(node)
        node.decorator_list = decorators
        return node


def _is_ours(function: ast.AST) -> bool:
    """Whether the conversion wrote what is called."""
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and (function.value.id == "ag__" or function.value.id.startswith(("fscope", "lscope")))
    )


COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
}


def chain(node: ast.Compare) -> ast.expr:
    """``a < b < c`` as a call that computes ``b`` once, and ``c`` only where ``a < b``."""
    if len(node.ops) == 1:
        return node
    signs = ast.Tuple([ast.Constant(COMPARISONS[type(op)]) for op in node.ops], ast.Load())
    rest = ast.Tuple([like(each, thunk(each)) for each in node.comparators], ast.Load())
    return like(node, operator("chain", node.left, signs, rest))  # type: ignore[no-any-return]
