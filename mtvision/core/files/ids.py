"""Ids of a list, compared with the images that exist."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtvision.core.files.names import composed, differs_in_case
from mtvision.core.files.text import Line, require_once

SHOWN = 3
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/|file:/")


@dataclass(frozen=True)
class MatchedIds:
    """Keys that the lines of a list stand for.

    Args:
        ids: in the order of the list; a line that stands for no key as it was written.
        missing: lines that stand for no key.
        where: name of the list, for messages.
        rewritten: (as written, key) of those that are written in another way.
    """

    ids: list[str]
    missing: list[Line]
    where: str
    rewritten: tuple[tuple[str, str], ...] = ()

    def remark(self) -> str:
        """A sentence about ids that are written in another way; empty if there is none."""
        if not self.rewritten:
            return ""
        written, key = self.rewritten[0]
        count = len(self.rewritten)
        return f"{self.where}: {count} ids are file names or paths; '{written}' is read as '{key}'."

    def explain(self, known: Collection[str]) -> str:
        """Why the first missing line may stand for no key, and what to try; empty if nothing is known."""
        line = self.missing[0]
        other = differs_in_case(line.text, known)
        if other is not None:
            return f"'{other}' differs in upper and lower case; write it as the file is called."
        hidden = next((mark for mark in line.text if mark not in " \t" and not mark.isprintable()), None)
        if hidden is not None:
            name = unicodedata.name(hidden, "a control character")
            return f"It holds U+{ord(hidden):04X} ({name}), which cannot be seen; write the id anew."
        bare = sum(item in known for item in _unquoted(line.text))
        if bare:
            return f"'{line.text}' is in quotation marks or ends in a comma; write the id alone."
        if _columns(line.text):
            return (
                f"'{line.text}' looks like several columns; expected one id a line. Keep the first column, "
                "or give the ids as a list, ids=[...]."
            )
        deeper = next((key for key in known if key.endswith(f"/{line.text}")), None)
        if deeper is not None:
            return f"'{deeper}' has this name; ids hold the sub-folder too."
        if len(self.missing) == 1 < len(self.ids) and self.ids[0] == line.text:
            return "If it is the header of a table, remove it. Ids are file names without the ending."
        return ""


def lines_of(ids: Sequence[str | Line]) -> list[Line]:
    """Ids of a config as lines, numbered by position; lines stay as they are.

    Raises:
        TypeError: an id is no text.
    """
    for item in ids:
        if not isinstance(item, str | Line):
            raise TypeError(f"ids= holds {item!r}, expected texts. Write ids in quotation marks.")
    return [
        Line(composed(item), number, composed(item)) if isinstance(item, str) else item
        for number, item in enumerate(ids, 1)
    ]


def without_patterns(ids: Sequence[str], known: Collection[str]) -> list[str]:
    """Ids of a config, those with `*` replaced by the keys that they match, in the order of the keys.

    >>> without_patterns(["b", "a*", "c*"], ["a1", "a2", "b", "c*"])
    ['b', 'a1', 'a2', 'c*']

    Raises:
        ValueError: nothing matches.
        TypeError: an id is no text.
    """
    found: list[str] = []
    for text in (line.text for line in lines_of(ids)):
        if "*" not in text or text in known:
            found.append(text)
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in text.split("*")))
        matching = [key for key in known if pattern.fullmatch(key)]
        if not matching:
            some = ", ".join(repr(key) for key in list(known)[:SHOWN]) or "none"
            raise ValueError(f"ids=['{text}']: no image matches; there are {len(known)}: {some}, ….")
        found += matching
    return found


def matched_ids(
    lines: Sequence[Line], known: Collection[str], *, where: str, folder: Path, endings: Sequence[str]
) -> MatchedIds:
    """Find the key that each line stands for.

    A line is a key. A line that is none has other readings, and exactly one of them must be a key. They keep
    what looks like a comment, or drop `./`, an ending or the folder in front. Backslashes may stand for
    slashes.

    Args:
        lines: of the list.
        known: keys of the images, see `find_files`.
        where: name of the list.
        folder: of the images; the end of its path may stand before an id.
        endings: that an id may have, in lower case.

    Raises:
        ValueError: two lines stand for one key.
    """
    ids, missing, rewritten = [], [], []
    for line in lines:
        key = line.whole if line.whole in known else line.text
        if key not in known:
            found = {item for item in _readings(line, folder, endings) if item in known}
            if len(found) == 1:
                rewritten.append((line.text, key := found.pop()))
            else:
                missing.append(line)
        ids.append(key)
    require_once(lines, ids, where)
    return MatchedIds(ids, missing, where, tuple(rewritten))


def _readings(line: Line, folder: Path, endings: Sequence[str]) -> Iterator[str]:
    for text in {line.text, line.whole, line.text.replace("\\", "/"), line.whole.replace("\\", "/")}:
        for path in _inside(text, folder):
            yield path
            for ending in endings:
                if path.lower().endswith(ending.lower()):
                    yield path[: -len(ending)]


def _inside(text: str, folder: Path) -> Iterator[str]:
    """The path, and without the folder in front: `images/a` and `/data/images/a` in `/data/images`."""
    path = posixpath.normpath(text)
    yield path
    if _ABSOLUTE.match(path):  # of another machine, perhaps of Windows
        parts = path.split("/")
        yield from (
            "/".join(parts[place + 1 :]) for place in range(len(parts)) if parts[place] == folder.name
        )
        yield path.lstrip("/")
    while path.startswith("../"):  # relative to the list, which lies in a folder beside the images
        path = path.removeprefix("../")
    parts, above = path.split("/"), [composed(part) for part in folder.absolute().parts]
    above[0] = above[0].rstrip("/\\")
    for count in range(1, min(len(parts), len(above) + 1)):
        if parts[:count] == above[-count:]:
            yield "/".join(parts[count:])


def _unquoted(text: str) -> Iterator[str]:
    bare = text.rstrip(",;")
    yield bare
    yield bare.strip("\"'")


def _columns(text: str) -> bool:
    return any(mark in text.strip(",;") for mark in ("\t", " ", ",", ";"))


def require_single(lines: Sequence[Line], where: str) -> list[str]:
    """Ids of lists of published data sets, whose ids hold no blank.

    Raises:
        ValueError: a line has several columns.
    """
    for line in lines:
        if _columns(line.text):
            raise ValueError(
                f"{where}, line {line.number}: '{line.text[:80]}' looks like several columns; expected one "
                "id a line. Keep the first column, or take the list from its source again."
            )
    return [line.text for line in lines]
