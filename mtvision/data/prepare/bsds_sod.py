"""BSDS with saliency from the repositories BIDS/BSDS500 and ArcherFMY/sal_eval_toolbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtvision.core.registry import PREPARATIONS
from mtvision.data.bsds_sod import pack_annotators, read_mask
from mtvision.data.decode import read_image
from mtvision.data.prepare.sources import by_name, check_counts, check_source, find_all, write_note
from mtvision.data.prepare.work import Outcome, copy_file, missing, run_jobs, write_png
from mtvision.metrics.boundary.protocols import BSDS
from mtvision.metrics.boundary.readers import read_truth
from mtvision.protocols.bsds_sod import BSDS_SPLITS, MOST_ANNOTATORS

MASKS = ("SOD/*.png", "saliency/*.png")
"""Where the masks of salient objects are: in the toolbox's repository, or in a folder of that name."""


@dataclass(frozen=True)
class _Job:
    image: Path
    truth: Path | None
    mask: Path | None
    split: str
    target: Path


@PREPARATIONS.register_module("bsds_sod")
def prepare_bsds_sod(
    source: Path,
    target: Path,
    *,
    workers: int = 1,
    progress: bool = True,
    expected: Mapping[str, int] | None = BSDS_SPLITS,
) -> Outcome:
    """Write the folder that `BSDSSaliency` reads.

    Args:
        source: folder with both repositories, at any depth: `images/{train,val}/*.jpg`,
            `groundTruth/{train,val}/*.mat` and `SOD/*.png`.
        target: the data set's folder; existing files are kept.
        workers: processes.
        progress: show a bar.
        expected: {split: number of images}; None checks nothing.

    Raises:
        FileNotFoundError: there are no photographs.
        ValueError: source and target are one folder.
    """
    check_source(source, target)
    masks = by_name(path for pattern in MASKS for path in find_all(source, pattern, outside=target))
    jobs = []
    for split in BSDS_SPLITS:
        truths = by_name(find_all(source, f"groundTruth/{split}/*.mat", outside=target))
        images = by_name(find_all(source, f"images/{split}/*.jpg", outside=target))
        jobs += [
            _Job(image, truths.get(name), masks.get(name), split, target) for name, image in images.items()
        ]
    if not jobs:
        raise FileNotFoundError(
            f"{source}: no images/train/*.jpg in this folder or below. Take github.com/BIDS/BSDS500 and "
            "tools/GroundTruth/SOD of github.com/ArcherFMY/sal_eval_toolbox."
        )
    outcome = run_jobs(_prepare_image, jobs, workers=workers, title="BSDS photographs", progress=progress)
    done = [job for job in jobs if not missing(_outputs(job))]
    names = {split: [job.image.stem for job in done if job.split == split] for split in BSDS_SPLITS}
    check_counts("BSDS with saliency", names, expected, outcome)
    outcome.dataset = "BSDSSaliency"
    write_note(target, "bsds_sod", source, outcome, [])
    return outcome


def _outputs(job: _Job) -> list[Path]:
    name = job.image.stem
    maps = [job.target / kind / f"{name}.png" for kind in ("annotators", "saliency")]
    return [job.target / "images" / job.split / f"{name}.jpg", *maps]


def _prepare_image(job: _Job) -> Outcome:
    paths = _outputs(job)
    lacking = missing(paths)
    if not lacking:
        return Outcome(kept=len(paths))
    if job.truth is None or job.mask is None:
        what = (
            f"groundTruth/{job.split}/{job.image.stem}.mat"
            if job.truth is None
            else f"SOD/{job.image.stem}.png"
        )
        raise ValueError(f"{job.image}: its label {what} is missing. Take both repositories whole.")
    size = read_image(job.image).shape[:2]
    maps = read_truth(job.truth, BSDS)
    mask = read_mask(job.mask)
    drew = sum(bool(drawn.any()) for drawn in maps)  # a packed map cannot tell who drew nothing
    if not 1 <= len(maps) <= MOST_ANNOTATORS or drew < len(maps):
        raise ValueError(
            f"{job.truth}: {drew} of {len(maps)} annotators drew boundaries, expected 1 to "
            f"{MOST_ANNOTATORS} and all of them."
        )
    for path, shape in [(job.truth, drawn.shape) for drawn in maps] + [(job.mask, mask.shape)]:
        if shape != size:
            raise ValueError(f"{path}: {shape[0]}x{shape[1]} pixels, its photograph has {size[0]}x{size[1]}.")
    copy_file(job.image, paths[0])
    write_png(paths[1], pack_annotators(maps))
    write_png(paths[2], (mask * np.uint8(255)).astype(np.uint8))
    return Outcome(written=len(paths))
