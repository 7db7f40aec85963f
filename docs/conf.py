"""How the pages are built: ``make docs`` (Sphinx, Furo, MyST; warnings are errors)."""

from unflat.report import versions

project = "unflat"
author = "the unflat authors"
copyright = "the unflat authors, Apache-2.0"
release = versions()["unflat"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["pictures/CREDITS.md", "_build", "**/README.md"]

html_theme = "furo"
html_title = "unflat"
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

# jaxtyping's axis strings and torch's names are no targets here.
nitpick_ignore_regex = [("py:.*", r"(jaxtyping|torch|numpy|np|Tensor|Float|Int|Bool|UInt8)\b.*")]
