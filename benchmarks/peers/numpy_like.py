"""The libraries that run a workload's own source: graphjit, NumPy, Autograd and JAX."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy
import scipy.special

from benchmarks.peers.base import Prepared, Transforms, map_leaves, prepare_minimizer, program
from benchmarks.workload import Namespace, Pytree, Workload


class Graphjit:
    name = "graphjit"
    derivative = True

    def __init__(self) -> None:
        library = importlib.import_module("graphjit")
        # What grad and value_and_grad return is compiled already.
        self._transforms = Transforms(
            lambda f: f if hasattr(f, "dispatcher") else library.jit(f),
            library.grad,
            library.value_and_grad,
            library.jvp,
            library.vjp,
        )
        self.namespace = Namespace(numpy, scipy.special, library.value_and_grad)

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.transform == "minimize":
            return prepare_minimizer(self, workload, arguments)
        return Prepared(program(workload, workload.make(self.namespace), self._transforms), arguments)

    def convert(self, array: numpy.ndarray) -> Any:
        return array


class NumpyForward:
    """The function alone, without its derivatives, as NumPy runs it."""

    name = "numpy"
    derivative = False

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.transform == "minimize":
            raise LookupError("the optimiser needs a gradient")
        return Prepared(workload.make(Namespace(numpy, scipy.special)), workload.forward_arguments(arguments))

    def convert(self, array: numpy.ndarray) -> Any:
        return array


class Autograd:
    name = "autograd"
    derivative = True

    def __init__(self) -> None:
        library = importlib.import_module("autograd")

        def jvp(f: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
            return library.make_jvp(f)(*primals)(*tangents)

        def vjp(f: Callable[..., Any], x: Any) -> Any:
            pullback, out = library.make_vjp(f)(x)
            return out, lambda cotangent: (pullback(cotangent),)

        self._transforms = Transforms(lambda f: f, library.grad, library.value_and_grad, jvp, vjp)
        self._namespace = Namespace(
            importlib.import_module("autograd.numpy"),
            importlib.import_module("autograd.scipy.special"),
            library.value_and_grad,
        )

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.transform == "minimize":
            return prepare_minimizer(self, workload, arguments)
        return Prepared(program(workload, workload.make(self._namespace), self._transforms), arguments)

    def convert(self, array: numpy.ndarray) -> Any:
        return array


class Jax:
    """JAX with 64-bit types on; arguments are device arrays already, which is its fastest way in."""

    name = "jax"
    derivative = True

    def __init__(self) -> None:
        jax = importlib.import_module("jax")
        jax.config.update("jax_enable_x64", True)
        self._wait = jax.block_until_ready
        self._transforms = Transforms(jax.jit, jax.grad, jax.value_and_grad, jax.jvp, jax.vjp)
        self._namespace = Namespace(
            importlib.import_module("jax.numpy"),
            importlib.import_module("jax.scipy.special"),
            jax.value_and_grad,
        )

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.transform == "minimize":
            return prepare_minimizer(self, workload, arguments)
        fn = program(workload, workload.make(self._namespace), self._transforms)
        return Prepared(fn, self._wait(map_leaves(self.convert, arguments)), self._wait)

    def convert(self, array: numpy.ndarray) -> Any:
        return self._namespace.np.asarray(array)
