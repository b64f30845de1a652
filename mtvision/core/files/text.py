"""The one reader of text files of people: encodings, ends of lines, comments."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mtvision.core.files.names import case_hint, composed, stored

MAX_BYTES = 256 * 2**20
"""A list of ten million ids is smaller."""

_MARKS = (  # the one of UTF-32 begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_ENDS = re.compile(r"\r\n|\r|\n")
_BLANKS = " \t\f\v\xa0\u200b\u200e\u200f\u2028\u2029\u2060\ufeff"
"""Stripped from lines, with what editors and copied web pages leave."""
_COMMENT = re.compile(r"(?:^|[ \t])#")
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


class Line(NamedTuple):
    """A line with content.

    Args:
        text: without comment, and without blanks at its ends.
        number: from 1.
        whole: with what looks like a comment; a file name may hold ` #`.
    """

    text: str
    number: int
    whole: str


def decoded(content: bytes, where: str) -> str:
    """Text of UTF-8, or of UTF-16 and UTF-32 with a byte-order mark.

    Args:
        content: of a file.
        where: its name, for messages.

    Raises:
        ValueError: another encoding, or no text.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding in ("utf-8", "utf-8-sig") and not _BINARY.search(content.decode("latin-1")):
            line = len(_ENDS.findall(content[: error.start].decode("utf-8"))) + 1
            raise ValueError(
                f"{where}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}), perhaps Latin-1 or "
                "Windows-1252. Save the file as UTF-8."
            ) from error
        raise ValueError(f"{where}: {_no_text(content)}") from error
    if _BINARY.search(text):
        raise ValueError(f"{where}: {_no_text(content)}")
    return text


def is_wide(content: bytes) -> bool:
    """Whether the content begins with the byte-order mark of UTF-16 or UTF-32."""
    return any(content.startswith(mark) for mark, name in _MARKS if name != "utf-8-sig")


def _no_text(content: bytes) -> str:
    if content[:1] == b"\0" or content[1:2] == b"\0":
        return "holds NUL bytes, perhaps UTF-16 without a byte-order mark. Save the file as UTF-8."
    return "no text, expected UTF-8. It is a binary file or damaged; give a text file."


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text, in another encoding, or too large.
    """
    path = stored(path)
    if not path.is_file():
        there = "a folder" if path.is_dir() else "a device or a pipe" if path.exists() else ""
        kind = f"{there}, expected a text file" if there else "no such file"
        raise FileNotFoundError(f"{path}: {kind}. {case_hint(path)}".rstrip())
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"{path}: {size:,} bytes, expected a list of at most {MAX_BYTES:,}. Is it the right file?"
        )
    return decoded(path.read_bytes(), str(path))


def split_lines(text: str) -> list[str]:
    """Lines between CRLF, CR and LF; other characters that Python breaks lines at belong to them."""
    return _ENDS.split(text)


def read_lines(path: Path) -> list[Line]:
    """Lines that hold more than blanks and a comment; `#` begins one at a line's start and after a blank.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text, in another encoding, or too large.
    """
    lines = []
    for number, raw in enumerate(split_lines(read_text(path)), 1):
        comment = _COMMENT.search(raw)
        text = (raw[: comment.start()] if comment else raw).strip(_BLANKS)
        if text:
            lines.append(Line(composed(text), number, composed(raw.strip(_BLANKS))))
    return lines


def read_ids(path: Path) -> list[Line]:
    """Lines of a list of image ids; `matched_ids` compares them with what exists.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text, holds no id, or one id twice.
    """
    lines = read_lines(path)
    if not lines:
        raise ValueError(f"{path}: holds no id. Write one image id a line, without the ending.")
    require_once(lines, [line.whole for line in lines], str(path))
    return lines


def require_once(lines: Sequence[Line], names: Sequence[str], where: str) -> None:
    """Refuse a name that two lines stand for.

    Raises:
        ValueError: gives both lines.
    """
    first: dict[str, Line] = {}
    for line, name in zip(lines, names, strict=True):
        other = first.setdefault(name, line)
        if other is not line:
            same = "" if line.text == other.text else f" (as '{other.text}' and '{line.text}')"
            raise ValueError(
                f"{where}: id '{name}' occurs twice{same}, in lines {other.number} and {line.number}. "
                "Remove one, or take the list from its source again."
            )
