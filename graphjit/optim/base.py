"""What an optimiser is: a pair of functions, and how such pairs are put together.

Job: the protocol of optax. ``init(params)`` makes a state, ``update(grads, state, params)`` returns what to
add to the parameters and the next state. States are named tuples of arrays, so they are containers like any
other: they may be arguments and results of compiled functions, be donated, be saved.
Invariants: nothing is changed in place; every array keeps its dtype; a leaf that is None stays None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from graphjit.trace.pytree import flatten, prefix_leaves, tree_map, unflatten

Tree: TypeAlias = Any
Schedule: TypeAlias = Callable[[Any], Any]
Mask: TypeAlias = Any


class GradientTransformation(NamedTuple):
    """A step of an optimiser: a function that makes its state, and one that turns gradients into updates.

    Parameters
    ----------
    init : callable
        ``init(params)`` returns the first state.
    update : callable
        ``update(updates, state, params=None)`` returns new updates and the next state.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> def half(updates, state, params=None):
    ...     return {name: 0.5 * update for name, update in updates.items()}, state
    >>> damped = optim.chain(optim.GradientTransformation(lambda params: (), half), optim.sgd(0.1))
    >>> params = {"w": np.ones(2)}
    >>> updates, state = damped.update({"w": np.array([1.0, 2.0])}, damped.init(params), params)
    >>> updates["w"]
    array([-0.05, -0.1 ])
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]


class EmptyState(NamedTuple):
    """The state of a step that remembers nothing.

    Examples
    --------
    >>> from graphjit import optim
    >>> optim.scale(2.0).init({"w": 1.0})
    EmptyState()
    """


class MaskedState(NamedTuple):
    """The state of the step that `masked` applies to some leaves."""

    inner_state: Any


class MaskedNode(NamedTuple):
    """Stands where a leaf was left out."""


# ------------------------------------------------------------------------------------------------------ trees


def each(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """``function`` on the leaves of trees of the same structure, but on those that are None."""
    return tree_map(lambda leaf, *others: None if leaf is None else function(leaf, *others), tree, *rest)


def dtype_of(leaf: Any) -> np.dtype[Any]:
    """That of an array or a traced value, or the one that NumPy gives a Python number."""
    dtype: np.dtype[Any] = leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)
    return dtype


def like(value: Any, leaf: Any) -> Any:
    """A value in the dtype of a leaf. Python's numbers stay: in NumPy they take the dtype of the other."""
    return value.astype(dtype_of(leaf), copy=False) if hasattr(value, "astype") else value


def full_like(tree: Tree, value: float, dtype: Any = None) -> Tree:
    """The same number everywhere. Where there are no axes it is a number and no array, as the results of
    compiled code are: so the first step has the signature of all others.
    """

    def filled(leaf: Any) -> Any:
        array = np.full_like(leaf, value, dtype=dtype)
        return array if array.ndim else array[()]

    return each(filled, tree)


def zeros_like(tree: Tree, dtype: Any = None) -> Tree:
    """Zeros for each leaf."""
    return full_like(tree, 0, dtype)


def scaled(tree: Tree, factor: Any) -> Tree:
    """The leaves times a number, in their own dtypes."""
    return each(lambda leaf: leaf * like(factor, leaf), tree)


def cast(tree: Tree, dtype: Any) -> Tree:
    """Leaves of a dtype, if one is asked for."""
    return tree if dtype is None else each(lambda leaf: leaf.astype(dtype, copy=False), tree)


def new_count() -> Any:
    """The number of steps done, at the start."""
    return np.int32(0)


def increment(count: Any) -> Any:
    """One more step; at the largest number counting ends, as in optax."""
    return np.minimum(count, np.iinfo(np.int32).max - 1) + np.int32(1)


# --------------------------------------------------------------------------------------------- the protocol


def init_empty(params: Tree) -> EmptyState:
    """The ``init`` of a step without state."""
    return EmptyState()


