"""Exceptions of graphjit.

Job: one place for every error a user can meet.
Invariant: a message says what was wrong, which operation, where in the user's code, and what to do instead.
"""

from __future__ import annotations


class GraphjitError(Exception):
    """Base of every error that graphjit raises itself."""


class TraceError(GraphjitError, TypeError):
    """User code asked something of a traced value that is only known when the compiled code runs."""


class UnsupportedError(GraphjitError, NotImplementedError):
    """A NumPy function, option or dtype that graphjit does not compile."""


class DerivativeError(GraphjitError, TypeError):
    """A derivative that does not exist or was asked for in a wrong way."""


class IRError(GraphjitError):
    """An ill-formed graph, loop IR or op declaration: a defect of graphjit or of a custom op."""


class ShapeError(GraphjitError, ValueError):
    """Shapes, axes or dtypes that do not fit together."""


class ConfigError(GraphjitError, ValueError):
    """An environment variable of graphjit with a name or a value that means nothing."""
