"""Functions whose pages are tested, and a reader of pages."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np

import graphjit
from graphjit.ir.node import Graph
from graphjit.lowered import Lowered
from graphjit.view.page import page


def network(params: dict[str, Any], x: Any, y: Any) -> Any:
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    hidden = np.tanh(hidden @ params["w2"])
    z = hidden @ params["w3"]
    z = z - np.max(z, axis=1, keepdims=True)
    return -np.mean(np.sum(y * (z - np.log(np.sum(np.exp(z), axis=1, keepdims=True))), axis=1))


def recurrent(w: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = np.tanh(w @ h + x)
        return h, np.sum(h * h)

    _, sums = graphjit.scan(step, np.zeros(40), xs)
    return np.sum(sums)


def choice(x: Any) -> Any:
    total = np.sum(x * x)
    return graphjit.cond(total > 1.0, lambda x: np.sum(np.sin(x)), lambda x: np.sum(np.cos(x) * x), x)


def newton(a: Any) -> Any:
    root = graphjit.while_loop(lambda x: np.max(np.abs(x * x - a)) > 1e-9, lambda x: 0.5 * (x + a / x), a)
    return np.sum(root)


def plain(x: Any) -> Any:
    return np.tanh(x) + 1.0


def long(x: Any, w: Any) -> Any:
    for i in range(560):
        a = np.sin(x) * w[i % 7]
        b = np.cos(a) + x
        x = b * 0.5 - a * w[(i * 3) % 5]
    return np.sum(x)


PARAMS = {"w1": np.ones((64, 128)), "b1": np.ones(128), "w2": np.ones((128, 128)), "w3": np.ones((128, 10))}
CASES: dict[str, tuple[Callable[..., Any] | None, Callable[..., Any], tuple[Any, ...]]] = {
    "network": (graphjit.value_and_grad, network, (PARAMS, np.ones((512, 64)), np.ones((512, 10)))),
    "recurrent": (graphjit.grad, recurrent, (np.ones((40, 40)), np.ones((30, 40)))),
    "choice": (graphjit.grad, choice, (np.ones(1000),)),
    "newton": (graphjit.grad, newton, (np.ones(50),)),
    "plain": (None, plain, (np.ones(1000),)),
    "long": (graphjit.grad, long, (np.ones(100), np.ones(8))),
}
"""By name: the derivative, the function, its arguments."""


@functools.cache
def lowered(name: str) -> tuple[Lowered, Graph | None]:
    """What the page of a case shows: the call, and the function itself if that is its derivative."""
    derivative, function, args = CASES[name]
    whole = function if derivative is None else derivative(function)
    found = graphjit.jit(whole, reroll=False).lower(*args)
    own = None if derivative is None else graphjit.jit(function, reroll=False).lower(*args).graph
    return found, own


@functools.cache
def page_of(name: str) -> str:
    """The page of a case."""
    return page(*lowered(name))


class Reader(HTMLParser):
    """Collects what matters of a page, and refuses tags that do not match."""

    VOID = {"meta", "input", "br", "link", "img"}

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


@functools.cache
def data_of(text: str) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


FIELDS = ("label", "kind", "parent", "type", "line", "args", "number", "text", "origin", "phase")
FIELDS += ("ns", "answers", "hidden", "facts")


def items_of(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The items of a stage with their texts."""
    strings = data["strings"]
    stage = next(stage for stage in data["stages"] if stage["key"] == key)
    found = []
    for row in stage["items"]:
        item = dict(zip(FIELDS, [*row, *[0] * (len(FIELDS) - len(row))], strict=True))
        for name in ("label", "kind", "type", "text", "origin", "phase"):
            item[name] = strings[item[name]]
        item["line"] -= 1
        item["number"] -= 1
        item["facts"] = {strings[name]: strings[value] for name, value in item["facts"] or ()}
        item["args"] = item["args"] or []
        item["answers"] = item["answers"] or []
        found.append(item)
    return found


def boxes_of(data: dict[str, Any], key: str) -> dict[str, Any]:
    """Rows and edges by box."""
    found: dict[str, Any] = next(stage for stage in data["stages"] if stage["key"] == key)["boxes"]
    return found
