"""Compiled functions in notebooks: the last expression of a cell is shown as its page.

Input: a compiled function, or what its ``lower`` returns. Output: HTML, the page in a frame of its own.
Invariants: this module is loaded with the package, and loads the rest when something is shown. Where a
library is missing, the notebook shows what ``repr`` says, and how to get more.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from graphjit.dispatch import METHODS, Fixed

if TYPE_CHECKING:
    from graphjit.lowered import Lowered

HEIGHT = 680
"""Pixels of the frame."""


def show(self: Any) -> str:
    """The page in a frame that can neither load anything nor reach the notebook.

    Of a function, the page is that of what was compiled last.
    """
    from graphjit.lowered import Lowered  # what is shown loads the compiler
    from graphjit.view.libraries import MissingLibrary
    from graphjit.view.page import page

    lowered = self if isinstance(self, Lowered) else _compiled_last(self)
    if lowered is None:
        return _note(self, "nothing is compiled yet: call it, or show what lower(...) returns")
    try:
        text = page(lowered)
    except MissingLibrary as error:
        return _note(self, str(error))
    return (
        f'<iframe sandbox="allow-scripts" style="width:100%;height:{HEIGHT}px;border:1px solid #8884;border-radius:8px" '
        f'srcdoc="{html.escape(text)}"></iframe>'
    )


METHODS["_repr_html_"] = show


def _compiled_last(function: Any) -> Lowered | None:
    from graphjit.lowered import Lowered

    dispatcher = function.dispatcher
    if isinstance(dispatcher, Fixed):
        prepared = dispatcher.prepared
    else:
        with dispatcher.lock:
            if not dispatcher.known:
                return None
            prepared = next(reversed(dispatcher.known.values()))[0]
    taken_over = prepared.code.in_place.values()
    return Lowered(prepared.staged.graph, taken_over, len(prepared.staged.captured))


def _note(what: Any, text: str) -> str:
    return f"<code>{html.escape(repr(what))}</code><br><small>{html.escape(text)}</small>"
