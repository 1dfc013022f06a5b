"""Tracers: what user code computes on while it is recorded.

Job: stand in for an ndarray, record each operation as a node, refuse what only a concrete value could answer.
Input: NumPy calls, operators, methods on tracers.  Output: nodes in the trace's one Builder.
Invariants: dtypes and promotion are NumPy's (NEP 50; Python numbers are weak); the IR receives explicit conversions and broadcasts; tracers
of nested transforms share the outermost trace's builder, so no levels exist that could be confused.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import TracebackType
from typing import Any, cast

import numpy as np

from graphjit.errors import GraphjitError, TraceError, UnsupportedError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Location, Node
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.types import SHORT, Type
from graphjit.trace.calls import public_name, written
from graphjit.trace.concrete import Values
from graphjit.trace.location import LIBRARIES, OWN, assigns_item, called_function, user_location

Implementation = Callable[..., Any]

FUNCTIONS: dict[Callable[..., Any], Implementation] = {}
"""NumPy function -> our implementation on tracers; filled by ``implements``."""

UFUNCS: dict[np.ufunc, Implementation] = {}
"""ufunc without an op of its own -> implementation ``(trace, *args)``."""

METHODS: dict[str, Implementation] = {}
"""ndarray method or property name -> implementation whose first argument is the tracer."""


def implements(*functions: Callable[..., Any]) -> Callable[[Implementation], Implementation]:
    """Register an implementation for NumPy functions (same signature; arguments may be tracers or anything NumPy takes)."""

    def register(implementation: Implementation) -> Implementation:
        for function in functions:
            FUNCTIONS[function] = implementation
        return implementation

    return register


class _Active(threading.local):
    trace: Trace | None = None


_active = _Active()


def active_trace() -> Trace | None:
    """The trace being recorded in this thread, if any."""
    return _active.trace


class Trace:
    """One recording: a builder, and the arrays that user code captured from outside."""

    def __init__(self, values: Values | None = None) -> None:
        """``values`` makes a trace that computes while it records."""
        self.builder = Builder()
        self.values = values
        self.captured: dict[int, tuple[np.ndarray, Node]] = {}
        self.fresh = False  # inputs were just made for one transform, so it may differentiate with respect to them directly
        self.refused: tuple[TraceError, Location | None] | None = None  # what a traced value last said instead of its value
        self._outer: Trace | None = None

    def __enter__(self) -> Trace:
        self._outer, _active.trace = _active.trace, self
        return self

    def __exit__(self, kind: object, error: BaseException | None, entry: TracebackType | None) -> None:
        _active.trace = self._outer
        if self.refused is None or not isinstance(error, TypeError | ValueError) or isinstance(error, GraphjitError):
            return
        # NumPy asks for an index, swallows our answer and complains of something else at the same line: ours says what to do.
        refusal, where = self.refused
        last: tuple[str, int] | None = None
        while entry is not None:
            code = entry.tb_frame.f_code
            if not code.co_filename.startswith((OWN, *LIBRARIES)):
                last = code.co_filename, entry.tb_lineno
            entry = entry.tb_next
        if where is not None and last == where[:2]:
            raise refusal.with_traceback(error.__traceback__) from None

    # ------------------------------------------------------------------------------------------ values

    def input(self, type: Type, name: str, weak: bool = False) -> Tracer:
        """A fresh traced input."""
        return Tracer(self, self.builder.input(type, name), weak)

    def tracer(self, node: Node, weak: bool = False) -> Tracer:
        """Wrap a node."""
        return Tracer(self, node, weak)

    def node(self, value: Any) -> Node:
        """The node of a tracer, a number, a NumPy scalar or an array (captured by reference unless read-only).

        Raises:
            UnsupportedError: a dtype or array subclass that is not compiled.
        """
        if isinstance(value, Tracer):
            if value._trace is not self:
                raise TraceError(
                    "a traced value from another, finished trace was used: it leaked out of the function that made it "
                    f"(through a global, an attribute or a mutable default) at {user_location()}"
                )
            return value._node
        if isinstance(value, np.ndarray):
            return self.capture(value)
        if isinstance(value, list | tuple):
            return self.node(assemble(self, value))
        if isinstance(value, complex):
            raise complex_needed(value)
        array = np.asarray(value)
        check_dtype(array.dtype)
        return self.builder.const(array, array.dtype)

    def capture(self, array: np.ndarray) -> Node:
        """A concrete array met while tracing: an input by reference, or a constant when nobody can write to it."""
        if array.dtype == object:
            return self.node(assemble(self, array))
        plain = np.asarray(array) if type(array) is np.memmap else array
        if type(plain) is not np.ndarray:
            raise UnsupportedError(
                f"{type(array).__module__}.{type(array).__name__} is not compiled (at {user_location()}): "
                "pass a plain ndarray, for example np.asarray(x)"
            )
        known = self.captured.get(id(array))
        if known is not None:
            return known[1]
        check_dtype(array.dtype)
        if self.values is not None or (not array.flags.writeable and array.base is None):
            return self.builder.const(plain, array.dtype)
        node = self.builder.input(Type(array.dtype, array.shape), "captured")
        self.captured[id(array)] = (plain, node)
        return node

    # ------------------------------------------------------------------------------------------ operations

    def emit(self, op: str, *args: Node | float, **attrs: Any) -> Node:
        """A node at the user's present line."""
        self.builder.loc = user_location()
        self.builder.origin = ""
        node = self.builder.emit(op, *args, **attrs)
        if self.values is not None:
            self.values.computed(node)  # now, so that its errors come at the user's line
        return node

    def apply(self, op: str, *args: Any, **attrs: Any) -> Tracer:
        """Emit on values that already agree in dtype and shape."""
        return Tracer(self, self.emit(op, *[self.node(a) for a in args], **attrs))

    def convert(self, node: Node, dtype: np.dtype) -> Node:
        """``node`` as ``dtype``."""
        return node if node.dtype == dtype else self.emit("convert", node, dtype=dtype)

    def narrow(self, node: Node, dtype: np.dtype) -> Node:
        """A Python number as ``dtype``: an integer that does not fit is an error when the code runs."""
        if node.dtype.kind == "i" and dtype.kind in "iu" and dtype != node.dtype:
            return self.emit("narrow", node, dtype=dtype)
        return self.convert(node, dtype)

    def broadcast(self, node: Node, shape: tuple[int, ...]) -> Node:
        """``node`` in ``shape`` by NumPy's rule."""
        return node if node.shape == shape else self.emit("broadcast_to", node, shape=shape)

    def ufunc(self, ufunc: np.ufunc, *args: Any) -> Any:
        """Apply an elementwise ufunc to tracers, arrays and numbers with NumPy's promotion and broadcasting."""
        special = UFUNCS.get(ufunc)
        if special is not None:
            return special(self, *args)
        op = BOUND.get(ufunc)
        if op is None:
            raise UnsupportedError(f"{public_name(ufunc)} is not compiled (at {user_location()})")
        nodes, _ = self.promoted(ufunc, args)
        return Tracer(self, self.emit(op, *nodes))

    def promoted(self, ufunc: np.ufunc, args: tuple[Any, ...]) -> tuple[list[Node], np.dtype]:
        """Arguments converted and broadcast as ``ufunc`` would, and the ufunc's result dtype."""
        nodes = [None if is_python_number(a) else self.node(a) for a in args]
        kinds = tuple(
            python_kind(a) if n is None else WEAK[n.dtype.kind] if is_weak(a) else n.dtype
            for a, n in zip(args, nodes, strict=True)
        )
        dtypes = resolve(ufunc, kinds)
        ready = [
            self.number(a, dtype) if n is None else self.narrow(n, dtype) if is_weak(a) else self.convert(n, dtype)
            for a, n, dtype in zip(args, nodes, dtypes, strict=False)
        ]
        shape = self.common_shape(*ready)
        return [self.broadcast(n, shape) for n in ready], dtypes[len(args)]

    def number(self, value: Any, dtype: np.dtype) -> Node:
        """A Python number as a constant of ``dtype`` (NumPy's OverflowError when it does not fit)."""
        return self.builder.const(dtype.type(value), dtype)

    def common_shape(self, *nodes: Node) -> tuple[int, ...]:
        """NumPy's broadcast shape."""
        first = nodes[0].shape
        if all(n.shape == first for n in nodes):
            return first
        result = [1] * max(len(n.shape) for n in nodes)
        for shape in {n.shape for n in nodes}:
            for i, n in enumerate(reversed(shape), 1):
                if n != 1:
                    if result[-i] not in (1, n):
                        shapes = " ".join(str(n.shape) for n in nodes)
                        raise ValueError(f"operands could not be broadcast together with shapes {shapes} (at {user_location()})")
                    result[-i] = n
        return tuple(result)


