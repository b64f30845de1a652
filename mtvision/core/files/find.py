"""The one finder: which files of a folder count as data, by key, and what was left out and why.

The policy, for every loader and tool:

* Sub-folders are entered. Linked files and folders are followed; a link to a folder that holds it is not.
* Left out and counted: hidden files and folders, resource forks (`._a.png`), system files (`.DS_Store`,
  `Thumbs.db`, `__MACOSX/`, `@eaDir/`, …), editor copies (`a.png~`, `#a.png#`, `a.bak`), partial downloads.
* Endings are compared without case. Files with other endings are counted by ending.
* A key is the path within the folder without the ending, in Unicode's composed form. Two files with one key
  are an error, and so are a broken link with a wanted ending and a name that is no UTF-8.
* Copies of a file manager (`a (copy).png`) are files like others.
* The order is that of the keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtvision.core.files.names import case_hint, composed, stored
from mtvision.core.files.walk import BROKEN, EMPTY, FILE, FOLDER, walk

DEEPER = "folder that is not entered"
NAMELESS = "name without anything before its ending"


@dataclass(frozen=True)
class FoundFiles:
    """What a folder holds.

    Args:
        folder: where it was looked for.
        files: {key: file}, by key.
        left_out: (path within the folder, reason) of what programs left behind, and of links.
        others: {ending: number of files} of files with another ending.
        chosen: whether a prefix or suffix was asked for; files without it are then no part of `summary`.
    """

    folder: Path
    files: dict[str, Path]
    left_out: tuple[tuple[str, str], ...] = ()
    others: Counter[str] = field(default_factory=Counter)
    chosen: bool = False

    def summary(self, name: str = "") -> str:
        """One line: how many files count, how many were left out and why; empty if none was left out.

        Args:
            name: what the folder is called; by default its path.
        """
        others = 0 if self.chosen else self.others.total()
        text = self.reasons(others=not self.chosen)
        there = f"{len(self.files)} file{'' if len(self.files) == 1 else 's'}"
        return (
            f"{name or self.folder}: {there}; left out {len(self.left_out) + others}: {text}" if text else ""
        )

    def reasons(self, *, others: bool = True) -> str:
        """What was left out, by reason, each with the first name; empty if nothing was.

        Args:
            others: count files with another ending too.
        """
        parts = [reasons_of(self.left_out)] if self.left_out else []
        if others:
            parts += [f"{count} {ending}" for ending, count in sorted(self.others.items())]
        return ", ".join(parts)


def reasons_of(left_out: Sequence[tuple[str, str]]) -> str:
    """Reasons with their number and the first name of each.

    >>> reasons_of([(".a.png", "hidden"), (".b.png", "hidden"), ("a.png~", "editor copy")])
    '2 hidden (.a.png), 1 editor copy (a.png~)'
    """
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for path, reason in left_out:
        counts[reason] += 1
        first.setdefault(reason, path)
    return ", ".join(f"{count} {reason} ({first[reason]})" for reason, count in counts.items())


def find_files(
    folder: Path,
    endings: Sequence[str],
    *,
    suffix: str | None = None,
    prefix: str = "",
    depth: int | None = None,
    hint: str = "",
) -> FoundFiles:
    """List the files of a folder by the policy above; none is opened.

    Args:
        folder: looked through with its sub-folders.
        endings: what counts, in lower case, e.g. `.png`.
        suffix: names must end in this instead, e.g. `_rgb.png`; what begins at its last dot in any case.
        prefix: names must begin with this, e.g. `depth_`; it is no part of the key.
        depth: how many levels of sub-folders are entered; None = all.
        hint: what to check if there is no such folder.

    Raises:
        FileNotFoundError: there is no such folder, or a broken link has a wanted ending.
        ValueError: two files have one key, or a name is no UTF-8.
        OSError: a folder cannot be listed.
    """
    folder = stored(folder)
    if not folder.is_dir():
        kind = "a file, expected a folder" if folder.exists() else "no such folder"
        raise FileNotFoundError(f"{folder}: {kind}. {case_hint(folder)}{hint}".rstrip())
    wanted = _Wanted(endings, suffix, composed(prefix))
    files: dict[str, Path] = {}
    left_out: list[tuple[str, str]] = []
    others: Counter[str] = Counter()
    place = str(folder)
    for path, name, kind in walk(folder, depth=depth):
        if kind == FOLDER:
            if depth is not None and path.count("/") >= depth:
                left_out.append((f"{path}/", DEEPER))
            continue
        length = wanted.length(name)
        if kind == FILE and length:
            key = wanted.key(path, length)
            if key == "" or key[-1] == "/":
                left_out.append((path, NAMELESS))
                continue
            if key in files:
                raise _twice(files[key], folder / path)
            if not path.isascii():
                _require_text(folder, path)
            files[key] = Path(f"{place}/{path}")
        elif kind == FILE:
            others[wanted.ending(name)] += 1
        elif kind == BROKEN and length:
            raise FileNotFoundError(
                f"{folder / path}: a link to {(folder / path).readlink()}, which is gone. "
                "Restore what it names, or remove the link."
            )
        elif kind != EMPTY or length:
            left_out.append((path, kind))
    return FoundFiles(folder, dict(sorted(files.items())), tuple(left_out), others, bool(suffix or prefix))


class _Wanted:
    """Which names count, and the part of them that is the key."""

    def __init__(self, endings: Sequence[str], suffix: str | None, prefix: str) -> None:
        chosen = [suffix] if suffix is not None else sorted(endings, key=len, reverse=True)
        self._endings = tuple(composed(item).lower() for item in chosen)
        self._exact = composed(suffix[: suffix.rfind(".")]) if suffix and "." in suffix else suffix or ""
        self._suffix = suffix
        self._prefix = prefix

    def length(self, name: str) -> int:
        """Number of characters of the composed name; 0 = the name does not count."""
        name = composed(name)
        lower = name.lower()
        if not lower.endswith(self._endings) or not name.startswith(self._prefix):
            return 0
        length = next(len(item) for item in self._endings if lower.endswith(item))
        return length if name[-length:].startswith(self._exact) else 0

    def key(self, path: str, length: int) -> str:
        """The composed path without the prefix of its name and the `length` characters of its ending."""
        folder, slash, name = composed(path).rpartition("/")
        return folder + slash + name[len(self._prefix) : -length]

    def ending(self, name: str) -> str:
        """What a file that does not count is counted under."""
        ending = Path(name).suffix.lower() or "without ending"
        if self._suffix is not None and ending == Path(self._suffix).suffix.lower():
            return f"{ending} without {self._suffix}"
        return ending


def _twice(first: Path, second: Path) -> ValueError:
    if composed(first.name) == composed(second.name) and first.name != second.name:
        text = "differ only in the Unicode form of a letter; rename one of them"
    elif first.suffix != second.suffix and first.suffix.lower() == second.suffix.lower():
        text = "differ only in the case of the ending; remove one"
    else:
        text = "have the same name; keep one, or choose an ending (suffix= of a data set)"
    same = first.parent == second.parent
    names = f"both {first.name} and {second.name}" if same else f"{first} and {second}"
    return ValueError(f"{first.parent}: {names} {text}.")


def _require_text(folder: Path, path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise ValueError(
            f"{folder}/{shown}: this name is no UTF-8 text. Rename the file, e.g. with "
            "`convmv -f latin1 -t utf8 --notest -r FOLDER`."
        ) from None
