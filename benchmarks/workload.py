"""What a workload is: one function, written once, with its inputs and what is asked of it.

Input of every `make`: a `Namespace`, the array library to write against. Output: a plain function of pytrees
of arrays. Invariant: the same source runs under every library whose namespace looks like NumPy's; only where
a library does not (PyTorch) does a workload carry a port, which must compute the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy

from benchmarks import python_loops

Pytree = Any

Transform = Literal["jit", "grad", "value_and_grad", "jvp", "vjp", "hvp", "jacfwd", "hessian", "minimize"]
"""What is timed, given the workload's function `f` and its arguments:

- `jit`: `f(*arguments)` itself;
- `grad`, `value_and_grad`: its derivative with respect to `argnums`;
- `jvp`: arguments are `(x, tangent, *rest)`; the pair `f(x, *rest)`, Jacobian times tangent;
- `vjp`: arguments are `(x, cotangent, *rest)`; the pair `f(x, *rest)`, cotangent times Jacobian;
- `hvp`: arguments are `(x, direction, *rest)`; Hessian of `f` in `x` times direction;
- `jacfwd`: the Jacobian with respect to `argnums`, column by column; `hessian`: all second derivatives;
- `minimize`: argument is the starting point; SciPy's L-BFGS-B from there, with value and gradient from the
  library.
"""

DIRECTIONAL = ("jvp", "vjp", "hvp")

ELEMENTARY = 20
"""Additions and multiplications that exp, log, tanh or erf costs in double precision, as a lower bound: a
polynomial of degree eight or more, and the reduction of its argument.
"""

# The suites a workload can belong to. Both full and quick runs are made of the sizes that people wait for;
# "test" holds sizes at which every loop has a tail and nothing takes time; "spine" is what `benchmarks.spine`
# asks for; "unrolled" holds Python loops that take minutes to compile as long as each of their steps is
# compiled by itself: a full run has them where its filter asks for them.
FULL, QUICK, BOTH, TEST = ("full",), ("quick",), ("full", "quick"), ("test",)
UNROLLED = ("unrolled",)


def missing(*_: Any, **__: Any) -> Any:
    """Stands for transformations that a library has not."""
    raise LookupError("the function is transformed in a way that this library has not")


@dataclass(frozen=True)
class Transforms:
    """A library's function transformations in JAX's conventions; `jit` is the identity where nothing is
    compiled, and without `hvp` Hessian products are forward over reverse mode.
    """

    jit: Callable[..., Any] = lambda f: f
    grad: Callable[..., Any] = missing
    value_and_grad: Callable[..., Any] = missing
    jvp: Callable[..., Any] = missing
    vjp: Callable[..., Any] = missing
    hvp: Callable[..., Any] | None = None
    vmap: Callable[..., Any] = missing
    jacfwd: Callable[..., Any] = missing
    hessian: Callable[..., Any] = missing
    checkpoint: Callable[..., Any] = missing


@dataclass(frozen=True)
class Loops:
    """A library's loops and branches in JAX's conventions; Python's own where it has none."""

    scan: Callable[..., Any] = python_loops.scan
    fori_loop: Callable[..., Any] = python_loops.fori_loop
    while_loop: Callable[..., Any] = python_loops.while_loop
    cond: Callable[..., Any] = python_loops.branch


def _add_at(array: Any, index: Any, values: Any) -> Any:
    numpy.add.at(array, index, values)
    return array


def _set_at(array: Any, index: Any, values: Any) -> Any:
    array[index] = values
    return array


@dataclass(frozen=True)
class Namespace:
    """An array library seen as NumPy (`np`), as `scipy.special` (`special`), as a source of derivatives
    (`transforms`) and of `loops`, both of which a function may use in its body.

    `add_at(array, index, values)` is `array` after `np.add.at`, `set_at` the same after an assignment: what
    libraries whose arrays never change cannot say as NumPy does.
    """

    np: Any
    special: Any
    transforms: Transforms = field(default_factory=Transforms)
    add_at: Callable[[Any, Any, Any], Any] = _add_at
    set_at: Callable[[Any, Any, Any], Any] = _set_at
    loops: Loops = field(default_factory=Loops)


@dataclass(frozen=True)
class Workload:
    """One benchmark.

    `family` and `size` place it on a scaling curve. `inputs(seed, dtype)` gives the positional arguments as
    NumPy pytrees; `argnums` says which of them are differentiated. With `in_axes` the function is one of a
    single example, and what `transform` makes of it is mapped over these axes of the arguments (0, or None
    for what all examples share). `torch(torch, *arguments)` is the port: what `f` returns, from tensors.
    `jax` is another `make` of the same function, for what JAX's compiler or its reverse mode cannot take as
    it stands. `absent` names peers that are not asked, with reasons. `native` and `numba` name kernels of
    `benchmarks.native` and `benchmarks.numba_kernels`; `pytensor` says that the source runs under PyTensor's
    namespace. `flops` is the least number of additions and multiplications that the result takes, 0 where
    that is not natural to say; `moved` the numbers that must be read or written, None where that is all of
    the arguments and results. `same_as` gives, by dtype, the largest relative difference where equality to
    rounding is not to be expected.
    """

    name: str
    make: Callable[[Namespace], Callable[..., Any]]
    inputs: Callable[[int, str], tuple[Pytree, ...]]
    argnums: int | tuple[int, ...] = 0
    transform: Transform = "value_and_grad"
    in_axes: tuple[int | None, ...] | None = None
    dtypes: Sequence[str] = ("float64",)
    family: str = ""
    size: float | None = None
    suites: Sequence[str] = field(default=BOTH)
    torch: Callable[..., Any] | None = None
    jax: Callable[[Namespace], Callable[..., Any]] | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    native: str | None = None
    numba: str | None = None
    pytensor: bool = False
    flops: float = 0.0
    moved: float | None = None
    same_as: Mapping[str, float] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What is timed, in words: `jacfwd`, `vmap of jacfwd`."""
        return self.transform if self.in_axes is None else f"vmap of {self.transform}"

    def tolerance(self, dtype: str) -> float:
        """Bound on the difference between two libraries, relative to the largest entry of an array: far above
        what summing in another order costs, far below what a wrong derivative would show."""
        return self.same_as.get(dtype, 1e-10 if dtype == "float64" else 1e-4)

    def forward_arguments(self, arguments: tuple[Pytree, ...]) -> tuple[Pytree, ...]:
        """Those of `arguments` that the function itself takes: without the direction, where there is one."""
        return (arguments[0], *arguments[2:]) if self.transform in DIRECTIONAL else arguments

    def forward_value(self, result: Pytree) -> Pytree:
        """What the function itself returned, from the result of the transformed one; None where it is not in
        it.
        """
        if self.transform == "jit":
            return result
        return result[0] if self.transform in ("value_and_grad", "jvp", "vjp") else None


def label(size: float) -> str:
    """A size in a name: 1000 -> 1e3, 512 -> 512."""
    text = f"{int(size)}"
    zeros = len(text) - len(text.rstrip("0"))
    return f"{text[:-zeros]}e{zeros}" if zeros >= 3 else text
