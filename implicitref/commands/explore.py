"""``implicitref explore``: the page of the 2 x 2 inclusion, served to this machine only."""

from __future__ import annotations

import argparse
import functools
import http.server
import webbrowser
from contextlib import suppress
from importlib import resources
from typing import Any

from .common import OK, RAW, USAGE, complain

__all__ = ["ADDRESS", "add", "page", "server"]

ADDRESS = "127.0.0.1"  # nobody else's machine can reach it


def add(commands: Any) -> None:
    """Register the command."""
    explore = commands.add_parser(
        "explore",
        help="turn the sliders of a 2 x 2 equilibrium in the browser",
        description="Iterates, rate and certificate of z = relu(W z + b) with two units, redrawn as the sliders for m, "
        f"L, alpha and rotation move. Served on {ADDRESS} only, works offline, ends with Ctrl-C.",
        epilog="example:\n  implicitref explore --port 8000\n\nexit status: 0 stopped with Ctrl-C, 2 usage",
        formatter_class=RAW,
    )
    explore.add_argument("--port", type=int, default=0, metavar="N", help="port (default: any free one)")
    explore.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    explore.set_defaults(run=_explore)


def page() -> bytes:
    """The page, as it is shipped."""
    return (resources.files("implicitref") / "explore.html").read_bytes()


def server(port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of the page at / and of nothing else; port 0 is any free one.

    Raises
    ------
    OSError, OverflowError
        The port is taken, or is none.
    """
    return http.server.ThreadingHTTPServer((ADDRESS, port), functools.partial(_Handler, page()))


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, content: bytes, *request: Any) -> None:
        self.content = content
        super().__init__(*request)

    def do_GET(self) -> None:
        found = self.path.partition("?")[0] == "/"
        content = self.content if found else b"there is only one page here: /\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", f"text/{'html' if found else 'plain'}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing: the terminal is the user's."""


def _explore(arguments: argparse.Namespace) -> int:
    try:
        serving = server(arguments.port)
    except (OSError, OverflowError) as error:
        return complain(f"--port {arguments.port}: {error}", USAGE)
    address = f"http://{ADDRESS}:{serving.server_address[1]}/"
    with serving, suppress(KeyboardInterrupt):
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if not arguments.no_browser:
            webbrowser.open(address)
        serving.serve_forever()
    return OK
