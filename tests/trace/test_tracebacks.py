"""Tracebacks show the user's code and nothing of graphjit, whatever way an exception takes."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.signal import get_window

import graphjit
from graphjit import config
from graphjit.errors import IRError
from graphjit.ir.builder import Builder
from graphjit.trace.tracebacks import hides_frames


def frames(error: BaseException) -> list[str]:
    """``file:function`` of each entry; files of this test as ``here``, of others by their package."""
    found = []
    for entry in traceback.extract_tb(error.__traceback__):
        place = next(
            (
                name
                for name in ("graphjit/", "numpy/", "scipy/", "optree/")
                if f"/{name}" in entry.filename.removesuffix(__file__)
            ),
            "here",
        )
        found.append("here:" + entry.name if entry.filename == __file__ else place + entry.name)
    return found


def raised(call: Callable[[], Any], kind: type[BaseException] = Exception) -> BaseException:
    with pytest.raises(kind) as caught:
        call()
    return caught.value


def inner(x: Any) -> Any:
    return np.sum(x, axis=7)


def outer(x: Any) -> Any:
    return inner(x) * 2


ME = ["here:raised"]


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: graphjit.jit(outer)(np.ones(3)), ["here:<lambda>", "here:outer", "here:inner"]),
        (lambda: graphjit.grad(outer)(np.ones(3)), ["here:<lambda>", "here:outer", "here:inner"]),
        (
            lambda: graphjit.jvp(outer, (np.ones(3),), (np.ones(3),)),
            ["here:<lambda>", "here:outer", "here:inner"],
        ),
        (lambda: graphjit.vjp(outer, np.ones(3)), ["here:<lambda>", "here:outer", "here:inner"]),
        (
            lambda: graphjit.jit(lambda x: graphjit.grad(outer)(x))(np.ones(3)),
            ["here:<lambda>", "here:<lambda>", "here:outer", "here:inner"],
        ),
        (
            lambda: graphjit.jit(lambda x: np.linalg.eigvals(x))(np.ones((2, 2))),
            ["here:<lambda>", "here:<lambda>"],
        ),
        (lambda: graphjit.jit(lambda x: x)(np.ma.ones(3)), ["here:<lambda>"]),
        (lambda: graphjit.jit(3), ["here:<lambda>"]),
        (lambda: graphjit.grad(lambda x: x)(np.ones(3)), ["here:<lambda>"]),
        (lambda: graphjit.vjp(np.sin, 1.0)[1]("a"), ["here:<lambda>"]),
        (lambda: graphjit.jit(lambda x, i: x[i])(np.ones(3), 7), ["here:<lambda>"]),
        (lambda: graphjit.set_num_threads(0), ["here:<lambda>"]),
    ],
)
def test_a_traceback_ends_in_the_users_code(call: Callable[[], Any], shown: list[str]) -> None:
    assert frames(raised(call)) == ME + shown


def test_the_frames_of_a_library_around_the_function_stay() -> None:
    error = raised(
        lambda: minimize(graphjit.jit(lambda x: np.sum(x) * float(x[0])), np.ones(2)),
        graphjit.TraceError,
    )
    shown = frames(error)
    assert "scipy/minimize" in shown
    assert shown[-1] == "here:<lambda>"
    assert not any(entry.startswith("graphjit/") for entry in shown)


def test_the_frames_of_a_library_that_raised_stay() -> None:
    error = raised(lambda: graphjit.jit(lambda x: x * get_window("nonsense", 3))(1.0), ValueError)
    assert frames(error) == [*ME, "here:<lambda>", "here:<lambda>", "scipy/get_window"]


def test_exceptions_of_the_user_keep_their_chain_and_notes() -> None:
    def chained(x: Any) -> Any:
        try:
            return x.nonsense
        except AttributeError as error:
            error.add_note("a note")
            raise KeyError("mine") from error

    error = raised(lambda: graphjit.jit(chained)(1.0), KeyError)
    assert frames(error) == [*ME, "here:<lambda>", "here:chained"]
    assert error.__cause__ is not None
    assert frames(error.__cause__) == ["here:chained"]
    assert error.__cause__.__notes__ == ["a note"]


def test_instructions_that_belong_to_no_line() -> None:
    """A signal may arrive at one."""

    def f(x: Any) -> Any:
        raise LookupError(x)

    f.__code__ = f.__code__.replace(co_linetable=b"\xf8" * 8)
    with pytest.raises(LookupError) as caught:
        graphjit.jit(f)(1.0)
    last = caught.tb
    while last.tb_next is not None:
        last = last.tb_next
    assert last.tb_lineno is None


def test_groups_generators_and_recursion() -> None:
    def grouped(x: Any) -> Any:
        found = []
        try:
            bool(x)
        except TypeError as error:
            found.append(error)
        raise ExceptionGroup("several", found)

    def numbers(x: Any) -> Any:
        yield x
        raise ValueError("inside")

    def endless(x: Any) -> Any:
        return endless(x)

    group = raised(lambda: graphjit.jit(grouped)(1.0), ExceptionGroup)
    assert isinstance(group, ExceptionGroup)
    assert frames(group.exceptions[0]) == ["here:grouped"]
    assert frames(raised(lambda: graphjit.jit(lambda x: list(numbers(x)))(1.0), ValueError)) == [
        *ME,
        "here:<lambda>",
        "here:<lambda>",
        "here:numbers",
    ]
    assert set(frames(raised(lambda: graphjit.jit(endless)(1.0), RecursionError))) == {
        *ME,
        "here:<lambda>",
        "here:endless",
    }


def test_inside_a_coroutine_and_a_context_manager() -> None:
    async def work() -> Any:
        return graphjit.jit(outer)(np.ones(3))

    shown = frames(raised(lambda: asyncio.run(work()), ValueError))
    assert shown[-3:] == ["here:work", "here:outer", "here:inner"]


def test_an_exception_that_is_being_handled_keeps_its_frames() -> None:
    def call() -> None:
        try:
            raise OSError("before")
        except OSError:
            graphjit.jit(outer)(np.ones(3))

    error = raised(call, ValueError)
    assert isinstance(error.__context__, OSError)
    assert frames(error.__context__) == ["here:call"]


def test_everything_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "full_traceback", True)
    shown = frames(raised(lambda: graphjit.jit(outer)(np.ones(3))))
    assert [entry for entry in shown if entry.startswith("here:")] == [
        *ME,
        "here:<lambda>",
        "here:outer",
        "here:inner",
    ]
    assert shown[-1].startswith(("graphjit/", "numpy/"))


def test_defects_of_graphjit_are_shown_with_all_their_frames() -> None:
    @hides_frames
    def defect() -> None:
        Builder().emit("sin", 1.0)

    shown = frames(raised(defect, IRError))
    assert shown[:2] == [*ME, "graphjit/call"]
    assert shown[-1] == "graphjit/_lift"


def test_public_functions_keep_their_signatures() -> None:
    assert list(inspect.signature(graphjit.grad).parameters)[:3] == ["fun", "argnums", "has_aux"]
    assert graphjit.jvp.__doc__ is not None
