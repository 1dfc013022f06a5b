"""What users say about derivatives of their own functions: `custom_jvp`, `custom_vjp`, `stop_gradient`,
`checkpoint`.

Input: a Python function and its rule. Output: a function that computes the same.
Invariants: outside of a traced function such a function is the user's own, called as it is; inside it is one
node of the trace, whose rule is asked when a derivative is taken.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from graphjit.api.options import Positions, positions, require_callable
from graphjit.errors import DerivativeError
from graphjit.ir.node import Node
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import tree_map
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.tracer import is_number, kind_of
from graphjit.trace.tracebacks import hides_frames
from graphjit.trace.transformed import custom
from graphjit.trace.transformed.bodies import call_as_node
from graphjit.transforms.bodies import Checkpoint, Policy

Tree = TypeVar("Tree")


def custom_jvp(fun: Callable[..., Any] | None = None, nondiff_argnums: Positions = ()) -> Any:
    """Give a function a derivative rule of its own, for forward mode. Reverse mode transposes it.

    Use it where the derivative of what the function computes is not the one that is wanted: it loses digits,
    it does not exist at a point, or an iteration has a shorter one.

    Parameters
    ----------
    fun : callable, optional
        The function, written with NumPy. Without it the result is a decorator.
    nondiff_argnums : int or sequence of int, optional
        Positions of arguments that are not differentiated, such as functions; the rule gets them first.

    Returns
    -------
    callable
        The function, with two methods. ``defjvp(rule)``: ``rule(*nondiff, primals, tangents)`` returns
        ``(out, tangent of out)``; a tangent of what does not vary is zeros. ``defjvps(*rules)``: one
        ``rule(tangent, out, *primals)`` for each argument, or None where the derivative is zero; the results
        are added.

    Raises
    ------
    DerivativeError
        When a derivative is taken: there is no rule, it returns something else than such a pair, or the
        function reads a differentiated value from outside.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> @graphjit.custom_jvp
    ... def log1pexp(x):
    ...     return np.log(1.0 + np.exp(x))
    >>> @log1pexp.defjvp
    ... def rule(primals, tangents):
    ...     (x,), (dx,) = primals, tangents
    ...     return log1pexp(x), dx * (1.0 - 1.0 / (1.0 + np.exp(x)))
    >>> graphjit.grad(log1pexp)(100.0)
    np.float64(1.0)
    """
    if fun is None:
        return functools.partial(custom_jvp, nondiff_argnums=nondiff_argnums)
    require_callable(fun, "custom_jvp")
    call, rules = _with_rules(
        fun, nondiff_argnums, custom.call_with_jvp, "custom_jvp without a rule; declare one with defjvp"
    )

    def defjvp(rule: Callable[..., Any]) -> Callable[..., Any]:
        require_callable(rule, "defjvp")
        rules[:] = [rule]
        return rule

    def defjvps(*each: Callable[..., Any] | None) -> None:
        def rule(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
            out = call(*primals)
            terms = [one(t, out, *primals) for one, t in zip(each, tangents, strict=True) if one is not None]
            return out, sum(terms[1:], terms[0]) if terms else 0.0 * out

        rules[:] = [rule]

    call.defjvp, call.defjvps = defjvp, defjvps
    return call


def custom_vjp(fun: Callable[..., Any] | None = None, nondiff_argnums: Positions = ()) -> Any:
    """Give a function a derivative rule of its own, for reverse mode.

    Forward mode, and so Hessians, transpose the rule, if it is linear in the cotangent.

    Parameters
    ----------
    fun : callable, optional
        The function, written with NumPy. Without it the result is a decorator.
    nondiff_argnums : int or sequence of int, optional
        Positions of arguments that are not differentiated, such as functions; the backward rule gets them
        first.

    Returns
    -------
    callable
        The function, with the method ``defvjp(forward, backward)``. ``forward(*args)`` returns ``(out,
        residuals)``, where residuals are what the backward rule needs, in any containers.
        ``backward(*nondiff, residuals, cotangent)`` returns a tuple with the cotangent of each other
        argument; None stands for zero.

    Raises
    ------
    DerivativeError
        When a derivative is taken: there is no rule, a rule returns something else, the function reads a
        differentiated value from outside, or forward mode needs a backward rule that is not linear.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> @graphjit.custom_vjp
    ... def clipped(x):
    ...     return x
    >>> clipped.defvjp(lambda x: (x, None), lambda residuals, ct: (np.clip(ct, -1.0, 1.0),))
    >>> graphjit.grad(lambda x: 5.0 * clipped(x))(2.0)
    np.float64(1.0)
    """
    if fun is None:
        return functools.partial(custom_vjp, nondiff_argnums=nondiff_argnums)
    require_callable(fun, "custom_vjp")
    call, rules = _with_rules(
        fun, nondiff_argnums, custom.call_with_vjp, "custom_vjp without rules; declare them with defvjp"
    )

    def defvjp(forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        require_callable(forward, "defvjp")
        require_callable(backward, "defvjp")
        rules[:] = [forward, backward]

    call.defvjp = defvjp
    return call


def _with_rules(
    fun: Callable[..., Any], nondiff_argnums: Positions, record: Callable[..., Any], without: str
) -> tuple[Any, list[Callable[..., Any]]]:
    """``fun`` as a function that is one node of a trace, which ``record`` makes, and the list for its rules.
    ``without`` says what it is as long as that is empty.
    """
    nondiff = positions(nondiff_argnums)
    rules: list[Callable[..., Any]] = []

    @hides_frames
    @functools.wraps(fun)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = _positional(fun, args, kwargs)
        trace = active_trace()
        if trace is None:
            return fun(*given)
        if not rules:
            raise DerivativeError(f"{name_of(fun)} is a {without}")
        return record(trace, fun, *rules, given, _within(nondiff, given))

    return call, rules


def _positional(fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments of a call by position, as rules get them."""
    if not kwargs:
        return args
    bound = inspect.signature(fun).bind(*args, **kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        raise TypeError(
            f"{name_of(fun)} has a derivative rule, which takes arguments by position, but {', '.join(bound.kwargs)} can only be "
            "passed by keyword"
        )
    return bound.args


def _within(nondiff: Sequence[int], args: Sequence[Any]) -> list[int]:
    """Positions counted from the front of a call."""
    return sorted(i % len(args) for i in nondiff if -len(args) <= i < len(args))


@hides_frames
def stop_gradient(x: Tree) -> Tree:
    """Return values that every derivative takes for constants.

    Parameters
    ----------
    x : array, number, or container of them
        The values. Leaves that are no numbers stay as they are.

    Returns
    -------
    array, number, or container of them
        The same values.

    Examples
    --------
    >>> import graphjit
    >>> graphjit.grad(lambda x: x * graphjit.stop_gradient(x))(3.0)
    np.float64(3.0)
    """
    return _each_number(x, "stop_gradient")


@hides_frames
def checkpoint_name(x: Tree, name: str) -> Tree:
    """Give values a name, by which the policy of a `checkpoint` keeps them.

    Parameters
    ----------
    x : array, number, or container of them
        The values.
    name : str
        The name.

    Returns
    -------
    array, number, or container of them
        The same values.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> @graphjit.checkpoint(policy=graphjit.checkpoint_policies.save_only_these_names("scores"))
    ... def block(x):
    ...     return np.tanh(graphjit.checkpoint_name(np.exp(x), "scores"))
    >>> graphjit.grad(block)(0.0).round(6)
    np.float64(0.419974)
    """
    if not isinstance(name, str):
        raise TypeError(f"checkpoint_name: the name is a string, not {name!r}")
    return _each_number(x, "named", name=name)


def _each_number(x: Tree, op: str, **attrs: Any) -> Tree:
    """The op of each number of a container; outside of a traced function the container as it is."""
    trace = active_trace()
    if trace is None:
        return x

    def made(leaf: Any) -> Any:
        return kind_of(leaf)(trace, trace.emit(op, trace.node(leaf), **attrs)) if is_number(leaf) else leaf

    return tree_map(made, x)  # type: ignore[no-any-return]


def checkpoint(fun: Callable[..., Any] | None = None, *, policy: Policy | None = None) -> Any:
    """Make reverse mode compute a function again on the way back, instead of keeping what it computed.

    Only the arguments are kept, and what `policy` says. This takes one more evaluation of the function, and
    less memory.

    Parameters
    ----------
    fun : callable, optional
        The function, written with NumPy. Without it the result is a decorator.
    policy : callable, optional
        What is kept besides: one of `checkpoint_policies`.

    Returns
    -------
    callable
        A function of the same arguments.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> layer = graphjit.checkpoint(lambda w, x: np.tanh(w @ x))
    >>> def loss(w, x):
    ...     return np.sum(layer(w, layer(w, x)))
    >>> graphjit.grad(loss)(np.eye(2), np.zeros(2))
    array([[0., 0.],
           [0., 0.]])
    """
    if fun is None:
        return functools.partial(checkpoint, policy=policy)
    require_callable(fun, "checkpoint")
    if policy is not None:
        require_callable(policy, "checkpoint with a policy")

    @hides_frames
    @functools.wraps(fun)
    def call(*args: Any, **kwargs: Any) -> Any:
        trace = active_trace()
        if trace is None:
            return fun(*args, **kwargs)

        def with_keywords(positional: Any, named: Any) -> Any:
            return trace.user(fun)(*positional, **named)

        with_keywords.__qualname__ = with_keywords.__name__ = name_of(fun)
        rule = Checkpoint(name_of(fun), policy)
        return call_as_node(trace, with_keywords, (args, kwargs), lambda body, given: rule)[0]

    return call


class checkpoint_policies:
    """What a `checkpoint` keeps for the way back besides the arguments of its function.

    A policy is a function of a node of the graph that says whether its value is kept. These make one, or are
    one.

    Examples
    --------
    >>> import graphjit
    >>> policy = graphjit.checkpoint_policies.save_smaller_than(1024)
    >>> layer = graphjit.checkpoint(lambda x: x * x, policy=policy)
    >>> graphjit.grad(layer)(3.0)
    np.float64(6.0)
    """

    @staticmethod
    def everything_saveable(node: Node) -> bool:
        """Keep everything: as without `checkpoint`."""
        return True

    @staticmethod
    def nothing_saveable(node: Node) -> bool:
        """Keep nothing: as without a policy."""
        return False

    @staticmethod
    def dots_saveable(node: Node) -> bool:
        """Keep the results of matrix products, which take longest to compute again."""
        return node.op.name == "contract"

    @staticmethod
    def save_only_these_names(*names: str) -> Policy:
        """Keep what `checkpoint_name` gave one of these names."""
        return lambda node: node.op.name == "named" and node.attrs["name"] in names

    @staticmethod
    def save_anything_except_these_names(*names: str) -> Policy:
        """Keep everything but what `checkpoint_name` gave one of these names."""
        return lambda node: not (node.op.name == "named" and node.attrs["name"] in names)

    @staticmethod
    def save_smaller_than(nbytes: int) -> Policy:
        """Keep results of functions, sums and products of fewer bytes than this."""
        return lambda node: not node.is_bundle and node.type.nbytes < nbytes
