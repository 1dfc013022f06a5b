"""A call on data with rows: which arguments are cut, which are passed whole, and what runs on a block.

Input: the options and the arguments of a call. Output: `Call`, which knows its rows and runs on a block of
them.
Invariant: what lies in arguments to differentiate is never cut.

Example: in ``value_and_grad(loss)(params, x, y)`` the arrays in ``x`` and ``y`` are cut, ``params`` is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphjit.api.derivatives as derivatives
from graphjit.api.lowering import refuse_inside_trace
from graphjit.api.options import Positions, numbered, positions, require_callable
from graphjit.distributed.blocks import check_blocks
from graphjit.distributed.flat import Flat, Slot, packed
from graphjit.errors import DerivativeError, ShapeError
from graphjit.trace.marks import declares, name_of
from graphjit.trace.pytree import flatten, prefix_leaves, texts, unflatten

REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class Task:
    """A function, and how its results for blocks become those for all rows."""

    fun: Callable[..., Any]
    argnums: Positions
    has_aux: bool
    in_axes: Sequence[Any] | None
    blocks: int
    reduction: str

    @staticmethod
    def checked(
        what: str, fun: Any, argnums: Any, has_aux: bool, in_axes: Any, blocks: Any, reduction: str
    ) -> Task:
        """A task of these options.

        Raises:
            TypeError, ValueError: they mean nothing.
        """
        require_callable(fun, what)
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction={reduction!r}: it is 'mean' or 'sum'")
        if in_axes is not None and not isinstance(in_axes, tuple | list):
            raise TypeError(
                f"in_axes={in_axes!r} must have one entry for each positional argument, 0 or None"
            )
        argnums = 0 if argnums is None else argnums
        positions(argnums)
        return Task(fun, argnums, bool(has_aux), in_axes, check_blocks(blocks), reduction)

    @property
    def name(self) -> str:
        """What the function is called in messages."""
        return name_of(self.fun)

    def program(self) -> Any:
        """The compiled function that runs on a block."""
        return derivatives.value_and_grad(self.fun, self.argnums, self.has_aux)

    def weight(self, rows: int, total: int) -> float:
        """By what a result for so many of all rows is multiplied."""
        return rows / total if self.reduction == "mean" else 1.0


@dataclass(frozen=True)
class Call:
    """Arguments taken apart: ``cut`` are the leaves with rows, by their place among all leaves."""

    task: Task
    leaves: list[Any]
    spec: Any
    kwargs: dict[str, Any]
    cut: tuple[int, ...]

    @staticmethod
    def of(task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Raises:
        TypeError: something to be cut is no array.
        ShapeError: arrays have different numbers of rows, or nothing is to be cut.
        """
        refuse_inside_trace("a distributed gradient", task.name)
        axes = _axes(task, args)
        leaves, spec = flatten(args)
        wanted = prefix_leaves(tuple(axes), args, "in_axes")
        cut = tuple(i for i, axis in enumerate(wanted) if axis == 0 and not _is_text(leaves[i]))
        call = Call(task, leaves, spec, kwargs, cut)
        call._check()
        return call

    @property
    def rows(self) -> int:
        """How many rows the arrays have here."""
        return int(self.leaves[self.cut[0]].shape[0])

    def names(self) -> list[str]:
        """How messages call the leaves."""
        return texts(self.spec, "args")

    def block(self, program: Any, parts: Sequence[Any], weight: float) -> Flat:
        """The weighted result for one block, given the rows of its arrays."""
        leaves = list(self.leaves)
        for i, part in zip(self.cut, parts, strict=True):
            # The same program wherever the rows come from.
            leaves[i] = np.require(part, requirements=("C", "A", "E"))
        args = unflatten(self.spec, leaves)
        return packed(program(*args, **self.kwargs), weight, self.task.reduction)

    def without_data(self) -> tuple[Any, dict[str, Any]]:
        """The arguments, with a `Slot` for each array that is cut: what goes to other processes once."""
        leaves = list(self.leaves)
        for i in self.cut:
            leaves[i] = Slot(i)
        return unflatten(self.spec, leaves), self.kwargs

    @staticmethod
    def again(task: Task, without_data: tuple[Any, dict[str, Any]]) -> Call:
        """The inverse of `without_data`, in another process."""
        args, kwargs = without_data
        leaves, spec = flatten(args)
        return Call(task, leaves, spec, kwargs, tuple(i for i, x in enumerate(leaves) if type(x) is Slot))

    def _check(self) -> None:
        if not self.cut:
            raise ShapeError(
                f"{self.task.name} was called without data: the arrays of arguments that are not differentiated "
                "are cut by rows, unless in_axes says None for them"
            )
        names = self.names()
        for i in self.cut:
            _require_array(self.leaves[i], names[i])
        first = self.cut[0]
        for i in self.cut:
            if self.leaves[i].shape[0] != self.rows:
                raise ShapeError(
                    f"{names[first]} has {self.rows} rows and {names[i]} has {self.leaves[i].shape[0]}: data are "
                    "cut together along their first axis. Give in_axes None for what every block gets whole"
                )

    def description(self) -> list[str]:
        """Everything that must be the same in all processes, a line each."""
        task, cut, names = self.task, set(self.cut), self.names()
        lines = [
            f"function {task.name}",
            f"blocks={task.blocks}",
            f"reduction={task.reduction!r}",
            f"argnums={task.argnums!r}",
            f"has_aux={task.has_aux}",
            f"arguments {self.spec}",
        ]
        lines += [f"{name} {_kind(leaf, i in cut)}" for i, (name, leaf) in enumerate(zip(names, self.leaves))]
        whole, spec = flatten(self.kwargs)
        lines += [f"{name} {_kind(leaf, False)}" for name, leaf in zip(texts(spec, "kwargs"), whole)]
        return lines


