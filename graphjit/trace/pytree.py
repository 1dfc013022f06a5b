"""Nested arguments and results.

Job: take apart and put together tuples, lists, dicts, named tuples and registered classes, by optree.
Invariants: dict keys keep their insertion order; None is a leaf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from optree import PyTreeSpec as TreeSpec
else:
    TreeSpec = Any

NAMESPACE = "graphjit"
Class = TypeVar("Class", bound=type)


_kept: list[Any] = []


@cache
def _optree() -> ModuleType:
    """optree, loaded on first need: importing it would take a third of the time that importing graphjit may take."""
    import optree

    # One switch for the namespace: a function may iterate over a dict argument, so the order is part of its meaning (and the native entry
    # walks dicts in that order).  The context manager is kept: collected, it would undo the switch.
    order = optree.dict_insertion_ordered(True, namespace=NAMESPACE)
    order.__enter__()
    _kept.append(order)
    return optree


def flatten(tree: Any) -> tuple[list[Any], TreeSpec]:
    """Leaves and structure."""
    return _optree().tree_flatten(tree, none_is_leaf=True, namespace=NAMESPACE)


def unflatten(spec: TreeSpec, leaves: Iterable[Any]) -> Any:
    """Inverse of `flatten`."""
    return _optree().tree_unflatten(spec, leaves)


def is_leaf(value: Any) -> bool:
    """Whether ``value`` is no container."""
    return _optree().tree_is_leaf(value, none_is_leaf=True, namespace=NAMESPACE)


def tree_map(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """``function`` on corresponding leaves."""
    return _optree().tree_map(function, tree, *rest, none_is_leaf=True, namespace=NAMESPACE)


def register_pytree_node(
    cls: Class,
    flatten: Callable[[Any], tuple[Sequence[Any], Any]],
    unflatten: Callable[[Any, Sequence[Any]], Any],
) -> Class:
    """Let instances of ``cls`` be arguments and results.

    Args:
        cls: the class.
        flatten: ``(instance) -> (children, static data)``.
        unflatten: ``(static data, children) -> instance``.
    """
    return _optree().register_pytree_node(cls, flatten, unflatten, namespace=NAMESPACE)  # type: ignore[arg-type]


def register_dataclass(cls: Class) -> Class:
    """Let instances of a dataclass be arguments and results; every field is a child.  Usable as a decorator."""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]

    def take(instance: Any) -> tuple[list[Any], None]:
        return [getattr(instance, name) for name in names], None

    def put(_: None, children: Sequence[Any]) -> Any:
        return cls(**dict(zip(names, children, strict=True)))

    return register_pytree_node(cls, take, put)
