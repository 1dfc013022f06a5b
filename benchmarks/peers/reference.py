"""What people write by hand where a library is too slow: loops for Numba, and C. The limits to measure
against.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy

from benchmarks import native
from benchmarks.peers.base import Prepared, prepare_minimizer
from benchmarks.workload import Pytree, Workload


class HandwrittenNumba:
    """Value and gradient written as loops, compiled by Numba with its fast-math and threads."""

    name = "numba"
    derivative = True

    def __init__(self) -> None:
        self._kernels = importlib.import_module("benchmarks.numba_kernels").KERNELS

    def convert(self, array: numpy.ndarray) -> Any:
        return array

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.numba is None:
            raise LookupError("no Numba loops")
        if workload.transform == "minimize":
            return prepare_minimizer(self, workload, arguments)
        return Prepared(self._kernels[workload.numba], arguments)


class Native:
    """Hand-written C, `-ffast-math` and vector math library included; it allocates its results, as libraries
    do.
    """

    name = "native"
    derivative = True
    reuse = False

    def __init__(self) -> None:
        native.load()

    def convert(self, array: numpy.ndarray) -> Any:
        return array

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.native is None:
            raise LookupError("no native reference")
        function = native.KERNELS[workload.native].function(fast=True, reuse=self.reuse)
        try:
            function(*arguments)
        except ValueError as error:
            raise LookupError(str(error)) from None
        return Prepared(function, arguments)


class NativeReused(Native):
    """The same C, writing its gradients into the same arrays at every call: no page is touched for the first
    time.
    """

    name = "native-reused"
    reuse = True

    def prepare(self, workload: Workload, arguments: tuple[Pytree, ...]) -> Prepared:
        if workload.family != "black_scholes":
            raise LookupError("only Black-Scholes is measured with reused outputs")
        return super().prepare(workload, arguments)
