"""Built-in functions that ask for truth values or integers, in converted code: ``max``, ``min``, ``bool``,
``int``, ``any``, ``all``, ``range``.

Input: their arguments. Output: what Python gives, traced where an argument is.
Invariant: without traced arguments they are Python's.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphjit.ir.types import I64
from graphjit.trace.converted.choices import pick
from graphjit.trace.converted.containers import changed
from graphjit.trace.converted.loops.iteration import range_
from graphjit.trace.converted.values import is_traced, truth
from graphjit.trace.recording.tracer import Array, Number


def _of_any_traced(values: Iterable[Any]) -> bool:
    return any(map(is_traced, values))


def _extreme(function: Callable[..., Any], better: Callable[[Any, Any], Any], of_array: Any) -> Any:
    """``max`` or ``min``: the first of the best ones."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs.keys() - {"default"}:
            return function(*args, **kwargs)
        values: Sequence[Any] = args
        if len(args) == 1:
            if isinstance(args[0], Array) and len(args[0].shape) == 1 and is_traced(args[0]):
                return of_array(args[0]) if len(args[0]) else function((), **kwargs)
            values = args[0] if isinstance(args[0], list | tuple) else tuple(args[0])
        if not _of_any_traced(values):
            return function(values, **kwargs)
        best, *others = values
        for value in others:
            best = pick(truth(better(value, best)), value, best)
        return best

    return call


def bool_(*args: Any) -> Any:
    """``bool(x)``."""
    return truth(args[0]) if len(args) == 1 else bool(*args)


def int_(*args: Any, **kwargs: Any) -> Any:
    """``int(x)``: towards zero."""
    if len(args) != 1 or kwargs or not is_traced(args[0]) or args[0]._node.shape:
        return int(*args, **kwargs)
    trace = args[0]._trace
    node = trace.node(args[0])
    if node.dtype.kind == "f":
        node = trace.node(np.trunc(args[0]))
    return Number(trace, trace.convert(node, I64))


def _quantified(function: Callable[[Iterable[Any]], bool], of_array: Any, stops: bool) -> Any:
    """``any`` or ``all``: the elements before the one that decides are asked."""

    def call(values: Any) -> Any:
        if isinstance(values, Array) and len(values.shape) == 1 and is_traced(values):
            return of_array(values)
        found: Any = not stops
        for value in values:
            answer = truth(value)
            if isinstance(answer, bool):
                if answer is stops:
                    return stops
            else:
                found = answer if isinstance(found, bool) else (found | answer if stops else found & answer)
        return found

    return call


def next_(iterator: Any, *default: Any) -> Any:
    """``next(iterator)``."""
    return next(changed(iterator), *default)


REPLACED: dict[Any, Callable[..., Any]] = {
    builtins.range: range_,
    builtins.max: _extreme(max, lambda a, b: a > b, np.max),
    builtins.min: _extreme(min, lambda a, b: a < b, np.min),
    builtins.bool: bool_,
    builtins.int: int_,
    builtins.any: _quantified(any, np.any, True),
    builtins.next: next_,
    builtins.all: _quantified(all, np.all, False),
}
"""What is called in their place."""
