"""What a person asks predictions for: files, folders, globs, lists, URLs, videos and cameras."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from mtvision.core.files.droppings import dropping
from mtvision.core.files.find import reasons_of
from mtvision.core.files.text import decoded, is_wide, split_lines
from mtvision.core.files.walk import BROKEN, EMPTY, FILE, FOLDER, walk
from mtvision.core.naming import ReportedError

IMAGES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".heic", ".heif", ".hdr"),
)
VIDEOS = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".mts", ".3gp")
CAMERA = "camera:"
STANDARD_INPUT = "-"

Kind = Literal["image", "video", "camera"]


@dataclass(frozen=True)
class Source:
    """One input.

    Args:
        text: what messages and results call it: a path as it was found, a URL, or `camera:0`.
        kind: what is read from it.
        path: the file; None for URLs and cameras.
        parts: the folders and the file name that a name for its outputs is made of.
        inside: how many of the last `parts` lie below the folder that was given, the file included.
    """

    text: str
    kind: Kind
    path: Path | None
    parts: tuple[str, ...]
    inside: int = 1

    @property
    def is_url(self) -> bool:
        """Whether it has to be downloaded."""
        return self.path is None and self.kind != "camera"


@dataclass
class Found:
    """All inputs of a command.

    Args:
        sources: each file once, in the order in which they were given; files of a folder by name.
        problems: {input: why it cannot be used}.
        left_out: how many files of folders and globs are no pictures, by ending.
        dropped: (path, reason) of what programs left behind there, and of circular links.
        repeated: how many inputs name a file that is there already.
    """

    sources: list[Source] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    repeated: int = 0

    def summary(self) -> str:
        """What was left out, in one line; empty if nothing was."""
        parts = []
        if self.left_out:
            endings = ", ".join(f"{count} {ending}" for ending, count in sorted(self.left_out.items()))
            parts.append(f"left out, as no picture or video: {endings}")
        if self.dropped:
            parts.append(f"left out: {reasons_of(self.dropped)}")
        if self.repeated:
            parts.append(f"repetitions left out: {self.repeated}")
        return "; ".join(parts)


def find_inputs(texts: Sequence[str], out: Path | None = None) -> Found:
    """Find all inputs of a command line.

    Args:
        texts: paths of files and folders (searched with their sub-folders), globs, http(s) URLs, `camera:N`.
            `-` reads them from standard input, one a line or with NUL bytes between.
        out: output folder; what lies in it is no input, unless it is named itself. None = nothing is written.

    What is left out of folders and which links are followed is in `mtvision.core.files.find`. A broken link
    is a problem of its own and does not stop the others.

    Raises:
        ValueError: no usable input at all, or `out` is a folder of inputs.
    """
    found, seen = Found(), set[object]()
    for text in texts:
        for item in _lines() if text == STANDARD_INPUT else [text]:
            for source in _sources(item, out, found):
                key = _identity(source)
                found.repeated += key in seen
                if key not in seen:
                    seen.add(key)
                    found.sources.append(source)
    if not found.sources:
        lines = list(found.problems.values()) or ["standard input: no paths."]
        raise ValueError("\n".join(lines))
    return found


def _lines() -> Iterator[str]:
    """Paths on standard input; `find -print0` and `git ls-files -z` put NUL bytes between them."""
    content = sys.stdin.buffer.read()
    if is_wide(content):
        text = decoded(content, "standard input")
    else:  # names of files may be any bytes
        text = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf"))
    for part in text.split("\0") if "\0" in text else split_lines(text):
        if part.strip():
            yield part


def _identity(source: Source) -> object:
    if source.path is None:
        return source.text
    return os.path.realpath(source.path)  # two hard links are two names, and get two outputs


class _UnusableError(ReportedError):
    """An input that cannot be understood; the message follows its text."""


def _lies_in(path: Path, folder: Path | None) -> bool:
    if folder is None:
        return False
    place = os.path.realpath(folder)
    return os.path.commonpath([os.path.realpath(path), place]) == place


def _sources(text: str, out: Path | None, found: Found) -> Iterator[Source]:
    """The sources of one input; what is wrong with it goes to `found.problems`."""
    if text.startswith(CAMERA):
        yield from _camera(text, found)
        return
    try:
        if "://" in text:
            yield from _url(text, found)
        else:
            yield from _paths(text, out, found)
    except _UnusableError as error:
        found.problems[text] = f"{text}: {error}."
    except OSError as error:
        found.problems[text] = f"{text}: {error.strerror or error}."


def _camera(text: str, found: Found) -> Iterator[Source]:
    number = text.removeprefix(CAMERA)
    if number.isdecimal():
        yield Source(text, "camera", None, (f"camera{int(number)}",))
    else:
        found.problems[text] = f"{text}: expected a number behind {CAMERA}, e.g. {CAMERA}0 for the first one."


def _url(text: str, found: Found) -> Iterator[Source]:
    try:
        address = urlsplit(text)
    except ValueError as error:
        raise _UnusableError(f"no address ({error})") from error
    if address.scheme.lower() not in ("http", "https") or not address.hostname:
        found.problems[text] = f"{text}: expected an address that begins with http:// or https://."
        return
    name = PurePosixPath(unquote(address.path)).name or address.hostname
    kind: Kind = "video" if Path(name).suffix.lower() in VIDEOS else "image"
    yield Source(text, kind, None, (address.hostname, name))


def _paths(text: str, out: Path | None, found: Found) -> Iterator[Source]:
    path = Path(text)
    if text.startswith("~") and not path.exists():
        try:
            path = path.expanduser()
        except RuntimeError as error:
            raise _UnusableError(f"there is no such file and no such home folder ({error})") from error
    if path.is_dir():
        before = len(found.problems)
        sources = list(_folder(path, out, found))
        if not sources and len(found.problems) == before:
            others = f" ({found.summary()})" if found.left_out else ""
            found.problems[text] = f"{text}: no image or video in this folder or below it{others}."
        yield from sources
    elif path.is_file():
        yield _file(path)
    elif glob.has_magic(text):
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            found.problems[text] = (
                f"{text}: no file matches. Put the pattern in quotes, ** goes through folders."
            )
        for match in map(Path, matches):
            if _lies_in(match, out):
                continue  # of an earlier run
            reason = dropping(match.name)
            if reason is not None:
                found.dropped.append((str(match), reason))
            elif match.is_dir():
                yield from _folder(match, out, found) if "**" not in text else ()
            elif match.is_file() and _wanted(match, found):
                yield _file(match)
    elif path.exists():
        found.problems[text] = f"{text}: a device or a pipe; expected a file or a folder."
    else:
        found.problems[text] = f"{text} does not exist.{_hint(text, path)}"


def _hint(text: str, path: Path) -> str:
    if text.isdecimal():
        return f" A camera is {CAMERA}{text}."
    if path.is_symlink():
        return f" It is a link to {os.readlink(path)}, which is gone."
    return ""


def _folder(folder: Path, out: Path | None, found: Found) -> Iterator[Source]:
    """Pictures and videos below a folder, by name."""
    if out is not None and os.path.realpath(folder) == os.path.realpath(out):
        raise ValueError(
            f"--out {out} is a folder of inputs; the next run would read its own results. Choose another "
            f"folder, e.g. {out / 'predictions'}."
        )

    def refused(error: OSError) -> None:
        found.problems[str(error.filename)] = f"{error.filename}: {error.strerror}."

    for item in walk(folder, without=() if out is None else (os.path.realpath(out),), refused=refused):
        path, known = folder / item.path, Path(item.name).suffix.lower() in (*IMAGES, *VIDEOS)
        if item.kind == FILE:
            if _wanted(path, found):
                yield _file(path, len(Path(item.path).parts))
        elif item.kind == BROKEN:
            if known or not path.suffix:
                found.problems[str(path)] = f"{path}: a link to {os.readlink(path)}, which is gone."
            else:
                found.left_out[path.suffix.lower()] += 1
        elif item.kind == EMPTY:
            if known:  # often comes from a program that unpacks pictures
                found.problems[str(path)] = f"{path}: an empty folder, no picture."
        elif item.kind != FOLDER:
            found.dropped.append((item.path, item.kind))


def _wanted(path: Path, found: Found) -> bool:
    """Whether the ending is one of a picture or video; others are counted."""
    suffix = path.suffix.lower()
    if suffix in IMAGES or suffix in VIDEOS:
        return True
    found.left_out[suffix or "without ending"] += 1
    return False


def _file(path: Path, inside: int = 1) -> Source:
    kind: Kind = "video" if _is_video(path) else "image"
    whole = Path(os.path.abspath(path)).parts[1:]  # of a link, where the link is
    return Source(str(path), kind, path, whole, inside)


def _is_video(path: Path) -> bool:
    """By the ending; a file with another or no ending by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in IMAGES or suffix in VIDEOS:
        return suffix in VIDEOS
    with path.open("rb") as file:
        head = file.read(12)
    is_mp4 = head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return is_mp4 or is_avi or head[:4] == b"\x1a\x45\xdf\xa3"  # the last: Matroska and WebM
