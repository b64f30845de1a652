"""The documentation site: its pages, links, generated references, and what the built HTML may fetch."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import pytest
import site_check
import site_commands
import site_diagrams
import site_doctests
import site_examples
import site_notebook
import site_pages

import mtvision

ROOT = Path(__file__).parents[1]
LEAST_SHARE = 0.8
"""Of public names, those with an example in their docstring."""


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "docs"
    return folder, site_pages.stage(folder)


def test_every_page_is_in_the_navigation(staged):
    _, pages = staged
    assert site_pages.not_in_navigation(ROOT, pages) == []
    assert site_pages.not_in_navigation(ROOT, ["stray.md", *pages[1:]]) == [
        "mkdocs.yml: stray.md is not in `nav`",
        f"mkdocs.yml: `nav` names {pages[0]}, which does not exist",
    ]


def test_pages_of_the_repository_are_pages_of_the_site(staged):
    folder, pages = staged
    assert {"contributing.md", "changelog.md", "datasets/own_data.md", "notebook.md"} <= set(pages)
    assert "](plugins.md#what-can-be-registered)" in (folder / "contributing.md").read_text(encoding="utf-8")
    assert "](../tasks.md)" in (folder / "datasets" / "own_data.md").read_text(encoding="utf-8")


def test_diagrams_are_pictures_of_the_site(staged):
    folder, _ = staged
    text = (folder / "decoders" / "mtan.md").read_text(encoding="utf-8")
    assert "```mermaid" not in text
    assert (folder / "images" / "diagrams" / "mtan-1.svg").is_file()
    with pytest.raises(site_diagrams.StaleDiagramError, match="Draw it with"):
        site_diagrams.diagram_of(ROOT, "mtan-1", "flowchart LR\n    A --> B\n")


def test_links_are_mended_or_reported():
    links = site_pages.Links(ROOT, site_pages.pages_of(ROOT))
    page = "docs/how_to/export.md"
    code = "`[a](b)`\n```python\n[a](b)\n```"
    assert links.mended(page, code) == code
    assert links.mended(page, "[a](../../datasets/nyudv2.md#files)") == "[a](../datasets/nyudv2.md#files)"
    assert links.mended(page, "[a](#here) [b](https://x.org)") == "[a](#here) [b](https://x.org)"
    repository = links.mended(page, "[a](../../Makefile) [b](../../configs)")
    assert (
        repository
        == f"[a]({site_pages.REPOSITORY}/blob/main/Makefile) [b]({site_pages.REPOSITORY}/tree/main/configs)"
    )
    assert links.broken == []
    links.mended(page, "\n[a](gone.md)")
    links.mended(page, f"[a]({site_pages.REPOSITORY}/blob/main/CHANGELOG.md)")
    assert links.broken == [
        "docs/how_to/export.md:2: there is no docs/how_to/gone.md",
        "docs/how_to/export.md:1: CHANGELOG.md is a page of the site; link to it relative to this file.",
    ]


@pytest.mark.parametrize(
    ("html", "mistake"),
    [
        ('<a href="other/#there">x</a><img src="a.png"><a href="https://x.org/">y</a>', None),
        ('<link rel="canonical" href="https://x.org/">', None),
        ('<a href="gone/">x</a>', "gone/ leads to no file"),
        ('<a href="other/#gone">x</a>', "the page has no place of this name"),
        ('<a href="#gone">x</a>', "the page has no place of this name"),
        ('<script src="https://x.org/a.js"></script>', "fetch https://x.org/a.js from another host"),
        ('<link rel="stylesheet" href="//x.org/a.css">', "fetch //x.org/a.css from another host"),
        ('<link rel="preconnect" href="https://x.org">', "from another host"),
        ('<img srcset="a.png 1x, https://x.org/a.png 2x">', "from another host"),
        ('<p style="background: url(https://x.org/a.png)">', "from another host"),
        ("<style>@import 'https://x.org/a.css';</style>", "from another host"),
    ],
)
def test_the_built_site_is_checked(tmp_path, html, mistake):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text('<h2 id="there">There</h2>')
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(html)
    found = site_check.mistakes(tmp_path)
    assert len(found) == (mistake is not None)
    assert mistake is None or mistake in found[0]


def test_style_sheets_are_checked(tmp_path):
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "a.css").write_text("p { background: url(https://x.org/a.png) }")
    assert site_check.mistakes(tmp_path) == ["a.css: fetches https://x.org/a.png from another host"]
    with pytest.raises(FileNotFoundError, match="make docs"):
        site_check.mistakes(tmp_path / "nowhere")


def test_the_page_of_commands_is_up_to_date():
    page = (ROOT / site_commands.PAGE).read_text(encoding="utf-8")
    assert page == site_commands.commands_page(), "run `python tools/documentation commands`"


def test_all_public_names_are_documented():
    documented = site_examples.public_names(ROOT)
    assert {f"mtvision.{name}" for name in dir(mtvision)} - {"mtvision.__version__"} <= set(documented)
    assert len(documented) == len(set(documented))


def test_most_public_names_have_an_example():
    names = site_examples.public_names(ROOT)
    without = site_examples.without_example(names)
    assert 1 - len(without) / len(names) >= LEAST_SHARE, f"without an example: {', '.join(without)}"


def test_examples_of_docstrings_are_code_in_the_site():
    assert doctest.testmod(site_doctests).failed == 0


def test_the_notebook_is_kept_with_its_outputs():
    cells = json.loads((ROOT / site_notebook.NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code), "run `python tools/documentation notebook`"


def test_the_code_of_the_front_page_runs(monkeypatch, tmp_path):
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    kept = [line for line in code.splitlines() if not re.search("evaluate|export|train", line)]
    assert len(code.split("\n\n")[1].splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    names = {}
    exec("\n".join(kept), names)
    assert names["result"]["depth"].shape == (1, 288, 384)
    assert (tmp_path / "street.png").is_file()
