"""Users' names and source lines as text that is safe to print and to compile.

Example: a function called ``f\\n@g`` must end no comment and no line of the text that it stands in.
"""

from __future__ import annotations

import re

WORD = re.compile(r"[A-Za-z_]\w*")
"""A name that stands for itself in printed text."""


def one_line(text: str, limit: int = 200) -> str:
    """A user's text (a name, a file, a line) for a comment or a message: it ends neither, since what is not
    printable becomes an escape of Python's.
    """
    if len(text) > limit:
        text = f"{text[:limit]}..."
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )


def name_text(name: str) -> str:
    """A user's name as a word, or as a literal where it is none; the parser reads both back."""
    return name if WORD.fullmatch(name) else repr(name)
