"""Derivatives by source transformation: a graph in, the graph of its derivative out.

`reverse` and `forward` are the two modes. Both read the same derivative record of each op. `control` is
imported here, so that loops and choices always have their rules.
"""

import graphjit.transforms.control  # noqa: F401 (fills `OP_RULES`)
