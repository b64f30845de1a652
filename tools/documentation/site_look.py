"""Every page of the built site in a browser: pictures, messages of the console, requests to other hosts."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from site_browser import open_browser

WIDTHS = {1280: 900, 390: 844}
THEMES = ("light", "dark")
PICTURED = ("", "tutorial/", "decoders/mtan/", "reference/python/", "commands/", "notebook/", "gallery/")
"""Pages whose pictures are kept; all others are only visited."""
PATIENCE = 120_000
"""Milliseconds for one page on a busy machine."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of the site on this machine."""
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def look(site: Path, out: Path) -> list[str]:
    """Visit all pages in a narrow window, and those of `PICTURED` at two widths and in two themes.

    Args:
        site: what `make docs` built.
        out: folder for pictures.

    Returns:
        One line for each message of the console, failed or foreign request, and page wider than its window.
    """
    out.mkdir(parents=True, exist_ok=True)
    pages = sorted(file.parent.relative_to(site).as_posix() for file in site.rglob("index.html"))
    addresses = ["" if page == "." else f"{page}/" for page in pages if not page.startswith("leaderboard/")]
    found: list[str] = []
    with served(site) as root, open_browser() as browser:
        for width, height in WIDTHS.items():
            for theme in THEMES:
                size = {"width": width, "height": height}
                page = browser.new_page(viewport=size, color_scheme=theme)
                _watch(page, root, found)
                for address in addresses:
                    if address in PICTURED or (width, theme) == (390, "light"):
                        file = out / f"{address.replace('/', '-')}{width}-{theme}.png"
                        _visit(page, root, address, file, found)
                page.close()
    return found


def _watch(page: Any, root: str, found: list[str]) -> None:
    page.on("console", lambda item: found.append(f"{page.url}: {item.type}: {item.text}"))
    page.on("pageerror", lambda error: found.append(f"{page.url}: {error}"))

    def failed(request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the visit of the next page ends what is still loading
            found.append(f"{page.url}: failed: {request.url}")

    page.on("requestfailed", failed)

    def foreign(request: Any) -> None:
        if not request.url.startswith((root, "data:", "blob:")):
            found.append(f"{page.url}: asks another host: {request.url}")

    page.on("request", foreign)


def _visit(page: Any, root: str, address: str, file: Path, found: list[str]) -> None:
    page.goto(root + address, wait_until="load", timeout=PATIENCE)
    width = page.viewport_size["width"]
    wide = page.evaluate("document.documentElement.scrollWidth")
    if wide > width:
        found.append(f"{page.url}: {wide} pixels wide in a window of {width}")
    if address in PICTURED:
        page.screenshot(path=str(file), animations="disabled", timeout=PATIENCE)
