"""PASCAL-Context from PASCAL VOC, PASCAL-Context and PASCAL-Part, or from the packaged tarball."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.text import read_text
from mtvision.core.registry import PREPARATIONS
from mtvision.core.task import IGNORE
from mtvision.data.derive import edges_from_classes
from mtvision.data.pascal_context.labels import (
    human_parts_from_objects,
    read_label_map,
    read_objects,
)
from mtvision.data.prepare.sources import (
    archives,
    check_counts,
    check_source,
    find,
    find_all,
    require,
    unpack_tar,
    write_note,
)
from mtvision.data.prepare.work import Outcome, copy_file, missing, run_jobs, write_png
from mtvision.data.published import read_split
from mtvision.protocols.pascal_context import PASCAL_CLASSES, PASCAL_SPLITS
from mtvision.runtime.atomic import write_text

UNPACKED = ".unpacked"
"""Folder inside the target where archives of the source are unpacked; may be deleted afterwards."""

OTHER_NAMES = {"diningtable": ("diningtable", "table")}
"""Class of PASCAL VOC -> its names among the 459 of PASCAL-Context, where they differ."""

OFF = {
    "normals": "the field's normals are distilled from a network (ASTMT) and cannot be derived from "
    "the raw releases; they come only with PASCALContext.tar.gz (folder normals_distill)",
    "saliency": "the field's saliency maps are distilled from a network (ASTMT) and cannot be "
    "derived from the raw releases; they come only with PASCALContext.tar.gz (folder sal_distill)",
}
SEMSEG_NOTE = (
    "images without a VOC2012 segmentation got their 21-class map from PASCAL-Context's 459 classes. "
    "The packaged set's files were made by another program, so semseg scores may differ slightly from "
    "published ones"
)


BOUNDARY_LIST = "test_new"
NO_BOUNDARY_LIST = (
    "papers compute odsF on 2498 of the 5105 test images. Their list is not among the downloaded files, so "
    "only odsF on all of them (protocol seism-pascal-val5105) can be scored. To change that, put "
    "seism/src/gt_wrappers/gt_sets/PASCALContext/test_new.txt of Boundary-Detection-Evaluation-Tools "
    "beside them and prepare again"
)


@dataclass(frozen=True)
class _Photo:
    name: str
    target: Path
    image: Path
    context: Path
    parts: Path
    voc12: Path | None
    classes: Mapping[int, int] = field(default_factory=dict, hash=False)


@PREPARATIONS.register_module("pascal_context")
def prepare_pascal_context(
    source: Path,
    target: Path,
    *,
    workers: int = 1,
    progress: bool = True,
    precompute: bool = False,
    expected: Mapping[str, int] | None = PASCAL_SPLITS,
) -> Outcome:
    """Write the folder that `PascalContext` reads.

    Args:
        source: folder with `PASCALContext.tar.gz`; or with VOC2010 (images and `ImageSets/Main`), VOC2012
            (`SegmentationClass`), PASCAL-Context (`trainval/<id>.mat`, `labels.txt`) and PASCAL-Part
            (`Annotations_Part/<id>.mat`), unpacked or as their tar archives.
        target: the data set's folder; existing files are kept, so an interrupted run continues.
        workers: processes.
        progress: show a bar.
        precompute: also write edges and human parts as PNG, which makes loading several times faster.
        expected: {split: number of images}; None checks nothing.

    Raises:
        FileNotFoundError: a needed file is not in `source`.
        ValueError: a file has the wrong structure.
    """
    check_source(source)
    tarball = find(source, "PASCALContext.tar.gz") or find(source, "PASCAL_MT.tgz")
    if tarball is not None:
        outcome = unpack_tar(tarball, target, strip=tarball.name.split(".")[0], progress=progress)
        lists = {split: target / "ImageSets" / "Context" / f"{split}.txt" for split in ("train", "val")}
        ids = {split: read_split(path) for split, path in lists.items()}
        outcome.add(_check_package(target, ids))
    else:
        outcome, ids = _from_releases(source, target, workers, progress)
    if precompute:
        names = sorted(name for group in ids.values() for name in group)
        jobs = [(target, name) for name in names]
        outcome.add(
            run_jobs(precompute_labels, jobs, workers=workers, title="edges and parts", progress=progress)
        )
    check_counts("PASCAL-Context", ids, expected, outcome)
    _boundary_list(source, target, ids["val"], outcome)
    outcome.dataset = "PascalContext"
    write_note(target, "pascal_context", source, outcome, [("precompute", precompute)])
    return outcome


def _boundary_list(source: Path, target: Path, val: list[str], outcome: Outcome) -> None:
    """Keep the list of the test images that papers compute odsF on, or say that it is not there."""
    path = target / "ImageSets" / "Context" / f"{BOUNDARY_LIST}.txt"
    # the tool has a file of the same name for each of its data sets
    found = find(source, f"PASCALContext/{BOUNDARY_LIST}.txt") or find(source, f"{BOUNDARY_LIST}.txt")
    if not path.is_file() and found is not None:
        copy_file(found, path)
        outcome.written += 1
    if not path.is_file():
        outcome.notes.append(NO_BOUNDARY_LIST)
        return
    foreign = sorted(set(read_split(path)) - set(val))
    if foreign:
        outcome.problems.append(
            f"{path}: '{foreign[0]}' is not in val.txt ({len(foreign)} such ids). Is it the list of another "
            "data set (NYUD-v2 has one of the same name)?"
        )


def _check_package(target: Path, ids: Mapping[str, list[str]]) -> Outcome:
    """Distilled labels that a packaged copy does not have (a copy without them circulates)."""
    outcome = Outcome()
    names = [name for group in ids.values() for name in group]
    for task, folder in (("normals", "normals_distill"), ("saliency", "sal_distill")):
        lacking = missing([target / folder / f"{name}.png" for name in names])
        if len(lacking) == len(names):
            outcome.off[task] = f"the archive has no {folder}; a copy without it circulates. {OFF[task]}"
        elif lacking:
            outcome.problems.append(f"{folder}: {len(lacking)} files are missing, first {lacking[0].name}.")
    return outcome


def _from_releases(
    source: Path, target: Path, workers: int, progress: bool
) -> tuple[Outcome, dict[str, list[str]]]:
    roots = [source]
    for archive in archives(source):
        unpack_tar(archive, target / UNPACKED / archive.name.split(".")[0], progress=progress)
    if (target / UNPACKED).is_dir():
        roots.append(target / UNPACKED)
    train = _first(roots, "VOC2010/ImageSets/Main/train.txt", "PASCAL VOC2010's list of training images")
    voc = train.parents[2]
    context = _folder(roots, "trainval", "*.mat", "LabelMap files of PASCAL-Context (trainval.tar.gz)")
    parts = _folder(roots, "Annotations_Part", "*.mat", "PASCAL-Part's annotations (trainval.tar.gz)")
    labels = _first(roots, "labels.txt", "PASCAL-Context's list of 459 classes")
    voc12 = _first(roots, "VOC2012/SegmentationClass", "PASCAL VOC2012's segmentations", folder=True)
    ids = {split: read_split(train.with_name(f"{split}.txt")) for split in ("train", "val")}
    classes = context_to_voc(labels)
    jobs = []
    for name in sorted(name for group in ids.values() for name in group):
        segmentation = voc12 / f"{name}.png"
        jobs.append(
            _Photo(
                name=name,
                target=target,
                image=voc / "JPEGImages" / f"{name}.jpg",
                context=context / f"{name}.mat",
                parts=parts / f"{name}.mat",
                voc12=segmentation if segmentation.is_file() else None,
                classes=classes,
            )
        )
    outcome = run_jobs(
        _prepare_photo, jobs, workers=workers, title="PASCAL-Context images", progress=progress
    )
    for split, names in ids.items():
        write_text(target / "ImageSets" / "Context" / f"{split}.txt", "\n".join(names) + "\n")
    outcome.off |= OFF
    outcome.notes.append(SEMSEG_NOTE)
    return outcome, ids


def _first(roots: list[Path], pattern: str, what: str, *, folder: bool = False) -> Path:
    for root in roots:
        found = find(root, pattern, folder=folder)
        if found is not None:
            return found
    return require(roots[0], pattern, what, folder=folder)


def _folder(roots: list[Path], name: str, content: str, what: str) -> Path:
    """First folder of that name that holds files of that kind (several archives have a `trainval` folder)."""
    for root in roots:
        for path in find_all(root, name, folder=True):
            if any(path.glob(content)):
                return path
    raise FileNotFoundError(f"{roots[0]}: no folder '{name}' with '{content}' files. They are {what}.")


def context_to_voc(labels: Path) -> dict[int, int]:
    """{id among the 459 classes of PASCAL-Context: id among the 21 of PASCAL VOC}, from `labels.txt`.

    Raises:
        ValueError: a class of PASCAL VOC is not in the list.
    """
    lines = re.findall(r"^\s*(\d+)\s*:\s*(.+?)\s*$", read_text(labels), flags=re.MULTILINE)
    ids = {name: int(number) for number, name in lines}
    mapping = {}
    for index, name in enumerate(PASCAL_CLASSES[1:], start=1):
        known = [ids[other] for other in OTHER_NAMES.get(name, (name,)) if other in ids]
        if not known:
            raise ValueError(f"{labels}: has no class '{name}' (found {len(ids)} classes, expected 459).")
        mapping[known[0]] = index
    return mapping


def _prepare_photo(photo: _Photo) -> Outcome:
    folder = "VOC12" if photo.voc12 else "pascal-context"
    outputs = {
        photo.target / "JPEGImages" / f"{photo.name}.jpg": photo.image,
        photo.target / "pascal-context" / "trainval" / f"{photo.name}.mat": photo.context,
        photo.target / "human_parts" / f"{photo.name}.mat": photo.parts,
        photo.target / "semseg" / folder / f"{photo.name}.png": photo.voc12,
    }
    todo = missing(list(outputs))
    for path in todo:
        source = outputs[path]
        if source is None:
            write_png(path, _semseg(photo))
            continue
        if not source.is_file():
            raise FileNotFoundError(f"{source}: missing, though '{photo.name}' is in the split lists.")
        _check_readable(path, source)
        copy_file(source, path)
    return Outcome(written=len(todo), kept=len(outputs) - len(todo))


def _check_readable(target: Path, source: Path) -> None:
    if source.suffix != ".mat":
        if cv2.imread(str(source), cv2.IMREAD_REDUCED_GRAYSCALE_8) is None:
            raise ValueError(f"{source}: cannot be decoded. Unpack it from its archive again.")
    elif target.parent.name == "trainval":
        read_label_map(source)
    else:
        read_objects(source)


def _semseg(photo: _Photo) -> NDArray[np.uint8]:
    """21-class map from the 459 classes: what is no VOC class is background, what has no label is ignored."""
    label_map = read_label_map(photo.context)
    table = np.zeros(460, dtype=np.uint8)
    table[0] = IGNORE
    for context, voc in photo.classes.items():
        table[context] = voc
    return np.asarray(table[label_map])


def precompute_labels(job: tuple[Path, str]) -> Outcome:
    """Write `edge/<id>.png` and `human_parts_png/<id>.png` of one image, as the loader would compute it."""
    root, name = job
    edge, parts = root / "edge" / f"{name}.png", root / "human_parts_png" / f"{name}.png"
    todo = missing([edge, parts])
    if todo:
        label_map = read_label_map(root / "pascal-context" / "trainval" / f"{name}.mat")
        if edge in todo:
            write_png(edge, (edges_from_classes(label_map)[..., 0] * 255).astype(np.uint8))
        if parts in todo:
            path = root / "human_parts" / f"{name}.mat"
            size = (int(label_map.shape[0]), int(label_map.shape[1]))
            write_png(parts, human_parts_from_objects(read_objects(path), size, path).astype(np.uint8))
    return Outcome(written=len(todo), kept=2 - len(todo))
