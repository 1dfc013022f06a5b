"""PyTorch, eager and through torch.compile: the workload's port, then PyTorch's own way to each
derivative.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy

from benchmarks.peers.base import Prepared, flatten, map_leaves, prepare_minimizer, unflatten
from benchmarks.workload import Pytree, Workload


class Torch:
    """Eager: gradients by one call of `torch.autograd.grad`, Hessian products by a second one through it."""

    name = "torch"
    derivative = True

    def __init__(self) -> None:
        self._torch = importlib.import_module("torch")

    def compiled(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Nothing is compiled here."""
        return f

    def mapped(self, transform: str) -> str:
        """The name in `torch.func` of a transformation that `vmap` is applied to."""
        return transform

    def convert(self, array: numpy.ndarray) -> Any:
        """A tensor on the same memory that gradients are taken to."""
        return self._torch.from_numpy(array).requires_grad_()

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        torch, port = self._torch, workload.torch
        if port is None:
            raise LookupError("no PyTorch port")
        if workload.transform == "minimize":
            return prepare_minimizer(self, workload, arguments)

        def f(*call_arguments: Any) -> Any:
            return port(torch, *call_arguments)

        tensors = list(map_leaves(torch.from_numpy, arguments))
        if workload.in_axes is not None or workload.transform in ("jacfwd", "hessian"):
            return Prepared(self._functional(f, workload), tuple(tensors))
        if workload.transform in ("grad", "value_and_grad"):
            argnums = workload.argnums if isinstance(workload.argnums, tuple) else (workload.argnums,)
        else:
            argnums = (0,) if workload.transform in ("vjp", "hvp") else ()
        for position in argnums:
            tensors[position] = map_leaves(self.convert, arguments[position])
        if workload.transform in ("grad", "value_and_grad"):
            return Prepared(self._gradient(self.compiled(f), workload, argnums, tensors), tuple(tensors))
        ways = {"jit": self._plain, "jvp": self._jvp, "vjp": self._vjp, "hvp": self._hvp}
        return Prepared(ways[workload.transform](f), tuple(tensors))

    def _gradient(
        self, f: Callable[..., Any], workload: Workload, argnums: tuple[int, ...], tensors: list[Any]
    ) -> Callable[..., Any]:
        grad, with_value = self._torch.autograd.grad, workload.transform == "value_and_grad"
        single = not isinstance(workload.argnums, tuple)
        chosen = tuple(tensors[position] for position in argnums)
        leaves, structure = flatten(chosen)
        # Parameters in containers are known before training starts; only plain tensors may change between
        # calls.
        plain = all(isinstance(tensor, self._torch.Tensor) for tensor in chosen)

        def fn(*arguments: Any) -> Any:
            value = f(*arguments)
            if plain:
                found: Any = grad(value, [arguments[position] for position in argnums])
            else:
                found = unflatten(structure, grad(value, leaves))
            found = found[0] if single else found
            return (value.detach(), found) if with_value else found

        return fn

    def _functional(self, f: Callable[..., Any], workload: Workload) -> Callable[..., Any]:
        """Transformations of functions, whose derivatives need no tape outside of them."""
        func, in_axes = self._torch.func, workload.in_axes

        def fn(*arguments: Any) -> Any:
            name = workload.transform if in_axes is None else self.mapped(workload.transform)
            derivative = getattr(func, name)(f, workload.argnums)
            return (derivative if in_axes is None else func.vmap(derivative, in_dims=in_axes))(*arguments)

        return self._torch.no_grad()(self.compiled(fn))

    def _plain(self, f: Callable[..., Any]) -> Callable[..., Any]:
        return self._torch.no_grad()(self.compiled(f))

    def _jvp(self, f: Callable[..., Any]) -> Callable[..., Any]:
        def fn(x: Any, tangent: Any, *rest: Any) -> Any:
            return self._torch.func.jvp(lambda at: f(at, *rest), (x,), (tangent,))

        return self.compiled(fn)

    def _vjp(self, f: Callable[..., Any]) -> Callable[..., Any]:
        forward = self.compiled(f)

        def fn(x: Any, cotangent: Any, *rest: Any) -> Any:
            out = forward(x, *rest)
            return out.detach(), self._torch.autograd.grad(out, x, cotangent)[0]

        return fn

    def _hvp(self, f: Callable[..., Any]) -> Callable[..., Any]:
        def fn(x: Any, direction: Any, *rest: Any) -> Any:
            leaves, structure = flatten(x)
            gradients = self._torch.autograd.grad(f(x, *rest), leaves, create_graph=True)
            return unflatten(structure, self._torch.autograd.grad(gradients, leaves, flatten(direction)[0]))

        return fn


class TorchCompile(Torch):
    """`torch.compile`, shapes static. It needs a C++ compiler; each workload takes seconds to compile."""

    name = "torch.compile"

    def __init__(self) -> None:
        super().__init__()
        # Alone among the peers it would start a pool of compiler processes, which stay and compete with what
        # is timed.
        settings: Any = importlib.import_module("torch._inductor.config")
        settings.compile_threads = 1

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        # Ports share their code objects: without this, one workload's signatures would count as another's
        # recompilations.
        self._torch._dynamo.reset()
        return super().prepare(workload, arguments)

    def compiled(self, f: Callable[..., Any]) -> Callable[..., Any]:
        return self._torch.compile(f, dynamic=False)

    def mapped(self, transform: str) -> str:
        """Of forward mode under `vmap` the compiler takes no product of what is batched with what is not."""
        return "jacrev" if transform == "jacfwd" else transform

    def _hvp(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled code has no second backward pass, so forward over reverse inside of what is compiled."""

        def fn(x: Any, direction: Any, *rest: Any) -> Any:
            func = self._torch.func
            return func.jvp(func.grad(lambda at: f(at, *rest)), (x,), (direction,))[1]

        # Its own transformations need no tape outside of them.
        return self._torch.no_grad()(self.compiled(fn))
