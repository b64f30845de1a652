"""Files of a folder in groups that belong together: pictures, and maps of one kind."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mtvision.core.files.walk import FILE, walk
from mtvision.data.maps.files import LOSSY_SUFFIXES, SUFFIXES

ENDINGS = (*SUFFIXES, *LOSSY_SUFFIXES)
WORDS = {
    "train": ("training", "train", "learn", "trn"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("testing", "test"),
}
"""{split: what folders and files of it are called}."""
SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}
_WORD = "|".join(sorted(SPLIT_OF, key=len, reverse=True))
_AT_START = re.compile(rf"^(?P<word>{_WORD})", re.IGNORECASE)
_INSIDE = re.compile(rf"(?<![A-Za-z])(?P<word>{_WORD})(?![A-Za-z])", re.IGNORECASE)
KEYWORDS = {
    "normals": ("normal", "norm"),
    "depth": ("depth", "disp"),
    "edge": ("edge", "bound", "contour"),
    "saliency": ("salien", "sod", "foreground", "matte"),
    "semseg": ("seg", "label", "annot", "class", "parts"),
    "mask": ("mask", "gt", "groundtruth", "truth"),
}
"""{task: what folders and files of it are called}; `mask` may be several."""


def keyword(text: str) -> str:
    """The task that a name tells, or an empty text.

    >>> keyword("norm_gt"), keyword("trainannot"), keyword("rgb")
    ('normals', 'semseg', '')
    """
    lowered = text.lower()
    return next((task for task, words in KEYWORDS.items() if any(word in lowered for word in words)), "")


@dataclass
class Group:
    """Files of one kind.

    Args:
        folder: relative to the root; `{split}` stands for a split's word.
        files: {word of the split, empty where there is none: {name without ending: path}}.
        ending: of all files.
        told: task that names tell.
    """

    folder: str
    ending: str
    told: str
    files: dict[str, dict[str, Path]] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """All files, by split and name."""
        return [path for part in self.files.values() for path in part.values()]

    @property
    def names(self) -> set[str]:
        """Names without endings, of all splits."""
        return {name for part in self.files.values() for name in part}

    def __str__(self) -> str:
        return f"{self.folder or '.'}/*{self.ending} ({len(self.paths)} files)"


def find_groups(root: Path) -> tuple[list[Group], Counter[str]]:
    """Groups of all maps and pictures below a folder, and how many other files there are, by ending.

    Raises:
        OSError: a folder cannot be listed.
    """
    listed: dict[tuple[str, str, str, str], dict[str, Path]] = defaultdict(dict)
    others: Counter[str] = Counter()
    for item in walk(root):
        if item.kind != FILE:
            continue
        path = PurePosixPath(item.path)
        ending = path.suffix.lower()
        if ending not in ENDINGS:
            others[ending or "without ending"] += 1
            continue
        folder = "" if str(path.parent) == "." else str(path.parent)
        parts = re.fullmatch(r"(.*\d)?(.*)", path.stem)
        tail = parts[2] if parts and parts[1] else ""
        told = keyword(re.sub(r"\d.*\d|\d", "", path.stem))
        listed[folder, ending, told, tail][path.stem] = root / item.path
    return _joined(listed), others


def _joined(listed: Mapping[tuple[str, str, str, str], dict[str, Path]]) -> list[Group]:
    """Folders that differ in the word of the split become one group."""
    patterns = _patterns({folder for folder, *_ in listed})
    groups: dict[tuple[str, str, str, str], Group] = {}
    for (folder, ending, told, tail), files in listed.items():
        pattern, word = patterns[folder]
        key = (pattern, ending, told, tail)
        group = groups.setdefault(key, Group(pattern, ending, told or keyword(PurePosixPath(pattern).name)))
        group.files[word] = dict(sorted(files.items()))
    return list(groups.values())


def _patterns(folders: set[str]) -> dict[str, tuple[str, str]]:
    """{folder: (the same with `{split}`, the word)}; only where at least two words fit a pattern."""
    found: dict[str, tuple[str, str]] = {}
    words: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        for finder in (_INSIDE, _AT_START):
            pattern, word = _pattern(folder, finder)
            if word:
                found[folder] = (pattern, word)
                words[pattern].add(word)
                break
    return {
        folder: found[folder] if folder in found and len(words[found[folder][0]]) > 1 else (folder, "")
        for folder in folders
    }


def _pattern(folder: str, finder: re.Pattern[str]) -> tuple[str, str]:
    parts = folder.split("/")
    for index in range(len(parts) - 1, -1, -1):
        match = finder.search(parts[index])
        if match:
            parts[index] = f"{parts[index][: match.start()]}{{split}}{parts[index][match.end() :]}"
            return "/".join(parts), match["word"]
    return folder, ""


def affixes(names: Sequence[str], images: set[str]) -> tuple[str, str] | None:
    """What stands before and behind an image's name in a label's; None where most labels have no image.

    >>> affixes(["depth_1", "depth_2"], {"1", "2"}), affixes(["1", "7"], {"1", "2"})
    (('depth_', ''), ('', ''))
    """
    if sum(name in images for name in names) * 2 >= len(names):
        return "", ""
    votes: Counter[tuple[str, str]] = Counter()
    for name in names:
        inside = [image for image in images if image and image in name]
        if inside:
            image = max(inside, key=len)
            votes[name[: name.index(image)], name[name.index(image) + len(image) :]] += 1
    if not votes:
        return None
    (prefix, tail), count = votes.most_common(1)[0]
    return (prefix, tail) if count * 2 >= len(names) else None
