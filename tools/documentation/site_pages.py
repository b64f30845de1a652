"""Collect the pages of the site: docs, datasets, CONTRIBUTING, CHANGELOG and the notebook, with mended links.

A page of the repository links to files by their place in the repository, so that it can be read there too.
The site holds some of these files as pages. Links to others lead to the repository.
A link to nothing is an error.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from site_diagrams import FENCE, diagram_of
from site_notebook import NOTEBOOK, notebook_page

ROOT = Path(__file__).parents[2]
STAGE = ROOT / "build" / "docs"
REPOSITORY = "https://github.com/mtvision/mtvision"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s]+)(?=[)\s])")
OWN_FILE = re.compile(re.escape(f"{REPOSITORY}/blob/main/") + r"([^)\s#]+)")
CODE = re.compile(r"(`[^`]*`(?!\]))")


class BrokenLinksError(ValueError):
    """Links of pages that lead nowhere, one a line."""


def pages_of(root: Path = ROOT) -> dict[str, str]:
    """{file in the repository: page in the site}."""
    docs = [path.relative_to(root / "docs").as_posix() for path in sorted((root / "docs").rglob("*.md"))]
    sets = [path.relative_to(root).as_posix() for path in sorted((root / "datasets").glob("*.md"))]
    pages = {f"docs/{name}": name for name in docs} | {name: name for name in sets}
    return pages | {
        "CONTRIBUTING.md": "contributing.md",
        "CHANGELOG.md": "changelog.md",
        NOTEBOOK: "notebook.md",
    }


def stage(target: Path = STAGE, root: Path = ROOT) -> list[str]:
    """Write all pages and their files to a new folder.

    Returns:
        The pages, relative to the folder.

    Raises:
        BrokenLinksError: links to files that do not exist, with page and line; pages that are not in `nav`.
        StaleDiagramError: a diagram was changed and its picture was not.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "docs", target, ignore=shutil.ignore_patterns("*.md"))
    links = Links(root, pages_of(root))
    for source, page in links.pages.items():
        file = target / page
        file.parent.mkdir(parents=True, exist_ok=True)
        if source == NOTEBOOK:
            text = notebook_page(root, target)
        else:
            text = links.mended(source, (root / source).read_text(encoding="utf-8"))
        file.write_text(with_diagrams(text, page, root), encoding="utf-8")
    links.broken += not_in_navigation(root, links.pages.values())
    if links.broken:
        raise BrokenLinksError("\n".join(links.broken))
    return sorted(links.pages.values())


def not_in_navigation(root: Path, pages: Iterable[str]) -> list[str]:
    """One line for each page that the navigation of `mkdocs.yml` leaves out, or names in vain."""
    navigation = (root / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named, there = set(re.findall(r"[\w/]+\.md", navigation)), set(pages)
    missing = [f"mkdocs.yml: {page} is not in `nav`" for page in sorted(there - named)]
    return missing + [
        f"mkdocs.yml: `nav` names {page}, which does not exist" for page in sorted(named - there)
    ]


@dataclass
class Links:
    """Links of pages, as they are in the site.

    Args:
        root: of the repository.
        pages: as `pages_of` gives them.
        broken: links that lead nowhere; `mended` adds them.
    """

    root: Path
    pages: dict[str, str]
    broken: list[str] = field(default_factory=list)

    def mended(self, source: str, text: str) -> str:
        """A page whose links lead to pages of the site, or to the repository. Code stays as it is."""
        fenced = False
        lines = text.split("\n")
        for number, line in enumerate(lines, start=1):
            fence = line.lstrip().startswith("```")
            fenced ^= fence
            if not fenced and not fence:
                lines[number - 1] = self._line(source, line, f"{source}:{number}")
        return "\n".join(lines)

    def _line(self, source: str, line: str, place: str) -> str:
        own = OWN_FILE.search(line)
        if own and own[1] in self.pages:
            self.broken.append(f"{place}: {own[1]} is a page of the site; link to it relative to this file.")
        parts = CODE.split(line)
        parts[::2] = [
            LINK.sub(lambda match: self._target(source, match[1], place), part) for part in parts[::2]
        ]
        return "".join(parts)

    def _target(self, source: str, link: str, place: str) -> str:
        name, mark, anchor = link.partition("#")
        file = os.path.normpath(PurePosixPath(source).parent / name)
        folder = PurePosixPath(self.pages[source]).parent
        if file in self.pages:
            return os.path.relpath(self.pages[file], folder) + mark + anchor
        if file.startswith("..") or not (self.root / file).exists():
            self.broken.append(f"{place}: there is no {file}")
            return link
        if file.startswith("docs/"):
            return os.path.relpath(file.removeprefix("docs/"), folder)
        kind = "tree" if (self.root / file).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{file}{mark}{anchor}"


def with_diagrams(text: str, page: str, root: Path) -> str:
    """A page whose mermaid blocks are the pictures in docs/images/diagrams, made by `site_diagrams`."""
    name = PurePosixPath(page).stem
    folder = os.path.relpath("images/diagrams", PurePosixPath(page).parent)
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    count = iter(range(1, 100))

    def picture(match: re.Match[str]) -> str:
        file = diagram_of(root, f"{name}-{next(count)}", match[1])
        words = f"Diagram of {title[1] if title else name}"
        return f'<div class="diagram" markdown>\n![{words}]({folder}/{file.name})\n</div>'

    return FENCE.sub(picture, text)
