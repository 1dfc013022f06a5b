"""Run the Python blocks of one document in order, in one namespace.

    python run_page.py DOCUMENT

Where a block of kind ``text`` follows a Python block directly, it is what that block prints. A process of its
own for each page: a page may declare an op or change a setting.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import sys
import types

from documents import ROOT, blocks


def main(document: str) -> None:
    """Run the page.

    Raises:
        AssertionError: a block printed something else than what the page shows.
    """
    page = sys.modules["page"] = types.ModuleType("page")
    namespace = page.__dict__
    found = blocks(document)
    for number, block in enumerate(found):
        if block.language != "python":
            continue
        name = str(ROOT / document)
        source = "\n" * (block.line - 1) + block.text  # so that tracebacks name lines of the page
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, name, "exec"), namespace)
        shown = found[number + 1] if number + 1 < len(found) else None
        if shown is not None and shown.language == "text":
            assert printed.getvalue().split() == shown.text.split(), (
                f"{document}:{shown.line} shows\n{shown.text}\nbut the block above it prints\n{printed.getvalue()}"
            )


if __name__ == "__main__":
    main(sys.argv[1])
