"""The libraries that only the view needs: they are an extra, and loaded when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from graphjit.errors import GraphjitError


class MissingLibrary(GraphjitError, ImportError):
    """A library of the extra ``view`` is not installed."""


def library(name: str, what: str) -> Any:
    """A module of a library; ``what`` is what it is for.

    Raises:
        MissingLibrary: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise MissingLibrary(
            f"the view needs {package}, which {what}; install it: pip install 'graphjit[view]'"
        ) from None
