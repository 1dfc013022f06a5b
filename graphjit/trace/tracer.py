"""Tracers: what user code computes on while it is recorded.

Job: stand in for an ndarray, record each operation as a node, refuse what only a concrete value could answer.
Input: NumPy calls, operators, methods on tracers.  Output: nodes in the trace's one Builder.
Invariants: dtypes and promotion are NumPy's (NEP 50; Python numbers are weak); the IR receives explicit conversions and broadcasts; tracers
of nested transforms share the outermost trace's builder, so no levels exist that could be confused.
"""

from __future__ import annotations

import dis
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, cast

import numpy as np

from graphjit.backend.signature import ContentGuard
from graphjit.errors import TraceError, UnsupportedError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.types import SHORT, Type
from graphjit.trace.lent import is_array, is_captured
from graphjit.trace.location import user_location

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


def set_active_trace(trace: Trace | None) -> None:
    """Another trace, or none, is being recorded in this thread."""
    _active.trace = trace


class Trace:
    """One recording: a builder, and the arrays that user code captured from outside."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.captured: dict[int, tuple[np.ndarray, Node]] = {}
        self.contents: dict[int, ContentGuard] = {}  # captured arrays whose values were taken out (`captured.py`)
        self.over = False
        self.leaks: dict[int, str] = {}  # names of what still holds a traced value when the trace is over, by the value's id
        self.free: dict[Node, bool] = {}  # whether a node depends on captured arrays alone, as far as somebody asked
        self.fresh = False  # inputs were just made for one transform, so it may differentiate with respect to them directly
        self._outer: Trace | None = None

    def __enter__(self) -> Trace:
        self._outer, _active.trace = _active.trace, self
        return self

    def __exit__(self, *exc: object) -> None:
        _active.trace = self._outer
        self.over = True

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
            if value._trace is not self or self.over:
                raise leaked(value)
            return value._node
        if isinstance(value, np.ndarray):
            return self.capture(value)
        if isinstance(value, list | tuple):
            return self.node(assemble(self, value))
        array = np.asarray(value)
        check_dtype(array.dtype)
        return self.builder.const(array, array.dtype)

    def capture(self, array: np.ndarray) -> Node:
        """A concrete array met while tracing: an input by reference, or a constant when nobody can write to it."""
        if array.dtype == object:
            return self.node(assemble(self, array))
        if not is_array(array):
            raise UnsupportedError(
                f"{type(array).__module__}.{type(array).__name__} is not compiled (at {user_location()}): "
                "pass a plain ndarray, for example np.asarray(x)"
            )
        known = self.captured.get(id(array))
        if known is not None:
            return known[1]
        check_dtype(array.dtype)
        if not array.flags.writeable and array.base is None:
            return self.builder.const(array, array.dtype)
        node = self.builder.input(Type(array.dtype, array.shape), "captured")
        self.captured[id(array)] = (array, node)
        return node

    # ------------------------------------------------------------------------------------------ operations

    def emit(self, op: str, *args: Node | float, **attrs: Any) -> Node:
        """A node at the user's present line."""
        self.builder.loc = user_location()
        self.builder.origin = ""
        return self.builder.emit(op, *args, **attrs)

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
            raise UnsupportedError(f"np.{ufunc.__name__} is not compiled (at {user_location()})")
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


def leaked(value: Tracer) -> TraceError:
    """The error for a traced value that is used after its function was traced."""
    place = value._trace.leaks.get(id(value), "a global, an attribute or a mutable default")
    try:
        made = value._node.loc
    except TraceError:  # parts that were written one by one were never joined
        made = None
    where = f"made at {made} in {made.function}" if made is not None else "an argument of the function, or an array that it filled"
    return TraceError(
        f"a traced value was used at {user_location()} after its function had been traced: it leaked out of the function through {place} "
        f"({where}). It has no value: return it from the function instead"
    )


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


@functools.lru_cache(maxsize=4096)
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
        if values.dtype != object:
            return Tracer(trace, trace.capture(values))
        values = values.tolist()
    if not isinstance(values, list | tuple):
        return values if isinstance(values, Tracer) else Tracer(trace, trace.node(values))
    if not any_tracer(values):
        return Tracer(trace, trace.node(np.array(values)))
    result: Any = np.stack([assemble(trace, value) for value in values])  # type: ignore[call-overload]
    return cast(Tracer, result)


def any_tracer(values: Any) -> bool:
    """Whether nested lists and tuples hold a tracer or a captured array."""
    if isinstance(values, list | tuple):
        return any(any_tracer(value) for value in values)
    return is_captured(values) or isinstance(values, Tracer) or (isinstance(values, np.ndarray) and values.dtype == object)


def _assigning(frame: FrameType) -> bool:
    """Whether a frame is at ``array[...] = value``: NumPy asks a traced value for a number there."""
    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == dis.opmap["STORE_SUBSCR"]


