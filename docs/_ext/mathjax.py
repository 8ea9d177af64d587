"""MathJax as a local file: pages must show their formulas without a network, and two megabytes do not belong in git."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "3.2.2"  # the last with every glyph in one file: 4 loads some alphabets from elsewhere when a page needs them
FILE, SHA256 = "package/es5/tex-svg.js", "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"


def fetched(folder: Path) -> Path:
    """The folder, with mathjax/tex-svg.js in it: fetched from npm's package once."""
    target = folder / "mathjax" / "tex-svg.js"
    if not (target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == SHA256):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_from_npm())
    return folder


def _from_npm() -> bytes:
    with tempfile.TemporaryDirectory() as work:
        try:
            subprocess.run(["npm", "pack", "--silent", f"mathjax@{VERSION}"], cwd=work, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(
                f"the documentation needs tex-svg.js of MathJax {VERSION}, and `npm pack mathjax@{VERSION}` failed: "
                f"{error}. Install npm, or put the file into docs/_build/static/mathjax/."
            ) from error
        with tarfile.open(next(Path(work).glob("*.tgz"))) as archive:
            member = archive.extractfile(FILE)
            assert member is not None
            content = member.read()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{FILE} of MathJax {VERSION} has SHA-256 {found}; expected {SHA256}.")
    return content
