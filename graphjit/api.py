"""The public transformations.

Job: `jit`, `grad`, `value_and_grad`, `jvp`, `vjp`: names, argument order and results as in JAX; values are
NumPy's.
Input: a Python function written with NumPy.  Output: a compiled callable (or, for `jvp` and `vjp`, results).
Invariant: every transformation, called inside a traced function, becomes part of that trace.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphjit.backend.llvm.threads import pool as thread_pool
from graphjit.dispatch import Dispatcher, compiled_function, executable
from graphjit.errors import DerivativeError
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node, reachable
from graphjit.trace import differentiate
from graphjit.trace.marks import attribute, dispatcher_of
from graphjit.trace.pytree import flatten, unflatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.concrete import jit_disabled
from graphjit.trace.recording.tracer import Trace, Tracer
from graphjit.trace.tracebacks import hides_frames


def _trace() -> Trace:
    trace = active_trace()
    assert trace is not None, "transformed functions run under a trace"
    return trace


def _numbers(value: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(value, int | np.integer):
        return (int(value),)
    if isinstance(value, str) or not all(isinstance(number, int | np.integer) for number in value):
        raise TypeError(f"positions of arguments are integers, not {value!r}")
    return tuple(map(int, value))


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@hides_frames
def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    donate_argnames: str | Sequence[str] = (),
    backend: str = "llvm",
) -> Any:
    """Compile a function.

    Args:
        fun: written with NumPy; its arguments and results are arrays, numbers and containers of them.
        static_argnums: positions of arguments that are fixed Python values; each value compiles its own code.
        static_argnames: names of such arguments. donate_argnums: positions of arguments whose contents the
        caller gives up: a result of the same dtype and shape as one of their
            arrays may be that very array, overwritten. After the call, and also when it raised, use only the
            results. An array is overwritten if it owns contiguous, writable memory that no other array of the
            call touches, and if the program reads each of its elements before it writes it; otherwise it
            stays as it was and the result is a new array. Values never differ. Inside another traced function
            donation means nothing.
        donate_argnames: names of such arguments. backend: "llvm" (native code), or "numba": the same loops as
        Python source, compiled by Numba; slower, for comparison.

    Returns:
        A function of the same arguments.  Results are ndarrays and NumPy scalars with NumPy's dtypes.

    Raises:
        TraceError: Python control flow or a conversion needs the value of an array.
        UnsupportedError: a NumPy function, dtype or array subclass that is not compiled.
        ValueError: there is no such backend or parameter, or one is both static and donated.
    """
    recipe = functools.partial(
        jit,
        static_argnums=static_argnums,
        static_argnames=static_argnames,
        donate_argnums=donate_argnums,
        donate_argnames=donate_argnames,
        backend=backend,
    )
    if fun is None:
        return recipe
    _require_callable(fun, "jit")
    inner = dispatcher_of(fun)
    function = inner.function if inner is not None else fun
    statics, donated = (
        (_numbers(static_argnums), _names(static_argnames)),
        (_numbers(donate_argnums), _names(donate_argnames)),
    )
    dispatcher = Dispatcher(fun, function, *statics, backend, *donated)
    return compiled_function(dispatcher, fun, (recipe, (fun,)))


class Gradient:
    """``value_and_grad`` of a function, to be called on traced values."""

    def __init__(
        self, fun: Callable[..., Any], argnums: Any, argnames: Any, has_aux: bool, with_value: bool
    ) -> None:
        self.fun = fun
        self.single = (
            isinstance(argnums, int | np.integer)
            if not argnames
            else isinstance(argnames, str) and argnums is None
        )
        self.argnames = _names(argnames)
        self.argnums = _numbers(argnums if argnums is not None else () if self.argnames else 0)
        if argnums is None and not self.argnames:
            self.single = True
        self.has_aux = has_aux
        self.with_value = with_value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Value and gradients at traced arguments."""
        positions = []
        for i in self.argnums:
            if not -len(args) <= i < len(args):
                raise DerivativeError(
                    f"argnums={i}, but {_name(self.fun)} was called with {len(args)} positional arguments; pass the argument by position or "
                    "name it in argnames"
                )
            positions.append(i % len(args))
        args, kwargs, by_name = self._named(args, kwargs)
        positions += [i for i in by_name.values() if i is not None]
        keywords = [name for name, i in by_name.items() if i is None]
        value, aux, found = differentiate.value_and_grad(
            _trace(), self.fun, args, kwargs, positions, keywords, self.has_aux
        )
        gradients = found[0] if self.single else tuple(found)
        if self.with_value:
            return ((value, aux) if self.has_aux else value), gradients
        return (gradients, aux) if self.has_aux else gradients

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, dict[str, int | None]]:
        """Where each of ``argnames`` was passed: its position, or None for a keyword."""
        found: dict[str, int | None] = {}
        for name in self.argnames:
            if name in kwargs:
                found[name] = None
                continue
            parameters = list(inspect.signature(self.fun).parameters)
            if name not in parameters or parameters.index(name) >= len(args):
                raise DerivativeError(f"argnames names {name!r}, which {_name(self.fun)} was not called with")
            found[name] = parameters.index(name)
        return args, kwargs, found


