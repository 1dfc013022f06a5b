"""What a call would run, as objects: `make_graph`, and the method ``lower`` of every compiled function.

Input: a function and the arguments of a call, of which only types, shapes and static values matter. Output: a
graph, or `graphjit.lowered.Lowered`.
Invariants: the function is traced, never run; what is shown is what a call with these arguments runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphjit.api.compiled import jit
from graphjit.api.options import Names, Positions, require_callable
from graphjit.dispatch import METHODS, Fixed, compiled_function
from graphjit.errors import TraceError
from graphjit.ir.printer import ReadableGraph
from graphjit.trace.marks import dispatcher_of, name_of
from graphjit.trace.recording.active import active_trace
from graphjit.trace.statics import exact_keys
from graphjit.trace.tracebacks import hides_frames

if TYPE_CHECKING:
    from graphjit.lowered import Lowered


@hides_frames
def make_graph(
    fun: Callable[..., Any], *, static_argnums: Positions = (), static_argnames: Names = ()
) -> Callable[..., ReadableGraph]:
    """Make a function that returns the graph which a function records, instead of its result.

    As `jax.make_jaxpr`. Use it to see what was recorded, or what a derivative is made of.

    Parameters
    ----------
    fun : callable
        A function written with NumPy, or a compiled one: what `grad`, `vmap` ... return.
    static_argnums, static_argnames : optional
        As in `jit`. A compiled function has its own.

    Returns
    -------
    callable
        A function of the same arguments. It returns the graph as it was traced, before any pass. The text of
        the graph, which ``str`` and ``print`` show, has one line for each operation: its number, its name,
        its arguments, its type, and the line of the source that it comes from.

    Raises
    ------
    TraceError
        At a call: it is made while another function is traced. Otherwise as in `jit`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graph = graphjit.make_graph(graphjit.grad(lambda x: np.sin(x) * 2.0))(1.0)
    >>> [node.op.name for node in graph.nodes()]
    ['input', 'const', 'cos', 'mul']
    >>> print(str(graph).splitlines()[1])
      %0 = input name='x' : f64[]
    """
    require_callable(fun, "make_graph")
    compiled: Any = fun
    if dispatcher_of(fun) is None:
        compiled = jit(fun, static_argnums=static_argnums, static_argnames=static_argnames)

    @hides_frames
    def traced(*args: Any, **kwargs: Any) -> ReadableGraph:
        refuse_inside_trace("make_graph", name_of(fun))
        return ReadableGraph.of(compiled.dispatcher.staged(*args, **kwargs).graph)

    return traced


@hides_frames
def lower(self: Any, *args: Any, **kwargs: Any) -> Lowered:
    """Trace a compiled function for some arguments, and show what a call with them would run.

    Nothing runs, and nothing is compiled before it is asked for.

    Parameters
    ----------
    *args, **kwargs
        The arguments of a call. Of arrays only dtype, shape and strides matter.

    Returns
    -------
    Lowered
        ``graph``, ``optimized``, ``program`` and ``loops`` are objects, ``as_text(stage)`` shows any stage
        down to machine code. ``cost()`` and ``memory()`` are estimates in numbers. ``compile()`` makes a
        function for calls like this one alone.

    Raises
    ------
    TraceError
        It is asked for while another function is traced. Otherwise as in `jit`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> slope = graphjit.grad(lambda x: np.sum(np.sin(x)))
    >>> lowered = slope.lower(np.ones(1000))
    >>> lowered
    <graphjit.Lowered '<lambda>': 2 nodes>
    >>> lowered.memory().results
    8000
    >>> lowered.cost().total.nbytes
    16000
    >>> lowered.compile()(np.zeros(1000))[:2]
    array([1., 1.])
    """
    from graphjit.lowered import Lowered  # it loads the compiler

    refuse_inside_trace("lower", name_of(self))
    dispatcher = self.dispatcher
    _, kinds, spec = dispatcher.signature(args, kwargs)
    staged = dispatcher.stage(kinds, spec)
    donated = dispatcher.donated(args, kwargs, staged)
    key = (spec, tuple(kinds), exact_keys(spec))

    def make() -> Any:
        fixed = Fixed(dispatcher, key, staged, donated)
        return compiled_function(fixed, self, (functools.partial(lower), (self,)))

    return Lowered(staged.graph, donated, len(staged.captured), make, METHODS["_repr_html_"])


METHODS["lower"] = lower


def refuse_inside_trace(what: str, name: str) -> None:
    """Refuse to show a function while another one is traced: its arguments have no values, and belong there.

    Raises:
        TraceError: a function is traced.
    """
    if active_trace() is not None:
        raise TraceError(
            f"{what} of {name} was asked for while another function is traced; ask outside of compiled functions, "
            "with arrays of the same shapes"
        )
