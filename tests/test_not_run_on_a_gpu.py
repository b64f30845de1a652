"""One list of what no GPU has run: the table in `docs/speed.md`, against all code and all pages."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mtvision"
PAGE = ROOT / "docs" / "speed.md"
FOR_CUDA = re.compile(
    r"torch\.cuda\.(?!OutOf)|== \"cuda\"|\.is_cuda\b|\"nccl\"|\"cuda\" if |non_blocking=True|GradScaler\("
)
"""Code that does something else, or nothing, where there is no GPU."""
SAID = re.compile(r"not (?:been )?run on a gpu yet", re.IGNORECASE)


def table():
    """Cells of code and of pages in the rows of the list."""
    section = PAGE.read_text(encoding="utf-8").split("## Not run on a GPU yet")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][1:]
    code = [name for row in rows for name in re.findall(r"`([^`]+)`", row[2])]
    pages = [name for row in rows for name in re.findall(r"`([^`]+)`", row[3])]
    return code, pages


def text_of(path):
    return path.read_text(encoding="utf-8").replace("*", "")


def test_all_code_for_gpus_is_in_the_list():
    """A module that asks for CUDA, or says that no GPU has run it, stands in the list once, and no other."""
    code, _ = table()
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if FOR_CUDA.search(path.read_text(encoding="utf-8")) or SAID.search(text_of(path))
    }
    assert set(code) == found
    assert len(code) == len(set(code))


def test_all_pages_that_say_so_are_in_the_list():
    """As many rows name a page as sentences of it say so."""
    _, pages = table()
    said = {
        str(path.relative_to(ROOT)): len(SAID.findall(text_of(path)))
        for folder in ("docs", "datasets", "configs", "examples", "tools")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".md", ".py") and path != PAGE
    }
    said["README.md"] = len(SAID.findall(text_of(ROOT / "README.md")))
    assert dict(Counter(pages)) == {name: count for name, count in said.items() if count}
