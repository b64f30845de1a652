"""Sentences of at most 25 words, and no riddles, in the pages and docstrings of the project."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from prose import docstring_paragraphs, docstrings, page_paragraphs, plain, sentences, word_count

ROOT = Path(__file__).parents[1]
LIMIT = 25
FOLDERS = ("docs", "datasets", "configs", "examples")
CODE = ("mtvision", "tools", "configs", "examples")
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    + [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")]
)
PHRASES = (  # code has no wishes and no voice, and a reader should not have to guess
    r"\bwants?\b",
    r"without a word",
    r"word behind it",
    r"of which no other",
    r"what \w+ lack",
    r"may (?:be missing|lack)",
    r"\bgo(?:es)? on\b",
    r"\bthrow\w* away\b",
    r"\bspeaks?\b",
    r"\bat hand\b",
    r"\bwhoever\b",
    r"\b(?:tasks?|code|modules?) (?:may |can )?talk",
    r"who draws it",
    r"little speaks",
    r"packages? speaks? in",
    r"at fault",
    r"\bknows? nothing\b",
    r"as far as can be told",
    r"were not at hand",
    r"\bhave to be asked for\b",
    r"stands? for it\b",
    r"\bnobody\b",
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def too_long(paragraphs: list[str]) -> list[str]:
    found = [sentence for paragraph in paragraphs for sentence in sentences(paragraph)]
    return [f"{word_count(text)} words: {text}" for text in found if word_count(text) > LIMIT]


def riddles(paragraphs: list[str]) -> list[str]:
    texts = [plain(paragraph) for paragraph in paragraphs]
    return [f"{phrase!r}: {text}" for text in texts for phrase in PHRASES if re.search(phrase, text)]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_are_easy_to_read(path):
    text = path.read_text(encoding="utf-8")
    paragraphs = page_paragraphs(re.sub(r"<!-- table:.*?<!-- end -->", "", text, flags=re.DOTALL))
    assert too_long(paragraphs) == []
    assert riddles(paragraphs) == []


def test_docstrings_are_easy_to_read():
    report: list[str] = []
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        for line, text in docstrings(path):
            paragraphs = docstring_paragraphs(text)
            problems = [*too_long(paragraphs), *riddles(paragraphs)]
            report += [f"{name_of(path)}:{line}: {problem}" for problem in problems]
    assert report == []


def test_the_rules_find_what_they_are_for():
    long = "One " + "very " * 24 + "long sentence. A short one."
    assert len(too_long(page_paragraphs(long))) == 1
    assert too_long(page_paragraphs(f"```text\n{long}\n```\n\n| {long} |")) == []
    assert too_long(page_paragraphs("`a`, `b` and `c`, " * 9)) == []
    assert len(too_long(docstring_paragraphs(f"Do it.\n\nArgs:\n    size: {long}\n    name: {long}\n"))) == 2
    assert len(riddles(page_paragraphs("The decoder wants four levels."))) == 1


def test_no_path_of_a_machine():
    """Paths below `/home/me` and `/data` are examples."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?<![\w.])/(?:work|root|home/(?!me/))\w*[/\"']")
    for name in listed.stdout.split():
        path = ROOT / name
        if (
            path.suffix in (".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".json", ".jsonl", ".cff")
            and path.is_file()
        ):
            found = pattern.search(path.read_text(encoding="utf-8"))
            assert name == "tests/test_language.py" or found is None, f"{name}: {found}"
