"""The exceptions that graphjit raises itself, each with what a user can do about it.

Invariant: a message says what was wrong, which operation, where in the user's code, and what to do instead.
What NumPy would raise when a compiled program runs (an index out of bounds, an integer division by zero) is
NumPy's exception, not one of these.
"""

from __future__ import annotations


class GraphjitError(Exception):
    """Base class of the errors that graphjit raises itself.

    Each of them is also the built-in exception that fits, so that programs need not import this class.

    Examples
    --------
    >>> import graphjit
    >>> try:
    ...     graphjit.grad(lambda x: x)(3)
    ... except graphjit.GraphjitError as error:
    ...     print(isinstance(error, TypeError))
    True
    """


class TraceError(GraphjitError, TypeError):
    """Traced code needs the value of an array, which is known only when the compiled code runs.

    ``float(x)``, ``x.item()`` and indexing a list by a traced value raise it, and so does control flow of
    Python that cannot be converted. Use NumPy's functions on the value itself, or make the argument static.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> try:
    ...     graphjit.jit(lambda i: [2.0, 3.0][i])(1)
    ... except graphjit.TraceError:
    ...     print("use np.array([2.0, 3.0])[i]")
    use np.array([2.0, 3.0])[i]
    """


class UnsupportedError(GraphjitError, NotImplementedError):
    """Traced code uses a NumPy function, an option of one, a dtype or an array class that is not compiled.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> try:
    ...     graphjit.jit(np.linalg.svd)(np.eye(2))
    ... except graphjit.UnsupportedError:
    ...     print("not compiled")
    not compiled
    """


class DerivativeError(GraphjitError, TypeError):
    """A derivative does not exist, or was asked for in a way that means nothing.

    The function does not return one floating-point number, an argument to differentiate is not floating
    point, a tangent does not fit its primal, or an operation has no derivative.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> try:
    ...     graphjit.grad(np.sin)(np.ones(3))
    ... except graphjit.DerivativeError:
    ...     print("the result is no number")
    the result is no number
    """


class IRError(GraphjitError):
    """An ill-formed graph, loop IR or op declaration: a defect of graphjit, or of an op of somebody else."""


class ShapeError(GraphjitError, ValueError):
    """Shapes, axes or dtypes do not fit together, as where NumPy raises ValueError.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> try:
    ...     graphjit.jit(np.add)(np.ones(3), np.ones(4))
    ... except ValueError:
    ...     print("shapes (3,) and (4,) do not fit")
    shapes (3,) and (4,) do not fit
    """


class ConfigError(GraphjitError, ValueError):
    """An environment variable of graphjit has a name or a value that means nothing; raised at import.

    ``graphjit flags`` lists the variables.

    Examples
    --------
    >>> from graphjit.config import read
    >>> read({"GRAPHJIT_VERIFY": "perhaps"})
    Traceback (most recent call last):
        ...
    graphjit.errors.ConfigError: GRAPHJIT_VERIFY='perhaps': it is a switch: 1 or 0
    """
