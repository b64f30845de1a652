"""NYUD-v2 from the official labelled set, or from the packaged tarball."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.foreign import reading
from mtvision.core.files.mat import load_mat
from mtvision.core.registry import PREPARATIONS
from mtvision.data.derive import edges_from_classes
from mtvision.data.prepare.geometry import KINECT_NYU, normals_from_depth
from mtvision.data.prepare.sources import (
    check_counts,
    check_source,
    find,
    require,
    unpack_tar,
    write_note,
)
from mtvision.data.prepare.work import Outcome, missing, run_jobs, write_npy, write_png
from mtvision.data.published import read_split
from mtvision.protocols.nyudv2 import NYUD_SPLITS
from mtvision.runtime.atomic import write_text

CROP = (slice(45, 470), slice(40, 600))
"""Rows and columns without the white border of registration: 425x560, as in the packaged set."""

KINDS = {"images": "png", "segmentation": "png", "edge": "png", "normals": "png", "depth": "npy"}
VARIABLES = {"images": (3, 640, 480), "depths": (640, 480), "labels": (640, 480), "instances": (640, 480)}

NOTES = [
    "normals were computed here from the in-painted depth (plane fits over 21x21 pixels). The "
    "packaged normals come from another program, so normals scores are not comparable with published ones",
    "edges were computed here from the outlines of labelled objects. The packaged set's edges come "
    "from another program, so edge scores are not comparable with published ones",
]


@dataclass(frozen=True)
class _Frame:
    file: Path
    index: int
    name: str
    target: Path
    classes: tuple[int, ...]


@PREPARATIONS.register_module("nyudv2")
def prepare_nyudv2(
    source: Path,
    target: Path,
    *,
    workers: int = 1,
    progress: bool = True,
    expected: Mapping[str, int] | None = NYUD_SPLITS,
) -> Outcome:
    """Write the folder that `NYUDv2(packaging="invpt")` reads.

    Args:
        source: folder with `NYUDv2.tar.gz`, or with `nyu_depth_v2_labeled.mat`, `splits.mat` (or `train.txt`
            and `val.txt` with four-digit frame numbers counted from 1) and `classMapping40.mat`.
        target: the data set's folder; existing files are kept, so an interrupted run continues.
        workers: processes.
        progress: show a bar.
        expected: {split: number of images}; None checks nothing.

    Raises:
        FileNotFoundError: a needed file is not in `source`.
        ValueError: a file has the wrong structure.
    """
    check_source(source)
    tarball = find(source, "NYUDv2.tar.gz") or find(source, "NYUDv2.tgz")
    if tarball is not None:
        outcome = unpack_tar(tarball, target, strip="NYUDv2", progress=progress)
        ids = {split: read_split(target / "gt_sets" / f"{split}.txt") for split in ("train", "val")}
        for name in sorted({name for names in ids.values() for name in names}):
            outcome.problems += [f"{path}: not in the archive." for path in missing(_outputs(target, name))]
    else:
        file = require(source, "nyu_depth_v2_labeled.mat", "NYU Depth v2's labelled set (2.8 GB, MATLAB 7.3)")
        frames = _check_release(file)
        ids = _split_ids(source, frames)
        classes = _class_mapping(source)
        jobs = [
            _Frame(file, int(name) - 1, name, target, classes)
            for name in sorted(name for names in ids.values() for name in names)
        ]
        outcome = run_jobs(_prepare_frame, jobs, workers=workers, title="NYUD-v2 frames", progress=progress)
        outcome.notes += NOTES
        for split, names in ids.items():
            write_text(target / "gt_sets" / f"{split}.txt", "\n".join(names) + "\n")
    check_counts("NYUD-v2", ids, expected, outcome)
    outcome.dataset = "NYUDv2"
    write_note(target, "nyudv2", source, outcome, [("crop", "425x560")])
    return outcome


def _outputs(target: Path, name: str) -> list[Path]:
    return [target / kind / f"{name}.{ending}" for kind, ending in KINDS.items()]


def _check_release(file: Path) -> int:
    """Number of frames of a labelled set whose variables have the known shapes."""
    with (
        reading(
            file, "is not a readable HDF5 (MATLAB 7.3) file", "Download it again; the full file has 2.8 GB."
        ),
        h5py.File(file) as content,
    ):
        shapes = {name: content[name].shape for name in VARIABLES if name in content}
    for name, shape in VARIABLES.items():
        if name not in shapes or shapes[name][1:] != shape:
            raise ValueError(
                f"{file}: variable '{name}' is {shapes.get(name, 'missing')}, expected (frames, "
                f"{shape}) as HDF5 stores MATLAB's axes. Is this nyu_depth_v2_labeled.mat?"
            )
    return int(shapes["images"][0])


def _split_ids(source: Path, frames: int) -> dict[str, list[str]]:
    """Four-digit frame names, counted from 1, per split."""
    lists = {split: find(source, f"{split}.txt") for split in ("train", "val")}
    if all(lists.values()):
        ids = {split: read_split(path) for split, path in lists.items() if path}
    else:
        file = require(
            source,
            "splits.mat",
            "NYU Depth v2's official split (variables trainNdxs and testNdxs); or give lists train.txt and "
            "val.txt of frame numbers 0001..1449",
        )
        content = _load(file, ("trainNdxs", "testNdxs"))
        pairs = (("train", "trainNdxs"), ("val", "testNdxs"))
        ids = {split: [f"{int(i):04d}" for i in sorted(content[key].ravel())] for split, key in pairs}
    for split, names in ids.items():
        for name in names:
            if not name.isdigit() or not 1 <= int(name) <= frames:
                raise ValueError(
                    f"split {split}: there is no frame '{name}'; the labelled set has 1..{frames}."
                )
    twice = set(ids["train"]) & set(ids["val"])
    if twice:
        raise ValueError(f"frame {min(twice)} is in both splits; scores on it would be worthless.")
    return ids


def _class_mapping(source: Path) -> tuple[int, ...]:
    """Index = one of the 894 labels (0 = unlabelled), value = one of the 40 classes (0 = unlabelled)."""
    file = require(
        source,
        "classMapping40.mat",
        "the mapping of the 894 labels to 40 classes (variable mapClass; Gupta et al., CVPR 2013)",
    )
    mapping = _load(file, ("mapClass",))["mapClass"].ravel().astype(int)
    if len(mapping) != 894 or not 1 <= mapping.min() <= mapping.max() <= 40:
        raise ValueError(
            f"{file}: mapClass has {len(mapping)} entries from {mapping.min()} to {mapping.max()}, "
            "expected 894 entries from 1 to 40. The file for 13 classes does not serve."
        )
    return (0, *(int(value) for value in mapping))


def _load(file: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    content = load_mat(file, names, remedy="Download it again.")
    for name in names:
        if name not in content:
            raise ValueError(f"{file}: has no variable '{name}'.")
    return {name: np.asarray(content[name]) for name in names}


@lru_cache(maxsize=1)
def _open(file: Path) -> h5py.File:
    return h5py.File(file)


def _prepare_frame(frame: _Frame) -> Outcome:
    outputs = _outputs(frame.target, frame.name)
    todo = missing(outputs)
    if not todo:
        return Outcome(kept=len(outputs))
    with reading(frame.file, f"frame {frame.name} cannot be read", "Download the file again."):
        content = _open(frame.file)
        image = content["images"][frame.index].transpose(2, 1, 0)
        depth = content["depths"][frame.index].T.astype(np.float32)
        labels = content["labels"][frame.index].T.astype(np.int64)
        instances = content["instances"][frame.index].T
    if labels.max() >= len(frame.classes):
        raise ValueError(f"{frame.file}: frame {frame.name} has label {labels.max()}, expected 0..894.")
    objects = labels * 256 + instances
    normals = normals_from_depth(depth, KINECT_NYU)
    encoded = np.round((np.nan_to_num(normals, nan=0.0) + 1) / 2 * 255).astype(np.uint8)
    maps = {
        "images": image,
        "segmentation": np.asarray(frame.classes, dtype=np.uint8)[labels],
        "edge": (edges_from_classes(objects)[..., 0] * 255).astype(np.uint8),
        "normals": encoded,
        "depth": depth,
    }
    for path in todo:
        cropped = np.ascontiguousarray(maps[path.parent.name][CROP])
        (write_npy if path.suffix == ".npy" else write_png)(path, cropped)
    return Outcome(written=len(todo), kept=len(outputs) - len(todo))
