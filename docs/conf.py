"""Sphinx configuration. Build: sphinx-build -W -n -j 2 docs docs/_build/html (README, "Build the documentation")."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

import mathjax  # noqa: E402  (the folder above)

import implicitref  # noqa: E402

# the notebooks' kernels inherit these: one BLAS thread, no colour codes in printed text
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}

project = "implicitref"
author = "The implicitref developers"
project_copyright = "the implicitref developers, BSD-3-Clause"
version = release = implicitref.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_design",
    "myst_nb",
    "register",
    "api",
    "links",
]
exclude_patterns = ["_build", "_static", "_ext", "jupyter_execute", "**/.ipynb_checkpoints"]
nitpicky = True
smartquotes = False  # A'A is a transpose
default_role = "code"

# pages are MyST Markdown; those with code cells are executed at every build
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 600  # a cell; shared machines stand still at times
nb_merge_streams = True
nb_render_markdown_format = "myst"

# docstrings
autosummary_generate = False  # the extension api writes the pages
autodoc_typehints = "none"  # numpydoc says the types
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
# what would mislead a reader: unknown sections or a wrong order of them, none at all, parameters that do not exist
numpydoc_validation_checks = {"GL05", "GL06", "GL07", "GL08", "GL09", "GL10", "SS01", "SS04", "PR02", "PR10", "RT05"}

html_theme = "pydata_sphinx_theme"
html_title = f"implicitref {release}"
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "start": [], "algorithms": [], "notation": [], "evidence": [], "lessons/**": []}
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_extra_path = ["_build/report.html"]
html_static_path = ["_static", str(mathjax.fetched(HERE / "_build" / "static").relative_to(HERE))]
html_static_path += ["../implicitref/explore.html"]  # the page of `implicitref explore`, linked from the lessons
mathjax_path = "mathjax/tex-svg.js"
