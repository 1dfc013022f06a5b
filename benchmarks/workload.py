"""What a workload is: one differentiable function, written once, with its inputs.

Input of every `make`: a `Namespace`, the array library to write against. Output: a plain function of pytrees
of arrays. Invariant: the same source runs under every library whose namespace looks like NumPy's; only where a
library does not (PyTorch) does a workload carry a port, which must compute the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Pytree = Any


@dataclass(frozen=True)
class Namespace:
    """An array library seen as NumPy (`np`) and as `scipy.special` (`special`)."""

    np: Any
    special: Any


@dataclass(frozen=True)
class Workload:
    """One benchmark.

    `inputs(seed, dtype)` gives the positional arguments as NumPy pytrees; `argnums` says which of them are
    differentiated. With `with_value` the derivative asked for is value_and_grad, without it grad alone.
    `torch(torch, *arguments)` is the port: the value from tensors. `native` names a kernel of
    `benchmarks.native`.
    """

    name: str
    make: Callable[[Namespace], Callable[..., Any]]
    inputs: Callable[[int, str], tuple[Pytree, ...]]
    argnums: int | tuple[int, ...] = 0
    with_value: bool = True
    dtypes: Sequence[str] = ("float64",)
    torch: Callable[..., Any] | None = None
    native: str | None = None

    @staticmethod
    def tolerance(dtype: str) -> float:
        """Bound on the difference between two libraries, relative to the largest entry of an array: far above
        what summing in another order costs, far below what a wrong derivative would show."""
        return 1e-10 if dtype == "float64" else 1e-4
