"""Which parameters ``static_argnums``, ``donate_argnums`` and their twins by name choose, and what messages
call the leaves of arguments.

Input: the function and what the user wrote. Output: positions and names; texts such as ``params['w']``.
Invariant: a parameter chosen by position is also chosen when it is passed by name, and the other way round.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from graphjit.trace.pytree import TreeSpec, texts
from graphjit.trace.stage import Leaf


def resolve(
    function: Callable[..., Any], nums: Sequence[int], names: Sequence[str], option: str
) -> tuple[tuple[int, ...], frozenset[str]]:
    """Positions and names, each completed from the other by the function's signature; ``option`` is "static"
    or "donate".

    Raises:
        ValueError: the function has no such parameter.
    """
    if not nums and not names:
        return (), frozenset()
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return tuple(nums), frozenset(names)
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    every = {p.name for p in parameters}
    open_ended = any(p.kind == p.VAR_KEYWORD for p in parameters)
    for name in names:
        if name not in every and not open_ended:
            raise ValueError(f"{option}_argnames names {name!r}, which is no parameter of {function!r}")
    for i in nums:
        if not -len(positional) <= i < len(positional) and not any(
            p.kind == p.VAR_POSITIONAL for p in parameters
        ):
            raise ValueError(
                f"{option}_argnums names position {i}, but {function!r} has {len(positional)} positional parameters"
            )
    by_name = [positional.index(name) for name in names if name in positional]
    by_num = [positional[i] for i in nums if -len(positional) <= i < len(positional)]
    return tuple(dict.fromkeys((*nums, *by_name))), frozenset((*names, *by_num))


def positions(nums: Sequence[int], count: int) -> set[int]:
    """``nums`` counted from the start, for a call with ``count`` positional arguments."""
    return {i + count if i < 0 else i for i in nums}


def leaf_names(function: Callable[..., Any], spec: TreeSpec) -> list[str]:
    """The leaves of a call's flattened (args, kwargs) as users write them: ``x``, ``params['w']``,
    ``state.velocity[0]``.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind == p.VAR_POSITIONAL), "args")
    args, kwargs = spec.children()
    names = []
    for i, child in enumerate(args.children()):
        names += texts(child, positional[i] if i < len(positional) else f"{rest}[{i - len(positional)}]")
    for name, child in zip(kwargs.entries(), kwargs.children(), strict=True):
        names += texts(child, str(name))
    return names


def leaf_text(leaf: Leaf) -> str:
    """A leaf of a signature for people."""
    return f"static {leaf.value.value!r}" if leaf.type is None else f"{leaf.kind} {leaf.type}"
