"""dask, loaded on first use.

The library and this package have the same name: ``import dask`` is the library here too.
"""

from __future__ import annotations

import importlib
from typing import Any

from graphjit.api.pickling import tell_cloudpickle
from graphjit.backend.llvm.entry.callable import native_type


def library(name: str = "dask") -> Any:
    """The library, or a module of it.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"graphjit.dask needs {name} ({error}): pip install 'graphjit[dask]'") from error


def is_array(value: Any) -> bool:
    """Whether a value is a dask array."""
    return isinstance(value, library("dask.array").Array)


def pickled(value: Any) -> bytes:
    """What workers load: functions of ``__main__`` by value."""
    cloudpickle = library("cloudpickle")
    tell_cloudpickle(cloudpickle, native_type())
    return bytes(cloudpickle.dumps(value))
