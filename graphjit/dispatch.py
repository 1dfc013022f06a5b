"""From a call to native code: signatures, specialisations, and the slow path.

`compiled_function` makes the callable that users hold. A call that its native entry does not recognise comes
to its `Dispatcher`, which finds or makes the specialisation for the call, installs its native entry, and runs
it with the same result.

There is one trace for each signature and state of the guards. The number of specialisations is bounded, and
dropping one frees its native code.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from graphjit import config
from graphjit.backend import signature as sig
from graphjit.backend.llvm.entry.callable import NativeFunction, Specialisation, install
from graphjit.errors import TraceError
from graphjit.ir.node import Graph
from graphjit.trace import nonfinite
from graphjit.trace.arrays.layout import canonical_strides, standing_for
from graphjit.trace.marks import attribute, dispatcher_of
from graphjit.trace.outside.captured_class import is_array
from graphjit.trace.outside.untraced_code import in_finalizer, suspended
from graphjit.trace.parameters import leaf_names, leaf_text, positions, resolve
from graphjit.trace.prepared import Prepared
from graphjit.trace.pytree import TreeSpec, flatten, is_leaf, is_named_tuple, is_plain, tree_map, unflatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.concrete import jit_disabled
from graphjit.trace.recording.location import user_level
from graphjit.trace.recording.tracer import Array, Trace
from graphjit.trace.results import Results, refuse_changed_containers, same_objects
from graphjit.trace.stage import Leaf, Staged, classify, run_eagerly, stage, unconverted
from graphjit.trace.statics import exact_keys
from graphjit.trace.tracebacks import hides_frames

if TYPE_CHECKING:
    from graphjit.backend.executable import Executable
    from graphjit.compilation import Code

LIMIT = 64
"""Specialisations kept per function."""

BACKENDS = ("llvm", "numba")
"""What compiles a program: native code, or Python source run by Numba (readable, and an oracle for the
first).
"""

_dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


def _fresh_locks() -> None:
    """A child of fork must not wait for a thread that only its parent has."""
    for dispatcher in _dispatchers:
        dispatcher.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_locks)


def executable(graph: Graph, backend: str = "llvm", donated: tuple[int, ...] = ()) -> Code:
    """Code of ``graph``; equal graphs share it; results may be written into the inputs numbered in
    ``donated``. The first call loads the compiler, so that importing graphjit stays quick.
    """
    from graphjit.compilation import executable as compiled

    return compiled(graph, backend, donated)


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause the cycle collector: a compilation makes many objects that all stay alive, and scanning them
    again and again is superlinear.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class Static:
    """An argument marked static: compared by type and value, never traced."""

    value: Any

    def __repr__(self) -> str:
        return repr(self.value)


def _taken_apart(args: Any, kwargs: Any) -> tuple[list[Any], TreeSpec] | None:
    """Leaves and structure of traced arguments; None where a class of the user's computes what it is taken
    apart into, so that nothing can be compared.
    """
    try:
        leaves, spec = flatten((args, kwargs))
        stable = is_plain(spec) or same_objects(leaves, flatten((args, kwargs))[0])
    except Exception:  # code of the user's, which may need numbers
        return None
    return (leaves, spec) if stable else None


class Dispatcher:
    """The slow path of one compiled function."""

    def __init__(
        self,
        run: Callable[..., Any],
        function: Callable[..., Any],
        static_argnums: Sequence[int] = (),
        static_argnames: Sequence[str] = (),
        backend: str = "llvm",
        donate_argnums: Sequence[int] = (),
        donate_argnames: Sequence[str] = (),
        python_control_flow: bool = True,
        reroll: bool = True,
    ) -> None:
        if backend not in BACKENDS:
            raise ValueError(
                f"there is no backend {backend!r}; choose one of {', '.join(map(repr, BACKENDS))}"
            )
        self.backend = backend
        self.rolls = reroll
        self.run = run
        self.function = function
        self.named_by = function
        """Whose parameters name the arguments."""
        self.whole = True
        """Whether its results are the user's. (Half of a `vjp` also returns what the other half needs.)"""
        self.derives = run is not function and dispatcher_of(run) is None
        """Whether this is a derivative, which needs a trace even where nothing is compiled."""
        name = attribute(function, "__name__", None)
        self.name = str.__str__(name) if isinstance(name, str) else type(function).__name__
        self.converts = python_control_flow and config.python_control_flow
        """Whether Python's control flow on traced values is converted (`trace.converted`)."""
        self.static_nums, self.static_names = resolve(function, static_argnums, static_argnames, "static")
        self.donate_nums, self.donate_names = resolve(function, donate_argnums, donate_argnames, "donate")
        both = {*self.static_nums, *self.static_names} & {*self.donate_nums, *self.donate_names}
        if both:
            raise ValueError(f"an argument cannot be static and donated: {', '.join(sorted(map(str, both)))}")
        self.known: OrderedDict[Hashable, list[Prepared]] = OrderedDict()
        self.lock = threading.RLock()
        self.native: weakref.ref[Any] | None = None
        _dispatchers.add(self)

    @hides_frames
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Trace, compile or reuse, run; inside another trace: become part of it."""
        trace = active_trace()
        if trace is not None and in_finalizer():
            with suspended():
                return self(*args, **kwargs)
        if trace is not None:
            trace.fresh = False
            marked, named = self.mark(args, kwargs)
            args, kwargs = tree_map(lambda leaf: lifted(trace, leaf), (marked, named))
            return self.run_watched(args, kwargs)
        disabled = jit_disabled()
        if disabled and not self.derives:
            return self.run(*args, **kwargs)
        leaves, kinds, spec = self.signature(args, kwargs)
        if disabled:
            names = leaf_names(self.named_by, spec)
            return run_eagerly(leaves, kinds, self.call_on(spec), names, self.name, self.whole)
        _mention_errstate()
        prepared = self.find(leaves, kinds, spec, args, kwargs)
        return prepared.run(leaves, kinds, self.whole)

    def signature(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Any], list[Leaf], TreeSpec]:
        """Leaves of a call, their parts in the signature, their structure."""
        leaves, spec = flatten(self.mark(args, kwargs))
        return leaves, [self.classify(leaf) for leaf in leaves], spec

    def mark(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with static ones wrapped, so that they are leaves whatever they hold."""
        nums = positions(self.static_nums, len(args))
        marked = tuple(Static(a) if i in nums else a for i, a in enumerate(args))
        return marked, {k: Static(v) if k in self.static_names else v for k, v in kwargs.items()}

    def donated(self, args: tuple[Any, ...], kwargs: dict[str, Any], staged: Staged) -> tuple[int, ...]:
        """Numbers of the graph's inputs that belong to donated arguments and are not changed in place."""
        if not self.donate_nums and not self.donate_names:
            return ()
        nums = positions(self.donate_nums, len(args))
        marked, named = self.mark(args, kwargs)
        parts = [(arg, i in nums) for i, arg in enumerate(marked)] + [
            (arg, k in self.donate_names) for k, arg in named.items()
        ]
        given_up = [
            donated
            for arg, donated in parts
            for leaf in flatten(arg)[0]
            if self.classify(leaf).type is not None
        ]
        return tuple(i for i, donated in enumerate(given_up) if donated and i not in staged.results.written)

    def classify(self, leaf: Any) -> Leaf:
        """`classify`, and a clear error for unhashable static arguments."""
        if isinstance(leaf, Static):
            try:
                hash(leaf.value)
            except TypeError:
                raise TraceError(
                    f"a static argument of {self.name} is not hashable: {type(leaf.value).__name__}; static values are compiled in, so "
                    "pass a tuple instead of a list, or leave the argument dynamic"
                ) from None
        return classify(leaf)

    def find(self, leaves: list[Any], kinds: list[Leaf], spec: TreeSpec, args: Any, kwargs: Any) -> Prepared:
        """The specialisation for a signature, traced and compiled if need be."""
        key = (spec, tuple(kinds), exact_keys(spec))
        with self.lock:
            for prepared in self.known.get(key, ()):
                if prepared.staged.holds():
                    self.known.move_to_end(key)
                    self.connect(prepared, args, kwargs)
                    return prepared
            self.log(key)
            with without_collection():
                staged = self.stage(kinds, spec)
                donated = self.donated(args, kwargs, staged)
                prepared = Prepared(staged, executable(staged.graph, self.backend, donated))
            self.log_donation(prepared, donated, key)
            entries = self.known.setdefault(key, [])
            entries.insert(0, prepared)
            del entries[4:]
            self.known.move_to_end(key)
            while len(self.known) > LIMIT:
                self.known.popitem(last=False)
            self.connect(prepared, args, kwargs)
            return prepared

    def call_on(self, spec: TreeSpec) -> Callable[[list[Any]], Any]:
        """The function, to be called with the leaves of its arguments."""

        def call(values: list[Any]) -> Any:
            args, kwargs = unflatten(spec, values)
            return self.run_watched(args, kwargs)

        return call

    def run_watched(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function on traced arguments, whose containers it must leave as they are."""
        before = _taken_apart(args, kwargs)
        plain = [a.value if isinstance(a, Static) else a for a in args]
        named = {k: v.value if isinstance(v, Static) else v for k, v in kwargs.items()}
        trace = active_trace()
        if trace is None:
            result = self.run(*plain, **named)
        elif self.converts:
            result = (self.run if self.derives else trace.user(self.run))(*plain, **named)
        else:
            with unconverted(trace):
                result = self.run(*plain, **named)
        if before is not None:
            refuse_changed_containers(
                self.name, lambda: leaf_names(self.named_by, before[1]), before, flatten((args, kwargs))
            )
        return result

    def stage(self, kinds: Sequence[Leaf], spec: TreeSpec) -> Staged:
        """Trace the function for a signature."""
        static = [kind.value.value for kind in kinds if kind.type is None]
        static = [v.value if isinstance(v, Static) else v for v in static]
        return stage(
            self.function,
            self.name,
            kinds,
            self.call_on(spec),
            static,
            leaf_names(self.named_by, spec),
            self.derives,
            self.rolls,
            self.converts,
        )

    def staged(self, *args: Any, **kwargs: Any) -> Staged:
        """The traced call for these arguments, without compiling."""
        _, kinds, spec = self.signature(args, kwargs)
        with without_collection():
            return self.stage(kinds, spec)

    def log(self, key: Hashable) -> None:
        """Say why another trace is made."""
        if "retrace" not in config.log_topics or not self.known:
            return
        why = self.known[key][0].staged.changed() if key in self.known else None
        why = why or self.difference(next(reversed(self.known)), key)
        print(f"graphjit: retrace of {self.name}: {why}", file=sys.stderr)

    def difference(self, old: Any, new: Any) -> str:
        """How one signature differs from another, for people."""
        if old[0] != new[0]:
            return f"the structure of the arguments changed from {old[0]} to {new[0]}"
        pairs = zip(old[1], new[1], strict=True)
        return "; ".join(
            f"argument {name} changed from {leaf_text(a)} to {leaf_text(b)}"
            for name, (a, b) in zip(leaf_names(self.named_by, new[0]), pairs, strict=True)
            if a != b
        )

    def log_donation(
        self, prepared: Prepared, donated: Sequence[int], key: tuple[TreeSpec, tuple[Leaf, ...], Any]
    ) -> None:
        """Say which donated arrays no result can take over."""
        if "donate" not in config.log_topics:
            return
        taken = set(prepared.code.in_place.values())
        names = [
            name
            for name, kind in zip(leaf_names(self.named_by, key[0]), key[1], strict=True)
            if kind.type is not None
        ]
        for i in donated:
            type = prepared.staged.graph.inputs[i].type
            if i not in taken and type.shape:
                print(
                    f"graphjit: {self.name}: the donated argument {names[i]} of type {type} is not reused: no result has its type, "
                    "or it is read after that result must be written",
                    file=sys.stderr,
                )

    def connect(self, prepared: Prepared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Install the native entry for calls like this one, where it understands them."""
        native = self.native() if self.native is not None else None
        slow = config.disable_jit or config.debug_nans or nonfinite.watched()
        if native is None or self.backend != "llvm" or slow:
            return
        if needs_slow_path(prepared.staged):
            return
        marked, named = self.mark(args, kwargs)
        inputs = [input_tree(value) for value in (*marked, *named.values())]
        if None in inputs or not in_order_of_trace(inputs, prepared.staged.graph):
            return
        staged, code = prepared.staged, prepared.code
        shared = cast("Executable", code.shared)
        outputs, wrap = result_tree(staged.results, code)
        spec = sig.EntrySpec(
            positional=len(args),
            keywords=tuple(kwargs),
            inputs=tuple(inputs),
            hidden=tuple(sig.HiddenArray(a, a.dtype, a.shape) for a in staged.captured),
            guards=staged.guards,
            outputs=outputs,
            on_error=code.error,
            wrap=wrap,
            release_gil=shared.nanoseconds > 5_000,
        )
        install(native, Specialisation(spec, shared.address, code))


class Fixed(Dispatcher):
    """The slow path of a function that was compiled for one signature and never traces again."""

    def __init__(self, like: Dispatcher, key: Hashable, staged: Staged, donated: tuple[int, ...]) -> None:
        self.__dict__.update(like.__dict__)  # the function and its options
        self.lock = threading.RLock()
        self.native = None
        self.key = key
        with without_collection():
            self.prepared = Prepared(staged, executable(staged.graph, self.backend, donated))
        _dispatchers.add(self)

    def find(self, leaves: list[Any], kinds: list[Leaf], spec: TreeSpec, args: Any, kwargs: Any) -> Prepared:
        """The one specialisation.

        Raises:
            TypeError: the call has another signature, or what the function reads from outside was changed.
        """
        key = (spec, tuple(kinds), exact_keys(spec))
        if key != self.key:
            raise TypeError(
                f"{self.name} was lowered and compiled for other arguments: {self.difference(self.key, key)}; "
                "lower it again, or call the function itself"
            )
        changed = self.prepared.staged.changed()
        if changed is not None:
            raise TraceError(
                f"{self.name} was compiled for other values from outside: {changed}; lower it again"
            )
        with self.lock:
            self.connect(self.prepared, args, kwargs)
        return self.prepared


def needs_slow_path(staged: Staged) -> bool:
    """Whether native code cannot serve calls of a signature: it cannot look into everything that a call
    depends on, arguments that are changed must be looked at for overlaps and written, and effects are
    calls of Python.
    """
    foreign = any(isinstance(guard, sig.ForeignGuard) for guard in staged.guards)
    return foreign or bool(staged.results.written) or bool(staged.told)


def in_order_of_trace(inputs: Sequence[Any], graph: Graph) -> bool:
    """Whether the native entry, which walks containers by itself, meets the leaves as the trace did."""
    found = [leaf for tree in inputs for leaf in sig.leaves(tree) if not isinstance(leaf, sig.StaticIn)]
    types = [(leaf.dtype, getattr(leaf, "shape", ())) for leaf in found]
    return types == [(node.dtype, node.shape) for node in graph.inputs[: len(types)]]


def result_tree(results: Results, code: Code) -> tuple[Any, Callable[[tuple[Any, ...]], Any] | None]:
    """The native description of a result, and what makes the result of its leaves where native code makes no
    such containers.
    """
    leaves = [
        sig.StaticOut(item) if kind == "static" else output_leaf(results, code, item)
        for kind, item in results.leaves
    ]
    tree = output_tree(unflatten(results.spec, leaves)) if is_plain(results.spec) else None
    if tree is not None:
        return tree, None
    return sig.Tuple(tuple(leaves)), lambda values: unflatten(results.spec, values)


def output_leaf(results: Results, code: Code, number: int) -> sig.ArrayOut | sig.ScalarOut:
    """The native description of one output of a program."""
    type = code.outputs[number]
    if not type.shape and number not in results.arrays:
        return sig.ScalarOut(type.dtype, number)
    order = results.orders.get(number)
    donor = code.in_place.get(number) if order is None else None
    return sig.ArrayOut(type.dtype, type.shape, number, donor, order)


_mentioned: set[str] = set()


def _mention_errstate() -> None:
    """Say once that ``np.errstate(all="raise")`` asks for something that compiled code does not do.

    Looked at only where a call takes the slow way: a call of native code has no time for it.
    """
    if _mentioned:
        return
    asked = [f"{kind}={what!r}" for kind, what in np.geterr().items() if what not in ("ignore", "warn")]
    if asked:
        _mentioned.add("errstate")
        warnings.warn(
            f"np.errstate({', '.join(asked)}) has no effect on compiled code: it gives NumPy's values (inf, NaN) without floating-point warnings "
            "or errors. To look for the operation, call inside graphjit.debug_nans(). (This is said once.)",
            RuntimeWarning,
            stacklevel=user_level(),
        )


def lifted(trace: Trace, leaf: Any) -> Any:
    """A leaf of a call made while tracing: concrete arrays become inputs by reference, so that what is
    computed from them is recorded.
    """
    if isinstance(leaf, Static):
        return leaf.value
    if not (is_array(leaf) or type(leaf) is np.memmap) or leaf.dtype == object:
        return leaf
    captured = Array(trace, trace.capture(leaf))
    if not leaf.flags.c_contiguous:
        captured._model = standing_for(leaf.shape, canonical_strides(leaf))
    return captured


def input_tree(value: Any) -> Any:
    """The native description of one argument, or None when only the slow path understands it."""
    if isinstance(value, Static):
        return sig.StaticIn(value.value)
    kind = type(value)
    if kind in (tuple, list, dict) or is_named_tuple(value):
        return _input_container(value)
    if not is_leaf(value):
        return None
    leaf = classify(value)
    if leaf.type is None:
        return sig.StaticIn(value)
    if leaf.kind == "array":
        if kind is not np.ndarray or leaf.value is not None:
            return None
        return sig.ArrayIn(leaf.type.dtype, leaf.type.shape)
    return sig.ScalarIn(leaf.type.dtype, leaf.kind == "number")


def _input_container(value: Any) -> Any:
    """The native description of a container, or None when only the slow path understands what is in it."""
    kind = type(value)
    items = tuple.__iter__(value) if issubclass(kind, tuple) else value.values() if kind is dict else value
    parts = [input_tree(item) for item in items]
    if any(part is None for part in parts):
        return None
    if kind is dict:
        return sig.Dict(tuple(value), tuple(parts))
    return sig.List(tuple(parts)) if kind is list else sig.Tuple(tuple(parts), kind)


def output_tree(value: Any) -> Any:
    """The native description of a result, or None when it holds other containers than tuples, lists and
    dicts.
    """
    kind = type(value)
    if kind in (sig.ArrayOut, sig.ScalarOut, sig.StaticOut):
        return value
    if kind not in (tuple, list, dict):
        return None
    parts = [output_tree(v) for v in (value.values() if kind is dict else value)]
    if any(part is None for part in parts):
        return None
    if kind is dict:
        return sig.Dict(tuple(value), tuple(parts))
    return (sig.Tuple if kind is tuple else sig.List)(tuple(parts))


def compiled_function(
    dispatcher: Dispatcher, wraps: Callable[..., Any], recipe: tuple[Callable[..., Any], tuple[Any, ...]]
) -> Any:
    """The object users call; ``recipe`` is a picklable ``(make, args)`` that makes an equal one."""
    native = NativeFunction(dispatcher)
    _complete_type(type(native))
    dispatcher.native = weakref.ref(native)
    absent = object()
    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
        value = attribute(wraps, name, absent)
        if value is not absent:
            setattr(native, name, value)
    native.__wrapped__ = wraps
    native.dispatcher = dispatcher
    native.recipe = recipe
    return native


METHODS: dict[str, Callable[..., Any]] = {}
"""Methods of compiled functions that others write, by name (`graphjit.api.lowering`, `api.pickling`,
`view.notebook`).
"""


def _complete_type(kind: Any) -> None:
    """Give the native type the methods that are written in Python."""
    kind.__repr__ = _repr
    for name, method in METHODS.items():
        setattr(kind, name, method)


def _repr(self: Any) -> str:
    return f"<graphjit.{self.recipe[0].func.__name__} of {getattr(self, '__qualname__', self.__wrapped__)}>"
