"""A function of the user's with graphjit's functions behind its keywords.

``if x > 0: y = x`` becomes a call of ``if_stmt`` (`operators`) with functions for both branches, and for what
reads and writes the variables. The library `diastatic-malt` (AutoGraph without TensorFlow) rewrites the
syntax tree.

Input: a function. Output: a function with the same globals, cells, defaults and names.
Invariant: the code says that it stands in the user's file, at the user's lines and under the user's names. So
nodes, errors and tracebacks need no translation.
"""

from __future__ import annotations

import ast
import importlib.util  # diastatic-malt uses it without importing it  # noqa: F401
import re
import types
from typing import Any, NamedTuple

from malt.converters import (
    break_statements,
    conditional_expressions,
    continue_statements,
    control_flow,
    functions,
    logical_expressions,
    return_statements,
    variables,
)
from malt.pyct import anno, cfg, naming, qual_names, transformer
from malt.pyct.static_analysis import activity, liveness, reaching_definitions, reaching_fndefs

from graphjit.trace.converted import rewriting
from graphjit.trace.converted.sources import Refused, definition_of
from graphjit.trace.converted.values import CONTROL

_OURS = re.compile(r"(if_body|else_body|loop_body|loop_test|extra_test|get_state|set_state)(_\d+)?$")
"""Functions that the conversion makes."""


class _Made(NamedTuple):
    """What a code object was converted into."""

    code: types.CodeType
    """Of a function that takes the operators and returns the function."""
    original: types.CodeType
    """Kept, so that its id stays its own."""


known: dict[int, _Made | Refused] = {}
"""By the id of a code object."""
_LIMIT = 10_000

OPERATORS = types.SimpleNamespace()
"""``ag__`` in converted code; `operators` fills it."""


def converted_code(code: types.CodeType) -> types.CodeType:
    """The code of a function that takes operators and returns what ``code`` was converted into.

    Raises:
        Refused: it is not converted.
    """
    made = known.get(id(code))
    if made is None:
        if len(known) > _LIMIT:
            known.clear()
        try:
            made = _Made(_convert(code), code)
        except Refused as reason:
            made = reason
            made.code = code  # type: ignore[attr-defined]  # kept too
        known[id(code)] = made
    if isinstance(made, Refused):
        raise made
    return made.code


def instantiate(function: types.FunctionType) -> types.FunctionType:
    """The conversion of ``function``, with its globals, cells and defaults.

    Raises:
        Refused: it is not converted.
    """
    code = converted_code(function.__code__)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    factory = types.FunctionType(
        code, function.__globals__, code.co_name, None, tuple(cells[name] for name in code.co_freevars)
    )
    made: types.FunctionType = factory(OPERATORS)
    made.__defaults__ = function.__defaults__
    made.__kwdefaults__ = function.__kwdefaults__
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(made, name, getattr(function, name))
    return made


def _convert(code: types.CodeType) -> types.CodeType:
    """The code of the function that makes the conversion."""
    node: Any = definition_of(code)
    is_lambda = isinstance(node, ast.Lambda)
    rewriting.mark_places(node)
    name = "lam" if is_lambda else node.name
    try:
        node = _rewritten(rewriting.prepared(node), name, set(code.co_freevars) | set(code.co_names))
    except Refused:
        raise
    except Exception as error:  # the library knows less of Python than Python does
        raise Refused(f"it cannot be rewritten ({type(error).__name__}: {error})") from None
    if is_lambda:
        node = ast.Assign(targets=[ast.Name(name, ast.Store())], value=node)
    free = ", ".join(code.co_freevars)
    around = ast.parse(f"def outer({free}):\n def factory(ag__):\n  pass\n  return {name}\n return factory")
    factory: Any = around.body[0].body[0]  # type: ignore[attr-defined]
    factory.body[0] = node
    placed: Any = rewriting.place(around, code.co_firstlineno)
    flags = code.co_flags & sum(getattr(__import__("__future__"), n).compiler_flag for n in ("annotations",))
    try:
        whole = compile(placed, code.co_filename, "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Refused(f"it cannot be compiled again ({error})") from None
    made = _part(_part(whole, "outer"), "factory")
    return made.replace(
        co_consts=tuple(
            _named(part, code.co_name, code.co_qualname) if isinstance(part, types.CodeType) else part
            for part in made.co_consts
        )
    )


def _part(code: types.CodeType, name: str) -> types.CodeType:
    """The code of a function inside."""
    return next(each for each in code.co_consts if isinstance(each, types.CodeType) and each.co_name == name)


def _named(code: types.CodeType, name: str, qualname: str) -> types.CodeType:
    """Code under the names that the user gave it, and so the code inside of it."""
    parts = []
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            inner = part.co_name
            ours = _OURS.match(inner)
            part = _named(part, name if ours else inner, qualname if ours else f"{qualname}.<locals>.{inner}")
        parts.append(part)
    return code.replace(co_consts=tuple(parts), co_name=name, co_qualname=qualname)


class _Namer(naming.Namer):  # type: ignore[misc]
    """Names of variables: those of the conversion are told apart from the user's."""

    def new_symbol(self, root: str, reserved: Any) -> str:
        name: str = super().new_symbol(CONTROL.get(root, root), reserved)
        return name


class _Context:
    """What the library asks for: nothing besides control flow."""

    class options:
        @staticmethod
        def uses(feature: Any) -> bool:
            return False


class _Nothing:
    """Options of a function, of which there are none."""

    @staticmethod
    def to_ast() -> ast.expr:
        return ast.Constant(None)


class _Functions(functions.FunctionTransformer):  # type: ignore[misc]
    """``with ag__.FunctionScope(...)`` around the body of each function."""

    def _function_scope_options(self, scope: Any) -> Any:
        return _Nothing


class _ControlFlow(control_flow.ControlFlowTransformer):  # type: ignore[misc]
    """Statements as calls. Attributes and items are no variables: `journals` sees what is written there."""

    def _get_block_composite_vars(self, modified: Any, live_in: Any) -> Any:
        return frozenset()


class _Logic(logical_expressions.LogicalExpressionTransformer):  # type: ignore[misc]
    """``and``, ``or``, ``not`` and chained comparisons as calls."""

    def visit_Compare(self, node: Any) -> Any:
        return rewriting.chain(self.generic_visit(node))


def _rewritten(node: Any, name: str, taken: set[str]) -> Any:
    """The tree with calls of operators in place of keywords."""
    namer = _Namer(dict.fromkeys(taken))
    info = transformer.EntityInfo(name=name, source_code="", source_file="", future_features=(), namespace={})
    context = transformer.Context(info, namer, _Context())
    graphs = cfg.build(node)
    node = qual_names.resolve(node)
    node = activity.resolve(node, context, None)
    node = reaching_definitions.resolve(node, context, graphs)
    anno.dup(node, {anno.Static.DEFINITIONS: anno.Static.ORIG_DEFINITIONS})
    node = _Functions(context).visit(activity.resolve(qual_names.resolve(node), context, None))
    node = break_statements.transform(node, context)
    node = continue_statements.transform(node, context)
    node = return_statements.transform(node, context)
    node = rewriting.Calls().visit(node)
    graphs = cfg.build(node)
    node = activity.resolve(qual_names.resolve(node), context, None)
    for analysis in (reaching_definitions, reaching_fndefs, liveness):
        node = analysis.resolve(node, context, graphs)
    node = _ControlFlow(context).visit(node)
    node = conditional_expressions.transform(node, context)
    node = _Logic(context).visit(node)
    return variables.transform(node, context)