def _axes(task: Task, args: tuple[Any, ...]) -> list[Any]:
    """The axis for each argument: None for those to differentiate.

    Raises:
        ValueError: ``in_axes`` does not fit.
        DerivativeError: an argument is both cut and differentiated.
    """
    whole = numbered(positions(task.argnums), args, task.fun)
    if task.in_axes is None:
        return [None if i in whole else 0 for i in range(len(args))]
    if len(task.in_axes) != len(args):
        raise ValueError(
            f"in_axes has {len(task.in_axes)} entries, but {task.name} was called with {len(args)} positional "
            "arguments"
        )
    for i, axis in enumerate(task.in_axes):
        found = set(flatten(axis)[0])
        if found - {0, None}:
            raise ValueError(f"in_axes[{i}]={axis!r}: rows are cut along axis 0, so each entry is 0 or None")
        if i in whole and found != {None}:
            raise DerivativeError(
                f"in_axes[{i}]={axis!r}: argument {i} is differentiated, so every block gets it whole (None)"
            )
    return list(task.in_axes)


def _is_text(leaf: Any) -> bool:
    """Whether something among data is no number, and passed as it is."""
    return leaf is None or isinstance(leaf, str | bytes)


def has_type(leaf: Any) -> bool:
    """Whether a value says what dtype and shape it has, as arrays of NumPy, dask and h5py do."""
    return declares(leaf, "dtype") and declares(leaf, "shape")


def _require_array(leaf: Any, name: str) -> None:
    """Raises: TypeError: ``leaf`` is no array with rows of numbers."""
    if not has_type(leaf):
        raise TypeError(
            f"{name} is of type {type(leaf).__name__}, not an array whose rows could be cut into blocks: use "
            "np.asarray on the data, or give in_axes None for what every block gets whole"
        )
    if len(leaf.shape) == 0:
        raise TypeError(f"{name} is a single number without rows: give in_axes None for it")
    if leaf.dtype.kind not in "biufc":
        raise TypeError(f"{name} has dtype {leaf.dtype}: rows must be numbers")


def _kind(leaf: Any, cut: bool) -> str:
    if has_type(leaf):
        shape = tuple(leaf.shape)
        return f"{leaf.dtype} rows of shape {shape[1:]}" if cut else f"{leaf.dtype} of shape {shape}"
    known = leaf is None or isinstance(leaf, str | bool)
    return f"{leaf!r}" if known else f"of type {type(leaf).__name__}"
