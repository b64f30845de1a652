"""mOSD from the point clouds of PointCloudLibrary/data, or from frames that were converted without loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.find import find_files
from mtvision.core.registry import PREPARATIONS
from mtvision.data.decode import read_image
from mtvision.data.maps.fixed import read_deep_png, read_label_png
from mtvision.data.mosd import MILLIMETRES, STARTS, objects_of
from mtvision.data.prepare.geometry import Camera, normals_from_depth
from mtvision.data.prepare.pcd import Cloud, read_pcd
from mtvision.data.prepare.sources import by_name, check_counts, check_source, find_all, write_note
from mtvision.data.prepare.work import Outcome, missing, run_jobs, write_npy, write_png
from mtvision.protocols.mosd import MOSD_SPLITS

CAMERA = Camera(focal_x=525.0, focal_y=525.0, centre_x=319.5, centre_y=239.5)
"""Reproduces the x and y that the clouds store."""
WINDOW = 11
"""Pixels across the planes of the normals; objects are small, so fewer than for rooms."""
AGAIN = "Convert the cloud again."
FIELDS = ("label", "z", "rgba")
NOT_ORGANISED = ("test43", "test56", "test58")
"""Clouds of the published set whose points do not lie on the pixels of a picture."""
NOTES = [
    "normals were computed here: planes fitted to the inverse depth in 11x11 pixels",
    f"{', '.join(NOT_ORGANISED)} are not organised and are left out: their points have no pixels",
]


@dataclass(frozen=True)
class Frame:
    """Arrays of one frame.

    Args:
        rgb: (H, W, 3), 8 bits.
        depth: millimetres, (H, W), 0 = none.
        label: ids of parts, (H, W), 0 = none.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    label: NDArray[np.uint8]


@dataclass(frozen=True)
class _Job:
    source: Path
    name: str
    target: Path


@PREPARATIONS.register_module("mosd")
def prepare_mosd(
    source: Path,
    target: Path,
    *,
    workers: int = 1,
    progress: bool = True,
    expected: Mapping[str, int] | None = MOSD_SPLITS,
) -> Outcome:
    """Write the folder that `Mosd` reads.

    Args:
        source: folder that holds `learn*.pcd` and `test*.pcd`, at any depth; or one with `rgb/`, `depth/` and
            `label/`.
        target: the data set's folder; existing files are kept.
        workers: processes.
        progress: show a bar.
        expected: {split: number of images}; None checks nothing.

    Raises:
        FileNotFoundError: there are neither clouds nor converted frames.
        ValueError: source and target are one folder.
    """
    check_source(source, target)
    frames = source / "rgb"
    files = find_files(frames, (".png",), depth=0).files if frames.is_dir() else {}
    if not files:
        files = by_name(
            path for start in STARTS.values() for path in find_all(source, f"{start}*.pcd", outside=target)
        )
    wanted = {name: path for name, path in files.items() if name.startswith(tuple(STARTS.values()))}
    if not wanted:
        raise FileNotFoundError(
            f"{source}: holds neither learn*.pcd and test*.pcd nor rgb/learn*.png. Take segmentation/mOSD of "
            "github.com/PointCloudLibrary/data."
        )
    jobs = [_Job(path, name, target) for name, path in wanted.items() if name not in NOT_ORGANISED]
    outcome = run_jobs(_prepare_frame, jobs, workers=workers, title="mOSD frames", progress=progress)
    outcome.notes += NOTES
    done = [job.name for job in jobs if not missing(_outputs(job))]
    names = {split: [name for name in done if name.startswith(start)] for split, start in STARTS.items()}
    check_counts("mOSD", names, expected, outcome)
    outcome.dataset = "Mosd"
    write_note(target, "mosd", source, outcome, [("window", WINDOW)])
    return outcome


def _outputs(job: _Job) -> list[Path]:
    pictures = [job.target / kind / f"{job.name}.png" for kind in ("rgb", "depth", "label")]
    return [*pictures, job.target / "normals" / f"{job.name}.npy"]


def _prepare_frame(job: _Job) -> Outcome:
    paths = _outputs(job)
    frame = _of_cloud(job.source) if job.source.suffix.lower() == ".pcd" else _converted(job)
    outcome = Outcome(notes=contradictions(job.name, frame))
    lacking = missing(paths)
    outcome.kept = len(paths) - len(lacking)
    pictures: tuple[NDArray[Any], ...] = (frame.rgb, frame.depth, frame.label)
    for path, array in zip(paths, pictures, strict=False):
        if path in lacking:
            write_png(path, array)
    if paths[-1] in lacking:
        normals = normals_from_depth(frame.depth / MILLIMETRES, CAMERA, window=WINDOW)
        write_npy(paths[-1], normals.astype(np.float16))  # within 0.03 degrees
    outcome.written = len(lacking)
    return outcome


def _of_cloud(path: Path) -> Frame:
    return frame_of(path, read_pcd(path))


def _converted(job: _Job) -> Frame:
    root = job.source.parents[1]
    depth = read_deep_png(root / "depth" / f"{job.name}.png", "a depth file", AGAIN)
    label = read_label_png(root / "label" / f"{job.name}.png")
    rgb = read_image(job.source)
    if not depth.shape == label.shape == rgb.shape[:2]:
        raise ValueError(f"{job.source}: its picture, depth and label differ in size. {AGAIN}")
    objects_of(root / "label" / f"{job.name}.png", label, depth)  # refuses other ids
    return Frame(rgb, depth, label.astype(np.uint8))


def frame_of(path: Path, cloud: Cloud) -> Frame:
    """The arrays of an organised cloud.

    Raises:
        ValueError: it is not organised, a field is missing, or a depth does not fit into 16 bits.
    """
    if cloud.height == 1:
        raise ValueError(
            f"{path}: the cloud is not organised (HEIGHT 1, {cloud.width} points), so its points have no "
            "pixels. Leave the file out."
        )
    lacking = [name for name in FIELDS if name not in cloud.fields]
    if lacking:
        raise ValueError(f"{path}: has the fields {', '.join(cloud.fields)}, '{lacking[0]}' is needed.")
    label, z, rgba = (cloud.fields[name] for name in FIELDS)
    if not (np.rint(label) == label).all() or rgba.dtype.itemsize != 4:
        raise ValueError(
            f"{path}: labels of type {label.dtype} and colours of type {rgba.dtype}, expected whole numbers "
            "and 4 bytes. Take the published clouds."
        )
    depth = np.nan_to_num(np.round(z.astype(np.float64) * MILLIMETRES))
    if depth.min() < 0 or depth.max() > np.iinfo(np.uint16).max or int(label.max()) > np.iinfo(np.uint8).max:
        raise ValueError(
            f"{path}: depth runs from {depth.min():g} to {depth.max():g} mm and labels to {label.max()}, "
            "expected 0..65535 mm and labels in 0..255. Take the published clouds."
        )
    packed = rgba.view(np.uint32)  # clouds may call the same bytes a real number
    rgb = np.stack([packed >> shift & 255 for shift in (16, 8, 0)], axis=2).astype(np.uint8)
    return Frame(rgb, depth.astype(np.uint16), label.astype(np.uint8))


def contradictions(name: str, frame: Frame) -> list[str]:
    """A note if a frame has labels where it has no depth."""
    count = int(((frame.label > 0) & (frame.depth == 0)).sum())
    if not count:
        return []
    return [
        f"{name}: its labels contradict its depth, {count} of {frame.label.size} pixels have a label and no "
        "depth. The loader gives these pixels no label"
    ]
