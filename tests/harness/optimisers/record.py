"""Write optax's own numbers for all cases: ``python -m optimisers.record`` in the folder ``tests/harness``.

It needs jax and optax: ``pip install '.[bench]'``.
"""

from __future__ import annotations

import json

import jax
import optax

from optimisers.cases import COUNTS, OPTIMISERS, RECORDED, SCHEDULES, trajectory


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    schedules = {}
    for name, make in SCHEDULES.items():
        schedule = make(optax)
        schedules[name] = [float(schedule(jax.numpy.array(count, "int64"))) for count in COUNTS]
    tables = {
        "optimisers": {name: trajectory(optax, make) for name, make in OPTIMISERS.items()},
        "schedules": schedules,
    }
    lines = [f'{{"optax": {json.dumps(optax.__version__)}']
    for table, rows in tables.items():
        body = ",\n".join(f" {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        lines.append(f'"{table}": {{\n{body}\n}}')
    RECORDED.write_text(",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