@hides_frames
def grad(
    fun: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    *,
    argnames: str | Sequence[str] = (),
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    backend: str = "llvm",
) -> Any:
    """Compiled gradient of a function that returns one floating-point number.

    Args:
        fun: the function; its result is a number (a 0-d value), or ``(number, aux)`` with ``has_aux``.
        argnums: position or positions of the arguments to differentiate (default 0).
        has_aux: whether the function returns a pair of which only the first is differentiated.
        argnames: names of arguments to differentiate, alone or besides ``argnums``.
        static_argnums, static_argnames, backend: as in `jit`.

    Returns:
        A function of the same arguments that returns the gradient: a tree like the argument, or a tuple of
        such trees when several were asked for; ``(gradient, aux)`` with ``has_aux``.

    Raises:
        DerivativeError: the result is not one floating-point number, or an argument is not floating point.
    """
    return _gradient(fun, argnums, has_aux, argnames, static_argnums, static_argnames, backend, False)


@hides_frames
def value_and_grad(
    fun: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    *,
    argnames: str | Sequence[str] = (),
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    backend: str = "llvm",
) -> Any:
    """Like `grad`; returns ``(value, gradient)``, or ``((value, aux), gradient)`` with ``has_aux``."""
    return _gradient(fun, argnums, has_aux, argnames, static_argnums, static_argnames, backend, True)


def _gradient(
    fun: Any,
    argnums: Any,
    has_aux: bool,
    argnames: Any,
    nums: Any,
    names: Any,
    backend: str,
    with_value: bool,
) -> Any:
    if fun is None:
        return lambda given: _gradient(given, argnums, has_aux, argnames, nums, names, backend, with_value)
    _require_callable(fun, "value_and_grad" if with_value else "grad")
    inner = dispatcher_of(fun)
    function = inner.function if inner is not None else fun
    statics = (_numbers(nums), _names(names))
    if inner is not None:
        statics = (statics[0] or inner.static_nums, statics[1] or tuple(inner.static_names))
    run = Gradient(fun, argnums, argnames, has_aux, with_value)
    recipe = functools.partial(
        value_and_grad if with_value else grad,
        argnums=argnums,
        has_aux=has_aux,
        argnames=argnames,
        static_argnums=nums,
        static_argnames=names,
        backend=backend,
    )
    return compiled_function(Dispatcher(run, function, *statics, backend), fun, (recipe, (fun,)))