def check_dtype(dtype: np.dtype) -> None:
    """Refuse dtypes that are not compiled."""
    if dtype.name not in SHORT or not dtype.isnative:
        raise UnsupportedError(
            f"dtype {dtype} is not compiled (at {user_location()}); use one of {', '.join(SHORT)} in native byte order"
        )


def is_python_number(value: Any) -> bool:
    """Python bool, int, float: weak in promotion (NumPy scalars are not, though np.float64 subclasses float)."""
    return isinstance(value, int | float) and not isinstance(value, np.generic)


WEAK: dict[str, Any] = {"f": float, "i": int, "b": np.dtype(bool)}


def python_kind(value: Any) -> Any:
    """How a Python number takes part in promotion."""
    return np.dtype(bool) if isinstance(value, bool) else int if isinstance(value, int) else float


def is_weak(value: Any) -> bool:
    """Whether a tracer stands for a Python number."""
    return isinstance(value, Tracer) and value._weak


@lru_cache(maxsize=4096)
def resolve(ufunc: np.ufunc, kinds: tuple[Any, ...]) -> tuple[np.dtype, ...]:
    """The dtypes of the loop that NumPy would run: arguments, then result."""
    if all(kind is int or kind is float for kind in kinds):  # by identity: a dtype equals the Python type it comes from
        kinds = tuple(np.dtype(np.int64) if kind is int else np.dtype(np.float64) for kind in kinds)
    found = ufunc.resolve_dtypes((*kinds, *([None] * ufunc.nout)))
    for dtype in found:
        check_dtype(dtype)
    return tuple(found)


