"""The built site: every link leads somewhere, and nothing is asked of another host."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

LOADED = {
    *("script", "img", "iframe", "source", "video", "audio", "embed", "link"),
    *("track", "object", "image", "use"),
}
"""Elements whose address a browser fetches by itself."""
NOT_FETCHED = {"canonical", "next", "prev", "alternate", "author", "license"}
"""Kinds of `link` that are only read."""
FOREIGN = re.compile(r"(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


@dataclass
class Page:
    """What one HTML file holds.

    Args:
        anchors: its ids.
        links: addresses of its links, with their line.
        loaded: addresses that a browser fetches, with their line.
    """

    anchors: set[str] = field(default_factory=set)
    links: list[tuple[int, str]] = field(default_factory=list)
    loaded: list[tuple[int, str]] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        line = self.getpos()[0]
        self.page.anchors |= {given[name] for name in ("id", "name") if name in given and tag != "meta"}
        if tag == "link" and set(given.get("rel", "").split()) & NOT_FETCHED:
            return
        addresses = [given[name] for name in ("href", "src", "data", "poster", "xlink:href") if name in given]
        if "srcset" in given:
            addresses += [part.split()[0] for part in given["srcset"].split(",")]
        (self.page.loaded if tag in LOADED else self.page.links).extend((line, item) for item in addresses)
        found = IN_STYLE.findall(given.get("style", ""))
        self.page.loaded.extend((line, item) for item in found)


def read_page(file: Path) -> Page:
    """The ids and addresses of an HTML file."""
    reader = _Reader()
    text = file.read_text(encoding="utf-8")
    reader.feed(text)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
    reader.page.loaded += [(0, item) for style in styles for item in IN_STYLE.findall(style)]
    return reader.page


def mistakes(site: Path) -> list[str]:
    """One line for every link to nothing, missing anchor, and file of another host.

    Args:
        site: the folder that `make docs` wrote.

    Raises:
        FileNotFoundError: no page is there.
    """
    site = site.resolve()
    pages = {file: read_page(file) for file in sorted(site.rglob("*.html"))}
    if not pages:
        raise FileNotFoundError(f"{site} holds no page; run `make docs`.")
    found = []
    for file, page in pages.items():
        if file.name == "404.html":  # its addresses begin at the site's root, wherever that is
            continue
        place = file.relative_to(site)
        wrong = partial(_wrong, file=file, site=site, pages=pages)
        for line, address in page.loaded:
            if FOREIGN.match(address):
                found.append(f"{place}:{line}: a browser would fetch {address} from another host")
            elif text := wrong(address):
                found.append(f"{place}:{line}: {text}")
        own = [(line, address) for line, address in page.links if not re.match(r"\w+:|//", address)]
        found += [f"{place}:{line}: {text}" for line, address in own if (text := wrong(address))]
    for file in sorted(site.rglob("*.css")):
        addresses = IN_STYLE.findall(file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(site)}: fetches {address} from another host" for address in addresses]
    return found


def _wrong(address: str, *, file: Path, site: Path, pages: dict[Path, Page]) -> str | None:
    """What is wrong with a link to the site itself, or None."""
    if address.startswith("data:"):
        return None
    name, anchor = urldefrag(address)
    target = file if not name else (file.parent / unquote(name.split("?")[0])).resolve()
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file() or not target.is_relative_to(site):
        return f"{address} leads to no file"
    if anchor and target in pages and unquote(anchor) not in pages[target].anchors:
        return f"{address}: the page has no place of this name"
    return None
