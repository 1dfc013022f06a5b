"""The libraries a workload can run under, each behind the same three questions.

Input: a `Workload`, its arguments as NumPy pytrees. Output: a `Prepared` call in the library's own arrays.
Invariant: conversion of arguments happens before the clock runs, and what a call returns is complete only after
`wait` (JAX computes asynchronously). A library that is not installed is reported, never required.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy
import optree
import scipy.special

from benchmarks import native
from benchmarks.workload import Namespace, Pytree, Workload


def _no_wait(result: Any) -> None:
    """For libraries whose calls return when the work is done."""


@dataclass(frozen=True)
class Prepared:
    """`fn(*arguments)` is what gets timed; `wait(result)` returns when the result is there."""

    fn: Callable[..., Any]
    arguments: tuple[Any, ...]
    wait: Callable[[Any], Any] = _no_wait


class Peer(Protocol):
    """`derivative` is True where the peer gives gradients, False where it only runs the function forward."""

    name: str
    derivative: bool

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared: ...


class Graphjit:
    name = "graphjit"
    derivative = True

    def __init__(self) -> None:
        self._graphjit = importlib.import_module("graphjit")

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        transform = self._graphjit.value_and_grad if workload.with_value else self._graphjit.grad
        f = workload.make(Namespace(numpy, scipy.special))
        return Prepared(transform(f, argnums=workload.argnums), arguments)


class NumpyForward:
    """The function alone, without its gradient, as NumPy runs it."""

    name = "numpy"
    derivative = False

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        return Prepared(workload.make(Namespace(numpy, scipy.special)), arguments)


class Autograd:
    name = "autograd"
    derivative = True

    def __init__(self) -> None:
        self._autograd = importlib.import_module("autograd")
        self._namespace = Namespace(
            importlib.import_module("autograd.numpy"), importlib.import_module("autograd.scipy.special")
        )

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        transform = self._autograd.value_and_grad if workload.with_value else self._autograd.grad
        return Prepared(transform(workload.make(self._namespace), workload.argnums), arguments)


class Jax:
    """JAX with 64-bit types on; arguments are device arrays already, which is its fastest way in."""

    name = "jax"
    derivative = True

    def __init__(self) -> None:
        self._jax = importlib.import_module("jax")
        self._jax.config.update("jax_enable_x64", True)
        self._namespace = Namespace(importlib.import_module("jax.numpy"), importlib.import_module("jax.scipy.special"))

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        jax = self._jax
        transform = jax.value_and_grad if workload.with_value else jax.grad
        fn = jax.jit(transform(workload.make(self._namespace), argnums=workload.argnums))
        converted = jax.tree_util.tree_map(self._namespace.np.asarray, arguments)
        return Prepared(fn, jax.block_until_ready(converted), jax.block_until_ready)


class Torch:
    """PyTorch, eager: the workload's port, then one call of `torch.autograd.grad`."""

    name = "torch"
    derivative = True

    def __init__(self) -> None:
        self._torch = importlib.import_module("torch")

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.torch is None:
            raise LookupError(f"{workload.name} has no PyTorch port")
        torch, port, with_value = self._torch, workload.torch, workload.with_value
        argnums = workload.argnums if isinstance(workload.argnums, tuple) else (workload.argnums,)
        tensors = list(optree.tree_map(torch.from_numpy, optree.tree_map(numpy.asarray, arguments)))
        for position in argnums:
            tensors[position] = optree.tree_map(lambda tensor: tensor.requires_grad_(), tensors[position])
        leaves, structure = optree.tree_flatten(tuple(tensors[position] for position in argnums))
        single = not isinstance(workload.argnums, tuple)

        def fn(*call_arguments: Any) -> Any:
            value = port(torch, *call_arguments)
            gradients = optree.tree_unflatten(structure, torch.autograd.grad(value, leaves))
            gradients = gradients[0] if single else gradients
            return (value.detach(), gradients) if with_value else gradients

        return Prepared(fn, tuple(tensors))


class Native:
    """Hand-written C, `-ffast-math` and vector math library included: the limit to measure against."""

    name = "native C"
    derivative = True

    def __init__(self) -> None:
        native.load()

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.native is None:
            raise LookupError(f"{workload.name} has no native reference")
        return Prepared(native.KERNELS[workload.native].function(fast=True), arguments)


PEERS: dict[str, Callable[[], Peer]] = {
    "graphjit": Graphjit,
    "numpy": NumpyForward,
    "autograd": Autograd,
    "jax": Jax,
    "torch": Torch,
    "native C": Native,
}


def available(names: Sequence[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers among `names` that can be had, and for the others the reason why not."""
    found: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = PEERS[name]()
        except (ImportError, FileNotFoundError) as error:
            missing[name] = str(error)
    return found, missing


def version(name: str) -> str:
    """Installed version of the distribution `name`, empty if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def leaves(tree: Pytree) -> list[numpy.ndarray]:
    """The leaves of any library's result as NumPy arrays, dicts in sorted key order."""
    return [numpy.asarray(leaf) for leaf in optree.tree_leaves(tree)]


def largest_difference(ours: Pytree, theirs: Pytree) -> float:
    """Largest entry of |ours - theirs| of any leaf, relative to the largest entry of that leaf of `theirs`.

    Raises ValueError when the trees differ in their number of leaves, or leaves in shape or dtype.
    """
    left, right = leaves(ours), leaves(theirs)
    if [(leaf.shape, leaf.dtype) for leaf in left] != [(leaf.shape, leaf.dtype) for leaf in right]:
        raise ValueError(f"results differ in shape or dtype: {_shapes(left)} against {_shapes(right)}")
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if a.size:
            scale = float(numpy.max(numpy.abs(b))) or 1.0
            worst = max(worst, float(numpy.max(numpy.abs(a - b))) / scale)
    return worst


def _shapes(arrays: list[numpy.ndarray]) -> str:
    return ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