@hides_frames
def jvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Forward mode: value and directional derivative, ``(fun(*primals), J @ tangents)``.

    Args:
        fun: any function of floating-point arguments.
        primals: the arguments, a tuple or list.
        tangents: one per primal, of the same structure and shapes.

    Raises:
        DerivativeError: structures, shapes or dtypes do not fit.
    """
    _require_callable(fun, "jvp")
    if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
        raise DerivativeError(
            "jvp takes the primals and the tangents as tuples or lists: jvp(f, (x,), (dx,))"
        )
    if len(primals) != len(tangents):
        raise DerivativeError(f"jvp: {len(primals)} primals and {len(tangents)} tangents")
    if active_trace() is not None:
        return differentiate.jvp(_trace(), fun, primals, tangents)
    return _kept((fun, "jvp"), lambda: _compiled_jvp(fun))(tuple(primals), tuple(tangents))  # type: ignore[no-any-return]


def _compiled_jvp(fun: Callable[..., Any]) -> Any:
    def run(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        return differentiate.jvp(_trace(), fun, primals, tangents)

    dispatcher = Dispatcher(run, fun)
    dispatcher.named_by = run
    return compiled_function(dispatcher, fun, (functools.partial(_compiled_jvp), (fun,)))


@hides_frames
def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Reverse mode: ``(out, pullback)``, or ``(out, pullback, aux)`` with ``has_aux``.

    ``pullback(ct)`` takes a cotangent of the structure and shapes of ``out`` and returns a tuple with one
    cotangent per primal. The forward program runs once; the pullback reuses what it saved, as often as it is
    called.

    Raises:
        DerivativeError: a primal is not floating point, or a cotangent does not fit.
    """
    _require_callable(fun, "vjp")
    if active_trace() is not None:
        out, pullback, aux = differentiate.vjp(_trace(), fun, primals, has_aux)
    else:
        forward = _kept((fun, "vjp", has_aux), lambda: _compiled_forward(fun, has_aux))
        out, residuals, backward, aux = forward(*primals)
        pullback = functools.partial(backward, residuals)
    return (out, pullback, aux) if has_aux else (out, pullback)


class Rebuild:
    """Gradients of a `vjp` in the structure of its primals; ``fixed`` holds, in a tuple, what stands there
    and is no number.
    """

    def __init__(self, spec: Any, fixed: Sequence[tuple[Any] | None]) -> None:
        self.spec = spec
        self.fixed = fixed

    def __call__(self, values: Iterable[Any]) -> tuple[Any, ...]:
        """The tree."""
        rest = iter(values)
        return unflatten(self.spec, [next(rest) if fixed is None else fixed[0] for fixed in self.fixed])  # type: ignore[no-any-return]


class Pullback:
    """The backward half of a `vjp`: a graph from residuals and cotangents to gradients."""

    def __init__(self, graph: Graph, result: Any, outputs: list[Any], primals: Rebuild) -> None:
        self.graph = graph
        self.result = result
        self.outputs = outputs
        self.primals = primals

    @hides_frames
    def __call__(self, residuals: Sequence[Any], cotangent: Any) -> tuple[Any, ...]:
        """Gradients of the primals."""
        if active_trace() is not None:
            return self._traced(residuals, cotangent)
        leaves = self._leaves(cotangent)
        for leaf in leaves:
            differentiate.check_cotangent(leaf)
        arrays = [np.asarray(ct, dtype=type.dtype) for ct, type in zip(leaves, self.outputs, strict=True)]
        for array, type in zip(arrays, self.outputs, strict=True):
            if array.shape != type.shape:
                raise DerivativeError(
                    f"pullback: a cotangent of shape {array.shape} was given for a result of shape {type.shape}"
                )
        given = [np.require(a, requirements=("C", "A")) for a in (*map(np.asarray, residuals), *arrays)]
        values = interpret(self.graph, *given) if jit_disabled() else executable(self.graph).run(given)
        return self.primals([v if v.shape else v[()] for v in values])

    def _leaves(self, cotangent: Any) -> list[Any]:
        leaves, spec = flatten(cotangent)
        if spec != self.result:
            raise DerivativeError(f"pullback: the cotangent has structure {spec}, the result {self.result}")
        return leaves

    def _traced(self, residuals: Sequence[Any], cotangent: Any) -> tuple[Any, ...]:
        trace = _trace()
        nodes = [trace.node(r) for r in residuals]
        for leaf, type in zip(self._leaves(cotangent), self.outputs, strict=True):
            nodes.append(trace.convert(trace.node(leaf), type.dtype))
        found = trace.builder.inline(self.graph, tuple(nodes))
        return self.primals([Tracer(trace, node) for node in found])


