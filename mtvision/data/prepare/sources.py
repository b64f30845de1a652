"""Find downloaded files, unpack archives safely, and record what was done."""

from __future__ import annotations

import filecmp
import json
import struct
import tarfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mtvision import __version__
from mtvision.core.files.find import find_files
from mtvision.core.files.limits import require_file_size
from mtvision.core.files.walk import BROKEN, EMPTY, FILE, FOLDER, SPECIAL, walk
from mtvision.data.prepare.work import Outcome, write_stream
from mtvision.runtime.atomic import write_text
from mtvision.runtime.progress import reading

NOTE_FILE = "prepared.json"


def find(source: Path, pattern: str, *, folder: bool = False) -> Path | None:
    """First file (or folder) under `source` whose trailing path matches the glob pattern, in sorted order."""
    return next(iter(find_all(source, pattern, folder=folder)), None)


def find_all(source: Path, pattern: str, *, folder: bool = False, outside: Path | None = None) -> list[Path]:
    """Files (or folders) under `source` whose trailing path matches the glob pattern, sorted.

    Args:
        source: folder.
        pattern: glob, with an ending in lower case; files may have it in any case.
        folder: look for folders.
        outside: a folder whose content is not meant, e.g. what was prepared before.

    Raises:
        FileNotFoundError: what matches is a broken link, a pipe, or an empty folder with the name of a file.
    """
    left_out = outside.resolve() if outside is not None else None
    found = []
    for item in walk(source):
        path = source / item.path
        if not _lower_ending(item.path).match(pattern):
            continue
        if left_out is not None and path.resolve().is_relative_to(left_out):
            continue
        if item.kind == (FOLDER if folder else FILE):
            found.append(path)
        elif not folder and item.kind in (BROKEN, SPECIAL, EMPTY):
            raise FileNotFoundError(f"{path}: expected a file, found: {item.kind}. Restore or remove it.")
    return sorted(found)


def _lower_ending(path: str) -> PurePosixPath:
    start, dot, ending = path.rpartition(".")
    return PurePosixPath(start + dot + ending.lower() if dot and "/" not in ending else path)


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """{name without ending: file}; of several equal copies the first.

    Raises:
        ValueError: two files of one name differ.
    """
    found: dict[str, Path] = {}
    for path in paths:
        first = found.setdefault(path.stem, path)
        if first is not path and not filecmp.cmp(first, path, shallow=False):
            raise ValueError(f"{first} and {path} have one name and differ. Keep one of them.")
    return found


def require(source: Path, pattern: str, what: str, *, folder: bool = False) -> Path:
    """Like `find`.

    Raises:
        FileNotFoundError: nothing matches; the message says what the file is and where it comes from.
    """
    found = find(source, pattern, folder=folder)
    if found is None:
        raise FileNotFoundError(f"{source}: no '{pattern}' in this folder or below. It is {what}.")
    return found


def check_source(source: Path, target: Path | None = None) -> None:
    """Refuse a source from which nothing can be prepared.

    Args:
        source: folder with the downloaded files.
        target: must be another folder, where the downloaded files are maps themselves and no archives.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: both are one folder, so that prepared files would lie among the downloaded ones.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder. Give the folder that holds the downloaded files.")
    if target is not None and target.resolve() == source.resolve():
        raise ValueError(
            f"{target}: SRC and DST are one folder, and prepared files would lie among the downloaded ones. "
            f"Give another DST, such as {target.with_name(target.name + '_prepared')}."
        )


def archives(source: Path) -> list[Path]:
    """Tar archives directly in the folder."""
    endings = (".tar", ".tar.gz", ".tgz")
    return list(find_files(source, endings, depth=0).files.values())


def unpack_tar(archive: Path, target: Path, *, strip: str | None = None, progress: bool = False) -> Outcome:
    """Unpack the regular files of a tar archive; files that exist with the right size are kept.

    One process: a compressed archive can only be read from beginning to end.

    Args:
        archive: the file.
        target: folder, made if needed.
        strip: name of a leading folder to drop from the members' paths if they have it.
        progress: show a bar of the bytes read.

    Raises:
        ValueError: the archive is damaged or truncated, or has links or devices. A member would land outside
            `target`, or is larger than a file may be.
    """
    outcome = Outcome()
    try:
        with (
            reading(archive, quiet=not progress) as stream,
            tarfile.open(fileobj=stream) as file,
        ):
            for member in file:
                if not member.isdir():
                    _unpack_member(archive, file, member, target, strip, outcome)
    except (tarfile.TarError, EOFError, OSError, zlib.error, OverflowError, struct.error) as error:
        raise ValueError(
            f"{archive}: the archive is damaged or incomplete ({error}). Download it again and compare "
            "its size; mirrors of this data set are known to break off."
        ) from error
    return outcome


def _unpack_member(
    archive: Path,
    file: tarfile.TarFile,
    member: tarfile.TarInfo,
    target: Path,
    strip: str | None,
    outcome: Outcome,
) -> None:
    parts = [part for part in Path(member.name).parts if part != "."]
    parts = parts[1:] if strip and parts and parts[0] == strip else parts
    path = target.joinpath(*parts)
    if not parts or ".." in parts or Path(member.name).is_absolute():
        raise ValueError(f"{archive}: member '{member.name}' points outside the target folder.")
    if not member.isfile():
        # Links could lead out of the folder, and devices are no data.
        kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
        raise ValueError(f"{archive}: member '{member.name}' is {kind}, expected files. Unpack it by hand.")
    if path.is_file() and path.stat().st_size == member.size:
        outcome.kept += 1
        return
    require_file_size(f"{archive}: member '{member.name}'", member.size)
    content = file.extractfile(member)
    assert content is not None  # of a regular file there always is one
    write_stream(path, content, member.size)
    outcome.written += 1


def check_counts(
    what: str, found: Mapping[str, Collection[str]], expected: Mapping[str, int] | None, outcome: Outcome
) -> None:
    """Record a problem for every split that does not have the published number of images.

    Args:
        what: name of the data set.
        found: {split: names of its images}.
        expected: {split: number of images}; splits that are not in it are not checked, with None none is.
        outcome: receives the problems.
    """
    for split, names in found.items():
        number = (expected or {}).get(split)
        if number is not None and len(names) != number:
            outcome.problems.append(f"{what} {split}: {len(names)} images, the published split has {number}.")


def write_note(
    target: Path, data: str, source: Path, outcome: Outcome, options: Iterable[tuple[str, Any]]
) -> None:
    """Leave `prepared.json` in the prepared folder: its sources, the programs used, and what is not in it."""
    note = {
        "data": data,
        "from": source.name,
        "mtvision": __version__,
        "options": dict(options),
        "tasks_off": outcome.off,
        "notes": outcome.notes,
        "problems": outcome.problems[:100],
    }
    write_text(target / NOTE_FILE, json.dumps(note, indent=2) + "\n")
