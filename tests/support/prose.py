"""Sentences of Markdown pages and docstrings, as a reader meets them.

Code blocks, tables and figures are left out. Inline code counts as one word, and so does a list of names such
as "`a`, `b` and `c`". Numbers do not count. A list item, a heading and a paragraph end a sentence.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ABBREVIATION = re.compile(r"\b(e\.g|i\.e|cf|vs|Fig|eq|al)\.")
ITEM = re.compile(r"^([*+-]|\d+\.) ")
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")


def page_paragraphs(text: str) -> list[str]:
    """Paragraphs, list items and headings of a Markdown page."""
    text = re.sub(r"<!--.*?-->", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"^( *)```.*?^\1``` *$", "\n\n", text, flags=re.DOTALL | re.MULTILINE)
    return _join(text.splitlines())


def docstring_paragraphs(text: str) -> list[str]:
    """Paragraphs, list items and described arguments of a docstring in Google's style."""
    text = re.sub(r"^ *>>>.*?(\n\s*\n|\Z)", "\n\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\n\n(?: {4}.*(?:\n|\Z)|\n(?= {4}))+", "\n\n", text)  # formulas and other quoted lines
    return _join(re.sub(r"^ {4}(\w[\w ,.*()|]*): ", r"\n\1: ", text, flags=re.MULTILINE).splitlines())


def _join(lines: list[str]) -> list[str]:
    paragraphs: list[str] = []
    current: list[str] = []
    for line in [*lines, ""]:
        text = line.strip()
        alone = not text or text.startswith(("|", "#")) or SECTION.match(text) is not None
        if alone or ITEM.match(text):
            paragraphs += [" ".join(current)] if current else []
            current = []
        if text.startswith("#"):
            paragraphs.append(text.lstrip("# "))
        elif not alone:
            current.append(ITEM.sub("", text, count=1))
    return paragraphs


def plain(paragraph: str) -> str:
    """The paragraph without markup; links keep their text, inline code becomes one word."""
    text = re.sub(r"!\[[^]]*\]\([^)]*\)", "", paragraph)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"``[^`]+``|`[^`]*`|https?://\S+", "CODE", text)
    text = re.sub(r"CODE(?:(?:,| and| or|, and|, or) CODE)+", "CODE", text)
    text = ABBREVIATION.sub(lambda match: match.group(0)[:-1], text)
    return text.replace("*", "")


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph, without markup."""
    parts = re.split(r"(?<=[.!?])[\")”]*\s+", plain(paragraph))
    return [part for part in parts if part.strip()]


def word_count(sentence: str) -> int:
    """Number of words that hold a letter."""
    return sum(re.search(r"[^\W\d_]", word) is not None for word in sentence.split())


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text