def stateless(function: Callable[[Tree, Tree], Tree]) -> GradientTransformation:
    """A step that remembers nothing: ``function(updates, params)`` returns the new updates."""

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        return function(updates, params), state

    return GradientTransformation(init_empty, update)


def identity() -> GradientTransformation:
    """Leave updates as they are.

    Returns
    -------
    GradientTransformation
        The step, without state.

    Examples
    --------
    >>> from graphjit import optim
    >>> optim.identity().update({"w": 1.0}, optim.identity().init({"w": 3.0}))
    ({'w': 1.0}, EmptyState())
    """
    return stateless(lambda updates, params: updates)


def chain(*args: GradientTransformation) -> GradientTransformation:
    """Apply steps one after the other.

    Parameters
    ----------
    *args : GradientTransformation
        The steps. Each gets the updates that the one before it returned, the first gets the gradients.

    Returns
    -------
    GradientTransformation
        All of them; its state is the tuple of theirs.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> optimiser = optim.chain(optim.clip(1.0), optim.sgd(0.5, momentum=0.9))
    >>> params = np.zeros(2)
    >>> updates, state = optimiser.update(np.array([0.5, 30.0]), optimiser.init(params), params)
    >>> updates
    array([-0.25, -0.5 ])
    """

    def init(params: Tree) -> tuple[Any, ...]:
        return tuple(step.init(params) for step in args)

    def update(updates: Tree, state: Sequence[Any], params: Tree = None) -> tuple[Tree, Any]:
        if len(state) != len(args):
            raise ValueError(
                f"chain of {len(args)} steps got a state of {len(state)}: it must come from its own init"
            )
        after = []
        for step, inner in zip(args, state, strict=True):
            updates, new = step.update(updates, inner, params)
            after.append(new)
        return updates, tuple(after)

    return GradientTransformation(init, update)


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """Add updates to parameters.

    Parameters
    ----------
    params : pytree
        The parameters.
    updates : pytree
        What an optimiser returned for them.

    Returns
    -------
    pytree
        The new parameters, with the dtypes of the old ones.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> optim.apply_updates({"w": np.ones(2, np.float32)}, {"w": np.array([0.5, -0.5])})
    {'w': array([1.5, 0.5], dtype=float32)}
    """
    return each(lambda p, u: p if u is None else like(p + u, p), params, updates)


def masked(inner: GradientTransformation, mask: Mask) -> GradientTransformation:
    """Apply a step to some leaves only; the other ones pass through.

    Parameters
    ----------
    inner : GradientTransformation
        The step.
    mask : pytree of bool or callable
        True for the leaves to which the step applies. One bool may stand for a whole container. Or a function
        that returns such a tree for the parameters.

    Returns
    -------
    GradientTransformation
        The step; its state has nothing for leaves that are left out.

    Examples
    --------
    >>> from graphjit import optim
    >>> step = optim.masked(optim.scale(10.0), {"w": True, "b": False})
    >>> updates = {"w": 1.0, "b": 1.0}
    >>> step.update(updates, step.init(updates))[0]
    {'w': 10.0, 'b': 1.0}
    """

    def chosen(tree: Tree) -> list[bool]:
        return prefix_leaves(mask(tree) if callable(mask) else mask, tree, "mask")

    def without(tree: Tree, flags: list[bool]) -> Tree:
        leaves, spec = flatten(tree)
        return unflatten(spec, [x if flag else MaskedNode() for x, flag in zip(leaves, flags, strict=True)])

    def init(params: Tree) -> MaskedState:
        return MaskedState(inner.init(without(params, chosen(params))))

    def update(updates: Tree, state: MaskedState, params: Tree = None) -> tuple[Tree, MaskedState]:
        flags = chosen(updates)
        some = None if params is None else without(params, flags)
        changed, after = inner.update(without(updates, flags), state.inner_state, some)
        leaves, spec = flatten(updates)
        new = iter(flatten(changed)[0])
        merged = [next(new) if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)]
        return unflatten(spec, merged), MaskedState(after)

    return GradientTransformation(init, update)
