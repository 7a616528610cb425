"""The documentation as a site: the pages that GitHub shows, from the root of the repository, and docstrings.

`make docs` builds it. README is the start page. The sidebar has each page under the heading of README that is the last to link
to it, so nothing is written twice. In docs/api.md a line "- `softlabels.NAME`" becomes the docstring of that name. Links to
files that are no pages become downloads. A page that begins with `file_format: mystnb` is run and shows what its cells print.
"""

from __future__ import annotations

import inspect
import re
import shutil
from pydoc import locate

from sphinx.application import Sphinx

import softlabels

project, author = "softlabels", "the softlabels authors"
version = release = softlabels.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc, api = "README", "docs/api"
include_patterns = ["README.md", "data/README.md", "docs/**.md", "benchmarks/results/*.md"]
exclude_patterns = [".*", "build", "pipeline", "runs", "stages", "stores", "tests"]
html_theme, html_title = "furo", f"softlabels {version}"
html_static_path, html_css_files = ["site.css"], ["site.css"]
html_show_copyright = html_show_sphinx = html_copy_source = False
highlight_language = "none"  # a block without a language is text
smartquotes = False  # two hyphens are an option's

myst_heading_anchors = 4  # as GitHub names the parts of a page

nb_execution_mode = "off"  # `make docs` says "force": what cells printed is of this code
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "npt.ArrayLike": "ArrayLike"}  # written out it is a long line
napoleon_custom_sections = [("Attributes", "params_style")]  # a line may name several
default_role = "py:obj"  # in docstrings what stands between backticks is code, and a link where it is a name
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
nitpick_ignore_regex = [("py:.*", "(?s).*")]  # types in signatures: most have no place on the site

LINK = re.compile(r"\]\(((?:docs|data|benchmarks)/[\w/.-]+)\.md(?:#[\w-]+)?\)")
NAME = re.compile(r"^- `(softlabels\.[\w.]+)`$", re.M)
FOLDERS = {"Uses": "docs/uses/", "Decisions": "docs/decisions/", "Measured": "benchmarks/results/", "More": ""}


def sidebar(readme: str, pages: set[str]) -> str:
    """Tables of contents, which the page does not show: the pages that README links to by its headings, then the others."""
    tables = {}
    for part in reversed(re.split(r"^## ", readme, flags=re.M)):
        tables[part.partition("\n")[0]] = [page for page in dict.fromkeys(LINK.findall(part)) if page in pages]
        pages = pages.difference(LINK.findall(part))
    for title, folder in FOLDERS.items():
        tables[title] = sorted(page for page in pages if page.startswith(folder))
        pages = pages.difference(tables[title])
    shown = ((title, "\n".join(found)) for title, found in tables.items() if found)
    return "".join(f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{found}\n```\n" for title, found in shown)


def documented(name: str) -> str:
    """The directive that shows the docstring of a name of softlabels, a class's with those of its methods."""
    thing = locate(name)
    if inspect.isclass(thing):
        foreign = [base.__name__ for base in thing.__mro__ if not base.__module__.startswith("softlabels")]
        members = "" if issubclass(thing, Exception) else f"   :members:\n   :inherited-members: {', '.join(foreign)}\n"
        directive = f".. autoclass:: {name}\n{members}"
    else:
        directive = f".. {'automodule' if inspect.ismodule(thing) else 'autofunction'}:: {name}\n"
    return f"```{{eval-rst}}\n{directive}```\n"


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Give the start page its sidebar, and the page of names its docstrings."""
    if page == root_doc:
        source[0] += sidebar(source[0], app.env.found_docs - {root_doc})
    if page == api and not app.tags.has("pages"):  # of a test that leaves docstrings out, as these take the longest
        source[0] = NAME.sub(lambda line: documented(line[1]), source[0])


def finished(app: Sphinx, exception: Exception | None) -> None:
    """The start page is index.html too, where servers and people look for it."""
    if exception is None and app.builder.format == "html":
        shutil.copy(app.outdir / "README.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """What the site adds to Sphinx."""
    app.connect("source-read", read)
    app.connect("build-finished", finished)
