"""Which names the code of a function reads, found in its bytecode.

For example ``lambda x: x * model.weights + bias`` reads the globals ``model`` and ``bias`` and the attribute
``weights``. `find_guards` looks up what stands behind these names.

Functions defined inside of a function count as part of it. Names that no bytecode shows (``eval("K")``) are
not found; where code uses reflection such as ``vars`` or ``getattr`` with a computed name, `CodeNames` says
that it may read any attribute.
"""

from __future__ import annotations

import dis
import functools
import itertools
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

REFLECTION = frozenset(
    {
        "vars",
        "dir",
        "asdict",
        "astuple",
        "getmembers",
        "attrgetter",
        "eval",
        "exec",
        "locals",
        "__dict__",
        "deepcopy",
    }
)
"""Names by which code reads attributes that it does not name."""

APPENDING = frozenset({"append", "extend", "appendleft", "add"})
"""Methods that change a container without looking at what is in it."""


@dataclass(frozen=True)
class CodeNames:
    """What code reads by name."""

    globals: frozenset[str]
    attributes: frozenset[str]
    optional: frozenset[str]
    """Names that may be absent while the code goes on: ``getattr`` with a default, ``hasattr``, a look-up
    inside of ``try``.
    """
    modules: frozenset[str]
    """Modules that it imports."""
    used: frozenset[str]
    """Names whose values it does more with than ``name.append(...)``, which cannot depend on what is in the
    container.
    """
    any_attribute: bool
    """Whether it reads attributes without naming them (`REFLECTION`)."""


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType, without: frozenset[types.CodeType] = frozenset()) -> CodeNames:
    """What a function reads, functions inside of it included, but for those ``without``."""
    instructions = list(dis.get_instructions(code))
    globals_: set[str] = set()
    attributes: set[str] = set()
    modules: set[str] = set()
    names_of = {
        **dict.fromkeys(("LOAD_GLOBAL", "LOAD_NAME"), globals_),
        **dict.fromkeys(("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM", "LOAD_SUPER_ATTR"), attributes),
        "IMPORT_NAME": modules,
    }
    for instruction in instructions:
        names = names_of.get(instruction.opname)
        if names is not None:
            names.add(instruction.argval)
    optional = set(_name_like(code.co_consts)) if globals_ & {"getattr", "hasattr", "globals"} else set()
    any_attribute = bool(
        REFLECTION & globals_
        or REFLECTION & attributes
        or ("getattr" in globals_ and not _getattr_is_constant(instructions))
    )
    if _catches(instructions):  # what is absent now may be there the next time
        optional |= attributes | globals_
    if "globals" in globals_:
        globals_ |= optional
    outer = CodeNames(
        frozenset(globals_),
        frozenset(attributes | optional),
        frozenset(optional),
        frozenset(modules),
        frozenset(_used(instructions, code.co_freevars)),
        any_attribute,
    )
    codes = [each for each in code.co_consts if isinstance(each, types.CodeType) and each not in without]
    inner = [names_in(each, without) for each in codes]
    return _merged(outer, inner) if inner else outer


def _merged(outer: CodeNames, inner: Sequence[CodeNames]) -> CodeNames:
    """The names of a function and of the functions inside of it."""
    return CodeNames(
        outer.globals.union(*(names.globals for names in inner)),
        outer.attributes.union(*(names.attributes for names in inner)),
        outer.optional.union(*(names.optional for names in inner)),
        outer.modules.union(*(names.modules for names in inner)),
        outer.used.union(*(names.used for names in inner)),
        outer.any_attribute or any(names.any_attribute for names in inner),
    )


def _used(instructions: Sequence[dis.Instruction], cells: Sequence[str]) -> Iterator[str]:
    """Names that are loaded, except where the next instruction only appends to the value. A function inside
    that takes one of the ``cells`` over says itself what it does with it.
    """
    for instruction, following in itertools.zip_longest(instructions, instructions[1:]):
        if instruction.opname in ("LOAD_CLOSURE", "LOAD_FAST") and instruction.argval in cells:
            continue
        if instruction.opname.startswith("LOAD_") and type(instruction.argval) is str:
            appends = (
                following is not None
                and following.opname in ("LOAD_METHOD", "LOAD_ATTR")
                and following.argval in APPENDING
            )
            if not appends:
                yield instruction.argval


def _catches(instructions: Sequence[dis.Instruction]) -> bool:
    """Whether code catches exceptions: ``except``, or a ``with`` that may (contextlib.suppress)."""
    return any(instruction.opname == "PUSH_EXC_INFO" for instruction in instructions)


def _name_like(constants: Any) -> Iterator[str]:
    """Strings among the constants that could be names."""
    for constant in constants:
        if type(constant) is str and constant.isidentifier():
            yield constant
        elif type(constant) in (tuple, frozenset):
            yield from _name_like(constant)


def _getattr_is_constant(instructions: Sequence[dis.Instruction]) -> bool:
    """Whether each ``getattr`` is called with a name that is written out: after it comes a string before any
    call is made.
    """
    for i, instruction in enumerate(instructions):
        if instruction.opname == "LOAD_GLOBAL" and instruction.argval == "getattr":
            for later in instructions[i + 1 :]:
                if later.opname == "LOAD_CONST" and type(later.argval) is str:
                    break
                if (
                    later.opname.startswith(("CALL", "LOAD_FAST", "LOAD_DEREF", "LOAD_GLOBAL"))
                    and later is not instructions[i + 1]
                ):
                    return False
    return True
