"""How the site is built: ``sphinx-build -W --keep-going -b html docs build/site``."""

from __future__ import annotations

import graphjit

project = "graphjit"
author = "the graphjit authors"
copyright = author
version = release = graphjit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4  # the anchors that GitHub makes, so that one link serves both
myst_enable_extensions = ["dollarmath"]
smartquotes = False  # options begin with two hyphens
autodoc_typehints = "none"  # the docstrings say it in words
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "graphjit"
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}