def assemble(trace: Trace, values: Any) -> Tracer:
    """Nested lists, tuples or an object array holding tracers -> one tracer (np.array's meaning)."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        return values if isinstance(values, Tracer) else Tracer(trace, trace.node(values))
    if not any_tracer(values):
        return Tracer(trace, trace.node(np.array(values)))
    result: Any = np.stack([assemble(trace, value) for value in values])  # type: ignore[call-overload]
    return cast(Tracer, result)


def any_tracer(values: Any) -> bool:
    """Whether nested lists and tuples hold a tracer."""
    if isinstance(values, list | tuple):
        return any(any_tracer(value) for value in values)
    return isinstance(values, Tracer) or (isinstance(values, np.ndarray) and values.dtype == object)


def complex_needed(value: complex) -> UnsupportedError:
    """The error for a complex number beside a traced value."""
    return UnsupportedError(
        f"a traced value meets the complex number {value!r} at {user_location()}: complex numbers are not compiled yet. Compute with real and "
        "imaginary parts as two arrays (np.cos and np.sin for np.exp(1j * x))"
    )


def value_needed(what: str, type: Type, advice: str) -> TraceError:
    """The error for something that needs a traced value."""
    where = user_location()
    error = TraceError(f"{what} needs the value of a traced {type} at {where}, which is only known when the compiled code runs. {advice}")
    trace = active_trace()
    if trace is not None:
        trace.refused = error, where
    return error


def from_outside(writer: str) -> TraceError:
    """What is raised where an array would be written that the trace does not own, which compiled code never does."""
    return TraceError(
        f"{writer} would write a traced result into an array from outside at {user_location()}. Make the array inside the function "
        "(np.zeros, np.empty), or use the result: a = a + b"
    )


def known_value(tracer: Tracer) -> Any:
    """The NumPy array or scalar behind a tracer of a trace that computes; None in all others."""
    trace = active_trace()
    found = trace.values.of(tracer._node) if trace is not None and trace.values is not None else None
    return found if found is None or found.shape else found.item() if tracer._weak else found[()]


def concrete(name: str, what: str, advice: str) -> Callable[..., Any]:
    """The method ``name`` of arrays and numbers, for tracers: it refuses, since the value is only known when the compiled code runs."""

    def refuse(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        known = known_value(self)
        if known is None:
            raise from_outside("an assignment to an item") if assigns_item() else value_needed(what, self._node.type, advice)
        known = known if hasattr(known, name) else np.asarray(known)
        return getattr(known, name)(*args, **kwargs)

    return refuse


STATIC = "Mark the argument as static (static_argnums / static_argnames) if it is a fixed Python value."


def binary(ufunc: np.ufunc, reflected: bool = False) -> Callable[[Tracer, Any], Any]:
    """An operator method."""

    def method(self: Tracer, other: Any) -> Any:
        if not isinstance(other, Tracer | int | float | np.ndarray | np.generic | list | tuple):
            if isinstance(other, complex):
                raise complex_needed(other)
            return NotImplemented
        result = self._trace.ufunc(ufunc, other, self) if reflected else self._trace.ufunc(ufunc, self, other)
        if self._weak and (is_weak(other) or is_python_number(other)):
            result._weak = True
        return result

    return method


_raise = binary(np.power)


def power(self: Tracer, other: Any) -> Any:
    """``self ** other``: NumPy squares where the exponent is the Python number 2, and the square of a bool is an int8."""
    squares = type(other) is int and other == 2 and not self._weak
    return self._trace.ufunc(np.square, self) if squares and self.dtype.kind == "b" else _raise(self, other)


def unary(ufunc: np.ufunc) -> Callable[[Tracer], Any]:
    """An operator method of one argument."""

    def method(self: Tracer) -> Any:
        result = self._trace.ufunc(ufunc, self)
        result._weak = self._weak
        return result

    return method


class Tracer:
    """A traced array: behaves like an ndarray of known dtype and shape and unknown values."""

    __slots__ = ("__weakref__", "_node", "_trace", "_weak")
    __array_priority__ = 1000.0
    __hash__ = object.__hash__

    def __init__(self, trace: Trace, node: Node, weak: bool = False) -> None:
        self._trace = trace
        self._node = node
        self._weak = weak

    # static facts
    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        return self._node.shape

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype."""
        return self._node.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._node.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._node.type.size

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self._node.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._node.type.nbytes

    def __repr__(self) -> str:
        known = known_value(self)
        return f"<traced {self._node.type}>" if known is None else repr(known)

    def __str__(self) -> str:
        known = known_value(self)
        return repr(self) if known is None else str(known)

    # operators
    __add__, __radd__ = binary(np.add), binary(np.add, True)
    __sub__, __rsub__ = binary(np.subtract), binary(np.subtract, True)
    __mul__, __rmul__ = binary(np.multiply), binary(np.multiply, True)
    __truediv__, __rtruediv__ = binary(np.true_divide), binary(np.true_divide, True)
    __floordiv__, __rfloordiv__ = binary(np.floor_divide), binary(np.floor_divide, True)
    __mod__, __rmod__ = binary(np.remainder), binary(np.remainder, True)
    __pow__, __rpow__ = power, binary(np.power, True)
    __and__, __rand__ = binary(np.bitwise_and), binary(np.bitwise_and, True)
    __or__, __ror__ = binary(np.bitwise_or), binary(np.bitwise_or, True)
    __xor__, __rxor__ = binary(np.bitwise_xor), binary(np.bitwise_xor, True)
    __lshift__, __rlshift__ = binary(np.left_shift), binary(np.left_shift, True)
    __rshift__, __rrshift__ = binary(np.right_shift), binary(np.right_shift, True)
    __lt__, __le__, __gt__, __ge__ = (
        binary(np.less),
        binary(np.less_equal),
        binary(np.greater),
        binary(np.greater_equal),
    )
    __eq__, __ne__ = binary(np.equal), binary(np.not_equal)  # type: ignore[assignment]
    __neg__, __abs__, __invert__, __pos__ = (
        unary(np.negative),
        unary(np.absolute),
        unary(np.invert),
        lambda self: self,
    )

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __matmul__(self, other: Any) -> Any:
        return np.matmul(self, other)  # type: ignore[call-overload]

    def __rmatmul__(self, other: Any) -> Any:
        return np.matmul(other, self)  # type: ignore[call-overload]

    # NumPy's protocols
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        handler = METHODS.get("__array_ufunc__")
        if handler is not None:
            return handler(self, ufunc, method, *args, **kwargs)
        return self._trace.ufunc(ufunc, *args)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        implementation = FUNCTIONS.get(function)
        if implementation is None:
            raise UnsupportedError(
                f"{public_name(function)} is not compiled (at {user_location()}); write it with the functions that "
                "`graphjit ops` lists, or compute it outside the compiled function"
            )
        return written(implementation, function, public_name(function), args, kwargs)

    @property
    def __array__(self) -> Any:
        if not self.shape:
            # np.array([a, b]) of 0-d tracers keeps them in an object array, which `assemble` turns into one value.
            raise AttributeError("__array__")
        if assigns_item():
            raise from_outside("an assignment to an item")
        raise TraceError(
            f"np.asarray / np.array of a traced {self._node.type} at {user_location()}: its values are only known when the "
            "compiled code runs. Use the traced value itself; np.stack or np.concatenate join several."
        )

    # methods and properties of ndarray
    def __getattr__(self, name: str) -> Any:
        implementation = METHODS.get(name)
        if implementation is None or name.startswith("__"):
            raise AttributeError(
                f"a traced array has no attribute {name!r}"
                if name.startswith("__")
                else f"ndarray.{name} is not compiled (at {user_location()})"
            )
        if getattr(implementation, "is_property", False):
            return implementation(self)
        return lambda *args, **kwargs: written(implementation, getattr(np.ndarray, name, None), f"ndarray.{name}", (self, *args), kwargs)

    def __getitem__(self, key: Any) -> Any:
        return METHODS["__getitem__"](self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        METHODS["__setitem__"](self, key, value)

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    # what only a value can answer
    def __bool__(self) -> bool:
        known = known_value(self)
        if known is not None:
            return bool(known)
        asker = called_function()
        if asker in (None, "bool"):
            raise value_needed(
                "the truth value (if, while, and, or, not, assert)", self._node.type, f"Use np.where for a choice between values. {STATIC}"
            )
        raise value_needed(f"an argument of {asker}", self._node.type, STATIC)

    def __index__(self) -> int:
        known = known_value(self)
        if known is not None:
            return operator.index(known)
        asker = called_function()
        raise value_needed(f"an argument of {asker}" if asker else "a Python index, a size or an axis", self._node.type, STATIC)

    __float__ = concrete("__float__", "float() or a function of the math module", f"Use the NumPy function on the array. {STATIC}")
    __int__ = concrete("__int__", "int()", f"Use .astype(int) on the array. {STATIC}")
    __complex__ = concrete("__complex__", "complex()", "Complex numbers are not compiled.")
    __contains__ = concrete("__contains__", "`in`", "Use np.any(x == value).")
    item = concrete("item", ".item()", "Return the array and call .item() outside.")
    tolist = concrete("tolist", ".tolist()", "Return the array and call .tolist() outside.")
    __round__ = concrete("__round__", "round()", "Use np.round.")

    def __format__(self, spec: str) -> str:
        known = known_value(self)
        if known is not None:
            return format(known, spec)
        if spec:
            raise value_needed(f"formatting with {spec!r}", self._node.type, "Return the value and format it outside.")
        return repr(self)

    __copy__ = lambda self: self
    __deepcopy__ = lambda self, memo: self
    __reduce__ = concrete("__reduce__", "pickling", "Return the value and pickle it outside.")

Tracer.__name__ = Tracer.__qualname__ = "traced array"
"""What messages of Python and NumPy call it: "a bytes-like object is required, not 'traced array'"."""

BOUND: dict[np.ufunc, str] = {
    function: op.name for op in REGISTRY.values() for function in op.numpy if isinstance(function, np.ufunc)
}
