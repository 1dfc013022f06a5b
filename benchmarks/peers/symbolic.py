"""PyTensor in Numba mode: the workload's own source on symbolic tensors, where its namespace suffices."""

from __future__ import annotations

import importlib
from typing import Any

import numpy

from benchmarks.peers.base import Prepared, flatten, prepare_minimizer, unflatten
from benchmarks.workload import Namespace, Pytree, Workload


class PyTensor:
    name = "pytensor"
    derivative = True

    def __init__(self) -> None:
        self._pytensor = importlib.import_module("pytensor")
        self._tensor = importlib.import_module("pytensor.tensor")

    def convert(self, array: numpy.ndarray) -> Any:
        return array

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if not workload.pytensor:
            raise LookupError("not written for PyTensor")
        if workload.transform == "minimize":
            return prepare_minimizer(self, workload, arguments)
        leaves, structure = flatten(arguments)
        arrays = [numpy.asarray(leaf) for leaf in leaves]
        symbols = [self._tensor.tensor(dtype=array.dtype.name, shape=array.shape) for array in arrays]
        outputs, shape = self._outputs(workload, unflatten(structure, symbols))
        # Arguments have the declared types already: checking them again at each call is what trust_input
        # leaves out.
        compiled = self._pytensor.function(symbols, outputs, mode="NUMBA", trust_input=True)
        converted = unflatten(structure, arrays)
        # PyTensor knows no containers, but where the arguments are flat it is not charged for flattening
        # them.
        if all(isinstance(argument, numpy.ndarray) for argument in converted):
            return Prepared(lambda *given: unflatten(shape, compiled(*given)), converted)
        return Prepared(lambda *given: unflatten(shape, compiled(*flatten(given)[0])), converted)

    def _outputs(self, workload: Workload, symbols: tuple[Any, ...]) -> tuple[list[Any], Any]:
        """The symbolic results as a flat list, and their structure."""
        value = workload.make(Namespace(self._tensor, self._tensor))(*workload.forward_arguments(symbols))
        result: Any
        if workload.transform == "jit":
            result = value
        elif workload.transform in ("grad", "value_and_grad"):
            many = isinstance(workload.argnums, tuple)
            chosen = (
                tuple(symbols[i] for i in workload.argnums)
                if isinstance(workload.argnums, tuple)
                else symbols[workload.argnums]
            )
            leaves, structure = flatten(chosen)
            found = unflatten(structure, self._pytensor.grad(value, leaves))
            gradients = tuple(found) if many else found
            result = (value, gradients) if workload.transform == "value_and_grad" else gradients
        elif workload.transform == "vjp":
            result = (value, self._pytensor.gradient.Lop(value, symbols[0], symbols[1]))
        elif workload.transform == "jvp":
            result = (value, self._pytensor.gradient.Rop(value, symbols[0], symbols[1]))
        else:
            raise LookupError(f"no {workload.transform} in this port")
        return flatten(result)
