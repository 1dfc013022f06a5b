"""``graphjit ops``: the declared ops, and one op's whole declaration."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import graphjit
from graphjit.cli.report import UsageError, one_line_errors, table
from graphjit.ir.batching import same_op
from graphjit.ir.opdef import (
    REGISTRY,
    Bilinear,
    Custom,
    Decompose,
    Linear,
    OpDef,
    OverBody,
    Partials,
    Reduce,
    Scalar,
    Scan,
    Special,
    View,
)
from graphjit.trace.numpy import refused
from graphjit.trace.recording.calls import public_name
from graphjit.trace.recording.tracer import FUNCTIONS, UFUNCS

ROOT = Path(graphjit.__file__).parent.parent


def ops(
    name: Annotated[str | None, typer.Argument(help="An op, or a NumPy function such as np.tanh.")] = None,
) -> None:
    """List all ops, or show the whole declaration of one."""
    with one_line_errors():
        typer.echo(listing() if name is None else description(name))


def listing() -> str:
    """One line an op, then the NumPy functions that are written with them."""
    rows = [
        (
            op.name,
            ", ".join(numpy_names(op)),
            type(op.derivative).__name__,
            type(op.lower).__name__,
            op.accuracy or "exact",
        )
        for op in sorted(REGISTRY.values(), key=lambda op: op.name)
    ]
    bound = {name for op in REGISTRY.values() for name in numpy_names(op)}
    traced = {f for f, ours in FUNCTIONS.items() if ours.__module__ != refused.__name__} | set(UFUNCS)
    others = sorted({public_name(function) for function in traced} - bound)
    text = table(("op", "NumPy", "derivative", "lowering", "accuracy"), rows)
    more = textwrap.fill(
        ", ".join(others), 118, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return f"{text}\n\nNumPy functions that are traced into these ops:\n{more}"


def description(name: str) -> str:
    """The declaration of op ``name``, or of the op or implementation behind a NumPy function.

    Raises:
        UsageError: there is neither.
    """
    op = REGISTRY.get(name)
    if op is None:
        wanted = {name, f"np.{name}", f"np.{name.removeprefix('numpy.')}", f"scipy.special.{name}"}
        op = next((op for op in REGISTRY.values() if wanted & set(numpy_names(op))), None)
        if op is None:
            for function, ours in (*FUNCTIONS.items(), *UFUNCS.items()):
                if public_name(function) in wanted:
                    where = file_and_line(inspect.getsourcefile(ours) or "", ours.__code__.co_firstlineno)
                    verb = "refused" if ours.__module__ == refused.__name__ else "traced into ops"
                    return f"{public_name(function)} is {verb} by {where}\n\n{source(ours)}"
            raise UsageError(f"there is no op and no NumPy function {name!r}; `graphjit ops` lists them")
    takes = (
        "any number of arguments"
        if op.arity is None
        else f"{op.arity} argument{'s' if op.arity != 1 else ''}"
    )
    lines = [
        f"{op.name}: {op.doc}",
        f"  declared    {file_and_line(op.file, op.line)}",
        f"  takes       {takes}" + (f", attributes {', '.join(op.attrs)}" if op.attrs else ""),
        f"  NumPy       {', '.join(numpy_names(op)) or 'none'}",
        f"  accuracy    {op.accuracy or 'exact, or correctly rounded'}",
        f"  lowering    {lowering(op)}",
        f"  batch       {batching(op)}",
        f"  derivative  {type(op.derivative).__name__}{reason(op)}",
        *(textwrap.indent(text, "    ") for text in formulas(op)),
    ]
    if isinstance(op.lower, Decompose):
        lines += ["  expansion", textwrap.indent(source(op.lower.expand), "    ")]
    return "\n".join(lines)


def numpy_names(op: OpDef) -> list[str]:
    """The NumPy and SciPy functions that bind to an op, as users write them."""
    return [entry if isinstance(entry, str) else public_name(entry) for entry in op.numpy]


def lowering(op: OpDef) -> str:
    """How the op becomes loops, in words."""
    lower = op.lower
    if isinstance(lower, Scalar):
        return f"Scalar: operation {lower.name} on each element, cost {lower.cost}"
    if isinstance(lower, Reduce):
        return f"Reduce: combiner {lower.combine}"
    if isinstance(lower, Scan):
        return f"Scan: running value with combiner {lower.combine}"
    if isinstance(lower, Special):
        return f"Special: {lower.kind}"
    return (
        "View: an index map, nothing is computed"
        if isinstance(lower, View)
        else "Decompose: rewritten into other ops"
    )


def batching(op: OpDef) -> str:
    """What the op becomes over a batch, in words."""
    if op.batch is None:
        return "none: it has no arguments"
    if isinstance(op.batch, OverBody):
        return "its body, and its rule"
    return "the op itself on one more axis" if op.batch is same_op else "a rule of its own"


def reason(op: OpDef) -> str:
    """Why there is no derivative, where there is none."""
    text = getattr(op.derivative, "reason", "")
    return f": {text}" if text else ""


def formulas(op: OpDef) -> list[str]:
    """Source text of the derivative's formulas."""
    rule = op.derivative
    if isinstance(rule, Partials):
        return [f"d/d argument {i}:\n{_formula(formula)}" for i, formula in enumerate(rule.formulas)]
    if isinstance(rule, Linear):
        return [f"transpose:\n{source(rule.transpose)}"]
    if isinstance(rule, Bilinear):
        return [
            f"transpose in the first argument:\n{source(rule.lhs)}",
            f"in the second:\n{source(rule.rhs)}",
        ]
    if isinstance(rule, Custom):
        return [f"jvp:\n{source(rule.jvp)}", f"vjp:\n{source(rule.vjp)}"]
    return []


def _formula(formula: Any) -> str:
    if callable(formula):
        return source(formula)
    return "  0" if formula is None else f"  {formula}"


def source(function: Callable[..., Any]) -> str:
    """Source text of a rule, indented by two."""
    try:
        text = _lambda(function) if function.__name__ == "<lambda>" else inspect.getsource(function)
    except (OSError, TypeError):
        text = repr(function)
    return textwrap.indent(textwrap.dedent(text).strip("\n"), "  ")


def _lambda(function: Callable[..., Any]) -> str:
    """The text of one lambda among others on its line: the one whose body stands where its code says."""
    places = set(function.__code__.co_positions())
    file = inspect.getsourcefile(function) or ""
    text = "".join(linecache.getlines(file))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Lambda):
            body = node.body
            if (body.lineno, body.end_lineno, body.col_offset, body.end_col_offset) in places:
                return ast.get_source_segment(text, node) or ""
    return inspect.getsource(function)


def file_and_line(file: str, line: int) -> str:
    """``graphjit/ops/powers.py:60``."""
    path = Path(file)
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}"
