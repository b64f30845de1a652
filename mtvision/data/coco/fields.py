"""Values of single fields of a COCO file: which are sound, and what they mean."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from mtvision.core.files.names import composed, stored
from mtvision.data.coco.mistakes import AREA, BOX, Mistake, shown

Id = int | str
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_DRIVE = re.compile("[A-Za-z]:")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; Booleans and text are not."""
    return type(value) in (int, float) and abs(value) < 2**53


def integer(value: Any) -> int | None:
    """A whole number as an integer, None for anything else. `3.0` counts, as tables export ids so."""
    return int(value) if is_number(value) and value == int(value) else None


def is_text(value: Any) -> bool:
    """Whether a value is a text that is not blank and has no control characters."""
    return isinstance(value, str) and bool(value.strip()) and not _UNPRINTABLE.search(value)


def normal_id(value: Any) -> Id | None:
    """An integer or text as an id, None for anything else; `3.0` is 3."""
    return value if is_text(value) else integer(value)


def unsafe(name: Any) -> str | None:
    """What a file name is expected to be instead; None = it stays inside its folder."""
    if not is_text(name):
        return "a text"
    if "\\" in name:
        return "'/' between folders"
    if name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/"):
        return "a path inside the folder"
    return None


def odd_box(box: Any, segmentation: Any) -> Mistake | None:
    """What is odd about a bounding box; the polygon's first point should lie in it."""
    if box is None:
        return None
    expected = "expected [x, y, width, height]"
    if type(box) is not list or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        return Mistake(BOX, ".bbox", f"is {shown(box)}; {expected}")
    if isinstance(segmentation, list):
        x, y = segmentation[0][:2]
        if not (-2 <= x - box[0] <= box[2] + 2 and -2 <= y - box[1] <= box[3] + 2):
            text = f"is {shown(box)}; {expected} of the polygons, which begin at {x}, {y}"
            return Mistake(BOX, ".bbox", text)
    return None


def odd_area(area: Any) -> Mistake | None:
    """What is odd about the area of an annotation."""
    if area is None or (is_number(area) and area >= 0):
        return None
    return Mistake(AREA, ".area", f"is {shown(area)}; expected a number of pixels")


def absence_in(folder: Path) -> Callable[[str], str | None]:
    """What was expected where a file does not exist in `folder`, else None.

    Each folder that is asked for is listed once. Names in another Unicode form exist.
    """

    @cache
    def names(parent: str) -> tuple[frozenset[str], dict[str, str]]:
        try:
            with os.scandir(stored(folder / parent)) as entries:
                there = frozenset(composed(entry.name) for entry in entries if entry.is_file())
        except OSError:
            there = frozenset()
        return there, {name.casefold(): name for name in there}

    def absence(name: str) -> str | None:
        parent, base = posixpath.split(composed(name))
        there, folded = names(parent)
        if base in there:
            return None
        other = folded.get(base.casefold())
        hint = f"; '{other}' differs in upper and lower case" if other else ""
        return f"a file in {folder}{hint}"

    return absence
