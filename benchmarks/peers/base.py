"""What every library is asked for, and what can be built from that for all of them alike.

Input: a `Workload`, its arguments as NumPy pytrees. Output: a `Prepared` call in the library's own arrays.
Invariant: conversion of arguments happens before the clock runs, and what a call returns is complete only
after `wait` (JAX computes asynchronously).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy
import optree
import scipy.optimize

from benchmarks.workload import Pytree, Transforms, Workload


def no_wait(result: Any) -> None:
    """For libraries whose calls return when the work is done."""


@dataclass(frozen=True)
class Prepared:
    """`fn(*arguments)` is what gets timed; `wait(result)` returns when the result is there."""

    fn: Callable[..., Any]
    arguments: tuple[Any, ...]
    wait: Callable[[Any], Any] = no_wait


class Peer(Protocol):
    """`derivative` is True where the peer gives gradients, False where it only runs the function forward."""

    name: str
    derivative: bool

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        """Raises LookupError, with the reason, where the workload is not written for this library."""
        ...

    def convert(self, array: numpy.ndarray) -> Any:
        """An array in the library's own type."""
        ...


def program(workload: Workload, f: Callable[..., Any], library: Transforms) -> Callable[..., Any]:
    """The function that is timed (see `benchmarks.workload.Transform`), from the library's
    transformations.
    """

    def jvp(x: Any, tangent: Any, *rest: Any) -> Any:
        return library.jvp(lambda at: f(at, *rest), (x,), (tangent,))

    def vjp(x: Any, cotangent: Any, *rest: Any) -> Any:
        out, pullback = library.vjp(lambda at: f(at, *rest), x)
        return out, pullback(cotangent)[0]

    def hvp(x: Any, direction: Any, *rest: Any) -> Any:
        if library.hvp is not None:
            return library.hvp(lambda at: f(at, *rest), (x,), (direction,))[0]
        return library.jvp(lambda at: library.grad(f, 0)(at, *rest), (x,), (direction,))[1]

    directional = {"jvp": jvp, "vjp": vjp, "hvp": hvp}
    if workload.transform in directional:
        fn: Callable[..., Any] = directional[workload.transform]
    elif workload.transform == "jit":
        fn = f
    else:
        fn = getattr(library, workload.transform)(f, workload.argnums)
    return library.jit(fn if workload.in_axes is None else library.vmap(fn, workload.in_axes))


def prepare_minimizer(peer: Peer, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
    """SciPy's L-BFGS-B as its users call it: NumPy arrays and floats in and out, the library's arrays in
    between.
    """
    inner = peer.prepare(replace(workload, transform="value_and_grad"), arguments)

    def objective(x: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        value, gradient = inner.fn(peer.convert(x))
        return float(value), numpy.asarray(gradient)

    def fn(start: numpy.ndarray) -> numpy.ndarray:
        return scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B").x

    return Prepared(fn, arguments)


def flatten(tree: Pytree) -> tuple[list[Any], Any]:
    """Leaves and structure."""
    found, structure = optree.tree_flatten(tree)
    return found, structure


def unflatten(structure: Any, leaves: Sequence[Any]) -> Any:
    """The tree of that structure."""
    return optree.tree_unflatten(structure, leaves)


def map_leaves(convert: Callable[[Any], Any], tree: Pytree) -> Any:
    """`convert` on every leaf, plain numbers included, as an array."""
    return optree.tree_map(lambda leaf: convert(numpy.asarray(leaf)), tree)