def _compiled_forward(fun: Callable[..., Any], has_aux: bool) -> Any:
    def run(*primals: Any) -> Any:
        trace = _trace()
        out, pullback, aux = differentiate.vjp(trace, fun, primals, has_aux)
        leaves, spec = flatten(out)
        outs = [leaf._node for leaf in leaves]
        seeds = [trace.input(node.type, "ct") for node in outs]
        gradients, primal_spec = flatten(pullback(unflatten(spec, seeds)))
        roots = [leaf._node for leaf in gradients if isinstance(leaf, Tracer)]
        residuals, graph = split(roots, [seed._node for seed in seeds], trace)
        primals_back = Rebuild(
            primal_spec, [None if isinstance(leaf, Tracer) else (leaf,) for leaf in gradients]
        )
        backward = Pullback(graph, spec, [node.type for node in outs], primals_back)
        return out, [Tracer(trace, node) for node in residuals], backward, aux

    return compiled_function(
        Dispatcher(run, fun), fun, (functools.partial(_compiled_forward), (fun, has_aux))
    )


def split(roots: Sequence[Node], seeds: Sequence[Node], trace: Trace) -> tuple[list[Node], Graph]:
    """The part of ``roots`` that depends on ``seeds`` as a graph of its own, and the values it needs from the
    rest.
    """
    late = set(seeds)
    order = sorted(reachable(roots), key=lambda node: node.serial)
    for node in order:
        if any(arg in late for arg in node.args):
            late.add(node)
    border = [node for node in order if node not in late and not _is_constant(node)]
    used = {arg for node in late for arg in node.args} | set(roots)
    residuals = [node for node in border if node in used]
    b = trace.builder
    stand_ins = [b.input(node.type, f"residual{i}") for i, node in enumerate(residuals)]
    whole = Graph("pullback", [*residuals, *seeds], roots)
    replaced: dict[Node, Node] = dict(zip(residuals, stand_ins, strict=True))
    for node in order:
        if node in late and node not in seeds:
            replaced[node] = b.copy(node, tuple(replaced.get(arg, arg) for arg in node.args))
    return residuals, Graph(whole.name, [*stand_ins, *seeds], [replaced.get(root, root) for root in roots])


def _is_constant(node: Node) -> bool:
    return all(part.op.name != "input" for part in reachable([node])) if not node.args else False


_COMPANIONS = "__graphjit_companions__"


def _kept(key: Any, make: Callable[[], Any]) -> Any:
    """The compiled companion of a function, kept in the function's own ``__dict__`` so that both die
    together.

    Other callables (methods, partials) have none: they are traced again, and the structural cache still holds
    their code.
    """
    fun, *rest = key
    if not isinstance(fun, types.FunctionType):
        return make()
    row = fun.__dict__.setdefault(_COMPANIONS, {})
    place = tuple(rest)
    if place not in row:
        row[place] = make()
    return row[place]


def _require_callable(fun: Any, what: str) -> None:
    if not callable(fun):
        raise TypeError(f"{what} takes a function, not {type(fun).__name__}")


def _name(function: Callable[..., Any]) -> str:
    return attribute(function, "__qualname__", type(function).__name__)  # type: ignore[no-any-return]


@hides_frames
def set_num_threads(threads: int) -> None:
    """Let compiled functions use ``threads`` threads from now on, the calling one included, in the whole
    process.

    Results do not depend on it, bit for bit.  More threads than cores are allowed, but seldom faster.

    Raises:
        ValueError: fewer than one.
        TypeError: no integer.
    """
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer):
        raise TypeError(f"the number of threads must be an integer, not {threads!r}")
    thread_pool.configure(int(threads))


def get_num_threads() -> int:
    """Threads that compiled functions may use: as set, else ``GRAPHJIT_NUM_THREADS`` or ``OMP_NUM_THREADS``,
    else the cores of this process.
    """
    return thread_pool.num_threads()
