"""Compiled functions in notebooks: the last expression of a cell is shown as its page.

Input: a compiled function, or a `Lowered`. Output: HTML for the notebook: the page in a frame of its own.
Invariants: this module is loaded with the package, and loads the rest when something is shown. Where a
library is missing, the notebook shows what ``repr`` says, and how to get more.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from graphjit.api.lowering import SHOW
from graphjit.dispatch import METHODS

if TYPE_CHECKING:
    from graphjit.lowered import Lowered

HEIGHT = 680
"""Pixels of the frame."""


def lowered_html(lowered: Lowered) -> str:
    """The page of a lowered call, in a frame that can neither load anything nor reach the notebook."""
    from graphjit.view.libraries import MissingLibrary  # what is shown loads the compiler
    from graphjit.view.page import page

    try:
        text = page(lowered)
    except MissingLibrary as error:
        return _note(lowered, str(error))
    return (
        f'<iframe sandbox="allow-scripts" style="width:100%;height:{HEIGHT}px;border:1px solid #8884;border-radius:8px" '
        f'srcdoc="{html.escape(text)}"></iframe>'
    )


def function_html(self: Any) -> str:
    """What was compiled last of a function."""
    from graphjit.lowered import Lowered

    dispatcher = self.dispatcher
    prepared = getattr(dispatcher, "prepared", None)
    if prepared is None:
        with dispatcher.lock:
            prepared = next((found[0] for found in reversed(dispatcher.known.values()) if found), None)
    if prepared is None:
        return _note(self, "nothing is compiled yet: call it, or show what lower(...) returns")
    return lowered_html(Lowered(prepared.staged.graph, (), len(prepared.staged.captured)))


def _note(what: Any, text: str) -> str:
    return f"<code>{html.escape(repr(what))}</code><br><small>{html.escape(text)}</small>"


def register() -> None:
    """Let compiled functions and lowered calls be shown so."""
    METHODS["_repr_html_"] = function_html
    SHOW.append(lowered_html)
