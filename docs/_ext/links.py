"""No broken internal link: every href and src of the built pages must lead to a file, and every #anchor to an id there.

As a Sphinx extension it looks at the pages when they are written; `python docs/_ext/links.py FOLDER` does the same.
"""

from __future__ import annotations

import functools
import html.parser
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Page(NamedTuple):
    """What a page offers and what it asks for."""

    ids: frozenset[str]
    links: tuple[str, ...]


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.ids.add(value or "")
            elif name in ("href", "src") and value:
                self.links.append(value)


@functools.cache
def read(path: Path) -> Page:
    """The ids and links of one page."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return Page(frozenset(reader.ids), tuple(reader.links))


def broken(folder: Path) -> Iterator[str]:
    """Every link inside the folder that leads nowhere, as "page: link"."""
    pages = (page for page in folder.rglob("*.html") if "_static" not in page.relative_to(folder).parts)
    for page in sorted(pages):
        for link in read(page).links:
            if not _leads_somewhere(page, link):
                yield f"{page.relative_to(folder)}: {link}"


def _leads_somewhere(page: Path, link: str) -> bool:
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (page.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return False
    anchor = urllib.parse.unquote(parts.fragment)
    return not anchor or target.suffix != ".html" or anchor in read(target).ids


def setup(app: Any) -> dict[str, bool]:
    """Look at the pages when a build has written them."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _check(app: Any, exception: Exception | None) -> None:
    if exception is None and app.builder.name == "html":
        found = list(broken(Path(app.outdir)))
        if found:
            from sphinx.errors import ExtensionError

            raise ExtensionError("broken internal links:\n  " + "\n  ".join(found))


if __name__ == "__main__":
    found = list(broken(Path(sys.argv[1]).resolve()))
    print("\n".join(found) or "no broken internal link")
    sys.exit(bool(found))
