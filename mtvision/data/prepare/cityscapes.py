"""Cityscapes from the three official zip archives."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from mtvision.core.files.find import find_files
from mtvision.core.files.foreign import reading
from mtvision.core.files.headers import check_picture
from mtvision.core.files.limits import require_file_size
from mtvision.core.registry import PREPARATIONS
from mtvision.data.pictures import decode_by_opencv
from mtvision.data.prepare.sources import check_counts, check_source, require, write_note
from mtvision.data.prepare.work import Outcome, run_jobs, write_compared
from mtvision.protocols.cityscapes import CITYSCAPES_SPLITS

ENDINGS = {
    "leftImg8bit": "_leftImg8bit.png",
    "gtFine": "_gtFine_labelIds.png",
    "disparity": "_disparity.png",
    "instances": "_gtFine_instanceIds.png",
}
"""{kind of file: ending of the names that the suite needs}."""

FOLDERS = {**{kind: kind for kind in ENDINGS}, "instances": "gtFine"}
"""{kind of file: its archive and folder}."""

_DTYPES = {
    "leftImg8bit": np.dtype(np.uint8),
    "gtFine": np.dtype(np.uint8),
    "disparity": np.dtype(np.uint16),
    "instances": np.dtype(np.uint16),
}


@dataclass(frozen=True)
class _Member:
    archive: Path
    kind: str
    name: str
    size: int
    target: Path


@PREPARATIONS.register_module("cityscapes")
def prepare_cityscapes(
    source: Path,
    target: Path,
    *,
    workers: int = 1,
    progress: bool = True,
    expected: Mapping[str, int] | None = CITYSCAPES_SPLITS,
) -> Outcome:
    """Unpack what `Cityscapes` reads: images, label and instance ids and disparities of train
    and val.

    Args:
        source: folder with `leftImg8bit_trainvaltest.zip`, `gtFine_trainvaltest.zip`,
            `disparity_trainvaltest.zip`.
        target: the data set's folder; files that are there with the right size are kept.
        workers: processes.
        progress: show a bar.
        expected: {split: number of images}; None checks nothing.

    Raises:
        FileNotFoundError: an archive is missing.
        ValueError: an archive is damaged.
    """
    check_source(source)
    jobs = []
    for kind in ENDINGS:
        archive = require(
            source, f"{FOLDERS[kind]}_trainvaltest.zip", "from cityscapes-dataset.com (registration needed)"
        )
        jobs += _members(archive, kind, target)
    outcome = run_jobs(_unpack, jobs, workers=workers, title="Cityscapes files", progress=progress)
    for split in ("train", "val"):
        stems = {kind: _stems(target, kind, split) for kind in ENDINGS}
        check_counts("Cityscapes", {split: stems["leftImg8bit"]}, expected, outcome)
        for kind in ("gtFine", "disparity", "instances"):
            lacking = sorted(stems["leftImg8bit"] - stems[kind])
            if lacking:
                outcome.problems.append(
                    f"{kind}/{split}: {len(lacking)} files are missing, first {lacking[0]}."
                )
    outcome.dataset = "Cityscapes"
    write_note(target, "cityscapes", source, outcome, [])
    return outcome


def _members(archive: Path, kind: str, target: Path) -> list[_Member]:
    with (
        reading(archive, "the archive is damaged or incomplete", "Download it again."),
        zipfile.ZipFile(archive) as file,
    ):
        infos = [info for info in file.infolist() if info.filename.endswith(ENDINGS[kind])]
    wanted = []
    for info in infos:
        parts = PurePosixPath(info.filename).parts
        # exactly kind/split/city/file: nothing can land outside the target
        if (
            len(parts) == 4
            and parts[0] == FOLDERS[kind]
            and parts[1] in ("train", "val")
            and ".." not in parts
        ):
            wanted.append(_Member(archive, kind, info.filename, info.file_size, target / Path(*parts)))
    if not wanted:
        raise ValueError(
            f"{archive}: holds no file {FOLDERS[kind]}/train|val/<city>/*{ENDINGS[kind]}. Is it another "
            "archive?"
        )
    return wanted


def _stems(target: Path, kind: str, split: str) -> set[str]:
    folder = target / FOLDERS[kind] / split
    files = find_files(folder, (), suffix=ENDINGS[kind], depth=1).files if folder.is_dir() else {}
    return {key.rpartition("/")[2] for key in files}


@lru_cache(maxsize=4)
def _open(archive: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)


def _unpack(member: _Member) -> Outcome:
    if member.target.is_file() and member.target.stat().st_size == member.size:
        return Outcome(kept=1)
    name = f"{member.archive}: '{member.name}'"
    require_file_size(name, member.size)
    with reading(name, "is damaged", "Download it again."):
        content = _open(member.archive).read(member.name)  # checks the CRC
    check_picture(name, content)
    picture = decode_by_opencv(Path(name), content)
    expected = _DTYPES[member.kind]
    if picture is None or picture.dtype != expected:
        found = "no picture" if picture is None else f"a picture of type {picture.dtype}"
        raise ValueError(f"{member.archive}: '{member.name}' is {found}, expected {expected}.")
    write_compared(member.target, content)
    return Outcome(written=1)
