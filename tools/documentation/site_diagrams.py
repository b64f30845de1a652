"""Diagrams of the pages as SVG files, so that the site needs no script for them.

The source is the mermaid block of a page. Changed ones are drawn in a headless Chromium with
`python tools/documentation diagrams --mermaid mermaid.min.js`, a script of the npm package `mermaid`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FOLDER = "docs/images/diagrams"
DRAW = """async (source) => {
  mermaid.initialize({startOnLoad: false, theme: 'neutral', fontFamily: 'sans-serif', htmlLabels: false,
                      flowchart: {htmlLabels: false}});
  return (await mermaid.render('diagram', source)).svg;
}"""


class StaleDiagramError(ValueError):
    """A diagram that was changed after its picture was drawn."""


def digest(source: str) -> str:
    """What ties a picture to its source."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def diagram_of(root: Path, name: str, source: str) -> Path:
    """The picture of a block.

    Raises:
        StaleDiagramError: there is none of this source.
    """
    file = root / FOLDER / f"{name}.svg"
    if not file.is_file() or f"<!-- {digest(source)} -->" not in file.read_text(encoding="utf-8"):
        raise StaleDiagramError(
            f"{FOLDER}/{name}.svg is not the picture of the page's diagram. Draw it with "
            "`python tools/documentation diagrams --mermaid node_modules/mermaid/dist/mermaid.min.js`."
        )
    return file


def draw(root: Path, mermaid: Path) -> list[Path]:
    """Draw all diagrams of docs/ that have changed.

    Args:
        root: of the repository.
        mermaid: `mermaid.min.js`.

    Returns:
        The files written.
    """
    from site_browser import open_browser

    written = []
    with open_browser() as browser:
        page = browser.new_page()
        page.set_content("<body></body>")
        page.add_script_tag(path=str(mermaid))
        for path in sorted((root / "docs").rglob("*.md")):
            for number, source in enumerate(FENCE.findall(path.read_text(encoding="utf-8")), start=1):
                name = f"{path.stem}-{number}"
                try:
                    diagram_of(root, name, source)
                except StaleDiagramError:
                    file = root / FOLDER / f"{name}.svg"
                    file.parent.mkdir(exist_ok=True)
                    svg = with_size(page.evaluate(DRAW, source))
                    file.write_text(f"{svg}\n<!-- {digest(source)} -->\n", encoding="utf-8")
                    written.append(file)
    return written


def with_size(svg: str) -> str:
    """The drawing with its own width and height, not those of what holds it."""
    box = re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', svg)
    if box is None:
        raise ValueError("The drawing has no viewBox.")
    width, height = (round(float(value)) for value in box.groups())
    return svg.replace('width="100%"', f'width="{width}" height="{height}"', 1)
