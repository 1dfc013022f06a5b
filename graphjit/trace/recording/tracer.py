"""Traced values: what user code computes on while it is recorded, and the trace that turns values into nodes.

Job: stand in for an ndarray (`Array`), a NumPy scalar (`Scalar`) or a Python number (`Number`); record each
operation as a node; leave to `answers` what only a value could say.
Input: NumPy calls, operators, methods. Output: nodes in the trace's one Builder.
Invariants: dtypes and promotion are NumPy's (NEP 50; Python numbers are weak); the IR receives explicit
conversions and broadcasts; traced values of nested transforms share the outermost trace's builder, so no
levels exist that could be confused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from typing import Any, NoReturn, cast

import numpy as np

from graphjit.backend.signature import ContentGuard
from graphjit.errors import TraceError, UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.types import Type
from graphjit.trace.arrays.layout import Laid, in_order
from graphjit.trace.outside.captured_class import is_array, is_captured
from graphjit.trace.recording.answers import (
    SEQUENCES,
    STATIC,
    Unanswered,
    asks_value,
    complex_needed,
    from_outside,
    leaked,
    repeated,
    shown,
)
from graphjit.trace.recording.calls import called_with_out, public_name
from graphjit.trace.recording.concrete import Values
from graphjit.trace.recording.location import (
    asked_by_user,
    assigns_item,
    subscribes,
    user_location,
)
from graphjit.trace.recording.operators import binary, in_place, power, unary
from graphjit.trace.recording.promotion import WEAK, common_shape, resolve
from graphjit.trace.recording.promotion import check_dtype as check_dtype
from graphjit.trace.recording.promotion import is_python_number as is_python_number
from graphjit.trace.recording.promotion import python_kind as python_kind
from graphjit.trace.recording.recorder import Recorder
from graphjit.trace.recording.tables import FUNCTIONS as FUNCTIONS
from graphjit.trace.recording.tables import METHODS as METHODS
from graphjit.trace.recording.tables import UFUNCS as UFUNCS
from graphjit.trace.recording.tables import implements as implements


class Trace(Recorder):
    """One recording of user code: its arguments, and the arrays that it captured from outside."""

    def __init__(self, values: Values | None = None) -> None:
        """``values`` makes a trace that computes while it records."""
        super().__init__(values)
        self.arguments: list[Tracer] = []
        self.captured: dict[int, tuple[np.ndarray, Node]] = {}
        """By the array's id, which stays its own since the array is kept."""
        self.lend: Callable[[np.ndarray], None] = lambda array: None
        """Makes a captured array watch how it is used (`lent`)."""
        self.outsides: dict[int, Outside] = {}
        """The traced values of captured arrays, by the array's id."""
        self.contents: dict[int, ContentGuard] = {}
        """Captured arrays whose values were taken out (`captured`)."""
        self.free: dict[Node, bool] = {}
        """Whether a node depends on captured arrays alone, as far as somebody asked."""
        self.rolls = True
        """Whether loops are rolled up again (`trace.rolling`)."""
        self.fresh = False
        """Inputs were just made for one transform, which may differentiate with respect to them directly."""

    def input(self, type: Type, name: str, kind: str = "array") -> Tracer:
        """A fresh traced input; ``kind`` is that of a leaf: array, scalar (NumPy's) or number (Python's)."""
        made = KINDS[kind](self, self.builder.input(type, name))
        self.arguments.append(made)
        return made

    def node(self, value: Any) -> Node:
        """The node of a tracer, a number, a NumPy scalar or an array (captured by reference unless
        read-only).

        Raises:
            UnsupportedError: a dtype or array subclass that is not compiled.
        """
        if issubclass(type(value), Tracer):
            if value._trace is not self or self.over:
                raise leaked(value)
            return value._node  # type: ignore[no-any-return]
        if isinstance(value, np.ndarray):
            return self.capture(value)
        if isinstance(value, list | tuple):
            return self.node(assemble(self, value))
        if isinstance(value, complex):
            raise complex_needed(value)
        if isinstance(value, np.generic):
            check_dtype(value.dtype)
            return self.scalar(value)
        array = np.asarray(value)
        check_dtype(array.dtype)
        return self.builder.const(array, array.dtype)

    def capture(self, array: np.ndarray) -> Node:
        """A concrete array met while tracing: an input by reference, or a constant when nobody can write to
        it.
        """
        if array.dtype == object:
            return self.node(assemble(self, array))
        plain = np.asarray(array) if type(array) is np.memmap else array
        if not is_array(plain):
            raise UnsupportedError(
                f"{type(array).__module__}.{type(array).__name__} is not compiled (at {user_location()}): "
                "pass a plain ndarray, for example np.asarray(x)"
            )
        captured = self.captured.get(id(array))
        if captured is not None:
            return captured[1]
        check_dtype(array.dtype)
        if self.values is not None or (not array.flags.writeable and array.base is None):
            return self.builder.const(plain, array.dtype)
        node = self.builder.input(Type(array.dtype, array.shape), "captured")
        self.captured[id(array)] = (plain, node)
        self.free[node] = True
        self.lend(plain)  # from now on a write into it is seen
        return node

    def ufunc(self, ufunc: np.ufunc, *args: Any) -> Any:
        """Apply an elementwise ufunc to tracers, arrays and numbers with NumPy's promotion and
        broadcasting.
        """
        special = UFUNCS.get(ufunc)
        if special is not None:
            return in_order(special(self, *args), ufunc, args)
        op = BOUND.get(ufunc)
        if op is None:
            raise UnsupportedError(f"{public_name(ufunc)} is not compiled (at {user_location()})")
        nodes, _ = self.promoted(ufunc, args)
        result = traced(self, self.emit(op, *nodes))
        return in_order(result, ufunc, args) if type(result) is Array else result

    def promoted(self, ufunc: np.ufunc, args: tuple[Any, ...]) -> tuple[list[Node], np.dtype]:
        """Arguments converted and broadcast as ``ufunc`` would, and the ufunc's result dtype."""
        nodes: list[Node | None] = []
        kinds: list[Any] = []
        for value in args:
            node = None
            if issubclass(type(value), Tracer):
                node = self.node(value)
                kind = WEAK[node.type.dtype.kind] if value._weak else node.type.dtype
            else:
                kind = python_kind(value)
                if kind is None:
                    node = self.node(value)
                    kind = node.type.dtype
            nodes.append(node)
            kinds.append(kind)
        dtypes = resolve(ufunc, tuple(kinds))
        ready = []
        for value, node, dtype in zip(args, nodes, dtypes, strict=False):
            if node is None:
                node = self.number(value, dtype)
            elif node.type.dtype != dtype:
                node = self.narrow(node, dtype) if is_weak(value) else self.convert(node, dtype)
            ready.append(node)
        shape = common_shape(*ready)
        return [n if n.type.shape == shape else self.broadcast(n, shape) for n in ready], dtypes[len(args)]


