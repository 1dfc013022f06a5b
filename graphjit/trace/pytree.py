"""What is a container among arguments and results, and how it is taken apart into leaves and put together
again.

Job: by optree, take apart tuples, lists, dicts of any class, named tuples, dataclasses and the classes that
the user registered. Everything else is a leaf, None too. A dataclass or a class of dicts that nobody
registered is registered when a first instance of it is met.
Input: a tree of Python values. Output: its leaves and its structure.
Invariants: dict keys keep their insertion order; what comes back is of the class that went in.

Example: ``{"w": x, "rest": (y, None)}`` has the leaves ``x``, ``y``, ``None``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from graphjit.errors import TraceError
from graphjit.trace.marks import declares
from graphjit.trace.statics import Exact

if TYPE_CHECKING:
    from optree import PyTreeSpec as TreeSpec
else:
    TreeSpec = Any

NAMESPACE = "graphjit"
Class = TypeVar("Class", bound=type)


_kept: list[Any] = []


@cache
def _optree() -> ModuleType:
    """optree, loaded on first need: importing it would take a third of the time that importing graphjit may
    take.
    """
    import optree

    # One switch for the namespace: a function may iterate over a dict argument, so the order is part of its
    # meaning (and the native entry walks dicts in that order).  The context manager is kept: collected, it
    # would undo the switch.
    order = optree.dict_insertion_ordered(True, namespace=NAMESPACE)
    order.__enter__()
    _kept.append(order)
    return optree


def flatten(tree: Any) -> tuple[list[Any], TreeSpec]:
    """Leaves and structure."""
    while True:
        leaves, spec = _optree().tree_flatten(tree, none_is_leaf=True, namespace=NAMESPACE)
        adopted = [
            _adopted(leaf) for leaf in leaves if type(leaf) not in _plain
        ]  # all of them before the next round
        if True not in adopted:
            return leaves, spec


def unflatten(spec: TreeSpec, leaves: Iterable[Any]) -> Any:
    """Inverse of `flatten`."""
    return _optree().tree_unflatten(spec, leaves)


def is_leaf(value: Any) -> bool:
    """Whether ``value`` is no container."""
    _adopted(value)
    return _optree().tree_is_leaf(value, none_is_leaf=True, namespace=NAMESPACE)


def is_named_tuple(value: Any) -> bool:
    """Whether ``value`` is a named tuple, of a class that nobody registered."""
    kind = type(value)
    return (
        issubclass(kind, tuple)
        and kind is not tuple
        and not _registered(kind)
        and _optree().is_namedtuple_class(kind)
    )


def tree_map(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """``function`` on every leaf, with the leaves at the same places of trees of the same structure.

    Raises:
        ValueError: a tree has another structure than the first.
    """
    leaves, spec = flatten(tree)
    columns = [leaves]
    for other in rest:
        others, found = flatten(other)
        if found != spec:
            raise ValueError(f"containers of different structure: {spec} and {found}")
        columns.append(others)
    return unflatten(spec, map(function, *columns))


def is_plain(spec: TreeSpec) -> bool:
    """Whether a structure has tuples, lists and dicts only: making those runs no code of the user."""
    return spec.type in (None, tuple, list, dict) and all(is_plain(child) for child in spec.children())


def texts(spec: TreeSpec, name: str) -> list[str]:
    """Every leaf of a tree called ``name`` as users write it: ``name['w'][0].field``."""
    return [accessor.codify(name) for accessor in spec.accessors()]


def prefix_leaves(prefix: Any, tree: Any, what: str) -> list[Any]:
    """For each leaf of ``tree`` the leaf of ``prefix`` that stands for it: ``(0, None)`` says 0 for every
    leaf of the first of a pair.

    Raises:
        ValueError: ``prefix`` has another structure than the outer part of ``tree``.
    """
    flatten(tree)  # registers what nobody registered
    try:
        spread = _optree().tree_broadcast_prefix(prefix, tree, none_is_leaf=True, namespace=NAMESPACE)
    except ValueError as error:
        raise ValueError(f"{what}={prefix!r} does not fit the values it is for: {error}") from None
    return list(_optree().tree_leaves(spread, none_is_leaf=True, namespace=NAMESPACE))


# ---------------------------------------------------------------------------------- classes nobody registered

_plain: set[type] = set()
"""Classes of leaves that are no containers: nothing more needs to be known about them."""

MAX_PLAIN = 10_000
"""Classes remembered so."""


def _adopted(value: Any) -> bool:
    """Register the class of a dataclass instance or of a dict of its own class; whether that happened now."""
    kind = type(value)
    if kind in _plain:
        return False
    if (
        declares(value, "__dataclass_fields__")
        and kind.__module__.partition(".")[0] != NAMESPACE
        and not _registered(kind)
    ):
        register_dataclass(kind)
    elif issubclass(kind, dict) and kind is not dict and not _registered(kind):
        _register_dict(kind)
    else:
        if len(_plain) < MAX_PLAIN:
            _plain.add(kind)
        return False
    return True


def _registered(kind: type) -> bool:
    entry = _optree().register_pytree_node.get(kind, namespace=NAMESPACE)
    return entry is not None and entry.type is kind  # all named tuples share an entry


def _register_dict(kind: type) -> None:
    """Dicts of a class of their own (attribute dictionaries): their items are children, the class stays."""

    def take(instance: Any) -> tuple[list[Any], Any, list[Any]]:
        keys = list(dict.keys(instance))
        factory = instance.default_factory if isinstance(instance, defaultdict) else None
        return list(dict.values(instance)), (tuple(keys), factory), keys

    def put(aux: tuple[tuple[Any, ...], Any], children: Sequence[Any]) -> Any:
        keys, factory = aux
        items = dict(zip(keys, children, strict=True))
        if factory is None:
            # Its own __init__ first: some link their attributes to their items there.
            try:
                made: Any = kind(items)
                if list(dict.keys(made)) == list(keys) and all(
                    dict.__getitem__(made, key) is items[key] for key in keys
                ):
                    return made
            except Exception:  # a signature of its own
                pass
        made = kind.__new__(kind)  # type: ignore[call-overload]
        if factory is not None:
            made.default_factory = factory
        dict.update(made, items)
        return made

    _optree().register_pytree_node(
        kind, take, put, path_entry_type=_optree().MappingEntry, namespace=NAMESPACE
    )


def register_pytree_node(
    cls: Class,
    flatten: Callable[[Any], tuple[Sequence[Any], Any]],
    unflatten: Callable[[Any, Sequence[Any]], Any],
) -> Class:
    """Let instances of a class be arguments and results, as containers of arrays and numbers.

    Parameters
    ----------
    cls : type
        The class.
    flatten : callable
        ``flatten(instance)`` returns the contents, a sequence, and data that do not change within a compiled
        program. The data must be hashable: each value of them compiles code of its own.
    unflatten : callable
        ``unflatten(data, contents)`` makes an instance of them.

    Returns
    -------
    type
        The class.

    Examples
    --------
    >>> import graphjit
    >>> class Interval:
    ...     def __init__(self, low, high):
    ...         self.low, self.high = low, high
    >>> _ = graphjit.register_pytree_node(
    ...     Interval, lambda i: ((i.low, i.high), None), lambda _, ends: Interval(*ends)
    ... )
    >>> graphjit.grad(lambda i: i.high**2 - i.low)(Interval(1.0, 3.0)).high
    np.float64(6.0)
    """
    if _registered(cls):  # by an earlier call with an instance of it
        _optree().unregister_pytree_node(cls, namespace=NAMESPACE)

    def take(instance: Any) -> tuple[Sequence[Any], Any]:
        children, static = flatten(instance)
        try:
            return children, Exact(static)
        except TypeError:  # it cannot be a part of a signature, but of other trees
            return children, static

    def put(static: Any, children: Sequence[Any]) -> Any:
        return unflatten(static.value if type(static) is Exact else static, children)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class of named tuples was a container before
        return _optree().register_pytree_node(cls, take, put, namespace=NAMESPACE)  # type: ignore[arg-type]


def register_dataclass(
    cls: Class, data_fields: Sequence[str] | None = None, meta_fields: Sequence[str] | None = None
) -> Class:
    """Say which fields of a dataclass are data and which are static. Usable as a decorator.

    Without it all fields are data but those of ``dataclasses.field(metadata={"static": True})``.

    Parameters
    ----------
    cls : type
        The dataclass. Registering it again replaces what was said before.
    data_fields : sequence of str, optional
        Names of the fields that hold arrays, numbers or containers of them.
    meta_fields : sequence of str, optional
        Names of the fields that are fixed, hashable Python values; each combination compiles its own code.

    Returns
    -------
    type
        The class.

    Raises
    ------
    TypeError
        The class is no dataclass.
    ValueError
        A name is no field, or a field is in both lists or in none.

    Examples
    --------
    >>> import dataclasses, graphjit
    >>> Power = dataclasses.make_dataclass("Power", ["base", "exponent"])
    >>> _ = graphjit.register_dataclass(Power, ["base"], ["exponent"])
    >>> graphjit.grad(lambda p: p.base**p.exponent)(Power(3.0, 2)).base
    np.float64(6.0)
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"register_dataclass takes a dataclass, not {cls!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if data_fields is None and meta_fields is None:
        meta_fields = [name for name, field in fields.items() if field.metadata.get("static")]
        data_fields = [name for name in fields if name not in meta_fields]
    data, meta = tuple(data_fields or ()), tuple(meta_fields or ())
    if sorted((*data, *meta)) != sorted(fields):
        raise ValueError(
            f"register_dataclass({cls.__name__}): data_fields {data} and meta_fields {meta} must name each of its fields {tuple(fields)} once"
        )
    late = frozenset(name for name, field in fields.items() if not field.init)
    take, put = _dataclass_parts(cls, data, meta, late)
    if _registered(cls):
        _optree().unregister_pytree_node(cls, namespace=NAMESPACE)
    _optree().register_pytree_node(
        cls, take, put, path_entry_type=_optree().DataclassEntry, namespace=NAMESPACE
    )  # type: ignore[arg-type]
    return cls


def _dataclass_parts(
    cls: type, data: tuple[str, ...], meta: tuple[str, ...], late: frozenset[str]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """How optree takes an instance apart and puts it together; fields in ``late`` are no arguments of
    ``__init__`` and are set after it.
    """

    def take(instance: Any) -> tuple[list[Any], Any, tuple[str, ...]]:
        static = tuple(getattr(instance, name) for name in meta)
        for name, value in zip(meta, static, strict=True):
            try:
                hash(value)
            except TypeError:
                raise TraceError(
                    f"the field {name!r} of {cls.__name__} is static, so it must be hashable, not {type(value).__name__}: static values are "
                    "compiled in. Make it a tuple, or a field of data"
                ) from None
        return [getattr(instance, name) for name in data], tuple(map(Exact, static)), data

    def put(static: Any, children: Sequence[Any]) -> Any:
        values = dict(zip((*data, *meta), (*children, *(exact.value for exact in static)), strict=True))
        made = cls(**{name: value for name, value in values.items() if name not in late})
        for name, value in values.items():
            if name in late:
                object.__setattr__(made, name, value)
        return made

    return take, put