def concrete(name: str, what: str, advice: str) -> Callable[..., Any]:
    """A method that refuses, unless captured arrays alone decide: the value is only known when the compiled code runs."""

    def refuse(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        self._alive()
        known = METHODS["__concretise__"](self, what)
        if known is not None:
            return getattr(known if hasattr(known, name) else known[()], name)(*args, **kwargs)
        if _assigning(sys._getframe(1)):
            raise METHODS["__written__"]("an assignment of a traced value to items")
        raise TraceError(
            f"{what} needs the value of a traced {self._node.type} at {user_location()}, which is only known when the "
            f"compiled code runs. {advice}"
        )

    return refuse


_STATIC = "Mark the argument as static (static_argnums / static_argnames) if it is a fixed Python value."


def binary(ufunc: np.ufunc, reflected: bool = False) -> Callable[[Tracer, Any], Any]:
    """An operator method."""

    def method(self: Tracer, other: Any) -> Any:
        if not isinstance(other, Tracer | int | float | np.ndarray | np.generic | list | tuple):
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
    def __hash__(self) -> int:
        """By identity; a number from a captured array by its value, as a key of a dict."""
        known = METHODS["__concretise__"](self, "a key of a dict or a set") if not self.shape else None
        return object.__hash__(self) if known is None else hash(known[()])

    def __init__(self, trace: Trace, node: Node, weak: bool = False) -> None:
        self._trace = trace
        self._node = node
        self._weak = weak

    def _alive(self) -> None:
        """Refuse what needs a value after the trace is over."""
        if self._trace.over:
            raise leaked(self)

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
        return f"<traced {self._node.type}>"

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
        self._alive()
        handler = METHODS.get("__array_ufunc__")
        if handler is not None:
            compute = getattr(ufunc, method)
            record = functools.partial(handler, self, ufunc, method)
            return METHODS["__or_computed__"](f"np.{ufunc.__name__}", record, compute, args, kwargs)
        return self._trace.ufunc(ufunc, *args)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        self._alive()
        name = f"{getattr(function, '__module__', 'numpy')}.{function.__name__}"
        return METHODS["__or_computed__"](name, FUNCTIONS.get(function) or _not_compiled(name), function, args, kwargs)

    @property
    def __array__(self) -> Any:
        if not self.shape:
            # np.array([a, b]) of 0-d tracers keeps them in an object array, which `assemble` turns into one value.
            raise AttributeError("__array__")
        self._alive()
        known = METHODS["__concretise__"](self, "np.asarray")
        if known is not None:
            return lambda dtype=None, copy=None: np.array(known, dtype=dtype, copy=copy)
        if _assigning(sys._getframe(1)):
            raise METHODS["__written__"]("an assignment of a traced value to items")
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
        self._alive()
        if getattr(implementation, "is_property", False):
            return implementation(self)
        compute = getattr(np.ndarray, name, None)
        if compute is None:
            return lambda *args, **kwargs: implementation(self, *args, **kwargs)
        return lambda *args, **kwargs: METHODS["__or_computed__"](f"ndarray.{name}", implementation, compute, (self, *args), kwargs)

    def __getitem__(self, key: Any) -> Any:
        self._alive()
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
    __bool__ = concrete(
        "__bool__", "the truth value (if, while, and, or, not, assert)", f"Use np.where for a choice between values. {_STATIC}"
    )
    __float__ = concrete("__float__", "float() or a function of the math module", f"Use the NumPy function on the array. {_STATIC}")
    __int__ = concrete("__int__", "int()", f"Use .astype(int) on the array. {_STATIC}")
    __index__ = concrete("__index__", "a Python index, range() or a size", _STATIC)
    __complex__ = concrete("__complex__", "complex()", "Complex numbers are not compiled.")
    __contains__ = concrete("__contains__", "`in`", "Use np.any(x == value).")
    item = concrete("item", ".item()", "Return the array and call .item() outside.")
    tolist = concrete("tolist", ".tolist()", "Return the array and call .tolist() outside.")
    __round__ = concrete("__round__", "round()", "Use np.round.")

    def __format__(self, spec: str) -> str:
        known = METHODS["__concretise__"](self, "formatting")
        if known is not None:
            return format(known[()], spec)
        if spec:
            raise TraceError(
                f"formatting with {spec!r} needs the value of a traced {self._node.type} at {user_location()}, which is only known when the "
                "compiled code runs. Return the value and format it outside."
            )
        return repr(self)

    __copy__ = lambda self: self
    __deepcopy__ = lambda self, memo: self
    __reduce__ = concrete("__reduce__", "pickling", "Return the value and pickle it outside.")


class Outside(Tracer):
    """The traced value of an array from outside itself: it is read, never written."""

    __slots__ = ()


def _not_compiled(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise UnsupportedError(
            f"{name} is not compiled (at {user_location()}); write it with the functions that "
            "`graphjit ops` lists, or compute it outside the compiled function"
        )

    return refuse


BOUND: dict[np.ufunc, str] = {
    function: op.name for op in REGISTRY.values() for function in op.numpy if isinstance(function, np.ufunc)
}
