"""The libraries that run a workload's own source: graphjit, NumPy, Autograd and JAX."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy
import scipy.special

from benchmarks import python_loops
from benchmarks.peers.base import (
    Prepared,
    flatten,
    map_leaves,
    prepare_minimizer,
    program,
    unflatten,
)
from benchmarks.workload import Loops, Namespace, Pytree, Transforms, Workload, missing


class Graphjit:
    name = "graphjit"
    derivative = True

    def __init__(self) -> None:
        library = importlib.import_module("graphjit")
        # What the transformations of functions return is compiled already.
        self._transforms = Transforms(
            jit=lambda f: f if hasattr(f, "dispatcher") else library.jit(f),
            grad=library.grad,
            value_and_grad=library.value_and_grad,
            jvp=library.jvp,
            vjp=library.vjp,
            hvp=library.hvp,
            vmap=library.vmap,
            jacfwd=library.jacfwd,
            hessian=library.hessian,
            checkpoint=library.checkpoint,
        )
        loops = Loops(library.scan, library.fori_loop, library.while_loop, library.cond)
        self.namespace = Namespace(numpy, scipy.special, self._transforms, loops=loops)

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
        if workload.in_axes is not None:
            raise LookupError("NumPy has no vmap")
        forward = Transforms(checkpoint=lambda f: f)
        f = workload.make(Namespace(numpy, scipy.special, forward))
        return Prepared(f, workload.forward_arguments(arguments))

    def convert(self, array: numpy.ndarray) -> Any:
        return array


MOST_EXAMPLES = 1000


def one_after_another(f: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """What stands for `vmap` where there is none: a Python loop over the examples, which takes minutes for
    many of them.
    """

    def mapped(*arguments: Any) -> Any:
        batched = [flatten(given)[0][0] for given, axis in zip(arguments, in_axes) if axis is not None]
        if len(batched[0]) > MOST_EXAMPLES:
            raise LookupError(f"no vmap, and a Python loop over {len(batched[0])} examples takes minutes")
        results = []
        for i in range(len(batched[0])):
            example = [
                given if axis is None else map_leaves(lambda leaf, i=i: leaf[i], given)
                for given, axis in zip(arguments, in_axes)
            ]
            leaves, structure = flatten(f(*example))
            results.append(leaves)
        return unflatten(structure, [numpy.stack(column) for column in zip(*results)])

    return mapped


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

        def jacfwd(
            f: Callable[..., Any], argnum: int | tuple[int, ...], has_aux: bool = False
        ) -> Callable[..., Any]:
            if has_aux or not isinstance(argnum, int):
                raise LookupError("no Jacobians with respect to several arguments")

            def columns(*arguments: Any) -> Any:
                x, push = arguments[argnum], library.make_jvp(f, argnum)(*arguments)
                found = [push(tangent.reshape(x.shape))[1] for tangent in numpy.eye(x.size)]
                return numpy.stack(found, axis=-1).reshape(*found[0].shape, *x.shape)

            return columns

        self._transforms = Transforms(
            grad=library.grad,
            value_and_grad=library.value_and_grad,
            jvp=jvp,
            vjp=vjp,
            vmap=one_after_another,
            jacfwd=jacfwd,
            hessian=library.hessian,
        )
        self._namespace = Namespace(
            importlib.import_module("autograd.numpy"),
            importlib.import_module("autograd.scipy.special"),
            self._transforms,
            set_at=missing,
            loops=Loops(
                scan=partial(python_loops.scan, stack=importlib.import_module("autograd.numpy").stack)
            ),
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
        self._transforms = Transforms(
            jit=jax.jit,
            grad=jax.grad,
            value_and_grad=jax.value_and_grad,
            jvp=jax.jvp,
            vjp=jax.vjp,
            vmap=jax.vmap,
            jacfwd=jax.jacfwd,
            hessian=jax.hessian,
            checkpoint=jax.checkpoint,
        )
        self._namespace = Namespace(
            importlib.import_module("jax.numpy"),
            importlib.import_module("jax.scipy.special"),
            self._transforms,
            lambda array, index, values: array.at[index].add(values),
            lambda array, index, values: array.at[index].set(values),
            Loops(jax.lax.scan, jax.lax.fori_loop, jax.lax.while_loop, jax.lax.cond),
        )

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.transform == "minimize":
            return prepare_minimizer(self, workload, arguments)
        make = workload.jax or workload.make
        fn = program(workload, make(self._namespace), self._transforms)
        return Prepared(fn, self._wait(map_leaves(self.convert, arguments)), self._wait)

    def convert(self, array: numpy.ndarray) -> Any:
        return self._namespace.np.asarray(array)
