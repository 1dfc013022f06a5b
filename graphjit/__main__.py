"""``python -m graphjit``: the command line."""

from __future__ import annotations

from graphjit.cli.main import app

if __name__ == "__main__":
    app(prog_name="graphjit")
