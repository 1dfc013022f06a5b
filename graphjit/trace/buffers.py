"""Arrays that are written while tracing: ``x[i] = v``, ``x += y``, ``out=``, and np.zeros / np.empty filled element by element.

Job: give traced values NumPy's meaning of assignment: views see the writes of their base and write through to it.
Input: tracers, keys, values.  Output: tracers whose node is always the present value.

A `Stored` tracer keeps a storage object instead of a node:
  * `Owned`: an array of its own.  As long as everything written to it is known it is a real ndarray (so it can serve as a static index, a size or
    a mask); the first traced write turns it into nodes.  Writes of single elements or rows are collected and joined at the next whole read, so a
    loop that fills a buffer costs one node per write and reads of what was just written cost none.
  * `Lens`: a view (basic index, reshape, transpose) of another tracer.
A plain tracer that is written becomes `Stored` in place, so every name for it sees the write.

Invariants: arrays of the caller are never written (an argument that is assigned to changes for the traced function only); a known array is
turned into nodes by value, at the moment it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.errors import TraceError
from graphjit.ir.node import Node
from graphjit.ir.types import Type
from graphjit.trace.assignment import fitted, write, write_mask
from graphjit.trace.functions.arguments import as_bool, full, node_of, tracing
from graphjit.trace.functions.joining import runs_joined
from graphjit.trace.functions.shapes import sliced
from graphjit.trace.indexing import Plan, plan, read
from graphjit.trace.location import user_location
from graphjit.trace.tracer import Trace, Tracer, active_trace, any_tracer
