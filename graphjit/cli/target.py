"""Which function ``FILE.py:FUNCTION`` names, and which arguments it is traced with.

The arguments come from ``--arg``, from ``FUNCTION.example``, or from ``EXAMPLES`` in the file.

Invariant: the function is traced, never run; arrays made here are zeros of the right type.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from graphjit.cli.report import UsageError
from graphjit.errors import IRError
from graphjit.ir.types import parse_type


def load_target(text: str) -> tuple[Callable[..., Any], ModuleType]:
    """The function (``name`` or ``Class.name``) and the module that ``FILE.py:FUNCTION`` names.

    Raises:
        UsageError: no such file or function, or the file does not import.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise UsageError(
            f"{text!r} names no function; write FILE.py:FUNCTION, for example examples/textbook.py:loss"
        )
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"there is no file {file}")
    module = _import(path)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        defined = [
            key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        ]
        functions = ", ".join(key for key in defined if callable(getattr(module, key)))
        raise UsageError(f"{file} has no function {name!r}; it has {functions or 'none'}")
    return found, module


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickles look their module up there
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"importing {path} failed: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    return module


def arguments(function: Callable[..., Any], module: ModuleType, texts: Sequence[str]) -> tuple[Any, ...]:
    """Arguments for ``function``: from ``texts`` if there are any, else its declared example.

    Raises:
        UsageError: a text is neither a type nor a number, there is no example, or the function takes other
        arguments.
    """
    name = getattr(function, "__name__", "")
    example: Any = tuple(map(parse_argument, texts)) if texts else getattr(function, "example", None)
    if example is None:
        example = getattr(module, "EXAMPLES", {}).get(name)
    if example is None:
        example = _without_arguments(function, name)
    if not isinstance(example, tuple):
        raise UsageError(f"the example of {name} is a {type(example).__name__}; declare a tuple of arguments")
    try:
        inspect.signature(function).bind(*example)
    except TypeError as error:
        raise UsageError(f"{name} does not take {len(example)} arguments: {error}") from None
    return example


def _without_arguments(function: Callable[..., Any], name: str) -> tuple[()]:
    """The example of a function that needs none."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    if not needed:
        return ()
    takes = ", ".join(needed)
    raise UsageError(
        f"{name} takes ({takes}): pass --arg for each, such as --arg 'f64[256,784]' or --arg 2.0, or declare "
        f"{name}.example = (...) or EXAMPLES = {{{name!r}: (...)}} beside it"
    )


def parse_argument(text: str) -> Any:
    """``f64[3,4]`` to an array of zeros, ``f32[]`` to a NumPy scalar, and Python literals to themselves."""
    try:
        type = parse_type(text)
    except IRError as error:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise UsageError(f"--arg: {error}, a number or another Python literal") from None
    return np.zeros(type.shape, type.dtype) if type.shape else type.dtype.type(0)