def is_number(value: Any) -> bool:
    """Whether a value is an array or a number that takes part in a computation."""
    return isinstance(value, Tracer | np.ndarray | np.generic | int | float) and not isinstance(value, bool)


def is_weak(value: Any) -> bool:
    """Whether a tracer stands for a Python number."""
    return issubclass(type(value), Number)


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
    return (
        is_captured(values)
        or isinstance(values, Tracer)
        or (isinstance(values, np.ndarray) and values.dtype == object)
    )


def _bound(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return bound(function, args, kwargs)


def bound(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A NumPy function on traced arguments: value, ``out=``, memory order of the result.

    Raises:
        UnsupportedError: it is not compiled.
    """
    implementation = FUNCTIONS.get(function)
    if implementation is None:
        raise UnsupportedError(
            f"{public_name(function)} is not compiled (at {user_location()}); write it with the functions that "
            "`graphjit ops` lists, or compute it outside the compiled function"
        )
    return in_order(
        called_with_out(implementation, function, public_name(function), args, kwargs), function, args, kwargs
    )


FACTS: dict[str, Callable[[Node], Any]] = {
    "shape": attrgetter("type.shape"),
    "dtype": attrgetter("type.dtype"),
    "ndim": attrgetter("type.ndim"),
    "size": attrgetter("type.size"),
    "itemsize": attrgetter("type.dtype.itemsize"),
    "nbytes": attrgetter("type.nbytes"),
}


def _fact(name: str, doc: str) -> property:
    """A static attribute, which a Python number has not: only this package may ask a traced one."""
    of_node = FACTS[name]

    def fact(self: Tracer) -> Any:
        if self._weak and asked_by_user():
            raise AttributeError(f"{self._class.__name__!r} object has no attribute {name!r}")
        return of_node(self._node)

    return property(fact, doc=doc)


class Tracer(Unanswered):
    """A traced value of known dtype and shape and unknown contents: an `Array`, a NumPy `Scalar` or a Python
    `Number`.

    ``Tracer(trace, node)`` makes what a NumPy function would return: a scalar where there is one number, else
    an array. To user code (and to NumPy's) a traced value gives the class that it stands for, so that
    ``isinstance(x, np.ndarray)`` and ``np.isscalar(x)`` answer as without tracing.
    """

    __slots__ = ("__weakref__", "_model", "_node", "_trace", "_within")
    _model: np.ndarray | None
    __array_priority__ = 1000.0

    def __new__(cls, trace: Trace, node: Node, weak: bool = False) -> Tracer:
        kind = cls if cls is not Tracer else Number if weak else Array if node.shape else Scalar
        return object.__new__(kind)

    def __init__(self, trace: Trace, node: Node, weak: bool = False) -> None:
        self._trace = trace
        self._node = node
        self._within = trace.within  # where it was made, so where it may be written
        self._model: np.ndarray | None = None  # None: a new, row-major array; see `layout`

    def _alive(self) -> None:
        """Refuse what needs a value after the trace is over."""
        if self._trace.over:
            raise leaked(self)

    @property
    def _class(self) -> type:
        """What user code should see."""
        return np.ndarray

    @property
    def __class__(self) -> Any:
        return self._class if asked_by_user() else type(self)

    @__class__.setter
    def __class__(self, kind: type) -> None:
        object.__dict__["__class__"].__set__(self, kind)

    shape = _fact("shape", "Static shape.")
    dtype = _fact("dtype", "NumPy dtype.")
    ndim = _fact("ndim", "Number of axes.")
    size = _fact("size", "Number of elements.")
    itemsize = _fact("itemsize", "Bytes of an element.")
    nbytes = _fact("nbytes", "Bytes of all elements.")

    def __repr__(self) -> str:
        known = shown(self)
        return self._unknown() if known is None else repr(known)

    def __str__(self) -> str:
        known = shown(self)
        return self._unknown() if known is None else str(known)

    def _unknown(self) -> str:
        """A text for a value that is not known: in a loop that is recorded as a whole it would have to be
        another one in each step.
        """
        if self._trace.whole is not None:
            self._trace.whole.refuse("the text of a value is asked for")
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
        unary(np.positive),
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
        record = functools.partial(_bound, function)
        return METHODS["__or_computed__"](public_name(function), record, function, args, kwargs)

    @property
    def __array__(self) -> Any:
        if not self._node.shape:
            # np.array([a, b]) of 0-d tracers keeps them in an object array, which `assemble` turns into one
            # value.
            raise AttributeError("__array__")
        self._alive()
        known = METHODS["__concretise__"](self, "np.asarray")
        if known is not None:
            return lambda dtype=None, copy=None: np.array(known, dtype=dtype, copy=copy)
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
        self._alive()
        if getattr(implementation, "is_property", False):
            return implementation(self)
        function = getattr(np.ndarray, name, None)

        def method(*args: Any, **kwargs: Any) -> Any:
            result = called_with_out(implementation, function, f"ndarray.{name}", args, kwargs)
            return (
                result
                if function is None or kwargs.get("out") is not None
                else in_order(result, function, args, kwargs)
            )

        if function is None:
            return partial(method, self)
        return lambda *args, **kwargs: METHODS["__or_computed__"](
            f"ndarray.{name}", method, function, (self, *args), kwargs
        )

    def __getitem__(self, key: Any) -> Any:
        self._alive()
        return METHODS["__getitem__"](self, key)


class Array(Laid, Tracer):  # type: ignore[misc]
    """A traced ndarray (of no axes too, if NumPy would have an array there)."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    __contains__ = asks_value("__contains__", "`in`", "Use np.any(x == value).")

    __iadd__, __isub__, __imul__ = in_place(np.add), in_place(np.subtract), in_place(np.multiply)
    __itruediv__, __ifloordiv__ = in_place(np.true_divide), in_place(np.floor_divide)
    __imod__, __ipow__, __imatmul__ = in_place(np.remainder), in_place(np.power), in_place(np.matmul)
    __iand__, __ior__, __ixor__ = in_place(np.bitwise_and), in_place(np.bitwise_or), in_place(np.bitwise_xor)
    __ilshift__, __irshift__ = in_place(np.left_shift), in_place(np.right_shift)

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

    def __copy__(self) -> Any:
        return METHODS["__copy__"](self)

    def __deepcopy__(self, memo: Any) -> Any:
        return METHODS["__copy__"](self)


class Outside(Array):
    """The traced value of an array from outside itself: it is read, never written."""

    __slots__ = ()


class Single(Tracer):
    """A number, which cannot be written to."""

    __slots__ = ()

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class Scalar(Single):
    """A traced NumPy scalar."""

    __slots__ = ()
    twin = staticmethod(lambda x: x._node.dtype.type(1))
    __hash__ = asks_value(
        "__hash__", "a key of a dict or an item of a set", "Use the position in a list, or np.where."
    )  # type: ignore[assignment]

    @property
    def _class(self) -> type:
        return self._node.dtype.type

    def __mul__(self, other: Any) -> Any:
        return repeated(self, other) if issubclass(type(other), SEQUENCES) else Tracer.__mul__(self, other)

    def __rmul__(self, other: Any) -> Any:
        return repeated(self, other) if issubclass(type(other), SEQUENCES) else Tracer.__rmul__(self, other)

    def __getitem__(self, key: Any) -> Any:
        # Python iterates over whatever has items, until an IndexError: over a number it would find none.
        if isinstance(key, int) and not subscribes():
            raise TypeError(f"'numpy.{self._class.__name__}' object is not iterable (at {user_location()})")
        return Tracer.__getitem__(self, key)


class Number(Single):
    """A traced Python number: weak in promotion, and without the attributes of arrays."""

    __slots__ = ()
    _weak = True
    __hash__ = Scalar.__hash__  # type: ignore[assignment]
    twin = staticmethod(lambda x: PYTHON[x._node.dtype.kind](1))

    @property
    def _class(self) -> type:
        return PYTHON[self._node.dtype.kind]

    def __getattr__(self, name: str) -> Any:
        if hasattr(self._class, name):
            implementation = NUMBER_METHODS.get(name)
            if implementation is None:
                return partial(asks_value(name, f"{self._class.__name__}.{name}", STATIC), self)
            return implementation(self)
        if name in NDARRAY and asked_by_user():
            raise AttributeError(f"{self._class.__name__!r} object has no attribute {name!r}")
        return Tracer.__getattr__(self, name)

    def __getitem__(self, key: Any) -> NoReturn:
        raise TypeError(f"{self._class.__name__!r} object is not subscriptable (at {user_location()})")


PYTHON: dict[str, type] = {"f": float, "i": int, "b": bool}
NUMBER_METHODS: dict[str, Callable[[Number], Any]] = {
    "real": lambda x: x,
    "imag": lambda x: 0 if x._node.dtype.kind == "i" else 0.0,
    "conjugate": lambda x: lambda: x,
    "numerator": lambda x: x,
    "denominator": lambda x: 1,
}
NDARRAY = frozenset(dir(np.ndarray))


def traced(trace: Trace, node: Node) -> Tracer:
    """``Tracer(trace, node)`` in a third of the time."""
    made: Any = object.__new__(Array if node.type.shape else Scalar)
    made._trace, made._node, made._model, made._within = trace, node, None, trace.within
    return made  # type: ignore[no-any-return]


KINDS: dict[str, type[Tracer]] = {"array": Array, "scalar": Scalar, "number": Number}


def kind_of(value: Any) -> type[Tracer]:
    """The kind of tracer that stands for a value."""
    if isinstance(value, Number) or is_python_number(value):
        return Number
    return Array if isinstance(value, Array | np.ndarray | list | tuple) else Scalar


for _kind, _name in {
    Tracer: "traced array",
    Array: "traced array",
    Outside: "traced array",
    Scalar: "traced scalar",
    Number: "traced number",
}.items():
    _kind.__name__ = _kind.__qualname__ = _name
"""What messages of Python and NumPy call it: "a bytes-like object is required, not 'traced array'"."""

BOUND: dict[np.ufunc, str] = {
    function: op.name for op in REGISTRY.values() for function in op.numpy if isinstance(function, np.ufunc)
}
