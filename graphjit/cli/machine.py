"""``graphjit machine``: the machine that code is made for."""

from __future__ import annotations

import typer

from graphjit.cli.report import one_line_errors, table
from graphjit.machine import cores
from graphjit.machine import machine as described


def machine() -> None:
    """Show what graphjit knows of this machine (GRAPHJIT_MACHINE replaces it)."""
    with one_line_errors():
        here = described()
        on = [name[1:] for name in here.features if name.startswith("+")]
        rows = [
            ("processor", here.name),
            ("cores", str(cores())),
            (
                "vectors",
                f"{here.vector_registers} of {here.vector_bytes} bytes{', fused multiply-add' if here.fused else ''}",
            ),
            *(
                (f"cache, {level}", f"{size >> 10} KB")
                for level, size in zip(
                    ("first level", "second level", "last level"), here.caches, strict=True
                )
            ),
            (
                "rates, estimated",
                f"{here.rates.multiply_adds} vectors of multiply-adds and {1000 // here.rates.byte_from_memory} "
                "bytes from memory a nanosecond",
            ),
            ("features", " ".join(on)),
        ]
        typer.echo(table(("what", "value"), rows))
